"""Chunking: vectors of parts of documents; a document scores as its best part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nearer.diagnosis.values import Failure
from nearer.fixes.base import Absence, Fix
from nearer.search.late import allows_late
from nearer.search.pipeline import Pipeline
from nearer.search.systems import LATE, Systems
from nearer.types import Split


class Chunking(Fix):
    name = "chunking"
    needs = "the corpus embedded again, more vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        pipelines = []
        for spec in self.settings.fix.chunkers:
            possible = not spec.startswith(LATE) or allows_late(systems.encoder)
            if possible and spec != base.chunker:
                pipelines.append(replace(base, chunker=spec, weight=None))
        return pipelines

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if not base.dense:
            return Absence(self.name, f"{base.system} searches no vectors of ours")
        step = "nearer fix --set 'fix.chunkers=[tokens:128:32]'"
        return Absence(self.name, "no other chunks are named (fix.chunkers)", step)

    def suggested(self, failures: Sequence[Failure]) -> list[Absence]:
        """Finer pieces that the diagnosis found to repair failures, and `fix.chunkers` does not name."""
        counts: Counter[str] = Counter()
        for line in failures:
            finer = line.get("probes", {}).get("finer", {})
            if line["cause"] == "chunking" and finer.get("found"):
                counts[_best_variant(finer["variants"])] += 1
        return [
            Absence(
                self.name,
                f"{spec} finds {count} diagnosed failures and is not among fix.chunkers",
                f"nearer fix --set 'fix.chunkers=[{spec}]'",
                part=True,
            )
            for spec, count in counts.most_common()
            if spec not in self.settings.fix.chunkers
        ]


def _best_variant(variants: Mapping[str, int | None]) -> str:
    """The first variant of a probe, in their order, that has the best rank."""
    ranks = {spec: rank for spec, rank in variants.items() if rank is not None}
    return min(ranks, key=lambda spec: ranks[spec])
