"""One function per section of the page: what its part of report.html.j2 reads.

A section whose file is missing is None, or has nothing in its lists; the template then leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from nearer.report import charts, content, values
from nearer.report.data import ReportData
from nearer.report.values import (
    Json,
    as_number,
    as_numbers,
    as_object,
    as_objects,
    as_pair,
    as_text,
    fixed,
    signed,
)

MAX_SLICES = 24  # rows of the chart; the table has all

# What the training section leaves out: it stands elsewhere, or is of no use to readers.
_LEFT_OUT = (
    "settings",
    "dev",
    "base_model",
    "seeds",
    "planned_steps",
    "fingerprint",
    "base_fingerprint",
)

#: Value, label, and a note below the label.
Figure = tuple[str, str, str]


def _in_both_widths(draw: Callable[[int], Markup | None]) -> Markup:
    """A chart drawn for wide and for narrow windows; the style sheet shows one."""
    drawings = [draw(width) or "" for width in (charts.WIDE, charts.NARROW)]
    return Markup("").join(drawings)


def _mark(
    label: Any, value: float, interval: Any, tone: str, show: Callable[[Any], str] = fixed
) -> charts.Mark:
    low, high = as_pair(interval) or (None, None)
    note = show(value)
    if low is not None:
        note += f" [{show(low)}, {show(high)}]"
    return charts.Mark(as_text(label, 80), value, low, high, note, tone)


# -- verdict ---------------------------------------------------------------------------------------


def verdict(decision: Json) -> Json:
    """The sentence, the badge, and the figures that stand beside them."""
    word, tone = content.VERDICTS.get(str(decision.get("verdict")), ("No verdict", "none"))
    undecided = "This run has not been decided yet."
    if tone != "none":
        undecided = f"{word}."
    return {
        "word": word,
        "tone": tone,
        "sentence": decision.get("sentence") or undecided,
        "figures": _headline_figures(decision) + _guardrail_figures(decision),
        "sign_off": _sign_off(decision.get("sign_off")),
        "n_queries": as_number(decision.get("n_queries")),
        "test_looks": as_number(decision.get("test_looks")),
        "seeds": as_number(decision.get("seeds")),
    }


def _headline_figures(decision: Json) -> list[Figure]:
    """Gain, interval and p of the headline; the recommended system alone where there is none."""
    head, measure = content.headline(decision), content.primary(decision)
    if not head:
        recommended = decision.get("recommended")
        value = content.mean(content.candidate(decision, recommended), measure)
        if value is None:
            return []
        return [(fixed(value), f"{measure}, {as_text(recommended, 80)}", "")]
    ends = []
    for key in ("baseline", "candidate"):
        system = content.candidate(decision, head.get(key))
        ends.append(fixed(content.mean(system, measure)))
    interval = f"{content.level(decision)}% interval {values.span(head.get('ci'), signed)}"
    least = f"minimum useful gain {fixed(decision.get('min_gain'))}"
    counts = " · ".join(values.whole(head.get(key)) for key in ("wins", "ties", "losses"))
    return [
        (" → ".join(ends), f"{measure}, today → {as_text(head.get('candidate'), 80)}", ""),
        (signed(head["delta"]), f"gain, {interval}", least),
        (counts, "queries better · same · worse", f"p {values.p_value(head.get('p'))}"),
    ]


def _guardrail_figures(decision: Json) -> list[Figure]:
    rows = as_objects(decision.get("guardrails"))
    if not rows:
        return []
    passed = sum(row.get("status") == "pass" for row in rows)
    return [(f"{passed} of {len(rows)}", "guardrails passed", "")]


def _sign_off(value: Any) -> str:
    if not isinstance(value, Mapping):
        return as_text(value)
    return " · ".join(f"{label}: {figure}" for label, figure in values.facts(value))


# -- why queries fail, and simpler fixes -----------------------------------------------------------

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
        tone, note = _CAUSE_TONES.get(row["cause"], ""), fixed(row.get("measure"))
        marks.append(charts.Mark(row["name"], row["failures"], note=note, tone=tone))

    def draw(width: int) -> Markup | None:
        title = "Failures, and what each repair takes off them"
        heading = f"{measure} once repaired"
        return charts.waterfall(marks, width=width, title=title, heading=heading)

    return {
        "lead": content.failures_sentence(diagnosis),
        "chart": _in_both_widths(draw),
        "measure": measure,
        "rows": rows,
    }


def fixes(data: ReportData) -> Json | None:
    """The chart and the steps of the ladder, and every trial."""
    ladder, trials = data.fixes, as_objects(data.trials)
    lead = content.fixes_sentence(ladder, content.level(data.decision))
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
        title, no_change = "Gain of each simpler fix", charts.Reference(0.0, "no change")
        return charts.whiskers(marks, width=width, title=title, reference=no_change, sign=True)

    return {
        "lead": lead,
        "chart": _in_both_widths(draw),
        "measure": as_text(ladder.get("measure"), 40) or content.primary(data.decision),
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
            marks.append(_mark(row["name"], row["gain"], row["ci"], tone, signed))
    gain = as_number(together.get("mean"))
    any_kept = any(row["kept"] == "kept" for row in rows)
    if gain is not None and any_kept:
        interval = together.get("ci")
        marks.append(_mark("All that were kept", gain, interval, "total", signed))
    return marks


# -- the candidates, per slice, and what must not get worse ----------------------------------------


def candidates(decision: Json, evaluation: Json) -> Json:
    """The chart, and for the tables: rows with their tone, the measures on test and on dev."""
    measure, names = content.primary(decision), content.measure_names(decision)
    rows = _candidate_rows(decision)
    marks, reference = [], None
    for row in rows:
        value = content.mean(row, measure)
        if value is None:
            continue
        interval = row["measures"][measure].get("ci")
        marks.append(_mark(row.get("name"), value, interval, row["tone"]))
        if row["today"]:
            reference = charts.Reference(value, "today")
    marks.sort(key=lambda mark: -mark.value)

    def draw(width: int) -> Markup | None:
        title = f"{measure} of every candidate on the test queries"
        return charts.whiskers(marks, width=width, title=title, reference=reference)

    on_dev = as_objects(evaluation.get("systems"))
    return {
        "chart": _in_both_widths(draw),
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
        measure, no_change = content.primary(decision), charts.Reference(0.0, "no change")
        title = f"Change of {measure} from today's system to the candidate, per slice"
        return charts.whiskers(marks, width=width, title=title, reference=no_change, sign=True)

    return {
        "chart": _in_both_widths(draw),
        "rows": rows,
        "hidden": len(rows) - len(charted),
        "candidate": head.get("candidate"),
    }


def _slice_mark(label: Any, row: Json, tone: str, digits: int) -> charts.Mark:
    """A change and its number of queries, padded with figure spaces so that n forms a column."""
    low, high = as_pair(row.get("ci")) or (None, None)
    count = values.whole(row.get("n")).rjust(digits, "\u2007")
    note = f"{signed(row['delta'])}  n {count}"
    return charts.Mark(as_text(label, 80), as_number(row["delta"]) or 0.0, low, high, note, tone)


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
    shown: list[Json] = []
    for row in rows:
        delta, margin = signed(row.get("delta")), _allowed_drop(row.get("margin"))
        if str(row.get("name")).startswith("latency"):
            delta = f"× {fixed(row.get('delta'), 2)}"
            margin = f"× {fixed(row.get('margin'), 2)} at most"
        shown.append(
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
    return shown


def _allowed_drop(margin: Any) -> str:
    size = as_number(margin)
    if not size:
        return fixed(margin)
    return signed(-size)


# -- margins and training --------------------------------------------------------------------------


def margins(data: Json) -> Json | None:
    """The two histograms with shares and means, or None without usable counts."""
    edges = as_numbers(data.get("bins"))
    before, after = as_numbers(data.get("before")), as_numbers(data.get("after"))
    means = (as_number(data.get("before_mean")), as_number(data.get("after_mean")))
    chart = _in_both_widths(lambda width: charts.margins(edges, before, after, means, width=width))
    if not chart:
        return None
    places = 2 if edges[1] - edges[0] >= 0.02 else 3
    rows = []
    for (start, end), old, new in zip(pairwise(edges), before, after, strict=True):
        if old or new:
            rows.append((f"{signed(start, places)} to {signed(end, places)}", old, new))
    shares = [data.get("share_positive_before"), data.get("share_positive_after")]
    numbers = {key: value for key, value in data.items() if as_number(value) is not None}
    return {
        "chart": chart,
        "shares": [f"{share:.0%}" for share in as_numbers(shares)],
        "rows": rows,
        "facts": values.facts(numbers),
    }


def training(data: ReportData) -> Json | None:
    """Curves of the loss and the dev measure, the figures, and where the examples came from."""
    summary, mining = data.training, data.mining
    if not (data.history or summary or mining):
        return None
    measure = _dev_measure(data)
    on_dev, best = _points(data, measure), as_number(summary.get("best_step"))
    dropped = as_object(mining.get("dropped"))
    return {
        "loss": charts.curve(_points(data, "loss"), title="Training loss by step", smooth=True),
        "dev": charts.curve(on_dev, title=f"{measure} on dev by step", best=best, base=True),
        "measure": measure,
        # set where searching the whole corpus at every evaluation would take too long
        "pool": as_number(as_object(summary.get("dev")).get("documents")),
        "table": on_dev[:60],
        "facts": values.facts(_training_facts(summary, measure)),
        "mining": values.facts({key: mining[key] for key in mining if key != "dropped"}),
        "dropped": values.facts({key: dropped[key] for key in dropped if as_number(dropped[key])}),
    }


def _dev_measure(data: ReportData) -> str:
    """The measure in the history: the one that decides, where it was recorded."""
    recorded: dict[str, None] = {}
    for line in data.history:
        for key in line:
            if "@" in key or key in ("AP", "RR"):
                recorded[key] = None
    wanted = content.primary(data.decision)
    if wanted in recorded:
        return wanted
    return next(iter(recorded), "")


def _points(data: ReportData, key: str) -> list[charts.Point]:
    points = []
    for line in data.history:
        step, value = as_number(line.get("step")), as_number(line.get(key))
        if step is not None and value is not None:
            points.append((step, value))
    return points


def _training_facts(summary: Json, measure: str) -> Json:
    facts: dict[str, Any] = {"base_model": values.model_name(summary.get("base_model")) or None}
    dev = as_object(summary.get("dev"))
    before, after = as_number(dev.get("before")), as_number(dev.get("after"))
    if before is not None and after is not None:
        facts[f"{measure or 'measure'} on dev"] = f"{fixed(before)} → {fixed(after)}"
    facts |= {key: value for key, value in summary.items() if key not in _LEFT_OUT}
    return facts
