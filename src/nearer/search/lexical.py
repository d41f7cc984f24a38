"""BM25 over bm25s (numpy): the baseline that every embedding model must beat."""

from __future__ import annotations

import array
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nearer import files, progress
from nearer.config import Config
from nearer.data.corpus import Corpus
from nearer.data.inputs import external_inputs
from nearer.errors import ConfigError, DataError
from nearer.search import ranking
from nearer.search.ranking import Eligible, Order
from nearer.text import WORD_RULES, fold, search_terms
from nearer.types import Query, Run

_SETTINGS = "nearer.json"
Part = Literal["content", "title", "text"]
_CHUNK = 500  # documents between two signs of progress


class BM25:
    """Retriever by exact words: Lucene's BM25 (k1 1.5, b .75) of title and text, words as `nearer.text` has them.

    The corpus is read once, a document at a time; only word numbers and document ids stay in
    memory.  `stemmer` is a Snowball language, `stopwords` a language that bm25s knows; None is none.
    `part` indexes the title or the text alone, for scores by field (`Fielded`).
    Raises ConfigError for an unknown language, DataError for a corpus without a single word.
    """

    def __init__(
        self,
        corpus: Corpus,
        stemmer: str | None = None,
        stopwords: str | None = "english",
        part: Part = "content",
    ) -> None:
        import bm25s

        started = time.perf_counter()
        self.name = "bm25"
        self._prepare(corpus, stemmer, stopwords, part)
        # 4 bytes per word instead of a Python integer each
        documents = [
            array.array("i", ids)
            for ids in self._tokenizer.streaming_tokenize(
                _announced(corpus, part), allow_empty=False
            )
        ]
        vocabulary = self._tokenizer.get_vocab_dict()
        if not vocabulary:
            raise DataError(
                "no document has a word that BM25 could find",
                next_step="check data.columns, or set search.stopwords: null",
            )
        self._index = bm25s.BM25(backend="numpy")
        self._index.index((documents, vocabulary), create_empty_token=False, show_progress=False)
        #: seconds that building took, kept with the index
        self.build_seconds = time.perf_counter() - started

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_documents); -inf where a document shares no word with the query or is not eligible."""
        scores = np.full((len(queries), len(self._ids)), -np.inf, np.float32)
        # update_vocab=False: a query adds no word, though with a stemmer new forms of known stems are found
        numbers = self._tokenizer.streaming_tokenize(
            [q.text for q in queries], update_vocab=False, allow_empty=False
        )
        for row, words in zip(scores, numbers, strict=True):
            if words:
                documents = self._index.get_scores_from_ids(words)
                np.copyto(row, documents, where=documents > 0)
        return ranking.restrict(scores, queries, self._eligible)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """The `k` best documents of each query; documents that share no word with it are not results."""
        return ranking.search(self, queries, k)

    def restricted(self, eligible: Eligible | None) -> BM25:
        """The same index for queries that may find only some documents."""
        twin = copy(self)
        twin._eligible = eligible
        return twin

    @property
    def nbytes(self) -> int:
        """Size of the postings in memory, in bytes (the word list not counted)."""
        return sum(int(self._index.scores[part].nbytes) for part in ("data", "indices", "indptr"))

    def save(self, folder: Path) -> None:
        """Write the index (`.npy` and JSON, no pickle), replacing what was there only when complete."""
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        self._index.save(new, allow_pickle=False, show_progress=False)
        files.write_json(
            new / _SETTINGS, self._settings | {"build_seconds": round(self.build_seconds, 3)}
        )
        files.swap_folder(new, folder, folder.with_name(f".{folder.name}.old"))

    @classmethod
    def load(cls, folder: Path, corpus: Corpus) -> BM25:
        """An index that `save` wrote for the same documents.  The caller's key must cover their texts.

        Raises DataError when there is none, or when it belongs to other document ids.
        """
        import bm25s

        files.recover_folder(folder, folder.with_name(f".{folder.name}.old"))
        if not (folder / _SETTINGS).is_file():
            raise DataError(
                "no BM25 index here",
                where=str(folder),
                next_step="build it: BM25(corpus).save(folder)",
            )
        settings = files.read_json(folder / _SETTINGS)
        self = cls.__new__(cls)
        self.name, self.build_seconds = "bm25", float(settings.pop("build_seconds", 0.0))
        self._prepare(
            corpus, settings["stemmer"], settings["stopwords"], settings.get("part", "content")
        )
        if settings != self._settings:
            raise DataError(
                "this BM25 index belongs to another corpus",
                where=str(folder),
                next_step="delete the folder; it is rebuilt",
            )
        self._index = bm25s.BM25.load(folder, allow_pickle=False, show_progress=False)
        vocabulary = self._index.vocab_dict
        if settings["stemmer"] is None:
            self._tokenizer.word_to_id = vocabulary
        else:  # it maps stems; the words that lead to them are found again as they are asked for
            self._tokenizer.stem_to_sid = vocabulary
        return self

    def _prepare(
        self, corpus: Corpus, stemmer: str | None, stopwords: str | None, part: Part
    ) -> None:
        self._ids = corpus.ids
        if not self._ids:
            raise DataError("the corpus is empty", next_step="check data.corpus")
        self.order = Order(self._ids)
        self._tokenizer = _tokenizer(stemmer, stopwords)
        digest = hashlib.sha256("\n".join(self._ids).encode()).hexdigest()
        self._settings = {
            "documents": len(self._ids),
            "ids": digest,
            "stemmer": stemmer,
            "stopwords": stopwords,
            "part": part,
            "words": WORD_RULES,
        }
        self._eligible: Eligible | None = None


def kept_bm25(
    config: Config, root: Path, corpus: Corpus, cache: Path | None, part: Part = "content"
) -> BM25:
    """The index of a configuration's corpus, kept below `cache` for the next stage that needs it."""
    stemmer, stopwords = config.search.stemmer, config.search.stopwords
    if cache is None:
        return BM25(corpus, stemmer, stopwords, part)
    inputs = external_inputs("corpus", config, root) or {}
    key = files.value_hash(
        {
            "corpus": [
                files.content_hash(path) for path in inputs.values() if isinstance(path, Path)
            ],
            "columns": config.data.columns.model_dump(),
            "stemmer": stemmer,
            "stopwords": stopwords,
            "part": part,
            "words": WORD_RULES,
        }
    )
    folder = cache / "bm25" / key[:16]
    try:
        return BM25.load(folder, corpus)
    except DataError:  # there is none yet
        built = BM25(corpus, stemmer, stopwords, part)
        built.save(folder)
        return built


