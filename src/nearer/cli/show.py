"""What people see in the terminal: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from nearer.errors import NearerError
from nearer.results import draw, short_path
from nearer.tables import Grid, PlainConsole, Verbatim

if TYPE_CHECKING:
    from nearer.lifecycle import Stage
    from nearer.live.monitor.watch import Report
    from nearer.workspace import StepResult

_ANNOUNCED = 2.0  # seconds of work that leave a line behind
_EXAMPLES = 3  # queries of an alert; all ten are in the report
_EVERY = 15.0  # seconds between lines where there is no terminal to draw bars on

# Texts of users are shown as they are: neither [markup] nor :emoji: means anything in them.
out = PlainConsole(highlight=False, markup=False, emoji=False)
err = PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)


class _Rate(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed else "", style="dim")


class Terminal:
    """Listener that draws bars, or writes a line now and then where there is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}", style="dim"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", style="dim"),
            console=err,
            transient=True,
            disable=quiet,
        )

    def __enter__(self) -> Terminal:
        if not self._quiet and err.draws:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def start(self, what: str, total: float | None, unit: str) -> _Bar:
        return _Bar(self._progress, what, total or 0, unit, self._quiet)

    def stop(self, task: Any) -> None:
        task.finish()

    def message(self, text: str, level: str) -> None:
        if level == "warning":
            err.print(Text(f"  ! {text}", style="yellow"))
        elif not self._quiet:
            err.print(Text(f"  {text}", style="dim"))


class _Bar:
    """One task: a bar in a terminal; elsewhere a line every 15 seconds; a closing line if it took long."""

    def __init__(self, progress: Progress, what: str, total: float, unit: str, quiet: bool) -> None:
        self._progress, self._what, self._unit, self._total, self._quiet = (
            progress,
            what,
            unit,
            total,
            quiet,
        )
        self._started = self._told = self._began = time.monotonic()
        self._done = self._began_at = 0.0
        self._note = ""
        self._id = progress.add_task(what, total=total, unit=unit, note="")

    def advance(self, n: float = 1) -> None:
        self.reach(self._done + n)

    def reach(self, done: float) -> None:
        now = time.monotonic()
        if not self._done:
            self._began_at, self._began = (
                done,
                now,
            )  # what came before the first unit says nothing about the rest
        self._done = done
        self._progress.update(self._id, completed=done)
        if not self._quiet and not err.draws and now - self._told >= _EVERY and done:
            self._told = now
            left = (now - self._began) * (self._total - done) / max(done - self._began_at, 1)
            err.print(
                f"  {self._what}: {done:,.0f}/{self._total:,.0f} {self._unit}, about {duration(left)} left {self._note}".rstrip()
            )

    def note(self, text: str) -> None:
        self._note = text
        self._progress.update(self._id, note=text)

    def finish(self) -> None:
        self._progress.remove_task(self._id)
        took = time.monotonic() - self._started
        if not self._quiet and took >= _ANNOUNCED and self._done:
            said = f"  {self._what}: {self._done:,.0f} {self._unit} in {duration(took)} ({self._done / took:,.1f} a second) {self._note}"
            err.print(Text(said.rstrip(), style="dim"))


