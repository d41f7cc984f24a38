"""report.md: the decision for a pull request, in tables that GitHub and GitLab draw; under 150 lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nearer.report import content as c
from nearer.report.content import Json, ReportData, listed, maps, num, obj, text
from nearer.report.page import guardrails

MAX_CANDIDATES, MAX_RAILS, MAX_MOVED, MAX_COMPARISONS, MAX_MEASURES, MAX_CAUSES, MAX_RUNGS = (
    20,
    20,
    10,
    10,
    5,
    12,
    8,
)
_MARKS = {"good": "✅", "warn": "⚠️", "bad": "❌", "none": "▫️"}
_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def render(data: ReportData) -> str:
    """The decision as Markdown."""
    decision = data.decision
    word, tone = c.VERDICTS.get(str(decision.get("verdict")), ("No verdict", "none"))
    lines = [
        f"## {_MARKS[tone]} {word}",
        "",
        plain(decision.get("sentence"), 600) or "This run has not been decided yet.",
        "",
    ]
    lines += [*(f"- {plain(reason, 500)}" for reason in listed(decision.get("reasons"))[:12]), ""]
    lines += _candidates(decision) + _comparisons(decision) + _why(data.diagnosis) + _ladder(data)
    lines += _guardrails(decision) + _slices(decision) + _repeat(data)
    return "\n".join(lines) + "\n"


def plain(value: object, limit: int = 120) -> str:
    """Untrusted text as one line of Markdown that is only text: no HTML, no links, no table cells, nobody mentioned."""
    line = " ".join(text(value, limit).split())
    escaped = _SPECIAL.sub(
        r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )
    # A word joiner keeps @name, www. and :// from turning into mentions and links; nDCG@10 stays as it is.
    return re.sub(r"((?<!\w)@|://|(?i:www)\.)", lambda hit: hit[1] + "\u2060", escaped)


def _table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> list[str]:
    cells = list(rows)
    lines = [
        f"| {' | '.join(row)} |"
        for row in (header, ["---"] * left + ["---:"] * (len(header) - left), *cells)
    ]
    return [*([f"### {title}", ""] if title else []), *lines, ""] if cells else []


def _candidates(decision: Json) -> list[str]:
    measures, primary, rows = c.measure_names(decision)[:MAX_MEASURES], c.primary(decision), []
    for row in maps(decision.get("candidates"))[:MAX_CANDIDATES]:
        name, recommended = (
            plain(row.get("name"), 60) or c.DASH,
            row.get("name") == decision.get("recommended"),
        )
        if row.get("role") == "today":
            name += " (today, stays)" if recommended else " (today)"
        elif recommended:
            name = f"**{name}** (recommended)"
        interval = c.span(obj(obj(row.get("measures")).get(primary)).get("ci"))
        figures = [c.fixed(c.mean(row, measure)) for measure in measures]
        rows.append([name, *figures, interval, c.fixed(obj(row.get("latency")).get("p50_ms"), 1)])
    header = [
        "System",
        *(plain(measure, 30) for measure in measures),
        f"{c.level(decision)}% of {plain(primary, 30)}",
        "p50 ms",
    ]
    return _table("", header, rows)


def _comparisons(decision: Json) -> list[str]:
    lines, head = [], c.headline(decision)
    rows = [row for row in maps(decision.get("comparisons")) if num(row.get("delta")) is not None]
    # The comparison that the verdict rests on first.
    for row in sorted(rows, key=lambda row: row is not head)[:MAX_COMPARISONS]:
        pair = f"{plain(row.get('candidate'), 60)} against {plain(row.get('baseline'), 60)}"
        interval = f"{c.level(decision)}% interval {c.span(row.get('ci'), c.signed)}, p {c.p_value(row.get('p'))}"
        n, better, same, worse = (c.whole(row.get(key)) for key in ("n", "wins", "ties", "losses"))
        gain = f"**{c.signed(row['delta'])}** {plain(row.get('measure'), 30)}"
        lines.append(
            f"- {pair}: {gain} ({interval}) over {n} queries, {better} better, {same} same, {worse} worse"
        )
    return [*lines, ""]


def _why(diagnosis: Json) -> list[str]:
    rows = [
        [
            plain(row["name"]),
            plain(row.get("remedy")),
            c.whole(row["failures"]),
            f"{row['share']:.0%}",
        ]
        for row in c.causes(diagnosis)
    ]
    table = _table("", ["Cause", "Remedy", "Failures", "Share"], rows[:MAX_CAUSES], left=2)
    return (
        ["### Why queries fail", "", plain(c.failing(diagnosis), 800), "", *table] if table else []
    )


def _ladder(data: ReportData) -> list[str]:
    rows = []
    for row in c.rungs(data.fixes)[:MAX_RUNGS]:
        moved = f"{c.whole(row.get('repaired'))} / {c.whole(row.get('broken'))}"
        gain = [
            c.signed(row["gain"]),
            c.span(row["ci"], c.signed),
            moved,
            row["share"],
            row["kept"] or c.DASH,
        ]
        rows.append([plain(row["name"], 40), plain(row.get("label")), *gain])
    table = _table(
        "",
        [
            "Fix",
            "At its best",
            "Gain",
            "Interval",
            "Repaired / broken",
            "Failures repaired",
            "Kept",
        ],
        rows,
        left=2,
    )
    told = plain(c.climbed(data.fixes, c.level(data.decision)), 800)
    return ["### Simpler fixes", "", told, "", *table] if told else []


def _guardrails(decision: Json) -> list[str]:
    rows = []
    for row in guardrails(decision)[
        :MAX_RAILS
    ]:  # what did not pass comes first and is never the part that is cut
        name = f"{_MARKS[c.STATUS.get(str(row['status']), 'none')]} {plain(row['name'], 80)}"
        rows.append(
            [
                name,
                plain(row["status"], 20) or c.DASH,
                row["delta"],
                row["lower_bound"],
                row["margin"],
                row["needed"],
            ]
        )
    return _table(
        "Guardrails",
        ["Guardrail", "Status", "Change", "Lower bound", "Allowed", "Queries needed"],
        rows,
    )


def _slices(decision: Json) -> list[str]:
    moved = sorted(
        c.by_number(maps(decision.get("slices")), "delta"), key=lambda row: -abs(row["delta"])
    )[:MAX_MOVED]
    rows = []
    for row in moved:
        change = [
            c.signed(row["delta"]),
            c.span(row.get("ci"), c.signed),
            c.p_value(row.get("p_holm")),
        ]
        rows.append([plain(row.get("slice"), 60), c.whole(row.get("n")), *change])
    return _table(
        "Slices that moved most",
        ["Slice", "Queries", "Change", f"{c.level(decision)}% interval", "Holm p"],
        rows,
    )


def _repeat(data: ReportData) -> list[str]:
    # Code spans show backslashes, so the name is cleaned instead of escaped.
    command = re.sub(r"[`\s]+", " ", data.command)
    prints = {
        name: re.sub(r"\W", "", text(obj(record).get("fingerprint"), 64))[:12]
        for name, record in data.steps.items()
    }
    notes = {
        "seeds": ", ".join(
            f"{plain(name)} {plain(value)}" for name, value in c.seeds(data).items()
        ),
        "test set opened": f"{c.whole(data.decision.get('test_looks'))}×"
        if num(data.decision.get("test_looks"))
        else "",
        "steps": ", ".join(
            f"{plain(name, 20)} `{fingerprint}`"
            for name, fingerprint in prints.items()
            if fingerprint
        ),
        "versions": ", ".join(
            f"{plain(name, 40)} {plain(version, 40)}" for name, version in data.versions.items()
        ),
    }
    return [
        "### Repeat",
        "",
        f"`{command}`",
        "",
        " · ".join(f"{name}: {value}" for name, value in notes.items() if value),
    ]
