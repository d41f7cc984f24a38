"""Bounds of bounded means: known values, symmetries, and coverage where a bootstrap fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from nearer.measure.bounded import lower_bound, sample_of, upper_bound


def bounds(
    values: np.ndarray, alpha: float = 0.025, least: float = -1.0, most: float = 1.0
) -> tuple[float, float]:
    values = np.asarray(values, dtype=np.float64)
    sample = sample_of(values, np.ones(len(values)), least, most)
    return lower_bound(sample, alpha), upper_bound(sample, alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.025, 1e-4])
@pytest.mark.parametrize(
    ("n", "successes"), [(1, 0), (1, 1), (2, 1), (10, 0), (10, 3), (30, 29), (100, 1), (1000, 500)]
)
def test_for_successes_and_failures_it_is_the_interval_of_clopper_and_pearson(
    n: int, successes: int, alpha: float
) -> None:
    low, high = bounds(np.arange(n) < successes, alpha, 0.0, 1.0)
    exact_low = beta.ppf(alpha, successes, n - successes + 1) if successes else 0.0
    exact_high = beta.ppf(1 - alpha, successes + 1, n - successes) if successes < n else 1.0
    assert (low, high) == pytest.approx((exact_low, exact_high), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 20, 200])
def test_it_is_the_quantile_of_the_mean_under_random_dirichlet_weights(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.uniform(-0.5, 0.9, n)
    low, high = bounds(values, 0.05)
    weights = rng.dirichlet(np.ones(n + 1), 40_000)
    drawn = np.quantile(weights @ np.append(values, -1.0), 0.05)
    spread = np.std(weights @ np.append(values, -1.0))
    assert low == pytest.approx(drawn, abs=0.05 * spread)
    assert high == pytest.approx(
        np.quantile(weights @ np.append(values, 1.0), 0.95), abs=0.05 * spread
    )


def test_with_very_many_queries_it_is_the_normal_interval() -> None:
    values = np.clip(np.random.default_rng(1).normal(0.05, 0.2, 20_000), -1, 1)
    values = np.round(values, 2)
    half = 1.96 * values.std() / len(values) ** 0.5
    assert bounds(values) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.05 * half
    )


@given(
    st.lists(st.sampled_from([-1.0, -0.5, -0.01, 0.0, 1e-9, 0.3, 1.0]), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.025, 0.001]),
)
@settings(max_examples=60, deadline=None)
def test_bounds_enclose_the_mean_mirror_and_ignore_the_order(
    values: list[float], alpha: float
) -> None:
    low, high = bounds(values, alpha)
    assert -1.0 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= 1.0
    assert bounds(values[::-1], alpha) == (low, high)
    assert bounds(-np.array(values), alpha) == pytest.approx((-high, -low), abs=1e-5)
    strict_low, strict_high = bounds(values, alpha / 2)
    assert strict_low <= low + 1e-6
    assert high <= strict_high + 1e-6


def test_a_sample_of_the_same_composition_can_stand_for_a_larger_one() -> None:
    values = np.random.default_rng(2).uniform(-0.4, 0.5, 20)
    sample = sample_of(values, np.ones(20), -1.0, 1.0)
    assert lower_bound(sample.enlarged(3.0), 0.05) == pytest.approx(
        bounds(np.repeat(values, 3), 0.05)[0], abs=1e-6
    )


def _rare_losses(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([0.1, -0.9, 0.0], n, p=[0.18, 0.02, 0.80])


def _few_changes(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, n) * (rng.random(n) < 0.1)


def _many_small_gains(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(n) < 0.02, -0.98, 0.02)


def _dense(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-0.5, 0.5, n)


@pytest.mark.parametrize("draw", [_rare_losses, _few_changes, _many_small_gains, _dense])
@pytest.mark.parametrize("n", [10, 30, 100])
def test_the_true_mean_lies_within_as_often_as_promised_where_most_differences_are_0(
    draw: object, n: int
) -> None:
    """The full simulation is bench/error_rates.py; here 200 samples of each, another seed."""
    rng = np.random.default_rng([20, n])
    assert callable(draw)
    too_high = too_low = 0
    for _ in range(200):
        low, high = bounds(draw(n, rng))
        too_high += low > 1e-9
        too_low += high < -1e-9
    allowed = binom.ppf(0.9999, 200, 0.025)
    assert too_high <= allowed
    assert too_low <= allowed


def test_a_loss_that_did_not_happen_yet_is_not_ruled_out() -> None:
    """Ten queries without a loss: a bootstrap sees no spread at all and ends at 0."""
    low, _ = bounds(np.zeros(10), 0.05)
    assert low == pytest.approx(-(1 - 0.05**0.1), abs=1e-6)
    assert low < -0.25
