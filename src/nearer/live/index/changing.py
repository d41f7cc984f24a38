"""Changing generations under a lock: what a kill leaves undone is finished by the next command that writes.

`ACTIVE` is the truth and moves by one rename.  History, the states in the manifests and the store's
own pointer follow it here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.errors import BusyError, StoreError
from nearer.files import locked, write_json
from nearer.live.index.leases import holders
from nearer.live.index.manifest import READY, Manifest, Pointer
from nearer.live.index.on_disk import GenerationsOnDisk
from nearer.live.index.ownership import (
    Identity,
    known_identity,
    new_identity,
    settle_identity,
    write_identity,
)

#: Seconds to wait for another process that moves the pointer, which takes milliseconds.
_PATIENCE = 30.0


class ChangingGenerations(GenerationsOnDisk):
    """Locks, and what every change of a generation goes through."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold all generations against other writers, what was left undone finished first.  Raises BusyError.

        Cut-over and rollback do not wait for this: a build may take hours.
        """
        note = self.folder / ".writer"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / ".lock", 0))
            except BusyError:
                pid = note.read_text() if note.exists() else "unknown"
                what = f"another process (pid {pid}) is writing generations"
                raise BusyError(
                    what,
                    where=str(self.folder),
                    next_step="wait for it, or stop it and run this again",
                ) from None
            note.write_text(str(os.getpid()))
            with self._moving():
                pass
            for manifest in self.manifests():
                if manifest.state == "dropping" and not holders(self.folder, manifest.id):
                    self._remove(manifest)
            for stray in [*self.folder.glob(".new-*"), *self.folder.glob(".gone-*")]:
                shutil.rmtree(stray)
            yield

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Hold the pointer and the states, for milliseconds; what follows from ACTIVE is settled first."""
        with locked(self.folder / ".pointer", _PATIENCE):
            settle_identity(self.folder, self._named_owners, self.private)
            self._settle()
            yield

    def _settle(self) -> None:
        """History, the store's pointer and the manifests catch up with ACTIVE."""
        pointer = self.pointer()
        self._end_last_line()
        if pointer.entry and pointer.entry not in self.history():
            self._append(pointer.entry)
        moved = {pointer.previous, (pointer.entry or {}).get("from")} - {pointer.id, None}
        for name in sorted(map(str, moved)):
            try:
                self._follow(name, pointer)
            except StoreError as error:  # what happened to it must not stop the one that answers
                progress.warn(str(error))
        if pointer.id:
            self._follow(pointer.id, pointer)

    def _follow(self, name: str, pointer: Pointer) -> None:
        """Write into a manifest what the pointer says about it."""
        path = self.folder / name / "manifest.json"
        if not path.is_file():
            return
        stored = Manifest.read(path)
        changed = pointer.of(stored)
        if changed == stored:
            return
        if changed.state == "active" and stored.state != "active":
            self.activate(stored)  # before the manifest, which says that the store follows
        write_json(path, changed.as_dict())

    def activate(self, manifest: Manifest) -> None:
        """Move the store's own pointer, for readers that do not see this folder."""
        self.store_of(manifest).activate(manifest.space.generation)

    def _move(self, pointer: Pointer) -> Pointer:
        write_json(self.folder / "ACTIVE", asdict(pointer))
        self._settle()
        return pointer

    def add(self, fresh: Path, manifest: Manifest) -> Manifest:
        """Put the folder of a new generation in its place."""
        with self._moving():
            os.rename(fresh, self.folder / manifest.id)
            self._append(self._entry("build", None, manifest.id, None))
        return manifest

    def update(self, generation: str, **changes: Any) -> Manifest:
        """Write changed values into a manifest; its state never contradicts ACTIVE."""
        with self._moving():
            changed = replace(Manifest.read(self.path(generation) / "manifest.json"), **changes)
            changed = replace(changed, state=self.pointer().state(changed))
            moved = changed.namespace != self.manifest(generation).namespace
            if moved and changed.state == "active":  # its table is complete, and not read yet
                self.activate(changed)
            write_json(self.folder / generation / "manifest.json", changed.as_dict())
            return changed

    # -- a project that was copied or moved ------------------------------------------------------

    def claim(self, *, copied: bool, who: str | None = None) -> Identity:
        """Say what a project is whose folder was copied or moved.

        A copy gets an identity of its own.  Its generations hold no vectors then, until `sync` has
        loaded them from their parts; the tables of the original stay as they are.
        """
        with locked(self.folder / ".lock", 0), locked(self.folder / ".pointer", _PATIENCE):
            old = self.identity()
            if old is None:
                raise self._refusal("this project has no identity yet", "nearer index build")
            if not copied:
                return write_identity(self.folder, known_identity(self.folder, old.id))
            new = new_identity(self.folder)
            # The identity is written last: until then the project is refused as before.
            for manifest in self.manifests():
                if manifest.owner == old.id and not self.private:
                    self._give(manifest, new)
            write_identity(self.folder, new)
            for manifest in self.manifests():
                self._append(
                    self._entry("claim", None, manifest.id, who, why=f"copied from {old.home}")
                )
            return new

    def _give(self, manifest: Manifest, owner: Identity) -> None:
        """Let a generation of a copied project begin tables of its own."""
        place = self.config.index.namespace or owner.namespace
        state = "building" if manifest.state in READY else manifest.state
        changed = replace(
            manifest, owner=owner.id, namespace=place, state=state, verified=None, index={}
        )
        write_json(self.folder / manifest.id / "manifest.json", changed.as_dict())

    # -- removing --------------------------------------------------------------------------------

    def _remove(self, manifest: Manifest) -> None:
        self._drop_table(manifest)
        gone = self.folder / f".gone-{manifest.id}"
        os.rename(self.path(manifest.id), gone)
        shutil.rmtree(gone)

    def _drop_table(self, manifest: Manifest) -> None:
        """Remove a generation's table, but never one that may be another project's."""
        if manifest.bridge:
            return
        store = self.store_of(manifest)
        owner = store.owners().get(manifest.id)
        unknown = not manifest.owner and not self.private
        if owner is not None and (owner != manifest.owner or unknown):
            place = f"{self.config.index.location} ({manifest.store})"
            progress.warn(
                f"{place}: the table of {manifest.id} stays: it may belong to another project; "
                "remove it by hand when none uses it"
            )
            return
        store.drop(manifest.id)
