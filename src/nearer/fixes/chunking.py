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

_NOT_LATE = "this model cannot pool chunks out of a whole document's tokens"


class Chunking(Fix):
    name = "chunking"
    needs = "the corpus embedded again, more vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        impossible = self._impossible(systems)
        pipelines = []
        for spec in self.settings.fix.chunkers:
            if spec not in impossible and spec != base.chunker:
                pipelines.append(replace(base, chunker=spec, weight=None))
        return pipelines

    def _impossible(self, systems: Systems) -> list[str]:
        """Late chunkers, where the model cannot pool chunks out of a document's tokens."""
        if allows_late(systems.encoder):
            return []
        return [spec for spec in self.settings.fix.chunkers if spec.startswith(LATE)]

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if not base.dense:
            return Absence(self.name, f"{base.system} searches no vectors of ours")
        step = "nearer fix --set 'fix.chunkers=[tokens:128:32]'"
        impossible = self._impossible(systems)
        if impossible:
            return Absence(self.name, f"{_NOT_LATE} ({', '.join(impossible)})", step)
        return Absence(self.name, "no other chunks are named (fix.chunkers)", step)

    def left_out(self, base: Pipeline, systems: Systems, dev: Split) -> list[Absence]:
        """Late chunkers that were named and cannot be tried with this model."""
        return [
            Absence(
                self.name,
                f"{_NOT_LATE} ({spec})",
                f"nearer fix --set 'fix.chunkers=[{spec.removeprefix(LATE)}]'",
                part=True,
            )
            for spec in self._impossible(systems)
            if spec.removeprefix(LATE) not in self.settings.fix.chunkers
        ]

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
