"""How far do simpler fixes go?  Each measured alone on dev, then combined while every step really helps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nearer import config, progress
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.fixes.base import FIXES, Absence, fixes_of
from nearer.fixes.bench import Bench
from nearer.fixes.ladder import climb, try_alone
from nearer.project import Project
from nearer.results import Block, Line, Result, Row, Table
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Split


@dataclass(frozen=True)
class Fixes(Result):
    """Lines of `trials.jsonl`, and the ladder with the best simple system at its end."""

    trials: Sequence[Mapping[str, Any]]
    ladder: Mapping[str, Any]

    @property
    def best(self) -> Pipeline:
        """The best combination of simpler fixes."""
        return Pipeline.from_dict(self.ladder["best"])

    def save(self, folder: Path) -> None:
        """`trials.jsonl` (one line per fix and setting) and `summary.json` (the ladder)."""
        write_jsonl(folder / "trials.jsonl", self.trials)
        write_json(folder / "summary.json", self.ladder)

    @classmethod
    def load(cls, folder: Path) -> Fixes:
        trials = list(read_jsonl(folder / "trials.jsonl"))
        return cls(trials, read_json(folder / "summary.json"))

    def brief(self) -> dict[str, Any]:
        if "skipped" in self.ladder:
            return {"skipped": self.ladder["skipped"]}
        keys = ("measure", "today", "best_measure", "label", "delta")
        return {key: self.ladder[key] for key in keys} | {"trials": len(self.trials)}

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per trial."""
        for trial in self.trials:
            low, high = trial["delta"]["ci"]
            yield {
                "fix": trial["fix"],
                "label": trial["label"],
                **trial["measures"],
                "gain": trial["delta"]["mean"],
                "low": low,
                "high": high,
                "repaired": trial["repaired"],
                "broken": trial["broken"],
                **trial["cost"],
            }

    def blocks(self) -> list[Block]:
        ladder = self.ladder
        if "skipped" in ladder:
            return [Line(f"nothing tried: {ladder['skipped']}")]
        first = Row(("today", "", f"{ladder['today']:.3f}", "", "", ""))
        columns = ("rung", "kept", ladder["measure"], "gain (interval)", "repaired", "broken")
        blocks: list[Block] = [
            Line(f"{ladder['n_queries']:,} dev queries; a rung stays when its gain is real"),
            Table(columns, [first, *map(_rung_row, ladder["rungs"])]),
        ]
        for rung in ladder["rungs"]:
            if rung["delta"] or rung.get("tried") is None:
                tone = "" if rung["kept"] else "dim"
                blocks.append(Line(f"  · {rung['fix']}: {rung['label']}", tone))
        for gap in ladder.get("not_tried", []):
            blocks.append(Line(f"  · not tried: {gap['fix']}: {gap['why']}", "dim"))
            blocks.append(Line(f"    → {gap['next']}", "command"))
        counts = ladder["failures_repaired"].values()
        repaired, diagnosed = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
        share = ""
        if diagnosed:
            share = f"; repairs {repaired:,} of {diagnosed:,} diagnosed failures"
        best = f"{ladder['label']} ({ladder['measure']} {ladder['best_measure']:.3f}){share}"
        return [*blocks, Line(f"best simple system: {best}")]


def _rung_row(rung: Mapping[str, Any]) -> Row:
    if rung["delta"] is None:
        standing = "not tried" if rung.get("tried") is False else "does not apply"
        return Row((rung["fix"], "–", "", standing, "", ""), "dim")
    low, high = rung["delta"]["ci"]
    gain = f"{rung['delta']['mean']:+.3f} ({low:+.3f} to {high:+.3f})"
    kept = "yes" if rung["kept"] else "no"
    counts = (str(rung["repaired"]), str(rung["broken"]))
    tone = "bold" if rung["kept"] else ""
    return Row((rung["fix"], kept, f"{rung['measure']:.3f}", gain, *counts), tone)


def try_fixes(
    systems: Systems,
    dev: Split,
    settings: config.Config,
    rng: np.random.Generator,
    failures: Sequence[Mapping[str, Any]] = (),
) -> Fixes:
    """Measure every simpler fix on dev, alone and then one on top of the other.

    `failures` are the lines of `diagnose/failures.jsonl`: the ladder says what share of them each
    step repairs.  Raises DataError when dev has no judged query, ConfigError for a fix that cannot
    be made.
    """
    bench = Bench(systems, dev, settings, failures, int(rng.integers(2**31)))
    baseline = bench.tuned(systems.base(systems.today))
    fixes = fixes_of(settings, systems.root)
    trials = [trial.as_dict() for trial in try_alone(bench, fixes, baseline)]
    return Fixes(trials, climb(bench, fixes, baseline))


class Diagnosed(Protocol):
    """What `diagnose` returns, as far as it matters here."""

    @property
    def failures(self) -> Sequence[Mapping[str, Any]]:
        """Lines of `failures.jsonl`."""


def run(project: Project, diagnoses: Diagnosed | None = None) -> Fixes:
    """Measure each simpler fix on dev, then combine those that help; `.best` is the pipeline at the end.

    `diagnoses` is what `nearer.diagnose` returned; in a run its file is read.
    """
    failures: Sequence[Mapping[str, Any]] = ()
    if diagnoses is not None:
        failures = diagnoses.failures
    elif project.run_dir is not None:
        failures = list(read_jsonl(project.earlier("diagnose/failures.jsonl")))
    dev = project.split("dev")
    if not dev.queries:
        progress.warn("no dev queries: simpler fixes cannot be compared")
        reason = "there are no dev queries"
        nothing = [Absence(name, reason, "nearer check").as_dict() for name in FIXES]
        return Fixes((), {"skipped": reason, "not_tried": nothing})
    systems = project.systems_with_reranker
    return try_fixes(systems, dev, project.settings, project.rng("fix"), failures)


RESULT = Fixes
