"""The encoder over a SentenceTransformer: batches, precision, identity and cache of a model that is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.embed.base import Encoder, Kind, TextEncoder, encoding
from nearer.embed.cache import EmbeddingCache
from nearer.embed.declared import max_length
from nearer.embed.fingerprint import PROBES, fingerprint_model
from nearer.embed.loading import load_model, on_device
from nearer.embed.precision import Precision, choose_precision
from nearer.errors import ModelError
from nearer.files import disk_errors
from nearer.text import token_spans

__all__ = [
    "Encoder",
    "Kind",
    "SentenceEncoder",
    "encoding",
    "load_encoder",
    "own_prompt",
]

#: Texts, their kind, and what makes the model's inputs of them → the inputs to compute with.
Prepare = Callable[[Sequence[str], Kind, Callable[[], dict[str, Any]]], dict[str, Any]]

_FIDELITY_SAMPLE = 32
_BLOCK = 1024  # texts sorted by length, encoded and saved together: what a kill can cost


class SentenceEncoder(TextEncoder):
    """Encoder over a SentenceTransformer.

    Texts are sorted by length and packed into batches of at most `batch_tokens` tokens, padding
    included; bf16 is used where the hardware has it and a fidelity check passes; vectors go
    through the cache when there is one.
    """

    def __init__(
        self,
        model: Any,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        precision: str = "auto",
        batch_tokens: int = 8192,
        cache: Path | None = None,
        name: str = "model",
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.prepare: Prepare | None = None  # set while a model trains on inputs computed before
        if query_prompt is None:
            query_prompt = own_prompt(model, "query")
        if document_prompt is None:
            document_prompt = own_prompt(model, "document")
        self._prompts: dict[Kind, str] = {"query": query_prompt, "document": document_prompt}
        self.batch_tokens = batch_tokens
        self.precision = Precision("fp32", "asked for")
        self.precision = choose_precision(precision, model.device.type, self._fidelity)
        similarity = str(model.similarity_fn_name)
        if similarity not in ("cosine", "dot"):
            raise ModelError(
                f"similarity {similarity!r} is not supported",
                where=name,
                next_step="use a model trained for cosine or dot similarity",
            )
        self.similarity = similarity
        self.fingerprint = fingerprint_model(
            model,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            precision=self.precision.name,
            encode=lambda texts, kind: self.compute(texts, kind, progress.SILENT),
        )
        self._cache = EmbeddingCache(cache, self.fingerprint) if cache is not None else None

    def prompt(self, kind: Kind) -> str:
        """The prefix that texts of this kind get."""
        return self._prompts[kind]

    def without_cache(self) -> SentenceEncoder:
        """The same encoder, always computing: for a model in training, and to time queries."""
        twin = copy(self)
        twin._cache = None
        return twin

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`; cached texts are not encoded again.

        `texts` is read a block at a time and each block is on disk before the next is computed.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        prefix = f"{kind}\0{self._prompts[kind]}\0"
        start = 0
        with progress.task(encoding(kind), len(texts), "texts") as bar:

            def compute(missing: list[str]) -> np.ndarray:
                return self.compute(missing, kind, bar)

            for block in _blocks(texts, _BLOCK):
                stop = start + len(block)
                if self._cache is None:
                    vectors[start:stop] = compute(block)
                else:
                    vectors[start:stop] = self._cache.through(block, prefix, compute)
                    bar.reach(stop)
                start = stop
        return vectors

    def token_counts(self, texts: Iterable[str], kind: Kind = "document") -> np.ndarray:
        """Tokens per text as the model sees it, not cut, int64 (n_texts,); words for static models."""
        counts = [np.zeros(0, np.int64)]
        for block in _blocks(texts, _BLOCK):
            counts.append(self._lengths(block, kind, cut=False))
        return np.concatenate(counts)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Characters of each token of a text: no special tokens, nothing cut; words where the tokenizer cannot say."""
        tokenizer: Any = getattr(self.model, "tokenizer", None)
        backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(backend, "no_truncation"):
            return token_spans(text)
        truncation = backend.truncation  # a static model's tokenizer never sets it again
        backend.no_truncation()
        backend.no_padding()
        spans: list[tuple[int, int]] = backend.encode(text, add_special_tokens=False).offsets
        if truncation:
            backend.enable_truncation(**truncation)
        return spans

    def seconds_for(self, texts: Sequence[str]) -> float:
        """Seconds that embedding these documents takes here, the cache left out."""
        started = time.perf_counter()
        self.without_cache().encode(texts, "document")
        return time.perf_counter() - started

    def save(self, folder: Path) -> None:
        """Write the model: `SentenceTransformer(folder)` loads it."""
        with disk_errors(folder):
            self.model.save(str(folder), create_model_card=False)

    def cached(
        self, names: Sequence[str], compute: Callable[[list[int]], np.ndarray]
    ) -> np.ndarray:
        """Vectors called `names`, float32 (n, dimension); `compute` makes those (by position) that the cache lacks."""
        if self._cache is None:
            return compute(list(range(len(names))))
        return self._cache.rows(names, compute)

    # -- computing -------------------------------------------------------------------------------

    def compute(self, texts: Sequence[str], kind: Kind, bar: progress.Task) -> np.ndarray:
        """`encode` of one block, always computed."""
        vectors = np.empty((len(texts), int(self.model.get_embedding_dimension())), np.float32)
        for batch in token_batches(self._lengths(texts, kind), self.batch_tokens):
            vectors[batch] = self._forward([texts[row] for row in batch], kind)
            bar.advance(len(batch))
        return vectors

    def features(self, texts: list[str], kind: Kind) -> dict[str, Any]:
        """Model inputs of texts, the prompt of their kind applied: what training feeds the model."""

        def inputs() -> dict[str, Any]:
            features: dict[str, Any] = self.model.preprocess(
                texts, prompt=self._prompts[kind] or None, task=kind
            )
            return features

        return inputs() if self.prepare is None else self.prepare(texts, kind, inputs)

    def _forward(self, texts: list[str], kind: Kind, precision: str | None = None) -> np.ndarray:
        import torch

        model = self.model
        bf16 = (precision or self.precision.name) == "bf16"
        features = on_device(model, self.features(texts, kind))
        with (
            torch.inference_mode(),
            torch.autocast(model.device.type, torch.bfloat16, enabled=bf16),
        ):
            vectors = model(features)["sentence_embedding"].float()
            if str(model.similarity_fn_name) == "cosine":
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
        result: np.ndarray = vectors.cpu().numpy()
        if not np.isfinite(result).all():
            raise ModelError(
                "the model gives vectors that are not finite",
                where=self.name,
                next_step="try model.precision=fp32, or another model",
            )
        return result

    def _fidelity(self) -> float:
        """Mean cosine of bf16 to fp32 vectors over texts of mixed length."""
        sample = []
        for number in range(_FIDELITY_SAMPLE):
            words = PROBES[number % len(PROBES)].split()
            sample.append(" ".join(words * (1 + number % 8)))
        exact = self._forward(sample, "document", "fp32").astype(np.float64)
        fast = self._forward(sample, "document", "bf16").astype(np.float64)
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(fast, axis=1)
        cosines = np.sum(exact * fast, axis=1) / np.maximum(norms, 1e-12)
        return float(np.mean(cosines))

    def _lengths(self, texts: Sequence[str], kind: Kind, cut: bool = True) -> np.ndarray:
        counts = _tokens_per_text(self.model)
        prompt = self._prompts[kind]
        if counts is None:
            return np.array([1 + len(text.split()) for text in texts], np.int64)
        lengths: np.ndarray = counts([prompt + text for text in texts])
        limit = max_length(self.model)
        if cut and limit:
            lengths = np.minimum(lengths, limit)
        return lengths


