"""Estimates from a part of the judgments: what they must be, and how far off they are."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nearer.measure.metrics import score
from nearer.measure.pooled import (
    PooledValues,
    SampledPool,
    inferred_ap,
    ndcg_bounds,
    pooled_mean,
    weighted_ndcg,
)
from nearer.measure.prediction_powered import Groups, prediction_powered_mean
from nearer.measure.sampling import (
    BANDS,
    allocate,
    draw_queries,
    frequency_bands,
    sample_pool,
    share_equally,
)
from nearer.types import Query, Run, Split

RANKING = [f"d{number}" for number in range(10)]
GRADES = {"d0": 0, "d1": 3, "d2": 0, "d3": 1, "d4": 0, "d8": 2, "e0": 3, "e1": 0}


def bench(name: str) -> ModuleType:
    """A module of bench/."""
    path = Path(__file__).parents[1] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# -- one query --------------------------------------------------------------------------------------


def test_with_every_judgment_the_estimates_are_those_of_trec_eval() -> None:
    everything = {doc_id: GRADES.get(doc_id, 0) for doc_id in [*RANKING, "e0", "e1"]}
    strata = {doc_id: position % 3 for position, doc_id in enumerate(everything)}
    hits = [(doc_id, 1.0 - rank / 20) for rank, doc_id in enumerate(RANKING)]
    split = Split("test", (Query("q", "x"),), {"q": everything})
    exact = score(Run("r", {"q": hits}), split, ["nDCG@10", "nDCG@5", "AP"])
    pool = SampledPool(strata, everything)
    assert weighted_ndcg(RANKING, pool, 10) == pytest.approx(exact.mean("nDCG@10"), abs=1e-6)
    assert weighted_ndcg(RANKING, pool, 5) == pytest.approx(exact.mean("nDCG@5"), abs=1e-6)
    assert inferred_ap(RANKING, pool) == pytest.approx(exact.mean("AP"), abs=1e-3)
    assert ndcg_bounds(RANKING, pool, 10, 3) == pytest.approx((exact.mean("nDCG@10"),) * 2)


def test_weights_sum_to_the_size_of_the_pool() -> None:
    strata = {f"d{number}": int(number > 2) for number in range(10)}
    pool = SampledPool(strata, {"d0": 1, "d4": 0, "d9": 2, "outside": 3})
    weights = pool.weights()
    assert weights == {"d0": 3.0, "d4": 3.5, "d9": 3.5}
    assert sum(weights.values()) == len(strata)


def test_nothing_relevant_seen_is_no_estimate() -> None:
    pool = SampledPool(dict.fromkeys(RANKING, 0), {"d0": 0})
    assert weighted_ndcg(RANKING, pool) is None
    assert inferred_ap(RANKING, pool) is None
    assert ndcg_bounds(RANKING, pool, 10, 3) == (0.0, 1.0)


@pytest.mark.parametrize("highest", [1, 2, 3])
def test_bounds_hold_whatever_the_hidden_grades_are(highest: int) -> None:
    rng = np.random.default_rng([3, highest])
    docs = [*RANKING, *(f"e{number}" for number in range(5))]
    strata = dict.fromkeys(docs, 0)
    for _ in range(60):
        truth = {doc_id: int(rng.integers(0, highest + 1)) for doc_id in docs}
        for doc_id in docs:
            if rng.random() < 0.5:
                truth[doc_id] = 0
        shown = {doc_id: truth[doc_id] for doc_id in docs if rng.random() < 0.5}
        low, high = ndcg_bounds(RANKING, SampledPool(strata, shown), 10, highest)
        value = weighted_ndcg(RANKING, SampledPool(strata, truth), 10)
        if value is not None:
            assert low - 1e-9 <= value <= high + 1e-9


def test_bounds_are_reached_by_some_grades() -> None:
    """Also where the best grade of an unjudged document lies in between: 1, here."""
    shown = {"d0": 2, "d2": 1}
    strata = dict.fromkeys(("d0", "d1", "d2", "e0"), 0)
    ranking = ["d0", "d1", "d2"]
    reached = []
    for first, below in product(range(4), repeat=2):
        pool = SampledPool(strata, {**shown, "d1": first, "e0": below})
        reached.append(weighted_ndcg(ranking, pool, 10))
    found = ndcg_bounds(ranking, SampledPool(strata, shown), 10, 3)
    assert found == pytest.approx((min(map(float, reached)), 1.0))  # type: ignore[arg-type]


def test_inferred_ap_is_close_to_the_whole_one_on_average() -> None:
    rng = np.random.default_rng(4)
    docs = [f"d{number}" for number in range(60)]
    truth = {doc_id: int(rng.random() < 0.5 / (1 + row / 12)) for row, doc_id in enumerate(docs)}
    strata = {doc_id: row // 20 for row, doc_id in enumerate(docs)}
    exact = inferred_ap(docs, SampledPool(strata, truth))
    estimates = []
    for _ in range(300):
        kept: list[str] = []
        for stratum in range(3):
            own = [doc_id for doc_id in docs if strata[doc_id] == stratum]
            kept += rng.choice(own, 8, replace=False).tolist()
        shown = {doc_id: truth[doc_id] for doc_id in kept}
        estimates.append(inferred_ap(docs, SampledPool(strata, shown)) or 0.0)
    assert np.mean(estimates) == pytest.approx(exact, abs=0.03)


# -- means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("population", ["one or two relevant", "about three, graded"])
def test_hiding_seven_judgments_in_ten_biases_the_mean_by_less_than_a_hundredth(
    population: str,
) -> None:
    pooling = bench("pooling")
    found = pooling.simulate(population, 120, 300, np.random.default_rng(5))
    assert found.judged <= 0.31
    assert np.abs(found.corrected - found.truth).mean() <= 0.01
    assert np.abs(found.weighted - found.truth).mean() > 0.03  # why the correction is needed
    assert found.covered > 0.92


def values(n: int = 40, whole: int = 10, predicted: float = 0.9) -> PooledValues:
    rng = np.random.default_rng(6)
    is_whole = np.arange(n) < whole
    exact = np.where(is_whole, rng.choice([0.2, 0.6], n), 0.0)
    guesses = np.full(n, predicted)
    everywhere = np.ones(n, dtype=bool)
    return PooledValues(np.ones(n), guesses, everywhere, is_whole, exact, is_whole)


def test_predictions_that_say_nothing_are_not_used() -> None:
    made = values()
    found = pooled_mean(made)
    assert found.corrected is not None
    assert found.power == 0.0
    assert found.corrected.mean == pytest.approx(made.exact[:10].mean())
    assert found.plain == pytest.approx(0.9)


def test_without_queries_judged_whole_nothing_is_called_corrected() -> None:
    assert pooled_mean(values(whole=1)).corrected is None
    assert pooled_mean(values(whole=0)).as_dict()["corrected"] is None


def test_a_difference_of_systems_is_that_of_the_same_queries() -> None:
    made = values()
    same = pooled_mean(made.less(made))
    assert same.corrected is not None
    assert same.corrected.mean == 0.0
    assert same.corrected.high > 0.0  # ten equal queries do not prove equality


# -- prediction-powered inference -------------------------------------------------------------------


@pytest.mark.parametrize("n", [50, 100])
@pytest.mark.parametrize("accuracy", [0.3, 0.8])
def test_the_corrected_mean_of_grades_covers_the_truth(n: int, accuracy: float) -> None:
    rng = np.random.default_rng([n, round(10 * accuracy)])
    grades = rng.choice([0, 1, 2, 3], 3000, p=[0.6, 0.2, 0.1, 0.1]).astype(np.float64)
    right = rng.random(3000) < accuracy
    judge = np.where(right, grades, np.minimum(grades + 1, 3))  # too kind
    covered, narrower = 0, 0
    for _ in range(400):
        order = rng.permutation(3000)
        people, others = order[:n], order[n:1000]
        found = prediction_powered_mean(grades[people], judge[people], judge[others])
        covered += found.corrected.low <= grades.mean() <= found.corrected.high
        width = found.corrected.high - found.corrected.low
        narrower += width < found.people.high - found.people.low
    assert covered / 400 > 0.92
    assert narrower / 400 > 0.9


@pytest.mark.parametrize("n_judged", [5, 20])
def test_pairs_of_one_query_are_alike_and_the_interval_knows_it(n_judged: int) -> None:
    """Some queries are answered well and some badly, and the judge errs by query: planted here."""
    rng = np.random.default_rng([11, n_judged])

    def grades_of(effect: np.ndarray) -> np.ndarray:
        return np.clip(np.round(1.0 + effect + rng.normal(0.0, 0.7, len(effect))), 0.0, 3.0)

    truth = grades_of(rng.normal(0.0, 1.0, 1_000_000)).mean()
    repeats, covered, as_if_independent = 300, 0, 0
    for _ in range(repeats):
        query_of = np.repeat(np.arange(60), rng.integers(6, 19, 60))
        grades = grades_of(rng.normal(0.0, 1.0, 60)[query_of])
        kindness = rng.normal(0.5, 0.5, 60)[query_of] + rng.normal(0.0, 0.5, len(grades))
        judge = np.clip(np.round(grades + kindness), 0.0, 3.0)
        people = query_of < n_judged
        values = grades[people], judge[people], judge[~people]
        groups = Groups(query_of[people], query_of[~people])
        found = prediction_powered_mean(*values, groups=groups).corrected
        covered += found.low <= truth <= found.high
        naive = prediction_powered_mean(*values).corrected
        as_if_independent += naive.low <= truth <= naive.high
    assert covered / repeats >= 0.90
    assert as_if_independent / repeats < 0.70  # why queries are counted, not pairs


def test_items_of_one_group_say_nothing_of_others() -> None:
    people = np.array([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="one group"):
        prediction_powered_mean(
            people, people, people, groups=Groups(np.zeros(3, int), np.arange(3))
        )
    found = prediction_powered_mean(
        people, people, people, groups=Groups(np.arange(3), np.full(3, 7))
    )
    assert found.power == 0.0


def test_groups_of_one_item_each_are_independent_items() -> None:
    rng = np.random.default_rng(12)
    people, others = rng.normal(size=40), rng.normal(size=200)
    predicted = people + rng.normal(size=40)
    groups = Groups(np.arange(40), 100 + np.arange(200))
    assert prediction_powered_mean(people, predicted, others, groups=groups) == (
        prediction_powered_mean(people, predicted, others)
    )


def test_predictions_without_information_cost_nothing() -> None:
    rng = np.random.default_rng(8)
    people = rng.choice([0.0, 3.0], 60)
    found = prediction_powered_mean(people, np.ones(60), np.ones(500))
    assert found.power == 0.0
    assert found.corrected == found.people
    assert found.predictions == 1.0


def test_perfect_predictions_leave_the_doubt_that_few_pairs_leave() -> None:
    people = np.array([0.0, 1.0, 2.0, 3.0] * 15)
    found = prediction_powered_mean(people, people, np.array([0.0, 1.0, 2.0, 3.0] * 200))
    assert found.corrected.low < found.corrected.mean < found.corrected.high
    with pytest.raises(ValueError, match="predictions of the same"):
        prediction_powered_mean(people, people[:-1], people)


# -- samples ----------------------------------------------------------------------------------------


def test_bands_hold_a_third_of_the_requests_each() -> None:
    counts = np.array([30, 12, 10, 8, *[1] * 30])
    bands = frequency_bands(counts)
    assert bands.tolist() == [0, 1, 1, 1, *[2] * 30]
    assert frequency_bands(np.ones(5)).tolist() == [2] * 5
    assert len(frequency_bands(np.array([]))) == 0
    assert len(BANDS) == 3


def test_allocations_are_in_proportion_and_complete() -> None:
    assert allocate({"a": 90, "b": 9, "c": 1}, 20) == {"a": 18, "b": 1, "c": 1}
    assert allocate({"a": 2, "b": 1}, 20) == {"a": 2, "b": 1}
    assert share_equally({0: 100, 1: 3, 2: 50}, 30) == {0: 14, 1: 3, 2: 13}


def test_failures_are_not_over_represented_and_weights_undo_the_bands() -> None:
    rng = np.random.default_rng(9)
    counts = np.concatenate([np.full(10, 100.0), np.full(100, 10.0), np.full(890, 1.2)])
    bands = frequency_bands(counts).tolist()
    fails = [number % 5 == 0 for number in range(1000)]
    drawn = draw_queries(bands, fails, 90, rng)
    assert len(drawn) == len({each.position for each in drawn}) == 90
    failing = sum(fails[each.position] for each in drawn)
    assert failing == pytest.approx(18, abs=2)
    assert sum(1 / each.probability for each in drawn) == pytest.approx(1000)
    per_band = Counter(bands[each.position] for each in drawn)
    assert min(per_band.values()) >= 10


def test_with_more_groups_than_draws_every_query_can_be_drawn_and_weights_are_right() -> None:
    groups = [f"large {number % 3}" for number in range(180)]
    groups += [f"small {number // 3}" for number in range(120)]
    values = np.array([0.9 if group.startswith("large") else 0.15 for group in groups])
    rng, seen, means = np.random.default_rng(11), set(), []
    for _ in range(400):
        drawn = draw_queries([2] * len(groups), groups, 30, rng)
        assert len({each.position for each in drawn}) == 30
        weights = np.array([1 / each.probability for each in drawn])
        assert weights.sum() == pytest.approx(300)
        means.append(np.average(values[[each.position for each in drawn]], weights=weights))
        seen |= {each.position for each in drawn}
    assert len(seen) == 300
    assert np.mean(means) == pytest.approx(values.mean(), abs=0.005)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_draws_than_bands_can_still_draw_every_query(n: int) -> None:
    bands = [0] * 2 + [1] * 4 + [2] * 6
    rng, seen = np.random.default_rng(5), set()
    for _ in range(200):
        drawn = draw_queries(bands, ["slice"] * len(bands), n, rng)
        assert len({each.position for each in drawn}) == n
        if drawn:
            assert sum(1 / each.probability for each in drawn) == pytest.approx(len(bands))
        seen |= {each.position for each in drawn}
    assert len(seen) == (len(bands) if n else 0)


def test_a_sample_of_a_pool_has_each_stratum_and_about_its_share() -> None:
    rng = np.random.default_rng(10)
    strata = np.array([0] * 3 + [1] * 7 + [2] * 20)
    shares = [sample_pool(strata, 0.3, rng) for _ in range(300)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.01)
    assert all(set(strata[chosen]) == {0, 1, 2} for chosen in shares)
    assert sample_pool(strata, 1.0, rng).all()


def test_of_an_empty_pool_nothing_is_judged() -> None:
    none = np.array([], dtype=np.int64)
    assert sample_pool(none, 0.3, np.random.default_rng(0)).tolist() == []