def duration(seconds: float) -> str:
    """`7 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def say_error(error: NearerError, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(error.as_dict(), ensure_ascii=False) + "\n")
    text = Text("error: ", style="bold red")
    text.append(
        f"{error.where}: {error.what}" if error.where else error.what, style="not bold default"
    )
    err.print(text)
    if error.next_step:
        err.print(Text(f"  → {error.next_step}", style="cyan"))


class Pace:
    """Announces stages; with `shares` (stage → part of the whole time) also about how long is left."""

    def __init__(self, stages: Sequence[Stage], shares: Mapping[str, float] | None) -> None:
        self._stages, self._shares = stages, shares or {}
        self._started = time.monotonic()
        self._behind = 0.0

    def begin(self, stage: Stage) -> None:
        number = self._stages.index(stage) + 1
        place = f"[{number}/{len(self._stages)}] " if len(self._stages) > 1 else ""
        left = ""
        if self._behind > 0.1:  # before that, too little was measured
            left = f"  (about {duration((time.monotonic() - self._started) * (1 / self._behind - 1))} left in all)"
        self._behind += self._shares.get(stage.name, 0.0)
        err.print(
            Text.assemble((f"{place}{stage.name}", "bold"), (f"  {stage.question}{left}", "dim"))
        )


def say_result(step: StepResult) -> None:
    """The outcome of one stage, in a few lines."""
    if step.status != "done":
        standing = "nothing changed" if step.status == "fresh" else "kept as it is"
        if step.stale_inputs:
            standing = f"as it was, from an older result of {', '.join(step.stale_inputs)}"
        out.print(Text(f"  {step.stage}: {standing}", style="dim"))
    draw(step.blocks(), out)


def say_story(story: Mapping[str, Any]) -> None:
    """One query and one document: where it stands, what each repair does, the list around it."""
    out.print(Text(f"{story['query_id']}  {story['query']}", style="bold"))
    out.print(f"  wants {story['doc_id']}  {story['document']}")
    rank = f"rank {story['rank']}" if story["rank"] else "not found"
    cause = (
        f"{story['cause']}{f' ({kind})' if (kind := story['kind']) else ''}"
        if story["fails"]
        else "no failure: it is among the first results"
    )
    out.print(Text(f"  today: {rank}; {cause}", style="yellow" if story["fails"] else "green"))
    if story["evidence"] and story["fails"]:
        out.print(f"  {story['evidence']}")
    table = _grid("probe", "rank", "found", "each way")
    for name, probe in story["probes"].items():
        rank = f"≥ {probe['rank']}" if probe.get("at_least") else str(probe["rank"] or "–")
        ways = ", ".join(
            f"{way} {place or '–'}" for way, place in probe.get("variants", {}).items()
        ) or probe.get("skipped", "")
        table.add(
            name,
            rank,
            "yes" if probe["found"] else "no",
            Text(ways),
            style=None if probe["found"] else "dim",
        )
    out.print(table)
    results = _grid("rank", "score", "document", "relevant", "title")
    for row in story["around"]:
        mark = "✓" if row["relevant"] else ""
        style = "bold green" if row["id"] == story["doc_id"] else None
        results.add(
            str(row["rank"]),
            f"{row['score']:.3f}",
            row["id"],
            mark,
            row["title"],
            style=style,
        )
    out.print(results)
    out.print()


def say_status(rows: Sequence[Mapping[str, Any]]) -> None:
    table = _grid("stage", "state", "finished", "took", "question")
    colours = {
        "fresh": "green",
        "stale": "yellow",
        "kept": "cyan",
        "missing": "dim",
        "waiting": "dim",
    }
    for row in rows:
        took = duration(row["seconds"]) if row["seconds"] is not None else ""
        table.add(
            row["stage"],
            Text(row["state"], style=colours[row["state"]]),
            row["finished"] or "",
            took,
            row["question"],
        )
    out.print(table)
    upcoming = next((row["stage"] for row in rows if row["state"] in ("stale", "missing")), None)
    out.print(f"  → nearer run --from {upcoming}" if upcoming else "  everything is up to date")


def say_init(path: Path, lines: Sequence[str]) -> None:
    for line in lines:
        out.print(f"  {line}")
    out.print(f"  wrote {short_path(path)}")
    out.print(Text(f"  → cd {short_path(path.parent)} && nearer run", style="cyan"))


def say_monitor(report: Report) -> None:
    """Alerts first, then one line a condition."""
    title = f"{report.day}  {report.requests:,} requests  {report.generation or 'no generation'}"
    out.print(
        Text.assemble(
            (title, "bold"),
            ("  nothing to do", "green")
            if not report.alerts
            else (f"  {len(report.alerts)} alerts", "red"),
        )
    )
    for alert in report.alerts:
        _say_alert(alert)
    rows = {row.name: row for row in report.series if row.slice == "all"}
    shown = _grid("condition", "value (interval)", "moved", "counts from", "p")
    for name, found in report.conditions.items():
        row = rows[name]
        interval = (
            f" ({row.low:.3f}–{row.high:.3f})"
            if row.low is not None and row.high is not None and row.low < row.high
            else ""
        )
        p = "" if found["p"] is None else f"{found['p']:.4f}"
        cells = [
            f"{row.value:.3f}{interval}",
            f"{found['size']:+.3f}",
            f"{found['threshold']:.3f}",
            p,
        ]
        shown.add(name.replace("_", " "), *cells, style="red" if found["fires"] else None)
    out.print(shown)
    for why in dict.fromkeys(report.skipped.values()):
        names = ", ".join(
            name.replace("_", " ") for name, reason in report.skipped.items() if reason == why
        )
        out.print(Text(f"    · not judged, {why}: {names}", style="dim"))


def _say_alert(alert: Mapping[str, Any]) -> None:
    where = "" if alert["slice"] == "all" else f"  {alert['slice']}"
    out.print(
        Text.assemble(
            (f"  ! {alert['condition'].replace('_', ' ')}", "bold red"),
            (f"  since {alert['since']}{where}", "dim"),
        )
    )
    out.print(Text(f"    {alert['what']}"))
    if diagnosis := alert["diagnosis"]:
        families = ", ".join(f"{count} {name}" for name, count in diagnosis["families"].items())
        out.print(Text(f"    diagnosis: {diagnosis['answer']} ({families})", style="yellow"))
    examples: Sequence[str] = alert["examples"][:_EXAMPLES]
    for example in examples:
        out.print(
            Text(f"      “{example if len(example) <= 100 else example[:99] + '…'}”", style="dim")
        )
    out.print(Text(f"    → {alert['do']}", style="cyan"))


_PROSE = ("question", "what repairs it", "each way", "title")


def _grid(*columns: str) -> Grid:
    return Grid(*columns, prose=_PROSE)


def tell(answer: str | Grid) -> None:
    """What a command says to people: lines, or a table."""
    if isinstance(answer, Verbatim):
        out.print(answer, soft_wrap=True)
    else:
        out.print(answer)
