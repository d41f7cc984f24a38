"""What the terminal shows: progress on stderr, results on stdout."""

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
from nearer.tables import Grid, PlainConsole, Verbatim, sparkline

if TYPE_CHECKING:
    from nearer.lifecycle import Stage
    from nearer.live.monitor.watch import Report
    from nearer.workspace import StepResult

_ANNOUNCED = 2.0  # seconds of work that leave a line behind
_EVERY = 15.0  # seconds between lines where there is no terminal to draw bars on
_EXAMPLES = 3  # queries of an alert; all ten are in the report
_EXAMPLE_LENGTH = 100  # characters of such a query
_PROSE = ("question", "what repairs it", "each way", "title")  # columns that may wrap
_STATE_STYLES = {
    "fresh": "green",
    "stale": "yellow",
    "kept": "cyan",
    "missing": "dim",
    "waiting": "dim",
}

# Texts of users are printed as they are: neither [markup] nor :emoji: means anything in them.
out = PlainConsole(highlight=False, markup=False, emoji=False)
err = PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.1f} {task.fields['unit']}/s", style="dim")


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
        progress = None if self._quiet else self._progress
        return _Bar(progress, what, total or 0, unit)

    def stop(self, task: Any) -> None:
        task.finish()

    def message(self, text: str, level: str) -> None:
        if level == "warning":
            err.print(Text(f"  ! {text}", style="yellow"))
        elif not self._quiet:
            err.print(Text(f"  {text}", style="dim"))


class _Bar:
    """One task: a bar in a terminal; elsewhere a line every 15 seconds; a closing line if it took long.

    Nothing is shown where `progress` is None.
    """

    def __init__(self, progress: Progress | None, what: str, total: float, unit: str) -> None:
        self._progress = progress
        self._what = what
        self._total = total
        self._unit = unit
        self._note = ""
        self._done = 0.0
        self._first_done = 0.0
        self._started = time.monotonic()
        self._last_line = self._first_at = self._started
        if progress is not None:
            self._id = progress.add_task(what, total=total, unit=unit, note="")

    def advance(self, n: float = 1) -> None:
        self.reach(self._done + n)

    def reach(self, done: float) -> None:
        now = time.monotonic()
        if not self._done:  # what came before the first unit says nothing about the rest
            self._first_done, self._first_at = done, now
        self._done = done
        if self._progress is None:
            return
        self._progress.update(self._id, completed=done)
        if not err.draws and now - self._last_line >= _EVERY and done:
            self._last_line = now
            self._print_line(now)

    def _print_line(self, now: float) -> None:
        took = now - self._first_at
        done = max(self._done - self._first_done, 1)
        left = duration(took * (self._total - self._done) / done)
        count = f"{self._done:,.0f}/{self._total:,.0f} {self._unit}"
        line = f"  {self._what}: {count}, about {left} left {self._note}"
        err.print(line.rstrip())

    def expect(self, total: float) -> None:
        self._total = total
        if self._progress is not None:
            self._progress.update(self._id, total=total)

    def note(self, text: str, curve: Sequence[float] = ()) -> None:
        self._note = text
        if self._progress is not None:
            drawn = sparkline(curve) if err.encoding.startswith("utf") else ""
            self._progress.update(self._id, note=f"{text} {drawn}".rstrip())

    def finish(self) -> None:
        if self._progress is None:
            return
        self._progress.remove_task(self._id)
        took = time.monotonic() - self._started
        if took >= _ANNOUNCED and self._done:
            count = f"{self._done:,.0f} {self._unit} in {duration(took)}"
            rate = f"{self._done / took:,.1f} per second"
            line = f"  {self._what}: {count} ({rate}) {self._note}"
            err.print(Text(line.rstrip(), style="dim"))


