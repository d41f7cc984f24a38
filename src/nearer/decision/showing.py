"""How a decision looks in the terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearer.data.generated import GENERATED, PEOPLE
from nearer.decision.record import CandidateRecord, DecisionRecord
from nearer.results import Block, Line, Row, Table
from nearer.types import SPLITS

_SHOWN_MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "Judged@10")
_SHOWN_NAMES = 8  # named queries, flips
_STATUS_ORDER = {"fail": 0, "inconclusive": 1, "not measured": 2, "pass": 3}
_TONES = {
    "ship": "good",
    "use_simpler_fix": "simpler",
    "do_not_ship": "bad",
    "inconclusive": "doubt",
}


def decision_blocks(decided: DecisionRecord) -> list[Block]:
    """The verdict, the candidates, the reasons, and what became of single queries."""
    primary = decided.primary
    measured = decided.candidates[0].measures if decided.candidates else {}
    names = [primary, *(n for n in _SHOWN_MEASURES if n in measured and n != primary)]
    rows = [_candidate_row(row, names, decided.recommended) for row in decided.candidates]
    columns = ("system", f"{primary} (interval)", *names[1:], "p50 ms")
    tone = _TONES.get(decided.verdict, "bold")
    sentences = filter(None, [guardrail_sentence(decided), origin_sentence(decided)])
    lines = [*decided.reasons, *sentences, *query_lines(decided)]
    dim = [Line(f"  · {line}", "dim") for line in lines]
    return [Line(""), Line(decided.sentence, tone), Table(columns, rows), *dim]


def guardrail_sentence(decided: DecisionRecord) -> str:
    """Every guardrail by its status, those that did not pass first; empty where there is none."""
    names: dict[str, list[str]] = {}
    for row in decided.guardrails:
        names.setdefault(row.status, []).append(row.name)
    statuses = sorted(names, key=lambda status: _STATUS_ORDER.get(status, len(_STATUS_ORDER)))
    parts = [f"{status}: {', '.join(names[status])}" for status in statuses]
    return f"guardrails: {'; '.join(parts)}" if parts else ""


def origin_sentence(decided: DecisionRecord) -> str:
    """How many queries the figures rest on, of people and generated; empty where nobody counted."""
    parts = []
    for name in reversed(SPLITS):
        row = (decided.queries_from or {}).get(name)
        if isinstance(row, Mapping):
            asked, made = row.get(PEOPLE), row.get(GENERATED)
            parts.append(f"{name} {_shown(asked, 0)} and {_shown(made, 0)}")
    return f"queries from people and generated ones: {', '.join(parts)}" if parts else ""


def query_lines(decided: DecisionRecord) -> list[str]:
    """Sentences on clusters, flips, judged results and named queries; none where nothing is known."""
    lines = []
    if decided.clusters is not None and decided.clusters.sentence():
        lines.append(decided.clusters.sentence())
    flips = decided.flips
    if flips is not None and flips.n is not None:
        text = f"{flips.negative} of {flips.n} queries lost all their results"
        if flips.negative:
            text += f": {_ids([row.query_id for row in decided.negative_flips])}"
        lines.append(f"{text}; {flips.positive} that had none found some")
    judged = decided.judged
    if judged is not None and judged.baseline != judged.candidate and judged.measure:
        lines.append(_judged(decided))
    failing = [row for row in decided.named_queries or () if row.fate in ("lost", "missed")]
    for group, label in (("must_pass", "must-pass"), ("high_risk", "high-risk")):
        names = [
            f"{row.query_id} ({row.candidate}: {row.fate})" for row in failing if row.group == group
        ]
        if names:
            lines.append(f"{label} queries that fail: {_ids(names)}")
    return lines


def _judged(decided: DecisionRecord) -> str:
    judged = decided.judged
    assert judged is not None  # noqa: S101 - the caller has asked
    text = f"{judged.measure} {_shown(judged.baseline)} → {_shown(judged.candidate)}"
    if judged.worst is None or judged.best is None:
        return f"{text}: the systems differ in how many of their results were judged"
    change = f"{judged.worst:+.3f} to {judged.best:+.3f}"
    return f"{text}: unjudged results could make the change of {decided.primary} anything from {change}"


def _ids(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    left = len(names) - _SHOWN_NAMES
    return f"{shown} and {left} more" if left > 0 else shown


def _candidate_row(row: CandidateRecord, names: Sequence[str], recommended: str) -> Row:
    label = f"{row.name} (today)" if row.role == "today" else row.name
    first = _shown(row.mean(names[0]))
    interval = row.measures[names[0]].ci if names[0] in row.measures else None
    if interval is not None:
        low, high = interval
        first += f" ({low:.3f}–{high:.3f})"
    others = [_shown(row.mean(name)) for name in names[1:]]
    latency = _shown(None if row.latency is None else row.latency.p50_ms, 1)
    tone = "bold" if row.name == recommended else ""
    return Row((label, first, *others, latency), tone)


def _shown(value: Any, places: int = 3) -> str:
    return f"{value:.{places}f}" if isinstance(value, int | float) else "–"
