"""What the rows of ``hardened`` measure: attacks, recognition, the server, and cost."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hardened_attacks import (
    block_brightness,
    components,
    eigenpictures,
    known_pairs,
    oracle,
    within,
)
from benchmarks.hardened_releases import (
    MEAN,
    natural_patterns,
    orders_of,
    pictures,
    release_of,
)
from benchmarks.pictures import MODELS
from benchmarks.record import Measured

__all__ = ["attack", "cost", "group", "learn", "recognize", "repeat", "solve"]

_FACES = MODELS.parent / "data" / "faces" / "orl"
_TESTED, _LOOKED_AT = 100, 200
_THINNED = 97
_PER_PERSON, _CANDIDATES = 5, 4


def attack(config: dict[str, Any]) -> Measured:
    """Measure every ciphertext-only attack on pictures under one key."""
    from scotoma.ops.blocks import to_blocks

    side, block, count = config["side"], config["block"], config["pictures"]
    images = pictures(side, count, config["seed"])
    data, truth = release_of(config, images), block_brightness(images, block)
    looked = data[: min(count, _LOOKED_AT)]  # pictures that are looked at block by block
    found = components(to_blocks(looked, block))
    values = {name: oracle(maps, truth[: len(looked)]) for name, maps in found.items()}
    away = (truth[: len(looked)] - MEAN).abs()  # what lengths tell of values around the mean
    values["norm"] = max(values["norm"], oracle(found["norm"], away))
    patterns = natural_patterns(side, block)
    noise = side * side if config["stage"] == "hardened" else 0
    skips = (0, noise) if count > noise > 0 else (0,)
    made = eigenpictures(data.flatten(1), patterns, skips)
    values["eigenpictures"] = max(oracle(one, truth) for one in made)
    values["one pattern alone"] = oracle(patterns[:, None].expand(-1, count, -1, -1), truth)
    return Measured(count, values)


def group(config: dict[str, Any]) -> Measured:
    """Measure whether correlations over pictures tell which values lay in one block.

    Values of one block hold the same noise, so they go together until rounds mix the blocks. Of
    values that are mixed, the block is that of the value that moved to their place.
    """
    from scotoma.ops.blocks import from_blocks

    side, block = config["side"], config["block"]
    images = pictures(side, config["pictures"], config["seed"])
    data = release_of(config, images).flatten(1)
    data = (data - data.mean(0)) / data.std(0)
    rows = side // block
    numbers = torch.arange(rows**2, dtype=torch.float32).view(1, 1, rows, rows)
    home = from_blocks(numbers.expand(1, 4 * block**2, -1, -1), block).flatten()
    home = home[orders_of(config)[0]]
    strength = (data.T @ data / len(data)).abs()
    same = home[:, None] == home
    apart = strength[~same][::_THINNED].sort().values
    together = strength[same & ~torch.eye(len(home), dtype=torch.bool)]
    auc = float(torch.searchsorted(apart, together).double().mean()) / len(apart)
    return Measured(len(images), {"auc": auc})


def recognize(config: dict[str, Any]) -> Measured:
    """Show guesses of ORL faces to a face embedder that has each person's first picture."""
    import numpy as np
    from onnxruntime import InferenceSession, SessionOptions
    from PIL import Image

    from scotoma.ops.blocks import to_blocks

    people, side = config["people"], config["side"]
    faces = [
        Image.open(_FACES / f"s{person:02d}" / f"{number}.png").convert("RGB").resize((side, side))
        for person in range(1, people + 1)
        for number in range(1, 1 + _PER_PERSON)
    ]
    images = torch.from_numpy(np.stack([np.array(face) for face in faces]))
    images = images.permute(0, 3, 1, 2).float() / 255
    data = release_of(config, images)
    found = components(to_blocks(data, config["block"]))
    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(str(MODELS / "face_embedder.onnx"), options)

    def embed(pictures: Tensor) -> Tensor:
        scaled = torch.nn.functional.interpolate(pictures.float(), (112, 96), mode="bicubic")
        (made,) = session.run(None, {"image": ((255 * scaled - 127.5) / 128).numpy()})
        return torch.nn.functional.normalize(torch.from_numpy(made), dim=1)

    first = torch.arange(len(images)) % _PER_PERSON == 0
    person = torch.arange(people).repeat_interleave(_PER_PERSON)
    gallery = embed(images[first])

    def rank_one(pictures: Tensor) -> float:
        nearest = (embed(pictures[~first]) @ gallery.T).argmax(1)
        return float((nearest == person[~first]).float().mean())

    def as_pictures(maps: Tensor, sign: float) -> Tensor:
        flat = (maps - maps.mean()) / maps.std()
        return (0.45 + 0.25 * sign * flat).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)

    kinds = {"lag": found["lag"][:_CANDIDATES], "lag + ICA": found["lag + ICA"][:_CANDIDATES]}
    values: dict[str, Any] = {
        name: max(rank_one(as_pictures(one, sign)) for one in maps for sign in (1.0, -1.0))
        for name, maps in kinds.items()
    }
    values["release itself"] = rank_one((data[:, :3] / 6 + 0.5).clamp(0, 1))
    values["plain"] = rank_one(images)
    values["block means"] = rank_one(torch.nn.functional.avg_pool2d(images, config["block"]))
    values["chance"] = 1 / people
    # Which releases are of one person, without knowing whom: products of pairs.
    flat = torch.nn.functional.normalize(data.flatten(1), dim=1)
    alike = flat @ flat.T
    upper = torch.ones_like(alike).triu(1).bool()
    same = person[:, None] == person
    one, other = alike[same & upper], alike[~same & upper]
    ranks = torch.cat([one, other]).argsort().argsort()[: len(one)].double()
    values["linked_auc"] = float(
        (ranks.sum() - len(one) * (len(one) - 1) / 2) / len(one) / len(other)
    )
    twice = release_of({**config, "draw": 1}, images).flatten(1)
    pairs = (flat * torch.nn.functional.normalize(twice, dim=1)).sum(1)
    values["same_picture_auc"] = float((pairs[:, None] > other[None, ::37]).float().mean())
    return Measured(int((~first).sum()), values)


