"""Measures pipelines on dev: gains, queries repaired and broken, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.config import Config
from nearer.diagnosis.values import Failure
from nearer.errors import DiskError, ModelError, NearerError
from nearer.fixes.base import Fix
from nearer.measure.metrics import Scores
from nearer.measure.significance import Comparison, compare
from nearer.rag.contexts import measured
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Run, Split

_TIMED, _TIMED_RERANK = 20, 5  # queries asked one at a time to measure latency
_SHOWN = 20  # queries that a trial names as repaired or broken


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
        return {
            "fix": self.fix,
            "label": self.pipeline.label,
            "settings": self.pipeline.as_dict(),
            "measures": dict(self.measures),
            "delta": delta_of(self.gain),
            "repaired": len(self.repaired),
            "broken": len(self.broken),
            "repaired_queries": list(self.repaired[:_SHOWN]),
            "broken_queries": list(self.broken[:_SHOWN]),
            "cost": dict(self.cost),
            "needs": self.needs,
        }


def delta_of(gain: Comparison) -> dict[str, Any]:
    """A gain as it stands in the files: mean, interval and p."""
    return {"mean": gain.delta, "ci": [gain.low, gain.high], "p": gain.p}


class Bench:
    """Measures pipelines on dev: the same queries, the same random numbers, each run once.

    `failures` are lines of `diagnose/failures.jsonl`; those of dev queries are kept.
    """

    def __init__(
        self,
        systems: Systems,
        dev: Split,
        settings: Config,
        failures: Sequence[Failure],
        seed: int,
    ) -> None:
        self.systems = systems
        self.dev = dev
        self.settings = settings
        self._seed = seed
        self._k = settings.diagnose.k
        self._primary = settings.evaluate.primary
        measures = (self._primary, *settings.evaluate.measures)
        self._measures = list(dict.fromkeys(measures))
        self._relevant: dict[str, set[str]] = {}
        for query in dev.queries:
            relevant = dev.relevant(query.id, settings.data.min_grade)
            self._relevant[query.id] = set(relevant)
        self.failures = [line for line in failures if line["query_id"] in self._relevant]
        self._embedding_cost: dict[tuple[str | None, str], Mapping[str, Any] | None] = {}
        self._scores: dict[Pipeline, Scores] = {}
        self._failed: set[str] = set()  # models that failed while they searched

    def run(self, pipeline: Pipeline) -> Run:
        return self.systems.run(pipeline, self.dev)

    def scores(self, pipeline: Pipeline) -> Scores:
        if pipeline not in self._scores:
            run = self.run(pipeline)
            self._scores[pipeline] = measured(self.systems, pipeline, run, self.dev, self._measures)
        return self._scores[pipeline]

    def mean(self, pipeline: Pipeline) -> float:
        """The primary measure."""
        return self.scores(pipeline).mean(self._primary)

    def variants(self, fix: Fix, base: Pipeline) -> list[Pipeline]:
        """What a fix tries instead of `base`, searched, hybrids with their weight chosen on dev.

        A variant over another model that fails, such as an endpoint that is down, is left out: the
        model counts as not tried, with the reason.
        """
        searched: list[Pipeline] = []
        for pipeline in fix.variants(base, self.systems, self.dev):
            if pipeline.model is not None and pipeline.model in self._failed:
                continue
            try:
                tuned = self.tuned(pipeline)
                self.run(tuned)
            except DiskError:
                raise
            except NearerError as error:
                if not self._is_of_another(pipeline, base):
                    raise
                self._failed.add(str(pipeline.model))
                self.systems.others.fail(str(pipeline.model), error)
                continue
            searched.append(tuned)
        return searched

    def _is_of_another(self, pipeline: Pipeline, base: Pipeline) -> bool:
        """Whether a pipeline differs from its base by a model that `fix.models` gives."""
        if pipeline.model is None or pipeline.model == base.model:
            return False
        return pipeline.model in self.systems.others.names

    def tuned(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with the weight of its hybrid chosen on dev."""
        return self.systems.tuned(pipeline, self.dev, self._primary)

    def gain(self, base: Pipeline, changed: Pipeline, tried: int = 1) -> Comparison:
        """Paired comparison; the error rate is shared among as many variants as were tried."""
        before = self.scores(base).column(self._primary)
        after = self.scores(changed).column(self._primary)
        rng = np.random.default_rng(self._seed)
        resamples = self.settings.evaluate.resamples
        alpha = self.settings.decide.alpha / max(1, tried)
        return compare(before, after, rng, resamples, alpha)

    def moved(self, base: Pipeline, changed: Pipeline) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Queries repaired and broken: a relevant document enters the first k, or the last one leaves."""
        before = self._answered(base)
        after = self._answered(changed)
        repaired = sorted(after - before)
        broken = sorted(before - after)
        return tuple(repaired), tuple(broken)

    def _answered(self, pipeline: Pipeline) -> set[str]:
        """Queries with a relevant document among the first k."""
        run = self.run(pipeline)
        answered: set[str] = set()
        for query_id, relevant in self._relevant.items():
            top = run.top(query_id, self._k)
            if not relevant.isdisjoint(top):
                answered.add(query_id)
        return answered

    def failures_repaired(self, pipeline: Pipeline) -> dict[str, list[int]]:
        """Cause → [diagnosed failures whose document is among the first k now, all of them], on dev."""
        run = self.run(pipeline)
        repaired: dict[str, list[int]] = {}
        for line in self.failures:
            counts = repaired.setdefault(line["cause"], [0, 0])
            top = run.top(line["query_id"], self._k)
            counts[0] += line["doc_id"] in top
            counts[1] += 1
        return repaired

    def trial(self, fix: Fix, base: Pipeline, pipeline: Pipeline) -> Trial:
        """One variant beside the baseline, with what it costs."""
        scores = self.scores(pipeline)
        means = {name: round(scores.mean(name), 6) for name in self._measures}
        repaired, broken = self.moved(base, pipeline)
        return Trial(
            fix.name,
            pipeline,
            means,
            self.gain(base, pipeline),
            repaired,
            broken,
            fix.needs,
            self.cost(pipeline),
        )

    def cost(self, pipeline: Pipeline) -> dict[str, Any]:
        """Latency in ms, size in bytes, seconds to build; and the share of the corpus a filter leaves."""
        timed = _TIMED_RERANK if pipeline.rerank else _TIMED
        queries = self.dev.queries[:timed]
        cost: dict[str, Any] = {"p50_ms": None, "p95_ms": None}
        try:
            latency = self.systems.latency(pipeline, queries)
        except ModelError as error:
            if pipeline.model is None:
                raise
            # Its results are here and were paid for: what is lacking is the time it takes.
            cost["not_timed"] = error.what
            latency = None
        if latency is not None:
            cost.update(latency.as_dict())
        cost["index_bytes"] = self.systems.index_bytes(pipeline)
        cost["build_seconds"] = self._build_seconds(pipeline)
        price = self._price(pipeline)
        if price is not None:
            cost["price"] = price
        if pipeline.filters != "ignore":
            cost["selectivity"] = self._selectivity(pipeline)
        return cost

    def _build_seconds(self, pipeline: Pipeline) -> float | None:
        """Embedding the corpus here (from measured throughput) and building BM25; None where unknown."""
        seconds = 0.0
        if pipeline.system != "dense":
            seconds = self.systems.bm25.build_seconds
        if pipeline.dense:
            embedding = self._embedding(pipeline)
            if embedding is None:
                return None
            seconds += embedding["seconds"]
        return round(seconds, 1)

    def _price(self, pipeline: Pipeline) -> float | None:
        """What embedding the corpus costs, by `decide.cost_per_hour` and what an endpoint charges; None where neither is known."""
        embedding = self._embedding(pipeline) if pipeline.dense else None
        if embedding is None:
            return None
        price: float | None = embedding.get("price")
        return price

    def _embedding(self, pipeline: Pipeline) -> Mapping[str, Any] | None:
        """What embedding the corpus takes, measured once per model and chunks; None for sparse models."""
        key = (pipeline.model, pipeline.chunker)
        if key not in self._embedding_cost:
            self._embedding_cost[key] = self.systems.embedding_cost(pipeline)
        return self._embedding_cost[key]

    def _selectivity(self, pipeline: Pipeline) -> float:
        """Mean share of the documents that the filters leave, over the queries that have one."""
        filters = "inferred" if pipeline.filters == "boost" else pipeline.filters
        eligible = self.systems.eligible(filters)
        if eligible is None:
            return 1.0
        masks = [eligible(query) for query in self.dev.queries]
        shares = [mask.mean() for mask in masks if mask is not None]
        if not shares:
            return 1.0
        return round(float(np.mean(shares)), 4)
