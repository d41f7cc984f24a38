"""The common mistakes: each planted once, and each found with its evidence and the command that mends it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nearer.cli import app
from nearer.data.leakage import EXACT, NEAR, Leakage, find_leakage
from nearer.decision.hashes import findings_hash, input_hashes, reproducible
from nearer.decision.mistakes import (
    MADE,
    NO,
    UNKNOWN,
    Production,
    Saved,
    brief,
    in_production,
    mistakes,
    read_mistakes,
)
from nearer.decision.record import CandidateRecord, DecisionRecord
from nearer.live.monitor.production import production_of
from nearer.report import markdown, page
from nearer.report.data import ReportData
from nearer.types import Example, Query, Split


def system(name: str, role: str, fingerprint: str | None = "a" * 16) -> CandidateRecord:
    return CandidateRecord(name=name, role=role, pipeline={"system": name}, fingerprint=fingerprint)


GOOD = Saved(
    decision=DecisionRecord(
        candidates=(system("dense", "today"), system("bm25", "baseline", None))
    ),
    evaluation={
        "system": {"fingerprint": "a" * 16},
        "systems": [{"name": "dense"}, {"name": "bm25"}],
    },
    diagnosis={"causes": {"semantic": 10}},
    ladder={"rungs": []},
    mining={
        "examples": 100,
        "suspects": 3,
        "noise": {"share": 0.03, "action": "weighted down"},
        "negatives": {"total": 100, "without": 0},
        "leakage": {"exact": 2},
    },
    leakage=Leakage(100),
    production=Production(
        "g-1", {"verdict": "ship"}, {"verdict": "pass", "live": "g-0"}, "2026-05-03"
    ),
)


def test_a_careful_project_made_none() -> None:
    found = mistakes(GOOD)
    assert [row.answer for row in found] == [NO] * 8
    assert all(row.evidence and not row.next for row in found)
    assert brief(found) == "common mistakes: 0 of 8 made"


PLANTED: list[tuple[str, dict[str, Any], str]] = [
    ("no baseline", {"decision": DecisionRecord()}, "nothing was compared"),
    (
        "no baseline",
        {
            "decision": DecisionRecord(candidates=(system("dense", "today"),)),
            "evaluation": {"systems": [{"name": "dense"}]},
        },
        "only dense was measured",
    ),
    (
        "noisy positives",
        {"mining": {"noise": {"share": 0.2, "action": "listed only"}, "suspects": 30}},
        "about 20.0% of the positives are wrong",
    ),
    (
        "no hard negatives",
        {"mining": {"examples": 10, "negatives": {"total": 0, "without": 10}}},
        "0 of 10 examples",
    ),
    (
        "training on evaluation examples",
        {"leakage": Leakage(100, (), {EXACT: 7, NEAR: 2})},
        "7 repeat a held-out query exactly, 2 nearly repeat a held-out query",
    ),
    (
        "fine-tuning for missing metadata",
        {"diagnosis": {"causes": {"needs_metadata": 9, "semantic": 1}}},
        "9 of 10 failures are about metadata",
    ),
    (
        "mixed vector spaces",
        {"evaluation": {"system": {"fingerprint": "b" * 16}}},
        "speak of two spaces",
    ),
    (
        "no shadow test",
        {"production": Production("g-1", {"override": "now"}, None, "2026-05-03")},
        "no shadow record speaks for it",
    ),
    (
        "no shadow test",
        {"production": Production("g-1", {}, {"verdict": "fail"}, "2026-05-03")},
        "although its shadow record says fail",
    ),
    (
        "no monitoring",
        {"production": Production("g-1", {}, {"verdict": "pass"}, "")},
        "no day of it was looked at",
    ),
]


@pytest.mark.parametrize(("name", "change", "evidence"), PLANTED)
def test_each_mistake_is_found(name: str, change: dict[str, Any], evidence: str) -> None:
    found = {row.mistake: row for row in mistakes(replace(GOOD, **change))}
    assert found[name].answer == MADE
    assert evidence in found[name].evidence
    assert found[name].next
    assert name in brief(list(found.values()))


def test_what_did_not_run_cannot_be_said() -> None:
    nothing = Saved(decision=GOOD.decision, trained=False)
    answers = {row.mistake: row.answer for row in mistakes(nothing)}
    assert answers.pop("no baseline") == NO
    assert answers.pop("mixed vector spaces") == NO
    assert set(answers.values()) == {UNKNOWN}


@pytest.mark.parametrize("value", [None, 7, "text", [], [3], {"a": None}, {"share": "much"}])
def test_files_of_others_are_read_with_care(value: Any) -> None:
    odd = {"causes": value, "noise": value, "negatives": value, "leakage": value, "rungs": value}
    odd |= {"systems": value, "system": value, "examples": value, "suspects": value}
    saved = replace(GOOD, evaluation=odd, diagnosis=odd, ladder=odd, mining=odd)
    assert len(mistakes(saved)) == 8


def test_a_system_outside_of_nearer_cannot_be_vouched_for() -> None:
    outside = DecisionRecord(candidates=(system("http", "today", None), system("bm25", "baseline")))
    found = {row.mistake: row for row in mistakes(replace(GOOD, decision=outside))}
    assert found["mixed vector spaces"].answer == UNKNOWN


def test_recommenders_without_vectors_mix_no_spaces() -> None:
    names = ("popularity", "item_knn", "item_hybrid")
    others = [system(name, "baseline", None) for name in names]
    decision = DecisionRecord(candidates=(system("dense", "today"), *others))
    found = {row.mistake: row for row in mistakes(replace(GOOD, decision=decision))}
    assert found["mixed vector spaces"].answer == NO
    assert "each of 1 systems" in found["mixed vector spaces"].evidence


# -- leaks -----------------------------------------------------------------------------------------


def split(name: str, **texts: str) -> Split:
    queries = tuple(Query(query_id, text) for query_id, text in texts.items())
    return Split(name, queries, {query_id: {"d": 1} for query_id in texts})


LONG = "how do I reset the password of my account when I have lost the phone"


def test_training_examples_that_repeat_held_out_queries_are_counted_by_kind() -> None:
    held_out = (
        split("dev", x1="what a fine day"),
        split("test", y1="secret question", y2=LONG, y3="Secret question!", y4="never asked"),
    )
    texts = {"t1": "another question", "t2": f"{LONG} please"}
    examples = [
        Example("d1", query_id="t1"),
        Example("d2", query_id="t2"),
        Example("d2", query_id="t2"),
        Example("d3", query_id="x1"),
        Example("SECRET question", query="secret question"),
    ]
    found = find_leakage(examples, texts, held_out, 0.8)
    assert found.examples == 5
    assert found.held_out == {EXACT: 2, NEAR: 2}
    rows = [(row.query_id, row.kind, row.examples) for row in found.queries]
    # both queries of the same text are named; an example that holds it twice counts once
    assert rows == [("y1", EXACT, 1), ("y2", NEAR, 2), ("y3", EXACT, 1)]
    assert find_leakage(examples[:1], texts, held_out, 0.8).total == 0


def test_an_exact_repeat_outweighs_a_near_one_and_odd_texts_repeat_nothing() -> None:
    held_out = (split("test", y1=LONG, y2="", y3="?"),)
    texts = {"t1": f"{LONG} please", "t2": LONG, "t3": ""}
    examples = [Example("d", query_id=query_id) for query_id in ("t1", "t2", "t3", "gone")]
    (row,) = find_leakage(examples, texts, held_out, 0.8).queries
    assert (row.query_id, row.kind, row.examples) == ("y1", EXACT, 2)
    assert find_leakage([], texts, held_out, 0.8) == Leakage(0)


# -- production ------------------------------------------------------------------------------------


def test_production_is_read_from_the_files_beside_the_project(tmp_path: Path) -> None:
    assert production_of(tmp_path) == Production()
    active = "0123abcd-1"
    folder = tmp_path / "generations"
    folder.mkdir()
    pointer = {
        "id": active,
        "previous": None,
        "entry": None,
        "served": {active: {"verdict": "ship"}},
    }
    (folder / "ACTIVE").write_text(json.dumps(pointer))
    assert production_of(tmp_path) == Production(active, {"verdict": "ship"})
    for name, value in (
        (f"shadow/{active}.json", {"verdict": "pass", "live": "x"}),
        ("monitor/report.json", {"generation": active, "day": "2026-05-03"}),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(value))
    told = production_of(tmp_path)
    assert told.shadow is not None
    assert told.monitored == "2026-05-03"
    (folder / "ACTIVE").write_text("{broken")
    assert production_of(tmp_path) == Production()


def test_production_replaces_what_the_decision_could_not_know() -> None:
    decided = mistakes(replace(GOOD, production=None))
    assert [row.answer for row in decided[-2:]] == [UNKNOWN, UNKNOWN]
    assert GOOD.production is not None
    now = in_production(decided, GOOD.production)
    assert [row.answer for row in now] == [NO] * 8
    assert now[:-2] == decided[:-2]


@pytest.mark.parametrize("content", ["[]", "{}", '{"mistakes": 3}', '{"mistakes": [1, {"x": 2}]}'])
def test_a_file_of_mistakes_that_is_odd_is_read_with_care(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mistakes.json"
    path.write_text(content)
    assert len(read_mistakes(path)) <= 1


def test_the_command_tells_a_decision_that_looked_for_none_from_no_decision(
    write_project: Any, tmp_path: Path
) -> None:
    path = write_project(tmp_path / "p")
    command = ["mistakes", "-c", str(path)]
    missing = CliRunner().invoke(app, command)
    assert missing.exit_code == 2
    assert "nobody has looked" in missing.output
    decided = path.parent / "runs" / "default" / "decide"
    decided.mkdir(parents=True)
    (decided / "mistakes.json").write_text('{"mistakes": []}')
    none = CliRunner().invoke(app, command)
    assert none.exit_code == 2
    assert "scored pairs alone" in " ".join(none.output.split())


def test_the_report_shows_them_made_first_and_escaped() -> None:
    found = mistakes(replace(GOOD, leakage=Leakage(5, (), {EXACT: 5})))
    data = ReportData(mistakes=[{**row.as_dict(), "next": "<b>x</b>"} for row in found])
    html = page.render(data)
    assert 'href="#mistakes"' in html
    assert "<b>x</b>" not in html
    section = html[html.index('<section id="mistakes">') :]
    first = "Training on evaluation examples"
    assert section.index(first) < section.index("No baseline")
    text = markdown.render(data)
    assert "### Common mistakes" in text
    assert "<b>" not in text


# -- hashes ----------------------------------------------------------------------------------------


def test_what_a_clock_measured_changes_no_hash_of_the_findings() -> None:
    record = {
        "verdict": "ship",
        "test_looks": 1,
        "sign_off": None,
        "checklist": [
            {"question": "Does the gain justify re-indexing?", "answer": "yes", "evidence": "3 s"}
        ],
        "candidates": [{"name": "dense", "latency": {"p50_ms": 3.0}, "dev": 0.5}],
        "guardrails": [{"name": "latency p50", "delta": 1.1}, {"name": "general", "delta": 0.1}],
        "cost": {"documents": 3, "seconds": 4.0},
    }
    again = json.loads(json.dumps(record))
    again["candidates"][0]["latency"] = {"p50_ms": 9.0}
    again["guardrails"][0]["delta"] = 1.2
    again["cost"]["seconds"] = 5.0
    again["test_looks"] = 2
    again["checklist"][0] |= {"evidence": "4 s", "answer": "unknown"}  # the price is of seconds
    again["pays"] = {"answer": "unknown", "price": 3.0}
    assert findings_hash(again) == findings_hash(record)
    again["candidates"][0]["dev"] = 0.6
    assert findings_hash(again) != findings_hash(record)
    assert reproducible(record)["guardrails"][1]["delta"] == 0.1


def test_every_input_has_one_hash() -> None:
    inputs = {"fix/summary.json": "abc", "train": {"model/a": "1", "history.jsonl": "2"}}
    hashes = input_hashes(inputs, "mined", {"seed": {"value": 7}})
    assert set(hashes) == {"fix/summary.json", "train", "mine/examples.jsonl", "settings"}
    assert all(isinstance(value, str) for value in hashes.values())
    other = {**inputs, "train": {"model/a": "1", "history.jsonl": "3"}}
    assert input_hashes(other, "mined", {})["train"] != hashes["train"]
