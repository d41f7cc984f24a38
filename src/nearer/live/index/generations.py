"""Generations: immutable indexes made by one fingerprint, and the pointer to the one that answers.

    generations/
      ID/manifest.json   what it is made of, its state, what `verify` found
      ID/model/          the model that made it, so that a rollback can still encode queries
      ID/parts/          embedded documents (see build.py)
      ACTIVE             the generation that answers, the one to roll back to, and why
      ROLLOUT            the generation that is tried on live traffic, if any
      PROJECT            the identity of this project, which its tables carry (ownership.py)
      history.jsonl      every change of state: who, when, why
      .readers/          which generations are being read, each note for some minutes (leases.py)

`ACTIVE` is the truth and moves by one rename.  History, the states in the manifests and the store's
own pointer follow it; what a kill leaves undone is finished by the next command that writes.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Config
from nearer.embed.bridge import Bridge, BridgedEncoder
from nearer.embed.compress import Compression
from nearer.embed.encoder import Encoder, load_encoder
from nearer.embed.fingerprint import Fingerprint, Vectors
from nearer.errors import BusyError, FingerprintError, NearerError, StoreError
from nearer.files import content_hash, disk_errors, write_json
from nearer.live.index.leases import FOLDER as READERS
from nearer.live.index.leases import HeldError, holders
from nearer.live.index.manifest import ID, READY, Manifest, Pointer, Rollout
from nearer.live.index.ownership import (
    Identity,
    known_identity,
    new_identity,
    read_identity_file,
    settle_identity,
    write_identity,
)
from nearer.live.index.parts import checksums, compact, outdated
from nearer.live.index.state import (
    History,
    parse_entry,
    read_history,
    read_pointer,
    read_rollout,
    read_state,
)
from nearer.live.stores import is_private, open_store
from nearer.live.stores.base import VectorStore
from nearer.live.stores.common import locked
from nearer.search.pipeline import Pipeline
from nearer.types import Hit, Metadata, by_field_name

_PATIENCE = (
    30.0  # seconds to wait for another process that moves the pointer: it takes milliseconds
)


@dataclass(frozen=True)
class Generation:
    """A generation ready to answer: its table, and the model that encodes queries for it."""

    manifest: Manifest
    store: VectorStore
    encoder: Encoder
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def queries(self, asked: str | Sequence[str] | Vectors) -> Vectors:
        """Query vectors of this generation.  Raises FingerprintError for vectors of another model, or of none."""
        where, own = f"generation {self.manifest.id}", self.manifest.fingerprint
        if isinstance(asked, Vectors):
            if self.manifest.bridge and asked.fingerprint == self.manifest.space.fingerprint:
                return asked  # across the bridge already
            # queries are never cut into chunks
            theirs = replace(asked.fingerprint, chunker=own.chunker) if asked.fingerprint else None
            own.require(
                theirs,
                where,
                f"hand over texts, or encode them with its own model: nearer index show {self.manifest.id}",
            )
            return self._across(asked.array)
        if not isinstance(asked, str) and (
            isinstance(asked, np.ndarray) or not all(isinstance(one, str) for one in asked)
        ):
            mend = "hand over texts, or Vectors, which carry their fingerprint"
            raise FingerprintError(
                f"these vectors do not say which model made them (this one: {own.id})",
                where=where,
                next_step=mend,
            )
        with self._lock:  # tokenizers are not safe to share between threads
            return self._across(
                self.encoder.encode([asked] if isinstance(asked, str) else asked, "query")
            )

    def _across(self, array: np.ndarray) -> Vectors:
        """Vectors that say in which space they are now: the table's, which for a bridge is another model's."""
        return Vectors(array, self.manifest.space.fingerprint)

    def search(
        self,
        asked: str | Sequence[str] | Vectors,
        k: int = 10,
        *,
        filter: Metadata | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The `k` best documents of each query."""
        named = by_field_name(filter) if filter else filter
        return self.store.search(
            self.manifest.space, self.queries(asked), k, filter=named, exact=exact
        )


