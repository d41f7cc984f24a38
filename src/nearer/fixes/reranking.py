"""Reranking: a cross-encoder over the first results, as deep as pays."""

from __future__ import annotations

from dataclasses import replace

from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Split


class Reranking(Fix):
    name = "reranking"
    needs = "a cross-encoder at query time; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if systems.reranker is None or base.rerank:
            return []
        deepest = self.settings.rerank.depth
        depths = {max(1, deepest // 5), max(1, deepest // 2), deepest}
        return [replace(base, rerank=depth) for depth in sorted(depths)]

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if systems.reranker is not None:
            return super().absent(base, systems, dev)
        step = "nearer fix --set rerank.model=train"
        return Absence(self.name, "no reranker is at hand (rerank.model)", step)