def learn(config: dict[str, Any]) -> Measured:
    """Measure what known pairs teach about other pictures under the same key."""
    side, block, count = config["side"], config["block"], config["pictures"]
    images = pictures(side, count + _TESTED, config["seed"])
    data = release_of(config, images).flatten(1)
    truth = block_brightness(images, block).flatten(1)
    guesses = known_pairs(data[:-_TESTED], truth[:-_TESTED], data[-_TESTED:])
    scores = [float(within(guess, truth[-_TESTED:])) for guess in guesses]
    return Measured(count, {"guess": max(scores[1:]), "mean of the known": scores[0]})


def repeat(config: dict[str, Any]) -> Measured:
    """Measure whether products of releases tell two of one picture from two of two."""
    images = pictures(config["side"], config["pictures"], config["seed"])
    first, second = (
        torch.nn.functional.normalize(release_of({**config, "draw": draw}, images).flatten(1))
        for draw in (0, 1)
    )
    alike = first @ second.T
    others = alike[~torch.eye(len(alike), dtype=torch.bool)].sort().values
    auc = float(torch.searchsorted(others, alike.diagonal().contiguous()).double().mean())
    return Measured(len(images), {"auc": auc / len(others)})


def solve(config: dict[str, Any]) -> Measured:
    """Solve the public stem's features for the picture: what the server sees is those features."""
    from scotoma.core.keys import Key
    from scotoma.models.preprocessing import Preprocessing
    from scotoma.models.spec import load_classifier
    from scotoma.ops.generators import seeded_generator
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    side, seed = config["side"], config["seed"]
    network: Any = load_classifier(f"timm:local-dir:{MODELS / 'mobilenetv2_100'}").network
    protection = open_protection(
        EncryptSettings("hardened", config["block"]), Preprocessing((3, side, side))
    )
    key = Key.from_bytes(bytes([seed, 1]) * 16)
    images = (pictures(side, config["pictures"], seed) - 0.5) / 0.5
    stem = network.conv_stem
    adapted = protection.adapt(network, key).get_submodule("conv_stem")
    release = protection.protect(images, key, generator=seeded_generator(b"benchmark"))
    with torch.no_grad():
        features = adapted(release.data)
        zero = stem(torch.zeros_like(images))
    guess = torch.zeros_like(images, requires_grad=True)

    def normal(there: Tensor) -> Tensor:
        (pulled,) = torch.autograd.grad(stem(guess), guess, there)
        return pulled

    # Conjugate gradients on the least squares problem; the stem is linear.
    found, rest = torch.zeros_like(images), normal(features - zero)
    way, length = rest.clone(), rest.square().sum()
    for _ in range(300):
        with torch.no_grad():
            forward = stem(way) - zero
        step = length / forward.square().sum()
        found = found + step * way
        rest = rest - step * normal(forward)
        fresh = rest.square().sum()
        way, length = rest + fresh / length * way, fresh
    error = ((found - images) / 2).square().mean((1, 2, 3))
    return Measured(len(images), {"psnr_db": float((-10 * error.log10()).mean())})


