"""How long documents and queries are, and what a model cuts off of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.data.fitting import Findings
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
    corpus: Corpus, queries: Mapping[str, Query], tokens: Tokens | None, findings: Findings
) -> dict[str, Any]:
    """Lengths in words and tokens, what the model cuts off, and empty documents, in one pass."""
    words, counts = _count(corpus, tokens)
    _report_empty(corpus, words, findings)
    of_queries = [count_words(query.text) for query in queries.values()]
    lengths = {"document_words": _spread(words), "query_words": _spread(of_queries)}
    return {**lengths, **_truncation(len(corpus), tokens, counts, findings)}


def _count(corpus: Corpus, tokens: Tokens | None) -> tuple[list[int], list[int]]:
    """Words of every document, and tokens of evenly spaced ones (none where no tokenizer is known)."""
    stride = max(1, math.ceil(len(corpus) / _TOKENISED))
    words: list[int] = []
    counts: list[int] = []
    batch: list[str] = []
    with progress.task("measuring documents", len(corpus), "documents") as task:
        for position, text in enumerate(corpus.contents()):
            words.append(0 if is_blank(text) else count_words(text))
            if tokens and position % stride == 0:
                batch.append(text)
            if tokens and len(batch) == _BATCH:
                counts.extend(tokens.count(batch))
                batch.clear()
            if position % _BATCH == 0:
                task.reach(position)
    if tokens and batch:
        counts.extend(tokens.count(batch))
    return words, counts


def _report_empty(corpus: Corpus, words: Sequence[int], findings: Findings) -> None:
    empty = [doc_id for doc_id, count in zip(corpus.ids, words, strict=True) if not count]
    if not empty:
        return
    if len(empty) < len(corpus):
        message = f"{len(empty)} documents are empty; nothing can find them."
        findings.add("empty_documents", message, empty)
        return
    findings.add(
        "empty_documents",
        "Every document is empty.",
        empty,
        fatal=True,
        next_step="check data.columns.text",
    )


def _truncation(
    n_documents: int, tokens: Tokens | None, counts: Sequence[int], findings: Findings
) -> dict[str, Any]:
    """What the model reads, and the share of documents and of their text that it cuts off."""
    if tokens is None or not counts:
        findings.add(
            "truncation_unknown",
            "The model's tokenizer or its maximum length is not known: what it cuts off is unknown.",
        )
        return {"max_seq_length": None, "truncated_share": None}
    lost = [1 - tokens.limit / count for count in counts if count > tokens.limit]
    share = len(lost) / len(counts)
    loss = float(np.mean(lost or [0.0]))
    if lost:
        findings.add(
            "truncation",
            f"The model reads {tokens.limit} tokens: {share:.1%} of the documents are longer, and "
            f"lose {loss:.0%} of their text on average.",
            count=round(share * n_documents),
            figures={"share": round(share, 4), "lost": round(loss, 4)},
            next_step="raise model.max_seq_length where the model allows it, or split documents into chunks",
        )
    return {
        "max_seq_length": tokens.limit,
        "document_tokens": _spread(counts),
        "tokenised_documents": len(counts),
        "truncated_share": round(share, 4),
        "truncated_loss": round(loss, 4),
    }


def _spread(values: Sequence[int]) -> dict[str, float]:
    median, p95, longest = np.percentile(values or [0], (50, 95, 100))
    return {"median": float(median), "p95": float(p95), "longest": float(longest)}
