"""Asking a model: no more at once than was said, whatever a file holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from support.encryption import KEY
from torch import Tensor

from scotoma.images.ciphertext import write_release
from scotoma.models.release_form import ReleaseForm
from scotoma.models.spec import load_classifier
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings
from scotoma.run.classify import classify

COUNT = 11


def test_a_release_of_many_pictures_is_asked_about_in_batches(tmp_path: Path) -> None:
    plain = load_classifier("embedded")
    protection = open_protection(EncryptSettings("permute", block=8), plain.preprocessing)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(COUNT, *plain.input_shape, generator=generator)
    release = protection.protect(images, KEY)
    write_release(tmp_path / "many.safetensors", release, key=KEY)
    adapted = protection.adapt(plain.network, KEY)  # type: ignore[arg-type]
    sizes = []

    def network(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        logits: Tensor = adapted(inputs)
        return logits

    reader = dataclasses.replace(plain, network=network, reads=ReleaseForm.of(release))
    verdicts = classify([tmp_path], reader, batch_size=4)
    assert sizes == [4, 4, 3]
    assert [v.input.rpartition("#")[2] for v in verdicts] == [str(n) for n in range(COUNT)]
    wanted = plain.logits(images).argmax(1).tolist()
    assert [verdict.answers[0].label for verdict in verdicts] == wanted
    assert len(set(wanted)) > 1


def test_what_one_batch_has_no_memory_for_does_not_end_the_run(tmp_path: Path) -> None:
    plain = load_classifier("embedded")
    for number in range(2):
        pixels = np.full((32, 32, 3), 90 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    calls = []

    def network(inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        if len(calls) == 1:
            raise RuntimeError("not enough memory")
        logits: Tensor = plain.network(inputs)
        return logits

    reader = dataclasses.replace(plain, network=network)
    first, second = classify([tmp_path], reader, batch_size=1)
    assert first.error is not None
    assert "not enough memory" in first.error
    assert second.error is None
    assert second.answers
