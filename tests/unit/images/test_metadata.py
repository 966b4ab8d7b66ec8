from __future__ import annotations

import io
import re
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffImagePlugin
from support.bad_files import jpeg_segment, sample, sample_file
from support.profiles import rgb_profile

from scotoma.core.errors import UnknownNameError
from scotoma.images.metadata import KEEPABLE, Metadata, parse_keep
from scotoma.images.picture import Picture
from scotoma.images.read import decode_picture
from scotoma.images.write import Encoding, encode_picture

FORMATS = ("png", "jpeg", "webp", "avif")
SECRETS = (
    b"SecretModel",
    b"SecretArtist",
    b"SecretNote",
    b"SecretSerial",
    b"SecretComment",
    b"SecretXmp",
    b"SecretIptc",
    b"SecretTrailer",
    b"SecretText",
    b"SecretName",
)
CARRIERS = (b"Exif", b"eXIf", b"EXIF", b"xpacket", b"ns.adobe.com", b"Photoshop", b"ICC_PROFILE")


def private_exif() -> Image.Exif:
    rational = TiffImagePlugin.IFDRational
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "SecretModel"
    exif[0x013B], exif[0x8298], exif[0x010E] = "SecretArtist", b"\xa9 Jos\xe9", "A description"
    exif[0x0132] = "2024:01:02 03:04:05"
    exif[0x0112] = 1
    exif[0x8769] = {
        0x9003: "2024:01:02 03:04:05",
        0x829A: rational(1, 250),
        0x8827: 400,
        0x927C: b"SecretNote",
        0xA431: "SecretSerial",
        0xA430: "SecretName",
        0x9286: b"ASCII\0\0\0SecretText",
    }
    exif[0x8825] = {1: "N", 2: (rational(52), rational(31), rational(7)), 3: "E"}
    return exif


def private_jpeg(thumbnail: bytes) -> bytes:
    """Return a JPEG with all that cameras and editors put around a picture."""
    exif = private_exif().tobytes()
    # IFD1, the thumbnail's directory, follows the blocks of IFD0: link it by hand.
    tiff = bytearray(exif[6:])
    order = "little" if tiff[:2] == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)
    link = start + 2 + 12 * int.from_bytes(tiff[start : start + 2], order)
    tiff[link : link + 4] = len(tiff).to_bytes(4, order)
    at = len(tiff) + 2 + 3 * 12 + 4
    tiff += (3).to_bytes(2, order)
    for tag, value in ((0x0103, 6), (0x0201, at), (0x0202, len(thumbnail))):
        entry = (tag, 2), (4, 2), (1, 4), (value, 4)
        tiff += b"".join(number.to_bytes(size, order) for number, size in entry)
    tiff += bytes(4) + thumbnail
    xmp = b"http://ns.adobe.com/xap/1.0/\0<?xpacket?><x>SecretXmp</x>"
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0fSecretIptc"
    jpeg = sample_file("JPEG", icc_profile=rgb_profile(gamma=1.8), comment=b"SecretComment")
    trailer = b"\0\0\0\x18ftypmp42" + b"SecretTrailer" * 40
    around = jpeg_segment(0xE1, b"Exif\0\0" + bytes(tiff))
    around += jpeg_segment(0xE1, xmp) + jpeg_segment(0xED, iptc)
    return jpeg[:2] + around + jpeg[2:] + trailer


THUMBNAIL = sample_file("JPEG", sample(16, 12, seed=9))


@pytest.fixture(scope="module")
def private() -> Picture:
    data = private_jpeg(THUMBNAIL)
    # What is to be removed is really there, where programs look for it.
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        start = exif.get_ifd(0x8825)
        assert start[1] == "N"
        assert exif.get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(THUMBNAIL)
    assert THUMBNAIL in data
    return decode_picture(data, name="a.jpg", keep_profile=True)


