"""Train a private bottleneck for a network that stays as it is.

Two sides take turns on every batch: adversaries learn to rebuild the pictures from latents,
then encoder and decoder learn the task, few bits, and latents that tell the adversaries little.
Head and tail are frozen.

Source:
    Azizian, Bajić, Privacy-Preserving Feature Coding for Machines, PCS 2022; IEEE TIP 2024.

Differences from the paper:
    Several adversaries may be trained against, some of them restarted on the way. The rate of
    a learned prior may bound what the latents tell (the paper's bits are made small by the
    shape of the latent alone). What an adversary gets is counted up to the loss of the mean
    picture: to lead it beyond that hides nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.models.bottleneck import LEVELS, BottleneckSettings
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.split_model import SplitModel, open_split, save_split
from scotoma.train.data import load_class_folders
from scotoma.train.hardware import Hardware, Share, start
from scotoma.train.loop import Epoch
from scotoma.train.sources import FileSource, MemorySource, Source
from scotoma.train.split_adversaries import ADVERSARIES
from scotoma.train.split_loop import Duel, first_pictures, fit_range
from scotoma.train.split_losses import TASKS

__all__ = ["Recipe", "logits_of", "open_source", "prepare", "train"]

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bottleneck besides the pictures, the model and the cut.

    Args:
        channels: Of the latent; 0 for the paper's third of the cut's.
        hidden: Channels between; 0 for the paper's two thirds of the cut's.
        stride: Of the latent's grid within the cut's: 1, 2 or 4.
        levels: Values that an element of the latent can have, 2 to 256.
        step: Of the rounding, which training then sees; 0 spreads the levels over ±6σ.
        task: What the task is learned from: ``labels``, or ``answers`` of the plain network.
        imitation: Weight, while the task is learned alone, of features unlike the plain ones.
        compressibility: Weight of the paper's compressibility loss, ``w_c``.
        rate: Weight of the bits per pixel that the latents need; needs a ``step``.
        reconstruction: Weight of the adversaries' loss, ``w_rec``.
        sobel: Weight of edges in that loss, ``β``.
        adversaries: Architectures of :mod:`scotoma.train.split_adversaries`; none, if empty.
        adversary_width: Their channels; 0 for twice the cut's, at most 128.
        adversary_steps: Steps of theirs for one of the bottleneck's.
        restart_epochs: After so many epochs one adversary, in turn, begins anew; 0 never.
        alone_epochs: Epochs of the task alone.
        epochs: Epochs after those, with all that limits the latents.
        batch_size: Pictures per step, of all devices together.
        optimizer: ``adamw``, or the paper's ``sgd`` (Nesterov, momentum 0.937).
        learning_rate: Peak; each of the two phases ends at ``final_fraction`` of it.
        adversary_rate: The adversaries', without a schedule; always AdamW's.
        weight_decay: Of the bottleneck.
        final_fraction: Where the cosine ends, as a fraction of the peak.
        clip_norm: Largest norm of the bottleneck's gradient; 0 for none.
        auto_augment: timm's policy, for pictures read from files as they are needed; empty for
            pictures in memory that are mirrored and shifted.
        shift: Largest random translation of pictures in memory, in pixels.
        calibration: Training pictures that tell the range of the latents, and the coder's model.
        bfloat16: Compute in bfloat16 (autocast); weights stay float32.
        half_weights: Write weights as float16.
        seed: Of weights, order and augmentation.
    """

    channels: int = 0
    hidden: int = 0
    stride: int = 1
    levels: int = LEVELS
    step: float = 0.0
    task: str = "labels"
    imitation: float = 0.0
    compressibility: float = 0.0
    rate: float = 0.0
    reconstruction: float = 0.0
    sobel: float = 5.0
    adversaries: tuple[str, ...] = ()
    adversary_width: int = 0
    adversary_steps: int = 1
    restart_epochs: int = 0
    alone_epochs: int = 0
    epochs: int = 40
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    adversary_rate: float = 1e-3
    weight_decay: float = 1e-4
    final_fraction: float = 0.01
    clip_norm: float = 1.0
    auto_augment: str = ""
    shift: int = 0
    calibration: int = 1024
    bfloat16: bool = False
    half_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.epochs, self.batch_size, self.adversary_steps, self.calibration)
        if not min(counts) >= 1:
            raise SettingsError(
                "expected epochs, batch_size, adversary_steps and calibration of 1 or more, got "
                f"{', '.join(map(str, counts))}"
            )
        least = (
            *(self.channels, self.hidden, self.adversary_width, self.restart_epochs),
            *(self.alone_epochs, self.step, self.compressibility, self.rate, self.shift),
            *(self.reconstruction, self.sobel, self.weight_decay, self.clip_norm, self.imitation),
        )
        if not all(0 <= value < math.inf for value in least):
            raise SettingsError(f"expected no negative or infinite settings, got {self}")
        if not (0 < self.learning_rate < math.inf and 0 < self.adversary_rate < math.inf):
            raise SettingsError(
                "expected positive learning rates, got "
                f"{self.learning_rate} and {self.adversary_rate}"
            )
        if not 0 <= self.final_fraction <= 1:
            raise SettingsError(f"expected final_fraction in [0, 1], got {self.final_fraction}")
        if not 2 <= self.levels <= LEVELS:
            raise SettingsError(f"expected 2 to {LEVELS} levels, got {self.levels}")
        if self.rate > 0 and self.step == 0:
            raise SettingsError("expected a step above 0 to count bits of, got rate without step")
        for kind, name, known in (
            ("task of a bottleneck", self.task, TASKS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            *(("adversary", name, tuple(ADVERSARIES)) for name in self.adversaries),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if bool(self.adversaries) != (self.reconstruction > 0):
            raise SettingsError(
                "expected both adversaries and a weight of reconstruction, or neither, got "
                f"{self.adversaries} and {self.reconstruction}"
            )


def open_source(
    path: Path,
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    workers: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Return the pictures of a folder, or of a ``.zip`` that fits in memory.

    Args:
        path: Laid out as ``CLASS/NAME.jpg``; anyhow, where the task is the network's answers.
        preprocessing: The classifier's own.
        recipe: Whether pictures are read at once or as needed, and how they are augmented.
        workers: Processes that read files as needed.
        on_progress: Called with (pictures read, pictures in all) while reading into memory.

    Raises:
        FileError: Nothing readable there, or fewer than two classes.
    """
    labelled = recipe.task == "labels"
    if recipe.auto_augment:
        policy = recipe.auto_augment
        return FileSource(
            path, preprocessing, auto_augment=policy, workers=workers, labelled=labelled
        )
    pictures = load_class_folders(path, preprocessing, labelled=labelled, on_progress=on_progress)
    return MemorySource(pictures, preprocessing, shift=recipe.shift)


def logits_of(source: Source, classifier: Classifier) -> Tensor:
    """Return which logit each of a source's classes is: ``(K,)``.

    Raises:
        SettingsError: Folders of other names than the classifier's classes, in another number.
    """
    known = classifier.classes
    if known is None or known == source.classes:
        return torch.arange(len(source.classes))
    if set(source.classes) <= set(known):
        return torch.tensor([known.index(name) for name in source.classes])
    strange = next(name for name in source.classes if name not in known)
    raise SettingsError(
        f"expected class folders named as {classifier.name}'s classes ({known[0]}, ...), got "
        f"{strange!r}; rename them, or train with task = answers"
    )


def prepare(classifier: Classifier, at: str, source: Source, recipe: Recipe) -> SplitModel:
    """Return the classifier cut, with an untrained bottleneck sized to the cut.

    Raises:
        UnknownNameError: No such cut.
        ImageError: The cut is no grid of positions.
        ModelError: The classifier cannot be cut.
    """
    model = open_split(classifier, at, levels=recipe.levels)
    images, _ = next(iter(source.evaluation(Share())))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        features = model.head(images)
        torch.manual_seed(recipe.seed)
        model.insert(
            BottleneckSettings.sized_to(
                features, channels=recipe.channels, hidden=recipe.hidden, stride=recipe.stride
            )
        )
        if model.bottleneck is not None:
            # A few steps apart from the start on, or all rounds to one value and learns nothing.
            model.bottleneck.calibrate(features, 2 * recipe.step if recipe.step else 1.0)
    return model


def train(
    classifier: Classifier,
    at: str,
    source: Source,
    output: Path,
    recipe: Recipe,
    *,
    test: Source | None = None,
    checkpoint: Path | None = None,
    hardware: Hardware | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train a bottleneck, write the split model to ``output``, and return the history.

    A run that was stopped goes on from ``checkpoint`` and ends in the same weights.

    Args:
        classifier: Stays as it is.
        at: Where it is cut.
        source: Training pictures.
        output: Where the ``.safetensors`` goes.
        recipe: Settings.
        test: Pictures whose accuracy, of bytes as they leave the camera, is an epoch's score.
        checkpoint: File of the state after each epoch; removed at the end.
        hardware: Where to run; by default what is here, one device.
        on_step: Called with (steps done, steps in all).
        on_epoch: Called after every epoch.

    Raises:
        SettingsError: The checkpoint is damaged or another run's, or the hardware is not here.
        ModelError: The classifier cannot be cut there.
        MissingExtraError: Fabric is not installed.
    """
    fabric = start(hardware or Hardware(), bfloat16=recipe.bfloat16)
    if recipe.batch_size % fabric.world_size:
        raise SettingsError(
            f"expected a batch size that divides among {fabric.world_size} devices, "
            f"got {recipe.batch_size}"
        )
    model = prepare(classifier, at, source, recipe)
    text = json.dumps(
        {**asdict(recipe), "at": at, "plain": model.description.plain_digest}, sort_keys=True
    )
    labels = None if recipe.task == "answers" else logits_of(source, classifier)
    duel = Duel(fabric, model, source, recipe, text, labels)
    history = duel.run(test, checkpoint=checkpoint, on_step=on_step, on_epoch=on_epoch)
    fit_range(model, source, recipe, fabric.device)
    model.fit_coder(first_pictures(source, recipe.calibration, fabric.device))
    network = classifier.network
    if fabric.is_global_zero and isinstance(network, nn.Module):
        save_split(output, model.cpu(), network, half=recipe.half_weights)
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
    fabric.barrier()
    return history
