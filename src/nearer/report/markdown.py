"""report.md: the decision for a pull request, in tables that GitHub and GitLab draw; under 150 lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nearer.report import content as c
from nearer.report.content import Json, ReportData, maps, num, obj, pair, text
from nearer.report.page import command, guardrails

MAX_CANDIDATES, MAX_RAILS, MAX_MOVED, MAX_COMPARISONS = 20, 20, 10, 10
_MARKS = {"good": "✅", "warn": "⚠️", "bad": "❌", "none": "▫️"}
_SHOWN_MEASURES = 5


def render(data: ReportData | Json) -> str:
    """The decision as Markdown; see `ReportData` for what may be given."""
    data = ReportData.of(data)
    decision = data.decision
    word, tone = c.VERDICTS.get(str(decision.get("verdict")), ("No verdict", "none"))
    lines = [f"## {_MARKS[tone]} {word}", "", plain(decision.get("sentence"), 600) or "This run has not been decided yet.", ""]
    reasons = decision.get("reasons")
    if isinstance(reasons, list | tuple):
        lines += [*(f"- {plain(reason, 500)}" for reason in reasons[:12]), ""]
    lines += _candidates(decision) + _comparisons(decision) + _guardrails(decision) + _slices(decision) + _repeat(data)
    return "\n".join(lines).rstrip() + "\n"


_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def plain(value: object, limit: int = 120) -> str:
    """Untrusted text as one line of Markdown that is only text: no HTML, no links, no table cells, nobody mentioned."""
    line = " ".join(text(value, limit).split())
    escaped = _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    # A word joiner keeps @name, www. and :// from turning into mentions and links; nDCG@10 stays as it is.
    return re.sub(r"((?<!\w)@|://|(?i:www)\.)", lambda hit: hit[1] + "\u2060", escaped)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [list(row) for row in rows]
    if not cells:
        return []
    rule = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(row)} |" for row in (list(header), rule, *cells)] + [""]


def _range(value: object, signed: bool = False) -> str:
    ends = pair(value)
    show = c.signed if signed else c.fixed
    return f"{show(ends[0])} to {show(ends[1])}" if ends else c.DASH


def _candidates(decision: Json) -> list[str]:
    measures, rows = c.measure_names(decision)[:_SHOWN_MEASURES], []
    for row in maps(decision.get("candidates"))[:MAX_CANDIDATES]:
        name = plain(row.get("name"), 60) or c.DASH
        if text(row.get("name")) == text(decision.get("recommended")):
            name = f"**{name}** (recommended)"
        elif row.get("role") == "today":
            name += " (today)"
        ci = _range(obj(obj(row.get("measures")).get(c.primary(decision))).get("ci"))
        rows.append([name, *(c.fixed(c.mean(row, measure)) for measure in measures), ci, c.fixed(obj(row.get("latency")).get("p50_ms"), 1)])
    return _table(
        ["System", *(plain(m, 30) for m in measures), f"{c.level(decision)}% of {plain(c.primary(decision), 30)}", "p50 ms"], rows
    )


def _comparisons(decision: Json) -> list[str]:
    lines, head = [], c.headline(decision)
    rows = [row for row in maps(decision.get("comparisons")) if num(row.get("delta")) is not None]
    # The comparison that the verdict rests on first.
    for row in sorted(rows, key=lambda row: row is not head)[:MAX_COMPARISONS]:
        queries = f" over {c.whole(row.get('n'))} queries" if num(row.get("n")) is not None else ""
        lines.append(
            f"- {plain(row.get('candidate'), 60)} against {plain(row.get('baseline'), 60)}: **{c.signed(row.get('delta'))}** "
            f"{plain(row.get('measure'), 30)} ({c.level(decision)}% interval {_range(row.get('ci'), signed=True)}, "
            f"p {c.p_value(row.get('p'))}){queries}, "
            f"{c.whole(row.get('wins'))} better, {c.whole(row.get('ties'))} same, {c.whole(row.get('losses'))} worse"
        )
    return [*lines, ""] if lines else []


def _guardrails(decision: Json) -> list[str]:
    def one(row: Json) -> list[str]:
        mark = _MARKS[c.STATUS.get(str(row["status"]), "none")]
        name, status = plain(row["name"], 80), plain(row["status"], 20)
        return [f"{mark} {name}", status or c.DASH, row["delta"], row["lower_bound"], row["margin"], c.whole(row["queries_needed"])]

    rows = guardrails(decision)
    # What did not pass comes first and is never the part that is cut.
    rows.sort(key=lambda row: ("fail", "inconclusive").index(row["status"]) if row["status"] in ("fail", "inconclusive") else 2)
    table = _table(["Guardrail", "Status", "Change", "Lower bound", "Allowed", "Queries needed"], map(one, rows[:MAX_RAILS]))
    return ["### Guardrails", "", *table] if table else []


def _slices(decision: Json) -> list[str]:
    moved = sorted(c.by_number(maps(decision.get("slices")), "delta"), key=lambda row: -abs(num(row.get("delta")) or 0.0))[:MAX_MOVED]
    rows = [
        [
            plain(row.get("slice"), 60),
            c.whole(row.get("n")),
            c.signed(row.get("delta")),
            _range(row.get("ci"), signed=True),
            c.p_value(row.get("p_holm")),
        ]
        for row in moved
    ]
    table = _table(["Slice", "Queries", "Change", f"{c.level(decision)}% interval", "Holm p"], rows)
    return ["### Slices that moved most", "", *table] if table else []


def _repeat(data: ReportData) -> list[str]:
    # Code spans show backslashes, so the name is cleaned instead of escaped.
    typed = re.sub(r"[`\s]+", " ", command(data))
    lines = ["### Repeat", "", f"`{typed}`"]
    seeds = ", ".join(f"{plain(name)} {plain(value)}" for name, value in c.seeds(data).items())
    looks = num(data.decision.get("test_looks"))
    notes = [f"seeds: {seeds}" if seeds else "", f"test set opened {c.whole(looks)}×" if looks is not None else ""]
    prints = ", ".join(
        f"{plain(name, 20)} `{text(obj(r).get('fingerprint'), 64)[:12]}`" for name, r in data.steps.items() if obj(r).get("fingerprint")
    )
    notes.append(f"steps: {prints.replace('@', '')}" if prints else "")
    versions = ", ".join(f"{plain(name, 40)} {plain(version, 40)}" for name, version in data.versions.items())
    notes.append(f"versions: {versions}" if versions else "")
    return [*lines, "", " · ".join(filter(None, notes))]
