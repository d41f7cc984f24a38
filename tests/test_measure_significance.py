"""The statistics must hold their promises: error rates, coverage, symmetry, and the same answer under a seed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from nearer.errors import DataError
from nearer.measure.significance import (
    compare,
    holm,
    mean_interval,
    non_inferior,
    queries_needed,
    smallest_difference,
)


def seeded(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def within_chance(hits: int, trials: int, rate: float) -> bool:
    """Would a true rate give this count in all but one of 10,000 repetitions?"""
    low, high = binom.interval(0.9999, trials, rate)
    return bool(low <= hits <= high)


def test_no_difference_is_called_significant_in_five_percent_of_experiments() -> None:
    data = seeded(1)
    p = np.array(
        [
            compare(x := data.random(40), x + data.normal(0, 0.3, 40), data, 999).p
            for _ in range(800)
        ]
    )
    assert within_chance(int((p <= 0.05).sum()), 800, 0.05)
    assert within_chance(int((p <= 0.5).sum()), 800, 0.5)


def test_p_is_the_exact_randomisation_p_for_few_queries() -> None:
    diff = np.array([0.3, -0.1, 0.2, 0.2, 0.05, 0.0, 0.4])
    exact = np.mean(
        [
            abs(np.dot(signs, diff)) >= abs(diff.sum()) - 1e-12
            for signs in itertools.product([-1, 1], repeat=len(diff))
        ]
    )
    assert compare(np.zeros(7), diff, seeded(), 40_000).p == pytest.approx(exact, abs=0.005)


def test_bca_covers_the_mean_of_skewed_values_about_as_often_as_it_says() -> None:
    data = seeded(2)
    trials = 400
    inside = 0
    for _ in range(trials):
        interval = mean_interval(data.exponential(1.0, 60), data, 999, 0.1)
        inside += interval.low <= 1.0 <= interval.high
    assert (
        0.85 <= inside / trials <= 0.94
    )  # nominal .90; BCa is known to run a little short on exponential data


def test_the_interval_leans_to_the_long_tail() -> None:
    interval = mean_interval(seeded(3).exponential(1.0, 50), seeded(), 4000)
    assert interval.high - interval.mean > interval.mean - interval.low > 0


def test_the_same_seed_gives_the_same_answer_and_another_seed_another() -> None:
    before, after = seeded(4).random(80), seeded(5).random(80)
    first, again, other = (compare(before, after, seeded(seed), 999) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_memory_blocks_do_not_limit_the_number_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearer.measure.significance._BLOCK", 500)
    result = compare(np.zeros(60), np.full(60, 0.1), seeded(), 1003)
    assert result.p == 1 / 1004  # all draws were made, none was as extreme


def test_swapping_the_systems_swaps_the_sign() -> None:
    before, after = seeded(4).random(80), seeded(5).random(80) + 0.05
    there, back = compare(before, after, seeded(), 5000), compare(after, before, seeded(), 5000)
    assert there.delta == pytest.approx(-back.delta)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.p == back.p
    assert there.low == pytest.approx(-back.high, abs=0.01)


def test_a_comparison_counts_wins_ties_losses_and_prints_itself() -> None:
    result = compare(np.array([0.5, 0.5, 0.2, 0.9]), np.array([0.6, 0.5, 0.4, 0.8]), seeded(), 999)
    assert (result.n, result.wins, result.ties, result.losses) == (4, 2, 1, 1)
    assert result.delta == pytest.approx(0.05)
    assert result.sd == pytest.approx(np.std([0.1, 0, 0.2, -0.1], ddof=1))
    assert set(result.as_dict()) == {"delta", "ci", "p", "n", "wins", "ties", "losses", "sd"}
    assert "+0.050" in str(result)
    assert "2 won, 1 tied, 1 lost" in str(result)


def test_identical_systems_differ_by_nothing() -> None:
    same = seeded().random(30)
    result = compare(same, same, seeded(), 999)
    assert (result.delta, result.low, result.high, result.p, result.ties) == (
        0.0,
        0.0,
        0.0,
        1.0,
        30,
    )


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.4, 0.4]])
def test_without_spread_the_interval_is_the_mean(values: list[float]) -> None:
    interval = mean_interval(np.array(values), seeded())
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.4, 0.4, 0.4))


def test_the_interval_of_two_values_is_finite_and_within_them() -> None:
    interval = mean_interval(np.array([0.0, 1.0]), seeded(), 999)
    assert 0.0 <= interval.low <= 0.5 <= interval.high <= 1.0


def test_clusters_widen_the_interval_when_their_queries_agree() -> None:
    users = np.repeat(np.arange(20), 10)
    values = np.repeat(seeded(8).normal(0.1, 0.2, 20), 10)
    alone, together = (
        mean_interval(values, seeded(), 2000),
        mean_interval(values, seeded(), 2000, clusters=users),
    )
    assert together.mean == alone.mean
    assert together.high - together.low > 2 * (alone.high - alone.low)
    zero = np.zeros(200)
    assert (
        compare(zero, values, seeded(), 2000, clusters=users).p
        > 5 * compare(zero, values, seeded(), 2000).p
    )
    one = mean_interval(values, seeded(), clusters=["all"] * 200)
    assert (one.low, one.high) == (values.min(), values.max())


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [0.1, math.inf]])
def test_values_that_have_no_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError):
        mean_interval(np.array(values), seeded())


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        compare(np.zeros(3), np.zeros(4), seeded())


def test_the_lower_bound_is_one_sided() -> None:
    diff = seeded(9).normal(0.05, 0.2, 400)
    normal = diff.mean() - 1.645 * diff.std(ddof=1) / 20
    assert non_inferior(diff, 0.02, seeded(), 5000).lower_bound == pytest.approx(normal, abs=0.003)


def test_no_harm_shown_passes_real_harm_fails_and_too_few_queries_decide_nothing() -> None:
    noise = seeded(10).normal(0, 0.25, 1000)
    noise -= noise.mean()
    safe = non_inferior(noise, 0.05, seeded(), 2000)
    assert (safe.status, safe.queries_needed) == ("pass", None)
    assert -0.05 < safe.lower_bound < 0
    worse = non_inferior(noise - 0.1, 0.05, seeded(), 2000)
    assert (worse.status, worse.queries_needed) == ("fail", None)
    few = noise[:40] - noise[:40].mean()
    unclear = non_inferior(few, 0.02, seeded(), 2000)
    assert unclear.status == "inconclusive"
    assert unclear.queries_needed == queries_needed(float(few.std(ddof=1)), 0.02, sides=1)
    assert unclear.as_dict()["queries_needed"] > 40


def test_an_insignificant_loss_is_no_evidence_of_safety() -> None:
    diff = seeded(11).normal(0, 0.25, 100)
    diff += -0.015 - diff.mean()
    assert compare(np.zeros(100), diff, seeded(), 2000).p > 0.3
    assert non_inferior(diff, 0.02, seeded(), 2000).status == "inconclusive"


def test_a_handful_of_unchanged_queries_proves_nothing() -> None:
    assert non_inferior(np.zeros(3), 0.02, seeded()).status == "inconclusive"
    assert non_inferior(np.zeros(3), 0.02, seeded()).queries_needed == 10
    assert non_inferior(np.full(3, -0.5), 0.02, seeded()).status == "inconclusive"
    assert non_inferior(np.zeros(50), 0.0, seeded()).status == "pass"


def test_no_number_of_queries_shows_that_nothing_at_all_was_lost() -> None:
    balanced = np.tile([0.1, -0.1], 50)
    guard = non_inferior(balanced, 0.0, seeded(), 999)
    assert (guard.status, guard.queries_needed) == ("inconclusive", None)


def test_power_figures_are_those_of_the_field_notes() -> None:
    assert queries_needed(0.25, 0.05) == pytest.approx(200, abs=5)
    assert queries_needed(0.25, 0.02) == pytest.approx(1225, abs=5)
    assert smallest_difference(1225) == pytest.approx(0.02, abs=1e-4)
    assert smallest_difference(561) == pytest.approx(0.0296, abs=1e-3)
    assert math.isinf(smallest_difference(0))
    with pytest.raises(ValueError, match="difference of 0"):
        queries_needed(0.25, 0.0)


def test_the_promised_power_is_reached() -> None:
    data = seeded(13)
    n = queries_needed(0.25, 0.08)
    found = sum(
        compare(np.zeros(n), data.normal(0.08, 0.25, n), data, 999).p <= 0.05 for _ in range(300)
    )
    assert within_chance(found, 300, 0.8)


def test_holm_matches_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_order_and_never_lowers_a_p_value(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(1.0 >= a >= b for a, b in zip(adjusted, p, strict=True))
    in_order = [a for _, a in sorted(zip(p, adjusted, strict=True))]
    assert in_order == sorted(in_order)
