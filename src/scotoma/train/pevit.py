"""Train PEViT, its plain twin and its ablations under one recipe.

A network that does not see the order of patches, or what mixing loses, learns the same
from a plain picture as from its release: training reads plain pictures, and the tests
hold that the trained network answers alike on both.

Source:
    Hao et al., Human-Imperceptible, Machine-Recognizable Images, IJCAI, arXiv 2306.03679.
    Touvron et al., Training data-efficient image transformers, ICML 2021 (the recipe).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import SettingsError
from scotoma.models import saved
from scotoma.models.pevit import PEViT, load_vit_weights
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.weights import read_weights
from scotoma.train.data import load_class_folders
from scotoma.train.hardware import Hardware, Share, generator_for, start
from scotoma.train.loop import Epoch, Schedule, Task, adamw, fit
from scotoma.train.mixup import mix_batch, smooth_targets
from scotoma.train.sources import FileSource, MemorySource, Source

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Recipe", "accuracy", "open_source", "train"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights besides the pictures.

    Args:
        release: What the network reads: ``shuffle``, ``mix`` or ``plain``.
        reference: Whether it has the reference encoding; None for the release's own default.
        positions: Whether it has a position embedding; None for the release's own default.
        embedding: How patches become tokens: ``linear`` or ``network``.
        neighbours: Rounds in which patches look for their neighbours; of shuffled ones only,
            the others know theirs.
        trunk: Residual blocks in the embedding's network; for ``network`` only.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads.
        patch_size: Side of a patch, in pixels; divides the input size.
        preprocessing: How pictures are read, at training and later.
        epochs: Passes over the pictures.
        batch_size: Pictures per step, of all devices together.
        learning_rate: Peak for 512 pictures a step; scales with ``batch_size``.
        final_fraction: Where the learning rate ends, as a fraction of the peak.
        warmup_epochs: Length of the learning rate's rise.
        weight_decay: AdamW's; not of biases, norms, tokens and positions.
        clip_norm: Largest norm of the gradient; 0 for none.
        mixup: Parameter of mixup; 0 for none.
        cutmix: Parameter of CutMix; 0 for none.
        label_smoothing: Mass spread over all classes.
        drop_path: Chance that the last block is skipped; the others' grows up to it.
        auto_augment: timm's policy, for pictures read from files as they are needed; empty for
            pictures in memory that are mirrored and shifted.
        shift: Largest random translation of pictures in memory, in pixels of the input.
        erase_probability: Chance that a rectangle of a picture is erased.
        bfloat16: Compute in bfloat16 (autocast); weights stay float32.
        half_weights: Write the trained weights as float16.
        seed: Of weights, order, augmentation and drop path.
    """

    release: str = "shuffle"
    reference: bool | None = None
    positions: bool | None = None
    embedding: str = "linear"
    neighbours: int = 0
    trunk: int = 0
    embed_dim: int = 384
    depth: int = 12
    num_heads: int = 6
    patch_size: int = 16
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    epochs: int = 300
    batch_size: int = 1024
    learning_rate: float = 5e-4
    final_fraction: float = 0.01
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    clip_norm: float = 0.0
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1
    drop_path: float = 0.1
    auto_augment: str = ""
    shift: int = 0
    erase_probability: float = 0.25
    bfloat16: bool = True
    half_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        Schedule(self.epochs, self.warmup_epochs, self.final_fraction)
        if not self.batch_size >= 2:
            raise SettingsError(f"expected batch_size >= 2, got {self.batch_size}")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise SettingsError(
                "expected a positive learning rate and a weight decay of 0 or more, "
                f"got {self.learning_rate}, {self.weight_decay}"
            )
        chances = (self.label_smoothing, self.drop_path, self.erase_probability)
        if not all(0 <= chance < 1 for chance in chances):
            raise SettingsError(
                "expected label_smoothing, drop_path and erase_probability in [0, 1), "
                f"got {', '.join(map(str, chances))}"
            )
        if not min(self.mixup, self.cutmix, self.clip_norm) >= 0:
            raise SettingsError(
                "expected mixup, cutmix and clip_norm of 0 or more, got "
                f"{self.mixup}, {self.cutmix}, {self.clip_norm}"
            )
        sides = self.preprocessing.input_size[1:]
        if not 0 <= self.shift < min(sides):
            raise SettingsError(
                f"expected a shift of 0 or more, less than the sides {sides}, got {self.shift}"
            )
        if not (self.patch_size >= 1 and all(side % self.patch_size == 0 for side in sides)):
            raise SettingsError(
                f"expected a patch size that divides {sides}, got {self.patch_size}"
            )

    def arguments(self, classes: int) -> dict[str, Any]:
        """Return what builds the network, see :class:`scotoma.models.pevit.PEViT`."""
        return {
            "release": self.release,
            "reference": self.reference,
            "positions": self.positions,
            "embedding": self.embedding,
            "neighbours": self.neighbours if self.release == "shuffle" else 0,
            **({"trunk": self.trunk} if self.trunk else {}),
            "img_size": list(self.preprocessing.input_size[1:]),
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "num_classes": classes,
        }


