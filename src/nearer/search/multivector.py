"""Late interaction: a text is one vector per token, and a document scores by the best match of each query token.

Khattab and Zaharia, *ColBERT: Efficient and Effective Passage Search via Contextualized Late
Interaction over BERT*, SIGIR 2020, §3.2.  Models are the MultiVectorEncoders of
sentence-transformers; search is exact, over every vector, and meant to measure what such a model
would gain: vector stores here hold one vector per chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, files, progress
from nearer.data.corpus import Corpus
from nearer.embed.base import encoding
from nearer.embed.encoder import Kind
from nearer.embed.fingerprint import Fingerprint, fingerprint_model
from nearer.embed.loading import local_folder, open_model
from nearer.errors import ModelError
from nearer.search import ranking
from nearer.search.dense import Contents
from nearer.search.ranking import Eligible, Order
from nearer.types import Query, Run

_BLOCK = 64  # texts encoded together
_MOST = 4 * 2**30  # bytes of document vectors that are held in memory
_DECIMALS = 4  # scores are sums over tokens: float32's last bits stand at 1e-6


class MultiVectorModel:
    """Texts → one vector per token, through a MultiVectorEncoder, in float32."""

    def __init__(self, model: Any, name: str) -> None:
        self.name = name
        self._model = model.eval()
        self.similarity = str(model.similarity_fn_name)
        self.fingerprint: Fingerprint = fingerprint_model(
            model,
            query_prompt="",
            document_prompt="",
            precision="fp32",
            encode=lambda texts, kind: np.stack(
                [v.mean(axis=0) for v in self._encode(texts, kind)]
            ),
        )

    @property
    def dimension(self) -> int:
        return self.fingerprint.dimension

    def encode(self, texts: Sequence[str], kind: Kind) -> list[np.ndarray]:
        """float32 (n_tokens, dimension) per text, in the order of `texts`; a text without tokens has one row of zeros."""
        vectors: list[np.ndarray] = []
        with progress.task(encoding(kind), len(texts), "texts") as bar:
            for start in range(0, len(texts), _BLOCK):
                block = list(texts[start : start + _BLOCK])
                vectors += self._encode(block, kind)
                bar.advance(len(block))
        return vectors

    def _encode(self, texts: Sequence[str], kind: Kind) -> list[np.ndarray]:
        make = self._model.encode_query if kind == "query" else self._model.encode_document
        rows = make(list(texts), show_progress_bar=False, convert_to_numpy=True)
        nothing = np.zeros((1, self._model.get_embedding_dimension()), np.float32)
        return [np.asarray(row, np.float32) if len(row) else nothing for row in rows]


class MultiVectorRetriever:
    """Retriever over a multi-vector model: documents are encoded when first searched."""

    def __init__(
        self,
        model: MultiVectorModel,
        corpus: Corpus,
        name: str = "late interaction",
        *,
        eligible: Eligible | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.order = Order(corpus.ids)
        self._texts = Contents(corpus)
        self._eligible = eligible
        self._held: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 (n_vectors, dimension) of all documents, and int64 (n_documents,): where each begins.

        Raises ModelError where they take more memory than is held.
        """
        if self._held is None:
            self._require_room()
            rows = self.model.encode(self._texts, "document")
            starts = np.cumsum([0, *map(len, rows[:-1])])
            self._held = np.concatenate(rows), starts.astype(np.int64)
        return self._held

    def _require_room(self) -> None:
        """From a sample, before the corpus is encoded."""
        step = max(1, len(self._texts) // _BLOCK)
        sample = [self._texts[row] for row in range(0, len(self._texts), step)][:_BLOCK]
        rows = self.model.encode(sample, "document")
        size = sum(row.nbytes for row in rows) * len(self._texts) / max(1, len(rows))
        if size > _MOST:
            raise ModelError(
                f"a vector per token takes {size / 2**30:.1f} GiB of memory for this corpus",
                where=self.model.name,
                next_step=f"measure it on a sample of the documents (at most {_MOST / 2**30:g} GiB)",
            )

    @property
    def nbytes(self) -> int:
        """Size of the vectors in memory, in bytes."""
        vectors, starts = self.vectors
        return int(vectors.nbytes + starts.nbytes)

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_documents): per query token its best inner product in the document, added up; -inf where not eligible."""
        vectors, starts = self.vectors
        scores = np.empty((len(queries), len(starts)), np.float32)
        asked = self.model.encode([query.text for query in queries], "query")
        for row, tokens in enumerate(asked):
            best = np.maximum.reduceat(tokens @ vectors.T, starts, axis=1)
            scores[row] = np.round(best.sum(axis=0), _DECIMALS)
            if self.model.similarity == "meanmaxsim":
                scores[row] /= len(tokens)
        return ranking.restrict(scores, queries, self._eligible)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """The `k` best documents of each query, in canonical order."""
        return ranking.search(self, queries, k)

    def restricted(self, eligible: Eligible | None) -> MultiVectorRetriever:
        """The same vectors for queries that may find only some documents."""
        self.vectors  # noqa: B018 - twins share what is computed here
        twin = copy(self)
        twin._eligible = eligible
        return twin


def load_multi_vector(settings: config.Model, root: Path) -> MultiVectorModel:
    """The multi-vector model of a config's model section.  Safetensors only; raises ModelError."""
    local = local_folder(settings.name, root)
    model = open_model("MultiVectorEncoder", settings.name, local, device=settings.device)
    try:
        return MultiVectorModel(model, settings.name)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"this model loads, but gives no vectors: {type(error).__name__}: {error}",
            where=settings.name,
            next_step="give a folder that MultiVectorEncoder.save wrote",
        ) from error


def is_multi_vector(folder: Path) -> bool:
    """Whether a model folder holds a MultiVectorEncoder.  Raises DataError when its description is not JSON."""
    described = folder / "config_sentence_transformers.json"
    if not described.is_file():
        return False
    return bool(files.read_json(described).get("model_type") == "MultiVectorEncoder")
