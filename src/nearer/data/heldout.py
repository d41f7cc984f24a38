"""Held-out queries: the one door to the test split, and the guard that knows them only by hashes."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nearer import files
from nearer.data import splits
from nearer.data.near import Shingler, Shingles, digest, normalise
from nearer.data.sources import bad
from nearer.types import Split


class HeldOut:
    """Answers "does this text collide with a held-out query?" without holding any text.

    Kept: the hash of each normalised text and the hashes of its shingles (see `near`), in the order
    of the hashes, which gives no order of queries away, without ids and without judgments.
    """

    def __init__(self, threshold: float, sets: dict[int, Shingles]) -> None:
        """Use `HeldOut.of` or `HeldOut.load`."""
        self.threshold = threshold
        self._sets = sets
        self._holders: dict[int, list[int]] = defaultdict(list)
        for held, shingles in sets.items():
            for h in shingles.tolist():
                self._holders[h].append(held)
        self._shingle = Shingler()

    def __len__(self) -> int:
        """How many different texts are held out."""
        return len(self._sets)

    @classmethod
    def of(cls, texts: Iterable[str], near_duplicate: float) -> HeldOut:
        """Guard for the given texts; `near_duplicate` is the Jaccard similarity of word 3-grams that collides."""
        shingle = Shingler()
        return cls(
            near_duplicate,
            dict(
                sorted(
                    (digest(normal), shingle(normal))
                    for normal in set(map(normalise, texts))
                    if normal
                )
            ),
        )

    def collides(self, text: str) -> str | None:
        """`exact` (equal after normalisation), `near-duplicate`, or None."""
        normal = normalise(text)
        if digest(normal) in self._sets:
            return "exact"
        own = self._shingle(normal)
        shared = Counter(held for h in own.tolist() for held in self._holders.get(h, ()))
        close = any(
            n / (own.size + self._sets[held].size - n) >= self.threshold
            for held, n in shared.items()
        )
        return "near-duplicate" if close else None

    def save(self, path: Path) -> None:
        """Write an .npz (no pickle) whose bytes depend on the content alone."""
        exact, lengths = (
            np.array(list(self._sets), np.uint64),
            np.array([one.size for one in self._sets.values()], np.int64),
        )
        shingles = np.concatenate([np.empty(0, np.uint64), *self._sets.values()])
        with files.atomic(path, "wb") as handle:
            np.savez(
                handle, threshold=self.threshold, exact=exact, lengths=lengths, shingles=shingles
            )

    @classmethod
    def load(cls, path: Path) -> HeldOut:
        """Read what `save` wrote.  Raises DataError."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                sets = np.split(stored["shingles"], np.cumsum(stored["lengths"])[:-1])
                return cls(
                    float(stored["threshold"]),
                    dict(zip(stored["exact"].tolist(), sets, strict=False)),
                )
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise bad(
                f"not a guard of held-out queries: {error}", path, "nearer check --force"
            ) from None


def open_test(folder: Path, log: Path, reason: str) -> Split:
    """The test split below `check/split`, after a line about this look is safely in `log`.

    The line: {time, reason, pid, n_queries}.  Only `decide` may call this.  Raises DataError when
    there is no test split.
    """
    queries = folder / "test" / "queries.jsonl"
    if not queries.is_file():
        raise bad("there is no test split", folder, "nearer check")
    n_queries = sum(1 for line in queries.read_bytes().splitlines() if line.strip())
    look = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "pid": os.getpid(),
        "n_queries": n_queries,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as out:
        out.write(json.dumps(look, ensure_ascii=False) + "\n")
        out.flush()
        os.fsync(out.fileno())
    return splits.read_files(folder, "test")
