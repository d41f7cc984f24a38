"""Which words of a corpus stand in the same contexts: their meaning here, as far as counting tells.

Words that are used alike stand among the same words.  Counts within a window become positive
pointwise mutual information, with contexts smoothed (Levy, Goldberg and Dagan, *Improving
Distributional Similarity*, TACL 2015), and its strongest dimensions become vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearer.measure.vectors import unit_rows

_WINDOW = 4  # words on each side that count as context
_SMOOTHED = 0.75  # exponent of the context counts
_DIMENSIONS = 64
_GAP = -1  # stands between documents


@dataclass(frozen=True, slots=True)
class Nearness:
    """Unit vectors of a vocabulary, float32 (n_words, dimension): its neighbours are near."""

    vectors: np.ndarray

    def neighbours(self, count: int) -> np.ndarray:
        """Rows of the `count` nearest other words of each word, int64 (n_words, count), nearest first."""
        similarities = self._similarities()
        order = np.argsort(-similarities, axis=1, kind="stable")
        nearest: np.ndarray = order[:, :count]
        return nearest

    def standing(self, rows: np.ndarray) -> np.ndarray:
        """How near words are here that are near elsewhere, float64 (n_words,).

        `rows` int64 (n_words, count) are the words to look for.  1: all of them are the nearest of
        the vocabulary; 0.5: they stand where random words would.
        """
        similarities = self._similarities()
        size = len(similarities)
        ranks = similarities.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        found = np.take_along_axis(ranks, rows, axis=1)
        # Rank 0 is the word itself, which stands last by construction.
        share: np.ndarray = (found - 1) / max(1, size - 2)
        means: np.ndarray = share.mean(axis=1)
        return means

    def _similarities(self) -> np.ndarray:
        similarities: np.ndarray = self.vectors @ self.vectors.T
        np.fill_diagonal(similarities, -np.inf)
        return similarities


def centred(vectors: np.ndarray) -> Nearness:
    """Vectors of a model as a nearness: what all of them share is taken away."""
    return Nearness(_unit(vectors.astype(np.float32) - vectors.mean(axis=0, dtype=np.float32)))


@dataclass(frozen=True, slots=True)
class Contexts:
    """The contexts of a vocabulary: `information` float32 (n_words, n_words) is what each word says
    of each other one, and `nearness` compares words by it.
    """

    information: np.ndarray
    nearness: Nearness

    @classmethod
    def of(cls, documents: Sequence[np.ndarray], n_words: int) -> Contexts:
        """`documents` are rows of the vocabulary in the order of the text, int64 (n_tokens,) each;
        words that are not in the vocabulary are left out of it.
        """
        information = _informative(_counted(documents, n_words))
        return cls(information, Nearness(_unit(_reduced(information))))

    def fit(self, model: Nearness, near: np.ndarray) -> np.ndarray:
        """How well the vectors of a model fit the contexts of their words, float64 (n_words,).

        Two pictures of each word are made of the model's vectors: of the words that it stands among,
        and of its neighbours here (`near`, int64 (n_words, count)).  Averaged are the shares of other
        words that fit the picture less, and of other pictures that fit the word less.  1: as in the
        model; 0.5: like a word drawn at random.
        """
        weights = self.information.copy()
        np.fill_diagonal(weights, 0.0)
        pictures = (weights @ model.vectors, model.vectors[near].sum(axis=1))
        shares = []
        for picture in pictures:
            similarities = _unit(picture) @ model.vectors.T
            own = np.diag(similarities)[:, None]
            shares.append((similarities < own).mean(axis=1))
            shares.append((own > similarities.T).mean(axis=1))
        fit: np.ndarray = np.mean(shares, axis=0)
        return fit


def _counted(documents: Sequence[np.ndarray], n_words: int) -> np.ndarray:
    """How often each word stands within the window of each other one, float32 (n_words, n_words)."""
    from scipy.sparse import coo_matrix

    gap = np.full(_WINDOW, _GAP, np.int64)
    parts: list[np.ndarray] = []
    for document in documents:
        parts += [document, gap]
    stream = np.concatenate(parts) if parts else gap
    counts = np.zeros((n_words, n_words), np.float32)
    for distance in range(1, _WINDOW + 1):
        first, second = stream[:-distance], stream[distance:]
        inside = (first != _GAP) & (second != _GAP)
        pairs = (first[inside], second[inside])
        ones = np.ones(len(pairs[0]), np.float32)
        near = coo_matrix((ones, pairs), shape=(n_words, n_words)).toarray()
        counts += near + near.T
    return counts


def _informative(counts: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information, float32 (n_words, n_words)."""
    total = max(float(counts.sum()), 1.0)
    word = counts.sum(axis=1) / total
    context = counts.sum(axis=0) ** _SMOOTHED
    context = context / max(float(context.sum()), 1e-12)
    expected = np.outer(word, context)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log((counts / total) / expected)
    information[~np.isfinite(information)] = 0.0
    positive: np.ndarray = np.maximum(information, 0.0).astype(np.float32)
    return positive


def _reduced(information: np.ndarray) -> np.ndarray:
    """The strongest dimensions, float32 (n_words, at most 64); the same for the same counts."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    size = len(information)
    if size <= 2 * _DIMENSIONS or not information.any():
        return information  # few words need no reduction
    start = np.full(size, 1.0 / np.sqrt(size), np.float32)
    left, values, _ = svds(csr_matrix(information), k=_DIMENSIONS, v0=start)
    reduced: np.ndarray = (left * np.sqrt(values)).astype(np.float32)
    return reduced


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = unit_rows(vectors).astype(np.float32)
    return unit
