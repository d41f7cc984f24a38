"""Which fine-tuned system is judged: the best on dev among those that answer in time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nearer.decision import named as module
from nearer.decision.candidates import Finalists
from nearer.measure.metrics import Scores
from nearer.measure.named import NamedOutcome
from nearer.measure.verdict import TUNED, Candidate
from nearer.search.costs import Latency, slowdown
from nearer.types import Run

LIMIT = 1.25
TODAY = Latency(10.0, 20.0)
IN_TIME = Latency(12.0, 24.0)
LATE = Latency(13.0, 26.0)


def candidate(name: str, role: str, dev: float) -> Candidate:
    scores = Scores(("q1",), {"nDCG@10": np.array([dev])})
    return Candidate(name, role, "dense", Run(name, {}), scores, dev)


PLAIN = candidate(TUNED, "candidate", 0.60)
HYBRID = candidate(f"{TUNED} convex", "candidate", 0.62)
CANDIDATES = [
    candidate("dense", "today", 0.35),
    candidate("rerank", "baseline", 0.50),
    PLAIN,
    HYBRID,
]


def chosen(plain: Latency | None, hybrid: Latency | None) -> Finalists:
    latencies = {"dense": TODAY, "rerank": Latency(90.0, 99.0), TUNED: plain, HYBRID.name: hybrid}
    return Finalists.of(CANDIDATES, latencies, LIMIT)


@pytest.mark.parametrize(
    ("plain", "hybrid", "expected"),
    [
        (IN_TIME, IN_TIME, HYBRID),
        (IN_TIME, LATE, PLAIN),
        (LATE, LATE, HYBRID),  # neither can ship, so the better one is judged
        (None, LATE, PLAIN),
        (IN_TIME, Latency(13.0, 24.0), HYBRID),  # the median alone is noise
    ],
)
def test_a_system_in_time_goes_before_a_better_one_that_is_late(
    plain: Latency | None, hybrid: Latency | None, expected: Candidate
) -> None:
    found = chosen(plain, hybrid)
    assert found.tuned is expected
    assert found.candidates == CANDIDATES


@pytest.mark.parametrize(
    ("losing", "expected"), [((), "rerank"), (("rerank",), "rrf"), (("rerank", "rrf"), "rerank")]
)
def test_a_fix_that_loses_a_named_query_gives_way_to_one_that_does_not(
    losing: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = [*CANDIDATES, candidate("rrf", "baseline", 0.45)]
    latencies = dict.fromkeys([one.name for one in candidates], TODAY)
    finalists = Finalists.of(candidates, latencies, LIMIT)
    plan: Any = [SimpleNamespace(name=one.name) for one in candidates]
    inputs: Any = SimpleNamespace(named=["q1"], primary="nDCG@10")

    def outcomes(named: Any, before: Any, after: Any, primary: str) -> list[NamedOutcome]:
        value = 0.0 if after.name in losing else 1.0
        return [NamedOutcome("must_pass", "q1", "a text", "test", 1.0, value)]

    monkeypatch.setattr(module, "named_outcomes", outcomes)
    found, _ = module.with_named_outcomes(inputs, plan, finalists)
    assert found.simple is not None
    assert found.simple.name == expected
    assert found.tuned is finalists.tuned


def test_a_simpler_fix_may_be_slow() -> None:
    found = chosen(IN_TIME, IN_TIME)
    assert found.simple is not None
    assert found.simple.name == "rerank"


def test_slowdown_is_the_smaller_ratio_of_median_and_tail() -> None:
    assert slowdown(TODAY, Latency(30.0, 40.0)) == 2.0
    assert slowdown(None, TODAY) is None
    assert slowdown(TODAY, None) is None
