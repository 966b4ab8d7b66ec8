"""PEYOLOS: transformers' YOLOS, reading mixed or shuffled pictures without a key.

Mixing keeps the order of patches, so a detector of mixed pictures knows where things are.
It is YOLOS on the release itself: half the sides, half the patch, the same grid of patches.

Shuffling does not. A detector whose answer may not depend on the order of patches gives the
same boxes for every arrangement of them, so its boxes cannot say where an object was; what
it can learn is which objects there are, and how large and where such objects mostly are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import MissingExtraError, SettingsError, UnknownNameError
from scotoma.models.pevit import RELEASES, ReferenceEncoding
from scotoma.models.weights import load_known

try:
    from transformers import YolosConfig, YolosForObjectDetection
except ImportError as error:
    raise MissingExtraError("detecting with PEYOLOS", "transformers", "train") from error

__all__ = ["PEYOLOS", "load_yolos_weights", "peyolos_config"]

_MID_POSITIONS = "vit.encoder.interpolation.mid_position_embeddings"
_POSITIONS = ("vit.embeddings.position_embeddings", _MID_POSITIONS)


def peyolos_config(
    yolos: YolosConfig, release: str = "mix", *, reference: bool | None = None
) -> YolosConfig:
    """Return the configuration of a PEYOLOS that is otherwise like a YOLOS.

    Args:
        yolos: With the sides of plain pictures and their patches.
        release: ``mix``, ``shuffle``, or ``plain`` for the plain twin.
        reference: Encode patches relative to a learned reference; by default only for
            ``shuffle``, which has no other encoding.

    Returns:
        A copy with the entries ``release`` and ``reference``; for ``mix`` with halved
        ``image_size`` and ``patch_size``, those of the release.

    Raises:
        UnknownNameError: No such release.
        SettingsError: A patch cannot be cut into 2×2 sub-patches.
    """
    if release not in RELEASES:
        raise UnknownNameError("release", release, RELEASES)
    config = copy.deepcopy(yolos)
    config.release = release
    config.reference = release == "shuffle" if reference is None else reference
    if release == "mix":
        if config.patch_size % 2:
            raise SettingsError(
                "expected an even patch size, to be cut into 2×2 sub-patches, "
                f"got {config.patch_size}"
            )
        config.patch_size //= 2
        config.image_size = [side // 2 for side in config.image_size]
    return config


class PEYOLOS(YolosForObjectDetection):  # type: ignore[misc]
    """YOLOS with what key-less releases need in place of its embeddings.

    ``reads`` says which schemes' releases it reads. Patches of shuffled pictures share one
    position embedding, in the first layer and between layers; class and detection tokens keep
    their own.

    Args:
        config: As :func:`peyolos_config` returns it.

    Differences from the paper:
        The paper averages inside the network; here the network reads the release, which
        someone averaged before. Both are the same (:func:`scotoma.ops.blocks.mix_patches`).

    Source:
        Hao et al., Human-Imperceptible, Machine-Recognizable Images, IJCAI, arXiv 2306.03679.
        Fang et al., You Only Look at One Sequence, NeurIPS 2021.
    """

    def __init__(self, config: YolosConfig) -> None:
        if getattr(config, "release", None) not in RELEASES:
            raise SettingsError(
                "expected a configuration that names its release, got one of a plain YOLOS; "
                "make one with peyolos_config(config, 'mix')"
            )
        super().__init__(config)
        self.loss_type = "ForObjectDetection"  # which transformers guesses from a class's name
        release = config.release
        self.reads: frozenset[str] = frozenset() if release == "plain" else frozenset({release})
        embeddings, encoder = self.vit.embeddings, self.vit.encoder
        embeddings.patch_embeddings = _Patches(
            embeddings.patch_embeddings.projection,
            nn.Conv2d(config.hidden_size, config.hidden_size, 1) if release == "mix" else None,
            ReferenceEncoding(config.hidden_size) if config.reference else None,
        )
        if release == "shuffle":
            rows = config.num_detection_tokens + 2
            embeddings.position_embeddings = nn.Parameter(torch.zeros(1, rows, config.hidden_size))
            embeddings.interpolation = _SharedPositions(config)
            if config.use_mid_position_embeddings:
                encoder.interpolation = _SharedMidPositions(config)
        self._start_tokens()

    def _start_tokens(self) -> None:
        """Draw tokens and positions: transformers starts them at 0, alike, for pretrained ones."""
        for name, parameter in self.named_parameters():
            if name.endswith(("_token", "_tokens", "position_embeddings")):
                nn.init.trunc_normal_(parameter, std=self.config.initializer_range)


class _Patches(nn.Module):
    """Pictures to patch tokens: convolution, for mixed ones GELU and 1×1, then the reference."""

    def __init__(
        self, projection: nn.Module, out: nn.Module | None, reference: nn.Module | None
    ) -> None:
        super().__init__()
        self.projection = projection
        self.out = out
        self.reference = reference

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.projection(images)
        if self.out is not None:
            tokens = self.out(F.gelu(tokens))
        tokens = tokens.flatten(2).transpose(1, 2)
        encoded: Tensor = tokens if self.reference is None else self.reference(tokens)
        return encoded


class _SharedPositions(nn.Module):
    """Give every patch the one position embedding in the middle, whatever the picture's size."""

    def __init__(self, config: YolosConfig) -> None:
        super().__init__()
        self.patch_size: int = config.patch_size

    def forward(self, positions: Tensor, size: tuple[int, int]) -> Tensor:
        count = (size[0] // self.patch_size) * (size[1] // self.patch_size)
        before, patch, after = positions[..., :1, :], positions[..., 1:2, :], positions[..., 2:, :]
        shared = patch.expand(*patch.shape[:-2], count, patch.shape[-1])
        return torch.cat([before, shared, after], dim=-2)


class _SharedMidPositions(_SharedPositions):
    """The same between layers, where transformers keeps the embeddings beside their size."""

    def __init__(self, config: YolosConfig) -> None:
        super().__init__(config)
        layers, rows = config.num_hidden_layers - 1, config.num_detection_tokens + 2
        self.mid_position_embeddings = nn.Parameter(
            torch.zeros(layers, 1, rows, config.hidden_size)
        )

    def forward(self, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        return super().forward(self.mid_position_embeddings, size)


def load_yolos_weights(network: PEYOLOS, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load what a YOLOS, such as ``hustvl/yolos-tiny``, shares with ``network``, in place.

    A network of shuffled pictures takes the mean of the patches' position embeddings for the
    one they share.

    Args:
        network: Of the same width, depth, picture size and detection tokens.
        weights: State dict of :class:`transformers.YolosForObjectDetection`.

    Returns:
        Names of the tensors that keep their first values: the reference encoding, the embedding
        of mixed patches, a classifier for another number of classes.

    Raises:
        ModelError: Anything else is missing, unknown or of another shape.
    """
    own = network.state_dict()
    # Files from before transformers 5, such as those of hustvl, name it otherwise.
    names = {name: name.replace("encoder.mid_", "encoder.interpolation.mid_") for name in weights}
    given = {names[name]: value for name, value in weights.items()}
    if network.config.release == "shuffle":
        for name in _POSITIONS:
            if name in given and given[name].shape != own.get(name, given[name]).shape:
                given[name] = _share_positions(given[name], network.config.num_detection_tokens)
    fresh = tuple(name for name in own if _is_new(name, own, given))
    expected = "a YOLOS of the same width, depth, picture size and detection tokens"
    load_known(network, given, fresh, expected)
    return fresh


def _share_positions(positions: Tensor, detection_tokens: int) -> Tensor:
    last = positions.shape[-2] - detection_tokens
    patches = positions[..., 1:last, :].mean(dim=-2, keepdim=True)
    return torch.cat([positions[..., :1, :], patches, positions[..., last:, :]], dim=-2)


def _is_new(name: str, own: Mapping[str, Tensor], given: Mapping[str, Any]) -> bool:
    """Whether a tensor of the network has no counterpart in a YOLOS."""
    if ".reference." in name:
        return name not in given
    mixed = "vit.embeddings.patch_embeddings.out.weight"
    if name.startswith("vit.embeddings.patch_embeddings."):
        return mixed in own and mixed not in given
    last = "class_labels_classifier.layers.2."
    if name.startswith(last):
        head = given.get(f"{last}weight")
        return head is None or head.shape != own[f"{last}weight"].shape
    return False
