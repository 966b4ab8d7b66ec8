"""How a network is compressed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scotoma.core.errors import SettingsError

__all__ = ["CompressSettings"]


@dataclass(frozen=True)
class CompressSettings:
    """What may be lost, and how.

    Either ``budget``, ``price`` or ``bits`` decides how coarse the weights become.

    Args:
        budget: Accuracy that may be lost on pictures held out, in points; the smallest file
            within it is searched.
        price: What a bit costs, in nats of divergence a picture; the same for all weights.
        bits: Of every weight, the same for all, with a step for each output channel: plain
            quantization.
        prune: Share of the weights that become zero first, the smallest, in [0, 1); only with
            ``bits``, for a price leaves out what is not worth it.
        fractional: Share of the kernels of 3×3 and more that become fractional filters, those
            that lose least by it, in [0, 1]; not with ``bits``.
        held_out: Pictures on which the budget is measured.
        fitting: Pictures on which it is found what weights are worth.
        tries: Files that are made and measured to meet the budget.
        seed: Of the pictures' order and of drawn labels.

    Raises:
        SettingsError: A number out of range, or not exactly one of the three.
    """

    budget: float | None = None
    price: float | None = None
    bits: int | None = None
    prune: float = 0.0
    fractional: float = 0.0
    held_out: int = 2000
    fitting: int = 1000
    tries: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        given = [n for n in ("budget", "price", "bits") if getattr(self, n) is not None]
        if len(given) != 1:
            raise SettingsError(
                f"expected one of budget, price and bits, got {', '.join(given) or 'none'}"
            )
        if self.budget is not None and not 0 < self.budget <= 100:
            raise SettingsError(
                f"expected a budget above 0 and at most 100 points, got {self.budget}; for no "
                "loss that could be measured write for example 0.1"
            )
        if self.price is not None and not 0 < self.price < math.inf:
            raise SettingsError(f"expected a price above 0, got {self.price}")
        if self.bits is not None and not 2 <= self.bits <= 16:
            raise SettingsError(f"expected 2 to 16 bits, got {self.bits}")
        if not 0 <= self.prune < 1:
            raise SettingsError(f"expected prune in [0, 1), got {self.prune}")
        if self.prune and self.bits is None:
            raise SettingsError("expected bits beside prune; a price leaves weights out by itself")
        if not 0 <= self.fractional <= 1:
            raise SettingsError(f"expected fractional in [0, 1], got {self.fractional}")
        if self.fractional and self.bits is not None:
            raise SettingsError("expected a budget or a price beside fractional, got bits")
        for name in ("held_out", "fitting", "tries"):
            if not getattr(self, name) >= 1:
                raise SettingsError(f"expected {name} of 1 or more, got {getattr(self, name)}")
