"""Late chunking: tokens are encoded with the whole document around them, then pooled a chunk at a time.

Günther, Mohr, Williams, Wang and Xiao, *Late Chunking: Contextual Chunk Embeddings Using
Long-Context Embedding Models*, 2024, §3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.embed.base import TextEncoder
from nearer.embed.declared import max_length
from nearer.embed.encoder import Encoder, SentenceEncoder, token_batches
from nearer.errors import ModelError
from nearer.search.chunkers import Chunked

_BLOCK = 32  # documents computed and saved together
_LONGEST = 8192  # tokens a window: attention costs their square


def allows_late(encoder: Encoder) -> TypeGuard[SentenceEncoder]:
    """Whether the model is a transformer that pools by the mean, with a tokenizer that tells offsets."""
    if not isinstance(encoder, SentenceEncoder):
        return False
    model: Any = encoder.model
    if [type(module).__name__ for module in model][:2] != ["Transformer", "Pooling"]:
        return False
    return (
        model[1].pooling_mode == "mean"
        and bool(getattr(model.tokenizer, "is_fast", False))
        and "message" not in model[0].modality_config
    )


def late_vectors(encoder: TextEncoder, corpus: Corpus, chunked: Chunked) -> np.ndarray:
    """float32 (n_chunks, dimension) in the order of `chunked`; cached apart from plain vectors.

    A document is read in the longest window of the model's positions (not its `max_seq_length`), a
    longer one in windows that overlap by a quarter; each token counts once.  Special tokens and the
    prompt belong to the first and last chunk; a chunk without tokens gets its document's vector.
    Raises ModelError where `allows_late` says no.
    """
    if not allows_late(encoder):
        raise ModelError(
            "this model does not allow late chunking",
            where=encoder.name,
            next_step="use a transformer that pools by the mean, or a chunker without late:",
        )
    kind = f"late\0{_window(encoder.model)}\0{encoder.prompt('document')}"
    vectors = np.empty((len(chunked.owners), encoder.dimension), np.float32)
    with progress.task("encode chunks late", len(corpus), "documents") as bar:
        for first in range(0, len(corpus), _BLOCK):
            stop = min(first + _BLOCK, len(corpus))
            contents = list(corpus.contents(range(first, stop)))
            low, high = np.searchsorted(chunked.owners, (first, stop))
            owners = chunked.owners[low:high] - first
            block = _Chunks(contents, owners, chunked.spans[low:high])
            pooled = partial(_pooled, encoder, block)
            vectors[low:high] = encoder.cached(block.names(kind), pooled)
            bar.advance(len(contents))
    return vectors


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Chunks of some documents: `owners` int64 (n_chunks,) positions in `contents`, `spans` int32 (n_chunks, 2) characters."""

    contents: Sequence[str]
    owners: np.ndarray
    spans: np.ndarray

    def names(self, kind: str) -> list[str]:
        """What the cache knows each chunk by: its document's whole text counts."""
        digests = []
        for content in self.contents:
            encoded = content.encode("utf-8", "surrogatepass")
            digests.append(hashlib.blake2b(encoded).hexdigest())
        names = []
        spans = self.spans.tolist()
        for owner, (start, end) in zip(self.owners, spans, strict=True):
            digest = digests[owner]
            names.append(f"{kind}\0{digest}\0{start}:{end}")
        return names


def _window(model: Any) -> int:
    """Tokens that the model can read at once, special ones included."""
    positions = getattr(model[0].config, "max_position_embeddings", None) or 0
    if positions > 0:
        return min(int(positions) - _reserved_positions(model), _LONGEST)
    return min(max_length(model) or 512, _LONGEST)


