"""Plays sequences of index commands, kills and damage on a project, and checks after each what must always hold.

Used by tests/test_index_sequences.py (a few sequences) and bench/index_sequences.py (many).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generations_kit import World, documents
from nearer.errors import NearerError, StoreError
from nearer.files import content_hash
from nearer.live.index.build import build
from nearer.live.index.manifest import Manifest
from nearer.live.index.reader import open_active
from nearer.live.index.repair import repair
from nearer.live.index.searcher import Searcher
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify

#: What a sequence is made of.
ACTIONS = ("build", "change", "sync", "verify", "cutover", "rollback", "gc", "damage")
#: action, a number that chooses among its objects, the file operation to die at (None: it ends).
Step = tuple[str, int, int | None]
_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_SHARED = "../shared"


class Killed(BaseException):
    """The process died here."""


class _Death:
    """Dies at a file operation; from then on every further one fails too, cleaning up included."""

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self._watch)

    def _watch(self, event: str, given: Any) -> None:
        if self.left is None or event not in _OPERATIONS:
            return
        if event == "open" and "/projects/" not in str(given[0]):
            return  # modules, devices
        self.left -= 1
        if self.left <= 0:
            raise Killed

    @contextmanager
    def at(self, operation: int | None) -> Any:
        self.left = operation
        try:
            yield
        finally:
            self.left = None


_DEATH: list[_Death] = []


def death() -> _Death:
    """The one of this process: an audit hook cannot be taken away."""
    if not _DEATH:
        _DEATH.append(_Death())
    return _DEATH[0]


def prepare(folder: Path, models: tuple[Path, Path]) -> Path:
    """A project with an active generation, and a bystander that shares its store and its model."""
    projects = folder / "projects"
    for name, first in (("own", 0), ("bystander", 100)):
        index = {"location": _SHARED, "store": "numpy", "part": 4}
        world = World(projects / name, models[0], **index)
        world.write(documents(range(first, first + 12)))
        made = build(world.generations, world.corpus, world.encoder(), "today", today=True)
        verify(world.generations, made.manifest.id, world.corpus)
        world.generations.cutover(made.manifest.id)
    return projects


@dataclass
class Expected:
    """What the commands that ended have promised; two decisions where one died half-way."""

    served: dict[str, list[Any]]
    active: set[str | None]
    previous: set[str | None]


class Player:
    """One project under a sequence of steps."""

    def __init__(self, prepared: Path, folder: Path, models: tuple[Path, Path]) -> None:
        shutil.copytree(prepared, folder / "projects")
        self.world = World.at(folder / "projects" / "own")
        self.bystander = World.at(folder / "projects" / "bystander")
        for world in (self.world, self.bystander):
            world.generations.claim(copied=False)
        self.models, self.version = models, 1
        self.texts: dict[str, set[str]] = {}
        self._note_texts()
        (first,) = self.world.generations.manifests()
        self.expected = Expected({first.id: [first.decision]}, {first.id}, {None})
        self.untouched = self._bystander_state()
        self.refused = self.kills = 0

    def play(self, steps: Iterable[Step]) -> None:
        for action, number, operation in steps:
            self._play(action, number, operation)
            self.check(f"{action} {number} {operation}")

    def _play(self, action: str, number: int, operation: int | None) -> None:
        before = self.world.generations.pointer()
        command: Callable[[int], None] = getattr(self, f"_{action}")
        try:
            # Damage, and new documents, are the world's doing: no command of ours to be killed.
            with death().at(None if action in ("damage", "change") else operation):
                command(number)
        except Killed:
            self.kills += 1
        except NearerError:
            self.refused += 1  # not ready, nothing to go back to, …: said, and nothing done
        after = self.world.generations.pointer()
        if (before.id, before.previous) != (after.id, after.previous):
            assert action in ("cutover", "rollback"), f"{action} moved the pointer"
            if action == "cutover":
                self.expected.served[str(after.id)] = [{"override": f"step {number}"}]
        self.expected.active, self.expected.previous = {after.id}, {after.previous}

    # -- steps -------------------------------------------------------------------------------------

    def _generation(self, number: int) -> str:
        manifests = self.world.generations.manifests()
        return manifests[number % len(manifests)].id

    def _build(self, number: int) -> None:
        world, model = self.world, self.models[number % 2]
        force = number % 3 == 0
        encoder = world.encoder(model)
        build(world.generations, world.corpus, encoder, str(model), today=False, force=force)

    def _change(self, number: int) -> None:
        self.version += 1
        first = number % 5
        lines = [*documents(range(first, 6), self.version), *documents(range(6, 10 + number % 4))]
        self.world.write(lines)
        self._note_texts()

    def _sync(self, _: int) -> None:
        sync(self.world.generations, self.world.corpus)

    def _verify(self, number: int) -> None:
        verify(self.world.generations, self._generation(number), self.world.corpus)

    def _cutover(self, number: int) -> None:
        self.world.generations.cutover(self._generation(number), override=f"step {number}")

    def _rollback(self, _: int) -> None:
        self.world.generations.rollback()

    def _gc(self, _: int) -> None:
        self.world.generations.gc()

    def _damage(self, number: int) -> None:
        """Something is spoiled: it must be refused, never served, and mended as the error says."""
        kind = number % 4
        if kind == 3:
            self._damage_part(number)
            return
        name = ("ACTIVE", "history.jsonl", ".project")[kind]
        path = self.world.root / "generations" / name
        before = self.world.generations.pointer()
        whole = path.read_bytes()
        path.write_bytes(whole + b"{lost\n" if name == "history.jsonl" else b"[]")
        if name == "ACTIVE":
            _refused(lambda: open_active(self.world.root).search("pump"))
        if name == ".project":
            _refused(self.world.generations.gc)
        repair(self.world.generations)
        after = self.world.generations.pointer()
        assert (after.id, after.previous) == (before.id, before.previous), name

    def _damage_part(self, number: int) -> None:
        generation = str(self.world.generations.pointer().id)
        manifest = self.world.generations.manifest(generation)
        parts = sorted((self.world.root / "generations" / generation / "parts").glob("*.arrow"))
        parts = [path for path in parts if path.name in manifest.parts]
        if not parts:
            return
        path = parts[number % len(parts)]
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
        report = verify(self.world.generations, generation, self.world.corpus).verified or {}
        found = [check for check in report["checks"] if check["check"] == "parts"]
        # A byte of padding may change without changing what the part says.
        if not found[0]["passed"]:
            path.unlink()

    # -- what must always hold -----------------------------------------------------------------------

    def check(self, step: str) -> None:
        generations = self.world.generations
        pointer = generations.pointer()
        assert pointer.id in self.expected.active, step
        manifest = generations.manifest(str(pointer.id))
        assert manifest.decision in self.expected.served[manifest.id], step
        self._check_answers(manifest, step)
        if pointer.previous is not None:
            previous = generations.manifest(pointer.previous)
            assert previous.decision in self.expected.served[previous.id], step
            self._check_vectors(previous, step)
        assert self._bystander_state() == self.untouched, step

    def _check_answers(self, manifest: Manifest, step: str) -> None:
        answer = open_active(self.world.root).search("pump noise 3", 20)
        assert answer.generation == manifest.id, step
        vectors = self._check_vectors(manifest, step)
        query = self.world.generations.encoder(manifest).encode(["pump noise 3"], "query")[0]
        query = query / np.linalg.norm(query)
        for doc_id, score in answer.results[0]:
            assert abs(float(vectors[doc_id] @ query) - score) < 1e-3, (step, doc_id)
        searcher = Searcher(self.world.generations)
        assert searcher.generation == manifest.id, step
        assert searcher.current().manifest.decision == manifest.decision, step

    def _check_vectors(self, manifest: Manifest, step: str) -> dict[str, np.ndarray]:
        """Every stored vector is the one that the generation's own model gives for its text."""
        encoder = self.world.generations.encoder(manifest)
        store = self.world.generations.store_of(manifest)
        vectors = {}
        for rows in store.scan(manifest.space):
            texts = list(rows.texts)
            assert all(text in self.texts[i] for i, text in zip(rows.doc_ids, texts, strict=True))
            exact = encoder.encode(texts, "document")
            exact = exact / np.linalg.norm(exact, axis=1, keepdims=True)
            assert np.allclose(exact, rows.vectors.array, atol=1e-5), step
            vectors.update(zip(rows.doc_ids, rows.vectors.array, strict=True))
        assert vectors, step
        return vectors

    def _note_texts(self) -> None:
        for document in self.world.corpus:
            self.texts.setdefault(document.id, set()).add(document.content)

    def _bystander_state(self) -> tuple[str, Any]:
        world = self.bystander
        identity = world.generations.identity()
        assert identity is not None
        table = content_hash(world.root.parent / "shared" / identity.namespace)
        return table, open_active(world.root).search("pump noise 3", 5).results


def _refused(attempt: Callable[[], Any]) -> None:
    """What is damaged answers nothing."""
    with suppress(StoreError):
        attempt()
        raise AssertionError("damage was not noticed")