def encode(picture: Picture, format_: str, keep: str = "") -> bytes:
    return encode_picture(
        picture.pixels, Encoding(format_), metadata=picture.metadata, keep=parse_keep(keep)
    )


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_survives_by_default(private: Picture, format_: str) -> None:
    data = encode(private, format_)
    for secret in (*SECRETS, *CARRIERS, b"2024:", b"Maker", b"Jos", THUMBNAIL, THUMBNAIL[:200]):
        assert secret not in data
    plain = encode_picture(private.pixels, Encoding(format_))
    assert data == plain, "the file says nothing but its pixels"
    with Image.open(io.BytesIO(data)) as image:
        assert not image.getexif()
        assert not {"icc_profile", "xmp", "exif", "comment", "photoshop"} & image.info.keys()


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_named_is_kept_and_nothing_else(private: Picture, format_: str) -> None:
    data = encode(private, format_, "date,camera,copyright,exposure,icc,orientation")
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        details = exif.get_ifd(0x8769)
        assert exif[0x0132] == details[0x9003] == "2024:01:02 03:04:05"
        assert (exif[0x010F], exif[0x0110]) == ("Maker", "SecretModel")
        assert exif[0x8298].encode("latin-1") == "© José".encode("latin-1")
        assert float(details[0x829A]) == pytest.approx(1 / 250)
        assert details[0x8827] == 400
        assert exif.get(0x0112, 1) == 1
        assert image.info["icc_profile"] == rgb_profile(gamma=1.8)
        assert 0x8825 not in exif
        assert exif.get_ifd(ExifTags.IFD.IFD1) == {}
        assert {0x927C, 0xA431, 0xA430, 0x9286}.isdisjoint(details)
    for secret in (*SECRETS[1:], THUMBNAIL, THUMBNAIL[:200], b"A description"):
        assert secret not in data


@pytest.mark.parametrize("format_", FORMATS)
def test_a_place_survives_only_by_its_own_name(private: Picture, format_: str) -> None:
    everything = ",".join(KEEPABLE.keys() - {"gps"})
    for keep, has_place in ((everything, False), ("gps", True)):
        data = encode(private, format_, keep)
        with Image.open(io.BytesIO(data)) as image:
            place = image.getexif().get_ifd(0x8825)
        assert (place.get(1) == "N") is has_place
        assert THUMBNAIL[:200] not in data


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_every_input_format_hands_its_tags_on(format_: str) -> None:
    exif = Image.Exif()
    exif.load(private_exif().tobytes())
    picture = decode_picture(sample_file(format_, exif=exif), name="a")
    assert {"artist", "camera", "copyright", "date", "description", "gps"} <= {
        *picture.metadata.names
    }
    with Image.open(io.BytesIO(encode(picture, "png", "date,camera"))) as image:
        assert image.getexif()[0x0132] == "2024:01:02 03:04:05"


def test_a_picture_turned_upright_does_not_say_that_it_lies() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode_picture(sample_file("JPEG", exif=exif), name="a")
    assert picture.metadata.names == ()
    for format_ in FORMATS:
        with Image.open(io.BytesIO(encode(picture, format_, "orientation,date"))) as image:
            assert image.size == (32, 48)
            assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    "value", ["x" * 2001, b"\xff\xd8\xff" * 20, tuple(range(17)), "", {1: 2}, None, ()]
)
def test_a_tag_is_no_place_to_hide_a_picture_in(value: Any) -> None:
    exif = Image.Exif()
    exif[0x8298] = value
    assert Metadata.from_exif(exif).names == ()


def test_a_fraction_without_denominator_cannot_break_the_writing() -> None:
    exif = Image.Exif()
    exif[0x011A] = TiffImagePlugin.IFDRational(1, 0)
    assert Metadata.from_exif(exif).to_exif(frozenset({"resolution"})) == b""


def test_its_repr_shows_names_only(private: Picture) -> None:
    text = repr(private)
    assert "gps" in text
    assert "camera" in text
    assert not re.search("Secret|2024|Maker", text)


def test_names_are_read_from_a_list() -> None:
    assert parse_keep("") == frozenset()
    assert parse_keep(" icc,date, ") == {"icc", "date"}
    with pytest.raises(UnknownNameError, match=r"no keepable metadata named 'dates'.*'date'"):
        parse_keep("icc,dates")
    with pytest.raises(UnknownNameError, match="thumbnail"):
        parse_keep("thumbnail")
    with pytest.raises(UnknownNameError):
        Metadata().to_exif(frozenset({"xmp"}))
    with pytest.raises(UnknownNameError):
        encode_picture(decode_picture(THUMBNAIL, name="a").pixels, Encoding(), keep={"makernote"})  # type: ignore[arg-type]


def test_no_name_reaches_what_must_never_survive() -> None:
    reachable = {tag for places in KEEPABLE.values() for _, tag in places}
    # MakerNote, UserComment, thumbnail, XMP, IPTC, Photoshop, serial numbers, owner, unique id.
    never = {0x927C, 0x9286, 0x0201, 0x0202, 0x02BC, 0x83BB, 0x8649, 0xA430, 0xA431, 0xA435, 0xA420}
    assert reachable.isdisjoint(never)


def test_the_block_is_deterministic(private: Picture) -> None:
    keep = parse_keep(",".join(KEEPABLE))
    assert private.metadata.to_exif(keep) == private.metadata.to_exif(keep)
    assert private.metadata.to_exif(frozenset()) == b""
