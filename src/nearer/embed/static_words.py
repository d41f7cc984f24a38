"""A static model made here: the vector of each word of a transformer, read once, and their weighted mean.

It answers in a fraction of the time and needs no training data.  What is lost is everything that
words mean only together.

Tulkens and van Dongen, *Model2Vec: Fast State-of-the-Art Static Embeddings*, 2024 (a pass per token,
principal components).  Arora, Liang and Ma, *A Simple but Tough-to-Beat Baseline for Sentence
Embeddings*, ICLR 2017, §3 (weights by frequency).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ModelError
from nearer.files import disk_errors, value_hash

#: What stands for this model in `fix.models`, and the name of its folder.
STATIC = "static"
_DIMENSION = 256
_FREQUENT = 1e-3  # share of all tokens at which a token's weight is halved (Arora et al.: a)
_MOST_TOKENS = 60_000  # of larger vocabularies the most frequent ones get a vector
_BATCH = 2048


def static_model(encoder: object, texts: Sequence[str], home: Path) -> Path:
    """The folder of the static model of an encoder, below `home`; made where it is not there.

    `texts` are a sample of the corpus: they say how frequent tokens are.  Raises ModelError for an
    encoder without a transformer, or with a tokenizer that is not a fast one.
    """
    model = _transformer_of(encoder)
    assert isinstance(encoder, SentenceEncoder)  # noqa: S101 - told by `_transformer_of`
    counts = _counts(model, texts)
    key = value_hash([encoder.fingerprint.id, _DIMENSION, np.flatnonzero(counts).tolist()])
    folder = home / key[:16] / STATIC
    if not folder.is_dir():
        try:
            weights = _weights(model, counts)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                f"its words cannot be read one by one ({type(error).__name__}: {error})",
                where=encoder.name,
                next_step="name a static model in fix.models",
            ) from error
        _save(model, weights, folder)
    return folder


def _transformer_of(encoder: object) -> Any:
    model = encoder.model if isinstance(encoder, SentenceEncoder) else None
    backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if model is None or backend is None or model.transformers_model is None:
        raise ModelError(
            "static vectors of words can be made only out of a transformer that is here",
            where=getattr(encoder, "name", "the configured model"),
            next_step="name a static model in fix.models",
        )
    return model


def _backend(model: Any) -> Any:
    """A tokenizer that reads texts whole."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _counts(model: Any, texts: Sequence[str]) -> np.ndarray:
    """How often each token stands in the texts, int64 (vocabulary,)."""
    backend = _backend(model)
    size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    counts = np.zeros(size, np.int64)
    for encoded in backend.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(counts, encoded.ids, 1)
    return counts


def _weights(model: Any, counts: np.ndarray) -> np.ndarray:
    """float32 (vocabulary, dimension): centred vectors, their first components, frequent tokens made small."""
    special = np.zeros(len(counts), bool)
    special[[token for token in model.tokenizer.all_special_ids if token < len(counts)]] = True
    order = np.argsort(-counts, kind="stable")
    chosen = np.sort(order[~special[order]][:_MOST_TOKENS])
    vectors = _token_vectors(model, chosen)
    vectors -= vectors.mean(axis=0)
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    kept = directions[:, ::-1][:, :_DIMENSION]
    shares = counts[chosen] / max(1, counts.sum())
    weights = np.zeros((len(counts), kept.shape[1]), np.float32)
    weights[chosen] = (vectors @ kept) * (_FREQUENT / (_FREQUENT + shares))[:, None]
    return weights


def _token_vectors(model: Any, tokens: np.ndarray) -> np.ndarray:
    """float32 (n_tokens, hidden): each token read alone, between the special tokens of a text."""
    import torch

    read = model.tokenizer("a", return_special_tokens_mask=True)
    first = read["special_tokens_mask"].index(0)
    before = read["input_ids"][:first]
    after = read["input_ids"][first + 1 :]
    parts: list[np.ndarray] = []
    training = model.training
    model.eval()
    with progress.task("static vectors of words", len(tokens), "tokens") as bar:
        for start in range(0, len(tokens), _BATCH):
            rows = [[*before, token, *after] for token in tokens[start : start + _BATCH].tolist()]
            ids = torch.tensor(rows, device=model.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with torch.inference_mode():
                parts.append(model(features)["sentence_embedding"].float().cpu().numpy())
            bar.advance(len(rows))
    model.train(training)
    return np.concatenate(parts)


def _save(model: Any, weights: np.ndarray, folder: Path) -> None:
    """Write the folder; it appears whole or not at all."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = SentenceTransformer(
        modules=[StaticEmbedding(_backend(model), embedding_weights=weights)], device="cpu"
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        unfinished = Path(scratch) / STATIC
        with disk_errors(unfinished):
            static.save(str(unfinished), create_model_card=False)
        if not folder.exists():  # another process may have been quicker
            os.rename(unfinished, folder)
