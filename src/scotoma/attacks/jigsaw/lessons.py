"""What a network learns about borders and places: one picture after the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scotoma.attacks import checkpoints
from scotoma.attacks.inversion.training import step_generator
from scotoma.attacks.jigsaw.borders import BorderNetwork, PlaceNetwork
from scotoma.attacks.jigsaw.compatibility import below
from scotoma.core.errors import SettingsError
from scotoma.ops.blocks import pad_to_blocks, to_blocks

__all__ = ["Lessons", "Look"]

_LOOKS = 8
_PLACE_WEIGHT = 0.05
_WARMUP = 20


@dataclass(frozen=True)
class Look:
    """What the network is worth after so many steps, on pictures kept aside.

    Args:
        step: Steps done; 0 is the best hand-made cost.
        loss: Mean negative logarithm of the probability of the true neighbour.
        first: Share of true neighbours that are judged the likeliest of all pieces.
    """

    step: int
    loss: float
    first: float


class Lessons:
    """The state of a training.

    Args:
        pictures: ``(N, 3, H, W)`` in [0, 1].
        grid: Rows and columns of the frame.
        block: Side of a piece, in pixels.
        seed: Of the first weights and of what is drawn.
        steps: Pictures in all.
        width: Channels of the network.
        learning_rate: Of Adam, after the warm-up.
    """

    def __init__(
        self,
        pictures: Tensor,
        grid: tuple[int, int],
        block: int,
        *,
        seed: int,
        steps: int,
        width: int,
        learning_rate: float,
    ) -> None:
        self.pictures, self.grid, self.block, self.seed = pictures, grid, block, seed
        self.steps, self.width, self.learning_rate = steps, width, learning_rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.borders = BorderNetwork(width)
            self.usual = PlaceNetwork(grid, 4 * width)
        both = [*self.borders.parameters(), *self.usual.parameters()]
        self.optimizer = torch.optim.Adam(both, lr=learning_rate)
        self.looks: list[Look] = []
        self.step = 0

    def fit(
        self,
        learned: Tensor,
        kept: Tensor,
        checkpoint: Path | None,
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        """Train to the end.

        Args:
            learned: Numbers of the pictures to learn from.
            kept: Of those to judge by.
            checkpoint: File of the state; a stopped run goes on from it.
            on_step: Called with (steps done, steps in all).
        """
        steps = self.steps
        every = max(1, steps // _LOOKS)
        if checkpoint is not None and checkpoint.exists():
            self.restore(checkpoint)
        else:
            self.look(kept)
        while self.step < steps:
            self.advance(learned)
            if self.step % every == 0 or self.step == steps:
                self.look(kept)
                if checkpoint is not None:
                    self.keep(checkpoint)
            if on_step:
                on_step(self.step, steps)

    def advance(self, learned: Tensor) -> None:
        """Learn from one half of one picture."""
        drawn = step_generator(self.seed, "jigsaw", self.step)
        place = learned[torch.randint(len(learned), (1,), generator=drawn)]
        picture = self.pictures[int(place)]
        mirrored, turned = (torch.rand(2, generator=drawn) < 0.5).tolist()
        pieces = self.cut(picture.flip(-1) if mirrored else picture)
        places = self.place_loss(pieces)
        # Turned over its diagonal, what was below is right.
        pieces = below(pieces).transpose(0, 1) if turned else pieces
        rows = max(1, len(pieces) // 2)
        start = int(torch.randint(len(pieces) - rows + 1, (1,), generator=drawn))
        loss, _ = self.pair_loss(pieces[start : start + rows])
        loss = loss + _PLACE_WEIGHT * places
        if not bool(loss.isfinite()):
            raise SettingsError(f"expected a finite loss, got {float(loss)}; lower learning_rate")
        share = self.step / self.steps
        rate = self.learning_rate * min(1.0, (self.step + 1) / _WARMUP)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * math.cos(share * math.pi / 2)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1

    def cut(self, picture: Tensor) -> Tensor:
        """Return ``(rows, columns, 3, M, M)`` pieces of a picture, each in its place."""
        whole = pad_to_blocks(picture[None].double(), self.block)
        blocks = to_blocks(whole, self.block)[0].permute(1, 2, 0)
        rows, columns = self.grid
        return blocks.reshape(rows, columns, -1, self.block, self.block)

    def pair_loss(self, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of true right neighbours, and whether each is judged best.

        Args:
            pieces: ``(rows, columns, 3, M, M)``, each in its place.
        """
        columns = pieces.shape[1]
        number = torch.arange(pieces.shape[0] * columns).view(-1, columns)
        one, two = number[:, :-1].flatten(), number[:, 1:].flatten()
        found = self.borders(pieces.flatten(0, 1))
        return -found[one, two].mean(), (found[one].argmax(1) == two).double()

    def place_loss(self, pieces: Tensor) -> Tensor:
        """Return the mean loss of rows and columns, against an even chance."""
        down, across = self.usual.read(pieces.flatten(0, 1))
        rows, columns = self.grid
        number = torch.arange(rows * columns)
        own: Tensor = down[number, number // columns] + across[number, number % columns]
        return -own.mean()

    @torch.no_grad()
    def judge_places(self, kept: Tensor) -> float:
        """Return :meth:`place_loss` over pictures kept aside; below 0 is better than chance."""
        losses = [float(self.place_loss(self.cut(self.pictures[at]))) for at in kept.tolist()]
        return sum(losses) / len(losses)

    @torch.no_grad()
    def look(self, kept: Tensor) -> None:
        """Judge the network as it is used, with bounded evidence."""
        self.borders.eval()
        found = []
        for place in kept.tolist():
            pieces = self.cut(self.pictures[place])
            for side in (pieces, below(pieces).transpose(0, 1)):
                loss, first = self.pair_loss(side)
                found.append((float(loss), float(first.mean())))
        losses, firsts = zip(*found, strict=True)
        self.looks.append(Look(self.step, sum(losses) / len(found), sum(firsts) / len(found)))
        self.borders.train()

    def keep(self, path: Path) -> None:
        """Write the state."""
        state = {
            "recipe": self.recipe,
            "step": self.step,
            "looks": [asdict(look) for look in self.looks],
            "borders": self.borders.state_dict(),
            "usual": self.usual.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoints.keep(path, state)

    def restore(self, path: Path) -> None:
        """Read the state."""
        state = checkpoints.read(path, recipe=self.recipe)
        self.step = state["step"]
        self.looks = [Look(**fields) for fields in state["looks"]]
        modules: dict[str, nn.Module] = {"borders": self.borders, "usual": self.usual}
        for name, module in modules.items():
            module.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])

    @property
    def recipe(self) -> str:
        """All that decides the weights, as text."""
        digest = hashlib.sha256(self.pictures.contiguous().numpy().tobytes()).hexdigest()
        settings = (self.steps, self.width, self.learning_rate, self.grid, self.block, self.seed)
        return f"{settings} {digest}"
