from __future__ import annotations

import pytest
import torch

from scotoma.core.errors import ModelError, UnknownNameError
from scotoma.models.answers import answers_of, as_logits


def test_probabilities_become_logits_of_the_same_softmax() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    back = as_logits(logits.softmax(1), "probabilities")
    assert torch.allclose(back.softmax(1), logits.softmax(1), atol=1e-6)
    # Leads, which are what a search goes by, are the logits' own.
    assert torch.allclose(back[:, 0] - back[:, 1], logits[:, 0] - logits[:, 1], atol=1e-4)


def test_a_probability_of_zero_stays_finite() -> None:
    assert torch.isfinite(as_logits(torch.tensor([[0.0, 1.0]]), "probabilities")).all()


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_labels_come_first(shape: tuple[int, ...]) -> None:
    labels = torch.tensor([2, 0, 1]).reshape(shape)
    logits = as_logits(labels, "labels", classes=4)
    assert logits.shape == (3, 4)
    assert logits.argmax(1).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("answers", "kind", "classes", "message"),
    [
        ([[2.0, -1.0]], "probabilities", None, "answers.*logits"),
        ([[float("nan"), 0.5]], "probabilities", None, "probabilities"),
        ([4.0], "labels", 4, "from 0 to 3"),
        ([0.5], "labels", 4, "from 0 to 3"),
        ([-1.0], "labels", 4, "from 0 to 3"),
        ([1.0], "labels", None, "classes"),
    ],
)
def test_what_is_not_of_its_kind_is_refused(
    answers: list[float], kind: str, classes: int | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        as_logits(torch.tensor(answers), kind, classes=classes)


def test_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="probabilities"):
        answers_of({"answers": "probabilites"})
