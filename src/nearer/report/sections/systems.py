"""The sections that compare systems: candidates, slices, guardrails."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from nearer.report import charts, content, values
from nearer.report.sections.drawn import in_both_widths, mark_with_interval
from nearer.report.values import (
    Json,
    as_number,
    as_object,
    as_objects,
    as_pair,
    as_text,
    fixed,
    signed,
)

MAX_SLICES = 24  # rows of the chart; the table has all


def candidates(decision: Json, evaluation: Json) -> Json:
    """The chart, and for the tables: rows with their tone, the measures on test and on dev."""
    measure = content.primary(decision)
    names = content.measure_names(decision)
    rows = _candidate_rows(decision)
    marks = []
    reference = None
    for row in rows:
        value = content.mean(row, measure)
        if value is None:
            continue
        interval = row["measures"][measure].get("ci")
        marks.append(mark_with_interval(row.get("name"), value, interval, row["tone"]))
        if row["today"]:
            reference = charts.Reference(value, "today")
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


def _candidate_rows(decision: Json) -> list[dict[str, Any]]:
    """The candidates; the recommended one has an accent, or the compared one where nothing changes."""
    rows = []
    accented = recommended = decision.get("recommended")
    for row in as_objects(decision.get("candidates")):
        is_baseline = row.get("role") == "today"
        rows.append({**row, "today": is_baseline})
        if is_baseline and row.get("name") == recommended:
            accented = as_object(decision.get("compared")).get("candidate")
    for row in rows:
        row["tone"] = "plain"
        if row["today"]:
            row["tone"] = "today"
        elif row.get("name") == accented:
            row["tone"] = "accent"
    return rows


def slices(decision: Json) -> Json:
    """Slices by gain, largest first; the chart keeps the ends, the table everything."""
    rows = content.by_number(as_objects(decision.get("slices")), "delta")
    head = content.compared(decision)
    counts = [values.whole(row.get("n")) for row in [*rows, head]]
    digits = max(len(count) for count in counts)
    charted = rows
    if len(rows) > MAX_SLICES:
        charted = [*rows[: MAX_SLICES // 2], *rows[-MAX_SLICES // 2 :]]
    marks = []
    if head and rows:
        marks.append(_slice_mark("All queries", head, "total", digits))
    for row in charted:
        marks.append(_slice_mark(row.get("slice", ""), row, _slice_tone(row), digits))

    def draw(width: int) -> Markup | None:
        measure = content.primary(decision)
        no_change = charts.Reference(0.0, "no change")
        title = f"Change of {measure} from today's system to the candidate, per slice"
        return charts.whiskers(marks, width=width, title=title, reference=no_change, sign=True)

    return {
        "chart": in_both_widths(draw),
        "rows": rows,
        "hidden": len(rows) - len(charted),
        "candidate": head.get("candidate"),
    }


def _slice_mark(label: Any, row: Json, tone: str, digits: int) -> charts.Mark:
    """A change and its number of queries, padded with figure spaces so that n forms a column."""
    low, high = as_pair(row.get("ci")) or (None, None)
    count = values.whole(row.get("n")).rjust(digits, "\u2007")
    note = f"{signed(row['delta'])}  n {count}"
    return charts.Mark(
        as_text(label, 80),
        as_number(row["delta"]) or 0.0,
        low,
        high,
        note,
        tone,
    )


def _slice_tone(row: Json) -> str:
    """Good or bad where the interval lies wholly on one side of zero."""
    low, high = as_pair(row.get("ci")) or (0.0, 0.0)
    if low > 0:
        return "good"
    if high < 0:
        return "bad"
    return "plain"


def guardrails(decision: Json) -> list[Json]:
    """Rows of the table; those that did not pass stand first.

    Latency is a ratio with a ceiling, all others are changes with an allowed drop.
    """
    order = {"fail": 0, "inconclusive": 1}
    rows = as_objects(decision.get("guardrails"))
    rows.sort(key=lambda row: order.get(str(row.get("status")), 2))
    table: list[Json] = []
    for row in rows:
        delta = signed(row.get("delta"))
        margin = _allowed_drop(row.get("margin"))
        if str(row.get("name")).startswith("latency"):
            delta = f"× {fixed(row.get('delta'), 2)}"
            margin = f"× {fixed(row.get('margin'), 2)} at most"
        table.append(
            {
                "name": row.get("name"),
                "status": row.get("status"),
                "n": values.whole(row.get("n")),
                "delta": delta,
                "margin": margin,
                "lower_bound": signed(row.get("lower_bound")),
                "needed": values.needed(row.get("queries_needed")),
            }
        )
    return table


def _allowed_drop(margin: Any) -> str:
    size = as_number(margin)
    if not size:
        return fixed(margin)
    return signed(-size)
