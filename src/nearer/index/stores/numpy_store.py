"""The plain store: a folder a generation that anyone can open, searched exactly.

Vectors lie in `N.npy`, chunks in `N.jsonl`; `manifest.json` says which of these segments count and
which documents of them are gone.  A write adds a segment, then renames a new manifest into place,
so a kill at any moment leaves the old state or the new one.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearer.errors import StoreError
from nearer.files import atomic, read_json, read_jsonl, write_json, write_jsonl
from nearer.index.stores.base import Space, check_generation
from nearer.index.stores.common import COLUMNS, DECIMALS, Clauses, Columns, Store, decode, locked
from nearer.retrieve.ranking import Order
from nearer.types import Hit


class _Segment:
    """One written batch: vectors memory-mapped, ids in memory, texts read when asked for."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / f"{name}.jsonl"
        self.vectors = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        self.doc_ids: list[str] = []  # distinct; rows starts[i] to starts[i + 1] belong to doc_ids[i]
        self.hashes: list[str] = []
        starts: list[int] = []
        self.terms: dict[str, list[int]] = {}
        for row, line in enumerate(read_jsonl(self.path)):
            if not self.doc_ids or line["doc_id"] != self.doc_ids[-1]:
                self.doc_ids.append(line["doc_id"])
                self.hashes.append(line["hash"])
                starts.append(row)
            for term in line["terms"]:
                self.terms.setdefault(term, []).append(row)
        self.starts = np.array(starts)

    def eligible(self, wanted: Clauses) -> np.ndarray:
        """bool (n_chunks,): the chunks that have a term of every clause."""
        mask = np.ones(len(self.vectors), bool)
        for clause in wanted:
            one = np.zeros(len(self.vectors), bool)
            for term in clause:
                one[self.terms.get(term, [])] = True
            mask &= one
        return mask


@dataclass(frozen=True, slots=True)
class _State:
    """A generation as one manifest describes it."""

    stamp: tuple[int, int]
    identity: str
    segments: tuple[_Segment, ...]
    gone: dict[str, list[int]]  # segment → positions of documents deleted or replaced

    @property
    def living(self) -> list[np.ndarray]:
        """One mask over the documents of each segment."""
        masks = [np.ones(len(segment.doc_ids), bool) for segment in self.segments]
        for segment, mask in zip(self.segments, masks, strict=True):
            mask[self.gone.get(segment.name, [])] = False
        return masks


