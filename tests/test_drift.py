"""The statistics of monitoring: right numbers on small cases, honest p values where nothing changed, power where something did."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact, mannwhitneyu, ttest_ind

from nearer.measure import drift
from nearer.measure.drift import vectors


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def too_many(p: list[float], alpha: float) -> bool:
    """More p values below alpha than chance gives once in a thousand times?"""
    return bool(binom.sf(sum(one <= alpha for one in p) - 1, len(p), alpha) < 0.001)


def topics(
    rng: np.random.Generator, n: int, centres: np.ndarray, spread: float = 0.5
) -> np.ndarray:
    return (
        centres[rng.integers(len(centres), size=n)]
        + spread * rng.normal(size=(n, centres.shape[1]))
    ).astype(np.float32)


# -- scores and shares ------------------------------------------------------------------------------------


def test_the_stability_index_is_that_of_the_definition() -> None:
    reference, sample = (
        np.repeat(np.arange(10.0), 100),
        np.repeat(np.arange(10.0), [50, 150, *[100] * 8]),
    )
    shares = (np.array([50, 150, *[100] * 8]) + 0.5) / 1005
    assert drift.psi(reference, sample) == pytest.approx(
        float(np.sum((shares - 0.1) * np.log(shares / 0.1)))
    )
    assert drift.psi(reference, reference) == 0.0
    assert drift.psi(np.ones(50), np.ones(60)) == pytest.approx(0.0, abs=1e-3)


def test_a_shift_of_scores_is_seen_and_no_shift_is_not() -> None:
    rng = seeded(1)
    moved = drift.score_shift(rng.normal(size=1000), rng.normal(0.4, 1, size=1000))
    assert moved.size > 0.1
    assert moved.p < 1e-6
    assert moved.low < moved.value < moved.high
    assert not too_many(
        [drift.score_shift(rng.normal(size=300), rng.normal(size=200)).p for _ in range(300)], 0.05
    )


@pytest.mark.parametrize("worse", [1, -1])
def test_shares_are_compared_by_fishers_exact_test(worse: int) -> None:
    before, now = np.arange(200) < 20, np.arange(90) < 15
    shift = drift.mean_shift([before], now, worse)  # type: ignore[arg-type]
    expected = fisher_exact([[15, 75], [20, 180]], alternative="greater" if worse > 0 else "less")
    assert shift.p == pytest.approx(float(expected.pvalue))
    assert shift.size == pytest.approx(worse * (15 / 90 - 0.1))
    assert (shift.value, shift.before) == (pytest.approx(15 / 90), pytest.approx(0.1))


def test_means_are_compared_by_welchs_test() -> None:
    rng = seeded(2)
    a, b = rng.normal(1, 1, 80), rng.normal(0.5, 3, 60)
    assert drift.mean_shift([a], b, -1).p == pytest.approx(
        float(ttest_ind(b, a, equal_var=False, alternative="less").pvalue)
    )
    assert drift.mean_shift([np.zeros(30)], np.zeros(20)).p == 1.0
    assert drift.mean_shift([np.zeros(30)], np.ones(20)).p == 0.0


def test_days_that_differ_by_themselves_do_not_alarm() -> None:
    """Click rates that move from day to day, as they do: the spread of the reference days must widen the test."""
    rng, honest, naive = seeded(3), [], []
    for _ in range(200):
        rates = rng.beta(60, 140, size=9)  # a day's rate is .3 ± .03
        days = [rng.random(1000) < rate for rate in rates]
        honest.append(drift.mean_shift(days[:8], days[8], -1).p)
        naive.append(drift.mean_shift([np.concatenate(days[:8])], days[8], -1).p)
    assert np.mean(np.array(honest) <= 0.01) <= 0.05
    assert np.mean(np.array(naive) <= 0.01) >= 0.15


# -- behaviour --------------------------------------------------------------------------------------------


def test_corrected_clicks_do_not_depend_on_where_results_stand() -> None:
    """People look at rank r with probability 1 / log2(r + 1), and click what is relevant: order must not matter."""
    rng, relevance = seeded(4), np.array([0.8, 0.5, 0.1, 0.1, 0.05])
    means, plain = [], []
    for order in (np.arange(5), np.arange(5)[::-1]):
        looked = 1 / np.log2(np.arange(1, 6) + 1.0)
        clicks = rng.random((20_000, 5)) < looked * relevance[order]
        means.append(drift.corrected_clicks([np.flatnonzero(row) + 1 for row in clicks]).mean())
        plain.append(clicks.sum(1).mean())
    assert means[0] == pytest.approx(relevance.sum(), abs=0.04)
    assert means[1] == pytest.approx(relevance.sum(), abs=0.04)
    assert plain[1] < 0.8 * plain[0]
    assert drift.corrected_clicks([[], [1], [40]]).tolist() == [0.0, 1.0, 0.0]


def test_a_reformulation_is_the_same_user_asking_much_the_same_soon() -> None:
    users = ["a", "b", "a", "a", None, None, "b"]
    seconds = np.array([0, 10, 20, 30, 40, 50, 900.0])
    asked = [{"sql", "injection"}, {"x"}, {"sql", "query"}, {"cats"}, {"z"}, {"z", "y"}, {"x", "y"}]
    assert drift.reformulated(users, seconds, asked).tolist() == [
        True,
        False,
        False,
        False,
        False,
        False,
        False,
    ]


# -- vectors ----------------------------------------------------------------------------------------------


def test_both_two_sample_tests_keep_their_level_and_find_a_tenth_of_new_queries() -> None:
    rng = seeded(5)
    centres, other = rng.normal(size=(8, 24)), rng.normal(size=(1, 24))
    quiet = [
        drift.two_sample(topics(rng, 90, centres), topics(rng, 60, centres), rng, 99)
        for _ in range(150)
    ]
    for which in (0, 1):
        assert not too_many([pair[which].p for pair in quiet], 0.05)
    mixed = np.concatenate([topics(rng, 720, centres), topics(rng, 80, other)])
    mmd, auc = drift.two_sample(topics(rng, 800, centres), mixed, rng)
    assert mmd.p == 0.001
    assert auc.p <= 0.02
    assert auc.value == pytest.approx(
        0.5 + 0.05, abs=0.03
    )  # a tenth is told perfectly, the rest not at all
    assert mmd.low <= mmd.value <= mmd.high


def test_both_statistics_are_what_they_are_called() -> None:
    rng = seeded(6)
    x, y = drift.unit(rng.normal(size=(12, 4))), drift.unit(rng.normal(0.7, 1, size=(9, 4)))
    pooled, labels = (
        np.concatenate([x, y]),
        np.repeat([0.0, 1.0], [12, 9])[:, None].astype(np.float32),
    )
    squared = ((pooled[:, None] - pooled[None]) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * np.median(squared)))
    inside = [
        kernel[a, a][~np.eye(n, dtype=bool)].mean()
        for a, n in ((slice(0, 12), 12), (slice(12, None), 9))
    ]
    assert vectors._mmd(pooled, labels)[0] == pytest.approx(
        sum(inside) - 2 * kernel[:12, 12:].mean(), abs=1e-5
    )
    scores = rng.normal(size=(21, 1))
    u = mannwhitneyu(scores[12:, 0], scores[:12, 0]).statistic
    assert vectors._auc(scores, labels)[0] == pytest.approx(u / (12 * 9))


def test_a_new_cluster_is_found_whole_and_old_ones_are_not_new() -> None:
    rng = seeded(7)
    centres = rng.normal(size=(9, 32))
    reference = topics(rng, 600, centres[:8])
    quiet = [
        drift.new_clusters(
            topics(rng, 400, centres[:8]), topics(rng, 200, centres[:8]), rng
        ).shift.p
        for _ in range(200)
    ]
    assert not too_many(quiet, 0.05)
    found = drift.new_clusters(
        reference,
        np.concatenate([topics(rng, 180, centres[:8]), topics(rng, 20, centres[8:])]),
        rng,
    )
    assert found.shift.p < 0.001
    assert found.outside[180:].all()
    assert set(found.groups[0].tolist()) >= set(range(180, 200))


# -- words ------------------------------------------------------------------------------------------------


def test_telling_terms_are_those_of_one_side() -> None:
    before = [{"pump", "leak"}, {"valve", "leak"}, {"pump", "noise"}] * 30
    now = [{"pump", "leak"}, {"valve", "invoice"}, {"refund", "invoice"}] * 30
    assert drift.telling_terms(before, now)[:2] == ["invoice", "refund"]
    assert "leak" not in drift.telling_terms(before, now)
    assert drift.telling_terms(before, before) == []


def test_new_terms_are_measured_against_what_the_reference_does_to_itself() -> None:
    rng, words = seeded(8), np.array([f"w{n}" for n in range(400)])
    weights = 1 / np.arange(1, 401)  # Zipf

    def texts(n: int) -> list[set[str]]:
        return [set(rng.choice(words, 5, p=weights / weights.sum()).tolist()) for _ in range(n)]

    quiet = [drift.new_terms(texts(300), texts(200), ())[0] for _ in range(60)]
    assert not too_many([one.p for one in quiet], 0.05)
    assert np.mean([one.size for one in quiet]) == pytest.approx(0.0, abs=0.03)
    shift, new = drift.new_terms(
        texts(300), [*texts(150), *([{"zork"}] * 50), {"known"}], {"known"}
    )
    assert shift.size > 0.1
    assert new[150:200].all()
    assert not new[200]


def test_a_shift_of_a_part_is_smaller_in_the_whole() -> None:
    part = drift.Shift(0.2, 0.001, 0.7, 0.65, 0.75, 0.5)
    whole = part.within(0.25, 0.5)
    assert (whole.size, whole.p, whole.value, whole.before) == (
        0.05,
        0.001,
        pytest.approx(0.55),
        0.5,
    )


def test_a_few_values_without_spread_are_no_alarm_where_most_always_were_alike() -> None:
    """Ten queries that all find nothing happen in one sample of three where 9 in 10 find nothing."""
    rng = np.random.default_rng(3)
    before = (rng.random(300) < 0.1).astype(float)
    assert drift.mean_shift([before], np.zeros(10), -1).p > 0.05
    assert drift.mean_shift([before], np.zeros(500), -1).p < 1e-3
