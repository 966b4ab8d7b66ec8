"""The private bottleneck: what sits in the cut of a split network.

::

    features (B, C, h, w) ── conv 3×3 ─ SiLU ─ residual ─ conv 3×3 ──► latent (B, c, h', w')
    latent ── quantizer ══ uint8 ══ quantizer ──► latent'
    latent' ── conv 3×3 ─ SiLU ─ residual ─ conv 3×3 ─ activation ──► features'

The camera holds the encoder, the server the decoder; between them go bytes.

Source:
    Azizian, Bajić, Privacy-Preserving Autoencoder for Collaborative Object Detection, IEEE TIP
    2024 (192 → 128 → 64 channels after layer 4 of YOLOv5m, 3×3 all, SiLU, 8 bits over ±6σ).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import ImageError, ModelError, SettingsError

__all__ = [
    "ACTIVATIONS",
    "LEVELS",
    "Bottleneck",
    "BottleneckSettings",
    "Quantizer",
    "ResidualBlock",
    "activation_of",
]

LEVELS = 256
"""Most values that an element of a latent can have: it is one byte."""

_SIGMAS = 6.0
_SILU_LOWEST = -0.27847  # of x * sigmoid(x)

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}
"""What a decoder may end in, so that the tail reads what it was trained on."""


@dataclass(frozen=True)
class BottleneckSettings:
    """The shape of a bottleneck.

    Args:
        features: Channels of the cut.
        channels: Channels of the latent; the paper's are a third of the cut's.
        hidden: Channels between; the paper's are two thirds of the cut's.
        stride: 1 keeps the cut's grid; 2 halves it, 4 quarters it.
        activation: What the decoder ends in: one of :data:`ACTIVATIONS`.

    Raises:
        SettingsError: A value out of range.
    """

    features: int
    channels: int
    hidden: int
    stride: int = 1
    activation: str = "linear"

    def __post_init__(self) -> None:
        if not min(self.features, self.channels, self.hidden) >= 1:
            raise SettingsError(
                "expected at least 1 channel of features, latent and between, got "
                f"{self.features}, {self.channels}, {self.hidden}"
            )
        if self.stride not in (1, 2, 4):
            raise SettingsError(f"expected a stride of 1, 2 or 4, got {self.stride}")
        if self.activation not in ACTIVATIONS:
            raise SettingsError(
                f"expected an activation in {', '.join(ACTIVATIONS)}, got {self.activation!r}"
            )

    @classmethod
    def sized_to(
        cls,
        features: Tensor,
        *,
        channels: int = 0,
        hidden: int = 0,
        stride: int = 1,
    ) -> BottleneckSettings:
        """Return settings for a cut.

        Args:
            features: ``(B, C, h, w)`` of some pictures; they tell the activation.
            channels: Of the latent; 0 for the paper's third of ``C``.
            hidden: Between; 0 for the paper's two thirds of ``C``.
            stride: Of the latent's grid within the cut's.

        Raises:
            ImageError: The cut is no grid of positions.
        """
        if features.ndim != 4:
            raise ImageError(
                f"expected features (B, C, h, w) at the cut, got {tuple(features.shape)}; "
                "cut where the network still has a grid of positions"
            )
        count = features.shape[1]
        return cls(
            count,
            channels or max(1, round(count / 3)),
            hidden or max(1, round(2 * count / 3)),
            stride,
            activation_of(features),
        )

    def to_config(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_config` reads back."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BottleneckSettings:
        """Read what :meth:`to_config` wrote.

        Raises:
            ModelError: It is something else.
        """
        try:
            return cls(**config)
        except (TypeError, SettingsError) as error:
            raise ModelError(f"expected a bottleneck's settings, got {config!r}") from error


def activation_of(features: Tensor) -> str:
    """Return the activation that features look to have gone through."""
    lowest = float(features.min())
    if lowest >= 0:
        return "relu"
    return "silu" if lowest >= _SILU_LOWEST else "linear"


class Bottleneck(nn.Module):
    """Encoder and decoder between head and tail, without the quantizer between them."""

    def __init__(self, settings: BottleneckSettings) -> None:
        super().__init__()
        self.settings = settings
        wide, narrow, hidden = settings.features, settings.channels, settings.hidden
        shrink = [
            nn.Conv2d(wide if not step else hidden, hidden, 3, 1 if settings.stride == 1 else 2, 1)
            for step in range(_halvings(settings.stride))
        ]
        self.encoder = nn.Sequential(
            *_interleaved(shrink), ResidualBlock(hidden), nn.Conv2d(hidden, narrow, 3, 1, 1)
        )
        grow: list[nn.Module] = []
        for _ in range(_halvings(settings.stride) - 1):
            grow += [nn.ConvTranspose2d(hidden, hidden, 2, 2), nn.SiLU()]
        last: nn.Module = nn.Conv2d(hidden, wide, 3, 1, 1)
        if settings.stride > 1:
            last = nn.ConvTranspose2d(hidden, wide, 4, 2, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(narrow, hidden, 3, 1, 1),
            nn.SiLU(),
            ResidualBlock(hidden),
            *grow,
            last,
            ACTIVATIONS[settings.activation](),
        )

    def encode(self, features: Tensor) -> Tensor:
        """Return the latent ``(B, c, h', w')``; sides that the stride does not divide grow."""
        stride = self.settings.stride
        down, across = features.shape[-2:]
        # Mirrored sides would say more of the border than the features do; zeros say nothing.
        latent: Tensor = self.encoder(F.pad(features, (0, -across % stride, 0, -down % stride)))
        return latent

    def decode(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """Return features ``(B, C, h, w)`` of the cut's own ``size``."""
        features: Tensor = self.decoder(latent)
        return features[..., : size[0], : size[1]]

    @torch.no_grad()
    def calibrate(self, features: Tensor, spread: float) -> None:
        """Scale the encoder's last layer so that latents of ``features`` have a spread.

        Args:
            features: Some pictures' at the cut.
            spread: Standard deviation that the latents shall have, about 0.
        """
        last = self.encoder[-1]
        if isinstance(last, nn.Conv2d) and last.bias is not None:
            latent = self.encode(features)
            mean = latent.mean((0, 2, 3))
            # Channels' means go, so how far apart they were is no part of the spread.
            around = latent - mean[:, None, None]
            factor = spread / around.std().clamp(min=1e-12)
            last.weight.mul_(factor)
            last.bias.sub_(mean).mul_(factor)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        update = self.second(F.silu(self.first(features)))
        return F.silu(features + update)


