"""Rows of numbers already computed (vectors, scores), on disk, keyed by what made them.

One folder a fingerprint: `keys.bin` (16 bytes a row) and `vectors.f32` (float32 rows), both
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

    def rows(self, names: Sequence[str], compute: Callable[[list[int]], np.ndarray]) -> np.ndarray:
        """The rows called `names`, float32 (n, width): from the cache, or from `compute` and then kept.

        `compute` gets the positions of missing names, each name once; their rows are on disk when
        this returns.
        """
        keys = [
            hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_KEY).digest()
            for name in names
        ]
        missing: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in self._rows:
                missing.setdefault(key, position)
        if missing:
            self._append(list(missing), compute(list(missing.values())))
        if not keys:
            return np.zeros((0, self._width), np.float32)
        rows = np.memmap(self._folder / "vectors.f32", np.float32, "r").reshape(-1, self._width)
        return np.asarray(rows[[self._rows[key] for key in keys]])

    def _append(self, keys: list[bytes], vectors: np.ndarray) -> None:
        with self._writing() as size:
            if size != self._known:  # another process appended meanwhile
                self._read_keys(size)
            for name, payload in (
                ("vectors.f32", np.ascontiguousarray(vectors, np.float32).tobytes()),
                ("keys.bin", b"".join(keys)),
            ):
                with open(self._folder / name, "ab") as handle:
                    handle.write(payload)
                    handle.flush()
                    os.fsync(handle.fileno())
            for offset, key in enumerate(keys):
                self._rows[key] = size + offset
            self._known = size + len(keys)

    def _read_keys(self, size: int) -> None:
        data = (self._folder / "keys.bin").read_bytes()[: size * _KEY] if size else b""
        self._rows = {data[i * _KEY : (i + 1) * _KEY]: i for i in range(size)}
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
        return self.rows(
            [prefix + text for text in texts], lambda missing: compute([texts[i] for i in missing])
        )


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
        sizes = {}
        for name, width in (("keys.bin", _KEY), ("vectors.f32", self._row)):
            path = self._folder / name
            sizes[name] = (path.stat().st_size // width if path.exists() else 0, width)
        pairs = min(count for count, _ in sizes.values())
        for name, (_, width) in sizes.items():
            path = self._folder / name
            if path.exists() and path.stat().st_size != pairs * width:
                os.truncate(path, pairs * width)
        return pairs

    def __exit__(self, *exc: object) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        self._handle.close()
