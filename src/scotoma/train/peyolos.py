"""Train PEYOLOS and its plain twin under one recipe.

Source:
    Hao et al., Human-Imperceptible, Machine-Recognizable Images, IJCAI, arXiv 2306.03679.
    Fang et al., You Only Look at One Sequence, NeurIPS 2021 (views, loss, optimizer).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scotoma.core.errors import FileError, SettingsError
from scotoma.models.peyolos import PEYOLOS, load_yolos_weights, peyolos_config
from scotoma.models.weights import read_weights
from scotoma.ops.average_precision import Boxes, average_precision
from scotoma.ops.blocks import mix_patches
from scotoma.train.detection_data import Batch, BoxSource, Views
from scotoma.train.hardware import Hardware, Share, start
from scotoma.train.loop import Epoch, Schedule, Task, adamw, fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Recipe", "detect", "precision", "train"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights besides the pictures.

    Args:
        release: What the network reads: ``mix``, ``shuffle`` or ``plain``.
        reference: Whether it has the reference encoding; None for the release's own default.
        hidden_size: Width of a token.
        layers: Number of blocks.
        heads: Attention heads.
        mlp_size: Width inside the blocks' perceptrons.
        detection_tokens: Most boxes a picture can have.
        mid_positions: Position embeddings between blocks too.
        image_size: Height and width of the grid that position embeddings are learned on; other
            sizes interpolate.
        views: How pictures are scaled; holds the patch size.
        epochs: Passes over the pictures.
        batch_size: Pictures per step, of all devices together.
        learning_rate: Peak, of all that is not new.
        new_learning_rate: Peak, of the embedding and of what the weights to start from lack.
        final_fraction: Where the learning rate ends, as a fraction of the peak.
        warmup_epochs: Length of the learning rate's rise.
        weight_decay: AdamW's; not of biases, norms, tokens and positions.
        clip_norm: Largest norm of the gradient; 0 for none.
        bfloat16: Compute in bfloat16 (autocast); weights and loss stay float32.
        seed: Of weights, order and views.
    """

    release: str = "mix"
    reference: bool | None = None
    hidden_size: int = 192
    layers: int = 12
    heads: int = 3
    mlp_size: int = 768
    detection_tokens: int = 100
    mid_positions: bool = False
    image_size: tuple[int, int] = (800, 1333)
    views: Views = field(default_factory=Views)
    epochs: int = 150
    batch_size: int = 8
    learning_rate: float = 1e-5
    new_learning_rate: float = 1e-4
    final_fraction: float = 0.0
    warmup_epochs: float = 0.0
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        Schedule(self.epochs, self.warmup_epochs, self.final_fraction)
        if not self.batch_size >= 1:
            raise SettingsError(f"expected batch_size >= 1, got {self.batch_size}")
        rates = (self.learning_rate, self.new_learning_rate)
        if not (min(rates) >= 0 < max(rates) < math.inf and 0 <= self.weight_decay < math.inf):
            raise SettingsError(
                "expected learning rates of 0 or more, one of them positive, and a weight decay "
                f"of 0 or more, got {rates} and {self.weight_decay}"
            )
        if not self.clip_norm >= 0:
            raise SettingsError(f"expected clip_norm of 0 or more, got {self.clip_norm}")
        if not min(self.image_size) >= self.views.patch_size:
            raise SettingsError(
                f"expected an image_size of at least one patch of {self.views.patch_size}, "
                f"got {self.image_size}"
            )


