"""A way to search, as plain values: what `fix` tries, `decide` judges and a generation serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from nearer.errors import DataError
from nearer.search.base import Retriever
from nearer.search.filters import Fields, matches
from nearer.search.rerank import Reranker, rerank
from nearer.search.rewrite import Rewriter
from nearer.types import Query, Run, rank_hits

HYBRIDS = ("rrf", "convex")
OWN = ("run", "function", "http")

Filters = Literal["ignore", "declared", "inferred", "boost"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One way to search.  Equal values give equal results over the same corpus."""

    system: str = "dense"  # dense, bm25, rrf, convex, or the user's own: run, function, http
    model: str | None = None  # another embedding model, folder or name (None: the configured one)
    chunker: str = "document"
    compression: str = "float32"  # how vectors are kept, such as int8 or float32@128
    filters: Filters = "ignore"  # declared: the query's own; inferred: also those its text names; boost: those as a preference
    title_weight: float | None = None  # BM25 a field, the title counting this much
    weight: float | None = None  # of the dense part in convex
    rewrite: str | None = None  # acronyms, a dictionary file, or module:function
    rerank: int = 0  # results that the reranker orders anew

    @property
    def dense(self) -> bool:
        """Does it search vectors of ours?"""
        return self.system in ("dense", *HYBRIDS)

    @property
    def first(self) -> Pipeline:
        """The first stage alone: what is searched before rewriting, preferences and reranking."""
        return replace(
            self,
            rerank=0,
            rewrite=None,
            filters="ignore" if self.filters == "boost" else self.filters,
        )

    @property
    def label(self) -> str:
        """A short name: the system, then everything that differs from the plain one."""
        parts = [self.system]
        if self.dense and self.model:
            parts.append(self.model.rstrip("/").rpartition("/")[2])
        parts += [self.chunker] if self.dense and self.chunker != "document" else []
        parts += [self.compression] if self.dense and self.compression != "float32" else []
        parts += (
            [f"{self.filters} filters" if self.filters != "boost" else "boosted filters"]
            if self.filters != "ignore"
            else []
        )
        parts += [f"title ×{self.title_weight:g}"] if self.title_weight is not None else []
        parts += [f"rewriting ({self.rewrite.rpartition('/')[2]})"] if self.rewrite else []
        parts += [f"reranking {self.rerank}"] if self.rerank else []
        return " + ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """What differs from the plain dense search, and the system."""
        plain = Pipeline()
        return {"system": self.system} | {
            name: value for name, value in asdict(self).items() if value != getattr(plain, name)
        }

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


class PipelineRetriever:
    """First-stage results, then rewriting before and preferences and reranking after them."""

    def __init__(
        self,
        first: Retriever,
        *,
        corpus: Any,
        name: str,
        rewrite: Rewriter | None = None,
        boost: Callable[[Run, Sequence[Query]], Run] | None = None,
        reranker: Reranker | None = None,
        depth: int = 0,
    ) -> None:
        self.name = name
        self._first, self._corpus = first, corpus
        self._rewrite, self._boost, self._reranker, self._depth = rewrite, boost, reranker, depth

    def search(self, queries: Sequence[Query], k: int) -> Run:
        asked = queries if self._rewrite is None else self._rewrite(queries)
        run = self._first.search(asked, max(k, self._depth))
        if self._boost is not None:
            run = self._boost(run, queries)
        if self._reranker is not None:
            run = rerank(run, queries, self._corpus, self._reranker, self._depth)
        return Run(
            self.name, {query_id: hits[:k] for query_id, hits in run.results.items()}, run.seconds
        )


def boosted(
    run: Run, queries: Sequence[Query], corpus: Any, known: Fields, weight: float = 0.2
) -> Run:
    """Hits that satisfy a filter which the query names move up, the others stay: score in 0..1 plus `weight`."""
    results = {}
    for query in queries:
        hits = run.results.get(query.id, ())
        wanted = [query.filter] if query.filter else known.infer(query.text)
        if hits and wanted:
            low, high = hits[-1][1], hits[0][1]
            scale = high - low or 1.0

            def preferred(doc_id: str, wanted: Sequence[Mapping[str, Any]] = wanted) -> bool:
                document = corpus.get(doc_id)
                return document is not None and any(
                    matches(one, known.read(document.metadata)) for one in wanted
                )

            hits = rank_hits(
                (d, (s - low) / scale + (weight if preferred(d) else 0.0)) for d, s in hits
            )
        results[query.id] = hits
    return Run(run.name, results, run.seconds)
