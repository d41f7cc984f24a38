"""What clusters are about, in words and examples; which look like one, and which like two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from nearer.text import folded_words

_TERMS = 5
_SHOWN = 90  # characters of a medoid
#: Clusters look like one when they are nearer than this share of what two clusters usually are.
_ONE = 0.5
#: A cluster looks like two when its halves are at least so far apart, by the same measure.
_TWO = 0.9
_FEWEST = 3  # clusters, below which nothing is usual
_LEAST_HALF = 5


@dataclass(frozen=True, slots=True)
class Named:
    """One cluster: the terms that set it apart, its most central document, and its size."""

    cluster: int
    size: int
    terms: tuple[str, ...]
    medoid: str  # document id
    text: str  # its beginning

    @property
    def name(self) -> str:
        return ", ".join(self.terms) or self.medoid


def names_of(
    clusters: np.ndarray, vectors: np.ndarray, ids: Sequence[str], texts: Sequence[str]
) -> list[Named]:
    """Every cluster, the largest first."""
    terms = _terms(clusters, texts)
    named = []
    for cluster, own in terms.items():
        rows = np.flatnonzero(clusters == cluster)
        centre = vectors[rows].mean(0)
        medoid = int(rows[(vectors[rows] @ centre).argmax()])
        text = " ".join(texts[medoid].split())[:_SHOWN]
        named.append(Named(cluster, len(rows), own, ids[medoid], text))
    return sorted(named, key=lambda one: (-one.size, one.cluster))


def _terms(clusters: np.ndarray, texts: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): tf in the cluster · log(1 + A / f).

    f is how often a term stands anywhere, A how many words a cluster has on average.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts: dict[int, Counter[str]] = {}
    for cluster, text in zip(clusters.tolist(), texts, strict=True):
        if cluster < 0:
            continue
        words = counts.setdefault(cluster, Counter())
        for word in folded_words(text):
            if word not in ENGLISH_STOP_WORDS and len(word) > 1 and not word.isdigit():
                words[word] += 1
    everywhere: Counter[str] = Counter()
    for words in counts.values():
        everywhere.update(words)
    average = sum(everywhere.values()) / max(1, len(counts))
    best = {}
    for cluster, words in counts.items():
        total = max(1, sum(words.values()))
        weights = {
            word: count / total * np.log1p(average / everywhere[word])
            for word, count in words.items()
        }
        ranked = sorted(weights, key=lambda word: (-weights[word], word))
        best[cluster] = tuple(ranked[:_TERMS])
    return best


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Clusters to merge, or one to split, for people to look at: nothing was tried on users."""

    kind: str  # merge or split
    clusters: tuple[int, ...]
    ratio: float  # how far apart, as a share of what two clusters usually are


def suggestions(clusters: np.ndarray, vectors: np.ndarray, seed: int) -> list[Suggestion]:
    """Merge what lies half as far apart as two clusters usually do; split what has halves nearly as far.

    Distances are those of centres; usual is the median over all pairs of clusters.  Nothing is
    suggested for fewer than three clusters.
    """
    names = [int(name) for name in np.unique(clusters) if name >= 0]
    if len(names) < _FEWEST:
        return []
    centres = np.stack([vectors[clusters == name].mean(0) for name in names])
    apart = cdist(centres, centres)
    rows, columns = np.triu_indices(len(names), 1)
    usual = float(np.median(apart[rows, columns])) or 1e-9
    merges, splits = [], []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        share = float(apart[row, column]) / usual
        if share < _ONE:
            merges.append(Suggestion("merge", (names[row], names[column]), round(share, 3)))
    for name in names:
        halves = _halves(vectors[clusters == name], seed)
        if halves is not None and halves / usual >= _TWO:
            splits.append(Suggestion("split", (name,), round(halves / usual, 3)))
    merges.sort(key=lambda one: one.ratio)
    splits.sort(key=lambda one: -one.ratio)
    return [*merges, *splits]


def _halves(vectors: np.ndarray, seed: int) -> float | None:
    """Distance of the centres of the two halves of a cluster; None where a half is too small."""
    from sklearn.cluster import KMeans

    if len(vectors) < 2 * _LEAST_HALF:
        return None
    halves = KMeans(2, n_init=3, random_state=seed).fit_predict(vectors)
    parts = [vectors[halves == half] for half in (0, 1)]
    if min(map(len, parts)) < _LEAST_HALF:
        return None
    return float(np.linalg.norm(parts[0].mean(0) - parts[1].mean(0)))