class Generations:
    """All generations of one nearer.yaml, below `root/generations`."""

    def __init__(self, root: Path, config: Config, folder: Path | None = None) -> None:
        self.root, self.config = root, config
        self.folder = folder or root / "generations"
        self._stores: dict[str, VectorStore] = {}
        self._manifests: dict[Path, tuple[tuple[int, int, int], Manifest]] = {}
        self._warned: set[str] = set()

    # -- reading ---------------------------------------------------------------------------------

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
        found = [
            self.manifest(path.parent.name)
            for path in self.folder.glob("*/manifest.json")
            if ID.fullmatch(path.parent.name)
        ]
        return sorted(found, key=lambda one: (one.created, int(one.id.split("-")[1]), one.id))

    def pointer(self) -> Pointer:
        """What answers, and what a rollback goes back to.  Raises StoreError when ACTIVE is damaged."""
        return read_pointer(self.folder)

    def rollout(self) -> Rollout | None:
        """What is being tried on live traffic; None when nothing is, or when it answers everybody by now."""
        running = read_rollout(self.folder)
        if running is None:
            return None
        gone = (
            running.generation == self.pointer().id
            or not (self.folder / running.generation / "manifest.json").is_file()
        )
        return None if gone else running

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

    # -- whose tables these are --------------------------------------------------------------------

    @property
    def private(self) -> bool:
        """Does nobody else keep tables at the location?"""
        return is_private(self.config.index, self.root)

    def identity(self) -> Identity | None:
        """The identity of this project, None before its first generation."""
        return read_identity_file(self.folder)

    def namespace(self) -> str:
        """Where new tables stand at the location; empty: at its top."""
        index = self.config.index
        if index.namespace:
            top = index.store == "postgres" and index.namespace == "nearer"
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
        if self.private or not manifest.owner:
            return
        for table, owner in self.store_of(manifest).owners().items():
            if owner not in ("", manifest.owner):
                raise StoreError(
                    f"project {owner} keeps its tables here, {table} for one",
                    where=f"index.namespace: {manifest.namespace or 'nearer'}",
                    next_step="set another index.namespace, or none: then the project gets one of its own",
                )

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

    def _named_owners(self) -> set[str]:
        """The projects that the manifests name."""
        names = set()
        for path in self.folder.glob("*/manifest.json"):
            if ID.fullmatch(path.parent.name):
                with suppress(NearerError):  # a damaged one names nobody
                    names.add(Manifest.read(path).owner)
        return names - {""}

    # -- models ------------------------------------------------------------------------------------

    def encoder(self, manifest: Manifest, folder: Path | None = None) -> Encoder:
        """The model of a generation, loaded from its own folder.  Raises FingerprintError when it is another one by now."""
        own = manifest.fingerprint
        kept = ("query_prompt", "document_prompt", "max_seq_length", "precision")
        settings = self.config.model.model_copy(update={name: getattr(own, name) for name in kept})
        path = (folder or self.path(manifest.id)) / "model"
        encoder = for_chunks(
            load_encoder(settings, self.root, path=path, name=str(manifest.model["name"])),
            own.chunker,
        )
        if manifest.bridge:
            bridge, over = (
                Bridge.load(path.parent / "bridge.safetensors"),
                str(manifest.bridge["over"]),
            )
            joined = BridgedEncoder(
                encoder,  # type: ignore[arg-type]
                bridge,
                manifest.space.fingerprint,
                lambda: self.encoder(self.manifest(over)),
            )
            encoder = for_chunks(joined, own.chunker)
        own.require(
            encoder.fingerprint,
            str(path),
            f"restore this folder, or drop {manifest.id} and build again: nearer index build",
        )
        # It was held to the manifest's: what it embeds carries that one, of whatever version.
        encoder.fingerprint = own
        return encoder

    def open(self, generation: str, encoder: Encoder | None = None) -> Generation:
        """A generation ready to answer; `encoder` is its model where that is loaded already."""
        manifest = self.manifest(generation)
        return Generation(manifest, self.store_of(manifest), encoder or self.encoder(manifest))

    # -- writing ---------------------------------------------------------------------------------

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

    def _end_last_line(self) -> None:
        """A last line of history that a kill cut short goes; a whole one only lacks its end."""
        path = self.folder / "history.jsonl"
        content = path.read_bytes() if path.exists() else b""
        if not content or content.endswith(b"\n"):
            return
        start = content.rfind(b"\n") + 1
        if parse_entry(content[start:])[1]:
            os.truncate(path, start)
        else:
            with open(path, "ab") as handle:
                handle.write(b"\n")

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

    def _append(self, entry: Mapping[str, Any]) -> None:
        with open(self.folder / "history.jsonl", "ab") as handle:
            handle.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())

    def _entry(
        self, action: str, before: str | None, generation: str, who: str | None, **more: Any
    ) -> dict[str, Any]:
        """A line of history.  Its number tells it apart where a clock stands still."""
        return {
            "time": _now(),
            "who": who or _user(),
            "action": action,
            "from": before,
            "to": generation,
            **more,
            "seq": self._history().next_number,
        }

    def create(self, encoder: Encoder, name: str, *, today: bool, force: bool = False) -> Manifest:
        """The generation that this model fills under the present settings: the one there is, or a new one.

        `today` says that it is the configured model.  Call it inside `writing()`.  Raises
        FingerprintError when the model no longer behaves as when the generation was begun.
        """
        index, fingerprint = (
            self.config.index,
            replace(encoder.fingerprint, chunker=self.config.index.chunker),
        )
        dimension = index.dimension or fingerprint.dimension
        known = self.manifests()
        made_of = (fingerprint.id, index.dtype, dimension, index.store)
        alike = [
            manifest
            for manifest in reversed(known)
            if manifest.made_of == made_of and manifest.state not in ("retired", "dropping")
        ]
        if alike and not force:
            for manifest in alike:
                if manifest.fingerprint.same_space(fingerprint):
                    return manifest
            mend = "use the machine that began it, or `nearer index build --force` for a new generation"
            alike[0].fingerprint.require(fingerprint, f"generation {alike[0].id}", mend)
        for manifest in known:
            former = manifest.fingerprint.version < fingerprint.version
            if former and manifest.fingerprint.same_space(fingerprint):
                progress.warn(
                    f"{manifest.id} holds this model under a fingerprint of version 1; a new generation begins"
                    f"\n  → nearer index sync keeps {manifest.id} up to date meanwhile"
                )
        model = {"name": name, "today": today}
        made = Manifest(
            self.free_id(fingerprint),
            "building",
            fingerprint,
            model,
            index.dtype,
            dimension,
            index.store,
            _now(),
        )
        identity = self.identity()
        made = replace(made, owner=identity.id if identity else "", namespace=self.namespace())
        self.require_own_place(made)
        fresh = self.folder / f".new-{made.id}"
        write_json(fresh / "manifest.json", made.as_dict())
        if save := getattr(getattr(encoder, "model", None), "save", None):
            with disk_errors(fresh / "model"):
                save(str(fresh / "model"), create_model_card=False)
            self.encoder(
                made, fresh
            )  # the copy must answer as the original does: better to learn it now than in hours
        (fresh / "parts").mkdir()
        return self.add(fresh, made)

    def free_id(self, fingerprint: Fingerprint) -> str:
        """The id of the next generation of a fingerprint: it names that one for ever, also in traffic logs."""
        history = self._history()
        used = {one.id for one in self.manifests()} | {line["to"] for line in history.entries}
        for line in history.bad:  # what it names may be in use elsewhere, for one in traffic logs
            used.update(ID.findall(line.text))
        taken = [int(one.split("-")[1]) for one in used if one.startswith(fingerprint.id[:8])]
        return f"{fingerprint.id[:8]}-{max(taken, default=0) + 1}"

    def add(self, fresh: Path, made: Manifest) -> Manifest:
        """Put the folder of a new generation in its place."""
        with self._moving():
            os.rename(fresh, self.folder / made.id)
            self._append(self._entry("build", None, made.id, None))
        return made

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

    def _refusal(self, what: str, next_step: str) -> StoreError:
        return StoreError(what, where=str(self.folder), next_step=next_step)

    # -- the pointer -----------------------------------------------------------------------------

    def cutover(
        self, generation: str, *, override: str | None = None, who: str | None = None
    ) -> Pointer:
        """Make a verified generation answer.  Raises StoreError without a decision for it; `override` says why none is needed."""
        with self._moving():
            manifest, pointer = self.manifest(generation), self.pointer()
            if pointer.id == generation:
                raise self._refusal(f"{generation} is active already", "nearer index list")
            self._ready(manifest, pointer)
            decision = (
                {"override": override}
                if override
                else self._decision(manifest, first=pointer.id is None)
            )
            if self.config.index.require_shadow and pointer.id and not override:
                self._shadowed(generation, pointer.id)
            served: dict[str, Mapping[str, Any] | None] = {generation: decision}
            if pointer.id is not None:
                served[pointer.id] = self._serves(pointer, pointer.id)
            entry = self._entry(
                "cutover", pointer.id, generation, who, why=override, decision=decision
            )
            return self._move(Pointer(generation, pointer.id, entry, served))

    def rollback(self, *, why: str | None = None, who: str | None = None) -> Pointer:
        """Make the generation before the last cut-over answer again.  Raises StoreError when there is none."""
        with self._moving():
            pointer = self.pointer()
            if pointer.previous is None:
                raise self._refusal(
                    "there is no generation to roll back to",
                    "nearer index list, then nearer index cutover ID",
                )
            self.path(pointer.previous)
            entry = self._entry(
                "rollback", pointer.id, pointer.previous, who, why=why, decision=None
            )
            served = {pointer.previous: self._serves(pointer, pointer.previous)}
            return self._move(Pointer(pointer.previous, None, entry, served))

    def _serves(self, pointer: Pointer, generation: str) -> Mapping[str, Any] | None:
        """The decision by which a generation answers now."""
        try:
            return self.manifest(generation).decision
        except StoreError:  # removed by hand, or damaged
            return pointer.served.get(generation)

    def start_rollout(
        self, generation: str, mode: str, share: float, *, who: str | None = None
    ) -> Rollout:
        """Try a verified generation on a share of live traffic.  Raises StoreError where it cannot stand beside the active one."""
        with self._moving():
            manifest, pointer = self.manifest(generation), self.pointer()
            if pointer.id in (None, generation):
                what = (
                    "no generation is active"
                    if pointer.id is None
                    else f"{generation} is active already"
                )
                raise self._refusal(what, "nearer index list")
            if (running := self.rollout()) and running.generation != generation:
                raise self._refusal(
                    f"{running.generation} is being tried ({running.mode})", "nearer shadow stop"
                )
            self._ready(manifest, pointer)
            made = Rollout(generation, mode, share, _now(), who or _user())
            write_json(self.folder / "ROLLOUT", asdict(made))
            state = "shadow" if mode == "shadow" else "canary"
            write_json(
                self.folder / generation / "manifest.json", replace(manifest, state=state).as_dict()
            )
            self._append(self._entry(mode, pointer.id, generation, who, share=share))
            return made

    def stop_rollout(self, *, why: str | None = None, who: str | None = None) -> str | None:
        """End what is being tried; the generation is `verified` again.  Returns its id, None when nothing was tried."""
        with self._moving():
            running = self.rollout()
            (self.folder / "ROLLOUT").unlink(missing_ok=True)
            if running is None:
                return None
            stored = Manifest.read(self.path(running.generation) / "manifest.json")
            write_json(
                self.folder / running.generation / "manifest.json",
                replace(stored, state="verified").as_dict(),
            )
            self._append(self._entry("stop", None, running.generation, who, why=why))
            return running.generation

    def _ready(self, manifest: Manifest, pointer: Pointer) -> None:
        """Raise StoreError unless a generation may stand in for the active one."""
        if manifest.state not in READY:
            raise self._refusal(
                f"{manifest.id} is {manifest.state}, not verified",
                f"nearer index verify {manifest.id}",
            )
        there = pointer.id is not None and (self.folder / pointer.id).is_dir()
        if there and self.manifest(str(pointer.id)).content != manifest.content:
            raise self._refusal(
                f"{manifest.id} does not hold the documents that {pointer.id}, the active one, holds",
                "nearer index sync",
            )

    def _shadowed(self, generation: str, active: str) -> None:
        """Raise StoreError without a passing shadow record against the active generation."""
        path = self.root / "shadow" / f"{generation}.json"
        mend = "nearer shadow start, then nearer shadow report; or cut over with --override WHY"
        if not path.is_file():
            raise StoreError(
                f"no shadow record speaks for {generation} (index.require_shadow)",
                where=str(path),
                next_step=mend,
            )
        record = read_state(path, {"verdict": str, "live": str}, mend) or {}
        if record["verdict"] != "pass" or record["live"] != active:
            what = f"the shadow record says {record['verdict']} against {record['live']}; {active} is active"
            raise StoreError(what, where=str(path), next_step=mend)

    def _move(self, pointer: Pointer) -> Pointer:
        write_json(self.folder / "ACTIVE", asdict(pointer))
        self._settle()
        return pointer

    def _decision(self, manifest: Manifest, first: bool) -> dict[str, Any]:
        """The record that allows a generation to answer: the verdict is ship, and this is the model it speaks of."""
        path = self.root / "runs" / self.config.run / "decide" / "decision.json"
        if first and manifest.model["today"]:
            return {"first": True}  # today's model is what everything is compared with
        mend = f"nearer decide --run {self.config.run}, or cut over with --override WHY"
        if not path.is_file():
            raise StoreError(
                f"no decision speaks for {manifest.id}", where=str(path), next_step=mend
            )
        keys = {"verdict": str, "candidates": list, "recommended": object}
        record = read_state(path, keys, mend) or {}
        if record["verdict"] not in ("ship", "use_simpler_fix"):
            raise StoreError(
                f"the verdict is {record['verdict']}: it ships nothing",
                where=str(path),
                next_step=mend,
            )
        chosen: Mapping[str, Any] = next(
            (one for one in record["candidates"] if one.get("name") == record["recommended"]), {}
        )
        differences = _other_model(chosen, manifest.fingerprint, str(path))
        if differences:
            what = f"the decision ships model {chosen.get('fingerprint')}, {manifest.id} was made by another: {manifest.model['name']}"
            what += f" ({differences})"
            raise StoreError(
                what,
                where=str(path),
                next_step=f"nearer index build --model {_model_of(chosen, self.config.run)}",
            )
        pipeline = Pipeline.from_dict(chosen.get("pipeline", {}))
        whole = manifest.dimension == manifest.fingerprint.dimension
        kept = str(Compression(manifest.dtype, None if whole else manifest.dimension))  # type: ignore[arg-type]  # validated by config
        for what, judged, built in (
            ("chunks", pipeline.chunker, manifest.chunker),
            ("vectors", pipeline.compression, kept),
        ):
            if judged not in (
                built,
                "float32",
            ):  # smaller vectors than judged are the team's own choice: `fix` says what they cost
                mend = "set index.chunker, index.dtype and index.dimension in nearer.yaml as decided, then nearer index build"
                raise StoreError(
                    f"the decision judged {what} {judged}, {manifest.id} was built with {built}",
                    where=str(path),
                    next_step=mend,
                )
        where = {
            "path": str(path.relative_to(self.root)),
            "hash": content_hash(path),
            "verdict": record["verdict"],
        }
        return (
            where
            | {"pipeline": pipeline.as_dict()}
            | ({"reranker": chosen["reranker"]} if "reranker" in chosen else {})
        )

    # -- removing --------------------------------------------------------------------------------

    def drop(self, generation: str, *, who: str | None = None) -> None:
        """Remove a generation.  Raises StoreError for the active one and the one to roll back to."""
        with self.writing():
            self._drop(generation, who)

    def gc(self, *, who: str | None = None) -> tuple[list[str], int]:
        """Remove retired generations that no rollback needs, but for the last `index.keep`, and dead chunks in the parts of others.

        Those that a reader holds stay until it lets go.  Returns the ids, and how many chunks.
        """
        with self.writing():
            pointer = self.pointer()
            needed = {pointer.previous, *self.needed()}
            retired = [
                one.id
                for one in self.manifests()
                if one.state == "retired" and one.id not in needed
            ]
            gone = []
            for generation in retired[: max(0, len(retired) - self.config.index.keep)]:
                try:
                    self._drop(generation, who)
                    gone.append(generation)
                except HeldError as error:
                    progress.warn(f"{error.what}: it stays until a later nearer index gc")
            with self._moving():
                for stray in self.folder.rglob(".*.tmp"):
                    if stray.parent.name != READERS:
                        stray.unlink(missing_ok=True)
            return gone, sum(self._compact(one) for one in self.manifests())

    def _compact(self, manifest: Manifest) -> int:
        """Rewrite the parts that hold dead chunks, and their checksums."""
        folder = self.path(manifest.id) / "parts"
        names = outdated(folder, manifest.fingerprint)
        if not names:
            return 0
        # A kill must not leave rewritten parts beside the checksums of what they were.
        kept = {name: value for name, value in manifest.parts.items() if name not in names}
        self.update(manifest.id, parts=kept)
        removed = compact(folder, manifest.fingerprint, manifest.parts)
        self.update(manifest.id, parts=checksums(folder, manifest.fingerprint, kept))
        return removed

    def needed(self) -> set[str]:
        """Generations whose tables others answer from, across a bridge."""
        return {
            str(one.bridge["over"])
            for one in self.manifests()
            if one.bridge and one.state != "dropping"
        }

    def _drop(self, generation: str, who: str | None) -> None:
        with self._moving():
            manifest, pointer = self.manifest(generation), self.pointer()
            if generation in (pointer.id, pointer.previous):
                role = "active" if generation == pointer.id else "what a rollback needs"
                raise self._refusal(
                    f"{generation} is {role}", "cut over to another generation first"
                )
            if generation in self.needed():
                raise self._refusal(
                    f"a bridge answers from the table of {generation}",
                    "drop the bridge first: nearer index list",
                )
            place = self.path(generation) / "manifest.json"
            # A reader notes what it holds before it reads the manifest; so either it sees this
            # state and does not begin, or its note is seen here.
            write_json(place, replace(manifest, state="dropping").as_dict())
            if notes := holders(self.folder, generation):
                write_json(place, manifest.as_dict())
                raise HeldError(
                    f"{generation} is held by {', '.join(map(str, notes))}",
                    where=str(self.folder),
                    next_step="stop that reader, or wait until its note ends",
                )
            self._append(self._entry("drop", None, generation, who))
        self._remove(manifest)

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


