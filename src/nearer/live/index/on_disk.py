"""Generations as they lie on disk: manifests, the pointer, history, and whose tables these are.

Everything here reads, but for `_append`, which writes one line of history.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.config import Config
from nearer.embed.fingerprint import Fingerprint
from nearer.errors import NearerError, StoreError
from nearer.files import own_file
from nearer.live.index.manifest import ID, Manifest, Pointer, Rollout
from nearer.live.index.ownership import Identity, read_identity_file
from nearer.live.index.state import History, parse_entry, read_history, read_pointer, read_rollout
from nearer.live.stores import open_store, store_class
from nearer.live.stores.base import VectorStore


class GenerationsOnDisk:
    """What the files below `root/generations` say, and the stores that hold the tables."""

    def __init__(self, root: Path, config: Config, folder: Path | None = None) -> None:
        self.root, self.config = root, config
        self.folder = folder or root / "generations"
        self._stores: dict[str, VectorStore] = {}
        self._manifests: dict[Path, tuple[tuple[int, int, int], Manifest]] = {}
        self._warned: set[str] = set()

    # -- manifests and states ----------------------------------------------------------------

    def path(self, generation: str) -> Path:
        """The folder of a generation.  Raises StoreError for anything that is not the id of one."""
        path = self.folder / generation
        if not ID.fullmatch(generation) or not (path / "manifest.json").is_file():
            raise self._refusal(f"no generation {generation[:40]!r}", "nearer index list")
        return path

    def manifest(self, generation: str) -> Manifest:
        """A manifest, its state as ACTIVE has it."""
        path = self.path(generation) / "manifest.json"
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        known = self._manifests.get(path)  # a service asks for it at every search
        if known is None or known[0] != stamp:
            known = stamp, Manifest.read(path)
            self._manifests[path] = known
        return self.pointer().of(known[1])

    def manifests(self) -> list[Manifest]:
        """All generations, oldest first."""
        manifests = [
            self.manifest(path.parent.name)
            for path in self.folder.glob("*/manifest.json")
            if ID.fullmatch(path.parent.name)
        ]
        return sorted(manifests, key=_age)

    def pointer(self) -> Pointer:
        """What answers, and what a rollback goes back to.  Raises StoreError when ACTIVE is damaged."""
        return read_pointer(self.folder)

    def rollout(self) -> Rollout | None:
        """What is being tried on live traffic; None when nothing is, or when it answers everybody by now."""
        running = read_rollout(self.folder)
        if running is None:
            return None
        if running.generation == self.pointer().id:
            return None
        if not (self.folder / running.generation / "manifest.json").is_file():
            return None
        return running

    def needed(self) -> set[str]:
        """Generations whose tables others answer from, across a bridge."""
        tables = set()
        for manifest in self.manifests():
            if manifest.bridge and manifest.state != "dropping":
                tables.add(str(manifest.bridge["over"]))
        return tables

    # -- history -----------------------------------------------------------------------------

    def history(self) -> Sequence[dict[str, Any]]:
        """Every change of state, oldest first; damaged lines are reported once and left out."""
        return self._history().entries

    def _history(self) -> History:
        path = self.folder / "history.jsonl"
        history = read_history(path)
        for line in history.bad:
            where = f"{path}:{line.number}"
            if where not in self._warned:
                self._warned.add(where)
                progress.warn(
                    f"{where}: this line is left out: {line.problem} → nearer index repair"
                )
        return history

    def _end_last_line(self) -> None:
        """A last line of history that a kill cut short goes; a whole one only lacks its end."""
        path = self.folder / "history.jsonl"
        content = path.read_bytes() if path.exists() else b""
        if not content or content.endswith(b"\n"):
            return
        own_file(path)
        start = content.rfind(b"\n") + 1
        if parse_entry(content[start:])[1]:
            os.truncate(path, start)
        else:
            with open(path, "ab") as handle:
                handle.write(b"\n")

    def _append(self, entry: Mapping[str, Any]) -> None:
        own_file(self.folder / "history.jsonl")
        with open(self.folder / "history.jsonl", "ab") as handle:
            handle.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())

    def _entry(
        self, action: str, before: str | None, generation: str, who: str | None, **more: Any
    ) -> dict[str, Any]:
        """A line of history.  Its number tells it apart where a clock stands still."""
        return {
            "time": now(),
            "who": who or user(),
            "action": action,
            "from": before,
            "to": generation,
            **more,
            "seq": self._history().next_number,
        }

    def free_id(self, fingerprint: Fingerprint) -> str:
        """The id of the next generation of a fingerprint: it names that one for ever, also in traffic logs."""
        history = self._history()
        used = {manifest.id for manifest in self.manifests()}
        used.update(line["to"] for line in history.entries)
        # A folder that was restored from a backup knows less than the store.
        used.update(self.store(self.config.index.store).owners())
        for line in history.bad:  # what it names may be in use elsewhere, for one in traffic logs
            used.update(ID.findall(line.text))
        prefix = fingerprint.id[:8]
        taken = [int(name.split("-")[1]) for name in used if name.startswith(prefix)]
        return f"{prefix}-{max(taken, default=0) + 1}"

    # -- whose tables these are, and where they stand ---------------------------------------------

    def _store_class(self) -> type[VectorStore]:
        return store_class(self.config.index, self.root)

    @property
    def private(self) -> bool:
        """Does nobody else keep tables at the location?"""
        return self._store_class().is_private(self.config.index, self.root)

    def identity(self) -> Identity | None:
        """The identity of this project, None before its first generation."""
        return read_identity_file(self.folder)

    def namespace(self) -> str:
        """Where new tables stand at the location; empty: at its top."""
        index = self.config.index
        if index.namespace:
            top = index.namespace == self._store_class().top_namespace
            return "" if top else index.namespace
        if self.private:
            return ""
        identity = self.identity()
        return identity.namespace if identity else ""

    def store(self, kind: str, namespace: str | None = None) -> VectorStore:
        """The store of that kind, opened once; without `namespace` where new tables stand."""
        place = self.namespace() if namespace is None else namespace
        key = f"{kind}/{place}" if place else kind
        if key not in self._stores:
            settings = self.config.index.model_copy(update={"store": kind})
            self._stores[key] = open_store(settings, self.root, place)
        return self._stores[key]

    def store_of(self, manifest: Manifest) -> VectorStore:
        """The store that holds the table of a generation."""
        return self.store(manifest.store, manifest.namespace)

    def in_own_place(self, manifest: Manifest) -> Manifest:
        """A manifest with tables where this project keeps its own.

        Tables of older versions carry no owner, and a location may be changed to one that others
        use too.  The next build or sync then loads the generation from its parts into tables there.
        """
        identity, place = self.identity(), self.namespace()
        if manifest.namespace or not place or identity is None:
            return manifest
        return replace(manifest, owner=identity.id, namespace=place, index={})

    def require_own_place(self, manifest: Manifest) -> None:
        """Raise StoreError where another project keeps its tables in this namespace."""
        if not manifest.owner:
            return
        own = {"", manifest.owner}
        if self.private:  # a copied project keeps the tables that were copied with it
            own |= self._named_owners()
        for table, owner in self.store_of(manifest).owners().items():
            if owner not in own:
                raise StoreError(
                    f"project {owner} keeps its tables here, {table} for one",
                    where=f"index.namespace: {manifest.namespace or 'none'}",
                    next_step="set index.location or index.namespace to a place of this project's own",
                )

    def _named_owners(self) -> set[str]:
        """The projects that the manifests name."""
        names = set()
        for path in self.folder.glob("*/manifest.json"):
            if ID.fullmatch(path.parent.name):
                with suppress(NearerError):  # a damaged one names nobody
                    names.add(Manifest.read(path).owner)
        return names - {""}

    def _refusal(self, what: str, next_step: str) -> StoreError:
        return StoreError(what, where=str(self.folder), next_step=next_step)


def _age(manifest: Manifest) -> tuple[str, int, str]:
    """By time of creation; the number of a fingerprint's generations tells those of one moment apart."""
    return manifest.created, int(manifest.id.split("-")[1]), manifest.id


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def user() -> str:
    """Who runs this process, by name where there is one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"
