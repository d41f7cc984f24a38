"""Vector stores: where generations keep their chunks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nearer import config
from nearer.embed.encoder import Encoder
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError, StoreError
from nearer.live.stores.base import Rows, Space, VectorStore
from nearer.live.stores.common import fit


def open_store(settings: config.Index, root: Path, namespace: str = "") -> VectorStore:
    """The store of the index section; folders are relative to `root`.  Raises StoreError when it cannot be reached.

    `namespace` keeps projects that share a location apart: a schema in PostgreSQL, a folder for
    LanceDB and NumPy, a prefix of collections in Qdrant.  Empty: the top of the location.
    """
    location = settings.location or "vectors"
    if settings.store == "numpy":
        from nearer.live.stores.numpy_store import NumpyStore

        return NumpyStore(root / location / namespace)
    if settings.store == "postgres":
        from nearer.live.stores.postgres import PostgresStore

        return PostgresStore(_address(settings), namespace or "nearer")
    if settings.store == "qdrant":
        from nearer.live.stores.qdrant import QdrantStore

        address = _address(settings)
        place = address if "://" in address else str(root / address)
        return QdrantStore(place, namespace=namespace)
    from nearer.live.stores.lance import LanceStore

    if "://" in location:
        return LanceStore("/".join(filter(None, [location.rstrip("/"), namespace])))
    return LanceStore(root / location / namespace)


def is_private(settings: config.Index, root: Path) -> bool:
    """Is the location a folder inside the project, so that nobody else keeps tables there?"""
    location = settings.location or "vectors"
    if settings.store == "postgres" or "://" in location or location.startswith("env:"):
        return False
    return (root / location).resolve().is_relative_to(root.resolve())


def _address(settings: config.Index) -> str:
    """The location itself, or the environment variable that `env:NAME` points to, so that no secret lies in a file."""
    location = settings.location or ("vectors" if settings.store == "qdrant" else "")
    if location.startswith("env:"):
        location = os.environ.get(location.removeprefix("env:"), "")
    if not location:
        raise StoreError(
            f"the {settings.store} store has no address",
            where=f"index.location: {settings.location}",
            next_step="set it to the address, or to env:NAME and export NAME",
        )
    return location


def adopt(
    store: VectorStore,
    space: Space,
    rows: Iterable[Rows],
    encoder: Encoder,
    sample: int = 8,
    tolerance: float = 0.999,
) -> int:
    """Vectors that exist already become a generation under the identity that its owner declares; returns how many chunks.

    Declared is not proved: of every batch, `sample` texts are encoded again before the batch is
    written.  Raises FingerprintError where a vector's cosine with its text's is below `tolerance`;
    then the generation holds the batches before that one, and the call can be repeated.
    """
    count = 0
    for batch in rows:
        picked = np.unique(np.linspace(0, len(batch) - 1, min(sample, len(batch))).astype(int))
        again = Vectors(
            encoder.encode([batch.texts[i] for i in picked], "document"), encoder.fingerprint
        )
        given = Vectors(batch.vectors.array[picked], batch.vectors.fingerprint)
        a, b = (
            fit(space, vectors, f"adopt {space.generation}").astype(np.float64)
            for vectors in (given, again)
        )
        cosines = np.sum(a * b, axis=1) / np.maximum(
            np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12
        )
        if len(picked) and cosines.min() < tolerance:
            chunk = batch.chunk_ids[picked[cosines.argmin()]]
            raise FingerprintError(
                f"the vector of {chunk!r} is not what this model gives for its text (cosine {cosines.min():.3f})",
                where=f"adopt {space.generation}",
                next_step="declare the model, prompt and maximum length that made these vectors, or embed again: nearer index build",
            )
        store.create(space)
        store.write(space, batch)
        count += len(batch)
    return count