class NumpyStore(Store):
    """Exact search over memory-mapped arrays in a local folder: the reference, and enough for small teams.

    One writer a generation; readers never wait.
    """

    kind = "numpy"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._states: dict[str, _State] = {}

    def _where(self, generation: str) -> str:
        return str(self.root / check_generation(generation))

    def _identity(self, generation: str) -> str | None:
        folder = self.root / check_generation(generation)
        if not folder.is_dir():
            return None
        return self._state(generation).identity if (folder / "manifest.json").exists() else ""

    def _generations(self) -> list[str]:
        return [path.parent.name for path in self.root.glob("*/manifest.json") if not path.parent.name.startswith(".")]

    def _make(self, space: Space) -> None:
        fresh = self.root / f".{space.generation}.{os.getpid()}"
        write_json(fresh / "manifest.json", {"identity": space.identity(), "segments": [], "gone": {}})
        try:
            os.rename(fresh, self.root / space.generation)
        except OSError:  # another process made it meanwhile: the caller compares identities
            shutil.rmtree(fresh, ignore_errors=True)

    def _state(self, generation: str) -> _State:
        """The generation as it stands on disk now; segments that are known already are not read again."""
        folder = self.root / generation
        while True:
            try:
                found = (folder / "manifest.json").stat()
                stamp = (found.st_mtime_ns, found.st_ino)
                known = self._states.get(generation)
                if known and known.stamp == stamp:
                    return known
                manifest = read_json(folder / "manifest.json")
                old = {segment.name: segment for segment in known.segments} if known else {}
                segments = tuple(old.get(name) or _Segment(folder, name) for name in manifest["segments"])
            except FileNotFoundError:
                if (folder / "manifest.json").exists():  # a writer went on meanwhile
                    continue
                raise StoreError(f"no generation {generation} in this store", where=str(folder), next_step="nearer index list") from None
            self._states[generation] = _State(stamp, str(manifest.get("identity") or ""), segments, manifest["gone"])
            return self._states[generation]

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        folder = self.root / space.generation
        with locked(folder / ".lock"):
            state = self._state(space.generation)
            kept = {segment.name for segment in state.segments}
            for path in folder.glob("[0-9]*.*"):  # left by a killed writer, or no longer needed
                if path.stem not in kept:
                    path.unlink()
            name = f"{max((int(old) for old in kept), default=0) + 1:08d}"
            with atomic(folder / f"{name}.npy", "wb") as handle:
                np.save(handle, vectors, allow_pickle=False)
            keys = (*COLUMNS, "terms")
            rows = zip(*(columns[key] for key in keys), strict=True)
            write_jsonl(folder / f"{name}.jsonl", (dict(zip(keys, row, strict=True)) for row in rows))
            self._commit(space, state, set(columns["doc_id"]), [name])

    def _delete(self, space: Space, doc_ids: list[str]) -> int:
        with locked(self.root / space.generation / ".lock"):
            return self._commit(space, self._state(space.generation), set(doc_ids), [])

    def _commit(self, space: Space, state: _State, gone: set[str], new: list[str]) -> int:
        """A manifest with some documents gone and some segments added; returns how many documents went."""
        names, positions, count = [], dict(state.gone), 0
        for segment, living in zip(state.segments, state.living, strict=True):
            found = [i for i, doc_id in enumerate(segment.doc_ids) if doc_id in gone and living[i]]
            count += len(found)
            everything = sorted([*state.gone.get(segment.name, ()), *found])
            if len(everything) < len(segment.doc_ids):
                names.append(segment.name)
            if everything:
                positions[segment.name] = everything
        positions = {name: value for name, value in positions.items() if name in names}
        manifest = {"identity": state.identity, "segments": [*names, *new], "gone": positions}
        write_json(self.root / space.generation / "manifest.json", manifest)
        return count

    def _hashes(self, space: Space) -> dict[str, str]:
        state = self._state(space.generation)
        return {
            doc_id: content
            for segment, living in zip(state.segments, state.living, strict=True)
            for doc_id, content, alive in zip(segment.doc_ids, segment.hashes, living, strict=True)
            if alive
        }

    def _count(self, space: Space) -> tuple[int, int]:
        state = self._state(space.generation)
        pairs = list(zip(state.segments, state.living, strict=True))
        return sum(int(living.sum()) for _, living in pairs), sum(int(_rows_of(segment, living).sum()) for segment, living in pairs)

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        state, asked = self._state(space.generation), set(doc_ids)
        columns: Columns = {name: [] for name in COLUMNS}
        vectors: list[np.ndarray] = []
        for segment, living in zip(state.segments, state.living, strict=True):
            wanted = living & np.array([doc_id in asked for doc_id in segment.doc_ids])
            if wanted.any():
                rows = np.flatnonzero(_rows_of(segment, wanted))
                lines = list(read_jsonl(segment.path))
                for name, values in columns.items():
                    values.extend(lines[i][name] for i in rows)
                vectors.append(segment.vectors[rows])
        return columns, np.concatenate(vectors) if vectors else np.zeros((0, 0))

    def _search(self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool) -> list[list[Hit]]:
        state = self._state(space.generation)
        parts = [(s, s.eligible(wanted) & _rows_of(s, living)) for s, living in zip(state.segments, state.living, strict=True)]
        parts = [(segment, mask) for segment, mask in parts if mask.any()]
        if not parts:
            return [[] for _ in queries]
        order = Order([doc_id for segment, _ in parts for doc_id in segment.doc_ids])
        scores = np.hstack([_scores(space, queries, segment, mask) for segment, mask in parts])
        return [order.top(row, k) for row in scores]

    def _drop(self, generation: str) -> None:
        folder, aside = self.root / generation, self.root / f".{generation}.dropped"
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _active(self) -> str | None:
        path = self.root / "active.json"
        return str(read_json(path)["generation"]) if path.exists() else None

    def _activate(self, generation: str | None) -> None:
        path = self.root / "active.json"
        if generation is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"generation": generation})


def _rows_of(segment: _Segment, living: np.ndarray) -> np.ndarray:
    """bool (n_chunks,): chunks of living documents."""
    return np.repeat(living, np.diff(np.append(segment.starts, len(segment.vectors))))


def _scores(space: Space, queries: np.ndarray, segment: _Segment, mask: np.ndarray) -> np.ndarray:
    """float32 (n_queries, n_documents): the best chunk of each document, -inf where none counts."""
    scores = np.round(queries @ decode(space, segment.vectors).T, DECIMALS)
    scores[:, ~mask] = -np.inf
    best: np.ndarray = np.maximum.reduceat(scores, segment.starts, axis=1)
    return best
