"""Late chunking: a document's tokens are encoded together, then pooled chunk by chunk.

Every chunk then knows its surroundings (Günther et al., *Late Chunking*, 2024).  Only for
transformers that pool by the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer import progress
from nearer.errors import ModelError
from nearer.retrieve.chunkers import Chunked
from nearer.retrieve.encoder import SentenceEncoder


def allows_late(encoder: SentenceEncoder) -> bool:
    """Whether the model is a transformer with a fast tokenizer that pools by the mean, without prompts on documents."""
    pooling = next((module for module in encoder.model if type(module).__name__ == "Pooling"), None)
    backend = getattr(getattr(encoder.model, "tokenizer", None), "backend_tokenizer", None)
    return (
        pooling is not None
        and pooling.get_config_dict().get("pooling_mode") == "mean"
        and backend is not None
        and not encoder.prompt("document")
    )


def late_vectors(encoder: SentenceEncoder, corpus: Any, chunked: Chunked) -> np.ndarray:
    """float32 (n_chunks, dimension) of a corpus, in the order of `chunked`; cached by document and span.

    Documents longer than the model's position embeddings are read in windows that overlap by a
    quarter.  Raises ModelError for models that do not allow it.
    """
    if not allows_late(encoder):
        raise ModelError("late chunking needs a transformer that pools by the mean", where=encoder.name, next_step="use another chunker")
    parts = []
    with progress.task("encode documents (late chunking)", len(corpus), "documents") as bar:
        for position, document in enumerate(corpus):
            content = document.content
            keys = [f"{start}:{end}\0{content}" for start, end in chunked.spans[chunked.range(position)].tolist()]

            def compute(missing: list[str], content: str = content) -> np.ndarray:
                return _pooled(encoder, content, [tuple(map(int, key.partition("\0")[0].split(":"))) for key in missing])

            parts.append(encoder.through_cache(keys, "late\0", compute))
            bar.advance()
    return np.concatenate(parts)


def _pooled(encoder: SentenceEncoder, content: str, spans: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Vectors of the spans of one document, float32 (n_spans, dimension)."""
    limit = int(encoder.model.transformers_model.config.max_position_embeddings) - 2  # two tokens are special ones
    places = encoder.token_spans(content)
    overlap = limit // 4
    firsts = range(0, max(1, len(places) - overlap), limit - overlap)
    vectors, starts = [], []
    for first in firsts:
        last = min(first + limit, len(places))
        text = content[places[first][0] : places[last - 1][1]] if places else content
        tokens, offsets = encoder.token_vectors(text, limit + 2)
        keep = slice(0 if first == 0 else overlap + 1, len(tokens) if last == len(places) else len(tokens) - 1)
        vectors.append(tokens[keep])
        starts.append(offsets[keep] + (places[first][0] if places else 0))
    tokens, starts_of = np.concatenate(vectors), np.concatenate(starts)
    pooled = np.empty((len(spans), tokens.shape[1]), np.float32)
    for row, (start, end) in enumerate(spans):
        inside = (starts_of >= start) & (starts_of < max(end, start + 1))
        pooled[row] = tokens[inside].mean(axis=0) if inside.any() else tokens.mean(axis=0)
    if encoder.similarity == "cosine":
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
    return pooled
