"""Whether the gain justifies re-indexing: cost against what it brings, and never yes without figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from nearer import config
from nearer.decision.bridged import across_a_bridge
from nearer.decision.payback import QUESTION, Change, payback
from nearer.decision.record import Answer, CostRecord, DecisionRecord
from nearer.errors import ConfigError
from nearer.measure.metrics import Scores
from nearer.measure.significance import Units
from nearer.measure.verdict import Candidate
from nearer.settings.decision import Decide
from nearer.types import Run

MEASURE = "nDCG@10"
FIGURES = {"queries_per_day": 10_000, "value_per_query": 0.01, "cost_per_hour": 2.0}
COST = CostRecord(
    documents=100_000,
    tokens=10**7,
    tokens_per_second=2000.0,
    seconds=5000.0,
    hours=1.3889,
    price=2.78,
)


def candidate(name: str, values: np.ndarray, **pipeline: Any) -> Candidate:
    scores = Scores(tuple(map(str, range(len(values)))), {MEASURE: values})
    described = {"pipeline": {"system": "dense", **pipeline}, "identity": {"dimension": 384}}
    return Candidate(name, "today", "dense", Run(name, {}), scores, 0.0, described)


def change(gain: float, n: int = 300) -> Change:
    before = np.full(n, 0.4)
    after = np.clip(before + gain, 0, 1)
    after[: n // 10] = 0.3  # a tenth of the queries gets worse
    first = candidate("dense", before)
    second = candidate("fine-tuned", after, system="rrf")
    return Change(first, second, 1_000_000, 1_500_000)


def weigh(gain: float = 0.1, cost: CostRecord = COST, shown: bool = True, **settings: Any) -> Any:
    return payback(change(gain), cost, Decide(**settings), MEASURE, shown)


def test_with_every_figure_it_says_when_it_is_earned_back() -> None:
    pays = weigh(**FIGURES)
    assert pays.answer == "yes"
    # nine tenths better, one tenth worse: 80% net of 10,000 queries at .01 each
    assert pays.figures["improved_per_day"]["mean"] == pytest.approx(8000)
    assert pays.figures["value_per_day"]["mean"] == pytest.approx(80)
    assert pays.figures["payback_days"] == pytest.approx(2.78 / 80, abs=1e-3)
    assert pays.figures["payback_days_at_worst"] > pays.figures["payback_days"]
    assert "1.39 machine hours" in pays.why
    assert "2,000 tokens per second" in pays.why
    assert pays.figures["storage"] == {
        "before_bytes": 1_000_000,
        "after_bytes": 1_500_000,
        "both_bytes": 2_500_000,
    }
    assert "system: dense → rrf" in pays.figures["changes"]
    assert "nearer index rollback" in pays.figures["rollback"]
    assert pays.question()["question"] == QUESTION


@pytest.mark.parametrize("missing", sorted(FIGURES))
def test_without_a_figure_the_answer_is_unknown_and_names_it(missing: str) -> None:
    known = {name: value for name, value in FIGURES.items() if name != missing}
    cost = dataclasses.replace(COST, price=None) if missing == "cost_per_hour" else COST
    pays = weigh(cost=cost, **known)
    assert pays.answer == "unknown"
    assert f"decide.{missing}" in pays.why


def test_it_says_no_where_even_the_best_case_does_not_pay() -> None:
    dear = dataclasses.replace(COST, price=1e6)
    pays = weigh(cost=dear, **FIGURES)
    assert pays.answer == "no"
    assert "wanted: within 90 days" in pays.why


def test_between_the_ends_of_the_interval_it_is_unknown() -> None:
    # 80 per day: 90 days earn 7,200, and the low end of the interval less than that
    pays = weigh(cost=dataclasses.replace(COST, price=7000.0), **FIGURES)
    assert pays.answer == "unknown"
    assert pays.figures["payback_days"] < 90 < pays.figures["payback_days_at_worst"]


def test_a_gain_that_is_not_shown_is_never_worth_it() -> None:
    assert weigh(shown=False, **FIGURES).answer == "unknown"
    assert weigh(gain=-0.1, shown=False, **FIGURES).answer == "no"


def test_nothing_trained_has_nothing_to_weigh() -> None:
    pays = payback(None, CostRecord(), Decide(), MEASURE, False)
    assert (pays.answer, pays.as_dict()["why"]) == ("unknown", pays.why)


@pytest.mark.parametrize("setting", ["queries_per_day", "value_per_query", "payback_days"])
@pytest.mark.parametrize("value", [0, -1])
def test_figures_of_nothing_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=setting):
        config.build({"decide": {setting: value}})


def test_the_sign_off_setting_makes_no_stage_run_again() -> None:
    asked = config.build({"decide": {"require_sign_off": True}})
    unasked = config.build({"decide": {"require_sign_off": False}})
    assert asked.section("decide") == unasked.section("decide")


def test_queries_that_hang_together_are_no_independent_proof_that_it_pays() -> None:
    alone = change(0.1)
    labels = np.arange(300) // 30  # ten clusters of thirty queries
    together = dataclasses.replace(alone, units=labels)
    shares = []
    for each in (alone, together):
        pays = payback(each, COST, Decide(**FIGURES), MEASURE, True)
        shares.append(pays.figures["improved_share"])
    assert shares[0]["mean"] == shares[1]["mean"]
    assert shares[1]["ci"][0] < shares[0]["ci"][0] - 0.1


def test_queries_per_day_are_of_requests_where_the_data_says_how_often_each_is_asked() -> None:
    """Nine queries of ten get better; the tenth gets worse and is what users ask all day."""
    planted = change(0.1)
    frequency = np.ones(300)
    frequency[:30] = 27.0  # a tenth of the queries, three quarters of the requests
    weighted = dataclasses.replace(planted, units=Units(weights=frequency))
    plain, asked = (
        payback(each, COST, Decide(**FIGURES), MEASURE, True) for each in (planted, weighted)
    )
    assert plain.figures["improved_per_day"]["mean"] == pytest.approx(8000)
    assert asked.figures["improved_per_day"]["mean"] == pytest.approx(10_000 * (0.25 - 0.75))
    assert (plain.answer, asked.answer) == ("yes", "no")
    assert (plain.figures["counted"], asked.figures["counted"]) == ("queries", "requests")
    assert "−50.0% of the requests" in asked.why.replace("-", "−")
    # where no gain is shown, the sign of the change is that of the requests too
    unshown = payback(weighted, COST, Decide(**FIGURES), MEASURE, False)
    assert unshown.answer == "no"


def test_across_a_bridge_nothing_is_embedded_again_and_no_cost_is_told() -> None:
    pays = weigh(**FIGURES)
    other = Answer(question="Is it semantic?", answer="yes", evidence="")
    decided = DecisionRecord(
        verdict="ship",
        cost=COST,
        pays=pays.as_dict(),
        checklist=(other, Answer.of(pays.question())),
    )
    bridge = {"kind": "procrustes", "kept": {"recall@10": 0.8}}
    across = across_a_bridge(decided, "g-1", bridge, "f" * 16)
    assert across.checklist[0] == other
    assert across.checklist[1].answer == "unknown"
    assert "machine hours" not in str(across.as_dict())
    assert across.pays is not None
    assert set(across.pays) == {"answer", "why"}
    assert across.as_dict()["cost"] == {}