class Fielded:
    """BM25 by field: the score of the text plus `title_weight` times that of the title."""

    def __init__(self, title: BM25, text: BM25, title_weight: float) -> None:
        self.name, self.order = "bm25", text.order
        self._title, self._text, self._weight = title, text, title_weight

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_documents); -inf where neither field shares a word with the query."""
        title, text = self._title.score(queries), self._text.score(queries)
        in_title, in_text = np.isfinite(title), np.isfinite(text)
        both = np.where(in_title, self._weight * title, 0) + np.where(in_text, text, 0)
        scores: np.ndarray = np.where(in_title | in_text, both, -np.inf).astype(np.float32)
        return scores

    def search(self, queries: Sequence[Query], k: int) -> Run:
        return ranking.search(self, queries, k)

    def restricted(self, eligible: Eligible | None) -> Fielded:
        """The same indexes for queries that may find only some documents."""
        return Fielded(
            self._title.restricted(eligible), self._text.restricted(eligible), self._weight
        )

    @property
    def nbytes(self) -> int:
        """Size of both indexes, in bytes."""
        return self._title.nbytes + self._text.nbytes


def _announced(corpus: Corpus, part: Part) -> Iterator[str]:
    with progress.task("BM25: reading documents", len(corpus), "documents") as task:
        read = 0
        for read, document in enumerate(corpus, start=1):
            yield str(getattr(document, part))
            if read % _CHUNK == 0:
                task.advance(_CHUNK)
        task.advance(read % _CHUNK)


def _tokenizer(stemmer: str | None, stopwords: str | None) -> Any:
    from bm25s.tokenization import Tokenizer

    stem = None
    if stemmer is not None:
        import Stemmer

        try:
            stem = Stemmer.Stemmer(stemmer)
        except KeyError:
            raise ConfigError(
                f"no stemmer for {stemmer!r}",
                where="search.stemmer",
                next_step=f"use one of {', '.join(Stemmer.algorithms())}, or null",
            ) from None
    try:
        tokenizer = Tokenizer(lower=False, splitter=search_terms, stopwords=stopwords, stemmer=stem)
    except ValueError:
        raise ConfigError(
            f"no stop words for {stopwords!r}",
            where="search.stopwords",
            next_step="use english, another language, or null",
        ) from None
    if tokenizer.stopwords is not None:
        tokenizer.stopwords = [fold(word) for word in tokenizer.stopwords]
    return tokenizer