#: Names under which sentence-transformers looks for the prompt of a kind, in its order.
_PROMPT_NAMES: dict[Kind, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


def own_prompt(model: Any, kind: Kind) -> str:
    """The prefix that a model's own `encode_query` or `encode_document` gives to texts.

    The first name that the model's prompts have decides, also when it stands for no prompt at all
    (a loaded model has empty ones for `query` and `document`); the default prompt comes after them.
    """
    prompts = model.prompts or {}
    for name in _PROMPT_NAMES[kind]:
        if name in prompts:
            return prompts[name] or ""
    return prompts.get(model.default_prompt_name or "") or ""


def token_batches(lengths: np.ndarray, budget: int, most: int = 1024) -> list[np.ndarray]:
    """Positions grouped into batches of texts of similar length, longest first.

    A batch costs (texts × its longest), at most `budget` tokens unless one text alone is longer.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = int(np.clip(budget // max(1, int(lengths[order[start]])), 1, most))
        batches.append(order[start : start + size])
        start += size
    return batches


def load_encoder(
    settings: config.Model,
    root: Path,
    *,
    cache: Path | None = None,
    path: Path | None = None,
    name: str | None = None,
    sparse: bool = False,
) -> SentenceEncoder:
    """The encoder of a config's model section, or of the model folder `path` with the same settings."""
    return SentenceEncoder(
        load_model(settings, root, path, sparse=sparse),
        query_prompt=settings.query_prompt,
        document_prompt=settings.document_prompt,
        precision=settings.precision,
        batch_tokens=settings.batch_tokens,
        cache=cache,
        name=name or str(path or settings.name),
    )


def _tokens_per_text(model: Any) -> Any:
    """A function list of texts → int64 token counts; None for models without a transformer."""
    if type(model[0]).__name__ not in ("Transformer", "MLMTransformer", "Router"):
        return None
    if model.transformers_model is None:  # a router over static models
        return None
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)

    def count(texts: Sequence[str]) -> np.ndarray:
        if backend is None:
            return np.array([len(ids) for ids in tokenizer(list(texts))["input_ids"]], np.int64)
        backend.no_truncation()  # the tokenizer sets both again at its next call
        backend.no_padding()
        encodings = backend.encode_batch_fast(list(texts))
        return np.array([len(encoding) for encoding in encodings], np.int64)

    return count


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while block := list(islice(iterator, size)):
        yield block
