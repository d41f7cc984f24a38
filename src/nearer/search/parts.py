"""The parts that search systems share, each made once: encoders, indexes, chunks, vectors, fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearer import shortlist
from nearer.config import Config
from nearer.data import sources
from nearer.data.corpus import Corpus
from nearer.data.items import history_of
from nearer.embed.base import TextEncoder
from nearer.embed.compress import Compression, compress
from nearer.embed.opening import open_encoder
from nearer.search.chunkers import Chunked, chunk_corpus, make_chunker
from nearer.search.costs import embedding_cost
from nearer.search.dense import Contents, Dense
from nearer.search.filters import Fields, own_extraction
from nearer.search.late import late_vectors
from nearer.search.lexical import BM25, Part, kept_bm25
from nearer.search.multivector import (
    MultiVectorModel,
    MultiVectorRetriever,
    is_multi_vector,
    load_multi_vector,
)
from nearer.search.others import OtherModels
from nearer.search.pipeline import Pipeline
from nearer.search.ranking import Eligible
from nearer.search.rerank import Lacking, Reranker
from nearer.search.rewrite import Expander, Rewriter, mine_acronyms, query_rewriter, read_synonyms
from nearer.search.sparse import SparseModel, SparseRetriever, is_sparse, load_sparse
from nearer.types import Judgments, Query

LATE = "late:"  # before the name of a chunker: chunks are pooled out of the whole document's tokens


class Parts:
    """Parts over one corpus and one embedding model; those that exist are not made again.

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
        encoder: TextEncoder | None = None,
        bm25: BM25 | None = None,
        reranker: Reranker | None = None,
        splits: Sequence[str] = ("dev",),
    ) -> None:
        self.config = config
        self.root = root
        self.corpus = corpus
        self.cache = cache
        self.item_to_item = item_to_item
        self.splits = splits
        self.reranker = reranker
        self.lacking = Lacking()  # why there is no reranker, where there is none
        #: Reads the training judgments, where a task recommends by what people did.
        self.read_trained: Callable[[], Judgments] = dict
        self._kept: dict[Any, Any] = {}
        if encoder is not None:
            self._kept["encoder", None] = encoder
        if bm25 is not None:
            self._kept["bm25", "content"] = bm25

    def with_reranker(self, reranker: Reranker | None, lacking: Lacking | None = None) -> Self:
        """The same systems, parts and results shared, with this reranker; `lacking` says why there is none."""
        twin = copy(self)
        twin.reranker = reranker
        twin.lacking = lacking or Lacking()
        return twin

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` makes, kept under a key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @cached_property
    def known_ids(self) -> frozenset[str]:
        """Ids of all documents."""
        return frozenset(self.corpus.ids)

    @cached_property
    def trained(self) -> Judgments:
        """Training judgments, for systems that recommend by what people did; none in other tasks."""
        return self.read_trained()

    def item_vectors(self, doc_ids: Sequence[str]) -> np.ndarray:
        """float32 (n_ids, dimension) of whole documents.  Raises KeyError for an unknown id."""
        return self.document_vectors[[self.corpus.position(doc_id) for doc_id in doc_ids]]

    # -- models and their vectors ------------------------------------------------------------------

    @property
    def encoder(self) -> TextEncoder:
        return self.encoder_of(None)

    def encoder_of(self, model: str | None) -> TextEncoder:
        """The encoder of another model, or of the configured one (None)."""

        def load() -> TextEncoder:
            settings = self.config.model
            if model is not None:
                settings = settings.of_another(model)
            return open_encoder(settings, self.root, cache=self.cache)

        encoder: TextEncoder = self.once(("encoder", model), load)
        return encoder

    def sparse(self, model: str | None) -> SparseRetriever | None:
        """The learned sparse model of a folder; None for embedding models."""
        if model is None or not self._is_sparse(model):
            return None

        def load() -> SparseRetriever:
            settings = self.config.model.of_another(model)
            retriever = SparseRetriever(
                load_sparse(settings, self.root, cache=self.cache), self.corpus
            )
            retriever.postings  # noqa: B018 - twins share what is computed here
            return retriever

        sparse: SparseRetriever = self.once(("sparse", model), load)
        return sparse

    def multi_vector(self, model: str | None) -> MultiVectorRetriever | None:
        """The late-interaction model of a folder; None for others."""
        if model is None or not is_multi_vector(sources.resolve(self.root, model)):
            return None

        def load() -> MultiVectorRetriever:
            settings = self.config.model.of_another(model)
            return MultiVectorRetriever(load_multi_vector(settings, self.root), self.corpus)

        retriever: MultiVectorRetriever = self.once(("multi-vector", model), load)
        return retriever

    def reads_whole(self, model: str | None) -> bool:
        """Whether documents are searched whole with a model: learned sparse and late-interaction ones are not chunked."""
        return self.sparse(model) is not None or self.multi_vector(model) is not None

    def _is_sparse(self, model: str) -> bool:
        """Whether a folder, or a model of the shortlist, is a learned sparse one."""
        line = shortlist.listed(model)
        if line is not None:
            return line.kind == "sparse"
        return is_sparse(sources.resolve(self.root, model))

    @property
    def others(self) -> OtherModels:
        """The other embedding models that `fix.models` gives, and those that are not tried."""
        others: OtherModels = self.once("other models", lambda: OtherModels(self))
        return others

    def space_of(self, model: str | None) -> TextEncoder | SparseModel | MultiVectorModel:
        """What turns texts into the vectors of a model, dense or not: it has a name and a fingerprint."""
        retriever = self.sparse(model) or self.multi_vector(model)
        return self.encoder_of(model) if retriever is None else retriever.model

    def embedding_seconds(self, pipeline: Pipeline) -> float | None:
        """Seconds that embedding the corpus for a pipeline takes here, from a sample; None for sparse models."""
        cost = self.embedding_cost(pipeline)
        return None if cost is None else float(cost["seconds"])

    def embedding_cost(self, pipeline: Pipeline) -> dict[str, Any] | None:
        """What embedding the corpus for a pipeline takes here (`costs.embedding_cost`); None for models that are not dense."""
        if self.reads_whole(pipeline.model):
            return None
        chunked = self.chunked(pipeline.chunker, pipeline.model)
        texts = Contents(self.corpus) if chunked is None else chunked.texts
        price = self.config.decide.cost_per_hour
        return embedding_cost(self.encoder_of(pipeline.model), texts, price)

    def chunked(self, chunker: str, model: str | None = None) -> Chunked | None:
        """Chunks of the corpus; None where every document is one."""
        spec = chunker.removeprefix(LATE)
        if spec == "document":
            return None

        def cut() -> Chunked:
            spans = self.encoder_of(model).token_spans
            return chunk_corpus(self.corpus, make_chunker(spec, spans, self.root))

        chunked: Chunked = self.once(("chunks", spec, model), cut)
        return chunked

    @property
    def document_vectors(self) -> np.ndarray:
        """float32 (n_documents, dimension): whole documents, in corpus order."""
        return self.text_vectors(Pipeline())

    def vectors_of(self, chunker: str) -> np.ndarray:
        """float32 (n_chunks, dimension) of the configured model."""
        return self.text_vectors(Pipeline(chunker=chunker))

    def text_vectors(self, pipeline: Pipeline) -> np.ndarray:
        """float32 (n_texts, dimension) of the documents or chunks of a pipeline, not compressed."""

        def embed() -> Any:
            encoder = self.encoder_of(pipeline.model)
            chunked = self.chunked(pipeline.chunker, pipeline.model)
            if chunked is not None and pipeline.chunker.startswith(LATE):
                return late_vectors(encoder, self.corpus, chunked)
            return Dense(encoder, self.corpus, chunked=chunked).documents

        vectors: np.ndarray = self.once(("vectors", pipeline.model, pipeline.chunker), embed)
        return vectors

    def stored_vectors(self, pipeline: Pipeline) -> Any:
        """The vectors of a pipeline as it keeps them: float32 rows, or `Compressed`."""
        vectors = self.text_vectors(pipeline)
        if pipeline.compression == "float32":
            return vectors
        similarity = self.encoder_of(pipeline.model).similarity
        compression = Compression.parse(pipeline.compression)
        key = ("compressed", pipeline.model, pipeline.chunker, pipeline.compression)
        return self.once(key, lambda: compress(vectors, compression, similarity))

    # -- words and metadata ------------------------------------------------------------------------

    @property
    def bm25(self) -> BM25:
        return self.bm25_of("content")

    def bm25_of(self, part: Part) -> BM25:
        """The BM25 index of a part of documents."""

        def load() -> BM25:
            return kept_bm25(self.config, self.root, self.corpus, self.cache, part)

        index: BM25 = self.once(("bm25", part), load)
        return index

    @cached_property
    def fields(self) -> Fields:
        """What the documents' metadata looks like."""
        own = self.config.search.extract
        return Fields.of(self.corpus, own_extraction(own, self.root) if own else None)

    def eligible(self, filters: str) -> Eligible | None:
        """Which documents may be results of a query: its filters, and never the query itself."""
        if filters in ("ignore", "boost") and not self.item_to_item:
            return None
        return partial(self._eligible, filters)

    def _eligible(self, filters: str, query: Query) -> np.ndarray | None:
        mask = self._filtered(filters, query)
        if not self.item_to_item:
            return mask
        own = [item for item in (query.id, *history_of(query)) if item in self.corpus]
        if not own:
            return mask
        mask = np.ones(len(self.corpus), bool) if mask is None else mask.copy()
        mask[[self.corpus.position(item) for item in own]] = False
        return mask

    def _filtered(self, filters: str, query: Query) -> np.ndarray | None:
        """The documents that the filters of a query keep; those that its text names only while documents remain."""
        if filters not in ("declared", "inferred"):
            return None
        mask = self.fields.eligible(query.filter) if query.filter else None
        if filters == "inferred":
            for named in self.fields.infer(query.text):
                narrower = self.fields.eligible(named)
                if mask is not None:
                    narrower = mask & narrower
                if narrower.any():
                    mask = narrower
        return mask

    def rewriter(self, spec: str) -> Rewriter:
        """What rewrites queries: `acronyms` mined from the corpus, a dictionary file, or module:function."""

        def make() -> Rewriter:
            if spec == "acronyms":
                return Expander(mine_acronyms(self.corpus.contents()))
            path = sources.resolve(self.root, spec)
            if path.is_file():
                return Expander(read_synonyms(path))
            return query_rewriter(spec, self.root)

        rewriter: Rewriter = self.once(("rewriter", spec), make)
        return rewriter
