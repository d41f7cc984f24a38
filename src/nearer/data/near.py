"""Near-duplicate texts: MinHash and LSH find candidates, exact Jaccard similarity decides.

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
from functools import partial
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from nearer import progress
from nearer.text import fold, pieces

Shingles = NDArray[np.uint64]  # sorted, distinct
Links = Iterable[tuple[int, int]]
Reader = Callable[[Sequence[int]], Iterator[str]]  # positions → texts
_PERMUTATIONS = 128
_BATCH = 1024
_VOCABULARY = 1_000_000
#: Odd constants that mix the hashes of three words into one.
_FIRST = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
_FINAL = np.uint64(0xBF58476D1CE4E5B9)
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
    encoded = text.encode("utf-8", "replace")
    hashed = hashlib.blake2b(encoded, digest_size=8)
    return int.from_bytes(hashed.digest(), "little")


class Shingler:
    """Hashed word 3-grams; remembers the hash of each word."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}

    def __call__(self, normal: str) -> Shingles:
        """Distinct shingles of a normalised text, sorted uint64; empty for an empty text."""
        words = pieces(normal)
        if not words:
            return np.array([], dtype=np.uint64)
        if len(words) < 3:
            # between blanks: two characters in another order are another word
            distinct = sorted(set(normal.split()))
            return np.array([digest(" ".join(distinct))], dtype=np.uint64)
        hashed = np.array(self._hashes(words), dtype=np.uint64)
        third = hashed[2:]
        mixed = hashed[1:-1] * _SECOND
        mixed += third >> np.uint64(7)
        mixed ^= hashed[:-2] * _FIRST
        mixed ^= mixed >> np.uint64(31)
        return np.unique(mixed * _FINAL + third)

    def _hashes(self, words: Sequence[str]) -> list[int]:
        known = self._words
        if len(known) > _VOCABULARY:
            known.clear()
        for word in words:
            if word not in known:
                known[word] = digest(word)
        return [known[word] for word in words]


def jaccard(a: Shingles, b: Shingles) -> float:
    """Exact Jaccard similarity of two sets of shingles; 0 when both are empty."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    if not union:
        return 0.0
    return shared / union


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


def joined(n: int, links: Links) -> list[list[int]]:
    """0..n-1 in groups that the links hold together, single items included, ordered by their first item."""
    parent = list(range(n))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for item in range(n):
        members[root(item)].append(item)
    return list(members.values())


def near_duplicates(
    texts: Iterable[str],
    threshold: float,
    what: str = "documents",
    reread: Reader | None = None,
) -> Groups:
    """Groups of texts that are equal after `normalise` or have Jaccard similarity ≥ `threshold`.

    `reread` (positions → texts, such as `Corpus.contents`) gives the texts of candidates a second
    time, so that memory is bounded by the signatures; without it the texts are held.  Empty texts
    belong to no group.
    """
    if reread is None:
        held = list(texts)
        texts, reread = held, partial(_of, held)
    scan = _scan(texts, threshold, what)
    candidates = _candidates(scan)
    positions = sorted(set(itertools.chain.from_iterable(candidates)))
    shingle = Shingler()
    shingles: dict[int, Shingles] = {}
    for position, text in zip(positions, reread(positions), strict=True):
        shingles[position] = shingle(normalise(text))
    pairs = scan.equal
    with progress.task(f"comparing {what}", len(candidates), "pairs") as task:
        for done, (a, b) in enumerate(candidates):
            similarity = jaccard(shingles[a], shingles[b])
            if similarity >= threshold:
                pairs.append(Pair(a, b, round(similarity, 4)))
            if done % _BATCH == 0:
                task.reach(done)
    links = [(pair.a, pair.b) for pair in pairs]
    groups = joined(scan.n_texts, links)
    repeated = [tuple(group) for group in groups if len(group) > 1]
    return Groups(tuple(repeated), tuple(sorted(pairs)))


def _of(texts: Sequence[str], positions: Sequence[int]) -> Iterator[str]:
    return (texts[position] for position in positions)


class _Scan(NamedTuple):
    """What one pass over the texts gives.

    `positions` are those of the distinct texts; `bands` (n_distinct, n_bands) uint64 are their
    MinHash bands; `equal` pairs each other text with the first one that it is equal to.
    """

    n_texts: int
    positions: list[int]
    bands: NDArray[np.uint64]
    equal: list[Pair]


def _rows_per_band(threshold: float) -> int:
    """Signature values per band: as many as still find 99.5% of the pairs just at the threshold."""
    enough = 1
    for rows in range(1, 33):
        missed = (1 - threshold**rows) ** (_PERMUTATIONS // rows)
        if missed <= 0.005:
            enough = rows
    return enough


def _scan(texts: Iterable[str], threshold: float, what: str) -> _Scan:
    from datasketch import MinHash

    rows = _rows_per_band(threshold)
    n_bands = _PERMUTATIONS // rows
    rng = np.random.default_rng(1)
    weights = rng.integers(1, 2**63, size=rows, dtype=np.uint64)
    weights |= np.uint64(1)
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
            values = signature.hashvalues[: n_bands * rows]
            weighted = values.reshape(n_bands, rows) * weights
            bands.extend(weighted.sum(axis=1, dtype=np.uint64).tolist())
    return _Scan(
        n_texts=position + 1,
        positions=list(first.values()),
        bands=np.array(bands, dtype=np.uint64).reshape(-1, n_bands),
        equal=equal,
    )


def _candidates(scan: _Scan) -> list[tuple[int, int]]:
    """Pairs of positions that agree in at least one band, ascending.

    Bands are sorted instead of being put into a dictionary (datasketch's MinHashLSH): 8 bytes per
    band and text in place of some 250.
    """
    candidates: set[tuple[int, int]] = set()
    for column in scan.bands.T:
        order = np.argsort(column, kind="stable")
        changes = np.flatnonzero(np.diff(column[order]))
        for bucket in np.split(order, changes + 1):
            if bucket.size > 1:
                members = [scan.positions[row] for row in bucket.tolist()]
                candidates.update(itertools.combinations(members, 2))
    return sorted(candidates)
