"""The search systems of one configuration, and their results, each computed once.

A system is a `Pipeline`; the plain ones go by name: `dense`, `bm25`, `rrf`, `convex` (the hybrids
of the first two) and the user's own `run`, `function` or `http`.  Indexes, embeddings and results
that exist already are not made again, whichever stage asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nearer import progress
from nearer.config import Config
from nearer.data import sources
from nearer.data.corpus import Corpus
from nearer.embed.compress import Compression, compress
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ConfigError, DataError
from nearer.files import content_hash, value_hash
from nearer.measure.metrics import drop_self
from nearer.measure.slices import SliceEvidence, automatic_slices, terms
from nearer.search import fusion
from nearer.search.base import Retriever, timed
from nearer.search.chunkers import Chunked, chunk_corpus, make_chunker
from nearer.search.costs import embedding_cost
from nearer.search.dense import Contents, Dense
from nearer.search.external import Function, Http, RunFile
from nearer.search.filters import Fields
from nearer.search.late import late_vectors
from nearer.search.lexical import BM25, Fielded, Part
from nearer.search.pipeline import HYBRIDS, OWN, Pipeline, PipelineRetriever, boosted
from nearer.search.ranking import Eligible
from nearer.search.rerank import CachedReranker, Reranker
from nearer.search.rewrite import Expander, Rewriter, mine_acronyms, query_rewriter, read_synonyms
from nearer.search.sparse import SparseModel, SparseRetriever, is_sparse, load_sparse
from nearer.text import WORD_RULES
from nearer.types import Judgments, Query, Run, Split

LATE = "late:"  # before the name of a chunker: chunks are pooled out of the whole document's tokens


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
    read (`decide` alone adds test); `reranker` is what pipelines that rerank use.
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
        self.reranker: Reranker | None = None
        self.weight: float | None = None  # of the dense part in `convex`, tuned on dev
        self.root = root
        self.cache = cache
        self._splits = splits
        self._encoders: dict[str | None, SentenceEncoder] = (
            {} if encoder is None else {None: encoder}
        )
        self._bm25: dict[Part, BM25] = {} if bm25 is None else {"content": bm25}
        self._made: dict[Any, Any] = {}
        self._contents: dict[int, tuple[Split, str]] = {}
        cuts = [
            int(name.split("@")[1])
            for name in (*config.evaluate.measures, config.evaluate.primary)
            if "@" in name
        ]
        self.depth = max(config.evaluate.depth, *cuts, 10)

    # -- parts, each made once -------------------------------------------------------------------

    @property
    def today(self) -> str:
        """Name of today's system."""
        return self.config.search.system

    @property
    def encoder(self) -> SentenceEncoder:
        return self.encoder_of(None)

    def encoder_of(self, model: str | None) -> SentenceEncoder:
        """The encoder of another model, or of the configured one (None)."""
        if model not in self._encoders:
            settings = self.config.model
            if model is not None:
                settings = settings.of_another(model)
            self._encoders[model] = load_encoder(settings, self.root, cache=self.cache)
        return self._encoders[model]

    def space_of(self, model: str | None) -> SentenceEncoder | SparseModel:
        """What turns texts into the vectors of a model, dense or sparse: it has a name and a fingerprint."""
        sparse = self._sparse(model)
        return self.encoder_of(model) if sparse is None else sparse.model

    def embedding_seconds(self, pipeline: Pipeline) -> float | None:
        """What embedding the corpus for a pipeline takes here, from a sample; None for sparse models."""
        if self._sparse(pipeline.model) is not None:
            return None
        chunked = self.chunked(pipeline.chunker, pipeline.model)
        texts = Contents(self.corpus) if chunked is None else chunked.texts
        return float(embedding_cost(self.encoder_of(pipeline.model), texts)["seconds"])

    def vectors_of(self, chunker: str) -> np.ndarray:
        """float32 (n_chunks, dimension) of the configured model."""
        vectors: np.ndarray = self._vectors(Pipeline(chunker=chunker))
        return vectors

    @property
    def bm25(self) -> BM25:
        return self._index("content")

    @cached_property
    def fields(self) -> Fields:
        """What the documents' metadata looks like."""
        return Fields.of(self.corpus)

    @property
    def document_vectors(self) -> np.ndarray:
        """float32 (n_documents, dimension): whole documents, in corpus order."""
        vectors: np.ndarray = self._vectors(Pipeline())
        return vectors

    def chunked(self, chunker: str, model: str | None = None) -> Chunked | None:
        """Chunks of the corpus; None where every document is one."""
        spec = chunker.removeprefix(LATE)
        if spec == "document":
            return None

        def cut() -> Chunked:
            return chunk_corpus(
                self.corpus, make_chunker(spec, self.encoder_of(model).token_spans, self.root)
            )

        chunked: Chunked = self._once(("chunks", spec, model), cut)
        return chunked

    def base(self, name: str) -> Pipeline:
        """The pipeline of a plain system: today's chunks and filters, the tuned weight."""
        search = self.config.search
        applied = search.filters == "apply" and name not in OWN
        filters: Literal["declared", "ignore"] = "declared" if applied else "ignore"
        chunker = search.chunker if name in ("dense", *HYBRIDS) else "document"
        return Pipeline(
            name, chunker=chunker, filters=filters, weight=self.weight if name == "convex" else None
        )

    # -- searching ---------------------------------------------------------------------------------

    def search(self, name: str, split: Split, depth: int | None = None) -> Run:
        """Results of a plain system for the queries of a split."""
        return replace(self.run(self.base(name), split, depth), name=name)

    def run(self, pipeline: Pipeline, split: Split, depth: int | None = None) -> Run:
        """Results of a pipeline for the queries of a split; parts that other pipelines share are searched once."""
        depth = max(depth or self.depth, pipeline.rerank)
        key = ("run", pipeline, self._content(split), depth)
        if key not in self._made:
            if pipeline.first != pipeline and not pipeline.rewrite:
                found = self._after(
                    pipeline, _Known(self.run(pipeline.first, split, depth))
                ).search(split.queries, depth)
            elif pipeline.system in HYBRIDS and not pipeline.rewrite:
                lexical, dense = (self.run(part, split, depth) for part in _parts(pipeline))
                found = self._fuse(pipeline, lexical, dense, depth)
            else:
                found = self.retriever(pipeline).search(
                    split.queries, depth + int(self.item_to_item and pipeline.system in OWN)
                )
                found = drop_self(found) if self.item_to_item and pipeline.system in OWN else found
            self._made[key] = Run(pipeline.label, found.results, found.seconds, found.latencies)
        run: Run = self._made[key]
        return run

    def retriever(self, pipeline: Pipeline, cached: bool = True) -> Retriever:
        """The pipeline as something that answers any queries; `cached` False encodes every query anew, to time it."""
        if pipeline.system in OWN:
            first = self._own(pipeline.system)
        elif pipeline.system in HYBRIDS:
            lexical, dense = _parts(pipeline)
            depth = max(self.depth, pipeline.rerank)
            weight = self._weight(pipeline) if pipeline.system == "convex" else None
            first = fusion.Hybrid(
                self.scorer(lexical),
                self.scorer(dense, cached),
                weight,
                self.config.search.rrf_k,
                depth,
            )
        else:
            first = self.scorer(pipeline, cached)
        return self._after(pipeline, first, cached)

    def scorer(self, pipeline: Pipeline, cached: bool = True) -> Any:
        """The part of a pipeline that scores every document: its words (bm25) or its vectors (dense)."""
        eligible = self.eligible(pipeline.filters)
        if pipeline.system == "bm25":
            weight = pipeline.title_weight
            made = (
                self.bm25
                if weight is None
                else Fielded(self._index("title"), self._index("text"), weight)
            )
            return made.restricted(eligible)
        if (sparse := self._sparse(pipeline.model)) is not None:
            twin = sparse.restricted(eligible)
            twin.model = sparse.model if cached else sparse.model.without_cache()
            return twin
        encoder = self.encoder_of(pipeline.model)
        vectors: Any = self._vectors(pipeline)
        if pipeline.compression != "float32":
            key, spec = (
                ("compressed", pipeline.model, pipeline.chunker, pipeline.compression),
                Compression.parse(pipeline.compression),
            )
            vectors = self._once(
                key, lambda: compress(self._vectors(pipeline), spec, encoder.similarity)
            )
        chunked = self.chunked(pipeline.chunker, pipeline.model)
        return Dense(
            encoder if cached else encoder.without_cache(),
            self.corpus,
            chunked=chunked,
            vectors=vectors,
            eligible=eligible,
        )

    def eligible(self, filters: str) -> Eligible | None:
        """Which documents may be results of a query: its filters, and never the query itself."""
        if filters in ("ignore", "boost") and not self.item_to_item:
            return None

        def mask(query: Query) -> np.ndarray | None:
            chosen = (
                self.fields.eligible(query.filter)
                if query.filter and filters in ("declared", "inferred")
                else None
            )
            for named in self.fields.infer(query.text) if filters == "inferred" else ():
                narrower = (
                    self.fields.eligible(named)
                    if chosen is None
                    else chosen & self.fields.eligible(named)
                )
                chosen = narrower if narrower.any() else chosen
            if self.item_to_item and query.id in self.corpus:
                chosen = np.ones(len(self.corpus), bool) if chosen is None else chosen.copy()
                chosen[self.corpus.position(query.id)] = False
            return chosen

        return mask

    # -- tuning and costs --------------------------------------------------------------------------

    def tune(self, dev: Split, measure: str) -> float:
        """Choose the weight of `convex` on dev, once; the choice is kept in `weight`."""
        if self.weight is None:
            self.weight = self.tuned(self.base("convex"), dev, measure).weight
        return self.weight or 0.0

    def tuned(self, pipeline: Pipeline, dev: Split, measure: str) -> Pipeline:
        """The pipeline with the weight of its hybrid chosen on dev; others come back as they are."""
        if pipeline.system != "convex" or pipeline.weight is not None:
            return pipeline
        parts = _parts(pipeline)

        def best() -> float:
            lexical, dense = (self.run(part, dev) for part in parts)
            return fusion.tune_convex(lexical, dense, dev, measure).weight

        key = ("weight", parts, self._content(dev), measure)
        return replace(pipeline, weight=self._once(key, best))

    def latency(self, pipeline: Pipeline, queries: Sequence[Query]) -> Latency | None:
        """p50 and p95 of asking one query at a time; None where the system is a file of results.

        The caches stand aside: a query nobody asked before must be encoded.
        """
        if pipeline.system == "run" or not queries:
            return None
        system = self.retriever(pipeline, cached=False)
        with progress.listen(progress.SILENT):
            times = [1000 * seconds for seconds in timed(system, queries, self.depth)]
        return Latency(*(round(float(np.percentile(times, q)), 3) for q in (50, 95)))

    def index_bytes(self, pipeline: Pipeline) -> int | None:
        """Size of what a pipeline searches; None for the user's own."""
        if pipeline.system in OWN:
            return None
        lexical, dense = _parts(pipeline)
        size = 0
        if pipeline.dense:
            scorer = self.scorer(dense)
            size += int(scorer.documents.nbytes if isinstance(scorer, Dense) else scorer.nbytes)
        return size + (int(self.scorer(lexical).nbytes) if pipeline.system != "dense" else 0)

    # -- wiring ----------------------------------------------------------------------------------

    def _content(self, split: Split) -> str:
        """A hash of the queries and judgments of a split: another split may have the same name."""
        known = self._contents.get(id(split))
        if known is None:
            content = repr((split.queries, split.judgments)).encode("utf-8", "replace")
            known = split, hashlib.sha256(content).hexdigest()
            self._contents[id(split)] = known  # the split is kept, so that its id stays its own
        return known[1]

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _vectors(self, pipeline: Pipeline) -> Any:
        """Vectors of the documents or chunks, float32."""
        encoder, chunked = (
            self.encoder_of(pipeline.model),
            self.chunked(pipeline.chunker, pipeline.model),
        )
        if chunked is not None and pipeline.chunker.startswith(LATE):
            return self._once(
                ("vectors", pipeline.model, pipeline.chunker),
                lambda: late_vectors(encoder, self.corpus, chunked),
            )
        plain = Dense(encoder, self.corpus, chunked=chunked)
        return self._once(("vectors", pipeline.model, pipeline.chunker), lambda: plain.documents)

    def _fuse(self, pipeline: Pipeline, lexical: Run, dense: Run, depth: int) -> Run:
        if pipeline.system == "rrf":
            return fusion.rrf([lexical, dense], self.config.search.rrf_k, depth)
        return fusion.convex(lexical, dense, self._weight(pipeline), depth)

    def _weight(self, pipeline: Pipeline) -> float:
        if pipeline.weight is None:
            raise ConfigError(
                "the convex hybrid has no weight yet",
                next_step="call Systems.tune(dev, measure) first",
            )
        return pipeline.weight

    def _after(self, pipeline: Pipeline, first: Retriever, cached: bool = True) -> Retriever:
        """First-stage results with the pipeline's rewriting, preferences and reranking around them."""
        if not (pipeline.rewrite or pipeline.rerank or pipeline.filters == "boost"):
            return first
        reranker = None
        if pipeline.rerank:
            if self.reranker is None:
                raise ConfigError(
                    "this pipeline needs a reranker",
                    where="rerank.model",
                    next_step="set rerank.model, then nearer fix",
                )
            reranker = (
                self.reranker.without_cache()
                if isinstance(self.reranker, CachedReranker) and not cached
                else self.reranker
            )
        return PipelineRetriever(
            first,
            corpus=self.corpus,
            name=pipeline.label,
            rewrite=self.rewriter(pipeline.rewrite) if pipeline.rewrite else None,
            boost=partial(boosted, corpus=self.corpus, known=self.fields)
            if pipeline.filters == "boost"
            else None,
            reranker=reranker,
            depth=pipeline.rerank,
        )

    def rewriter(self, spec: str) -> Rewriter:
        """What rewrites queries: `acronyms` mined from the corpus, a dictionary file, or module:function."""

        def make() -> Rewriter:
            if spec == "acronyms":
                return Expander(mine_acronyms(self.corpus.contents()))
            path = sources.resolve(self.root, spec)
            return (
                Expander(read_synonyms(path)) if path.is_file() else query_rewriter(spec, self.root)
            )

        rewriter: Rewriter = self._once(("rewriter", spec), make)
        return rewriter

    def _own(self, name: str) -> Retriever:
        search, known = self.config.search, frozenset(self.corpus.ids)
        makers: dict[str, Callable[[], Retriever]] = {
            "run": lambda: RunFile(_run_paths(search.run, self.root, self._splits), known=known),
            "function": lambda: Function(
                _required(search.function, "search.function"), self.root, known=known
            ),
            "http": lambda: Http(_required(search.url, "search.url"), search.timeout, known=known),
        }
        retriever: Retriever = self._once(("own", name), makers[name])
        return retriever

    def _sparse(self, model: str | None) -> SparseRetriever | None:
        """The learned sparse model of a folder; None for embedding models."""
        if model is None or not is_sparse(sources.resolve(self.root, model)):
            return None
        settings = self.config.model.of_another(model)
        made = ("sparse", model)
        if made not in self._made:
            self._made[made] = SparseRetriever(
                load_sparse(settings, self.root, cache=self.cache), self.corpus
            )
            self._made[made].postings  # noqa: B018 - twins share what is computed here
        sparse: SparseRetriever = self._made[made]
        return sparse

    def _index(self, part: Part) -> BM25:
        if part not in self._bm25:
            self._bm25[part] = self._load_bm25(part)
        return self._bm25[part]

    def _load_bm25(self, part: Part) -> BM25:
        search = self.config.search
        if self.cache is None:
            return BM25(self.corpus, search.stemmer, search.stopwords, part)
        files = sources.external_inputs("corpus", self.config, self.root) or {}
        key = value_hash(
            {
                "corpus": [content_hash(path) for path in files.values() if isinstance(path, Path)],
                "columns": self.config.data.columns.model_dump(),
                "stemmer": search.stemmer,
                "stopwords": search.stopwords,
                "part": part,
                "words": WORD_RULES,
            }
        )
        folder = self.cache / "bm25" / key[:16]
        try:
            return BM25.load(folder, self.corpus)
        except DataError:  # there is none yet
            built = BM25(self.corpus, search.stemmer, search.stopwords, part)
            built.save(folder)
            return built


