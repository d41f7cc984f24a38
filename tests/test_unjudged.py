"""Bounds of a difference over every way in which the unjudged results could be judged."""

from __future__ import annotations

import time
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
    judgments = {"q": {relevant[0]: int(rng.integers(1, 4)), relevant[1]: 0, "z": 1}}
    found = judged_results(
        scored(before, judgments, measure), scored(after, judgments, measure), judgments, measure
    )
    depth = found.k
    shown = {*before.top("q", depth), *after.top("q", depth)}
    unjudged = sorted(shown - set(judgments["q"]))
    assert found.unjudged == len(unjudged)
    differences = []
    for grades in product((0, 1), repeat=len(unjudged)):
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
def test_deep_lists_take_no_time_that_grows_with_their_square(measure: str) -> None:
    names = [f"d{number:04}" for number in range(2000)]
    before, after = run("before", *names[:1000]), run("after", *names[1000:])
    judgments = {"q": {"d0000": 1}}
    first, second = (scored(system, judgments, measure) for system in (before, after))
    started = time.process_time()
    found = judged_results(first, second, judgments, measure)
    assert time.process_time() - started < 0.25  # 2,000 unjudged results; it takes about .01
    assert found.unjudged == 1999
    assert found.worst is not None
    assert found.best is not None
    assert found.worst <= found.delta <= found.best
