"""Jigsaw with borders judged by a network that learned them on pictures of the same kind."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from scotoma.attacks.inversion.curve import Point, has_flattened, late_gain
from scotoma.attacks.inversion.sources import split
from scotoma.attacks.inversion.training import step_generator
from scotoma.attacks.jigsaw.assembly import assemble
from scotoma.attacks.jigsaw.borders import BorderNetwork, PlaceNetwork
from scotoma.attacks.jigsaw.compatibility import below
from scotoma.attacks.jigsaw.puzzle import Puzzle, open_puzzle
from scotoma.attacks.views import block_side
from scotoma.core.errors import FileError, NotGrantedError, SettingsError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import pad_to_blocks, to_blocks

__all__ = ["FittedJigsaw", "JigsawLearned", "Look"]

_KEPT_PICTURES = 24
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


@dataclass(frozen=True)
class JigsawLearned:
    """Puts patches back together by borders that a network judges, and by usual places.

    Args:
        steps: Pictures learned from, one at a time; the budget.
        width: Channels of the network.
        learning_rate: Of Adam; it falls to zero along a quarter of a cosine.
        places: Weight of where such a piece usually is; 0 for borders alone.
        rounds: As of :class:`~scotoma.attacks.jigsaw.jigsaw.Jigsaw`.

    Raises:
        SettingsError: A value out of range.

    Source:
        Learned compatibility: Sholomon, David, Netanyahu, DNN-Buddies, ICANN 2016.

    Differences from the paper:
        The network reads all pairs of a picture, is told the hand-made costs, and learns to
        choose among all pieces, not to tell one pair from another.
    """

    steps: int = 400
    width: int = 16
    learning_rate: float = 1e-2
    places: float = 0.5
    rounds: int = 40

    needs: ClassVar[frozenset[str]] = frozenset({"auxiliary", "simulate"})

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.width >= 1 and self.rounds >= 0):
            raise SettingsError(
                "expected steps and width of at least 1 and rounds of at least 0, got "
                f"{self.steps}, {self.width}, {self.rounds}"
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.places < math.inf):
            raise SettingsError(
                "expected a learning rate above 0 and places of at least 0, got "
                f"{self.learning_rate} and {self.places}"
            )

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> FittedJigsaw:
        """Train; see :class:`~scotoma.core.protocols.TrainableAttack`.

        Raises:
            NotGrantedError: No simulation or auxiliary pictures.
            NotApplicableError: The release is no puzzle.
            SettingsError: The checkpoint is another run's, or the loss is not finite.
            FileError: The checkpoint cannot be written.
        """
        pictures, simulate = knowledge.auxiliary, knowledge.simulate
        if pictures is None or simulate is None:  # reading them raised already
            raise NotGrantedError("expected auxiliary pictures and a simulation, got none")
        seed = int(torch.randint(2**62, (), generator=generator))
        example = simulate(pictures[:1], generator)
        puzzle, block = open_puzzle(example), block_side(example)
        learned, kept = split(len(pictures), seed)
        run = _Run(self, puzzle.grid, block, seed, pictures)
        run.fit(learned, kept[:_KEPT_PICTURES], checkpoint, on_step)
        return FittedJigsaw(
            run.borders.eval(), run.usual.eval(), block, self.places, self.rounds, tuple(run.looks)
        )


@dataclass(frozen=True, eq=False)
class FittedJigsaw:
    """Trained networks as an attack that needs nothing but the release.

    Args:
        borders: Judge of borders.
        usual: Judge of places.
        block: Side of the patches learned from, in pixels.
        places: Weight of the latter.
        rounds: As of :class:`~scotoma.attacks.jigsaw.jigsaw.Jigsaw`.
        history: The curve over training budgets, from the hand-made cost on.
    """

    borders: BorderNetwork
    usual: PlaceNetwork
    block: int
    places: float
    rounds: int
    history: tuple[Look, ...]

    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures must know, in sentences."""
        points = [Point(look.step, look.loss, math.nan) for look in self.history]
        if has_flattened(points):
            return ()
        gain = late_gain(points)
        return (f"training had not flattened: the last quarter still gained {gain:.1%}",)

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        puzzle = open_puzzle(release)
        return puzzle.lay(self.arrange(puzzle, generator=generator))

    @torch.no_grad()
    def arrange(self, puzzle: Puzzle, *, generator: Generator) -> Tensor:
        """Return ``(B, rows, columns)`` int64: the release's piece at each place of the frame."""
        block = block_side(puzzle.release)
        if block != self.block or puzzle.grid != self.usual.grid:
            raise SettingsError(
                f"expected {self.usual.grid} patches of {self.block} pixels, as learned from, "
                f"got {puzzle.grid} of {block}; train on such releases"
            )

        def judge(pieces: Tensor) -> Tensor:
            pairs = [self.borders(side) for side in (pieces, below(pieces))]
            return torch.cat([torch.stack(pairs), self._usual_places(pieces)]).double()

        def lay(found: Tensor) -> Tensor:
            places = found[2:].reshape(*puzzle.grid, -1)
            return assemble(
                found[:2], puzzle.grid, generator=generator, rounds=self.rounds, places=places
            )

        return puzzle.solve(judge, lay)

    def _usual_places(self, pieces: Tensor) -> Tensor:
        """Return ``(N places / N, N, N)``-like planes that sum over pictures like pairs do."""
        count = len(pieces)
        return (self.places * self.usual(pieces)).reshape(1, count, count)


