"""Holds a model near its base on ordinary language while it learns a domain.

Each batch of training also holds a few general texts, and the loss grows with the distance of their
vectors from those of the base model.  Learning without forgetting (Li and Hoiem 2016, arXiv
1606.09282), on vectors in place of classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearer.data.general import load_general_pairs
from nearer.embed.base import of_length_one
from nearer.embed.encoder import Kind, SentenceEncoder


@dataclass(frozen=True, slots=True)
class AnchorTexts:
    """General texts of one kind, with the vectors that the base model gives them."""

    kind: Kind
    texts: tuple[str, ...]
    vectors: np.ndarray  # (n_texts, dimension) float32, unit length; NaN where nothing asks for it

    @classmethod
    def of(
        cls, encoder: SentenceEncoder, kind: Kind, texts: Sequence[str], met: set[int]
    ) -> AnchorTexts:
        """With the vectors of those at the positions `met`; embedding the others would be waste."""
        positions = sorted(met)
        chosen = [texts[position] for position in positions]
        found = np.asarray(encoder.without_cache().encode(chosen, kind), dtype=np.float32)
        vectors = np.full((len(texts), found.shape[1]), np.nan, dtype=np.float32)
        vectors[positions] = of_length_one(found)
        return cls(kind, tuple(texts), vectors)

    def at(self, positions: np.ndarray) -> AnchorTexts:
        """Those at some positions.  Raises LookupError where one of them was never embedded."""
        vectors = self.vectors[positions]
        if np.isnan(vectors).any():
            raise LookupError("a batch meets general texts that were not planned for it")
        texts = tuple(self.texts[position] for position in positions)
        return replace(self, texts=texts, vectors=vectors)


@dataclass(frozen=True, slots=True)
class _Draw:
    """Which general texts a batch meets: by its rows and the seed alone.

    So a resumed training meets the same.
    """

    per_batch: int  # texts of both kinds together
    seed: int

    def positions(
        self, rows: Sequence[int], n_queries: int, n_documents: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the queries, and of the passages."""
        rng = np.random.default_rng([self.seed, len(rows), *rows[:4]])
        each = max(1, self.per_batch // 2)
        queries = rng.choice(n_queries, min(each, n_queries), replace=False)
        return queries, rng.choice(n_documents, min(each, n_documents), replace=False)


@dataclass(frozen=True, slots=True)
class Anchor:
    """General queries and passages; every batch of training meets a few of each."""

    queries: AnchorTexts
    documents: AnchorTexts
    draw: _Draw

    @classmethod
    def of_base(
        cls,
        encoder: SentenceEncoder,
        per_batch: int,
        seed: int,
        batches: Iterable[Sequence[int]],
    ) -> Anchor:
        """With the vectors that `encoder` gives now, before it is trained.

        `batches` are the rows of each batch that training may meet: a short training embeds few of
        the general texts.
        """
        examples = load_general_pairs()
        n_texts = len(examples)
        draw = _Draw(per_batch, seed)
        queries: set[int] = set()
        documents: set[int] = set()
        for rows in batches:
            of_queries, of_documents = draw.positions(rows, n_texts, n_texts)
            queries.update(of_queries.tolist())
            documents.update(of_documents.tolist())
            if len(queries) == len(documents) == n_texts:
                break
        asked = [str(example.query) for example in examples]
        passages = [example.positive for example in examples]
        return cls(
            AnchorTexts.of(encoder, "query", asked, queries),
            AnchorTexts.of(encoder, "document", passages, documents),
            draw,
        )

    def of_batch(self, rows: Sequence[int]) -> tuple[AnchorTexts, AnchorTexts]:
        """The queries and the passages that a batch of training rows meets."""
        queries, documents = self.draw.positions(
            rows, len(self.queries.texts), len(self.documents.texts)
        )
        return self.queries.at(queries), self.documents.at(documents)
