from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from scotoma.core.errors import ImageError, ModelError
from scotoma.models.batching import in_batches
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing


def classifier(network: Callable[[Tensor], Tensor]) -> Classifier:
    preprocessing = Preprocessing((3, 8, 10), crop_pct=1.0)
    return Classifier("test", "test", network, preprocessing, ("cat", "dog"), True)


def first_two(images: Tensor) -> Tensor:
    return images.mean((2, 3))[:, :2]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "I;16"])
def test_reads_pictures_of_any_mode(mode: str) -> None:
    pixels = np.arange(20 * 16 * 3, dtype=np.uint8).reshape(16, 20, 3)
    picture = (
        Image.fromarray(np.arange(320, dtype=np.uint16).reshape(16, 20))
        if mode == "I;16"
        else Image.fromarray(pixels).convert(mode)
    )
    model = classifier(first_two)
    inputs = model.read(picture)
    assert inputs.shape == (3, 8, 10)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, model.preprocessing.transform(picture.convert("RGB")))


def test_logits_keep_no_graph_and_are_float32() -> None:
    inputs = torch.rand(4, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    logits = classifier(lambda x: first_two(x).double()).logits(inputs.requires_grad_())
    assert not logits.requires_grad
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, inputs.detach().mean((2, 3))[:, :2])


def test_the_memory_layout_of_inputs_does_not_matter() -> None:
    strides = []
    model = classifier(lambda x: (strides.append(x.stride()), first_two(x))[1])
    inputs = torch.rand(4, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    plain = model.logits(inputs)
    assert torch.equal(plain, model.logits(inputs.contiguous(memory_format=torch.channels_last)))
    assert strides[0] == strides[1]


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(3, 8, 10),
        torch.zeros(0, 3, 8, 10),
        torch.zeros(1, 1, 8, 10),
        torch.zeros(1, 3, 10, 8),
        torch.zeros(1, 3, 8, 10, dtype=torch.float64),
        torch.zeros(1, 3, 8, 10, dtype=torch.uint8),
    ],
)
def test_refuses_other_inputs(inputs: Tensor) -> None:
    with pytest.raises(ImageError, match="expected"):
        classifier(first_two).logits(inputs)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x.mean((2, 3))[0],
        lambda x: x,
        lambda x: x.mean((2, 3))[:1],
        lambda x: x.mean((2, 3))[:, :0],
        lambda x: (x.mean((2, 3)),),
        lambda x: {"logits": x.mean((2, 3))},
        lambda x: x.mean((2, 3)).long(),
        lambda x: x.mean((2, 3)) / 0,
        lambda x: x.mean((2, 3)).log() - torch.inf,
    ],
)
def test_refuses_other_answers(answer: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ModelError, match="expected"):
        classifier(answer).logits(torch.zeros(2, 3, 8, 10))


def test_names_where_known() -> None:
    model = classifier(first_two)
    assert [model.class_name(label) for label in (0, 1, 2, -1)] == ["cat", "dog", "2", "-1"]


@pytest.mark.parametrize("count", [1, 3, 4, 8, 9])
@pytest.mark.parametrize("size", [None, 1, 4])
def test_batches_of_a_fixed_size_are_filled_up(count: int, size: int | None) -> None:
    sizes = []

    def network(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images.mean((2, 3))

    images = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(count))
    images.requires_grad_()
    answer = in_batches(network, images, size)
    assert torch.equal(answer, images.mean((2, 3)))
    assert set(sizes) == {size or count}
    (gradient,) = torch.autograd.grad(answer.sum(), images)
    assert torch.allclose(gradient, torch.full_like(gradient, 0.25))
