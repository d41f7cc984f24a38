"""Near-duplicate texts: MinHash and LSH for candidates, exact Jaccard similarity for the verdict.

Texts are compared after `normalise`.  A text of three or more words is the set of its word
3-grams; a shorter one is the set of its words taken as one piece, so that short texts match only
when they use the same words.
"""

from __future__ import annotations

import array
import hashlib
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearer import progress

Shingles = NDArray[np.uint64]  # sorted, distinct
_PERMUTATIONS = 128
_BATCH = 1024
_VOCABULARY = 1_000_000
#: Sentence punctuation only: `+ # < > - /` tell C++ from C# and one command from another.
_SEPARATORS = re.compile(r"[\s.,;:!?\"'“”‘’„«»()\[\]{}…–—]+")


def normalise(text: str) -> str:
    """A text without case, width variants (NFKC), sentence punctuation and extra spaces.

    A text of nothing but punctuation stays as it is, so that `?` and `!` differ.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_SEPARATORS.sub(" ", folded).split()) or folded.strip()


def digest(text: str) -> int:
    """64-bit hash, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


class Shingler:
    """Hashed word 3-grams; remembers the hash of each word it has seen."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}

    def __call__(self, normal: str) -> Shingles:
        """Distinct shingles of a normalised text, sorted uint64; empty for an empty text."""
        words = normal.split()
        if len(words) < 3:
            return np.array([digest(" ".join(sorted(set(words))))] if words else [], dtype=np.uint64)
        known = self._words
        if len(known) > _VOCABULARY:
            known.clear()
        hashed = np.fromiter((known[w] if w in known else known.setdefault(w, digest(w)) for w in words), np.uint64, len(words))
        first, second, third = hashed[:-2], hashed[1:-1], hashed[2:]
        mixed = (first * np.uint64(0x9E3779B97F4A7C15)) ^ (second * np.uint64(0xC2B2AE3D27D4EB4F) + (third >> np.uint64(7)))
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9) + third
        return np.unique(mixed)


def jaccard(a: Shingles, b: Shingles) -> float:
    """Exact Jaccard similarity of two sets of shingles; 0 when both are empty."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    return shared / union if union else 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions `a < b` of two texts; `similarity` 1.0 with `exact` set means equal after `normalise`."""

    a: int
    b: int
    similarity: float
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Groups:
    """Texts that repeat.  `groups`: positions, two or more each, ascending; `pairs`: the evidence.

    Of texts that are equal only the pairs with their first one are listed.
    """

    groups: tuple[tuple[int, ...], ...]
    pairs: tuple[Pair, ...]
    n_texts: int

    @property
    def exact(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if pair.exact)

    @property
    def near(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if not pair.exact)


class Union:
    """Union-find over 0..n-1."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, item: int) -> int:
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        low, high = sorted((self.find(a), self.find(b)))
        self._parent[high] = low

    def groups(self) -> list[list[int]]:
        """All groups, single items included, ordered by their first item."""
        members: dict[int, list[int]] = defaultdict(list)
        for item in range(len(self._parent)):
            members[self.find(item)].append(item)
        return list(members.values())


def near_duplicates(
    texts: Iterable[str],
    threshold: float,
    what: str = "documents",
    reread: Callable[[Sequence[int]], Iterator[str]] | None = None,
) -> Groups:
    """Groups of texts that are equal after `normalise` or have Jaccard similarity ≥ `threshold`.

    With `reread` (positions → texts, such as `Corpus.contents`) the shingles of candidates are made
    a second time instead of being kept, which bounds memory by the signatures.  Empty texts belong
    to no group.
    """
    rows = _bands(threshold)
    scan = _scan(texts, what, rows, keep=reread is None)
    candidates = _candidates(scan)
    shingles = scan.shingles
    if reread is not None:
        wanted = sorted({position for pair in candidates for position in pair})
        shingle = Shingler()
        shingles = {position: shingle(normalise(text)) for position, text in zip(wanted, reread(wanted), strict=True)}
    pairs = scan.equal
    union = Union(scan.n_texts)
    for pair in pairs:
        union.join(pair.a, pair.b)
    with progress.task(f"comparing {what}", len(candidates), "pairs") as task:
        for done, (a, b) in enumerate(candidates, start=1):
            similarity = jaccard(shingles[a], shingles[b]) if _sizes_allow(shingles[a].size, shingles[b].size, threshold) else 0.0
            if similarity >= threshold:
                pairs.append(Pair(a, b, round(similarity, 4)))
                union.join(a, b)
            if done % _BATCH == 0:
                task.advance(_BATCH)
    groups = tuple(tuple(group) for group in union.groups() if len(group) > 1)
    return Groups(groups, tuple(sorted(pairs, key=lambda pair: (pair.a, pair.b))), scan.n_texts)


def _sizes_allow(a: int, b: int, threshold: float) -> bool:
    return min(a, b) / max(a, b) >= threshold


@dataclass(frozen=True, slots=True)
class _Scan:
    """One pass over the texts: `bands[i]` belongs to the text at `positions[i]`."""

    positions: list[int]
    bands: NDArray[np.uint64]
    equal: list[Pair]
    shingles: dict[int, Shingles]
    n_texts: int


def _bands(threshold: float) -> int:
    """Signature values a band: as many as still find 99.5% of the pairs that are just at the threshold."""
    fitting = [r for r in range(1, 33) if 1 - (1 - threshold**r) ** (_PERMUTATIONS // r) >= 0.995]
    return max(fitting, default=1)


def _scan(texts: Iterable[str], what: str, rows: int, keep: bool) -> _Scan:
    """Hash every text; only the first of equal ones goes on to be compared."""
    from datasketch import MinHash

    start = MinHash(_PERMUTATIONS, seed=1, hashfunc=int, scheme="affine64")
    n_bands = _PERMUTATIONS // rows
    weights = np.random.default_rng(1).integers(1, 2**63, size=rows, dtype=np.uint64) | np.uint64(1)
    shingle = Shingler()
    positions: list[int] = []
    bands = array.array("Q")
    equal: list[Pair] = []
    kept: dict[int, Shingles] = {}
    first: dict[int, int] = {}
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
            shingles = shingle(normal)
            signature = MinHash(_PERMUTATIONS, hashfunc=int, scheme="affine64", seed=1, permutations=start.permutations)
            signature.update_batch(shingles.tolist())
            values = signature.hashvalues[: n_bands * rows].reshape(n_bands, rows)
            bands.extend((values * weights).sum(axis=1, dtype=np.uint64).tolist())
            positions.append(position)
            if keep:
                kept[position] = shingles
    table = np.frombuffer(bands, dtype=np.uint64).reshape(-1, n_bands) if bands else np.empty((0, n_bands), np.uint64)
    return _Scan(positions, table, equal, kept, position + 1)


def _candidates(scan: _Scan) -> list[tuple[int, int]]:
    """Pairs of positions that agree in at least one band, ascending.

    Bands are sorted instead of being put into a dictionary (datasketch's MinHashLSH): 8 bytes a
    band and text in place of some 250.
    """
    found: set[tuple[int, int]] = set()
    for column in scan.bands.T:
        order = np.argsort(column, kind="stable")
        ends = np.flatnonzero(np.diff(column[order])) + 1
        for bucket in np.split(order, ends):
            if bucket.size > 1:
                members = [scan.positions[i] for i in sorted(bucket.tolist())]
                found.update(itertools.combinations(members, 2))
    return sorted(found)
