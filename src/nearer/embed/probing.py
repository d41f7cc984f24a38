"""Long texts that show what a model does at the end of its window, and what they cost.

Token ids are compared at every boundary: they cost next to nothing, also at 8,192 tokens.  Vectors
cost a pass through the model, so that these texts share a budget of `_BUDGET` operations, counted
from the number of weights and never timed: every machine probes a model with the same texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from nearer.embed.declared import configs_of, max_length, tokenizers_of

#: Numbers that a behaviour vector is folded into: a fingerprint is a small file.
FOLDED = 64

# Words of several scripts, fixed for ever.  Neighbours differ, so that every cut changes the text.
_LATIN = [
    "pressure",
    "valve",
    "returned",
    "café",
    "naïve",
    "Größe",
    "buffer",
    "0x80",
    "overflow",
    "token",
    "session",
]
_OTHER = [
    "давление",
    "клапан",
    "перегрузка",
    "συσκευή",
    "πίεση",
    "ضغط",
    "صمام",
    "दबाव",
    "वाल्व",
    "압력",
    "밸브",
]
_EAST = [
    "圧力",
    "バルブ",
    "過負荷",
    "電源",
    "メモリ",
    "缓冲区",
    "溢出",
    "证书",
    "会话",
    "索引",
    "向量",
]
_MIXED = tuple(word for group in zip(_LATIN, _OTHER, _EAST, strict=True) for word in group)
_SCRIPTS: tuple[Sequence[str], ...] = (_MIXED, _LATIN, _OTHER, _EAST)

_BUDGET = 1e11  # operations for all long texts together: about a second of one core
_LEAST = 64  # tokens that are always probed
_UNBOUNDED = 512  # the length looked at where a model cuts nothing
_LONGEST = 8192  # tokens up to which token ids are compared
_WINDOW_NAMES = ("window", "local_attention", "position_embeddings", "chunk_size", "block_size")


def behaviour_texts(model: Any) -> tuple[list[str], int]:
    """Texts for the model to embed, as documents, and the tokens of the longest as the model sees it.

    In order of what they show: past the window, past each local window, at the window.  What the
    budget does not allow is left out; one text is as long as the budget allows in any case.
    """
    limit = _limit(model)
    left = max(_LEAST, int(_BUDGET / (2 * max(1, _weights_per_token(model)))))
    wanted = [2 * limit]
    for window in _windows(model, limit):
        wanted += [window + 1, 2 * window]
    wanted += [limit + 1, limit, limit - 1]
    chosen: list[int] = []
    for length in wanted:
        if min(length, limit) <= left:
            chosen.append(length)
            left -= min(length, limit)
        elif not chosen:
            chosen.append(left)
            left = 0
    return [_text(model, length, _MIXED) for length in chosen], min(limit, max(chosen))


def token_hash(model: Any, prompts: Mapping[Any, str]) -> str:
    """Hash of the integers that texts near every boundary become, as queries and as documents.

    Texts of different lengths stand together, so that padding is seen as well.
    """
    limit = _limit(model)
    lengths = [3, *_around(limit)]
    for window in _windows(model, limit):
        lengths += [window, window + 1]
    texts = [_text(model, length, _MIXED) for length in lengths]
    texts += [_text(model, 2 * limit, words) for words in _SCRIPTS]
    digest = hashlib.sha256()
    for kind in ("query", "document"):
        features = model.preprocess(texts, prompt=prompts[kind] or None, task=kind)
        for name, array in _integers(features):
            digest.update(f"{kind}\0{name}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def fold(vectors: np.ndarray) -> np.ndarray:
    """float64 (n, FOLDED): a count sketch, which keeps angles about as they are.

    Charikar, Chen, Farach-Colton (2002).  Component i is added to component i modulo FOLDED, its
    sign is the parity of a hash of i.
    """
    n, width = vectors.shape
    components = np.arange(width, dtype=np.uint64)
    mixed = (components * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(63)
    signs = 1.0 - 2.0 * mixed.astype(np.float64)
    signed = vectors.astype(np.float64) * signs
    blocks = -(-width // FOLDED)
    padded = np.zeros((n, blocks * FOLDED))
    padded[:, :width] = signed
    folded: np.ndarray = padded.reshape(n, -1, FOLDED).sum(axis=1)
    return folded


def _around(limit: int) -> list[int]:
    return [limit - 2, limit - 1, limit, limit + 1, limit + 2]


def _limit(model: Any) -> int:
    """The tokens after which texts are cut, or a length to look at where none are."""
    lengths = [max_length(model)]
    for tokenizer in tokenizers_of(model):
        truncation = getattr(tokenizer, "truncation", None)
        if isinstance(truncation, Mapping):
            lengths.append(int(truncation["max_length"]))
    known = [length for length in lengths if length]
    return max(4, min(_LONGEST, *known)) if known else _UNBOUNDED


def _windows(model: Any, limit: int) -> list[int]:
    """Lengths below `limit` from which a model may treat texts otherwise, as configured."""
    lengths: set[int] = set()
    for config in configs_of(model):
        lengths.update(_named_lengths(config.to_dict()))
    for module in model.modules():
        for name in ("query_length", "document_length"):
            value = getattr(module, name, None)
            if isinstance(value, int):
                lengths.add(value)
    return sorted(length for length in lengths if 4 <= length < limit)


def _named_lengths(values: Mapping[str, Any]) -> Iterator[int]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _named_lengths(value)
        elif type(value) is int and any(part in name for part in _WINDOW_NAMES):
            yield value


def _weights_per_token(model: Any) -> int:
    """Weights that each token is multiplied with; tables that are looked up cost nothing."""
    import torch

    tables = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    total = 0
    for module in model.modules():
        if not isinstance(module, tables):
            for weights in module.parameters(recurse=False):
                if weights.dim() > 1:
                    total += weights.numel()
    return total


def _text(model: Any, tokens: int, words: Sequence[str]) -> str:
    """A text of about `tokens` tokens for the first tokenizer of the model (words where it has none)."""
    tokenizers = tokenizers_of(model)
    counts = _tokens_per_word(tokenizers[0], words) if tokenizers else [1] * len(words)
    chosen: list[str] = []
    left, smallest = tokens, min(counts)
    for word, count in cycle(zip(words, counts, strict=True)):
        if left < smallest:
            break
        if count <= left:
            chosen.append(word)
            left -= count
    return " ".join(chosen)


def _tokens_per_word(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """At least 1 each."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "encode_batch"):
        encodings = backend.encode_batch(list(words), add_special_tokens=False)
        # padding of an earlier call is not part of a word
        return [max(1, sum(encoding.attention_mask)) for encoding in encodings]
    if hasattr(tokenizer, "tokenize"):
        return [max(1, len(tokenizer.tokenize(word))) for word in words]
    return [1] * len(words)


def _integers(features: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of integers, by name: token ids, masks, offsets."""
    for name, value in sorted(features.items()):
        if hasattr(value, "is_floating_point") and not value.is_floating_point():
            yield name, value.cpu().numpy().astype("<i8")
