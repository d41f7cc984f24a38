"""What the search systems of a project say of the training queries, as mining takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nearer.data.corpus import Corpus
from nearer.search.lexical import BM25
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.training.examples import Duplicates
from nearer.training.mining.category import CATEGORY, category_run
from nearer.training.mining.chunks import Chunks
from nearer.training.mining.doubtful import Space
from nearer.training.mining.negatives import Evidence, Reader, Similarity
from nearer.types import Document, Example, Query, Run, Split


def evidence_of(systems: Systems, train: Split, reader: Reader | None) -> Evidence:
    """Ranked lists, similarities and passages for the queries of a split, by section `mine`."""
    settings = systems.config.mine
    chunks = chunks_of(systems, train)
    if not settings.negatives:
        return Evidence(passages=chunks)
    runs: list[Run] = []
    for name in settings.sources:
        runs.append(systems.search(name, train, settings.candidates))
    if settings.category is not None:
        rng = np.random.default_rng([systems.config.seed, *CATEGORY.encode()])
        field, most = settings.category, settings.candidates
        runs.append(category_run(systems.corpus, train, field, most, rng))
    second: Similarity | None = None
    if settings.model is not None:
        pipeline = replace(systems.base("dense"), model=settings.model)
        run = systems.run(pipeline, train, settings.candidates)
        runs.append(replace(run, name="model"))
        second = similarity_of(systems, train, settings.model)
    return Evidence(runs, similarity_of(systems, train), second, reader, chunks)


def chunks_of(systems: Systems, train: Split) -> Chunks | None:
    """The chunks that training is about; None where whole documents are searched."""
    if systems.chunked(systems.config.search.chunker) is None:
        return None
    return Chunks(systems, train)


def similarity_of(systems: Systems, train: Split, model: str | None = None) -> Similarity:
    """Similarity of training queries and documents under a model (None: today's).

    Where chunks are searched, a document is as similar as its nearest chunk.
    """
    if systems.chunked(systems.config.search.chunker, model) is not None:
        return Chunks(systems, train, model).similarity
    encoder = systems.encoder_of(model)
    queries = encoder.encode([query.text for query in train.queries], "query")
    row = {query.id: position for position, query in enumerate(train.queries)}
    documents = systems.text_vectors(Pipeline(model=model))

    def similarity(query_id: str, doc_ids: Sequence[str]) -> np.ndarray:
        positions = [systems.corpus.position(doc_id) for doc_id in doc_ids]
        similarities: np.ndarray = documents[positions] @ queries[row[query_id]]
        return similarities

    return similarity


def space_of_judged(
    systems: Systems, train: Split, duplicates: Duplicates, examples: Sequence[Example]
) -> Space:
    """Training queries and the positives of examples, by their ids."""
    corpus = systems.corpus
    queries = {query.id: query for query in train.queries}
    texts = {query.id: query.text for query in queries.values()}
    ordered = list(queries.values())
    doc_ids = list(dict.fromkeys(example.positive for example in examples))
    rows_of = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    positions = [corpus.position(doc_id) for doc_id in doc_ids]

    def words(rows: np.ndarray) -> np.ndarray:
        scores = systems.bm25.score([ordered[row] for row in rows])
        return scores[:, positions]

    return Space(
        texts,
        systems.encoder.encode(list(texts.values()), "query"),
        _document_vectors(systems, positions),
        rows_of.__getitem__,
        lambda doc_id: corpus[corpus.position(doc_id)].content,
        words,
        duplicates.documents,
    )


def _document_vectors(systems: Systems, positions: Sequence[int]) -> np.ndarray:
    """float32 (n_positions, dimension): of whole documents, or the mean of their chunks."""
    chunker = systems.config.search.chunker
    chunked = systems.chunked(chunker)
    if chunked is None:
        return systems.encoder.encode(list(systems.corpus.contents(positions)), "document")
    vectors = systems.vectors_of(chunker)
    means = np.empty((len(positions), vectors.shape[1]), np.float32)
    firsts = np.searchsorted(chunked.owners, positions, "left").tolist()
    stops = np.searchsorted(chunked.owners, positions, "right").tolist()
    for row, (first, stop) in enumerate(zip(firsts, stops, strict=True)):
        means[row] = vectors[first:stop].mean(axis=0)
    return means


def space_of_texts(systems: Systems, examples: Sequence[Example]) -> Space:
    """The texts of a training file: queries and positives under their own names."""
    queries = {str(example.query): str(example.query) for example in examples}
    positives = list(dict.fromkeys(example.positive for example in examples))
    position = {text: row for row, text in enumerate(positives)}
    typed = [Query(str(row), text) for row, text in enumerate(queries)]
    encoder = systems.encoder
    search = systems.config.search
    documents = [Document(str(row), text) for row, text in enumerate(positives)]
    index = BM25(Corpus.from_documents(documents), search.stemmer, search.stopwords)

    def words(rows: np.ndarray) -> np.ndarray:
        return index.score([typed[row] for row in rows])

    return Space(
        queries,
        encoder.encode(list(queries), "query"),
        encoder.encode(positives, "document"),
        position.__getitem__,
        str,
        words,
    )
