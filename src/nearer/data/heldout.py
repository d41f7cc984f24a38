"""Held-out queries: the one door to the test split, and the guard that knows them only by hashes."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearer import files
from nearer.data import splits
from nearer.data.near import Shingler, Shingles, digest, jaccard, normalise
from nearer.errors import DataError
from nearer.types import Split


class HeldOut:
    """Answers "does this text collide with a held-out query?" without holding any text.

    Kept: the hash of each normalised text and the hashes of its shingles (see `near`), in no
    particular order of queries, without ids and without judgments.  The similarity is exact: texts
    that share enough shingles must share one of their rarest, so only those are looked up.
    """

    def __init__(self, threshold: float, exact: NDArray[np.uint64], sets: list[Shingles]) -> None:
        """Use `HeldOut.of` or `HeldOut.load`."""
        self.threshold = threshold
        self._exact = exact
        self._sets = sets
        self._known = frozenset(exact.tolist())
        self._frequency = Counter(int(h) for one in sets for h in one)
        self._holders: dict[int, list[int]] = {}
        for number, one in enumerate(sets):
            for h in one.tolist():
                self._holders.setdefault(h, []).append(number)
        self._shingle = Shingler()

    def __len__(self) -> int:
        """How many different texts are held out."""
        return len(self._sets)

    @classmethod
    def of(cls, texts: Iterable[str], near_duplicate: float) -> HeldOut:
        """Guard for the given texts; `near_duplicate` is the Jaccard similarity of word 3-grams that collides."""
        shingle = Shingler()
        by_hash = {digest(normal): shingle(normal) for normal in map(normalise, texts) if normal}
        ordered = sorted(by_hash)  # the order of the queries is not given away, and equal content gives equal bytes
        return cls(near_duplicate, np.array(ordered, dtype=np.uint64), [by_hash[h] for h in ordered])

    def collides(self, text: str) -> str | None:
        """`exact` (equal after normalisation), `near-duplicate`, or None."""
        normal = normalise(text)
        if not normal:
            return None
        if digest(normal) in self._known:
            return "exact"
        own = self._shingle(normal)
        # Two sets with Jaccard ≥ t share at least t·|own| shingles; of the rarest |own| - ⌈t·|own|⌉ + 1 they share one.
        needed = math.ceil(self.threshold * own.size - 1e-9)  # in floats, 0.55 * 100 is a little more than 55
        rarest = sorted(own.tolist(), key=lambda h: (self._frequency[h], h))[: own.size - needed + 1]
        candidates = {number for h in rarest for number in self._holders.get(h, ())}
        close = any(jaccard(own, self._sets[number]) >= self.threshold for number in candidates)
        return "near-duplicate" if close else None

    def save(self, path: Path) -> None:
        """Write an .npz (no pickle) whose bytes depend on the content alone."""
        lengths = np.array([one.size for one in self._sets], dtype=np.int64)
        flat = np.concatenate([np.empty(0, np.uint64), *self._sets])
        arrays = {"threshold": np.array(self.threshold), "exact": self._exact, "lengths": lengths, "shingles": flat}
        with files.atomic(path, "wb") as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
            for name, values in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, values, allow_pickle=False)
                # np.savez would stamp the present time, and files are compared by their bytes.
                archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> HeldOut:
        """Read what `save` wrote.  Raises DataError."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays: dict[str, Any] = {name: stored[name] for name in ("threshold", "exact", "lengths", "shingles")}
            sets = np.split(arrays["shingles"], np.cumsum(arrays["lengths"])[:-1]) if arrays["lengths"].size else []
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"not a guard of held-out queries: {error}", where=str(path), next_step="nearer check --force") from None
        return cls(float(arrays["threshold"]), arrays["exact"], list(sets))


def open_test(folder: Path, log: Path, reason: str) -> Split:
    """The test split below `check/split`, after a line about this look is safely in `log`.

    The line: {time, reason, pid, n_queries}.  Only `decide` may call this.  Raises DataError when
    there is no test split.
    """
    queries = folder / "test" / "queries.jsonl"
    if not queries.is_file():
        raise DataError("there is no test split", where=str(folder), next_step="nearer check")
    with open(queries, "rb") as handle:
        n_queries = sum(1 for line in handle if line.strip())
    look = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason, "pid": os.getpid(), "n_queries": n_queries}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as out:
        out.write(json.dumps(look, ensure_ascii=False) + "\n")
        out.flush()
        os.fsync(out.fileno())
    return splits.read_files(folder, "test")
