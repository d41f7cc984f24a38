"""Reranking: a cross-encoder over the first results, as deep as pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Split

#: Every depth is read for the plain baseline and again inside the ladder.
_READ = 2


class Reranking(Fix):
    name = "reranking"
    needs = "a cross-encoder at query time; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if systems.reranker is None or base.rerank:
            return []
        return [replace(base, rerank=depth) for depth in self._affordable(systems, dev)]

    def cheaper(self, best: Pipeline, variants: Sequence[Pipeline]) -> list[Pipeline]:
        """Smaller depths: each pair that is read is latency."""
        smaller = [variant for variant in variants if variant.rerank < best.rerank]
        return sorted(smaller, key=lambda variant: variant.rerank)

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if systems.reranker is None:
            lacking = systems.lacking
            return Absence(self.name, lacking.why, f"nearer fix --set {lacking.setting}")
        if base.rerank or not systems.config.rerank.automatic:
            return super().absent(base, systems, dev)
        (absence,) = self._too_deep(systems, dev, self._depths())
        return replace(absence, part=False)

    def left_out(self, base: Pipeline, systems: Systems, dev: Split) -> list[Absence]:
        """Depths that would take longer than `rerank.budget`."""
        if systems.reranker is None or base.rerank:
            return []
        read = self._affordable(systems, dev)
        return self._too_deep(systems, dev, [d for d in self._depths() if d not in read])

    def _depths(self) -> list[int]:
        deepest = self.settings.rerank.depth
        return sorted({max(1, deepest // 5), max(1, deepest // 2), deepest})

    def _affordable(self, systems: Systems, dev: Split) -> list[int]:
        """The depths that are measured; one that was asked for by name is measured whatever it takes."""
        depths = self._depths()
        if not self.settings.rerank.automatic:
            return depths
        seconds = self.settings.rerank.budget / _READ
        most = systems.affordable_depth(dev, depths[-1], seconds)
        return [depth for depth in depths if depth <= most]

    def _too_deep(self, systems: Systems, dev: Split, depths: Sequence[int]) -> list[Absence]:
        if not depths:
            return []
        budget = self.settings.rerank.budget
        pairs = depths[-1] * len(dev.queries)
        named = ", ".join(map(str, depths))
        needed = systems.seconds_per_pair(dev) * _READ * pairs
        why = (
            f"reading the first {named} results of {len(dev.queries):,} dev queries takes about "
            f"{needed:,.0f} s here, and rerank.budget is {budget:,.0f} s"
        )
        step = f"nearer fix --set rerank.budget={int(needed * 1.5) + 1}s"
        return [Absence(self.name, why, step, part=True)]
