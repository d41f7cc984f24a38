"""Generations: immutable indexes made by one fingerprint, and the pointer to the one that answers.

    generations/
      ID/manifest.json   what it is made of, its state, what `verify` found
      ID/model/          the model that made it, so that a rollback can still encode queries
      ID/parts/          embedded documents (see build.py)
      ACTIVE             the generation that answers, the one to roll back to, and why
      ROLLOUT            the generation that is tried on live traffic, if any
      history.jsonl      every change of state: who, when, why

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
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Config
from nearer.errors import BusyError, FingerprintError, StoreError
from nearer.files import content_hash, disk_errors, read_json, write_json
from nearer.index.manifest import ID, READY, Manifest, Pointer, Rollout
from nearer.index.parts import compact
from nearer.index.stores import open_store
from nearer.index.stores.base import VectorStore
from nearer.index.stores.common import locked
from nearer.retrieve.bridge import Bridge, BridgedEncoder
from nearer.retrieve.compress import Compression
from nearer.retrieve.encoder import Encoder, load_encoder
from nearer.retrieve.fingerprint import Fingerprint, Vectors
from nearer.retrieve.pipeline import Pipeline
from nearer.types import Hit, Metadata

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
        return self.store.search(
            self.manifest.space, self.queries(asked), k, filter=filter, exact=exact
        )


class Generations:
    """All generations of one nearer.yaml, below `root/generations`."""

    def __init__(self, root: Path, config: Config, folder: Path | None = None) -> None:
        self.root, self.config = root, config
        self.folder = folder or root / "generations"
        self._stores: dict[str, VectorStore] = {}

    # -- reading ---------------------------------------------------------------------------------

    def path(self, generation: str) -> Path:
        """The folder of a generation.  Raises StoreError for anything that is not the id of one."""
        path = self.folder / generation
        if not ID.fullmatch(generation) or not (path / "manifest.json").is_file():
            raise self._refusal(f"no generation {generation[:40]!r}", "nearer index list")
        return path

    def manifest(self, generation: str) -> Manifest:
        """A manifest, its state as ACTIVE has it."""
        stored = Manifest.read(self.path(generation) / "manifest.json")
        return replace(stored, state=self.pointer().state(stored))

    def manifests(self) -> list[Manifest]:
        """All generations, oldest first."""
        found = [
            self.manifest(path.parent.name)
            for path in self.folder.glob("*/manifest.json")
            if ID.fullmatch(path.parent.name)
        ]
        return sorted(found, key=lambda one: (one.created, one.id))

    def pointer(self) -> Pointer:
        try:
            return Pointer(**read_json(self.folder / "ACTIVE"))
        except FileNotFoundError:
            return Pointer()

    def rollout(self) -> Rollout | None:
        """What is being tried on live traffic; None when nothing is, or when it answers everybody by now."""
        try:
            found = Rollout(**read_json(self.folder / "ROLLOUT"))
        except FileNotFoundError:
            return None
        gone = (
            found.generation == self.pointer().id
            or not (self.folder / found.generation / "manifest.json").is_file()
        )
        return None if gone else found

    def history(self) -> Sequence[dict[str, Any]]:
        """Every change of state, oldest first; a line that a kill cut short does not count."""
        path = self.folder / "history.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def store(self, kind: str) -> VectorStore:
        """The store of that kind, opened once."""
        if kind not in self._stores:
            self._stores[kind] = open_store(
                self.config.index.model_copy(update={"store": kind}), self.root
            )
        return self._stores[kind]

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
        return Generation(manifest, self.store(manifest.store), encoder or self.encoder(manifest))

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
                if manifest.state == "dropping":
                    self._remove(manifest)
            for stray in [*self.folder.glob(".new-*"), *self.folder.glob(".gone-*")]:
                shutil.rmtree(stray)
            yield

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Hold the pointer and the states, for milliseconds; what follows from ACTIVE is settled first."""
        with locked(self.folder / ".pointer", _PATIENCE):
            self._settle()
            yield

    def _settle(self) -> None:
        """History, the store's pointer and the states catch up with ACTIVE."""
        pointer = self.pointer()
        path = self.folder / "history.jsonl"
        if path.exists():
            whole = path.read_bytes()
            if not whole.endswith(b"\n") and whole:
                os.truncate(path, whole.rfind(b"\n") + 1)
        if pointer.entry and pointer.entry not in self.history():
            self._append(pointer.entry)
        moved = {pointer.previous, (pointer.entry or {}).get("from")} - {pointer.id, None}
        for name in [*sorted(map(str, moved)), *([pointer.id] if pointer.id else [])]:
            place = self.folder / name / "manifest.json"
            if place.is_file():
                stored = Manifest.read(place)
                if (state := pointer.state(stored)) != stored.state:
                    if state == "active":  # written last, so that it says that the store follows
                        self.activate(stored)
                    write_json(place, replace(stored, state=state).as_dict())

    def activate(self, manifest: Manifest) -> None:
        """Move the store's own pointer, for readers that do not see this folder."""
        self.store(manifest.store).activate(manifest.space.generation)

    def _append(self, entry: Mapping[str, Any]) -> None:
        with open(self.folder / "history.jsonl", "ab") as handle:
            handle.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())

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
        used = {one.id for one in self.manifests()} | {str(line["to"]) for line in self.history()}
        taken = [int(one.split("-")[1]) for one in used if one.startswith(fingerprint.id[:8])]
        return f"{fingerprint.id[:8]}-{max(taken, default=0) + 1}"

    def add(self, fresh: Path, made: Manifest) -> Manifest:
        """Put the folder of a new generation in its place."""
        with self._moving():
            os.rename(fresh, self.folder / made.id)
            self._append(_entry("build", None, made.id, None))
        return made

    def update(self, generation: str, **changes: Any) -> Manifest:
        """Write changed values into a manifest; its state never contradicts ACTIVE."""
        with self._moving():
            changed = replace(Manifest.read(self.path(generation) / "manifest.json"), **changes)
            changed = replace(changed, state=self.pointer().state(changed))
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
            write_json(
                self.path(generation) / "manifest.json",
                replace(manifest, decision=decision).as_dict(),
            )
            entry = _entry("cutover", pointer.id, generation, who, why=override, decision=decision)
            return self._move(Pointer(generation, pointer.id, entry))

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
            entry = _entry("rollback", pointer.id, pointer.previous, who, why=why, decision=None)
            return self._move(Pointer(pointer.previous, None, entry))

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
            self._append(_entry(mode, pointer.id, generation, who, share=share))
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
            self._append(_entry("stop", None, running.generation, who, why=why))
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
        record = read_json(path)
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
        record = read_json(path)
        if record["verdict"] not in ("ship", "use_simpler_fix"):
            raise StoreError(
                f"the verdict is {record['verdict']}: it ships nothing",
                where=str(path),
                next_step=mend,
            )
        chosen: Mapping[str, Any] = next(
            (one for one in record["candidates"] if one["name"] == record["recommended"]), {}
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

        Returns the ids, and how many chunks.
        """
        with self.writing():
            pointer = self.pointer()
            needed = {pointer.previous, *self.needed()}
            retired = [
                one.id
                for one in self.manifests()
                if one.state == "retired" and one.id not in needed
            ]
            gone = retired[: max(0, len(retired) - self.config.index.keep)]
            for generation in gone:
                self._drop(generation, who)
            with self._moving():
                for stray in self.folder.rglob(".*.tmp"):
                    stray.unlink()
            return gone, sum(
                compact(self.path(one.id) / "parts", one.fingerprint) for one in self.manifests()
            )

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
            write_json(
                self.path(generation) / "manifest.json",
                replace(manifest, state="dropping").as_dict(),
            )
            self._append(_entry("drop", None, generation, who))
        self._remove(manifest)

    def _remove(self, manifest: Manifest) -> None:
        self.store(manifest.store).drop(manifest.id)
        gone = self.folder / f".gone-{manifest.id}"
        os.rename(self.path(manifest.id), gone)
        shutil.rmtree(gone)


def for_chunks(encoder: Encoder, chunker: str | None) -> Encoder:
    """The same encoder; its vectors say which chunker cut the texts."""
    twin = copy(encoder)
    twin.fingerprint = replace(encoder.fingerprint, chunker=chunker)
    return twin


def _other_model(chosen: Mapping[str, Any], own: Fingerprint, where: str) -> str:
    """What tells the model of a decision from that of a generation, in words; empty when it is the same.

    The precision may differ: a model is judged on one machine and embeds on another.  A decision of
    an earlier nearer holds the id alone, perhaps one of version 1.
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


def _entry(
    action: str, before: str | None, generation: str, who: str | None, **more: Any
) -> dict[str, Any]:
    """A line of history."""
    return {
        "time": _now(),
        "who": who or _user(),
        "action": action,
        "from": before,
        "to": generation,
        **more,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"