def for_chunks(encoder: Encoder, chunker: str | None) -> Encoder:
    """The same encoder; its vectors say which chunker cut the texts."""
    twin = copy(encoder)
    twin.fingerprint = replace(encoder.fingerprint, chunker=chunker)
    return twin


def _other_model(chosen: Mapping[str, Any], own: Fingerprint, where: str) -> str:
    """What tells the model of a decision from that of a generation, in words; empty when it is the same.

    The precision may differ: a model is judged on one machine and embeds on another.  A decision
    that an earlier version wrote holds the id alone, perhaps one of version 1.
    """
    if "identity" in chosen:
        judged = Fingerprint.from_dict(chosen["identity"], where)
        return "; ".join(judged.differences(own, ignoring=("chunker", "precision")))
    for known in filter(None, (own, own.by_version_1())):
        for precision in ("fp32", "bf16"):
            if replace(known, chunker=None, precision=precision).id == chosen.get("fingerprint"):
                return ""
    return f"fingerprint {replace(own, chunker=None).id}"


def _model_of(candidate: Mapping[str, Any], run: str) -> str:
    """What `index build --model` takes for a candidate of a decision."""
    other = candidate.get("pipeline", {}).get("model")
    return (
        str(other)
        if other
        else f"runs/{run}/train/model"
        if candidate.get("role") == "candidate"
        else str(candidate.get("model"))
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"
