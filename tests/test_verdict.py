"""The rule of the decision, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nearer.measure.checklist import checklist
from nearer.measure.metrics import Scores
from nearer.measure.not_tried import untold, untried
from nearer.measure.significance import compare
from nearer.measure.verdict import (
    Candidate,
    Evidence,
    best_on_dev,
    judge,
)
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
    base = rng.uniform(0.4, 0.6, n)

    def shifted(gain: float) -> np.ndarray:
        noise = rng.uniform(-1, 1, n) * sd * 3**0.5
        values = base + gain + noise - noise.mean()
        return np.clip(values, 0.0, 1.0)

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
    sd, n = (0.02, 1000) if tuned == 0.002 else (0.1, N)
    result = judge(evidence(tuned, simple, guardrails, sd=sd, n=n))
    assert (result.verdict, result.recommended) == (verdict, recommended)
    assert result.sentence.endswith(".")


def test_what_nobody_measured_is_named_where_a_model_ships() -> None:
    unmeasured = {"name": "latency", "status": "not measured", "reason": "a file of results"}
    idle = {"name": "tasks", "status": "does not apply", "reason": "nothing is set"}
    result = judge(evidence(0.10, 0.00, (PASS, unmeasured, idle)))
    assert result.verdict == "ship"
    assert "every guardrail that was measured passes (not measured: latency)" in result.sentence
    assert "all 1 guardrails that were measured pass" in result.reasons
    alone = judge(evidence(0.10, 0.00, (unmeasured,)))
    assert "no guardrail was measured (not measured: latency)" in alone.sentence
    assert not any("guardrails" in reason for reason in alone.reasons)
    assert "no guardrail applies" in judge(evidence(0.10, 0.00, (idle,))).sentence
    assert "every guardrail passes" in judge(evidence(0.10, 0.00, (PASS, idle))).sentence


def test_a_guardrail_that_was_not_checked_is_not_said_to_have_been_measured() -> None:
    unchecked = {"name": "own", "status": "inconclusive", "delta": None, "reason": "no file"}
    result = judge(evidence(0.10, 0.00, (PASS, OPEN, unchecked)))
    assert result.verdict == "inconclusive"
    assert "general ability may have lost more than the margin allows" in result.sentence
    assert "and own could not be checked" in result.sentence
    assert "guardrail own is open: it could not be checked" in result.reasons


def test_an_uncertain_gain_says_how_many_queries_would_settle_it() -> None:
    case = evidence(0.03, -0.10, (PASS,), sd=0.2, n=60)
    result = judge(case)
    assert result.verdict == "inconclusive"
    needed = case.queries_needed(case.tuned, case.today)
    assert needed is not None
    assert f"about {needed:,} judged test queries would settle it" in result.sentence
    # normal theory: (2.8 * .2 / .03)^2 = 348, and some for the losses that 60 queries cannot rule out
    assert 350 < needed < 600


def test_a_few_lucky_queries_are_no_reason_to_ship() -> None:
    """Every one of 20 queries gains .05, p is tiny, and one loss in twenty would undo it all."""
    base = np.full(20, 0.4)
    today, tuned = candidate("dense", "today", base), candidate("tuned", "candidate", base + 0.05)
    gain = compare(base, base + 0.05, np.random.default_rng(1), 2000)
    assert gain.p < 0.001
    found = Evidence(today, tuned, None, {("dense", "tuned"): gain}, (PASS,), "nDCG@10", 0.01, 0.05)
    assert judge(found).verdict == "inconclusive"


def test_a_gain_that_only_the_interval_shows_is_not_claimed() -> None:
    case = evidence(0.10, -0.10, (PASS,))
    assert judge(case).verdict == "ship"
    pair = ("dense", "fine-tuned")
    doubted = replace(case.comparisons[pair], p=0.06)
    unsure = replace(case, comparisons={**case.comparisons, pair: doubted})
    assert judge(unsure).verdict == "inconclusive"


def test_a_failed_guardrail_is_named_in_the_sentence() -> None:
    assert "slice tag:orders" in judge(evidence(0.10, 0.0, (FAIL,))).sentence


def test_candidates_are_chosen_on_dev_and_not_on_test() -> None:
    better_on_test = candidate("a", "candidate", np.full(5, 0.9), dev=0.4)
    better_on_dev = candidate("b", "candidate", np.full(5, 0.1), dev=0.6)
    assert best_on_dev([better_on_test, better_on_dev], "candidate") is better_on_dev
    assert best_on_dev([better_on_test], "baseline") is None


def test_the_checklist_answers_every_question_but_whether_it_pays() -> None:
    mined = {"examples": 12, "queries": 10, "documents": 4}
    answers = checklist(evidence(0.10, 0.0, (PASS,)), mined, {})
    assert [row["answer"] for row in answers] == ["yes", "unknown", "yes", "yes", "yes"]
    untrained = checklist(evidence(None, 0.0), {}, {})
    assert [row["answer"] for row in untrained] == ["yes", "unknown", "unknown", "no", "unknown"]


def test_simpler_fixes_are_not_called_insufficient_while_some_were_not_tried() -> None:
    untried = [{"fix": "reranking", "why": "no reranker is at hand", "next": "nearer fix --set x"}]
    better = checklist(evidence(0.10, 0.0, (PASS,)), {}, {}, untried)[2]
    assert better["answer"] == "not tried"
    assert "reranking (no reranker is at hand; nearer fix --set x)" in better["evidence"]
    no_better = checklist(evidence(0.10, 0.10, (PASS,)), {}, {}, untried)[2]
    assert no_better["answer"] == "no"


def test_no_ship_while_a_fix_that_may_gain_as_much_is_not_shown_to_do_less() -> None:
    """The fix gains .022, which its spread does not show; fine-tuning is shown to gain .03."""
    found = evidence(0.03, 0.022, (PASS,))
    wide = dict(found.comparisons)
    for pair in (("dense", "bm25"), ("bm25", "fine-tuned")):
        wide[pair] = replace(wide[pair], low=-0.02)
    verdict = judge(replace(found, comparisons=wide))
    assert verdict.verdict == "inconclusive"
    assert "bm25 may do as well (fine-tuning adds +0.008" in verdict.sentence
    assert "judged test queries would settle it" in verdict.sentence
    failing = replace(found, comparisons=wide, fix_guardrails=(FAIL,))
    assert judge(failing).verdict == "ship"  # the fix may not ship itself


def test_a_fix_that_helps_is_named_while_the_model_is_open() -> None:
    verdict = judge(evidence(0.10, 0.05, (OPEN,)))
    assert verdict.verdict == "inconclusive"
    assert "Meanwhile bm25 is shown to help by itself (+0.050" in verdict.sentence


def test_a_fix_with_several_gaps_is_named_once() -> None:
    not_tried = [
        {"fix": "chunking", "why": "a", "next": "x"},
        {"fix": "metadata", "why": "c", "next": "z"},
        {"fix": "chunking", "why": "b", "next": "y"},
    ]
    assert untold(not_tried) == "chunking (a; x | b; y), metadata (c; z)"
    part = [{**not_tried[0], "part": True}, not_tried[1]]
    assert untried(part) == ["not tried: metadata (c; z)", "tried in part: chunking (a; x)"]
