"""How long documents and queries are, and what a model cuts off of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.data.fitting import Found
from nearer.text import count_words
from nearer.types import Query, is_blank

_TOKENISED = 20_000  # documents, evenly spaced: enough for a share to half a percent point
_BATCH = 256  # texts tokenised at a time


class Tokens(Protocol):
    """Counts the tokens of texts for a model that reads `limit` of them."""

    @property
    def limit(self) -> int: ...

    def count(self, texts: Sequence[str]) -> list[int]: ...


def measure_texts(
    corpus: Corpus, queries: Mapping[str, Query], tokens: Tokens | None, found: Found
) -> dict[str, Any]:
    """Lengths in words and tokens, what the model cuts off, and empty documents, in one pass."""
    stride = max(1, math.ceil(len(corpus) / _TOKENISED))
    words: list[int] = []
    counted: list[int] = []
    batch: list[str] = []
    with progress.task("measuring documents", len(corpus), "documents") as task:
        for position, text in enumerate(corpus.contents()):
            words.append(0 if is_blank(text) else count_words(text))
            if tokens and position % stride == 0:
                batch.append(text)
            if tokens and (len(batch) == _BATCH or position == len(corpus) - 1):
                counted.extend(tokens.count(batch) if batch else ())
                batch.clear()
            if position % _BATCH == 0:
                task.reach(position)
    if empty := [doc_id for doc_id, n in zip(corpus.ids, words, strict=True) if not n]:
        if len(empty) == len(corpus):
            found.add(
                "empty_documents",
                "Every document is empty.",
                empty,
                fatal=True,
                next_step="check data.columns.text",
            )
        else:
            found.add(
                "empty_documents",
                f"{len(empty)} documents are empty; nothing can find them.",
                empty,
            )
    asked = [count_words(query.text) for query in queries.values()]
    lengths: dict[str, Any] = {"document_words": _spread(words), "query_words": _spread(asked)}
    if tokens is None or not counted:
        found.add(
            "truncation_unknown",
            "The model's tokenizer or its maximum length is not known: what it cuts off is unknown.",
        )
        return lengths | {"max_seq_length": None, "truncated_share": None}
    lost = [1 - tokens.limit / n for n in counted if n > tokens.limit]
    share, loss = len(lost) / len(counted), float(np.mean(lost or [0.0]))
    if lost:
        message = f"The model reads {tokens.limit} tokens: {share:.1%} of the documents are longer, and lose {loss:.0%} of their text on average."
        mend = (
            "raise model.max_seq_length where the model allows it, or split documents into chunks"
        )
        figures = {"share": round(share, 4), "lost": round(loss, 4)}
        found.add(
            "truncation", message, count=round(share * len(corpus)), figures=figures, next_step=mend
        )
    lengths |= {
        "max_seq_length": tokens.limit,
        "document_tokens": _spread(counted),
        "tokenised_documents": len(counted),
    }
    return lengths | {"truncated_share": round(share, 4), "truncated_loss": round(loss, 4)}


def _spread(values: Sequence[int]) -> dict[str, float]:
    median, p95, longest = np.percentile(values or [0], (50, 95, 100))
    return {"median": float(median), "p95": float(p95), "longest": float(longest)}
