from __future__ import annotations

import time

import numpy as np
import pytest

from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.evaluate.metrics.coding import bd_rate, bits_per_pixel, median_latency_ms

CURVE = [(0.2, 28.0), (0.4, 31.0), (0.9, 34.5), (1.7, 38.0)]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_bd_rate_of_scaled_rates_is_the_factor(factor: float) -> None:
    scaled = [(factor * rate, quality) for rate, quality in CURVE]
    assert bd_rate(CURVE, scaled) == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_bd_rate_is_the_mean_distance_of_log_rates() -> None:
    """Straight lines in (quality, log rate), of which the area between is known."""
    one = [(float(np.exp(0.1 * q)), float(q)) for q in (20, 24, 28, 32)]
    other = [(float(np.exp(0.1 * q + 0.02 * (q - 20))), float(q)) for q in (20, 24, 28, 32)]
    assert bd_rate(one, other) == pytest.approx(100 * (np.exp(0.02 * 6) - 1), rel=1e-6)


def test_bd_rate_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(NotApplicableError, match="share half"):
        bd_rate(CURVE, [(rate, quality + 9) for rate, quality in CURVE])
    with pytest.raises(NotApplicableError, match="grows with the rate"):
        bd_rate(CURVE, [*CURVE[:3], (2.0, 30.0)])
    with pytest.raises(SettingsError, match="4 or more"):
        bd_rate(CURVE, CURVE[:3])
    with pytest.raises(SettingsError, match="positive rates"):
        bd_rate(CURVE, [(0.0, 20.0), *CURVE])


def test_bits_are_per_pixel_of_the_original() -> None:
    assert bits_per_pixel(1000, 20, 40) == 10.0
    with pytest.raises(SettingsError, match="expected bytes and a picture"):
        bits_per_pixel(10, 0, 4)


def test_latency_is_the_median_of_what_comes_after_the_warm_up() -> None:
    calls = iter([0.2, 0.2, 0.001, 0.02, 0.001, 0.02, 0.02])
    found = median_latency_ms(lambda: time.sleep(next(calls)), repeats=5, warm_up=2)
    assert 19 <= found < 150
    assert next(calls, None) is None
    with pytest.raises(SettingsError, match="at least one repeat"):
        median_latency_ms(lambda: None, repeats=0)
