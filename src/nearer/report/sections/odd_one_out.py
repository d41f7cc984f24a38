"""What people picked as the odd one of three documents: whether they see the groups that a model makes."""

from __future__ import annotations

from nearer.report.data import ReportData
from nearer.report.values import (
    Json,
    as_number,
    as_object,
    as_objects,
    as_pair,
    as_text,
    span,
    whole,
)
from nearer.tasks.cluster.odd_one_out import groups_digest

_MOST = 10  # groupings
_COLUMNS = ("grouping", "answers", "picked its odd one", "95% interval", "cannot tell", "so far")
_LEAD = (
    "People saw three documents, two of one cluster and one of another, and said which does not "
    "belong, without being told whose clusters they are; by chance a third of the answers name the "
    "odd one. Each grouping is measured on questions of its own. This is shown; no verdict and no "
    "guardrail rests on it. Two groupings whose intervals overlap are not told apart."
)


def odd_one_out(data: ReportData) -> Json | None:
    """`sheet`, `note` and the `groupings` as values; None where nobody answered a question."""
    summary = as_object(data.reviews.get("odd_one_out"))
    groupings = as_objects(summary.get("groupings"))[:_MOST]
    if not groupings:
        return None
    if summary.get("groups") != groups_digest(_groups(data)):
        note = (
            "What people picked as the odd one out is about earlier groups and is not shown; "
            "nearer review serve --odd-one-out asks about these."
        )
        return {"sheet": None, "note": note, "groupings": []}
    sheet = {
        "title": "Odd one out: do people see these groups?",
        "lead": _LEAD,
        "columns": list(_COLUMNS),
        "rows": [_row(row) for row in groupings],
    }
    return {"sheet": sheet, "note": "", "groupings": [_values(row) for row in groupings]}


def _groups(data: ReportData) -> Json:
    """The groupings that questions are drawn from now: on test, else on the development queries."""
    return as_object(data.task.get("groups")) or as_object(data.task_on_dev.get("groups"))


def _values(row: Json) -> Json:
    """What is a value of its kind; text as text."""
    return {
        "grouping": as_text(row.get("grouping"), 60),
        "answers": as_number(row.get("answers")) or 0,
        "share": as_number(row.get("share")),
        "ci": as_pair(row.get("ci")),
        "cannot_tell": as_number(row.get("cannot_tell")) or 0,
        "more": as_number(row.get("more")) or 0,
        "against_chance": as_text(row.get("against_chance"), 40),
        "sentence": as_text(row.get("sentence"), 300),
    }


def _row(row: Json) -> list[str | int | float | None]:
    values = _values(row)
    said = values["against_chance"]
    if values["more"]:
        said = f"{said}: {whole(values['more'])} more answers needed"
    return [
        values["grouping"],
        int(values["answers"]),
        values["share"],
        span(values["ci"]) if values["ci"] else None,
        int(values["cannot_tell"]),
        said,
    ]
