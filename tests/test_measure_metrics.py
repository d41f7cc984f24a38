"""trec_eval is the reference: raw pytrec_eval, the text format and ir-measures must all agree with us."""

from __future__ import annotations

import random

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.errors import ConfigError, DataError
from nearer.measure.metrics import drop_self, score
from nearer.types import Query, Run, Split, rank_hits

RAW = {
    "nDCG@3": "ndcg_cut_3",
    "nDCG@10": "ndcg_cut_10",
    "R@2": "recall_2",
    "R@10": "recall_10",
    "P@5": "P_5",
    "P@10": "P_10",
    "RR": "recip_rank",
    "AP": "map",
    "AP@3": "map_cut_3",
    "Success@1": "success_1",
    "Success@5": "success_5",
}
DOCS = [f"d{i}" for i in range(12)] + ["é", "Z", "z", "d-1", "文"]


def split_of(judgments: dict[str, dict[str, int]], name: str = "dev") -> Split:
    return Split(name, tuple(Query(query_id, "text") for query_id in judgments), judgments)


# Five scores for up to 17 documents: nearly every list has ties, also across the cut-offs.
ties = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, -2.0])
some_hits = st.dictionaries(st.sampled_from(DOCS), ties, max_size=len(DOCS))
some_grades = st.dictionaries(st.sampled_from(DOCS), st.integers(0, 3), min_size=1, max_size=8)
worlds = st.lists(st.tuples(some_hits, some_grades), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(worlds)
def test_random_runs_with_ties_score_as_raw_pytrec_eval(
    world: list[tuple[dict[str, float], dict[str, int]]],
) -> None:
    judgments = {f"q{i}": grades for i, (_, grades) in enumerate(world)}
    raw_run = {f"q{i}": hits for i, (hits, _) in enumerate(world) if hits}
    scores = score(
        Run("r", {q: rank_hits(hits.items()) for q, hits in raw_run.items()}),
        split_of(judgments),
        list(RAW),
    )
    raw = pytrec_eval.RelevanceEvaluator(judgments, set(RAW.values())).evaluate(raw_run)
    assert set(scores.query_ids) == {q for q, grades in judgments.items() if any(grades.values())}
    for name, trec in RAW.items():
        expected = [raw[q][trec] if q in raw_run else 0.0 for q in scores.query_ids]
        np.testing.assert_allclose(scores.column(name), expected, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(some_hits, some_grades, st.integers(1, 12))
def test_reciprocal_rank_and_judged_follow_trec_evals_order_of_ties(
    hits: dict[str, float], grades: dict[str, int], k: int
) -> None:
    ranked = rank_hits(hits.items())
    scores = score(
        Run("r", {"q": ranked}), split_of({"q": grades | {"d0": 1}}), [f"RR@{k}", f"Judged@{k}"]
    )
    judged = grades | {"d0": 1}
    first = next(
        (i for i, (doc_id, _) in enumerate(ranked, start=1) if judged.get(doc_id, 0) > 0), None
    )
    assert scores.column(f"RR@{k}")[0] == (1 / first if first is not None and first <= k else 0.0)
    top = [doc_id for doc_id, _ in ranked[:k]]
    assert scores.column(f"Judged@{k}")[0] == (
        sum(doc_id in judged for doc_id in top) / len(top) if top else 0.0
    )


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_a_run_written_as_text_and_read_again_scores_the_same(
    world: list[tuple[dict[str, float], dict[str, int]]],
) -> None:
    judgments = {f"q{i}": grades for i, (_, grades) in enumerate(world)}
    run = Run(
        "r",
        {
            f"q{i}": rank_hits((d, s + 1e-9) for d, s in hits.items())
            for i, (hits, _) in enumerate(world)
        },
    )
    lines = [
        f"{q} Q0 {d} {rank} {np.float32(s)!s} r"
        for q, hits in run.results.items()
        for rank, (d, s) in enumerate(hits, start=1)
    ]
    raw_run = pytrec_eval.parse_run(lines)
    raw = pytrec_eval.RelevanceEvaluator(judgments, set(RAW.values())).evaluate(raw_run)
    scores = score(run, split_of(judgments), list(RAW))
    for name, trec in RAW.items():
        assert list(scores.column(name)) == [
            raw[q][trec] if q in raw_run else 0.0 for q in scores.query_ids
        ]


def test_every_measure_agrees_with_ir_measures_where_no_scores_tie() -> None:
    import ir_measures

    rng = random.Random(3)  # noqa: S311 - test data, not a secret
    ids = [f"d{i}" for i in range(40)]
    judgments = {
        f"q{i}": {d: rng.randint(0, 3) for d in rng.sample(ids, 6)} | {"d0": 1} for i in range(30)
    }
    run = Run(
        "r",
        {
            q: rank_hits((d, float(s)) for s, d in enumerate(rng.sample(ids, rng.randint(1, 30))))
            for q in judgments
        },
    )
    names = [*RAW, "RR@3", "RR@10", "Judged@5", "Judged@20"]
    scores = score(run, split_of(judgments), names)
    parsed = {ir_measures.parse_measure(name): name for name in names}
    assert [repr(measure) for measure in parsed] == names
    theirs = list(
        ir_measures.iter_calc(
            list(parsed), judgments, {q: dict(hits) for q, hits in run.results.items()}
        )
    )
    assert len(theirs) == len(names) * len(judgments)
    for metric in theirs:
        assert scores.column(parsed[metric.measure])[
            scores.query_ids.index(metric.query_id)
        ] == pytest.approx(metric.value, abs=1e-9)


def test_queries_without_results_count_zero_and_without_relevant_documents_are_reported() -> None:
    split = split_of(
        {"found": {"a": 1}, "nothing": {"a": 2}, "unknown": {}, "only-zeros": {"a": 0}}
    )
    scores = score(
        Run("r", {"found": [("a", 1.0)], "nothing": [], "only-zeros": [("a", 1.0)]}),
        split,
        ["nDCG@10", "Judged@10", "RR@10"],
    )
    assert scores.query_ids == ("found", "nothing")
    assert scores.skipped == ("unknown", "only-zeros")
    assert [scores.mean(name) for name in ("nDCG@10", "Judged@10", "RR@10")] == [0.5, 0.5, 0.5]
    assert list(scores.column("Judged@10")) == [1.0, 0.0]


def test_an_empty_run_scores_zero_everywhere() -> None:
    assert score(Run("r", {}), split_of({"q": {"a": 1}}), ["AP", "Judged@1"]).mean("AP") == 0.0


def test_grades_are_linear_gains() -> None:
    scores = score(
        Run("r", {"q": [("one", 2.0), ("three", 1.0)]}),
        split_of({"q": {"one": 1, "three": 3}}),
        ["nDCG@2"],
    )
    assert scores.mean("nDCG@2") == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))


