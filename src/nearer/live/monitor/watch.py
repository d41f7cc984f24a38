"""`nearer monitor`: is it still good, and if not, which condition fired and why?

Files below `monitor/`: `series.db` (see `nearer.live.monitor.series`), `report.json` (the latest report),
`metrics.prom` (for the textfile collector of Prometheus' node exporter) and `canaries.trec` (what
the canary queries found, which a diagnosis starts from).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import numpy as np

from nearer import progress
from nearer.errors import DataError
from nearer.files import write_json, write_text
from nearer.live.index.generations import Generations
from nearer.live.monitor.answers import diagnose
from nearer.live.monitor.conditions import Labelled, Report, Seen, monitor
from nearer.live.monitor.exposition import metrics
from nearer.live.monitor.observed import Measured, Observed
from nearer.live.monitor.series import Series
from nearer.live.traffic.log import daily_files

__all__ = ["Report", "look", "monitor"]

WHOLE = "day"  # in the series: this day was judged when it was over


def look(
    generations: Generations, since: date | None = None, *, watching: bool = False
) -> list[Report]:
    """Judge the newest day of the traffic log, or each day from `since` on, and keep what was found.

    `watching` judges a day as a whole once it is over, and before that facts and canary queries
    alone: looking often would give as many chances of a false alarm.  Documents, canary queries and
    the model are looked at as they are now, for the newest day.  Raises DataError without traffic.
    """
    root, today = generations.root, datetime.now(UTC).date()
    series = Series(root / "monitor" / "series.db")
    days = [day for day, _ in daily_files(root / "traffic")]
    if not days or (since and days[-1] < since):
        raise DataError(
            f"no traffic since {since}" if days else "no traffic was logged",
            where=str(root / "traffic"),
            next_step="nearer serve writes it, nearer log import reads that of another system",
        )
    if watching:
        chosen = _unjudged(days, series, today)
    elif since:
        chosen = [day for day in days if day >= since]
    else:
        chosen = days[-1:]
    looking = _Look(Observed(generations), series, days, watching)
    reports = []
    with progress.task("monitor", len(chosen), "days") as bar:
        for day in chosen:
            bar.note(day.isoformat())
            reports.append(looking.judge(day, over=day < today))
            bar.advance()
    write_json(root / "monitor" / "report.json", reports[-1].as_dict())
    text = metrics(reports[-1], datetime.now(UTC).timestamp())
    write_text(root / "monitor" / "metrics.prom", text)
    return reports


def _unjudged(days: Sequence[date], series: Series, today: date) -> list[date]:
    """The last day that is over, unless it was judged as a whole before, and the newest one."""
    chosen = {days[-1]}
    over = [day for day in days if day < today]
    for day in over[-1:]:
        if WHOLE not in series.judged(day.isoformat()):
            chosen.add(day)
    return sorted(chosen)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the days of a traffic log."""

    project: Observed
    series: Series
    days: Sequence[date]
    watching: bool

    def judge(self, day: date, *, over: bool) -> Report:
        """Judge a day and keep what was found; `over` says that nothing will be added to it."""
        settings, name = self.project.config, day.isoformat()
        rng = np.random.default_rng([settings.seed, day.toordinal()])
        seen, measured = self._seen(day, rng, whole=over or not self.watching)
        report = monitor(
            seen,
            settings.monitor,
            rng,
            earlier=self.series.firing(name),
            diagnose=lambda ids: diagnose(self.project, ids, measured),
            min_slice=settings.evaluate.min_slice,
        )
        judged = list(report.conditions)
        if over:
            judged.append(WHOLE)
        self.series.append(name, report.series, report.alerts, judged)
        return report

    def _seen(
        self, day: date, rng: np.random.Generator, *, whole: bool
    ) -> tuple[Seen, list[Measured]]:
        """A day with what it is compared with, and the judged queries that a diagnosis may look at."""
        project, newest = self.project, day == self.days[-1]
        today, before = project.traffic(day, day), project.reference_days(day, self.days)
        generation = project.answering(day, today)
        seen = Seen(
            day.isoformat(),
            today,
            generation,
            before,
            moves=project.moves,
            exposure=project.exposure,
            whole=whole,
        )
        measured: list[Measured] = []
        if newest:
            canaries = project.canaries()
            seen = replace(seen, documents=project.freshness, fingerprint=project.broken)
            if canaries is not None:
                seen, measured = self._with_labels(seen, day, canaries)
        if whole:
            asked = project.asked(request.query for request in today)
            reference = project.reference(before, len(today), rng)
            seen = replace(seen, asked=asked, reference=reference, known=project.known)
        return seen, measured

    def _with_labels(
        self, seen: Seen, day: date, canaries: Measured
    ) -> tuple[Seen, list[Measured]]:
        """A day with its canary queries and, where there are any, judged requests."""
        primary = self.project.config.evaluate.primary
        baseline = self.series.baseline(seen.generation, primary, canaries.values)
        before = canaries.column(baseline)
        seen = replace(seen, canaries=Labelled(canaries.queries, canaries.column(), before))
        fresh = self.project.fresh(day)
        if fresh is None:
            return seen, [canaries]
        judged = Labelled(fresh.queries, fresh.column(), before)
        return replace(seen, judged=judged), [canaries, fresh]
