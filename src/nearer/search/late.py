"""Late chunking: tokens are encoded with the whole document around them, then pooled a chunk at a time.

Günther, Mohr, Williams, Wang and Xiao, *Late Chunking: Contextual Chunk Embeddings Using
Long-Context Embedding Models*, 2024, §3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.embed.declared import max_length
from nearer.embed.encoder import Encoder, SentenceEncoder, token_batches
from nearer.errors import ModelError
from nearer.search.chunkers import Chunked

_BLOCK = 32  # documents computed and saved together
_LONGEST = 8192  # tokens a window: attention costs their square


def allows_late(encoder: Encoder) -> bool:
    """Whether the model is a transformer that pools by the mean, with a tokenizer that tells offsets."""
    model: Any = getattr(encoder, "model", None)
    if not isinstance(encoder, SentenceEncoder) or [type(module).__name__ for module in model][
        :2
    ] != ["Transformer", "Pooling"]:
        return False
    return (
        model[1].pooling_mode == "mean"
        and bool(getattr(model.tokenizer, "is_fast", False))
        and "message" not in model[0].modality_config
    )


def late_vectors(encoder: SentenceEncoder, corpus: Corpus, chunked: Chunked) -> np.ndarray:
    """float32 (n_chunks, dimension) in the order of `chunked`; cached apart from plain vectors.

    A document is read in the longest window of the model's positions (not its `max_seq_length`), a
    longer one in windows that overlap by a quarter; each token counts once.  Special tokens and the
    prompt belong to the first and last chunk; a chunk without tokens gets its document's vector.
    Raises ModelError where `allows_late` says no.
    """
    if not allows_late(encoder):
        mend = "use a transformer that pools by the mean, or a chunker without late:"
        raise ModelError(
            "this model does not allow late chunking", where=encoder.name, next_step=mend
        )
    kind = f"late\0{_window(encoder.model)}\0{encoder.prompt('document')}"
    vectors = np.empty((len(chunked.owners), encoder.dimension), np.float32)
    with progress.task("encode chunks late", len(corpus), "documents") as bar:
        for first in range(0, len(corpus), _BLOCK):
            contents = list(corpus.contents(range(first, min(first + _BLOCK, len(corpus)))))
            digests = [
                hashlib.blake2b(content.encode("utf-8", "surrogatepass")).hexdigest()
                for content in contents
            ]
            low, high = np.searchsorted(chunked.owners, (first, first + _BLOCK))
            owners, spans = chunked.owners[low:high] - first, chunked.spans[low:high]
            names = [
                f"{kind}\0{digests[owner]}\0{start}:{end}"
                for owner, (start, end) in zip(owners, spans.tolist(), strict=True)
            ]

            def compute(
                missing: list[int],
                contents: list[str] = contents,
                owners: Any = owners,
                spans: Any = spans,
            ) -> np.ndarray:
                return _pooled(encoder, contents, owners[missing], spans[missing])

            vectors[low:high] = encoder.cached(names, compute)
            bar.advance(len(contents))
    return vectors


def _window(model: Any) -> int:
    """Tokens that the model can read at once, special ones included."""
    positions = getattr(model[0].config, "max_position_embeddings", None) or 0
    tables: Any = (getattr(module, "position_embeddings", None) for module in model[0].modules())
    # RoBERTa and its kin count positions from the number of the padding token.
    shift = next(
        (
            table.padding_idx + 1
            for table in tables
            if getattr(table, "padding_idx", None) is not None
        ),
        0,
    )
    return min(int(positions) - shift if positions > 0 else max_length(model) or 512, _LONGEST)


def _pooled(
    encoder: SentenceEncoder, documents: Sequence[str], owners: np.ndarray, spans: np.ndarray
) -> np.ndarray:
    """Vectors of chunks, float32 (n_chunks, dimension), given by the positions of their documents and their characters."""
    import torch

    model, prompt, used = encoder.model, encoder.prompt("document"), np.unique(owners)
    texts = [prompt + documents[owner] for owner in used]
    tokens = model.tokenizer(
        texts,
        truncation=False,
        verbose=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    means = np.empty((len(owners), model[1].embedding_dimension), np.float32)
    embedded = _embedded(encoder, tokens["input_ids"], tokens["special_tokens_mask"])
    for owner, rows, offsets, special in zip(
        used, embedded, tokens["offset_mapping"], tokens["special_tokens_mask"], strict=True
    ):
        places = np.array(offsets) - len(prompt)
        inside = np.flatnonzero((np.array(special) == 0) & (places[:, 1] > 0))
        skipped = 0
        if len(inside):
            low, high = inside[[0, -1]]
            places[:low], places[high:] = places[low], places[high]
            skipped = low if prompt and not model[1].include_prompt else 0
        mine = np.flatnonzero(owners == owner)
        firsts = np.maximum(np.searchsorted(places[:, 1], spans[mine, 0], "right"), skipped)
        lasts = np.searchsorted(places[:, 0], spans[mine, 1], "left")
        for row, begin, end in zip(mine, firsts, lasts, strict=True):
            means[row] = (rows[begin:end] if begin < end else rows[skipped:]).mean(axis=0)
    features = {"sentence_embedding": torch.from_numpy(means).to(model.device)}
    with torch.inference_mode():
        for module in list(model)[2:]:
            features = module(features)
        vectors = features["sentence_embedding"]
        vectors = (
            torch.nn.functional.normalize(vectors, dim=-1)
            if encoder.similarity == "cosine"
            else vectors
        )
    result: np.ndarray = vectors.cpu().numpy()
    return result


def _embedded(
    encoder: SentenceEncoder, texts: Sequence[list[int]], special: Sequence[list[int]]
) -> list[np.ndarray]:
    """Vectors of the tokens of each text, float32 (n_tokens, hidden): windows as long as the model reads, put together again."""
    import torch

    model = encoder.model
    windows: list[
        tuple[int, int, int, list[int]]
    ] = []  # text, first of its tokens, tokens left to the window before, all tokens
    for number, (ids, mask) in enumerate(zip(texts, special, strict=True)):
        lead, tail = (list(one).index(0) if 0 in mask else 0 for one in (mask, mask[::-1]))
        content, size = ids[lead : len(ids) - tail], _window(model) - lead - tail
        overlap = size // 4
        for start in range(0, max(1, len(content) - overlap), size - overlap):
            skipped = lead + overlap // 2 if start else 0
            windows.append(
                (
                    number,
                    start,
                    skipped,
                    ids[:lead] + content[start : start + size] + ids[len(ids) - tail :],
                )
            )
    parts: dict[int, np.ndarray] = {}
    for batch in token_batches(
        np.array([len(window[3]) for window in windows]), encoder._batch_tokens
    ):
        rows = [torch.tensor(windows[i][3]) for i in batch]
        ids_padded = torch.nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=model.tokenizer.pad_token_id or 0
        )
        attention = torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(row) for row in rows], batch_first=True
        )
        features = {
            "input_ids": ids_padded.to(model.device),
            "attention_mask": attention.to(model.device),
        }
        with (
            torch.inference_mode(),
            torch.autocast(
                model.device.type, torch.bfloat16, enabled=encoder.precision.name == "bf16"
            ),
        ):
            embeddings = model[0](features)["token_embeddings"].float().cpu().numpy()
        parts |= {
            int(i): embedding[: len(row)]
            for i, embedding, row in zip(batch, embeddings, rows, strict=True)
        }
    found = [np.empty((len(ids), model[1].embedding_dimension), np.float32) for ids in texts]
    for i, (number, start, skipped, ids) in enumerate(
        windows
    ):  # in order: a window takes over half of what it shares
        found[number][start + skipped : start + len(ids)] = parts[i][skipped:]
    return found