def open_source(
    path: Path,
    recipe: Recipe,
    *,
    workers: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Return the pictures of a folder, or of a ``.zip`` that fits in memory, for ``recipe``.

    Args:
        path: Laid out as ``CLASS/NAME.jpg``.
        recipe: Whether pictures are read at once or as needed, and how they are augmented.
        workers: Processes that read files as needed.
        on_progress: Called with (pictures read, pictures in all) while reading into memory.

    Raises:
        FileError: Nothing readable there, or fewer than two classes.
    """
    if recipe.auto_augment:
        return FileSource(
            path,
            recipe.preprocessing,
            auto_augment=recipe.auto_augment,
            erase_probability=recipe.erase_probability,
            workers=workers,
        )
    return MemorySource(
        load_class_folders(path, recipe.preprocessing, on_progress=on_progress),
        recipe.preprocessing,
        shift=recipe.shift,
        erase_probability=recipe.erase_probability,
    )


def train(
    source: Source,
    output: Path,
    recipe: Recipe,
    *,
    test: Source | None = None,
    weights: Path | None = None,
    checkpoint: Path | None = None,
    hardware: Hardware | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train, write the model to ``output``, and return the history.

    A run that was stopped goes on from ``checkpoint`` and ends in the same weights.

    Args:
        source: Training pictures.
        output: Where the ``.safetensors`` goes.
        recipe: Settings.
        test: Pictures whose accuracy, in float32, is each epoch's score.
        weights: A timm ViT's or DeiT's, to start from.
        checkpoint: File of the state after each epoch; removed at the end.
        hardware: Where to run; by default what is here, one device.
        on_step: Called with (steps done, steps in all).
        on_epoch: Called after every epoch.

    Raises:
        SettingsError: The checkpoint is damaged or another run's, or the hardware is not here.
        ModelError: The weights do not fit.
        MissingExtraError: Fabric is not installed.
    """
    fabric = start(hardware or Hardware(), bfloat16=recipe.bfloat16)
    share = Share(fabric.global_rank, fabric.world_size)
    if recipe.batch_size % share.world:
        raise SettingsError(
            f"expected a batch size that divides among {share.world} devices, "
            f"got {recipe.batch_size}"
        )
    arguments = recipe.arguments(len(source.classes))
    network = _build(arguments, recipe, weights)
    peak = recipe.learning_rate * recipe.batch_size / 512
    if fabric.device.type == "cpu":
        _attend_plainly(network)
    history = fit(
        fabric,
        network,
        adamw(network, lambda _: peak, recipe.weight_decay),
        Task(
            batches=lambda epoch: _batches(source, recipe, epoch, share),
            steps=max(1, source.count // recipe.batch_size),
            loss=lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
            score=lambda net: accuracy(net, test, fabric) if test else None,
            recipe=json.dumps({**asdict(recipe), "weights": weights and weights.name}),
            pictures=f"{source.count} of {', '.join(source.classes)}",
            seed=recipe.seed,
            clip_norm=recipe.clip_norm,
        ),
        Schedule(recipe.epochs, recipe.warmup_epochs, recipe.final_fraction),
        checkpoint=checkpoint,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    if fabric.is_global_zero:
        saved.save(
            output,
            _weights(network, half=recipe.half_weights),
            saved.SavedModel("pevit", arguments, recipe.preprocessing, source.classes),
        )
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
    fabric.barrier()
    return history


def accuracy(network: nn.Module, source: Source, fabric: Fabric) -> float:
    """Return the fraction of pictures whose top-1 decision is their label, in float32."""
    was_training = network.training
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=fabric.device)
    with torch.no_grad():
        for images, labels in source.evaluation(Share(fabric.global_rank, fabric.world_size)):
            logits = network(images.to(fabric.device))
            right += (logits.argmax(1) == labels.to(fabric.device)).sum()
    network.train(was_training)
    total: Any = fabric.all_reduce(right, reduce_op="sum")
    return int(total) / source.count


def _build(arguments: dict[str, Any], recipe: Recipe, weights: Path | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = saved.build("pevit", {**arguments, "drop_path_rate": recipe.drop_path})
    if weights is not None and isinstance(network, PEViT):
        load_vit_weights(network, read_weights(weights))
    return network


def _attend_plainly(network: nn.Module) -> None:
    """Have attention computed as it is written, in place."""
    # torch's fused kernel (2.15, CPU) has a backward pass for bfloat16 that doubles a step's time.
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 (timm's modules are not typed)


def _batches(
    source: Source, recipe: Recipe, epoch: int, share: Share
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures, mixed up as the recipe says, and their targets."""
    generator = generator_for(recipe.seed, "mixup", epoch, share.rank)
    for images, labels in source.training(epoch, recipe.batch_size, recipe.seed, share):
        targets = smooth_targets(labels, len(source.classes), recipe.label_smoothing)
        yield mix_batch(
            images, targets, mixup=recipe.mixup, cutmix=recipe.cutmix, generator=generator
        )


def _weights(network: nn.Module, *, half: bool) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = network.state_dict()
    if not half:
        return weights
    return {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
