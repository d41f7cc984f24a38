"""Vector stores: where generations keep their chunks."""

from __future__ import annotations

import os
from pathlib import Path

from nearer import config
from nearer.errors import StoreError
from nearer.index.stores.base import VectorStore


def open_store(settings: config.Index, root: Path) -> VectorStore:
    """The store of the index section; folders are relative to `root`.  Raises StoreError when it cannot be reached."""
    location = settings.location or "vectors"
    if settings.store == "numpy":
        from nearer.index.stores.numpy_store import NumpyStore

        return NumpyStore(root / location)
    if settings.store == "postgres":
        from nearer.index.stores.postgres import PostgresStore

        return PostgresStore(_address(settings))
    if settings.store == "qdrant":
        from nearer.index.stores.qdrant import QdrantStore

        address = _address(settings)
        return QdrantStore(address if "://" in address else str(root / address))
    from nearer.index.stores.lance import LanceStore

    return LanceStore(location if "://" in location else root / location)


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
