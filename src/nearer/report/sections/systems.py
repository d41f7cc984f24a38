"""The sections that compare systems: candidates, slices, guardrails."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from nearer.decision.record import ComparisonRecord, DecisionRecord, SliceRecord
from nearer.report import charts, content, values
from nearer.report.sections.drawn import in_both_widths, mark_with_interval
from nearer.report.values import (
    Json,
    as_number,
    as_objects,
    as_text,
    fixed,
    signed,
)

MAX_SLICES = 24  # rows of the chart; the table has all


def candidates(decided: DecisionRecord, evaluation: Json) -> Json:
    """The chart, and for the tables: rows with their tone, the measures on test and on dev."""
    measure = content.primary(decided)
    names = content.measure_names(decided)
    rows = _candidate_rows(decided)
    marks = []
    reference = None
    for row in rows:
        measured = row["measures"].get(measure)
        if measured is None or measured.mean is None:
            continue
        mark = mark_with_interval(row["name"], measured.mean, measured.ci, row["tone"])
        marks.append(mark)
        if row["today"]:
            reference = charts.Reference(measured.mean, "today")
    marks.sort(key=lambda mark: -mark.value)

    def draw(width: int) -> Markup | None:
        title = f"{measure} of every candidate on the test queries"
        return charts.whiskers(marks, width=width, title=title, reference=reference)

    on_dev = as_objects(evaluation.get("systems"))
    return {
        "chart": in_both_widths(draw),
        "measures": names,
        "rows": rows,
        "dev": on_dev,
        "dev_measures": [name for name in names if content.has_measure(on_dev, name)],
        "dev_n": as_number(evaluation.get("n_queries")),
    }


def _candidate_rows(decided: DecisionRecord) -> list[dict[str, Any]]:
    """The candidates; the recommended one has an accent, or the compared one where nothing changes."""
    accented: str | None = decided.recommended
    for candidate in decided.candidates:
        if candidate.role == "today" and candidate.name == decided.recommended:
            accented = decided.compared.candidate
    rows = []
    for candidate in decided.candidates:
        is_baseline = candidate.role == "today"
        tone = "plain"
        if is_baseline:
            tone = "today"
        elif candidate.name == accented:
            tone = "accent"
        row = {
            "name": candidate.name,
            "model": candidate.model,
            "measures": candidate.measures,
            "latency": candidate.latency,
            "cost": candidate.cost,
            "today": is_baseline,
            "tone": tone,
        }
        rows.append(row)
    return rows


def slices(decided: DecisionRecord) -> Json:
    """Slices by gain, largest first; the chart keeps the ends, the table everything."""
    rows = content.changed_slices(decided)
    head = content.compared(decided)
    counts = [values.whole(row.n) for row in rows]
    if head is not None:
        counts.append(values.whole(head.n))
    digits = max(map(len, counts), default=0)
    charted = rows
    if len(rows) > MAX_SLICES:
        charted = [*rows[: MAX_SLICES // 2], *rows[-MAX_SLICES // 2 :]]
    margin = content.slice_margin(decided)
    line = None
    if margin is not None:
        line = charts.Reference(-margin, f"allowed drop {signed(-margin)}")
    marks = []
    if head is not None and rows:
        marks.append(_slice_mark("All queries", head, "total", digits))
    for row in charted:
        marks.append(_slice_mark(row.slice, row, _slice_tone(row), digits))

    def draw(width: int) -> Markup | None:
        measure = content.primary(decided)
        no_change = charts.Reference(0.0, "no change")
        title = f"Change of {measure} from today's system to the candidate, per slice"
        return charts.whiskers(
            marks, width=width, title=title, reference=no_change, margin=line, sign=True
        )

    return {
        "chart": in_both_widths(draw),
        "rows": rows,
        "margin": margin,
        "hidden": len(rows) - len(charted),
        "candidate": None if head is None else head.candidate,
    }


def _slice_mark(
    label: str, row: ComparisonRecord | SliceRecord, tone: str, digits: int
) -> charts.Mark:
    """A change and its number of queries, padded with figure spaces so that n forms a column."""
    low, high = row.ci or (None, None)
    count = values.whole(row.n).rjust(digits, "\u2007")
    note = f"{signed(row.delta)}  n {count}"
    return charts.Mark(as_text(label, 80), row.delta or 0.0, low, high, note, tone)


def _slice_tone(row: SliceRecord) -> str:
    """Good or bad where the interval lies wholly on one side of zero."""
    low, high = row.ci or (0.0, 0.0)
    if low > 0:
        return "good"
    if high < 0:
        return "bad"
    return "plain"


def guardrails(decided: DecisionRecord) -> list[Json]:
    """Rows of the table: those that did not pass stand first, those with nothing to guard last.

    Latency and memory are ratios with a ceiling, all others are changes with an allowed drop.
    """
    order = {"fail": 0, "inconclusive": 1, "not measured": 2, "does not apply": 4}
    table: list[Json] = []
    for row in sorted(decided.guardrails, key=lambda row: order.get(row.status, 3)):
        delta = signed(row.delta)
        margin = _allowed_drop(row.margin)
        if row.delta is not None and row.name.startswith(("latency", "memory")):
            delta = f"× {fixed(row.delta, 2)}"
            margin = f"× {fixed(row.margin, 2)} at most"
        table.append(
            {
                "name": row.name,
                "status": row.status,
                "n": values.whole(row.n),
                "delta": delta,
                "margin": margin,
                "lower_bound": signed(row.lower_bound),
                "needed": values.needed(row.queries_needed),
                "why": as_text(row.more.get("reason") or row.more.get("sentence"), 300),
            }
        )
    return table


def _allowed_drop(margin: float | None) -> str:
    if not margin:
        return fixed(margin)
    return signed(-margin)
