"""Fusion: the formulas by hand, canonical order, and a weight that is chosen the same way every time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearer.errors import DataError
from nearer.search.base import Retriever
from nearer.search.fusion import WEIGHTS, Hybrid, convex, rrf, tune_convex
from nearer.types import Hit, Query, Run, Split, rank_hits

hits = st.dictionaries(
    st.sampled_from([f"d{i}" for i in range(9)]), st.sampled_from([0.0, 0.25, 0.5, 3.0]), max_size=9
)
runs = st.builds(
    lambda one, two: Run("r", {"q1": rank_hits(one.items()), "q2": rank_hits(two.items())}),
    hits,
    hits,
)

LEXICAL = Run("bm25", {"q": [("a", 12.0), ("b", 6.0), ("c", 2.0)]}, seconds=1.0)
DENSE = Run("dense", {"q": [("c", 0.9), ("d", 0.8), ("a", 0.5)]}, seconds=2.0)


def test_rrf_sums_reciprocal_ranks() -> None:
    fused = rrf([LEXICAL, DENSE], k=60)
    assert [doc_id for doc_id, _ in fused.results["q"]] == [
        "c",
        "a",
        "d",
        "b",
    ]  # c and a tie but for the order, d and b tie
    scores = dict(fused.results["q"])
    assert scores["a"] == pytest.approx(1 / 61 + 1 / 63)
    assert scores["b"] == pytest.approx(1 / 62)
    assert fused.seconds == 3.0


def test_rrf_looks_no_deeper_than_depth() -> None:
    fused = rrf([LEXICAL, DENSE], depth=1)
    assert [doc_id for doc_id, _ in fused.results["q"]] == ["c"]
    assert [doc_id for doc_id, _ in rrf([LEXICAL, DENSE], depth=2).results["q"]] == ["c", "a"]


def test_convex_mixes_scores_brought_to_one_range() -> None:
    scores = dict(convex(LEXICAL, DENSE, 0.25).results["q"])
    assert scores == pytest.approx({"a": 0.75, "b": 0.75 * 0.4, "c": 0.25, "d": 0.25 * 0.75})


def test_the_weight_is_that_of_the_second_run() -> None:
    assert convex(LEXICAL, DENSE, 0.0).results["q"][0] == ("a", 1.0)
    assert convex(LEXICAL, DENSE, 1.0).results["q"][0] == ("c", 1.0)


def test_a_list_of_equal_scores_counts_as_found() -> None:
    only = Run("bm25", {"q": [("x", 5.0)]})
    assert dict(convex(only, DENSE, 0.5).results["q"])["x"] == 0.5


def test_queries_that_one_system_lacks_are_kept() -> None:
    other = Run("other", {"q": [], "p": [("z", 1.0)]})
    for fused in (rrf([LEXICAL, other]), convex(LEXICAL, other, 0.5)):
        assert list(fused.results) == ["q", "p"]
        assert [doc_id for doc_id, _ in fused.results["q"]] == ["a", "b", "c"]
        assert [doc_id for doc_id, _ in fused.results["p"]] == ["z"]


@given(runs, runs, st.sampled_from(WEIGHTS), st.integers(1, 12))
def test_fused_runs_are_canonical_and_no_deeper_than_asked(
    a: Run, b: Run, weight: float, depth: int
) -> None:
    for fused in (rrf([a, b], depth=depth), convex(a, b, weight, depth)):
        for query_id, found in fused.results.items():
            assert list(found) == rank_hits(found)
            pool = {d for run in (a, b) for d, _ in run.results[query_id][:depth]}
            assert len(found) == min(depth, len(pool))
            assert {d for d, _ in found} <= pool


def test_swapping_the_runs_and_the_weight_changes_nothing() -> None:
    assert dict(convex(LEXICAL, DENSE, 0.25).results["q"]) == pytest.approx(
        dict(convex(DENSE, LEXICAL, 0.75).results["q"])
    )


def dev(relevant: str) -> Split:
    return Split("dev", (Query("q", "text"),), {"q": {relevant: 1}})


def test_tuning_finds_the_better_side_and_returns_the_curve() -> None:
    tuned = tune_convex(LEXICAL, DENSE, dev("d"), "RR")
    assert [weight for weight, _ in tuned.curve] == list(WEIGHTS)
    assert tuned.weight > 0.5
    assert dict(tuned.curve)[tuned.weight] == max(mean for _, mean in tuned.curve) == 0.5
    assert tune_convex(LEXICAL, DENSE, dev("b"), "RR").weight < 0.5


def test_equal_weights_go_to_the_middle_then_to_the_smaller() -> None:
    assert tune_convex(LEXICAL, DENSE, dev("nowhere"), "RR").weight == 0.5
    assert (
        tune_convex(LEXICAL, DENSE, dev("nowhere"), "RR", weights=[0.9, 0.6, 0.4, 0.1]).weight
        == 0.4
    )


def test_there_is_nothing_to_tune_on_without_judgments() -> None:
    with pytest.raises(DataError, match="no judged query"):
        tune_convex(LEXICAL, DENSE, Split("dev", (Query("q", "text"),), {}), "RR")


class Fixed:
    """Answers from a run, `k` deep."""

    def __init__(self, run: Run) -> None:
        self.name, self.run = run.name, run
        self.depths: list[int] = []

    def search(self, queries: Sequence[Query], k: int) -> Run:
        self.depths.append(k)
        results: dict[str, list[Hit]] = {
            query.id: list(self.run.results.get(query.id, ()))[:k] for query in queries
        }
        return Run(self.name, results, self.run.seconds)


@pytest.mark.parametrize(("weight", "name"), [(None, "rrf"), (0.25, "convex")])
def test_a_hybrid_fuses_deep_lists_and_returns_the_top(weight: float | None, name: str) -> None:
    lexical, dense = Fixed(LEXICAL), Fixed(DENSE)
    hybrid = Hybrid(lexical, dense, weight)
    assert isinstance(hybrid, Retriever)
    run = hybrid.search([Query("q", "text"), Query("none", "text")], 2)
    expected = (
        rrf([LEXICAL, DENSE]) if weight is None else convex(LEXICAL, DENSE, weight)
    ).results["q"][:2]
    assert (run.name, run.results, run.seconds) == (name, {"q": expected, "none": []}, 3.0)
    assert lexical.depths == dense.depths == [100]
