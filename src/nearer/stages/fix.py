"""How far do simpler fixes go?  Each measured alone on dev, then combined while every step really helps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nearer import config, progress
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.fixes.fixes import FIXES, Absence, Fix, absence, fixes_of, untried, untried_pieces
from nearer.measure.metrics import Scores, score
from nearer.measure.significance import Comparison, compare
from nearer.project import Project
from nearer.results import Block, Line, Result, Row, Table
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Run, Split

_TIMED, _TIMED_RERANK = 20, 5  # queries asked one at a time to measure latency


@dataclass(frozen=True, slots=True)
class Trial:
    """One pipeline measured on dev beside another; a line of `trials.jsonl`."""

    fix: str
    pipeline: Pipeline
    measures: Mapping[str, float]
    gain: Comparison
    repaired: tuple[str, ...]  # queries that failed and no longer do
    broken: tuple[str, ...]
    needs: str
    cost: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        gain = self.gain
        return {
            "fix": self.fix,
            "label": self.pipeline.label,
            "settings": self.pipeline.as_dict(),
            "measures": dict(self.measures),
            "delta": {"mean": gain.delta, "ci": [gain.low, gain.high], "p": gain.p},
            "repaired": len(self.repaired),
            "broken": len(self.broken),
            "repaired_queries": list(self.repaired[:20]),
            "broken_queries": list(self.broken[:20]),
            "cost": dict(self.cost),
            "needs": self.needs,
        }


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


class Bench:
    """Measures pipelines on dev: the same queries, the same random numbers, each run once."""

    def __init__(
        self,
        systems: Systems,
        dev: Split,
        settings: config.Config,
        failures: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        self.systems, self.dev, self.settings, self._seed = systems, dev, settings, seed
        known = {query.id for query in dev.queries}
        self.failures = [line for line in failures if line["query_id"] in known]
        self._primary = settings.evaluate.primary
        self._measures = list(dict.fromkeys([self._primary, *settings.evaluate.measures]))
        self._relevant = {
            query.id: set(dev.relevant(query.id, settings.data.min_grade)) for query in dev.queries
        }
        self._costs: dict[Any, float | None] = {}
        self._scores: dict[Pipeline, Scores] = {}

    def run(self, pipeline: Pipeline) -> Run:
        return self.systems.run(pipeline, self.dev)

    def scores(self, pipeline: Pipeline) -> Scores:
        if pipeline not in self._scores:
            items = self.systems.item_to_item
            self._scores[pipeline] = score(self.run(pipeline), self.dev, self._measures, items)
        return self._scores[pipeline]

    def mean(self, pipeline: Pipeline) -> float:
        return self.scores(pipeline).mean(self._primary)

    def tuned(self, pipeline: Pipeline) -> Pipeline:
        return self.systems.tuned(pipeline, self.dev, self._primary)

    def gain(self, base: Pipeline, other: Pipeline, tried: int = 1) -> Comparison:
        """Paired comparison; the error rate is shared among as many variants as were tried."""
        before, after = (self.scores(pipeline).column(self._primary) for pipeline in (base, other))
        alpha = self.settings.decide.alpha / max(1, tried)
        return compare(
            before,
            after,
            np.random.default_rng(self._seed),
            self.settings.evaluate.resamples,
            alpha,
        )

    def moved(self, base: Pipeline, other: Pipeline) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Queries repaired and broken: a relevant document enters the first k, or the last one leaves."""
        before, after = (
            {query_id for query_id in self._relevant if self._finds(pipeline, query_id)}
            for pipeline in (base, other)
        )
        return tuple(sorted(after - before)), tuple(sorted(before - after))

    def _finds(self, pipeline: Pipeline, query_id: str) -> bool:
        return bool(
            self._relevant[query_id].intersection(
                self.run(pipeline).top(query_id, self.settings.diagnose.k)
            )
        )

    def failures_repaired(self, pipeline: Pipeline) -> dict[str, list[int]]:
        """Cause → [diagnosed failures whose document is among the first k now, all of them], on dev."""
        told: dict[str, list[int]] = {}
        for line in self.failures:
            counts = told.setdefault(line["cause"], [0, 0])
            counts[0] += line["doc_id"] in self.run(pipeline).top(
                line["query_id"], self.settings.diagnose.k
            )
            counts[1] += 1
        return told

    def trial(self, fix: Fix, base: Pipeline, pipeline: Pipeline) -> Trial:
        scores, moved = self.scores(pipeline), self.moved(base, pipeline)
        means = {name: round(scores.mean(name), 6) for name in self._measures}
        return Trial(
            fix.name,
            pipeline,
            means,
            self.gain(base, pipeline),
            *moved,
            fix.needs,
            self.cost(pipeline),
        )

    def cost(self, pipeline: Pipeline) -> dict[str, Any]:
        """Latency, size, time to build; and how much of the corpus a filter leaves."""
        timed = self.dev.queries[: _TIMED_RERANK if pipeline.rerank else _TIMED]
        latency = self.systems.latency(pipeline, timed)
        told: dict[str, Any] = latency.as_dict() if latency else {"p50_ms": None, "p95_ms": None}
        told |= {
            "index_bytes": self.systems.index_bytes(pipeline),
            "build_seconds": self._build_seconds(pipeline),
        }
        if pipeline.filters != "ignore":
            told["selectivity"] = self._selectivity(pipeline)
        return told

    def _build_seconds(self, pipeline: Pipeline) -> float | None:
        """Embedding the corpus here (from measured throughput) and building the BM25 index; None where it is not known."""
        seconds = 0.0 if pipeline.system == "dense" else self.systems.bm25.build_seconds
        if pipeline.dense:
            key = (pipeline.model, pipeline.chunker)
            if key not in self._costs:
                self._costs[key] = self.systems.embedding_seconds(pipeline)
            embedding = self._costs[key]
            return None if embedding is None else round(seconds + embedding, 1)
        return round(seconds, 1)

    def _selectivity(self, pipeline: Pipeline) -> float:
        """Mean share of the documents that the filters leave, over the queries that have one."""
        allowed = self.systems.eligible(
            "inferred" if pipeline.filters == "boost" else pipeline.filters
        )
        shares = [
            mask.mean()
            for query in self.dev.queries
            if allowed is not None and (mask := allowed(query)) is not None
        ]
        return round(float(np.mean(shares)), 4) if shares else 1.0


