"""The decision record: read with care, written back byte for byte, whoever wrote it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from nearer.decision.record import ClustersRecord, DecisionRecord, Permission
from nearer.decision.showing import query_lines
from nearer.errors import DataError
from nearer.files import write_json
from nearer.records import Record
from nearer.stages.decide import Decision

#: A decision of the demo that an earlier version wrote, with some of its rows left out.
BEFORE = Path(__file__).parent / "decision_before.json"


def _as_made(value: Any) -> Any:
    """The same values as `decide` makes them: without what was noted when they were read."""
    if isinstance(value, Record):
        declared = [field.name for field in fields(value) if field.name not in ("more", "keys")]
        made = {name: _as_made(getattr(value, name)) for name in declared}
        return replace(value, keys=None, **made)
    if isinstance(value, tuple):
        return tuple(map(_as_made, value))
    if isinstance(value, dict):
        return {key: _as_made(item) for key, item in value.items()}
    return value


def test_a_record_of_before_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "decision.json").write_bytes(BEFORE.read_bytes())
    decision = Decision.load(tmp_path)
    decision.save(tmp_path / "again")
    assert (tmp_path / "again" / "decision.json").read_bytes() == BEFORE.read_bytes()


def test_what_is_made_has_the_same_keys_in_the_same_order(tmp_path: Path) -> None:
    read = DecisionRecord.of(json.loads(BEFORE.read_text()))
    made = _as_made(read)
    assert made.keys is None
    assert made.candidates[0].keys is None
    write_json(tmp_path / "made.json", made.as_dict())
    assert (tmp_path / "made.json").read_bytes() == BEFORE.read_bytes()


def test_its_parts_are_typed() -> None:
    decided = DecisionRecord.of(json.loads(BEFORE.read_text()))
    assert decided.verdict == "inconclusive"
    assert not decided.ships
    today = decided.candidate(decided.compared.baseline)
    assert today is not None
    assert today.role == "today"
    assert today.mean(decided.primary) == today.measures["nDCG@10"].mean
    assert today.mean("no such measure") is None
    assert decided.candidate("nobody") is None
    assert {row.status for row in decided.guardrails} <= {"pass", "fail", "inconclusive"}
    assert all(row.delta is not None for row in decided.comparisons)
    assert decided.cost.documents


def test_keys_that_this_version_does_not_know_are_kept() -> None:
    values = {
        "verdict": "ship",
        "later": {"a": [1, 2]},
        "guardrails": [{"name": "own", "status": "fail", "reason": "because", "n": 3}],
        "candidates": [{"name": "x", "speed": 3, "cost": {"index_bytes": 1, "build_seconds": 2.5}}],
    }
    decided = DecisionRecord.of(values)
    assert decided.as_dict() == values
    assert list(decided.as_dict()) == list(values)
    assert decided.guardrails[0].more["reason"] == "because"
    changed = replace(decided, verdict="do_not_ship")
    assert changed.as_dict() == values | {"verdict": "do_not_ship"}


@pytest.mark.parametrize(
    "value", [None, 7, "text", [], [None, 3], {}, {"x": [1]}, float("nan"), True]
)
def test_nonsense_is_a_gap(value: Any) -> None:
    for name in json.loads(BEFORE.read_text()):
        decided = DecisionRecord.of({name: value})
        assert isinstance(decided.candidates, tuple)
        assert decided.n_queries is None or decided.n_queries == 7
    assert DecisionRecord.of(value).verdict == ""


def test_a_file_that_is_no_decision_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "decision.json", {"verdict": "ship"})
    with pytest.raises(DataError, match="lacks recommended"):
        Decision.load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "7", "null", '"ship"', "{}", "{broken", ""])
def test_a_damaged_file_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "decision.json").write_text(content)
    with pytest.raises(DataError):
        Decision.load(tmp_path)


def test_a_record_of_few_keys_is_still_summarised(tmp_path: Path) -> None:
    needed = ("verdict", "recommended", "sentence", "reasons", "primary", "candidates")
    write_json(tmp_path / "decision.json", dict.fromkeys(needed, ""))
    decision = Decision.load(tmp_path)
    assert decision.brief()["test_looks"] is None
    assert str(decision)


def test_a_permission_says_only_what_it_rests_on() -> None:
    assert Permission(first=True).as_dict() == {"first": True}
    assert Permission(override="tested").as_dict() == {"override": "tested"}
    kept = {"path": "p", "hash": "h", "verdict": "ship", "pipeline": {"system": "dense"}}
    assert Permission.of(kept).as_dict() == kept


def test_clusters_are_told_in_the_same_words_wherever_intervals_are_of_them() -> None:
    units = {"unit": "user", "n": 1200, "queries": 5000, "largest": 31, "noticed": []}
    told = ClustersRecord.of(units).sentence()
    assert told.startswith("5,000 queries are 1,200 clusters (user; the largest has 31)")
    decided = DecisionRecord.of({"verdict": "ship", "clusters": units})
    assert told in query_lines(decided)
    for alone in ({}, units | {"unit": "query"}, units | {"n": None}):
        assert ClustersRecord.of(alone).sentence() == ""
