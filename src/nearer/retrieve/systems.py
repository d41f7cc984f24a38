"""The search systems of one configuration, and their results, each computed once.

Names: `dense`, `bm25`, `rrf`, `convex` (the hybrids of the first two) and the user's own `run`,
`function` or `http`.  Stages ask for `search(name, split)`; indexes, embeddings and results that
exist already are not made again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer.config import Config
from nearer.data import sources
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError, DataError
from nearer.files import content_hash, value_hash
from nearer.measure.metrics import drop_self
from nearer.measure.slices import SliceEvidence, automatic_slices, terms
from nearer.retrieve import fusion
from nearer.retrieve.base import Retriever
from nearer.retrieve.dense import Dense
from nearer.retrieve.encoder import SentenceEncoder, load_encoder
from nearer.retrieve.external import Function, Http, RunFile
from nearer.retrieve.lexical import BM25
from nearer.types import Judgments, Query, Run, Split

HYBRIDS = ("rrf", "convex")
OWN = ("run", "function", "http")
_TIMED = 50  # queries asked one at a time to measure latency


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a query, asked one at a time, encoding included."""

    p50_ms: float
    p95_ms: float

    def as_dict(self) -> dict[str, float]:
        return {"p50_ms": self.p50_ms, "p95_ms": self.p95_ms}


