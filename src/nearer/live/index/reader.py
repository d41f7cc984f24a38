"""Answers from whichever generation is active, while it changes."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import config
from nearer.embed.fingerprint import Vectors
from nearer.errors import StoreError
from nearer.files import write_json
from nearer.live.index.generations import Generation, Generations
from nearer.live.index.manifest import Manifest
from nearer.live.index.ownership import known_identity, write_identity
from nearer.types import Hit, Metadata


@dataclass(frozen=True, slots=True)
class Answer:
    """Results of one search, all from one generation: a list of hits a query, best first."""

    generation: str
    results: list[list[Hit]]


class Reader:
    """Searches the active generation.  Safe for threads; looks at the pointer at every search.

    A search that has begun ends on the generation it began with.  The active generation and the
    one to roll back to stay open, so that a rollback takes no longer than a search.
    """

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._open: dict[str, Generation] = {}
        self._opening = threading.Lock()

    def search(
        self, asked: str | Sequence[str] | Vectors, k: int = 10, filter: Metadata | None = None
    ) -> Answer:
        """The `k` best documents of each query: one text, several, or Vectors, which say who made them.

        Raises FingerprintError for vectors of another model or of none, StoreError when nothing is active.
        """
        while True:
            generation = self.current()
            try:
                return Answer(generation.manifest.id, generation.search(asked, k, filter=filter))
            except StoreError:
                if self._generations.pointer().id == generation.manifest.id:
                    raise  # otherwise it was dropped meanwhile: ask the one that answers now

    def current(self) -> Generation:
        """The active generation, opened once."""
        pointer = self._generations.pointer()
        if pointer.id is None:
            raise StoreError(
                "no generation is active",
                where=str(self._generations.folder),
                next_step="nearer index cutover ID",
            )
        if pointer.id not in self._open:
            self.warm(pointer.id)
        return self._open[pointer.id]

    def warm(self, generation: str) -> None:
        """Open a generation before it is cut over to, so that no search waits for its model."""
        with self._opening:
            if generation not in self._open:
                opened = self._generations.open(generation)
                pointer = self._generations.pointer()
                kept = {
                    name: one
                    for name, one in self._open.items()
                    if name in (pointer.id, pointer.previous)
                }
                self._open = kept | {generation: opened}


def open_active(root: str | Path, settings: config.Config | None = None) -> Reader:
    """A reader over the generations beside `root/nearer.yaml`: what an application holds."""
    return Reader(
        Generations(Path(root).resolve(), settings or config.load(Path(root) / "nearer.yaml"))
    )


class _Rehearsal(Generations):
    """A copy of the pointer and the manifests; tables and models are the real ones."""

    def activate(self, manifest: Manifest) -> None:
        """The store's own pointer stays where it is."""


def rehearse(generations: Generations, generation: str, query: str) -> dict[str, Any]:
    """Cut over to a generation and roll back, on a copy of the pointer, asking `query` before, between and after.

    Returns {cutover_ms, rollback_ms, searches: [{generation, ms, results}]}; the first search of a
    generation includes loading its model.  Raises StoreError where the real cut-over would.
    """
    active = generations.pointer().id
    if active is None:
        raise StoreError(
            "no generation is active yet",
            where=str(generations.folder),
            next_step=f"nearer index cutover {generation}",
        )
    with tempfile.TemporaryDirectory(prefix="nearer-") as scratch:
        copy = _Rehearsal(generations.root, generations.config, Path(scratch))
        shutil.copy(generations.folder / "ACTIVE", copy.folder)
        if (identity := generations.identity()) is not None:
            write_identity(copy.folder, known_identity(copy.folder, identity.id))
        for name in {active, generation}:
            write_json(copy.folder / name / "manifest.json", generations.manifest(name).as_dict())
            (copy.folder / name / "model").symlink_to(generations.path(name).resolve() / "model")
        reader, searches, times = Reader(copy), [], []
        for step in (None, lambda: copy.cutover(generation, override="rehearsal"), copy.rollback):
            started = time.perf_counter()
            if step:
                step()
                times.append(round(1000 * (time.perf_counter() - started), 3))
            started = time.perf_counter()
            answer = reader.search(query)
            took = round(1000 * (time.perf_counter() - started), 3)
            searches.append(
                {"generation": answer.generation, "ms": took, "results": len(answer.results[0])}
            )
    return {"id": generation, "cutover_ms": times[0], "rollback_ms": times[1], "searches": searches}
