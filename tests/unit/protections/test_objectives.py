"""What counts as the same decision."""

from __future__ import annotations

import pytest
import torch

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.protections.anonymize.objectives import (
    Objective,
    Scores,
    Top1,
    TopOrdered,
    parse_keep,
)

OBJECTIVES = [Top1(), TopOrdered(3), TopOrdered(5), Scores(0.05)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.text)
def test_original_keeps_itself(objective: Objective) -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert (objective.slack(logits, objective.goals(logits)) > 0).all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.text)
def test_descending_the_loss_reaches_the_margin(objective: Objective) -> None:
    generator = torch.Generator().manual_seed(1)
    goals = objective.goals(torch.randn(4, 8, generator=generator))
    logits = torch.randn(4, 8, generator=generator).requires_grad_()
    margin = torch.full((4,), 1.0)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        objective.loss(logits, goals, margin).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (objective.slack(logits.detach(), goals) >= margin * 0.99).all()


def test_top1_slack_is_the_lead() -> None:
    slack = Top1().slack(torch.tensor([[3.0, 1.0, 2.5]]), torch.tensor([0]))
    assert slack.item() == pytest.approx(0.5)
    slack = Top1().slack(torch.tensor([[3.0, 1.0, 2.5]]), torch.tensor([1]))
    assert slack.item() == pytest.approx(-2.0)


def test_order_matters() -> None:
    goals = TopOrdered(2).goals(torch.tensor([[3.0, 2.0, 1.0]]))
    assert TopOrdered(2).slack(torch.tensor([[2.0, 3.0, 1.0]]), goals).item() < 0
    assert Top1().slack(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).item() > 0
    assert TopOrdered(2).slack(torch.tensor([[3.0, 1.0, 2.0]]), goals).item() < 0


def test_scores_fail_one_class_out_of_tolerance() -> None:
    before = torch.tensor([[0.0, 0.0, 0.0]])
    goals = Scores(0.05).goals(before)
    assert Scores(0.05).slack(torch.tensor([[0.0, 0.19, 0.0]]), goals).item() > 0
    assert Scores(0.05).slack(torch.tensor([[0.0, 0.21, 0.0]]), goals).item() < 0


def test_nan_is_never_kept() -> None:
    for objective in OBJECTIVES:
        goals = objective.goals(torch.randn(1, 8))
        assert not bool(objective.slack(torch.full((1, 8), torch.nan), goals) > 0)


def test_parse() -> None:
    assert parse_keep("top1") == Top1()
    assert parse_keep("top5") == TopOrdered(5)
    assert parse_keep("scores:0.1") == Scores(0.1)
    with pytest.raises(UnknownNameError, match="top5"):
        parse_keep("topp5")
    with pytest.raises(SettingsError, match=r"scores:0\.05"):
        parse_keep("scores:much")
    with pytest.raises(SettingsError, match="tolerance"):
        parse_keep("scores:2")