class Systems:
    """Systems over one corpus and one embedding model.

    `item_to_item` drops each query from its own results; `splits` are those whose run files may be
    read (`decide` alone adds test).
    """

    def __init__(  # noqa: PLR0913 - one place that wires everything; all but the first three are keywords
        self,
        config: Config,
        root: Path,
        corpus: Corpus,
        *,
        cache: Path | None = None,
        item_to_item: bool = False,
        encoder: SentenceEncoder | None = None,
        bm25: BM25 | None = None,
        splits: Sequence[str] = ("dev",),
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.item_to_item = item_to_item
        self._root = root
        self._cache = cache
        self._splits = splits
        self._encoder = encoder
        self._bm25 = bm25
        self._retrievers: dict[str, Retriever] = {}
        self._runs: dict[tuple[str, str, int], Run] = {}
        self.weight: float | None = None  # of the dense part in `convex`, tuned on dev
        cuts = [int(name.split("@")[1]) for name in (*config.evaluate.measures, config.evaluate.primary) if "@" in name]
        self.depth = max(config.evaluate.depth, *cuts, 10)

    @property
    def today(self) -> str:
        """Name of today's system."""
        return self.config.search.system

    @property
    def encoder(self) -> SentenceEncoder:
        if self._encoder is None:
            self._encoder = load_encoder(self.config.model, self._root, cache=self._cache)
        return self._encoder

    @property
    def bm25(self) -> BM25:
        if self._bm25 is None:
            self._bm25 = self._load_bm25()
        return self._bm25

    @property
    def document_vectors(self) -> np.ndarray:
        """float32 (n_documents, dimension), in corpus order."""
        dense = self.retriever("dense")
        assert isinstance(dense, Dense)  # noqa: S101 - ours, three lines below
        return dense.documents

    def retriever(self, name: str) -> Retriever:
        """The system itself; hybrids have none of their own (they fuse two results)."""
        if name not in self._retrievers:
            search = self.config.search
            if name == "dense":
                made: Retriever = Dense(self.encoder, self.corpus)
            elif name == "bm25":
                made = self.bm25
            elif name == "run":
                made = RunFile(_run_paths(search.run, self._root, self._splits), known=frozenset(self.corpus.ids))
            elif name == "function":
                made = Function(_required(search.function, "search.function"), self._root, known=frozenset(self.corpus.ids))
            elif name == "http":
                made = Http(_required(search.url, "search.url"), search.timeout, known=frozenset(self.corpus.ids))
            else:
                raise ConfigError(f"no system called {name!r}", next_step="use dense, bm25, rrf, convex, run, function or http")
            self._retrievers[name] = made
        return self._retrievers[name]

    def search(self, name: str, split: Split, depth: int | None = None) -> Run:
        """Results of a system for the queries of a split."""
        depth = depth or self.depth
        key = (name, split.name, depth)
        if key not in self._runs:
            if name in HYBRIDS:
                run = self._fuse(name, self.search("bm25", split, depth), self.search("dense", split, depth), depth)
            else:
                run = self.retriever(name).search(split.queries, depth + 1 if self.item_to_item else depth)
                run = drop_self(run) if self.item_to_item else run
            self._runs[key] = Run(name, run.results, run.seconds, run.latencies)
        return self._runs[key]

    def tune(self, dev: Split, measure: str) -> float:
        """Choose the weight of `convex` on dev, once; the choice is kept in `weight`."""
        if self.weight is None:
            self.weight, _ = fusion.tune_convex(self.search("bm25", dev), self.search("dense", dev), dev, measure)
        return self.weight

    def latency(self, name: str, queries: Sequence[Query]) -> Latency | None:
        """p50 and p95 of asking one query at a time; None where the system is a file of results.

        The embedding cache stands aside: a query nobody asked before must be encoded.
        """
        if name == "run" or not queries:
            return None
        sample = list(queries[:_TIMED])
        system = self._uncached(name)
        system.search(sample[:1], self.depth)  # warm-up
        times = []
        for query in sample:
            started = time.perf_counter()
            system.search([query], self.depth)
            times.append(1000 * (time.perf_counter() - started))
        return Latency(*(round(float(np.percentile(times, q)), 3) for q in (50, 95)))

    def index_bytes(self, name: str) -> int | None:
        """Size of what a system searches; None for the user's own."""
        if name in OWN:
            return None
        dense = 4 * len(self.corpus) * self.encoder.dimension if name != "bm25" else 0
        return dense + (self.bm25.nbytes if name != "dense" else 0)

    # -- wiring ----------------------------------------------------------------------------------

    def _fuse(self, name: str, lexical: Run, dense: Run, depth: int) -> Run:
        if name == "rrf":
            return fusion.rrf([lexical, dense], self.config.search.rrf_k, depth)
        if self.weight is None:
            raise ConfigError("the convex hybrid has no weight yet", next_step="call Systems.tune(dev, measure) first")
        return fusion.convex(lexical, dense, self.weight, depth)

    def _uncached(self, name: str) -> Retriever:
        if name in HYBRIDS:
            weight = self.weight if name == "convex" else None
            return fusion.Hybrid(self.bm25, self._uncached("dense"), weight, self.config.search.rrf_k, self.depth)
        if name == "dense":
            return Dense(self.encoder.without_cache(), self.corpus, vectors=self.document_vectors)
        return self.retriever(name)

    def _load_bm25(self) -> BM25:
        search = self.config.search
        if self._cache is None:
            return BM25(self.corpus, search.stemmer, search.stopwords)
        files = sources.external_inputs("corpus", self.config, self._root) or {}
        key = value_hash(
            {
                "corpus": [content_hash(path) for path in files.values() if isinstance(path, Path)],
                "columns": self.config.data.columns.model_dump(),
                "stemmer": search.stemmer,
                "stopwords": search.stopwords,
            }
        )
        folder = self._cache / "bm25" / key[:16]
        try:
            return BM25.load(folder, self.corpus)
        except DataError:  # there is none yet
            built = BM25(self.corpus, search.stemmer, search.stopwords)
            built.save(folder)
            return built


def slices_of(split: Split, corpus: Corpus, min_grade: int, trained: Judgments | None = None) -> Mapping[str, set[str]]:
    """Slices of a split by tags and by what its queries and relevant documents look like."""
    wanted = {term for query in split.queries for term in terms(query.text)}
    frequencies = dict.fromkeys(wanted, 0)
    for text in corpus.contents():
        for term in wanted.intersection(terms(text)):
            frequencies[term] += 1
    relevant = {doc_id for judged in split.judgments.values() for doc_id, grade in judged.items() if grade >= min_grade}
    texts = {doc_id: document.content for doc_id in sorted(relevant) if (document := corpus.get(doc_id)) is not None}
    seen = None
    if trained is not None:
        seen = {doc_id for judged in trained.values() for doc_id, grade in judged.items() if grade >= min_grade}
    return automatic_slices(split.queries, SliceEvidence(split.judgments, texts, frequencies, seen, min_grade))


def _run_paths(value: str | Mapping[Any, str] | None, root: Path, splits: Sequence[str]) -> list[Path]:
    if value is None:
        raise ConfigError("search.system is run, but search.run names no file", next_step="set search.run to a TREC run file")
    names = [value] if isinstance(value, str) else [value[split] for split in splits if split in value]
    return [sources.named(root, name, "search.run") for name in names]


def _required(value: str | None, key: str) -> str:
    if not value:
        raise ConfigError(f"{key} is not set", next_step=f"set {key} in nearer.yaml")
    return value
