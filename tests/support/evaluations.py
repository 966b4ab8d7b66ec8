"""Evaluations that nobody measured: records with drawn figures, for pages and their tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scotoma.evaluate.records import (
    Choice,
    Figure,
    Paper,
    Record,
    RecordBook,
    fingerprint_of,
)

BRIGHTNESS = "block_brightness_correlation"


def figure(value: float, n: int = 40, unit: str = "", reach: float = 0.02) -> Figure:
    return Figure(value, value - reach, value + reach, n, unit)


def attack_record(
    protection: str = "orthogonal",
    attack: str = "pca",
    value: float = 0.5,
    *,
    threat_model: str = "many-releases",
    data: str = "imagenet",
    metric: str = BRIGHTNESS,
    guess: float = 0.2,
    **changes: Any,
) -> Record:
    fields: dict[str, Any] = {
        "kind": "attack",
        "protection": Choice(protection, {"block": 16}),
        "attack": Choice(attack),
        "threat_model": threat_model,
        "model": "embedded",
        "data": data,
        "n": 40,
        "seed": 0,
        "keys": 2,
        "pictures_per_key": 20,
        "metrics": {metric: figure(value)},
        "trivial": {metric: figure(guess)},
        "seconds": 3.0,
        "fingerprint": fingerprint_of(cell=[protection, attack, threat_model, data]),
        "versions": {"scotoma": "9.8.7"},
    }
    return Record(**{**fields, **changes})


def utility_record(
    protection: str = "orthogonal",
    agreement: float = 1.0,
    *,
    data: str = "imagenet",
    **changes: Any,
) -> Record:
    fields: dict[str, Any] = {
        "kind": "utility",
        "protection": Choice(protection, {"block": 16}),
        "attack": None,
        "threat_model": "",
        "model": "embedded",
        "data": data,
        "n": 40,
        "seed": 0,
        "metrics": {"agreement": figure(agreement, reach=0.0)},
        "fingerprint": fingerprint_of(cell=[protection, data]),
        "versions": {"scotoma": "9.8.7"},
    }
    return Record(**{**fields, **changes})


def write_evaluation(folder: Path, *, originals: bool) -> list[Record]:
    """Write a large evaluation with pictures; returns its records."""
    rng = np.random.default_rng(0)
    kept = {"none": 1.0, "orthogonal": 1.0, "orthogonal-per-block": 1.0, "shuffle": 0.995}
    kept |= {"mix": 0.9, "hardened": 1.0, "blur": 0.62, "pixelate": 0.55, "solid": 0.31}
    leak = {"none": 1.0, "orthogonal": 0.99, "orthogonal-per-block": 0.72, "shuffle": 0.95}
    leak |= {"mix": 0.97, "hardened": 0.14, "blur": 0.93, "pixelate": 0.91, "solid": 0.22}
    attacks = {"look": 0.3, "norm-thumbnail": 1.0, "pca": 0.9, "smooth-ica": 0.8, "jigsaw": 0.5}
    threats = {"many-releases:40": 1.0, "known-plaintext:1": 1.4, "server-public": 1.6}
    records: list[Record] = []
    for data in ("imagenet", "faces"):
        for protection, agreement in kept.items():
            utility = {
                "agreement": figure(agreement, reach=0.0),
                "logit_error": figure(3e-7 if agreement == 1 else 0.2, reach=0.0),
                "top1": figure(0.76 * agreement, reach=0.05),
                "top1_plain": figure(0.76, reach=0.05),
                "latency_ms": figure(31.2, unit="ms", reach=1.5),
                "bits_per_pixel": figure(96.5, unit="bit", reach=0.2),
            }
            if not (protection == "mix" and data == "faces"):
                records.append(utility_record(protection, data=data, metrics=utility))
            for attack, power in attacks.items():
                for threat, gain in threats.items():
                    applies = attack != "jigsaw" or protection == "shuffle"
                    value = min(leak[protection] * (1 - 0.6 * (1 - power)) * gain, 1.0)
                    value -= 0.03 * rng.random()
                    metrics = {
                        BRIGHTNESS: figure(value),
                        "psnr_db": figure(8 + 14 * value, unit="dB", reach=0.6),
                        "ssim": figure(0.7 * value, reach=0.03),
                    }
                    if data == "faces":
                        metrics["reid_rank1"] = figure(0.9 * value**2, reach=0.05)
                        metrics["chance_reid_rank1"] = figure(0.036, reach=0.0)
                        metrics["auc_reid"] = figure(0.5 + 0.49 * value, reach=0.03)
                    record = attack_record(
                        protection,
                        attack,
                        threat_model=threat,
                        data=data,
                        metrics=metrics if applies else {},
                        trivial={BRIGHTNESS: figure(0.18), "psnr_db": figure(11.2, unit="dB")},
                        oracle=attack == "smooth-ica",
                        candidates=12 if attack == "smooth-ica" else 1,
                        status="ok" if applies else "not-applicable",
                        reason="" if applies else "expected a release of whole patches, got none",
                        notes=("ssim: the trivial guess (0.31) gets more than the attack (0.2)",)
                        if attack == "look"
                        else (),
                        paper={BRIGHTNESS: Paper(0.98, "this project's notes, Sec. 6")}
                        if (attack, protection) == ("norm-thumbnail", "orthogonal")
                        else {},
                    )
                    records.append(record)
                    if applies:
                        _write_pictures(folder, record, value, originals=originals)
    records.append(
        attack_record("hardened", "inversion", status="failed", reason="RuntimeError: no memory")
    )
    with RecordBook(folder) as book:
        for record in records:
            book.append(record)
    return records


def _write_pictures(folder: Path, record: Record, value: float, *, originals: bool) -> None:
    """A disc on a slope, its release as noise, and a guess as clear as the figure says."""
    place = folder / "pictures" / record.fingerprint
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(record.protection.label))
    down, across = np.mgrid[:112, :112] / 112
    disc = (down - 0.45) ** 2 + (across - 0.5) ** 2 < 0.09
    plain = np.stack([0.3 + 0.4 * down, 0.5 - 0.2 * across, 0.5 * disc + 0.2], axis=2)
    noise = rng.random(plain.shape)
    kinds = {"release": noise, "guess": value * plain + (1 - value) * noise}
    if originals:
        kinds["original"] = plain
    for kind, picture in kinds.items():
        Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8)).save(place / f"0-{kind}.png")
