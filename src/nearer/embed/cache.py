"""Rows of numbers already computed (vectors, scores), on disk, keyed by what made them.

One folder per fingerprint: `keys.bin` (16 bytes per row) and `vectors.f32` (float32 rows), both
append-only; beside vectors `fingerprint.json`.  Rows are written and flushed before their keys, so
whatever a kill leaves behind is cut back to the last whole pair when the folder is opened again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nearer.embed.fingerprint import Fingerprint
from nearer.errors import FingerprintError
from nearer.files import read_json, write_json

#: Positions of the missing → their rows, float32 (n, width).
ComputeRows = Callable[[list[int]], np.ndarray]

_KEY = 16


class RowCache:
    """Float32 rows of `width` numbers in `folder`, each found by a name.  Safe for several processes."""

    def __init__(self, folder: Path, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._width = width
        self._rows: dict[bytes, int] = {}
        self._known = 0
        with self._writing() as size:
            self._read_keys(size)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, names: Sequence[str], compute: ComputeRows) -> np.ndarray:
        """The rows called `names`, float32 (n, width): from the cache, or from `compute` and then kept.

        `compute` gets the positions of missing names, each name once; their rows are on disk when
        this returns.
        """
        keys = list(map(_key, names))
        missing = self._lacks(keys)
        if missing:
            self._append(list(missing), compute(list(missing.values())))
        if not keys:
            return np.zeros((0, self._width), np.float32)
        numbers = np.memmap(self._folder / "vectors.f32", np.float32, "r")
        rows = [self._rows[key] for key in keys]
        return np.asarray(numbers.reshape(-1, self._width)[rows])

    def lacks(self, names: Sequence[str]) -> list[int]:
        """Positions of the names that are not here, each name once."""
        return list(self._lacks(list(map(_key, names))).values())

    def _lacks(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        missing: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in self._rows:
                missing.setdefault(key, position)
        return missing

    def _append(self, keys: list[bytes], vectors: np.ndarray) -> None:
        with self._writing() as size:
            if size != self._known:  # another process appended meanwhile
                self._read_keys(size)
            rows = np.ascontiguousarray(vectors, np.float32)
            _append_to(self._folder / "vectors.f32", rows.tobytes())
            _append_to(self._folder / "keys.bin", b"".join(keys))
            for offset, key in enumerate(keys):
                self._rows[key] = size + offset
            self._known = size + len(keys)

    def _read_keys(self, size: int) -> None:
        rows: dict[bytes, int] = {}
        if size:
            data = (self._folder / "keys.bin").read_bytes()
            for row in range(size):
                key = data[row * _KEY : (row + 1) * _KEY]
                rows[key] = row
        self._rows = rows  # at once: other threads read it meanwhile
        self._known = size

    def _writing(self) -> _Lock:
        return _Lock(self._folder, 4 * self._width)


class EmbeddingCache(RowCache):
    """Vectors of one fingerprint below `folder`.

    Raises FingerprintError when the folder holds vectors that this model does not reproduce.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        own = folder / "embeddings" / fingerprint.id
        claim(own, fingerprint, "keys.bin")
        super().__init__(own, fingerprint.dimension)

    def through(
        self, texts: Sequence[str], prefix: str, compute: Callable[[list[str]], np.ndarray]
    ) -> np.ndarray:
        """Vectors of `texts`, float32 (n, dimension): from the cache, or from `compute` and then kept.

        `compute` gets the distinct missing texts; their vectors are on disk when this returns.
        """

        def compute_rows(missing: list[int]) -> np.ndarray:
            return compute([texts[row] for row in missing])

        return self.rows([prefix + text for text in texts], compute_rows)


def _key(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=_KEY).digest()


def _append_to(path: Path, payload: bytes) -> None:
    """Append to a file; it is on disk when this returns."""
    with open(path, "ab") as handle:
        handle.write(payload)
        handle.flush()
        os.fsync(handle.fileno())


def claim(folder: Path, fingerprint: Fingerprint, vectors: str) -> None:
    """Make `folder` hold vectors of this fingerprint alone; it is created when it is not there.

    Raises FingerprintError when another model filled it, or when files that match the pattern
    `vectors` stand in it without an identity.
    """
    identity = folder / "fingerprint.json"
    mend = f"delete {folder} to embed again"
    if identity.exists():
        stored = Fingerprint.from_dict(read_json(identity), where=str(identity))
        fingerprint.require(stored, where=str(folder), next_step=mend)
    elif any(folder.glob(vectors)):
        raise FingerprintError(
            "cached vectors without a fingerprint", where=str(folder), next_step=mend
        )
    else:
        write_json(identity, fingerprint.as_dict())


class _Lock:
    """Holds the folder and cuts both files back to whole pairs; gives the number of pairs."""

    def __init__(self, folder: Path, row: int) -> None:
        self._folder, self._row = folder, row

    def __enter__(self) -> int:
        self._handle = open(self._folder / ".lock", "a")
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        widths = {self._folder / "keys.bin": _KEY, self._folder / "vectors.f32": self._row}
        sizes = {path: path.stat().st_size for path in widths if path.exists()}
        pairs = min(sizes.get(path, 0) // width for path, width in widths.items())
        for path, size in sizes.items():
            if size != pairs * widths[path]:
                os.truncate(path, pairs * widths[path])
        return pairs

    def __exit__(self, *exc: object) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        self._handle.close()