def test_negative_grades_are_judged_and_not_relevant() -> None:
    scores = score(
        Run("r", {"q": [("bad", 2.0), ("good", 1.0)]}),
        split_of({"q": {"bad": -2, "good": 1}}),
        ["RR", "Judged@2", "P@2"],
    )
    assert (scores.mean("RR"), scores.mean("Judged@2"), scores.mean("P@2")) == (0.5, 1.0, 0.5)


@pytest.mark.parametrize(
    ("hits", "problem"),
    [
        ([("a", 1.0), ("b", float("nan"))], "finite"),
        ([("a", float("inf")), ("b", 1.0)], "finite"),
        ([("a", 1e300)], "finite"),
        ([("a", 0.5), ("b", 0.7)], "order"),
        ([("a", 0.5), ("b", 0.5)], "order"),
        (
            [("b", 0.5 + 1e-12), ("c", 0.5)],
            "order",
        ),  # equal as C floats, so trec_eval would turn them round
        ([("a", 0.7), ("b", 0.6), ("a", 0.5)], "twice"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_run_that_trec_eval_would_read_differently_is_refused(
    hits: list[tuple[str, float]], problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        score(Run("mine", {"q": hits}), split_of({"q": {"a": 1}}), ["RR"])
    assert "'mine'" in str(caught.value)
    assert "'q'" in str(caught.value)


def test_item_to_item_ignores_the_query_among_its_own_results_and_judgments() -> None:
    run = Run("r", {"a": [("a", 9.0), ("b", 1.0)], "c": [("c", 1.0)]})
    scores = score(
        run, split_of({"a": {"a": 1, "b": 1}, "c": {"c": 1}}), ["RR", "R@1"], item_to_item=True
    )
    assert scores.query_ids == ("a",)
    assert scores.skipped == ("c",)
    assert (scores.mean("RR"), scores.mean("R@1")) == (1.0, 1.0)
    assert drop_self(run).results == {"a": [("b", 1.0)], "c": []}


@pytest.mark.parametrize(
    "name", ["ndcg@10", "nDCG", "P", "R@0", "nDCG@10 ", "F1@3", "Judged", "Success", "R@-1"]
)
def test_an_unknown_measure_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="nDCG@k"):
        score(Run("r", {}), split_of({"q": {"a": 1}}), [name])


def test_rows_are_the_lines_of_scores_jsonl() -> None:
    scores = score(
        Run("r", {"q": [("a", 1.0)], "p": [("b", 1.0)]}),
        split_of({"q": {"a": 1}, "p": {"a": 1}}),
        ["RR", "P@5"],
    )
    rows = list(scores.rows())
    assert rows == [
        {"query_id": "q", "RR": 1.0, "P@5": 0.2},
        {"query_id": "p", "RR": 0.0, "P@5": 0.0},
    ]
    with pytest.raises(ConfigError, match="AP was not measured"):
        scores.column("AP")
