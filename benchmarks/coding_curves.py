"""What is coded at how many bits, and what a network still makes of it: one curve at a time."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.figures import rate
from benchmarks.jobs import run_measured
from benchmarks.pictures import SHARED, SPECS
from benchmarks.record import Measured, Options

if TYPE_CHECKING:
    from benchmarks.split_pictures import Pictures
    from scotoma.models.classifier import Classifier
    from scotoma.models.split_model import SplitModel

__all__ = [
    "FEATURE_CURVES",
    "PICTURE_CURVES",
    "measure_curve",
    "measure_memory",
    "measure_speed",
    "open_classifier",
    "trained_split",
]

PICTURE_CURVES: dict[str, tuple[int, ...]] = {
    "jpeg": (3, 8, 15, 25, 40, 60, 80, 92),
    "webp": (1, 8, 20, 35, 50, 70, 85, 95),
    "avif": (10, 20, 30, 40, 50, 60, 75, 90),
    "hevc": (46, 42, 38, 34, 30, 26, 22, 16),
}
"""Picture codecs and their settings."""

FEATURE_CURVES: dict[str, tuple[int | None, ...]] = {
    "entropy": (64, 48, 32, 24, 16, 12, 8, 4, None),
    "hevc": (45, 40, 35, 30, 25, 20, 14, 8, None),
    "av1": (63, 58, 52, 44, 36, 28, 20, 10, None),
    "webp": (None,),
    "png": (None,),
}
"""Codecs of latents and their quantizers."""

_BATCH = 50
_FITTED = 300
_REPEATS = 30
_MEBI = 2**20


def open_classifier(name: str) -> Classifier:
    """Return a shared or embedded model by its short name."""
    from scotoma.models.spec import load_classifier

    if name.startswith("cifar10_"):
        from benchmarks.cifar_resnet import load_cifar_resnet

        return load_cifar_resnet(name)
    return load_classifier(SPECS.get(name, name))


def trained_split(model: str, at: str, variant: str, options: Options) -> Path:
    """Return where the benchmark ``split`` keeps a trained bottleneck."""
    return options.cache / "split" / f"{model}-{at}-seed{options.seed}" / f"{variant}.safetensors"


@cache
def _pictures(model: str, *, quick: bool) -> Pictures:
    from benchmarks.split_pictures import open_pictures

    return open_pictures(model, open_classifier(model).preprocessing, quick=quick)


@cache
def _split(model: str, at: str, path: Path | None, *, quick: bool) -> SplitModel:
    """Return a trained split, or the plain features of a cut; its coder fitted to training data."""
    from scotoma.models.split_model import load_split, open_split

    classifier, pictures = open_classifier(model), _pictures(model, quick=quick)
    network = classifier.network
    assert isinstance(network, torch.nn.Module)
    training = list(torch.split(pictures.normalized(pictures.train[:_FITTED]), _BATCH))
    if path is not None:
        split = load_split(path, network=network)
    else:
        split = open_split(classifier, at)
        split.fit_range(training)
    if split.coder is None:
        with torch.no_grad():
            split.fit_coder(training)
    return split


def measure_curve(config: dict[str, Any], path: Path | None, options: Options) -> Measured:
    """Code test pictures, or their latents, at each setting, and ask the network.

    Args:
        config: Of the row.
        path: Of the trained split; None for plain features and for pictures.
        options: Of the benchmark.
    """
    model, count = config["model"], config["count"]
    pictures = _pictures(model, quick=options.quick)
    images, labels = pictures.test[:count], pictures.test_labels[:count]
    classifier = open_classifier(model)
    plain = _decisions(classifier.logits, pictures.normalized(images))
    points = []
    for setting in config["settings"]:
        if config["subject"] == "picture":
            coded = [_code_picture(image, config["codec"], setting) for image in images]
            size = sum(found for found, _ in coded)
            seen = torch.stack([torch.from_numpy(pixels) for _, pixels in coded])
            answers = _decisions(classifier.logits, pictures.normalized(seen))
        else:
            split = _split(model, config["at"], path, quick=options.quick)
            size, latents = _code_latents(split, pictures.normalized(images), config, setting)
            answers = _decisions(split.answer, latents)
        points.append(
            {
                "setting": setting,
                "bits_per_pixel": round(8 * size / (len(images) * images[0, 0].numel()), 5),
                "bytes_per_picture": round(size / len(images), 1),
                "accuracy": rate(int((answers == labels).sum()), len(labels)),
                "agreement": rate(int((answers == plain).sum()), len(labels)),
            }
        )
    values = {
        "plain_accuracy": rate(int((plain == labels).sum()), len(labels)),
        "points": points,
    }
    return Measured(len(labels), values)


def _decisions(ask: Callable[[Tensor], Any], inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([ask(batch).argmax(1).cpu() for batch in torch.split(inputs, _BATCH)])


def _code_latents(
    split: SplitModel, images: Tensor, config: dict[str, Any], quantizer: int | None
) -> tuple[int, Tensor]:
    from scotoma.images.bitstream import CodecSettings, decode_latents, encode_latents

    with torch.no_grad():
        sent = torch.cat([split.encode(batch) for batch in torch.split(images, _BATCH)]).numpy()
    settings = CodecSettings(config["codec"], quantizer)
    coder = split.coder if config["codec"] == "entropy" else None
    stream = encode_latents(sent, settings, model=coder)
    return len(stream), torch.from_numpy(decode_latents(stream, model=coder).latents)


def _code_picture(image: Tensor, codec: str, setting: int) -> tuple[int, NDArray[np.uint8]]:
    """Return the size of a coded picture and what a reader sees, ``(3, H, W)``."""
    from scotoma.images.read import decode_picture
    from scotoma.images.write import Encoding, encode_picture

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if codec == "hevc":
        size, seen = _code_hevc(pixels, setting)
    else:
        encoding = Encoding(codec, setting)
        data = encode_picture(pixels, encoding)
        size, seen = len(data), decode_picture(data, name="coded" + encoding.suffix).pixels
    return size, np.ascontiguousarray(seen.transpose(2, 0, 1))


def _code_hevc(pixels: NDArray[np.uint8], quantizer: int) -> tuple[int, NDArray[np.uint8]]:
    import av

    height, width = pixels.shape[:2]
    encoder = av.CodecContext.create("libx265", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    details = f"qp={quantizer}:keyint=1:info=0:pools=none:frame-threads=1:log-level=none"
    encoder.options = {"x265-params": details, "preset": "medium"}
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    payload = b"".join(bytes(p) for ask in (frame, None) for p in encoder.encode(ask))
    decoder = av.CodecContext.create("hevc", "r")
    (seen,) = [f for p in (av.Packet(payload), None) for f in decoder.decode(p)]
    return len(payload), seen.to_ndarray(format="rgb24").astype(np.uint8)


def measure_speed(config: dict[str, Any], path: Path | None, options: Options) -> Measured:
    """Time the camera's and the server's work on one picture, beside the whole network's."""
    from scotoma.evaluate.metrics.coding import median_latency_ms
    from scotoma.images.bitstream import CodecSettings, decode_latents, encode_latents

    model = config["model"]
    split = _split(model, config["at"], path, quick=options.quick)
    classifier = open_classifier(model)
    pictures = _pictures(model, quick=options.quick)
    images = pictures.normalized(pictures.test[:1])
    repeats = options.count(_REPEATS, 3)

    def timed(work: Callable[[], object]) -> float:
        work()
        with torch.no_grad():
            return round(median_latency_ms(work, repeats=repeats), 2)

    with torch.no_grad():
        latents = split.encode(images)
    values: dict[str, Any] = {
        "full_ms": timed(lambda: classifier.logits(images)),
        "head_encode_ms": timed(lambda: split.encode(images)),
        "decode_tail_ms": timed(lambda: split.answer(latents)),
        "latent": list(split.latent_shape),
    }
    frame = latents[0].numpy()
    for name in FEATURE_CURVES:
        coder = split.coder if name == "entropy" else None
        settings = CodecSettings(name)
        stream = encode_latents(frame, settings, model=coder)
        values[name] = {
            "code_ms": timed(partial(encode_latents, frame, settings, model=coder)),
            "read_ms": timed(partial(decode_latents, stream, model=coder)),
            "bytes": len(stream),
        }
    return Measured(repeats, values)


