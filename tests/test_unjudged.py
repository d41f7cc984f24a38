"""Bounds of a difference over every way in which the unjudged results could be judged."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nearer.measure.metrics import score
from nearer.measure.unjudged import Results, judged_results
from nearer.types import Judgments, Query, Run, Split

MEASURES = ("nDCG@3", "P@3", "R@3", "RR@3", "Success@1", "nDCG@10")


def run(name: str, *doc_ids: str) -> Run:
    hits = [(doc_id, float(len(doc_ids) - rank)) for rank, doc_id in enumerate(doc_ids)]
    return Run(name, {"q": hits})


def scored(found: Run, judgments: Judgments, measure: str) -> Results:
    split = Split("test", (Query("q", "text"),), judgments)
    return Results(found, score(found, split, [measure]))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(12))
def test_they_are_those_of_trying_every_judgment(measure: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    doc_ids = list("abcdefg")
    before = run("before", *rng.permutation(doc_ids)[:4].tolist())
    after = run("after", *rng.permutation(doc_ids)[:4].tolist())
    relevant = rng.choice(doc_ids, 2, replace=False).tolist()
    # A grade of 1 and one of 1 to 3: the grades in use.
    judgments = {"q": {relevant[0]: int(rng.integers(1, 4)), relevant[1]: 0, "z": 1}}
    in_use = {0, 1, judgments["q"][relevant[0]]}
    found = judged_results(
        scored(before, judgments, measure), scored(after, judgments, measure), judgments, measure
    )
    depth = found.k
    shown = {*before.top("q", depth), *after.top("q", depth)}
    unjudged = sorted(shown - set(judgments["q"]))
    assert found.unjudged == len(unjudged)
    differences = []
    for grades in product(in_use, repeat=len(unjudged)):
        judged = {"q": {**judgments["q"], **dict(zip(unjudged, grades, strict=True))}}
        values = [
            scored(system, judged, measure).scores.mean(measure) for system in (before, after)
        ]
        differences.append(values[1] - values[0])
    assert found.worst == pytest.approx(min(differences), abs=1e-9)
    assert found.best == pytest.approx(max(differences), abs=1e-9)
    assert found.worst <= found.delta + 1e-9
    assert found.delta <= found.best + 1e-9


def test_where_everything_is_judged_nothing_is_open() -> None:
    judgments = {"q": {"a": 1, "b": 0}}
    before, after = run("before", "b", "a"), run("after", "a", "b")
    found = judged_results(
        scored(before, judgments, "nDCG@10"),
        scored(after, judgments, "nDCG@10"),
        judgments,
        "nDCG@10",
    )
    assert (found.baseline, found.candidate, found.unjudged) == (1.0, 1.0, 0)
    assert found.worst == pytest.approx(found.delta)
    assert found.best == pytest.approx(found.delta)


def test_a_measure_without_such_bounds_still_tells_how_much_was_judged() -> None:
    judgments = {"q": {"a": 1}}
    before, after = run("before", "a", "x"), run("after", "x", "y")
    found = judged_results(
        scored(before, judgments, "AP"), scored(after, judgments, "AP"), judgments, "AP"
    )
    assert (found.k, found.baseline, found.candidate) == (10, 0.5, 0.0)
    assert found.worst is None
    assert found.best is None


@pytest.mark.parametrize("measure", ["R@1000", "nDCG@1000", "P@1000", "RR@1000"])
def test_deep_lists_have_bounds_where_one_grade_is_in_use(measure: str) -> None:
    names = [f"d{number:04}" for number in range(2000)]
    before, after = run("before", *names[:1000]), run("after", *names[1000:])
    judgments = {"q": {"d0000": 1}}
    first, second = (scored(system, judgments, measure) for system in (before, after))
    found = judged_results(first, second, judgments, measure)
    assert found.unjudged == 1999
    assert found.worst is not None
    assert found.best is not None
    assert found.worst <= found.delta <= found.best


@pytest.mark.parametrize("seed", range(8))
def test_documents_of_higher_grades_may_be_among_the_unjudged(seed: int) -> None:
    """Three grades are in use elsewhere; this query has one judgment, of the lowest."""
    rng = np.random.default_rng(seed)
    before = run("before", *rng.permutation(list("abcdef"))[:3].tolist())
    after = run("after", *rng.permutation(list("abcdef"))[:3].tolist())
    others = {"other": {"x": 3, "y": 2, "z": 1}}
    own = {"q": {"a": 1}}
    known = {**own, **others}
    first, second = (scored(system, own, "nDCG@3") for system in (before, after))
    found = judged_results(first, second, known, "nDCG@3")
    unjudged = sorted({*before.top("q", 3), *after.top("q", 3)} - {"a"})
    differences = []
    for grades in product(range(4), repeat=len(unjudged)):
        judged = {"q": {"a": 1, **dict(zip(unjudged, grades, strict=True))}}
        values = [scored(each, judged, "nDCG@3").scores.mean("nDCG@3") for each in (before, after)]
        differences.append(values[1] - values[0])
    assert found.worst == pytest.approx(min(differences), abs=1e-9)
    assert found.best == pytest.approx(max(differences), abs=1e-9)


def test_too_many_results_and_grades_have_no_bounds() -> None:
    names = [f"d{number:04}" for number in range(200)]
    before, after = run("before", *names[:100]), run("after", *names[100:])
    judgments = {"q": {"d0000": 1, "d0001": 2, "d0002": 3}}
    first, second = (scored(system, judgments, "nDCG@100") for system in (before, after))
    found = judged_results(first, second, judgments, "nDCG@100")
    assert found.unjudged == 197
    assert (found.worst, found.best) == (None, None)
