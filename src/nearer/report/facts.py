"""report.json: what the page says, as values for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nearer.decision.record import DecisionRecord
from nearer.report import content, repeat, sections
from nearer.report.data import ReportData
from nearer.report.sections.browser import browsed, counts
from nearer.report.sections.frontiers import best_of, merge_points, systems_of
from nearer.report.sections.neighbours import moved
from nearer.report.sections.odd_one_out import odd_one_out
from nearer.report.sections.reading import judge_sentence
from nearer.report.values import Json, as_json, as_list, as_number, as_object, as_objects, as_text


def facts(data: ReportData) -> dict[str, Any]:
    """Every fact of the report; a part whose file is missing is empty."""
    return {str(key): as_json(value) for key, value in _parts(data).items()}


def _parts(data: ReportData) -> dict[str, Any]:
    decided = data.decided
    return {
        **_verdict(data),
        "failures": {
            "sentence": content.failures_sentence(data.diagnosis) if data.diagnosis else "",
            "causes": [_cause(row) for row in content.causes(data.diagnosis)],
        },
        "terms": sections.terms(data.diagnosis) or {},
        "fixes": {
            "sentence": content.fixes_sentence(data.fixes, content.level(decided)),
            "steps": [_step(row) for row in content.fix_steps(data.fixes)],
        },
        "candidates": [row.as_dict() for row in decided.candidates],
        "comparisons": [row.as_dict() for row in decided.comparisons],
        "task": _task(data),
        "slices": {
            "margin": content.slice_margin(decided),
            "rows": [row.as_dict() for row in content.changed_slices(decided)],
        },
        "guardrails": [row.as_dict() for row in decided.guardrails],
        "language_model": _language_model(data),
        "frontiers": _frontiers(data),
        "margins": _numbers(data.margins),
        "neighbours": moved(data.neighbours),
        "queries": _queries(data),
        "negative_flips": [row.as_dict() for row in decided.negative_flips],
        "queries_that_matter": _queries_that_matter(decided),
        "training": _numbers(data.training),
        "reviewed": _reviewed(data),
        "mistakes": [dict(row) for row in as_objects(list(data.mistakes))],
        "cost": decided.cost.as_dict(),
        "pays": as_object(decided.pays),
        "hashes": as_object(decided.hashes),
        "repeat": {
            "command": repeat.command(data),
            "seeds": repeat.seeds(data),
            "versions": dict(data.versions),
        },
    }


def _verdict(data: ReportData) -> dict[str, Any]:
    """The decision itself, with the sentences and figures that stand first on the page."""
    decided = data.decided
    word, _ = content.badge(decided)
    head = content.headline(decided)
    return {
        "run": data.run,
        "verdict": decided.verdict,
        "word": word,
        "sentence": decided.sentence,
        "recommended": decided.recommended,
        "reasons": list(decided.reasons),
        "primary": content.primary(decided),
        "level": content.level(decided),
        "n_queries": decided.n_queries,
        "queries_from": dict(decided.queries_from or {}),
        "min_gain": decided.min_gain,
        "test_looks": decided.test_looks,
        "sign_off": decided.sign_off,
        "headline": None if head is None else head.as_dict(),
        "checklist": [row.as_dict() for row in decided.checklist],
    }


def _cause(row: Json) -> dict[str, Any]:
    keys = ("cause", "failures", "share", "failing_queries_left", "measure", "remedy")
    return {key: row.get(key) for key in keys}


def _step(row: Json) -> dict[str, Any]:
    keys = ("fix", "label", "gain", "ci", "repaired", "broken", "kept", "needs")
    return {key: row.get(key) for key in keys}


def _language_model(data: ReportData) -> dict[str, Any]:
    rag = as_object(data.decided.rag)
    if not rag:
        return {}
    judge = as_object(as_object(rag.get("answers")).get("judge"))
    return {**rag, "judge_sentence": judge_sentence(judge)}


def _frontiers(data: ReportData) -> dict[str, Any]:
    systems = systems_of(data)
    best = {"latency": best_of(systems, "milliseconds"), "size": best_of(systems, "size")}
    rows = []
    for system in systems:
        row = asdict(system)
        del row["tone"]
        row["best_in"] = [kind for kind, numbers in best.items() if system.number in numbers]
        rows.append(row)
    return {"systems": rows, "forgetting": merge_points(data.training)}


def _queries(data: ReportData) -> dict[str, Any]:
    queries = browsed(data)["queries"]
    if not queries:
        return {}
    return {"n": as_number(as_object(data.queries).get("n")), **counts(queries)}


def _task(data: ReportData) -> dict[str, Any]:
    """The measures of the task by system, and the queries that they are of."""
    found = data.task or data.task_on_dev
    if not found:
        return {}
    people = odd_one_out(data)
    return {
        "task": as_text(found.get("task"), 40),
        "on": "test" if data.task else "dev",
        "measures": as_object(found.get("measures")),
        "notes": [as_text(note) for note in as_list(found.get("notes"))],
        "odd_one_out": None if people is None else people["groupings"],
    }


def _queries_that_matter(decided: DecisionRecord) -> dict[str, Any]:
    """What a mean hides, as far as the record has it."""
    record = decided.as_dict()
    keys = ("clusters", "judged", "flips", "named_queries", "requests", "reversals", "leakage")
    return {key: record[key] for key in keys if record.get(key)}


def _reviewed(data: ReportData) -> dict[str, Any]:
    """What reviewers judged, and how the verdict changed by it."""
    section = sections.reviewed(data)
    if section is None:
        return {}
    return {
        "judgments": as_object(data.check.get("reviewed")),
        "agreement": section["agreement"],
        "pools": section["pools"],
        "judge": section["judge"],
        "verdicts": section["verdicts"],
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of an object."""
    numbers = {}
    for key, value in values.items():
        number = as_number(value)
        if number is not None:
            numbers[as_text(key, 60)] = number
    return numbers
