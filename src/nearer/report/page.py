"""report.html: one file, no network, everything from data escaped; only browsing queries needs its script.

`render` turns the parsed files of a run into a page.  A section whose file is missing is left out
or says so in one line.  The look is in style.css, the order of sections in report.html.j2.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup, escape

from nearer.report import content, repeat, sections, values
from nearer.report.data import ReportData
from nearer.report.values import Json, as_object, as_objects, as_text


def _safe(value: Any) -> Any:
    """Whatever the template prints, cut and without control characters; it is escaped afterwards."""
    if isinstance(value, Markup):
        return value
    return as_text(value, 800)


def _change(interval: Any) -> str:
    return values.span(interval, values.signed)


@cache
def _environment() -> Environment:
    """Jinja2 with the report's filters; a missing value prints nothing."""
    environment = Environment(
        loader=PackageLoader("nearer", "report"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": values.fixed,
        "signed": values.signed,
        "pv": values.p_value,
        "whole": values.whole,
        "share": lambda value: values.figure("share", value),
        "size": values.size,
        "duration": values.duration,
        "t": as_text,
        "words": values.words,
        "model": values.model_name,
        "counted": content.counts_in_words,
        "listed": values.as_list,
        "maps": as_objects,
    }
    environment.globals |= {
        "status": lambda value: content.STATUS.get(str(value), "none"),
        "change": _change,
        "span": values.span,
    }
    return environment


def render(data: ReportData) -> str:
    """The whole page as one string of HTML."""
    folder = files("nearer.report")
    style = folder.joinpath("style.css").read_text(encoding="utf-8")
    script = folder.joinpath("report.js").read_text(encoding="utf-8")
    view = {
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "run": as_text(data.run, 80),
        **_decision(data),
        "diagnosis": data.diagnosis,
        "failures": sections.failures(data.diagnosis),
        "fixes": sections.fixes(data),
        "rag": sections.reading(data),
        "frontiers": sections.frontiers(data),
        "terms": sections.terms(data.diagnosis),
        "mistakes": sections.mistakes(data),
        "margins": sections.margins(data.margins),
        "neighbours": sections.neighbours(data.neighbours),
        "training": sections.training(data),
        "mining": sections.mining(data),
        "examples": sections.examples(data.examples, data.decided),
        "reviewed": sections.reviewed(data),
        "browser": sections.browser(data),
        "task": sections.task(data),
        **_check(data.check),
        **_repeat(data),
    }
    return _environment().get_template("report.html.j2").render(view)


def _decision(data: ReportData) -> Json:
    """What the sections about the decision read."""
    decided = data.decided
    return {
        "decision": decided,
        "level": content.level(decided),
        "primary": content.primary(decided),
        "verdict": sections.verdict(decided),
        "candidates": sections.candidates(decided, data.evaluation),
        "slices": sections.slices(decided),
        "guardrails": sections.guardrails(decided),
        "queries": sections.queries(decided),
        "cost": values.facts(decided.cost.as_dict()),
        "pays": sections.pays(decided),
        "hashes": values.facts(decided.hashes),
    }


def _check(check: Json) -> Json:
    """What the section about the data reads; fatal findings stand first."""
    findings = as_objects(check.get("findings"))
    findings.sort(key=lambda finding: finding.get("fatal") is not True)
    parts = []
    for title in ("Counts", "Queries from", "Lengths", "Power", "Split"):
        rows = values.facts(check.get(title.lower().replace(" ", "_")))
        if rows:
            parts.append((title, rows))
    return {"check": check, "findings": findings, "parts": parts}


def _repeat(data: ReportData) -> Json:
    """What the section on repeating the run reads."""
    steps = []
    for name, record in data.steps.items():
        inputs = repeat.blank(as_object(record).get("inputs"))
        steps.append({"name": name, **as_object(record), "inputs": values.facts(inputs, 40)})
    settings = as_text(repeat.settings(data.steps), 100_000)
    return {
        "command": repeat.command(data),
        "versions": list(data.versions.items()),
        "seeds": list(repeat.seeds(data).items()),
        "steps": steps,
        "settings": escape(settings),  # Markup, so that it is not cut further
    }
