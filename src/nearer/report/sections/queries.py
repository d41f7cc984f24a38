"""The section on single queries: named ones, frequent ones, unjudged results, reversals."""

from __future__ import annotations

from typing import Any

from nearer.decision.record import DecisionRecord, NamedRecord
from nearer.decision.showing import query_lines
from nearer.report.values import Json, as_text, fixed, signed, span

MAX_ROWS = 50  # named queries, reversals

_GROUPS = {"must_pass": "must pass", "high_risk": "high risk"}
#: fate of a named query → words, tone of the pill
_FATES = {
    "kept": ("still answered", "good"),
    "found": ("answered now", "good"),
    "lost": ("no longer answered", "bad"),
    "missed": ("answered by neither", "warn"),
}


def queries(decided: DecisionRecord) -> Json | None:
    """Sentences, the named queries that fail first, and where the change turns round.

    None where the record says nothing of them.
    """
    named = sorted(decided.named_queries or (), key=_failing_first)
    view: dict[str, Any] = {
        "lines": query_lines(decided),
        "named": [_named(row) for row in named[:MAX_ROWS]],
        "named_hidden": max(0, len(named) - MAX_ROWS),
        "requests": _requests(decided),
        "reversals": _reversals(decided),
        "leaked": _leaked(decided),
    }
    return view if any(view.values()) else None


def _failing_first(row: NamedRecord) -> int:
    return 0 if row.fate in ("lost", "missed") else 1


def _named(row: NamedRecord) -> Json:
    words, tone = _FATES.get(row.fate, (row.fate, "none"))
    return {
        "text": row.text,
        "query_id": row.query_id,
        "group": _GROUPS.get(row.group, row.group),
        "split": row.split,
        "candidate": row.candidate,
        "change": f"{fixed(row.before)} → {fixed(row.after)}",
        "fate": words,
        "tone": tone,
    }


def _requests(decided: DecisionRecord) -> list[Json]:
    """Comparisons in which each query counts as often as users ask it."""
    rows: list[Json] = []
    for row in decided.requests or ():
        rows.append(
            {
                "candidate": row.candidate,
                "baseline": row.baseline,
                "delta": signed(row.delta),
                "interval": span(row.ci, signed),
            }
        )
    return rows


def _reversals(decided: DecisionRecord) -> list[Json]:
    rows: list[Json] = []
    for row in (decided.reversals or ())[:MAX_ROWS]:
        name = f"slice {row.name}" if row.by == "slice" else row.name
        rows.append(
            {
                "name": as_text(name, 200),
                "delta": signed(row.delta),
                "overall": signed(row.overall),
                "n": row.n,
                "shown": row.shown is True,
            }
        )
    return rows


def _leaked(decided: DecisionRecord) -> list[Json]:
    """Test queries that the training examples hold."""
    if decided.leakage is None:
        return []
    rows: list[Json] = []
    for row in decided.leakage.queries[:MAX_ROWS]:
        rows.append({"query_id": row.query_id, "text": row.text, "kind": row.kind})
    return rows
