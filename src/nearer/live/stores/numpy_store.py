"""The plain store: a folder per generation that anyone can open, searched exactly.

Vectors lie in `N.npy`, chunks in `N.jsonl`; `manifest.json` says which of these segments count and
which documents of them are gone.  A write adds a segment, then renames a new manifest into place,
so a kill at any moment leaves the old state or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from nearer import config
from nearer.errors import DataError, StoreError
from nearer.files import atomic, load_array, locked, read_json, read_jsonl, write_json, write_jsonl
from nearer.live.stores.common import (
    COLUMNS,
    Columns,
    guarded,
    is_folder_inside,
    location_of,
    opened,
)
from nearer.live.stores.searching import Candidates, ScannedStore
from nearer.live.stores.space import Space, check_generation
from nearer.live.stores.terms import Clauses


class _Segment:
    """One written batch: vectors memory-mapped, ids and terms in memory, texts read when asked for."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.path = name, folder / f"{name}.jsonl"
        self.vectors = load_array(folder / f"{name}.npy", mapped=True)
        self.rows = [
            (line["doc_id"], line["hash"], frozenset(line["terms"]))
            for line in read_jsonl(self.path)
        ]
        self.documents = {doc_id for doc_id, _, _ in self.rows}


class _State(NamedTuple):
    """A generation as one manifest describes it."""

    stamp: tuple[int, int]
    identity: str
    segments: Mapping[_Segment, frozenset[str]]  # with the documents deleted or replaced since

    def rows(self, wanted: Clauses) -> Iterator[tuple[_Segment, list[int]]]:
        """The chunks that count and have a term of every clause."""
        for segment, gone in self.segments.items():
            yield (
                segment,
                [
                    i
                    for i, (doc_id, _, terms) in enumerate(segment.rows)
                    if doc_id not in gone and not any(terms.isdisjoint(clause) for clause in wanted)
                ],
            )


