"""Learned sparse retrieval (SPLADE and its kin): a text is a few weighted words of the model's vocabulary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from nearer import config, files, progress
from nearer.data.corpus import Corpus
from nearer.embed.cache import claim
from nearer.embed.encoder import Kind, SentenceEncoder, encoding, load_encoder
from nearer.embed.fingerprint import Fingerprint
from nearer.embed.loading import local_folder
from nearer.errors import ModelError
from nearer.search import ranking
from nearer.search.dense import Contents
from nearer.search.ranking import Eligible, Order
from nearer.types import Query, Run

_BLOCK = 512  # texts encoded and saved together; as dense rows they pass through memory once
_BATCH_TOKENS = (
    2048  # at most: a token is a row of the whole vocabulary before pooling (BERT's: 120 KB)
)
_KEY = 16  # bytes of the hash that a text is found by
_PROBE = 256  # numbers a probe's vector is folded into: a fingerprint is a small file
#: As in exact search equal texts should tie; these scores are some tens, with float32's last bits at 1e-6.
_DECIMALS = 4


class SparseModel:
    """Texts → rows of a sparse matrix, through the encoder of a SparseEncoder.

    Prompts, batches, precision and the identity of the space are those of `SentenceEncoder`.
    """

    def __init__(self, engine: SentenceEncoder, cache: Path | None = None) -> None:
        """`engine` is the encoder of a SparseEncoder, without a cache of its own."""
        self._engine = engine
        self.name, self.similarity = engine.name, engine.similarity
        self.fingerprint = replace(
            engine.fingerprint, probes=tuple(map(_folded, engine.fingerprint.probes))
        )
        self._cache = _SparseCache(cache, self.fingerprint) if cache is not None else None

    @property
    def dimension(self) -> int:
        """Size of the vocabulary."""
        return self.fingerprint.dimension

    def without_cache(self) -> SparseModel:
        """The same model, always computing: to time queries."""
        twin = copy(self)
        twin._cache = None
        return twin

    def encode(self, texts: Sequence[str], kind: Kind) -> Any:
        """scipy CSR matrix, float32 (n_texts, dimension), in the order of `texts`; cached texts are not encoded again.

        `texts` is read a block at a time and each block is on disk before the next is computed.
        """
        from scipy.sparse import csr_matrix, vstack

        prefix = f"{kind}\0{self._engine.prompt(kind)}\0"
        rows = [csr_matrix((0, self.dimension), dtype=np.float32)]
        with progress.task(encoding(kind), len(texts), "texts") as bar:

            def compute(missing: list[str]) -> Any:
                return csr_matrix(self._engine.compute(missing, kind, bar))

            for start in range(0, len(texts), _BLOCK):
                block = list(texts[start : start + _BLOCK])
                if self._cache is None:
                    rows.append(compute(block))
                else:
                    rows.append(self._cache.through(block, prefix, compute))
                bar.reach(start + len(block))
        return vstack(rows, format="csr")


class SparseRetriever:
    """Retriever over a sparse model: documents are encoded when first searched, then held as postings."""

    def __init__(
        self,
        model: SparseModel,
        corpus: Corpus,
        name: str = "sparse",
        *,
        eligible: Eligible | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.order = Order(corpus.ids)
        self._texts = Contents(corpus)
        self._postings: Any = None
        self._eligible = eligible

    @property
    def postings(self) -> Any:
        """scipy CSR matrix, float32 (dimension, n_documents): for each word the documents that weigh it."""
        if self._postings is None:
            self._postings = self.model.encode(self._texts, "document").T.tocsr()
        return self._postings

    @property
    def dimension(self) -> int:
        """Size of the vocabulary."""
        return self.model.dimension

    @property
    def nbytes(self) -> int:
        """Size of the postings in memory, in bytes."""
        postings = self.postings
        parts = (postings.data, postings.indices, postings.indptr)
        return sum(int(part.nbytes) for part in parts)

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_documents); -inf where a document shares no word with the query or is not eligible."""
        postings = self.postings
        vectors = self.model.encode([query.text for query in queries], "query")
        scores = (vectors @ postings).toarray()
        scores = np.where(scores > 0, np.round(scores, _DECIMALS), np.float32(-np.inf))
        return ranking.restrict(scores, queries, self._eligible)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """The `k` best documents of each query, in canonical order; those that share no word with it are not results."""
        return ranking.search(self, queries, k)

    def restricted(self, eligible: Eligible | None) -> SparseRetriever:
        """The same postings for queries that may find only some documents."""
        twin = copy(self)
        twin._eligible = eligible
        return twin