class _Known:
    """Results that are there already, as a retriever."""

    def __init__(self, run: Run) -> None:
        self.name, self._run = run.name, run

    def search(self, queries: Sequence[Query], k: int) -> Run:
        return self._run


def _parts(pipeline: Pipeline) -> tuple[Pipeline, Pipeline]:
    """The two halves of a hybrid: words and vectors."""
    plain = replace(pipeline.first, weight=None)
    lexical = replace(plain, system="bm25", model=None, chunker="document", compression="float32")
    return lexical, replace(plain, system="dense", title_weight=None)


def document_frequencies(corpus: Corpus, wanted: Collection[str]) -> dict[str, int]:
    """In how many documents each of the wanted terms stands."""
    frequencies, wanted = dict.fromkeys(wanted, 0), set(wanted)
    for text in corpus.contents():
        for term in wanted.intersection(terms(text)):
            frequencies[term] += 1
    return frequencies


def slices_of(
    split: Split, corpus: Corpus, min_grade: int, trained: Judgments | None = None
) -> Mapping[str, set[str]]:
    """Slices of a split by tags and by what its queries and relevant documents look like."""
    frequencies = document_frequencies(
        corpus, {term for query in split.queries for term in terms(query.text)}
    )
    relevant = {
        doc_id
        for judged in split.judgments.values()
        for doc_id, grade in judged.items()
        if grade >= min_grade
    }
    texts = {
        doc_id: document.content
        for doc_id in sorted(relevant)
        if (document := corpus.get(doc_id)) is not None
    }
    seen = None
    if trained is not None:
        seen = {
            doc_id
            for judged in trained.values()
            for doc_id, grade in judged.items()
            if grade >= min_grade
        }
    return automatic_slices(
        split.queries, SliceEvidence(split.judgments, texts, frequencies, seen, min_grade)
    )


def _run_paths(
    value: str | Mapping[Any, str] | None, root: Path, splits: Sequence[str]
) -> list[Path]:
    if value is None:
        raise ConfigError(
            "search.system is run, but search.run names no file",
            next_step="set search.run to a TREC run file",
        )
    names = (
        [value] if isinstance(value, str) else [value[split] for split in splits if split in value]
    )
    return [sources.named(root, name, "search.run") for name in names]


def _required(value: str | None, key: str) -> str:
    if not value:
        raise ConfigError(f"{key} is not set", next_step=f"set {key} in nearer.yaml")
    return value