class _Run:
    """The state of a training."""

    def __init__(
        self,
        settings: JigsawLearned,
        grid: tuple[int, int],
        block: int,
        seed: int,
        pictures: Tensor,
    ) -> None:
        self.settings, self.grid, self.block, self.seed = settings, grid, block, seed
        self.pictures = pictures
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.borders = BorderNetwork(settings.width)
            self.usual = PlaceNetwork(grid, 4 * settings.width)
        both = [*self.borders.parameters(), *self.usual.parameters()]
        self.optimizer = torch.optim.Adam(both, lr=settings.learning_rate)
        self.looks: list[Look] = []
        self.step = 0

    def fit(
        self,
        learned: Tensor,
        kept: Tensor,
        checkpoint: Path | None,
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        steps = self.settings.steps
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
        share = self.step / self.settings.steps
        rate = self.settings.learning_rate * min(1.0, (self.step + 1) / _WARMUP)
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
        return blocks.reshape(*self.grid, -1, self.block, self.block)

    def pair_loss(self, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of true right neighbours, and whether each is judged best."""
        columns = pieces.shape[1]
        number = torch.arange(pieces.shape[0] * columns).view(-1, columns)
        one, two = number[:, :-1].flatten(), number[:, 1:].flatten()
        found = self.borders(pieces.flatten(0, 1))
        return -found[one, two].mean(), (found[one].argmax(1) == two).double()

    def place_loss(self, pieces: Tensor) -> Tensor:
        down, across = self.usual.read(pieces.flatten(0, 1))
        rows, columns = self.grid
        number = torch.arange(rows * columns)
        return -(down[number, number // columns] + across[number, number % columns]).mean()

    @torch.no_grad()
    def look(self, kept: Tensor) -> None:
        found = []
        for place in kept.tolist():
            pieces = self.cut(self.pictures[place])
            for side in (pieces, below(pieces).transpose(0, 1)):
                loss, first = self.pair_loss(side)
                found.append((float(loss), float(first.mean())))
        losses, firsts = zip(*found, strict=True)
        self.looks.append(Look(self.step, sum(losses) / len(found), sum(firsts) / len(found)))

    def keep(self, path: Path) -> None:
        state = {
            "recipe": self.recipe,
            "step": self.step,
            "looks": [asdict(look) for look in self.looks],
            "borders": self.borders.state_dict(),
            "usual": self.usual.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, part)
            part.replace(path)
        except (OSError, RuntimeError) as error:
            raise FileError(
                f"expected to write the checkpoint {path}, got: {error}; name another file"
            ) from error

    def restore(self, path: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            recipe, step = state["recipe"], int(state["step"])
        except Exception as error:  # damaged files fail in many ways inside torch
            raise SettingsError(
                f"the checkpoint {path} is damaged ({type(error).__name__}); delete it"
            ) from error
        if recipe != self.recipe:
            raise SettingsError(
                f"the checkpoint {path} belongs to another training (other settings, pictures or "
                "seed); delete it or name another file"
            )
        self.step = step
        self.looks = [Look(**fields) for fields in state["looks"]]
        modules: dict[str, nn.Module] = {"borders": self.borders, "usual": self.usual}
        for name, module in modules.items():
            module.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])

    @property
    def recipe(self) -> str:
        digest = hashlib.sha256(self.pictures.contiguous().numpy().tobytes()).hexdigest()
        trained = {**asdict(self.settings), "places": None, "rounds": None}
        return f"{trained} {self.grid} {self.block} {self.seed} {digest}"
