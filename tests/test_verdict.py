"""The rule of the decision, case by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearer.measure.metrics import Scores
from nearer.measure.significance import compare
from nearer.measure.verdict import Candidate, Evidence, best_on_dev, checklist, judge
from nearer.types import Run

N = 400


def candidate(name: str, role: str, values: np.ndarray, dev: float = 0.5) -> Candidate:
    scores = Scores(tuple(str(i) for i in range(len(values))), {"nDCG@10": values})
    return Candidate(name, role, "dense", Run(name, {}), scores, dev)


def evidence(
    tuned_gain: float | None,
    simple_gain: float,
    guardrails: tuple[dict[str, Any], ...] = (),
    sd: float = 0.1,
    n: int = N,
) -> Evidence:
    """Systems whose paired differences have exactly the given mean and about the given spread."""
    rng = np.random.default_rng(3)
    base = rng.uniform(0.2, 0.5, n)

    def shifted(gain: float) -> np.ndarray:
        noise = rng.normal(0, sd, n)
        return base + gain + noise - noise.mean()

    today = candidate("dense", "today", base)
    simple = candidate("bm25", "baseline", shifted(simple_gain))
    tuned = (
        None if tuned_gain is None else candidate("fine-tuned", "candidate", shifted(tuned_gain))
    )
    pairs = [(today, simple)] + ([(today, tuned), (simple, tuned)] if tuned else [])
    results = {
        (a.name, b.name): compare(
            a.scores.column("nDCG@10"), b.scores.column("nDCG@10"), np.random.default_rng(1), 2000
        )
        for a, b in pairs
    }
    return Evidence(today, tuned, simple, results, guardrails, "nDCG@10", 0.01, 0.05)


PASS = {"name": "general ability", "status": "pass"}
FAIL = {"name": "slice tag:orders", "status": "fail"}
OPEN = {"name": "general ability", "status": "inconclusive"}


@pytest.mark.parametrize(
    ("tuned", "simple", "guardrails", "verdict", "recommended"),
    [
        (0.10, 0.00, (PASS,), "ship", "fine-tuned"),
        (0.10, 0.04, (PASS,), "ship", "fine-tuned"),
        (0.10, 0.095, (PASS,), "use_simpler_fix", "bm25"),
        (0.05, 0.10, (PASS,), "use_simpler_fix", "bm25"),
        (None, 0.10, (), "use_simpler_fix", "bm25"),
        (None, -0.10, (), "do_not_ship", "dense"),
        (-0.05, -0.10, (PASS,), "do_not_ship", "dense"),
        (0.002, -0.10, (PASS,), "do_not_ship", "dense"),
        (0.10, 0.00, (PASS, FAIL), "do_not_ship", "dense"),
        (0.10, 0.05, (PASS, FAIL), "use_simpler_fix", "bm25"),
        (0.10, 0.00, (OPEN,), "inconclusive", "dense"),
    ],
)
def test_each_case_has_its_verdict(
    tuned: float | None, simple: float, guardrails: Any, verdict: str, recommended: str
) -> None:
    sd = 0.02 if tuned == 0.002 else 0.1
    result = judge(evidence(tuned, simple, guardrails, sd=sd))
    assert (result.verdict, result.recommended) == (verdict, recommended)
    assert result.sentence.endswith(".")


def test_an_uncertain_gain_says_how_many_queries_would_settle_it() -> None:
    result = judge(evidence(0.03, -0.10, (PASS,), sd=0.3, n=60))
    assert result.verdict == "inconclusive"
    assert "judged test queries would settle it" in result.sentence


def test_a_failed_guardrail_is_named_in_the_sentence() -> None:
    assert "slice tag:orders" in judge(evidence(0.10, 0.0, (FAIL,))).sentence


def test_candidates_are_chosen_on_dev_and_not_on_test() -> None:
    better_on_test = candidate("a", "candidate", np.full(5, 0.9), dev=0.4)
    better_on_dev = candidate("b", "candidate", np.full(5, 0.1), dev=0.6)
    assert best_on_dev([better_on_test, better_on_dev], "candidate") is better_on_dev
    assert best_on_dev([better_on_test], "baseline") is None


def test_the_checklist_answers_six_questions() -> None:
    answers = checklist(
        evidence(0.10, 0.0, (PASS,)),
        {"examples": 12, "queries": 10, "documents": 4},
        {"documents": 9, "seconds": 3.0},
        {},
    )
    assert [row["answer"] for row in answers] == ["yes", "unknown", "yes", "yes", "yes", "yes"]
    untrained = checklist(evidence(None, 0.0), {}, {}, {})
    assert [row["answer"] for row in untrained] == [
        "yes",
        "unknown",
        "unknown",
        "no",
        "unknown",
        "unknown",
    ]


def test_simpler_fixes_are_not_called_insufficient_while_some_were_not_tried() -> None:
    untried = [{"fix": "reranking", "why": "no reranker is at hand", "next": "nearer fix --set x"}]
    better = checklist(evidence(0.10, 0.0, (PASS,)), {}, {}, {}, untried)[2]
    assert better["answer"] == "not tried"
    assert "reranking (no reranker is at hand; nearer fix --set x)" in better["evidence"]
    no_better = checklist(evidence(0.10, 0.10, (PASS,)), {}, {}, {}, untried)[2]
    assert no_better["answer"] == "no"
