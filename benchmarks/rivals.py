"""The same job, written with torchattacks and with foolbox by someone who knows them.

Targeted projected gradient descent towards the network's own decision. The pictures are
such that the preprocessing has nothing to resample, so the libraries work on the network's
input itself; the weights are frozen; there is no projection to speak of (eps 1); success is
tested once, after the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["LIBRARIES", "Inside", "Trace", "attack_with", "steps_needed", "trace"]

Attack = Callable[["Inside", Tensor, Tensor, float, int], Tensor]
Verify = Callable[[Tensor], Sequence[bool]]


class Inside(nn.Module):
    """A network that sees its input only inside a mask, and a fixed picture outside.

    The gradient outside the mask is nought, and the sign step of nought is nought.

    Args:
        network: Takes normalized inputs.
        mask: ``(1, 1, H, W)`` float32, one where pixels may change.
        mean: Of the normalization.
        std: Of the normalization.
    """

    def __init__(
        self, network: nn.Module, mask: Tensor, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.mask = mask
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        self.outside: Tensor | None = None
        self.watch: Callable[[Tensor], None] | None = None

    def place(self, naive: Tensor) -> None:
        """Set the batch of pictures, ``(B, 3, H, W)`` float32 in [0, 1], seen outside."""
        self.outside = naive * (1 - self.mask)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the composed pictures."""
        if self.watch is not None:
            self.watch(images.detach())
        composed = images if self.outside is None else images * self.mask + self.outside
        logits: Tensor = self.network((composed - self.mean) / self.std)
        return logits


def _with_torchattacks(
    model: Inside, images: Tensor, labels: Tensor, step: float, steps: int
) -> Tensor:
    import torchattacks

    attack = torchattacks.PGD(model, eps=1.0, alpha=step, steps=steps, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    result: Tensor = attack(images, labels)
    return result


def _with_foolbox(model: Inside, images: Tensor, labels: Tensor, step: float, steps: int) -> Tensor:
    from foolbox.attacks import LinfPGD
    from foolbox.criteria import TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel

    wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=step, steps=steps, random_start=False)
    criterion = TargetedMisclassification(labels)
    # Calling the attack would judge its result once more; run() does not.
    result: Tensor = attack.run(wrapped, images, criterion, epsilon=1.0)
    return result


LIBRARIES: dict[str, Attack] = {"torchattacks": _with_torchattacks, "foolbox": _with_foolbox}


def attack_with(
    library: str, model: Inside, naive: Tensor, labels: Tensor, *, step: float, steps: int
) -> Tensor:
    """Return the pictures after a fixed number of steps.

    Args:
        library: One of :data:`LIBRARIES`.
        model: The network behind its mask.
        naive: ``(B, 3, H, W)`` float32 in [0, 1]: where the attack starts.
        labels: ``(B,)`` the decisions to come back to.
        step: Of every pixel, in [0, 1].
        steps: How many.
    """
    model.place(naive)
    return LIBRARIES[library](model, naive, labels, step, steps)


class _Enough(Exception):  # noqa: N818 - no error: it ends an attack that has no stop of its own
    pass


@dataclass
class Trace:
    """How many pictures of a batch are right after each number of steps.

    Args:
        size: Of the batch.
        right: Count after 0, 1, 2, ... steps; ends where all are right.
    """

    size: int
    right: list[int] = field(default_factory=list)

    def after(self, steps: int) -> int:
        """Return the count after ``steps``; once all are right they are taken to stay so."""
        if steps < len(self.right):
            return self.right[steps]
        return self.right[-1] if self.right[-1] == self.size else 0


def trace(
    library: str,
    model: Inside,
    naive: Tensor,
    labels: Tensor,
    verify: Verify,
    *,
    step: float,
    most: int,
) -> Trace:
    """Run one attack of ``most`` steps and judge the picture before every step.

    Sign steps of a fixed size do not know how many will follow, so one run shows the result
    of every smaller number of steps.

    Args:
        library: One of :data:`LIBRARIES`.
        model: The network behind its mask.
        naive: As in :func:`attack_with`.
        labels: As in :func:`attack_with`.
        verify: Says of each picture whether its decision is back, after 8-bit rounding.
        step: Of every pixel.
        most: Steps tried.
    """
    found = Trace(len(naive))

    def watch(images: Tensor) -> None:
        found.right.append(sum(verify(images)))
        if found.right[-1] == found.size:
            raise _Enough

    model.watch = watch
    try:
        # One step more, because each is judged before it is taken.
        attack_with(library, model, naive, labels, step=step, steps=most + 1)
    except _Enough:
        pass
    finally:
        model.watch = None
    return found


def steps_needed(traces: Sequence[Trace], required: int, most: int) -> int | None:
    """Return the smallest number of steps after which ``required`` pictures are right."""
    counts = (sum(found.after(steps) for found in traces) for steps in range(most + 1))
    return next((steps for steps, count in enumerate(counts) if count >= required), None)


def batches_of(count: int, size: int) -> list[slice]:
    """Return the slices that cut ``count`` items into batches of at most ``size``."""
    return [slice(i * size, (i + 1) * size) for i in range(math.ceil(count / size))]