def cost(config: dict[str, Any]) -> Measured:
    """Measure exactness, sizes and time with one network."""
    from scotoma.core.keys import Key
    from scotoma.images.ciphertext import CipherEncoding, encode_release
    from scotoma.models.spec import load_classifier
    from scotoma.ops.generators import seeded_generator
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    model = load_classifier(f"timm:local-dir:{MODELS / 'mobilenetv2_100'}")
    network = model.network
    assert isinstance(network, nn.Module)
    settings = EncryptSettings(config["stage"], config["block"])
    protection = open_protection(settings, model.preprocessing)
    key, generator = Key.from_bytes(bytes([config["seed"], 1]) * 16), seeded_generator(b"cost")
    images = (pictures(224, config["pictures"], config["seed"]) - 0.5) / 0.5
    fresh = generator if protection.fresh else None
    protection.protect(images[:1], key, generator=fresh)
    begun = time.perf_counter()
    data = torch.cat(
        [protection.protect(image[None], key, generator=fresh).data for image in images]
    )
    protecting = (time.perf_counter() - begun) / len(images)
    adapted = protection.adapt(network, key)
    with torch.no_grad():
        plain, plain_ms = _timed(network, images)
        said, said_ms = _timed(adapted, data)
        coarse, _ = _timed(adapted, data.half().float())
    one = protection.protect(images[:1], key, generator=fresh)
    sizes = {
        dtype: len(encode_release(one, CipherEncoding("safetensors", dtype), key=key))
        for dtype in ("float32", "float16")
    }
    scale = float((plain - plain.mean(1, keepdim=True)).abs().max())
    return Measured(
        len(images),
        {
            "difference": float((said - plain).abs().max()) / scale,
            "changed": int((said.argmax(1) != plain.argmax(1)).sum()),
            "changed_float16": int((coarse.argmax(1) != plain.argmax(1)).sum()),
            "protect_ms": 1000 * protecting,
            "plain_ms": plain_ms,
            "adapted_ms": said_ms,
            "release_bytes": sizes,
            "model_bytes": 4 * sum(value.numel() for value in adapted.state_dict().values()),
            "plain_model_bytes": 4 * sum(v.numel() for v in network.state_dict().values()),
        },
    )


def _timed(network: Any, inputs: Tensor) -> tuple[Tensor, float]:
    network(inputs[:1])
    begun = time.perf_counter()
    said = torch.cat([network(image[None]) for image in inputs])
    return said, 1000 * (time.perf_counter() - begun) / len(inputs)
