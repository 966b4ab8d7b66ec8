"""Encrypt in a transform pipeline: composed, in workers, and never pickled with its key."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from PIL import Image
from support.encryption import KEY, make_images
from support.tiny_models import make_picture
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from scotoma.core.errors import CipherKeyError, ImageError, SecretError
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings
from scotoma.protections.encrypt.transforms import Encrypt

PERMUTE = EncryptSettings("permute", 8)
ORTHOGONAL = EncryptSettings("orthogonal", 8)
SHUFFLE = EncryptSettings("shuffle", 8)
READING = Preprocessing((3, 32, 32))


class Pictures(Dataset[tuple[Tensor, int]]):
    """Six pictures behind a transform."""

    def __init__(self, transform: object, *, alike: bool = False) -> None:
        self._transform = transform
        self._alike = alike

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        picture = make_picture(0 if self._alike else number, 32, 32)
        return self._transform(Image.fromarray(picture)), number  # type: ignore[operator]


def _compose(encrypt: Encrypt) -> v2.Compose:
    return v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(READING.mean, READING.std),
            encrypt,
        ]
    )


def _plain(number: int) -> Tensor:
    pixels = torch.from_numpy(make_picture(number, 32, 32)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (READING.mean, READING.std))
    return (pixels - mean) / std


@pytest.mark.parametrize("settings", [PERMUTE, ORTHOGONAL], ids=lambda s: s.scheme)
@pytest.mark.parametrize("warm", [False, True])
def test_workers_encrypt_as_the_protection_does(settings: EncryptSettings, warm: bool) -> None:
    encrypt = Encrypt(settings, KEY, READING if warm else None)
    loader = DataLoader(
        Pictures(_compose(encrypt)), batch_size=2, num_workers=2, multiprocessing_context="fork"
    )
    found = torch.cat([batch for batch, _ in loader])
    images = torch.stack([_plain(number) for number in range(6)])
    expected = open_protection(settings).protect(images, KEY).data
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_workers_draw_orders_of_their_own() -> None:
    """Forked copies of one generator would give every worker the same orders."""
    loader = DataLoader(
        Pictures(_compose(Encrypt(SHUFFLE)), alike=True),
        batch_size=1,
        num_workers=2,
        multiprocessing_context="fork",
        generator=torch.Generator().manual_seed(0),
    )
    epochs = [[batch.numpy().tobytes() for batch, _ in loader] for _ in range(2)]
    assert len(set(epochs[0]) | set(epochs[1])) == 12


def test_torchs_seed_repeats_a_shuffle() -> None:
    encrypt, images = Encrypt(SHUFFLE), make_images(2)
    torch.manual_seed(5)
    first, second = encrypt(images), encrypt(images)
    torch.manual_seed(5)
    assert torch.equal(encrypt(images), first)
    assert not torch.equal(first, second)


def test_keyed_schemes_leave_torchs_randomness_alone() -> None:
    encrypt = Encrypt(PERMUTE, KEY)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encrypt(make_images(1))
    assert torch.equal(torch.rand(3), expected)


def test_one_picture_is_a_batch_of_one() -> None:
    encrypt, images = Encrypt(PERMUTE, KEY), make_images(2)
    assert torch.equal(encrypt(images[0]), encrypt(images)[0])
    with pytest.raises(ImageError, match=r"\(C, H, W\) or \(B, C, H, W\)"):
        encrypt(images[0, 0])


def test_a_missing_key_is_found_at_once() -> None:
    with pytest.raises(CipherKeyError, match="a key for scheme 'permute'"):
        Encrypt(PERMUTE)
    with pytest.raises(CipherKeyError, match="no key for the key-less"):
        Encrypt(SHUFFLE, KEY)


def test_the_key_does_not_travel() -> None:
    encrypt = Encrypt(PERMUTE, KEY, READING)
    for leak in (pickle.dumps, copy.deepcopy, lambda e: torch.save(e, io.BytesIO())):
        with pytest.raises(SecretError, match="fork"):
            leak(encrypt)
    assert repr(encrypt).count(KEY.key_id) == 1
    assert not encrypt.state_dict()


def test_spawned_workers_are_refused_with_advice() -> None:
    loader = DataLoader(
        Pictures(_compose(Encrypt(PERMUTE, KEY))), num_workers=1, multiprocessing_context="spawn"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch has its own word on it
        with pytest.raises(SecretError, match="start the data loader's workers by fork"):
            next(iter(loader))


def test_keyless_transforms_travel() -> None:
    encrypt = pickle.loads(pickle.dumps(Encrypt(EncryptSettings("mix", 8))))
    assert encrypt(make_images(1)).shape == (1, 3, 16, 16)