class NumpyStore(ScannedStore):
    """Exact search over memory-mapped arrays in a local folder: the reference, and enough for small teams.

    One writer per generation; readers never wait.
    """

    kind = "numpy"

    def __init__(self, root: Path) -> None:
        self.root, self.address = root, str(root)
        self._states: dict[str, _State] = {}

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        return cls(root / location_of(settings) / namespace)

    @classmethod
    def is_private(cls, settings: config.Index, root: Path) -> bool:
        return is_folder_inside(settings, root)

    def _identity(self, generation: str) -> str | None:
        folder = self.root / check_generation(generation)
        if not folder.is_dir():
            return None
        return self._state(generation).identity if (folder / "manifest.json").exists() else ""

    def _generations(self) -> list[str]:
        return [path.parent.name for path in self.root.glob("[!.]*/manifest.json")]

    def _make(self, space: Space) -> None:
        fresh = self.root / f".{space.generation}.{os.getpid()}"
        write_json(fresh / "manifest.json", {"identity": space.identity(), "segments": {}})
        try:
            os.rename(fresh, self.root / space.generation)
        except OSError:  # another process made it meanwhile: the caller compares identities
            shutil.rmtree(fresh, ignore_errors=True)

    def _state(self, generation: str) -> _State:
        """The generation as it stands on disk now; segments that are known already are not read again."""
        path = self.root / generation / "manifest.json"
        tried = None
        while True:
            try:
                found = path.stat()
                known = self._states.get(generation)
                if known and known.stamp == (found.st_mtime_ns, found.st_ino):
                    return known
                manifest = read_json(path)
                old = {segment.name: segment for segment in known.segments} if known else {}
                segments = {
                    old.get(name) or _Segment(path.parent, name): frozenset(gone)
                    for name, gone in manifest["segments"].items()
                }
            except FileNotFoundError as error:
                if path.exists():
                    stamp = path.stat().st_mtime_ns, path.stat().st_ino
                    if stamp == tried:  # no writer went on meanwhile: the file is lost
                        raise self._damaged(generation, f"{error.filename} is gone") from None
                    tried = stamp
                    continue
                raise StoreError(
                    f"no generation {generation} in this store",
                    where=self.address,
                    next_step="nearer index list",
                ) from None
            except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
                raise self._damaged(generation, str(error)[:100]) from None
            except DataError as error:
                raise self._damaged(generation, f"{error.what} ({error.where})") from None
            self._states[generation] = _State(
                (found.st_mtime_ns, found.st_ino), str(manifest["identity"] or ""), segments
            )
            return self._states[generation]

    def _damaged(self, generation: str, problem: str) -> StoreError:
        return StoreError(
            f"this table is damaged: {problem}",
            where=str(self.root / generation),
            next_step="remove that folder, then nearer index sync: the parts bring it back",
        )

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        folder = self.root / space.generation
        with locked(folder / ".lock"):
            kept = {segment.name for segment in self._state(space.generation).segments}
            for path in folder.glob("[0-9]*.*"):  # left by a killed writer, or no longer needed
                if path.stem not in kept:
                    path.unlink()
            name = f"{max(map(int, kept), default=0) + 1:08d}"
            with atomic(folder / f"{name}.npy", "wb") as handle:
                np.save(handle, vectors, allow_pickle=False)
            rows = zip(*columns.values(), strict=True)
            write_jsonl(
                folder / f"{name}.jsonl", (dict(zip(columns, row, strict=True)) for row in rows)
            )
            self._commit(space, set(columns["doc_id"]), {name: []})

    def _commit(self, space: Space, doc_ids: set[str], new: dict[str, list[str]]) -> int:
        """A manifest with some documents gone and a segment added; returns how many documents went."""
        state, segments, count = self._state(space.generation), {}, 0
        for segment, gone in state.segments.items():
            going = (segment.documents & doc_ids) - gone
            count += len(going)
            if len(gone | going) < len(segment.documents):
                segments[segment.name] = sorted(gone | going)
        write_json(
            self.root / space.generation / "manifest.json",
            {"identity": state.identity, "segments": segments | new},
        )
        return count

    @opened
    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        with locked(self.root / space.generation / ".lock"):
            return self._commit(space, set(doc_ids), {})

    @opened
    def hashes(self, space: Space) -> dict[str, str]:
        return {
            segment.rows[i][0]: segment.rows[i][1]
            for segment, rows in self._state(space.generation).rows([])
            for i in rows
        }

    @opened
    def count(self, space: Space) -> tuple[int, int]:
        return len(self.hashes(space)), sum(
            len(rows) for _, rows in self._state(space.generation).rows([])
        )

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        asked = set(doc_ids)
        columns: Columns = {name: [] for name in COLUMNS}
        vectors: list[Any] = []
        for segment, living in self._state(space.generation).rows([]):
            rows = [i for i in living if segment.rows[i][0] in asked]
            lines = list(read_jsonl(segment.path)) if rows else []
            for name, values in columns.items():
                values.extend(lines[i][name] for i in rows)
            vectors.extend(segment.vectors[i] for i in rows)
        return columns, np.array(vectors)

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Candidates]:
        for segment, rows in self._state(space.generation).rows(wanted):
            whole = len(rows) == len(segment.rows)  # then nothing is copied
            yield (
                [segment.rows[i][0] for i in rows],
                segment.vectors if whole else segment.vectors[rows],
            )

    @guarded
    def drop(self, generation: str) -> None:
        folder, aside = (
            self.root / check_generation(generation),
            self.root / f".{generation}.dropped",
        )
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)

    @guarded
    def active(self) -> str | None:
        path = self.root / "active.json"
        values = read_json(path) if path.exists() else {}
        return values.get("generation") if isinstance(values, dict) else None

    @guarded
    def activate(self, generation: str | None) -> None:
        write_json(
            self.root / "active.json", {"generation": generation and check_generation(generation)}
        )
