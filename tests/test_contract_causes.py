"""The contract of causes, over every one of them, and the rule that chooses among them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nearer import plugins
from nearer.diagnosis import causes as registry
from nearer.diagnosis.causes import causes, classify, remedies, rules
from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn
from nearer.diagnosis.totals import waterfall
from nearer.diagnosis.values import Facts, Probe, best
from nearer.errors import ConfigError
from nearer.types import Query, Run, Split

DOCS = Path(__file__).parents[1] / "docs" / "diagnosis.md"
AT_40 = {"today": Probe(40), "exact": Probe(40)}

#: Cause → the smallest failure that it explains.
EXAMPLES: dict[str, tuple[dict[str, Probe], Facts]] = {
    "missing_document": ({}, Facts(missing="not in the corpus")),
    "ineligible": ({}, Facts(excluded="metadata wrong: …", filters_apply=True)),
    "needs_metadata": ({"needs_metadata": best({"declared": 9})}, Facts(declared=True)),
    "chunking": ({"chunking": best({"tokens:128:32": 2})}, Facts(unread="cut off: …")),
    "exact_match": ({"exact_match": best({"bm25": 1})}, Facts()),
    "index_loss": ({"today": Probe(None), "exact": Probe(4)}, Facts()),
    "ranking": ({"ranking": Probe(1)}, Facts()),
    "base_model": ({"base_model": best({"other": 5})}, Facts()),
    "semantic": ({}, Facts()),
    "label_suspect": ({}, Facts(duplicates=("d9",))),
    "unknown": ({"ranking": Probe(skipped="no reranker", next_step="nearer …")}, Facts()),
}


@pytest.fixture(params=plugins.names("cause"))
def cause(request: pytest.FixtureRequest) -> Cause:
    return next(cause for cause in causes() if cause.name == request.param)


def test_a_cause_has_its_registered_name_and_says_what_repairs_it(cause: Cause) -> None:
    assert cause.name in plugins.names("cause")
    assert len(cause.remedy.split()) >= 3
    assert remedies()[cause.name] == cause.remedy


def test_a_cause_has_a_row_in_the_documentation(cause: Cause) -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    assert [row.split("`")[1] for row in rows].count(cause.name) == 1


def test_a_cause_explains_its_smallest_example(cause: Cause) -> None:
    probes, facts = EXAMPLES[cause.name]
    diagnosis = classify(AT_40 | probes, facts, 10)
    assert diagnosis.cause == cause.name
    assert diagnosis.evidence


def test_rules_say_nothing_about_a_document_that_is_found(cause: Cause) -> None:
    """Where the baseline finds the document and nothing was tried, `semantic` alone remains."""
    case = Case({"today": Probe(1), "exact": Probe(1)}, Facts(overlap=1.0), 10)
    explained = [rule for rule in cause.rules if rule.explain(case) is not None]
    assert [rule.turn for rule in explained] == (
        [Turn.REMAINDER] if cause.name == "semantic" else []
    )
    assert cause.rank_in_part(case) is None


def test_rules_decide_by_turn_and_then_by_the_cost_of_the_repair() -> None:
    assert [(cause, rule.turn.name) for cause, rule in rules()] == [
        ("missing_document", "FACTS"),
        ("ineligible", "FACTS"),
        ("index_loss", "FACTS"),
        ("ranking", "FACTS"),
        ("needs_metadata", "REPAIR"),
        ("chunking", "REPAIR"),
        ("exact_match", "REPAIR"),
        ("ranking", "REPAIR"),
        ("base_model", "REPAIR"),
        ("chunking", "COSTLY_REPAIR"),
        ("unknown", "TOGETHER"),
        ("unknown", "IN_PART"),
        ("unknown", "UNTRIED"),
        ("semantic", "REMAINDER"),
    ]


def pinned() -> Iterator[Any]:
    """Small failures whose diagnosis was pinned, one of each outcome."""
    path = Path(__file__).with_name("diagnosis_cases.jsonl")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        values = json.loads(line)
        yield pytest.param(values, id=f"{number}-{values['cause']}")


@pytest.mark.parametrize("values", pinned())
def test_pinned_failures_keep_their_diagnosis(values: dict[str, Any]) -> None:
    probes = {name: Probe(**fields) for name, fields in values["probes"].items()}
    facts = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values["facts"].items()
    }
    diagnosis = classify(probes, Facts(**facts), values["k"])
    assert diagnosis.cause == values["cause"]
    assert diagnosis.kind == values["kind"]
    assert diagnosis.evidence == values["evidence"]
    assert list(diagnosis.also) == values["also"]


# -- a cause that a package brings --------------------------------------------------------------------


def _stale(case: Case) -> Explanation | None:
    return Explanation("", "an older version is indexed") if case.works("stale") else None


STALE = Cause("stale", remedy="index the newest version", rules=(Rule(Turn.REPAIR, _stale),))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An installed package with a cause, `stale`; its module."""
    module = ModuleType("stale_package")
    module.CAUSE = STALE  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stale_package", module)
    point = EntryPoint("cause.stale", "stale_package:CAUSE", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    caches = (registry.causes, registry.rules)
    for cached in caches:
        cached.cache_clear()
    yield module
    for cached in caches:
        cached.cache_clear()


def test_a_cause_of_a_package_is_asked_after_ours_and_before_what_remains(
    package: ModuleType,
) -> None:
    assert [cause.name for cause in causes()][-4:] == [
        "stale",
        "semantic",
        "label_suspect",
        "unknown",
    ]
    assert classify(AT_40 | {"stale": Probe(1)}, Facts(), 10).cause == "stale"
    cheaper = AT_40 | {"stale": Probe(1), "base_model": best({"other": 5})}
    assert classify(cheaper, Facts(), 10).cause == "base_model"
    split = Split("dev", (Query("a", "a"),), {"a": {"x": 1}})
    run = Run("today", {"a": [("z", 2.0)]})
    failures = [{"query_id": "a", "doc_id": "x", "cause": "stale"}]
    (step,) = waterfall(run, split, failures, "nDCG@10")["steps"]
    assert (step["cause"], step["remedy"]) == ("stale", STALE.remedy)


def test_a_cause_of_a_package_that_is_none_is_refused_by_name(package: ModuleType) -> None:
    package.CAUSE = "a text"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"cause\.stale is no Cause"):
        causes()
