"""Holds a model near its base on ordinary language while it learns a domain.

Each batch of training also holds a few general texts, and the loss grows with the distance of their
vectors from those of the base model.  Learning without forgetting (Li and Hoiem 2016, arXiv
1606.09282), on vectors in place of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    vectors: np.ndarray  # (n_texts, dimension) float32, unit length

    @classmethod
    def of(cls, encoder: SentenceEncoder, kind: Kind, texts: Sequence[str]) -> AnchorTexts:
        vectors = np.asarray(encoder.without_cache().encode(texts, kind), dtype=np.float32)
        return cls(kind, tuple(texts), of_length_one(vectors))

    def drawn(self, number: int, rng: np.random.Generator) -> AnchorTexts:
        """`number` of them, at random."""
        positions = rng.choice(len(self.texts), min(number, len(self.texts)), replace=False)
        texts = tuple(self.texts[position] for position in positions)
        return replace(self, texts=texts, vectors=self.vectors[positions])


@dataclass(frozen=True, slots=True)
class Anchor:
    """General queries and passages; every batch of training meets a few of each."""

    queries: AnchorTexts
    documents: AnchorTexts
    per_batch: int  # texts of both kinds together
    seed: int

    @classmethod
    def of_base(cls, encoder: SentenceEncoder, per_batch: int, seed: int) -> Anchor:
        """With the vectors that `encoder` gives now, before it is trained."""
        examples = load_general_pairs()
        queries = [str(example.query) for example in examples]
        documents = [example.positive for example in examples]
        return cls(
            AnchorTexts.of(encoder, "query", queries),
            AnchorTexts.of(encoder, "document", documents),
            per_batch,
            seed,
        )

    def of_batch(self, rows: Sequence[int]) -> tuple[AnchorTexts, AnchorTexts]:
        """The queries and the passages that a batch of training rows meets.

        They depend on the rows and the seed alone, so that a resumed training meets the same.
        """
        rng = np.random.default_rng([self.seed, len(rows), *rows[:4]])
        each = max(1, self.per_batch // 2)
        return self.queries.drawn(each, rng), self.documents.drawn(each, rng)