def train(
    source: BoxSource,
    classes: tuple[str, ...],
    output: Path,
    recipe: Recipe,
    *,
    test: BoxSource | None = None,
    weights: Path | None = None,
    checkpoint: Path | None = None,
    hardware: Hardware | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train, write the detector to the folder ``output``, and return the history.

    The folder is transformers' own (``config.json`` and ``model.safetensors``):
    ``PEYOLOS.from_pretrained(output)`` reads it. A run that was stopped goes on from
    ``checkpoint`` and ends in the same weights.

    Args:
        source: Training pictures.
        classes: Name of each label.
        output: Folder to write; must not exist.
        recipe: Settings.
        test: Pictures whose average precision is each epoch's score.
        weights: A YOLOS's weights file to start from, such as that of ``hustvl/yolos-tiny``.
        checkpoint: File of the state after each epoch; removed at the end.
        hardware: Where to run; by default what is here, one device.
        on_step: Called with (steps done, steps in all).
        on_epoch: Called after every epoch.

    Raises:
        FileError: ``output`` exists.
        SettingsError: The checkpoint is damaged or another run's, or the hardware is not here.
        ModelError: The weights do not fit.
        MissingExtraError: Fabric is not installed.

    Differences from the paper:
        Boxes are fractions of the padded canvas, which position embeddings are interpolated
        to, not of each picture before padding.
    """
    if output.exists():
        raise FileError(f"expected a new folder to write to, found {output}; name another one")
    fabric = start(hardware or Hardware(), bfloat16=recipe.bfloat16)
    share = Share(fabric.global_rank, fabric.world_size)
    if recipe.batch_size % share.world:
        raise SettingsError(
            f"expected a batch size that divides among {share.world} devices, "
            f"got {recipe.batch_size}"
        )
    network, fresh = _build(recipe, classes, weights)
    history = fit(
        fabric,
        network,
        adamw(network, lambda name: _rate(name, recipe, fresh), recipe.weight_decay),
        Task(
            batches=lambda epoch: _batches(source, recipe, epoch, share),
            steps=max(1, source.count // recipe.batch_size),
            loss=lambda net, batch: _loss(network, net, batch),
            score=lambda net: precision(net, test, recipe, fabric) if test else None,
            recipe=json.dumps({**asdict(recipe), "weights": weights and weights.name}),
            pictures=f"{source.count} of {', '.join(classes)}",
            seed=recipe.seed,
            clip_norm=recipe.clip_norm,
        ),
        Schedule(recipe.epochs, recipe.warmup_epochs, recipe.final_fraction),
        checkpoint=checkpoint,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    if fabric.is_global_zero:
        _write(network, output)
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
    fabric.barrier()
    return history


def detect(network: PEYOLOS, images: Tensor) -> list[Boxes]:
    """Return what the detector finds in releases, on canvases of unit sides.

    Args:
        network: In evaluation mode.
        images: ``(B, 3, H, W)`` normalized, of the release that the network reads.
    """
    with torch.no_grad():
        answer = network(images)
    chances = answer.logits.float().softmax(-1)[..., :-1]
    scores, labels = chances.max(-1)
    corners = _corners(answer.pred_boxes.float())
    return [
        Boxes(*(part.cpu().numpy() for part in (box.double(), label, score.double())))
        for box, label, score in zip(corners, labels, scores, strict=True)
    ]


def precision(network: nn.Module, source: BoxSource, recipe: Recipe, fabric: Fabric) -> float:
    """Return COCO's average precision, in float32; every process scores all pictures."""
    was_training = network.training
    network.eval()
    found: list[Boxes] = []
    annotated: list[Boxes] = []
    for batch in source.evaluation(Share()):
        images = _release(batch.images, recipe).to(fabric.device)
        found.extend(detect(network, images))  # type: ignore[arg-type]
        annotated.extend(
            Boxes(_corners(boxes).double().numpy(), labels.numpy())
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        )
    network.train(was_training)
    return average_precision(found, annotated)


def _build(
    recipe: Recipe, classes: tuple[str, ...], weights: Path | None
) -> tuple[PEYOLOS, frozenset[str]]:
    """The network with its first weights, and the names of those that are new."""
    from transformers import YolosConfig

    config = peyolos_config(
        YolosConfig(
            hidden_size=recipe.hidden_size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=recipe.mlp_size,
            num_detection_tokens=recipe.detection_tokens,
            use_mid_position_embeddings=recipe.mid_positions,
            image_size=list(recipe.image_size),
            patch_size=recipe.views.patch_size,
            id2label=dict(enumerate(classes)),
            label2id={name: number for number, name in enumerate(classes)},
        ),
        recipe.release,
        reference=recipe.reference,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = PEYOLOS(config)
    fresh = load_yolos_weights(network, read_weights(weights)) if weights else ()
    return network, frozenset(fresh)


def _rate(name: str, recipe: Recipe, fresh: frozenset[str]) -> float:
    is_new = name in fresh or name.startswith("vit.embeddings.patch_embeddings.")
    return recipe.new_learning_rate if is_new else recipe.learning_rate


def _release(images: Tensor, recipe: Recipe) -> Tensor:
    """What the network is shown: shuffled pictures teach it the same as plain ones."""
    return mix_patches(images, recipe.views.patch_size, 2) if recipe.release == "mix" else images


def _batches(
    source: BoxSource, recipe: Recipe, epoch: int, share: Share
) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
    for batch in source.training(epoch, recipe.batch_size, recipe.seed, share):
        yield _release(batch.images, recipe), _targets(batch)


def _targets(batch: Batch) -> list[dict[str, Tensor]]:
    pairs = zip(batch.boxes, batch.labels, strict=True)
    return [{"boxes": boxes, "class_labels": labels} for boxes, labels in pairs]


def _loss(network: PEYOLOS, wrapped: nn.Module, batch: Any) -> Tensor:
    """The Hungarian loss, in float32: the matching has no bfloat16 kernels everywhere."""
    images, targets = batch
    answer = wrapped(images)
    with torch.autocast(images.device.type, enabled=False):
        loss: Tensor = network.loss_function(
            answer.logits.float(),
            targets,
            images.device,
            answer.pred_boxes.float(),
            network.config,
        )[0]
    return loss


def _corners(boxes: Tensor) -> Tensor:
    centres, sides = torch.split(boxes, 2, dim=-1)
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)


def _write(network: PEYOLOS, output: Path) -> None:
    from transformers.utils import logging

    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    logging.disable_progress_bar()
    try:
        network.save_pretrained(part)
    finally:
        logging.enable_progress_bar()
    part.replace(output)
