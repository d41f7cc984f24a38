"""Near-duplicate texts: MinHash and LSH for candidates, exact Jaccard similarity for the verdict.

Texts are compared after `normalise`.  A text of three or more words is the set of its word
3-grams, where each character is a word in scripts without blanks (see `nearer.text`); a shorter one
is the set of its words taken as one piece, so that short texts match only when they use the same
words.
"""

from __future__ import annotations

import array
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from nearer import progress
from nearer.text import fold, pieces

Shingles = NDArray[np.uint64]  # sorted, distinct
_PERMUTATIONS = 128
_BATCH = 1024
_VOCABULARY = 1_000_000
#: Sentence punctuation only: `+ # < > - /` tell C++ from C# and one command from another.
_SEPARATORS = regex.compile(r"[\s…–—\"'\p{Terminal_Punctuation}\p{Ps}\p{Pe}\p{Pi}\p{Pf}]+")


def normalise(text: str) -> str:
    """A folded text without sentence punctuation, of any script, and extra spaces.

    A text of nothing but punctuation stays as it is, so that `?` and `!` differ.
    """
    folded = fold(text)
    return " ".join(_SEPARATORS.sub(" ", folded).split()) or folded.strip()


def digest(text: str) -> int:
    """64-bit hash, the same on every machine and in every process."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little"
    )


class Shingler:
    """Hashed word 3-grams; remembers the hash of each word it has seen."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}

    def __call__(self, normal: str) -> Shingles:
        """Distinct shingles of a normalised text, sorted uint64; empty for an empty text."""
        words = pieces(normal)
        if not words:
            return np.array([], dtype=np.uint64)
        if len(words) < 3:
            # between blanks: two characters in another order are another word
            return np.array([digest(" ".join(sorted(set(normal.split()))))], dtype=np.uint64)
        known = self._words
        if len(known) > _VOCABULARY:
            known.clear()
        hashed = np.fromiter(
            (known[w] if w in known else known.setdefault(w, digest(w)) for w in words),
            np.uint64,
            len(words),
        )
        first, second, third = hashed[:-2], hashed[1:-1], hashed[2:]
        mixed = (first * np.uint64(0x9E3779B97F4A7C15)) ^ (
            second * np.uint64(0xC2B2AE3D27D4EB4F) + (third >> np.uint64(7))
        )
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9) + third
        return np.unique(mixed)


def jaccard(a: Shingles, b: Shingles) -> float:
    """Exact Jaccard similarity of two sets of shingles; 0 when both are empty."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    return shared / union if union else 0.0


class Pair(NamedTuple):
    """Positions `a < b` of two texts; `similarity` 1.0 with `exact` set means equal after `normalise`."""

    a: int
    b: int
    similarity: float
    exact: bool = False


class Groups(NamedTuple):
    """Texts that repeat.  `groups`: positions, two or more each, ascending; `pairs`: the evidence.

    Of texts that are equal only the pairs with their first one are listed.
    """

    groups: tuple[tuple[int, ...], ...]
    pairs: tuple[Pair, ...]


def joined(n: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """0..n-1 in groups that the links hold together, single items included, ordered by their first item."""
    parent = list(range(n))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    for a, b in links:
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for item in range(n):
        members[find(item)].append(item)
    return list(members.values())


def near_duplicates(
    texts: Iterable[str],
    threshold: float,
    what: str = "documents",
    reread: Callable[[Sequence[int]], Iterator[str]] | None = None,
) -> Groups:
    """Groups of texts that are equal after `normalise` or have Jaccard similarity ≥ `threshold`.

    `reread` (positions → texts, such as `Corpus.contents`) gives the texts of candidates a second
    time, so that memory is bounded by the signatures; without it the texts are held.  Empty texts
    belong to no group.
    """
    if reread is None:
        held = list(texts)
        texts, reread = held, lambda positions: (held[i] for i in positions)
    n_texts, positions, bands, pairs = _scan(texts, threshold, what)
    candidates = _candidates(positions, bands)
    wanted = sorted(set(itertools.chain.from_iterable(candidates)))
    shingle = Shingler()
    shingles = {
        position: shingle(normalise(text))
        for position, text in zip(wanted, reread(wanted), strict=True)
    }
    with progress.task(f"comparing {what}", len(candidates), "pairs") as task:
        for done, (a, b) in enumerate(candidates):
            if (similarity := jaccard(shingles[a], shingles[b])) >= threshold:
                pairs.append(Pair(a, b, round(similarity, 4)))
            if done % _BATCH == 0:
                task.reach(done)
    groups = tuple(
        tuple(group) for group in joined(n_texts, (pair[:2] for pair in pairs)) if len(group) > 1
    )
    return Groups(groups, tuple(sorted(pairs)))


def _scan(
    texts: Iterable[str], threshold: float, what: str
) -> tuple[int, list[int], NDArray[np.uint64], list[Pair]]:
    """How many texts; positions of the different ones, with the MinHash bands of each; pairs of equal ones."""
    from datasketch import MinHash

    # Signature values a band: as many as still find 99.5% of the pairs that are just at the threshold.
    rows = max(
        (r for r in range(1, 33) if (1 - threshold**r) ** (_PERMUTATIONS // r) <= 0.005), default=1
    )
    n_bands = _PERMUTATIONS // rows
    weights = np.random.default_rng(1).integers(1, 2**63, size=rows, dtype=np.uint64) | np.uint64(1)
    start = MinHash(_PERMUTATIONS, seed=1, hashfunc=int, scheme="affine64")
    shingle = Shingler()
    bands = array.array("Q")
    equal: list[Pair] = []
    first: dict[int, int] = {}  # in order: the positions of different texts
    position = -1
    with progress.task(f"hashing {what}", unit=what) as task:
        for position, text in enumerate(texts):
            if position % _BATCH == 0:
                task.reach(position)
            normal = normalise(text)
            if not normal:
                continue
            original = first.setdefault(digest(normal), position)
            if original != position:
                equal.append(Pair(original, position, 1.0, exact=True))
                continue
            signature = MinHash(
                _PERMUTATIONS,
                hashfunc=int,
                scheme="affine64",
                seed=1,
                permutations=start.permutations,
            )
            signature.update_batch(shingle(normal).tolist())
            values = signature.hashvalues[: n_bands * rows].reshape(n_bands, rows)
            bands.extend((values * weights).sum(axis=1, dtype=np.uint64).tolist())
    return (
        position + 1,
        list(first.values()),
        np.array(bands, dtype=np.uint64).reshape(-1, n_bands),
        equal,
    )


def _candidates(positions: list[int], bands: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Pairs of positions that agree in at least one band, ascending.

    Bands are sorted instead of being put into a dictionary (datasketch's MinHashLSH): 8 bytes a
    band and text in place of some 250.
    """
    found: set[tuple[int, int]] = set()
    for column in bands.T:
        order = np.argsort(column, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(column[order])) + 1):
            if bucket.size > 1:
                found.update(itertools.combinations([positions[i] for i in bucket.tolist()], 2))
    return sorted(found)