def _reserved_positions(model: Any) -> int:
    """RoBERTa and its kin count positions from the number of the padding token."""
    for module in model[0].modules():
        table: Any = getattr(module, "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        if padding is not None:
            return int(padding) + 1
    return 0


def _pooled(encoder: SentenceEncoder, chunks: _Chunks, rows: Sequence[int]) -> np.ndarray:
    """Vectors of the chunks in some rows, float32 (n_rows, dimension)."""
    import torch

    model, prompt = encoder.model, encoder.prompt("document")
    owners, spans = chunks.owners[rows], chunks.spans[rows]
    documents = np.unique(owners)
    tokens = model.tokenizer(
        [prompt + chunks.contents[document] for document in documents],
        truncation=False,
        verbose=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    means = np.empty((len(owners), model[1].embedding_dimension), np.float32)
    special = tokens["special_tokens_mask"]
    embedded = _embedded(encoder, tokens["input_ids"], special)
    for number, document in enumerate(documents):
        offsets = np.array(tokens["offset_mapping"][number]) - len(prompt)
        skipped = _give_special_tokens_places(offsets, special[number])
        if not prompt or model[1].include_prompt:
            skipped = 0
        own = np.flatnonzero(owners == document)
        means[own] = _means(embedded[number], offsets, spans[own], skipped)
    features = {"sentence_embedding": torch.from_numpy(means).to(model.device)}
    with torch.inference_mode():
        for module in list(model)[2:]:
            features = module(features)
        vectors = features["sentence_embedding"]
        if encoder.similarity == "cosine":
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
    result: np.ndarray = vectors.cpu().numpy()
    return result


def _give_special_tokens_places(offsets: np.ndarray, special: Sequence[int]) -> int:
    """Tokens of the prompt and special ones get the characters of the text's first or last token, in place.

    `offsets` is (n_tokens, 2), characters of the document.  Returns how many tokens stand before the
    text's own.
    """
    ordinary = np.array(special) == 0
    in_text = offsets[:, 1] > 0
    inside = np.flatnonzero(ordinary & in_text)
    if not len(inside):
        return 0
    first, last = inside[[0, -1]]
    offsets[:first] = offsets[first]
    offsets[last:] = offsets[last]
    return int(first)


def _means(tokens: np.ndarray, offsets: np.ndarray, spans: np.ndarray, skipped: int) -> np.ndarray:
    """Means of the tokens (n_tokens, hidden) in each span; of all tokens where a span has none.

    The first `skipped` tokens, a prompt that the model does not pool, count nowhere.
    """
    starts, ends = offsets.T
    span_starts, span_ends = spans.T
    firsts = np.searchsorted(ends, span_starts, "right").clip(min=skipped)
    lasts = np.searchsorted(starts, span_ends, "left")
    means = np.empty((len(spans), tokens.shape[1]), np.float32)
    for row, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        own = tokens[first:last]
        if first >= last:
            own = tokens[skipped:]
        means[row] = own.mean(axis=0)
    return means


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of a text that the model reads at once: `ids` of its tokens, special ones around them.

    Its tokens stand in the text from `start` on; the first `skipped` of them are left to the window
    before.
    """

    text: int
    start: int
    skipped: int
    ids: list[int]


def _embedded(
    encoder: SentenceEncoder, texts: Sequence[list[int]], special: Sequence[list[int]]
) -> list[np.ndarray]:
    """Vectors of the tokens of each text, float32 (n_tokens, hidden): windows as long as the model reads, put together again."""
    size = _window(encoder.model)
    windows: list[_Window] = []
    for number, (ids, mask) in enumerate(zip(texts, special, strict=True)):
        windows.extend(_windows(number, ids, mask, size))
    lengths = np.array([len(window.ids) for window in windows])
    parts: dict[int, np.ndarray] = {}
    for batch in token_batches(lengths, encoder.batch_tokens):
        embeddings = _forward(encoder, [windows[row].ids for row in batch])
        parts.update(zip(batch.tolist(), embeddings, strict=True))
    hidden = encoder.model[1].embedding_dimension
    whole = [np.empty((len(ids), hidden), np.float32) for ids in texts]
    for row, window in enumerate(windows):  # in order: a window takes over half of what it shares
        begin = window.start + window.skipped
        end = window.start + len(window.ids)
        whole[window.text][begin:end] = parts[row][window.skipped :]
    return whole


def _windows(text: int, ids: list[int], special: list[int], size: int) -> Iterator[_Window]:
    """Windows of `size` tokens that overlap by a quarter, each with the special tokens of the whole text."""
    before = special.index(0) if 0 in special else 0
    after = special[::-1].index(0) if 0 in special else 0
    head = ids[:before]
    tail = ids[len(ids) - after :]
    content = ids[before : len(ids) - after]
    room = size - before - after
    overlap = room // 4
    last = max(1, len(content) - overlap)
    for start in range(0, last, room - overlap):
        skipped = before + overlap // 2 if start else 0
        part = content[start : start + room]
        yield _Window(text, start, skipped, head + part + tail)


def _forward(encoder: SentenceEncoder, texts: Sequence[list[int]]) -> list[np.ndarray]:
    """Vectors of the tokens of each text of a batch, float32 (n_tokens, hidden)."""
    import torch

    model = encoder.model
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    rows = [torch.tensor(ids) for ids in texts]
    padding = model.tokenizer.pad_token_id or 0
    features = {
        "input_ids": pad(rows, padding_value=padding).to(model.device),
        "attention_mask": pad([torch.ones_like(row) for row in rows]).to(model.device),
    }
    bf16 = encoder.precision.name == "bf16"
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=bf16),
    ):
        embeddings = model[0](features)["token_embeddings"].float().cpu().numpy()
    lengths = map(len, rows)
    return [embedding[:length] for embedding, length in zip(embeddings, lengths, strict=True)]
