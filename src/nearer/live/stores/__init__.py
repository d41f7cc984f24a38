"""Vector stores: where generations keep their chunks.  Which ones there are stands in `nearer.plugins`."""

from __future__ import annotations

from pathlib import Path

from nearer import config, plugins
from nearer.errors import ConfigError
from nearer.live.stores.adoption import adopt
from nearer.live.stores.base import VectorStore

__all__ = ["adopt", "open_store", "store_class"]


def open_store(settings: config.Index, root: Path, namespace: str = "") -> VectorStore:
    """The store of the index section; folders are relative to `root`.  Raises StoreError when it cannot be reached.

    `namespace` keeps projects that share a location apart: a schema in PostgreSQL, a folder for
    LanceDB and NumPy, a prefix of collections in Qdrant.  Empty: the top of the location.
    """
    return store_class(settings, root).open(settings, root, namespace)


def store_class(settings: config.Index, root: Path) -> type[VectorStore]:
    """The class that `index.store` names.  Raises ConfigError for a name or a class that is no vector store."""
    named = plugins.find("store", settings.store, root)
    members = [name for name in vars(VectorStore) if not name.startswith("_")]
    missing = [name for name in members if not hasattr(named, name)]
    if missing:
        raise ConfigError(
            f"{settings.store} is no vector store: it has no {missing[0]}",
            where="index.store",
            next_step="see nearer.live.stores.base: VectorStore, or build on common.Store",
        )
    chosen: type[VectorStore] = named
    return chosen
