"""A way to search, as plain values: what `fix` tries, `decide` judges and a generation serves."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from nearer.errors import DataError
from nearer.search import diversity
from nearer.search.base import Retriever
from nearer.search.filters import Fields, matches
from nearer.search.rewrite import Rewriter
from nearer.types import Hit, Query, Run, rank_hits

HYBRIDS = ("rrf", "convex")
#: Systems that search indexes of ours over the corpus.
_INDEXED = ("dense", "bm25", *HYBRIDS)

Filters = Literal["ignore", "declared", "inferred", "boost"]
#: Changes the results of queries: a preference, a reranker.
Reordering = Callable[[Run, Sequence[Query]], Run]


class _OwnSystems(Container[str]):
    """The user's own systems: `run`, `function`, `http`, and every retriever that is not ours."""

    def __contains__(self, system: object) -> bool:
        return system not in _INDEXED


OWN = _OwnSystems()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One way to search.  Equal values give equal results over the same corpus."""

    system: str = "dense"  # a retriever of `nearer.plugins`: dense, bm25, rrf, convex, or the user's own: run, function, http, module:Class
    model: str | None = None  # another embedding model, folder or name (None: the configured one)
    chunker: str = "document"
    compression: str = "float32"  # how vectors are kept, such as int8 or float32@128
    filters: Filters = "ignore"  # declared: the query's own; inferred: also those its text names; boost: those as a preference
    title_weight: float | None = None  # BM25 by field, the title counting this much
    weight: float | None = None  # of the dense part in convex
    rewrite: str | None = None  # acronyms, a dictionary file, or module:function
    rerank: int = 0  # results that the reranker orders anew
    diversity: float | None = None  # weight of relevance in lists whose items differ (MMR)

    @property
    def dense(self) -> bool:
        """Does it search vectors of ours?"""
        return self.system in ("dense", *HYBRIDS)

    @property
    def first(self) -> Pipeline:
        """The first stage alone: what is searched before rewriting, preferences and reranking."""
        filters = "ignore" if self.filters == "boost" else self.filters
        return replace(self, rerank=0, rewrite=None, filters=filters, diversity=None)

    @property
    def parts(self) -> tuple[Pipeline, Pipeline]:
        """The two halves of a hybrid: words and vectors."""
        plain = replace(self.first, weight=None)
        words = replace(plain, system="bm25", model=None, chunker="document", compression="float32")
        return words, replace(plain, system="dense", title_weight=None)

    @property
    def label(self) -> str:
        """A short name: the system, then everything that differs from the plain one."""
        parts = [self.system, *self._vector_labels()]
        if self.filters == "boost":
            parts.append("boosted filters")
        elif self.filters != "ignore":
            parts.append(f"{self.filters} filters")
        if self.title_weight is not None:
            parts.append(f"title ×{self.title_weight:g}")
        if self.rewrite:
            parts.append(f"rewriting ({self.rewrite.rpartition('/')[2]})")
        if self.rerank:
            parts.append(f"reranking {self.rerank}")
        if self.diversity is not None:
            parts.append(f"diversity {self.diversity:g}")
        return " + ".join(parts)

    def _vector_labels(self) -> list[str]:
        if not self.dense:
            return []
        labels = []
        if self.model:
            labels.append(short_name(self.model))
        if self.chunker != "document":
            labels.append(self.chunker)
        if self.compression != "float32":
            labels.append(self.compression)
        return labels

    def as_dict(self) -> dict[str, Any]:
        """What differs from the plain dense search, and the system."""
        plain = asdict(Pipeline())
        values: dict[str, Any] = {"system": self.system}
        for name, value in asdict(self).items():
            if value != plain[name]:
                values[name] = value
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pipeline:
        """Read what `as_dict` gave.  Raises DataError for keys that no pipeline has."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise DataError(
                f"not a search pipeline: {', '.join(unknown)}", next_step="nearer fix --force"
            )
        return cls(**values)

    def over(self, model: str | None) -> Pipeline:
        """The same with another embedding model; the weight of a hybrid is then open again."""
        return replace(self, model=model, weight=None)


def short_name(model: str) -> str:
    """The last part of a model's folder or name; of a folder that is called `model`, its parent's."""
    parts = [part for part in model.split("/") if part]
    if len(parts) > 1 and parts[-1] == "model":
        return parts[-2]
    return parts[-1] if parts else model


class PipelineRetriever:
    """First-stage results of a pipeline, then its rewriting before and its reordering after them."""

    def __init__(
        self,
        pipeline: Pipeline,
        first: Retriever,
        rewrite: Rewriter | None,
        reorderings: Sequence[Reordering],
    ) -> None:
        self.name = pipeline.label
        self._first, self._rewrite, self._reorderings = first, rewrite, reorderings
        self._depth = pipeline.rerank
        if pipeline.diversity is not None:
            self._depth = max(self._depth, diversity.DEPTH)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        rewritten = queries if self._rewrite is None else self._rewrite(queries)
        run = self._first.search(rewritten, max(k, self._depth))
        for reorder in self._reorderings:
            run = reorder(run, queries)
        results = {query_id: hits[:k] for query_id, hits in run.results.items()}
        return Run(self.name, results, run.seconds)


def boosted(
    run: Run, queries: Sequence[Query], corpus: Any, known: Fields, weight: float = 0.2
) -> Run:
    """Hits that satisfy a filter which the query names move up, the others stay: score in 0..1 plus `weight`."""
    results = {}
    for query in queries:
        hits = run.results.get(query.id, ())
        filters = [query.filter] if query.filter else known.infer(query.text)
        if hits and filters:
            hits = _preferred(hits, filters, corpus, known, weight)
        results[query.id] = hits
    return Run(run.name, results, run.seconds)


def _preferred(
    hits: Sequence[Hit],
    filters: Sequence[Mapping[str, Any]],
    corpus: Any,
    known: Fields,
    weight: float,
) -> list[Hit]:
    """Hits with scores in 0..1, plus `weight` where the document satisfies any of the filters."""
    low, high = hits[-1][1], hits[0][1]
    scale = high - low or 1.0
    scored = []
    for doc_id, score in hits:
        document = corpus.get(doc_id)
        bonus = 0.0
        if document is not None:
            metadata = known.read(document.metadata)
            if any(matches(filter, metadata) for filter in filters):
                bonus = weight
        scored.append((doc_id, (score - low) / scale + bonus))
    return rank_hits(scored)
