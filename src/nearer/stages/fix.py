"""How far do simpler fixes go?  Each measured alone on dev, then combined while every step really helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.files import read_jsonl, write_json, write_jsonl
from nearer.fixes.base import FIXES, Absence, fixes_of
from nearer.fixes.bench import Bench, Trial
from nearer.fixes.ladder import climb, try_alone
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.stages.shared import corpus_of, random_of, reranker_of_run, split_of, systems_of
from nearer.types import Split
from nearer.workspace import StepContext


@dataclass(frozen=True, slots=True)
class Fixes:
    """All trials, and the ladder with the best combination of simpler fixes at its end."""

    trials: Sequence[Trial]
    ladder: Mapping[str, Any]

    @property
    def best(self) -> Pipeline:
        return Pipeline.from_dict(self.ladder["best"])

    def __str__(self) -> str:
        lines = [f"{self.ladder['measure']} today {self.ladder['today']:.3f}"]
        for step in self.ladder["rungs"]:
            mark = "✓" if step["kept"] else "·"
            gain = "–"
            if step["delta"]:
                gain = f"{step['delta']['mean']:+.3f}"
            lines.append(f"{mark} {step['fix']:<11} {gain}  {step['label']}")
        return "\n".join(lines)


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
    trials = try_alone(bench, fixes, baseline)
    return Fixes(trials, climb(bench, fixes, baseline))


def step(context: StepContext) -> dict[str, Any]:
    """Files: `trials.jsonl` (one line a fix and setting) and `summary.json` (the ladder)."""
    systems = systems_of(context, corpus_of(context))
    systems.reranker = reranker_of_run(context, systems)
    failures = list(read_jsonl(context.earlier("diagnose/failures.jsonl")))
    dev = split_of(context, "dev")
    if not dev.queries:
        progress.warn("no dev queries: simpler fixes cannot be compared")
        write_jsonl(context.out / "trials.jsonl", [])
        nothing = [
            Absence(name, "there are no dev queries", "nearer check").as_dict() for name in FIXES
        ]
        skipped = {"skipped": "there are no dev queries", "not_tried": nothing}
        write_json(context.out / "summary.json", skipped)
        return {"skipped": "there are no dev queries"}
    result = try_fixes(systems, dev, context.config, random_of(context), failures)
    write_jsonl(context.out / "trials.jsonl", (trial.as_dict() for trial in result.trials))
    write_json(context.out / "summary.json", result.ladder)
    told = ("measure", "today", "best_measure", "label", "delta")
    return {key: result.ladder[key] for key in told} | {"trials": len(result.trials)}
