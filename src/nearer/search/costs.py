"""What a search costs: embedding a corpus, from throughput measured on a sample."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer.embed.encoder import SentenceEncoder

_SAMPLE = 64


def embedding_cost(
    encoder: SentenceEncoder, texts: Sequence[str], price: float | None = None
) -> dict[str, Any]:
    """What it takes to embed `texts` here: {documents, tokens, tokens_per_second, seconds, hours, bytes}, and the price.

    Throughput is measured on a sample spread over the texts, the cache left out.
    """
    limit = encoder.fingerprint.max_seq_length or 10**9
    tokens = int(np.minimum(encoder.token_counts(texts), limit).sum())
    sample = [texts[i] for i in range(0, len(texts), max(1, len(texts) // _SAMPLE))][:_SAMPLE]
    counted = int(np.minimum(encoder.token_counts(sample), limit).sum())
    started = time.perf_counter()
    encoder.without_cache().encode(sample, "document")
    throughput = counted / max(time.perf_counter() - started, 1e-9)
    seconds = tokens / max(throughput, 1e-9)
    cost = {
        "documents": len(texts),
        "tokens": tokens,
        "tokens_per_second": round(throughput, 1),
        "seconds": round(seconds, 1),
        "hours": round(seconds / 3600, 4),
        "bytes": 4 * len(texts) * encoder.dimension,
    }
    return cost | ({"price": round(price * seconds / 3600, 4)} if price is not None else {})
