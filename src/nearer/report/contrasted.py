"""A comparison of two systems as Markdown: the comment below a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearer.decision.contrast import Contrast, Flipped
from nearer.report.markdown_text import plain, table
from nearer.report.values import fixed, p_value, signed, span, whole

_MOST_SLICES = 12
_MOST_FLIPS = 8
_MARKS = {"worse": "❌", "better": "✅", "unclear": "⚪"}


def render(contrast: Contrast, failed: bool) -> str:
    """The outcome, the measures, the slices that moved most, and the queries that flipped.

    `failed` says that the gate says no, for whatever reason.
    """
    outcome = contrast.primary.change.outcome
    title = "Search quality: a regression" if failed else "Search quality: no regression"
    mark = "❌" if failed else "✅"
    lines = [f"## {mark} {title}", "", plain(contrast.sentence(), 600), ""]
    lines += [f"- ⚠️ {plain(warning, 400)}" for warning in contrast.warnings()]
    worse = contrast.worse_slices
    if worse:
        names = ", ".join(plain(name, 60) for name in worse)
        lines.append(f"- ⚠️ really worse, allowing for the number of slices: {names}")
    for key, (before, after) in contrast.differences().items():
        lines.append(f"- {plain(key, 40)}: {plain(before)} → {plain(after)}")
    lines += ["", *_measures(contrast), *_slices(contrast)]
    lines += _flips("Lost: the baseline answers these, the candidate does not", contrast.lost)
    lines += _flips("Won: the candidate answers these, the baseline does not", contrast.won)
    level = f"{100 * (1 - contrast.alpha):g}%"
    settled = {"worse": "is real", "better": "is real"}.get(outcome, "is not shown to be real")
    lines.append(
        f"The change of {plain(contrast.primary.measure, 30)} {settled}: it counts as real when its "
        f"{level} interval excludes zero and a sign-flip test over the same queries agrees."
    )
    return "\n".join(lines) + "\n"


def _measures(contrast: Contrast) -> list[str]:
    rows = []
    for row in contrast.measured:
        change = row.change
        rows.append(
            [
                f"{_MARKS[change.outcome]} {plain(row.measure, 30)}",
                fixed(row.before),
                fixed(row.after),
                f"**{signed(change.delta)}**",
                span((change.low, change.high), signed),
                p_value(change.p),
                f"{whole(change.wins)} · {whole(change.ties)} · {whole(change.losses)}",
            ]
        )
    names = [plain(side.name, 40) for side in (contrast.baseline, contrast.candidate)]
    header = ["Measure", *names, "Change", "Interval", "p", "Better · same · worse"]
    return table(header, rows)


def _slices(contrast: Contrast) -> list[str]:
    ordered = sorted(contrast.slices, key=lambda row: -abs(row["delta"]))
    rows = []
    for row in ordered[:_MOST_SLICES]:
        interval = span(row["ci"], signed)
        name = plain(row["slice"], 60)
        rows.append([name, whole(row["n"]), signed(row["delta"]), interval, p_value(row["p_holm"])])
    if not rows:
        return []
    header = ["Slice", "Queries", "Change", "Interval", "Holm p"]
    return _folded("Slices that moved most", table(header, rows))


def _flips(title: str, flips: Sequence[Flipped]) -> list[str]:
    if not flips:
        return []
    lines = []
    for flip in flips[:_MOST_FLIPS]:
        change = f"{fixed(flip.before)} → {fixed(flip.after)}"
        lines.append(f"- {change} {plain(flip.query_id, 60)}: {plain(flip.text, 160)}")
    more = len(flips) - _MOST_FLIPS
    if more > 0:
        lines.append(f"- {whole(more)} more")
    return _folded(f"{title} ({whole(len(flips))})", [*lines, ""])


def _folded(title: str, lines: Iterable[str]) -> list[str]:
    """Lines that are seen when somebody opens them."""
    return [f"<details><summary>{title}</summary>", "", *lines, "</details>", ""]