def duration(seconds: float) -> str:
    """`7 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def print_error(error: NearerError, as_json: bool) -> None:
    """What is wrong, where, and the next command; with `as_json` also on stdout, as JSON."""
    if as_json:
        line = json.dumps(error.as_dict(), ensure_ascii=False)
        sys.stdout.write(f"{line}\n")
    what = error.what
    if error.where:
        what = f"{error.where}: {error.what}"
    text = Text("error: ", style="bold red")
    text.append(what, style="not bold default")
    err.print(text)
    if error.next_step:
        err.print(Text(f"  → {error.next_step}", style="cyan"))


class StageAnnouncer:
    """Announces stages; with `shares` (stage → part of the whole time) also how long is left."""

    def __init__(self, stages: Sequence[Stage], shares: Mapping[str, float] | None) -> None:
        self._stages = stages
        self._shares = shares or {}
        self._started = time.monotonic()
        self._share_done = 0.0

    def announce(self, stage: Stage) -> None:
        """Print the name of a stage that begins, and the question it answers."""
        name = stage.name
        if len(self._stages) > 1:
            number = self._stages.index(stage) + 1
            name = f"[{number}/{len(self._stages)}] {name}"
        details = f"  {stage.question}{self._time_left()}"
        self._share_done += self._shares.get(stage.name, 0.0)
        err.print(Text.assemble((name, "bold"), (details, "dim")))

    def _time_left(self) -> str:
        if self._share_done <= 0.1:  # before that, too little was measured
            return ""
        took = time.monotonic() - self._started
        left = took * (1 / self._share_done - 1)
        return f"  (about {duration(left)} left in all)"


def print_result(step: StepResult) -> None:
    """The outcome of one stage, in a few lines."""
    if step.status != "done":
        outcome = "nothing changed" if step.status == "fresh" else "kept as it is"
        if step.stale_inputs:
            outcome = f"as it was, from an older result of {', '.join(step.stale_inputs)}"
        out.print(Text(f"  {step.stage}: {outcome}", style="dim"))
    draw(step.blocks(), out)


# -- one query -------------------------------------------------------------------------------------


def print_story(story: Mapping[str, Any]) -> None:
    """One query and one document: its rank, what each repair does, the results around it."""
    out.print(Text(f"{story['query_id']}  {story['query']}", style="bold"))
    out.print(f"  wants {story['doc_id']}  {story['document']}")
    rank = f"rank {story['rank']}" if story["rank"] else "not found"
    if story["fails"]:
        out.print(Text(f"  today: {rank}; {_cause(story)}", style="yellow"))
    else:
        outcome = f"  today: {rank}; no failure: it is among the first results"
        out.print(Text(outcome, style="green"))
    if story["evidence"] and story["fails"]:
        out.print(f"  {story['evidence']}")
    out.print(_probe_table(story["probes"]))
    out.print(_result_table(story["around"], story["doc_id"]))
    out.print()


def _cause(story: Mapping[str, Any]) -> str:
    if story["kind"]:
        return f"{story['cause']} ({story['kind']})"
    return str(story["cause"])


def _probe_table(probes: Mapping[str, Mapping[str, Any]]) -> Grid:
    """What each repair that was tried does to the rank of the document."""
    table = _grid("probe", "rank", "found", "each way")
    for name, probe in probes.items():
        rank = str(probe["rank"] or "–")
        if probe.get("at_least"):
            rank = f"≥ {probe['rank']}"
        ways = []
        for way, position in probe.get("variants", {}).items():
            ways.append(f"{way} {position or '–'}")
        details = Text(", ".join(ways) or probe.get("skipped", ""))
        if probe["found"]:
            table.add(name, rank, "yes", details)
        else:
            table.add(name, rank, "no", details, style="dim")
    return table


def _result_table(rows: Sequence[Mapping[str, Any]], doc_id: str) -> Grid:
    """Results, with the wanted document in green."""
    table = _grid("rank", "score", "document", "relevant", "title")
    for row in rows:
        mark = "✓" if row["relevant"] else ""
        style = "bold green" if row["id"] == doc_id else None
        score = f"{row['score']:.3f}"
        table.add(
            str(row["rank"]),
            score,
            row["id"],
            mark,
            row["title"],
            style=style,
        )
    return table


# -- status, init, monitor -------------------------------------------------------------------------


def print_status(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per stage, and the next command."""
    table = _grid("stage", "state", "finished", "took", "question")
    upcoming = None
    for row in rows:
        took = ""
        if row["seconds"] is not None:
            took = duration(row["seconds"])
        state = Text(row["state"], style=_STATE_STYLES[row["state"]])
        table.add(
            row["stage"],
            state,
            row["finished"] or "",
            took,
            row["question"],
        )
        if upcoming is None and row["state"] in ("stale", "missing"):
            upcoming = row["stage"]
    out.print(table)
    if upcoming:
        out.print(f"  → nearer run --from {upcoming}")
    else:
        out.print("  everything is up to date")


