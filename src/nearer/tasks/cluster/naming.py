"""What clusters are about, in words and examples; which look like one, and which like two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearer.text import folded_words

_TERMS = 5
_SHOWN = 90  # characters of a medoid
#: Clusters whose centres are nearer than this share of their own spread look like one.
_ONE = 1.0
#: Halves of a cluster that are farther apart than this many times their spread look like two.
_TWO = 2.0
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
    ratio: float  # distance of the centres beside the spread around them


def suggestions(clusters: np.ndarray, vectors: np.ndarray, seed: int) -> list[Suggestion]:
    """Merge where centres are nearer than documents to their centre; split where halves lie far apart."""
    names = [int(name) for name in np.unique(clusters) if name >= 0]
    centres = {name: vectors[clusters == name].mean(0) for name in names}
    spreads = {name: _spread(vectors[clusters == name], centres[name]) for name in names}
    found = []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            between = float(np.linalg.norm(centres[one] - centres[other]))
            ratio = between / max(1e-9, (spreads[one] + spreads[other]) / 2)
            if ratio < _ONE:
                found.append(Suggestion("merge", (one, other), round(ratio, 3)))
    merges = sorted(found, key=lambda one: one.ratio)
    splits = []
    for name in names:
        apart = _halves(vectors[clusters == name], seed)
        if apart is not None and apart > _TWO:
            splits.append(Suggestion("split", (name,), round(apart, 3)))
    return [*merges, *sorted(splits, key=lambda one: -one.ratio)]


def _spread(vectors: np.ndarray, centre: np.ndarray) -> float:
    """Mean distance of the vectors to their centre."""
    return float(np.linalg.norm(vectors - centre, axis=1).mean())


def _halves(vectors: np.ndarray, seed: int) -> float | None:
    """Distance of the centres of two halves beside their spread; None where a half is too small."""
    from sklearn.cluster import KMeans

    if len(vectors) < 2 * _LEAST_HALF:
        return None
    halves = KMeans(2, n_init=3, random_state=seed).fit_predict(vectors)
    parts = [vectors[halves == half] for half in (0, 1)]
    if min(map(len, parts)) < _LEAST_HALF:
        return None
    centres = [part.mean(0) for part in parts]
    spread = np.mean([_spread(part, own) for part, own in zip(parts, centres, strict=True)])
    return float(np.linalg.norm(centres[0] - centres[1])) / max(1e-9, float(spread))
