"""Base model: other embedding models, and smaller vectors of the configured one."""

from __future__ import annotations

from dataclasses import replace

from nearer.data import sources
from nearer.embed.compress import Compression
from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import Pipeline
from nearer.search.sparse import is_sparse
from nearer.search.systems import Systems
from nearer.types import Split


class BaseModel(Fix):
    name = "base_model"
    needs = "the corpus embedded again"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        pipelines = []
        for model in self.settings.fix.models:
            whole = is_sparse(sources.resolve(systems.root, model))  # sparse models are not chunked
            chunker = "document" if whole else base.chunker
            pipelines.append(replace(base.over(model), chunker=chunker))
        dimension = systems.encoder.dimension
        for text in self.settings.fix.compressions:
            # A model of 300 dimensions keeps 296 bits: they are counted in bytes.
            compression = Compression.parse(text).in_whole_bytes(dimension)
            if compression is not None and str(compression) != base.compression:
                pipelines.append(replace(base, compression=str(compression), weight=None))
        return pipelines

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if not base.dense:
            return Absence(self.name, f"{base.system} searches no vectors of ours")
        return self._no_model()

    def unnamed(self) -> list[Absence]:
        """Smaller vectors are measured under the same name, but they are no other model."""
        return [] if self.settings.fix.models else [self._no_model()]

    def _no_model(self) -> Absence:
        step = "nearer fix --set 'fix.models=[FOLDER]'"
        return Absence(self.name, "no other embedding model is named (fix.models)", step)