def print_init(path: Path, lines: Sequence[str], command: str) -> None:
    """What the data holds, where the configuration is, and the next command."""
    for line in lines:
        out.print(f"  {line}")
    out.print(f"  wrote {short_path(path)}")
    out.print(Text(f"  → cd {short_path(path.parent)} && {command}", style="cyan"))


def print_monitor(report: Report) -> None:
    """Alerts first, then one line per condition."""
    generation = report.generation or "no generation"
    title = f"{report.day}  {report.requests:,} requests  {generation}"
    outcome = ("  nothing to do", "green")
    if report.alerts:
        outcome = (f"  {len(report.alerts)} alerts", "red")
    out.print(Text.assemble((title, "bold"), outcome))
    for alert in report.alerts:
        _print_alert(alert)
    out.print(_condition_table(report))
    skipped: dict[str, list[str]] = {}
    for name, reason in report.skipped.items():
        skipped.setdefault(reason, []).append(name.replace("_", " "))
    for reason, names in skipped.items():
        line = f"    · not judged, {reason}: {', '.join(names)}"
        out.print(Text(line, style="dim"))


def _condition_table(report: Report) -> Grid:
    """The value of each condition, how far it moved, and whether it fires."""
    series = {row.name: row for row in report.series if row.slice == "all"}
    table = _grid("condition", "value (interval)", "moved", "counts from", "p")
    for name, condition in report.conditions.items():
        row = series[name]
        value = f"{row.value:.3f}"
        low, high = row.low, row.high
        if low is not None and high is not None and low < high:
            value = f"{value} ({low:.3f}–{high:.3f})"
        p = "" if condition["p"] is None else f"{condition['p']:.4f}"
        style = "red" if condition["fires"] else None
        moved = f"{condition['size']:+.3f}"
        threshold = f"{condition['threshold']:.3f}"
        table.add(
            name.replace("_", " "),
            value,
            moved,
            threshold,
            p,
            style=style,
        )
    return table


def _print_alert(alert: Mapping[str, Any]) -> None:
    since = f"  since {alert['since']}"
    if alert["slice"] != "all":
        since = f"{since}  {alert['slice']}"
    condition = alert["condition"].replace("_", " ")
    out.print(Text.assemble((f"  ! {condition}", "bold red"), (since, "dim")))
    out.print(Text(f"    {alert['what']}"))
    diagnosis = alert["diagnosis"]
    if diagnosis:
        families = diagnosis["families"].items()
        counts = ", ".join(f"{count} {name}" for name, count in families)
        answer = f"    diagnosis: {diagnosis['answer']} ({counts})"
        out.print(Text(answer, style="yellow"))
    for example in alert["examples"][:_EXAMPLES]:
        out.print(Text(f"      “{_shortened(example)}”", style="dim"))
    out.print(Text(f"    → {alert['do']}", style="cyan"))


def _shortened(query: str) -> str:
    if len(query) <= _EXAMPLE_LENGTH:
        return query
    return query[: _EXAMPLE_LENGTH - 1] + "…"


def _grid(*columns: str) -> Grid:
    return Grid(*columns, prose=_PROSE)


def print_answer(answer: str | Grid) -> None:
    """The result of a command: lines, or a table."""
    if isinstance(answer, Verbatim):
        out.print(answer, soft_wrap=True)
    else:
        out.print(answer)
