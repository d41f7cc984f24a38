"""What a search costs: time per query, and embedding a corpus, from throughput measured on a sample."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer import progress
from nearer.embed.base import TextEncoder
from nearer.search.base import Retriever
from nearer.types import Query

_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per query, asked one at a time, encoding included."""

    p50_ms: float
    p95_ms: float

    def as_dict(self) -> dict[str, float]:
        return {"p50_ms": self.p50_ms, "p95_ms": self.p95_ms}


def slowdown(before: Latency | None, after: Latency | None) -> float | None:
    """How many times later answers come: the smaller ratio of median and of tail.

    One of them alone is noise on a shared machine.  None where a system takes no time.
    """
    if before is None or after is None:
        return None
    median = after.p50_ms / max(before.p50_ms, 1e-9)
    tail = after.p95_ms / max(before.p95_ms, 1e-9)
    return min(median, tail)


def latency_of(retriever: Retriever, queries: Sequence[Query], k: int) -> Latency:
    """p50 and p95 of asking one query at a time."""
    with progress.listen(progress.SILENT):
        milliseconds = [1000 * seconds for seconds in timed(retriever, queries, k)]
    p50, p95 = (round(float(np.percentile(milliseconds, q)), 3) for q in (50, 95))
    return Latency(p50, p95)


def timed(retriever: Retriever, queries: Sequence[Query], k: int, sample: int = 50) -> list[float]:
    """Seconds per query, asked one at a time, for `sample` queries spread evenly over those given.

    One query is asked beforehand and not counted, so that loading and warming up are not measured.
    """
    if not queries:
        return []
    count = min(sample, len(queries))
    chosen = [queries[number * len(queries) // count] for number in range(count)]
    retriever.search(chosen[:1], k)
    seconds = []
    for query in chosen:
        started = time.perf_counter()
        retriever.search([query], k)
        seconds.append(time.perf_counter() - started)
    return seconds


def embedding_cost(
    encoder: TextEncoder, texts: Sequence[str], price: float | None = None
) -> dict[str, Any]:
    """What it takes to embed `texts` here: {documents, tokens, tokens_per_second, seconds, hours, bytes}, and the price.

    Throughput is measured on a sample spread over the texts.  `price` is that of an hour here; what
    an encoder outside charges is added.
    """
    tokens = _tokens_read(encoder, texts)
    step = max(1, len(texts) // _SAMPLE)
    sample = [texts[position] for position in range(0, len(texts), step)][:_SAMPLE]
    sampled_tokens = _tokens_read(encoder, sample)
    throughput = sampled_tokens / max(encoder.seconds_for(sample), 1e-9)
    seconds = tokens / max(throughput, 1e-9)
    cost = {
        "documents": len(texts),
        "tokens": tokens,
        "tokens_per_second": round(throughput, 1),
        "seconds": round(seconds, 1),
        "hours": round(seconds / 3600, 4),
        "bytes": 4 * len(texts) * encoder.dimension,
    }
    charged = encoder.price_of(tokens)
    if price is not None or charged is not None:
        cost["price"] = round((price or 0.0) * seconds / 3600 + (charged or 0.0), 4)
    return cost


def _tokens_read(encoder: TextEncoder, texts: Sequence[str]) -> int:
    """Tokens of all texts together, each cut where the model cuts it."""
    limit = encoder.fingerprint.max_seq_length or 10**9
    return int(np.minimum(encoder.token_counts(texts), limit).sum())
