"""Vector stores: where generations keep their chunks."""

from __future__ import annotations

from pathlib import Path

from nearer import config
from nearer.index.stores.base import VectorStore


def open_store(settings: config.Index, root: Path) -> VectorStore:
    """The store of the index section; folders are relative to `root`.  Raises StoreError when it cannot be reached."""
    location = settings.location or "vectors"
    if settings.store == "numpy":
        from nearer.index.stores.numpy_store import NumpyStore

        return NumpyStore(root / location)
    from nearer.index.stores.lance import LanceStore

    return LanceStore(location if "://" in location else root / location)