def measure_memory(config: dict[str, Any], options: Options) -> Measured:
    """Encode some of a video's frames with the command, and take its peak memory."""
    from scotoma.models.split_model import save_split

    folder = options.cache / "coding" / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    split = _split("embedded", config["at"], None, quick=True)
    network = open_classifier("embedded").network
    assert isinstance(network, torch.nn.Module)
    save_split(folder / "split.safetensors", split, network)
    video = SHARED / "data" / "video" / "people.mp4"
    words = [
        *("encode", video, "-o", folder / "out", "--split", folder / "split.safetensors"),
        *("--every", str(config["every"])),
    ]
    # A process counts the memory of the one that started it; this one is large by now.
    with multiprocessing.get_context("spawn").Pool(1) as small:
        code, peak = small.apply(run_measured, (words, folder / "log.txt"))
    if code != 0:
        raise RuntimeError(f"scotoma ended with {code}; see {folder / 'log.txt'}")
    line = json.loads((folder / "out" / "manifest.jsonl").read_text("utf-8"))
    size = (folder / "out" / "people.latents").stat().st_size
    frames = line["facts"]["frames"]
    shutil.rmtree(folder)
    values = {"peak_mib": round(peak / _MEBI, 1), "stream_bytes": size}
    return Measured(frames, {**values, "seconds": line["seconds"]})
