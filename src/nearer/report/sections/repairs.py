"""The sections on why queries fail, and on simpler fixes."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from nearer.report import charts, content, values
from nearer.report.data import ReportData
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

_CAUSE_TONES = {"semantic": "accent", "unknown": "unknown"}
_FIX_TONES = {"kept": "good", "not kept": "plain"}


def failures(diagnosis: Json) -> Json | None:
    """The waterfall and its table."""
    rows = content.causes(diagnosis)
    if not rows and as_number(diagnosis.get("n_failing_queries")) is None:
        return None
    ceiling = as_object(diagnosis.get("fine_tuning_ceiling"))
    measure = as_text(ceiling.get("measure"), 40)
    total = sum(row["failures"] for row in rows)
    today = f"today {fixed(ceiling.get('today'))}"
    marks = [charts.Mark("All failures", total, note=today, tone="today")]
    for row in rows:
        tone = _CAUSE_TONES.get(row["cause"], "")
        note = fixed(row.get("measure"))
        marks.append(charts.Mark(row["name"], row["failures"], note=note, tone=tone))

    def draw(width: int) -> Markup | None:
        title = "Failures, and what each repair takes off them"
        heading = f"{measure} once repaired"
        return charts.waterfall(marks, width=width, title=title, heading=heading)

    return {
        "lead": content.failures_sentence(diagnosis),
        "chart": in_both_widths(draw),
        "measure": measure,
        "rows": rows,
    }


def fixes(data: ReportData) -> Json | None:
    """The chart and the steps of the ladder, and every trial."""
    ladder = data.fixes
    trials = as_objects(data.trials)
    lead = content.fixes_sentence(ladder, content.level(data.decided))
    if not (lead or trials):
        return None
    rows = content.fix_steps(ladder)
    marks = _fix_marks(rows, as_object(ladder.get("delta")))
    causes = []
    for name, value in as_object(ladder.get("failures_repaired")).items():
        counts = as_pair(value)
        if counts is not None:
            repaired, total = map(values.whole, counts)
            causes.append(f"{values.words(name)} {repaired} of {total}")

    def draw(width: int) -> Markup | None:
        title = "Gain of each simpler fix"
        no_change = charts.Reference(0.0, "no change")
        return charts.whiskers(marks, width=width, title=title, reference=no_change, sign=True)

    return {
        "lead": lead,
        "chart": in_both_widths(draw),
        "measure": as_text(ladder.get("measure"), 40) or content.primary(data.decided),
        "rows": rows,
        "causes": causes,
        "trials": trials,
    }


def _fix_marks(rows: Sequence[Json], together: Json) -> list[charts.Mark]:
    """A mark per fix that was tried, and one for all that were kept."""
    marks = []
    for row in rows:
        if row["gain"] is not None:
            tone = _FIX_TONES[row["kept"]]
            marks.append(
                mark_with_interval(
                    row["name"],
                    row["gain"],
                    row["ci"],
                    tone,
                    signed,
                )
            )
    gain = as_number(together.get("mean"))
    any_kept = any(row["kept"] == "kept" for row in rows)
    if gain is not None and any_kept:
        interval = together.get("ci")
        marks.append(mark_with_interval("All that were kept", gain, interval, "total", signed))
    return marks
