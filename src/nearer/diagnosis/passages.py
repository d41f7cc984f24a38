"""Where in a document the answer lies, and whether the model reads it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nearer.data.near import normalise
from nearer.diagnosis.probes.base import Misses
from nearer.types import Document, Query

_SPECIAL_TOKENS = 2  # that a model adds to every text


def lost_answer(query: Query, document: Document) -> str:
    """Why the document cannot answer: it is empty, or its answer is gone; empty where it can."""
    if not document.content.strip():
        return "the document is empty"
    content = normalise(document.content)
    for span in _answers(query, document):
        text, end = span.get("text"), span.get("end")
        if isinstance(text, str) and normalise(text) not in content:
            return "the answer did not survive ingestion"
        if text is None and isinstance(end, int) and end > len(document.text):
            return "the answer lies behind the end of the stored text"
    return ""


def answer_spans(query: Query, document: Document) -> list[tuple[int, int]]:
    """Characters of the document's content in which the query's answers lie, as far as known."""
    before_text = len(document.content) - len(document.text)
    spans = []
    for span in _answers(query, document):
        start = _start(span, document)
        text, end = span.get("text"), span.get("end")
        if text:
            stop = start + len(str(text))
        else:
            stop = before_text + int(end or 0)
        if 0 <= start < stop:
            spans.append((start, stop))
    return spans


class Reading:
    """Does the answer lie where the model does not read, or across a border of the baseline's chunks?"""

    def __init__(self, misses: Misses) -> None:
        self._systems = misses.systems
        self._corpus = misses.corpus
        self._chunker = misses.plain.chunker
        self._over_words = misses.over_words
        #: The chunks in which the part that is nearest to a query is looked for.
        self._parts: str | None = None
        if self._chunker == "document" and not self._over_words:
            tokens = [spec for spec in misses.settings.chunkers if spec.startswith("tokens:")]
            self._parts = next(iter(tokens), None)

    def unread(self, query: Query, document: Document) -> str:
        """What speaks for cutting the document, in words; empty where nothing does."""
        if self._chunker != "document":
            return self._split_answer(query, document)
        border = self._border(document)
        if border is None:
            return ""
        answers = _answers(query, document)
        if answers:
            start = _start(answers[0], document)
            if start < border:
                return ""
            return f"cut off: the answer starts at character {start}, the model reads {border}"
        nearest = self._nearest(query, document)
        if nearest is None or nearest + 1 < border:
            return ""
        length = len(document.content)
        return f"cut off: the nearest part starts at character {nearest}, the model reads {border} of {length}"

    def _split_answer(self, query: Query, document: Document) -> str:
        """Is there an answer that no chunk holds whole?"""
        chunked = self._systems.chunked(self._chunker)
        chunks: list[str] = []
        if chunked is not None:
            position = self._corpus.position(document.id)
            chunks = [normalise(chunk) for chunk in chunked.of(position)]
        for span in _answers(query, document):
            text = span.get("text")
            if not text:
                continue
            answer = normalise(str(text))
            if not any(answer in chunk for chunk in chunks):
                return "split: the answer lies across a border of chunks"
        return ""

    def _border(self, document: Document) -> int | None:
        """The character up to which the model reads; None where it reads the whole document."""
        encoder = self._systems.encoder
        limit = encoder.fingerprint.max_seq_length
        if not limit or self._over_words:
            return None
        tokens = encoder.token_spans(document.content)
        read = limit - _SPECIAL_TOKENS
        if len(tokens) <= read:
            return None
        _, border = tokens[read - 1]
        return border

    def _nearest(self, query: Query, document: Document) -> int | None:
        """The character at which the chunk that is nearest to the query starts."""
        if self._parts is None:
            return None
        chunked = self._systems.chunked(self._parts)
        if chunked is None:
            return None
        position = self._corpus.position(document.id)
        first, stop = np.searchsorted(chunked.owners, (position, position + 1))  # owners ascend
        vectors = self._systems.vectors_of(self._parts)[first:stop]
        vector = self._systems.encoder.encode([query.text], "query")[0]
        nearest = first + int(np.argmax(vectors @ vector))
        start, _ = chunked.spans[nearest]
        return int(start)


def _start(span: Mapping[str, Any], document: Document) -> int:
    """The character of title and text at which an answer starts."""
    content = document.content
    text = span.get("text")
    if text:
        return content.find(str(text))
    before_text = len(content) - len(document.text)
    return int(span.get("start", 0)) + before_text


def _answers(query: Query, document: Document) -> list[Mapping[str, Any]]:
    """Gold spans of the query that lie in the document."""
    spans = []
    for span in query.gold_spans:
        owner = span.get("corpus-id", document.id)
        owner = span.get("doc_id", owner)
        if owner == document.id:
            spans.append(span)
    return spans
