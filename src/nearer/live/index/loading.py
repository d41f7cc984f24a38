"""Bringing parts into the store of a generation: each when it is embedded, or all of them in one step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearer import progress
from nearer.live.index.manifest import Manifest
from nearer.live.index.parts import read_rows
from nearer.live.stores.base import BulkStore, Rows, VectorStore


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a store lacks of one part: these documents, or all of them.  `checksum` is the manifest's."""

    path: Path
    documents: int
    doc_ids: Sequence[str] | None
    checksum: str | None


def loads_at_once(store: VectorStore, held: Collection[str]) -> bool:
    """Is a table that `held` these documents filled in one step, after the last part?"""
    return isinstance(store, BulkStore) and not held


def load_parts(
    store: VectorStore,
    manifest: Manifest,
    waiting: Iterator[Waiting],
    documents: int,
    *,
    at_once: bool,
) -> None:
    """Load documents out of their parts, in the order in which they are given; one part in memory at a time.

    `documents` is how many there are, for the display of progress.
    """
    if not documents:
        return
    with progress.task(f"load {manifest.id}", documents, "documents") as bar:
        batches = _batches(manifest, waiting, bar)
        if at_once and isinstance(store, BulkStore):
            store.load(manifest.space, batches)
            return
        for rows in batches:
            store.write(manifest.space, rows)


def _batches(manifest: Manifest, waiting: Iterator[Waiting], bar: progress.Task) -> Iterator[Rows]:
    for part in waiting:
        yield read_rows(part.path, manifest.space, part.doc_ids, part.checksum)
        bar.advance(part.documents)
