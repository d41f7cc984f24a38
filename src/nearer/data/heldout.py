"""Held-out queries: the only function that opens the test split, and a guard that holds only hashes."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nearer import files
from nearer.data import splits
from nearer.data.cells import is_empty
from nearer.data.near import Shingler, Shingles, digest, normalise
from nearer.data.scored import ScoredPair, read_pairs
from nearer.data.sources import bad
from nearer.types import Split


class HeldOut:
    """Answers "does this text collide with a held-out query?" without holding any text.

    Kept: the hash of each normalised text and the hashes of its shingles (see `near`), in the order
    of the hashes, which reveals no order of queries, without ids and without judgments.
    """

    def __init__(self, threshold: float, sets: dict[int, Shingles]) -> None:
        """Use `HeldOut.of` or `HeldOut.load`."""
        self.threshold = threshold
        self._sets = sets
        self._holders: dict[int, list[int]] = defaultdict(list)
        for text_hash, shingles in sets.items():
            for shingle in shingles.tolist():
                self._holders[shingle].append(text_hash)
        self._shingle = Shingler()

    def __len__(self) -> int:
        """How many different texts are held out."""
        return len(self._sets)

    @classmethod
    def of(cls, texts: Iterable[str], near_duplicate: float) -> HeldOut:
        """Guard for the given texts; `near_duplicate` is the Jaccard similarity of word 3-grams that collides."""
        shingle = Shingler()
        sets: dict[int, Shingles] = {}
        for normal in set(map(normalise, texts)):
            if normal:
                sets[digest(normal)] = shingle(normal)
        return cls(near_duplicate, {text_hash: sets[text_hash] for text_hash in sorted(sets)})

    def collides(self, text: str) -> str | None:
        """`exact` (equal after normalisation), `near-duplicate`, or None."""
        return next((kind for _, kind in self.collisions(text)), None)

    def collisions(self, text: str) -> Iterator[tuple[int, str]]:
        """The held-out texts that a text repeats, as `near.digest` of each, normalised, and how.

        An exact one comes alone.
        """
        normal = normalise(text)
        if digest(normal) in self._sets:
            yield digest(normal), "exact"
            return
        own = self._shingle(normal)
        shared = Counter[int]()
        for shingle in own.tolist():
            shared.update(self._holders.get(shingle, ()))
        for text_hash, n_shared in shared.items():
            union = own.size + self._sets[text_hash].size - n_shared
            if n_shared / union >= self.threshold:
                yield text_hash, "near-duplicate"

    def save(self, path: Path) -> None:
        """Write an .npz (no pickle) whose bytes depend on the content alone."""
        exact = np.array(list(self._sets), np.uint64)
        lengths = np.array([shingles.size for shingles in self._sets.values()], np.int64)
        shingles = np.concatenate([np.empty(0, np.uint64), *self._sets.values()])
        with files.atomic(path, "wb") as handle:
            np.savez(
                handle, threshold=self.threshold, exact=exact, lengths=lengths, shingles=shingles
            )

    @classmethod
    def load(cls, path: Path) -> HeldOut:
        """Read what `save` wrote.  Raises DataError."""
        try:
            names = ("exact", "lengths", "shingles", "threshold")
            exact, lengths, shingles, threshold = files.load_arrays(path, *names)
            return cls(float(threshold), _divided(exact, lengths, shingles))
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise bad(
                f"not a guard of held-out queries: {error}", path, "nearer check --force"
            ) from None


def _divided(exact: np.ndarray, lengths: np.ndarray, shingles: Shingles) -> dict[int, Shingles]:
    """The shingles of each text.  Raises ValueError for arrays of which some part is missing."""
    if len(exact) != len(lengths) or lengths.sum() != len(shingles):
        raise ValueError("its arrays do not fit together")
    if not len(exact):
        return {}
    parts = np.split(shingles, np.cumsum(lengths)[:-1])
    return dict(zip(exact.tolist(), parts, strict=True))


#: Keys of a frozen query that are no metadata (`data.fields.query_line`).
_NO_FIELDS = ("_id", "text", "filter", "tags", "gold_spans")


class QueryNames(NamedTuple):
    """What may be known of held-out queries before they are looked at: no text, no judgment."""

    ids: frozenset[str]
    fields: frozenset[str]  # that some query has a value in


def _names(lines: Iterable[bytes], path: Path) -> QueryNames:
    """Of frozen queries, by their lines.  Raises DataError for a line that is no query."""
    ids: set[str] = set()
    fields: set[str] = set()
    for line in lines:
        try:
            query = json.loads(line)
            ids.add(str(query["_id"]))
            fields.update(name for name, value in query.items() if not is_empty(value))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise bad("the test split is damaged", path, "nearer check --force") from None
    return QueryNames(frozenset(ids), frozenset(fields.difference(_NO_FIELDS)))


def open_test(
    folder: Path,
    log: Path,
    reason: str,
    refuse: Callable[[QueryNames], None] | None = None,
) -> Split:
    """The test split below `check/split`, after a line about this look is safely in `log`.

    The line: {time, reason, pid, n_queries}.  Only `decide` may call this.  `refuse` is given the
    names in the queries and may raise: what it raises costs no look.  Raises DataError when there is
    no test split.
    """
    queries = folder / "test" / "queries.jsonl"
    if not queries.is_file():
        raise bad("there is no test split", folder, "nearer check")
    lines = [line for line in queries.read_bytes().splitlines() if line.strip()]
    if refuse is not None:
        refuse(_names(lines, queries))
    _write_look(log, reason, {"n_queries": len(lines)})
    return splits.read_files(folder, "test")


def open_test_pairs(folder: Path, log: Path, reason: str) -> tuple[ScoredPair, ...]:
    """The scored pairs of test, after a line about this look is safely in `log`.

    The line has `n_pairs` in place of `n_queries`.  Only `decide` may call this.  Raises DataError
    when there are none, and writes no line then.
    """
    pairs = read_pairs(folder, "test")
    require_pairs(pairs)
    _write_look(log, reason, {"n_pairs": len(pairs)})
    return pairs


def require_pairs(pairs: Sequence[ScoredPair]) -> None:
    """Raises DataError where no scored pairs are held out for test."""
    if not pairs:
        raise bad(
            "there are training files only, and no scored pairs held out for test",
            "data.training",
            "add documents, queries and judgments (data.folder), or more scored pairs",
        )


def _write_look(log: Path, reason: str, counts: dict[str, int]) -> None:
    record = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "pid": os.getpid(),
        **counts,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as out:
        out.write(json.dumps(record, ensure_ascii=False) + "\n")
        out.flush()
        os.fsync(out.fileno())
