"""Freshness: generations follow the corpus by content hash, at a cost proportional to the change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.errors import BusyError, DataError
from nearer.live.index.build import Engine, Filled, Survey, fill, forget, local
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import Manifest


def sync(generations: Generations, corpus: Corpus, engine: Engine = local) -> list[Filled]:
    """Bring every generation up to date that answers, may answer soon, or may have to again (the active one first).

    Retired ones that no rollback needs only lose what the corpus no longer has.  Interrupted, it
    goes on where it stopped.  Raises BusyError.
    """
    with generations.writing():
        pointer, needed, done = generations.pointer(), generations.needed(), []
        for manifest in sorted(
            generations.manifests(), key=lambda one: (bool(one.bridge), one.id != pointer.id)
        ):
            if manifest.bridge:
                _as_below(generations, manifest, manifest.bridge["over"])
            elif manifest.state != "retired" or manifest.id in (pointer.previous, *needed):
                encoder = partial(generations.encoder, manifest)
                done.append(fill(generations, manifest, corpus, encoder, engine))
            else:
                _only_forget(generations, manifest, corpus)
        return done


def _as_below(generations: Generations, bridge: Manifest, over: str) -> None:
    """A bridge has no vectors of its own, and holds what the generation below it holds."""
    below = generations.manifest(over)
    generations.update(
        bridge.id,
        counts=below.counts,
        content=below.content,
        owner=below.owner,
        namespace=below.namespace,
    )


def _only_forget(generations: Generations, manifest: Manifest, corpus: Corpus) -> None:
    """Delete from a retired generation what the corpus no longer has, and add nothing."""
    store, folder = generations.store_of(manifest), generations.path(manifest.id) / "parts"
    stored = store.hashes(manifest.space)
    survey = Survey(corpus, folder, manifest, stored, generations.config.index.part)
    if forget(generations, manifest, survey):
        documents, chunks = store.count(manifest.space)
        generations.update(
            manifest.id,
            counts={"documents": documents, "chunks": chunks},
            content={"documents": "outdated"},
        )


def watch(
    generations: Generations, read: Callable[[], Corpus], source: Path, seconds: float
) -> Iterator[list[Filled]]:
    """Sync whenever `source`, the file or folder of the corpus, has changed and then rested for `seconds`; never ends.

    A file that cannot be read yet, or another writer, is waited for.
    """
    synced: object = None
    last = _stamp(source)
    while True:
        stamp = _stamp(source)
        if (
            stamp == last and stamp != synced
        ):  # a file still being written must not look like deleted documents
            try:
                yield sync(generations, read())
                synced = stamp
            except (DataError, BusyError, FileNotFoundError) as error:
                progress.warn(str(error))
        last = stamp
        time.sleep(seconds)


def _stamp(source: Path) -> list[tuple[str, int, int]]:
    paths = [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]
    return [
        (str(path), found.st_mtime_ns, found.st_size)
        for path in paths
        if path.exists()
        for found in [path.stat()]
    ]