class Quantizer(nn.Module):
    """Rounds a latent to bytes and back; all channels share one step.

    Args:
        channels: Of the latent.
        levels: How many values there are, 2 to 256.

    Security:
        What the step rounds away has not left the camera. Fewer levels are a bound on what
        any attacker gets.
    """

    low: Tensor
    step: Tensor

    def __init__(self, channels: int, levels: int = LEVELS) -> None:
        super().__init__()
        if not 2 <= levels <= LEVELS:
            raise SettingsError(f"expected 2 to {LEVELS} levels, got {levels}")
        self.levels = levels
        self.register_buffer("low", torch.zeros(channels, 1, 1))
        self.register_buffer("step", torch.ones(()))

    @torch.no_grad()
    def fit(self, latents: Tensor, step: float = 0.0) -> None:
        """Take the range from latents of training pictures: ±6σ about each channel's mean.

        Args:
            latents: ``(N, c, h, w)``.
            step: Of the rounding; 0 spreads the levels over the range, as the paper does.

        Raises:
            SettingsError: Latents that are not finite, or all the same.
        """
        mean, sigma = latents.mean((0, 2, 3)), float(latents.std())
        if not (sigma > 0 and sigma < float("inf")):
            raise SettingsError(
                f"expected latents that differ and are finite, got a deviation of {sigma}; "
                "train for longer or at a lower rate"
            )
        wide = 2 * _SIGMAS * sigma / (self.levels - 1)
        self.step.fill_(step or wide)
        middle = (self.levels - 1) // 2 if step else (self.levels - 1) / 2
        # The levels lie on multiples of a step of training's own: there rounding was learned.
        centre = (mean / self.step).round() * self.step if step else mean
        self.low.copy_((centre - middle * self.step)[:, None, None])

    def quantize(self, latent: Tensor) -> Tensor:
        """Return ``(B, c, h, w)`` uint8; what lies beyond the range is clipped."""
        places = ((latent - self.low) / self.step).round()
        return places.clamp(0, self.levels - 1).to(torch.uint8)

    def dequantize(self, places: Tensor) -> Tensor:
        """Return the float32 latent that bytes stand for."""
        return places.to(self.low.dtype) * self.step + self.low


def _halvings(stride: int) -> int:
    """Return how many layers the first half of the encoder has: one, or one a halving."""
    return max(1, stride.bit_length() - 1)


def _interleaved(layers: list[nn.Conv2d]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for layer in layers:
        found += [layer, nn.SiLU()]
    return found