def load_sparse(
    settings: config.Model,
    root: Path,
    *,
    cache: Path | None = None,
    path: Path | None = None,
    name: str | None = None,
) -> SparseModel:
    """The sparse model of a config's model section, or of the folder `path` with the same settings.

    Safetensors only, no remote code.  Raises ModelError with what to do.
    """
    local = path or local_folder(settings.name, root)
    if local is not None and not is_sparse(local):
        # SparseEncoder would put an untrained layer on a dense model
        raise ModelError(
            "this folder holds no sparse model",
            where=str(local),
            next_step="give a folder that SparseEncoder.save wrote",
        )
    settings = settings.model_copy(
        update={"batch_tokens": min(settings.batch_tokens, _BATCH_TOKENS)}
    )
    return SparseModel(load_encoder(settings, root, path=path, name=name, sparse=True), cache)


def is_sparse(folder: Path) -> bool:
    """Whether a model folder holds a SparseEncoder.  Raises DataError when its description is not JSON."""
    described = folder / "config_sentence_transformers.json"
    if described.is_file():
        kind = files.read_json(described).get("model_type")
        if kind:  # older folders do not say it
            return bool(kind == "SparseEncoder")
    chain = folder / "modules.json"
    if not chain.is_file():
        return False
    types = [str(module.get("type")) for module in files.read_json(chain)]
    return any(".sparse_encoder." in name for name in types)


class _SparseCache:
    """Sparse rows of one fingerprint on disk, a file a computed block, found by the hash of their text.

    Files come whole into place (atomic rename), so that a kill costs the block being computed;
    two processes at worst compute the same text twice.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        self._folder = folder / "sparse" / fingerprint.id
        self._dimension = fingerprint.dimension
        claim(self._folder, fingerprint, "*.npz")
        self._rows: dict[bytes, tuple[Path, int]] = {}
        for path in sorted(self._folder.glob("*.npz")):
            try:
                (keys,) = files.load_arrays(path, "keys")
                self._know(path, keys.tobytes())
            except (BadZipFile, EOFError, KeyError, ValueError):
                path.unlink()  # damaged: its texts are computed again

    def through(
        self, texts: Sequence[str], prefix: str, compute: Callable[[list[str]], Any]
    ) -> Any:
        """Rows of `texts`, CSR (n, dimension): from the cache, or from `compute` and then kept."""
        from scipy.sparse import vstack

        keys = [_key(prefix + text) for text in texts]
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key not in self._rows:
                missing[key] = text
        if missing:
            self._append(b"".join(missing), compute(list(missing.values())))
        positions: dict[Path, list[int]] = {}  # of the texts that each file holds
        for position, key in enumerate(keys):
            path, _ = self._rows[key]
            positions.setdefault(path, []).append(position)
        parts = []
        for path, own in positions.items():
            rows = [self._rows[keys[position]][1] for position in own]
            parts.append(self._read(path)[rows])
        order = np.concatenate(list(positions.values()))
        return vstack(parts, format="csr")[np.argsort(order)]

    def _append(self, keys: bytes, rows: Any) -> None:
        name = hashlib.blake2b(keys, digest_size=_KEY).hexdigest()
        path = self._folder / f"{name}.npz"
        with files.atomic(path, "wb") as handle:
            np.savez(
                handle,
                keys=np.frombuffer(keys, np.uint8),
                data=rows.data,
                indices=rows.indices,
                indptr=rows.indptr,
            )
        self._know(path, keys)

    def _know(self, path: Path, keys: bytes) -> None:
        for row in range(len(keys) // _KEY):
            self._rows[keys[_KEY * row : _KEY * (row + 1)]] = (path, row)

    def _read(self, path: Path) -> Any:
        from scipy.sparse import csr_matrix

        data, indices, indptr = files.load_arrays(path, "data", "indices", "indptr")
        return csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, self._dimension))


def _key(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=_KEY).digest()


def _folded(probe: Sequence[float]) -> tuple[float, ...]:
    padded = np.pad(np.asarray(probe), (0, -len(probe) % _PROBE))
    return tuple(round(float(x), 6) for x in padded.reshape(-1, _PROBE).sum(axis=0))