def try_fixes(
    systems: Systems,
    dev: Split,
    settings: config.Config,
    rng: np.random.Generator,
    failures: Sequence[Mapping[str, Any]] = (),
) -> Fixes:
    """Measure every simpler fix on dev, alone and then one on top of the other.

    `failures` are the lines of `diagnose/failures.jsonl`: the ladder tells what share of them each
    rung repairs.  Raises DataError when dev has no judged query.
    """
    bench = Bench(systems, dev, settings, failures, int(rng.integers(2**31)))
    today = bench.tuned(systems.base(systems.today))
    fixes = fixes_of(settings)
    tried: dict[str, list[Pipeline]] = {}
    with progress.task("fixes", len(fixes), "fixes") as bar:
        for fix in fixes:
            bar.note(fix.name)
            tried[fix.name] = [
                bench.tuned(pipeline) for pipeline in fix.variants(today, systems, dev)
            ]
            for pipeline in tried[fix.name]:
                bench.run(pipeline)
            bar.advance()
    trials = [bench.trial(fix, today, pipeline) for fix in fixes for pipeline in tried[fix.name]]
    lines = [trial.as_dict() for trial in trials]
    return Fixes(lines, _ladder(bench, fixes, today))


def _ladder(bench: Bench, fixes: Sequence[Fix], today: Pipeline) -> dict[str, Any]:
    """Combine greedily in the order of cost; a rung stays only when its gain on dev is real.

    Real: the interval of the paired gain lies above 0, its error rate shared among the variants of
    the rung, and the mean reaches half the minimum useful gain.
    """
    current, rungs = today, []
    absences: list[Absence] = []
    least = bench.settings.decide.min_gain / 2
    for fix in fixes:
        variants = [
            bench.tuned(pipeline) for pipeline in fix.variants(current, bench.systems, bench.dev)
        ]
        if not variants:
            reason = absence(fix, current, bench.systems, bench.dev)
            absences.append(reason)
            rungs.append(
                {
                    "fix": fix.name,
                    "kept": False,
                    "tried": False if reason.next_step else None,
                    "label": reason.label,
                    "delta": None,
                    "needs": fix.needs,
                }
            )
            continue
        best = max(variants, key=bench.mean)
        gain = bench.gain(current, best, len(variants))
        kept = gain.outcome == "better" and gain.delta >= least
        repaired, broken = bench.moved(current, best)
        rungs.append(
            {
                "fix": fix.name,
                "kept": kept,
                "tried": True,
                "label": best.label,
                "settings": best.as_dict(),
                "measure": bench.mean(best),
                "delta": {"mean": gain.delta, "ci": [gain.low, gain.high], "p": gain.p},
                "variants": len(variants),
                "repaired": len(repaired),
                "broken": len(broken),
                "failures_repaired": bench.failures_repaired(best),
                "needs": fix.needs,
            }
        )
        current = best if kept else current
    gain = bench.gain(today, current)
    return {
        "measure": bench.settings.evaluate.primary,
        "today": bench.mean(today),
        "today_label": today.label,
        "rungs": rungs,
        "not_tried": [one.as_dict() for one in _untried(bench, fixes, absences)],
        "best": current.as_dict(),
        "label": current.label,
        "best_measure": bench.mean(current),
        "delta": {"mean": gain.delta, "ci": [gain.low, gain.high], "p": gain.p},
        "failures_repaired": bench.failures_repaired(current),
        "n_queries": len(bench.scores(today)),
    }


def _untried(bench: Bench, fixes: Sequence[Fix], absences: Sequence[Absence]) -> list[Absence]:
    """What was not tried, the chunks included that the diagnosis found to help."""
    pieces: list[Absence] = []
    if any(fix.name == "chunking" for fix in fixes):
        pieces = untried_pieces(bench.settings, bench.failures)
    return [*untried(bench.settings, fixes, absences), *pieces]


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
