"""Simpler fixes than fine-tuning: each says which pipelines to try, and what it needs in production.

A fix of your own needs these three members; `variants` gets the pipeline so far and returns others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from nearer.config import Config
from nearer.data import sources
from nearer.retrieve.late import allows_late
from nearer.retrieve.pipeline import HYBRIDS, OWN, Filters, Pipeline
from nearer.retrieve.sparse import is_sparse
from nearer.retrieve.systems import LATE, Systems
from nearer.types import Split


class Fix(Protocol):
    """One kind of repair."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> str:
        """What it takes in production."""

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> Sequence[Pipeline]:
        """Pipelines to try instead of `base`; none where the fix does not apply."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Declared filters, filters that the query's text names, or a preference for what it names."""

    name: str = "metadata"
    needs: str = "metadata kept right; the application passes its filter on"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.filters not in ("ignore", "declared"):
            return []
        declared = any(query.filter for query in dev.queries)
        named = any(systems.fields.infer(query.text) for query in dev.queries)
        names: list[Filters] = ["declared"] if declared and base.filters == "ignore" else []
        names += ["inferred", "boost"] if named else ["boost"] if declared else []
        return [
            replace(base, filters=name)
            for name in names
            if name == "boost" or base.system not in OWN
        ]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Queries with their acronyms and synonyms written out."""

    specs: tuple[str, ...]
    name: str = "rewriting"
    needs: str = "a dictionary that somebody keeps; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.rewrite or base.system == "run":
            return []
        return [
            replace(base, rewrite=spec)
            for spec in self.specs
            if systems.rewriter(spec)(dev.queries) != list(dev.queries)
        ]


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Words beside vectors: by ranks, or by scores with a weight tuned on dev; the title as a field of its own."""

    title_weights: tuple[float, ...]
    name: str = "hybrid"
    needs: str = "a BM25 index beside the vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        systems_tried = [name for name in HYBRIDS if name != base.system]
        tried = [
            replace(base, system=name, weight=None, title_weight=None) for name in systems_tried
        ]
        if any(
            systems.corpus[place].title
            for place in range(0, len(systems.corpus), max(1, len(systems.corpus) // 200))
        ):
            tried += [
                replace(base, system="convex", weight=None, title_weight=weight)
                for weight in self.title_weights
            ]
        return tried


@dataclass(frozen=True, slots=True)
class Reranking:
    """A cross-encoder over the first results, as deep as pays."""

    depth: int
    name: str = "reranking"
    needs: str = "a cross-encoder at query time; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if systems.reranker is None or base.rerank:
            return []
        return [
            replace(base, rerank=depth)
            for depth in sorted({max(1, self.depth // 5), max(1, self.depth // 2), self.depth})
        ]


@dataclass(frozen=True, slots=True)
class Chunking:
    """Vectors of parts of documents; a document scores as its best part."""

    specs: tuple[str, ...]
    name: str = "chunking"
    needs: str = "the corpus embedded again, more vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        able = [
            spec for spec in self.specs if not spec.startswith(LATE) or allows_late(systems.encoder)
        ]
        return [_again(base, chunker=spec) for spec in able if spec != base.chunker]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Other embedding models, and smaller vectors of today's."""

    models: tuple[str, ...]
    compressions: tuple[str, ...]
    name: str = "base_model"
    needs: str = "the corpus embedded again"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        others = [
            replace(
                base.over(model), chunker="document" if _sparse(systems, model) else base.chunker
            )
            for model in self.models
        ]
        return others + [
            _again(base, compression=spec) for spec in self.compressions if spec != base.compression
        ]


def _again(base: Pipeline, **changes: str) -> Pipeline:
    """The pipeline with other vectors: the weight of a hybrid is tuned again."""
    return replace(base, weight=None, **changes)  # type: ignore[arg-type]


def _sparse(systems: Systems, model: str) -> bool:
    return is_sparse(sources.resolve(systems.root, model))


def fixes_of(settings: Config) -> list[Fix]:
    """The fixes that the configuration asks for, in its order (cheapest first)."""
    fix = settings.fix
    known: dict[str, Fix] = {
        "metadata": Metadata(),
        "rewriting": Rewriting(fix.rewriters),
        "hybrid": Hybrid(fix.title_weights),
        "reranking": Reranking(settings.rerank.depth),
        "chunking": Chunking(fix.chunkers),
        "base_model": BaseModel(fix.models, fix.compressions),
    }
    return [known[name] for name in fix.fixes]
