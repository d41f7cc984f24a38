"""Cutting over, rolling back, and trying a generation on live traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from nearer.decision.record import Permission
from nearer.errors import StoreError
from nearer.files import write_json
from nearer.live.index.changing import ChangingGenerations
from nearer.live.index.decision import permission
from nearer.live.index.manifest import READY, Manifest, Pointer, Rollout
from nearer.live.index.on_disk import now, user
from nearer.live.index.state import read_state


class SwitchingGenerations(ChangingGenerations):
    """Which generation answers, and which is tried beside it."""

    def cutover(
        self, generation: str, *, override: str | None = None, who: str | None = None
    ) -> Pointer:
        """Make a verified generation answer.  Raises StoreError without a decision for it; `override` says why none is needed."""
        with self._moving():
            manifest, pointer = self.manifest(generation), self.pointer()
            if pointer.id == generation:
                raise self._refusal(f"{generation} is active already", "nearer index list")
            self._ready(manifest, pointer)
            if override:
                decision = Permission(override=override).as_dict()
            else:
                first = pointer.id is None
                permitted = permission(
                    self.root,
                    self.config.run,
                    manifest,
                    first=first,
                    needs_sign_off=self.config.decide.require_sign_off,
                )
                decision = permitted.as_dict()
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
            if pointer.id is None:
                raise self._refusal("no generation is active", "nearer index list")
            if pointer.id == generation:
                raise self._refusal(f"{generation} is active already", "nearer index list")
            running = self.rollout()
            if running and running.generation != generation:
                raise self._refusal(
                    f"{running.generation} is being tried ({running.mode})", "nearer shadow stop"
                )
            self._ready(manifest, pointer)
            rollout = Rollout(generation, mode, share, now(), who or user())
            write_json(self.folder / "ROLLOUT", asdict(rollout))
            state = "shadow" if mode == "shadow" else "canary"
            write_json(
                self.folder / generation / "manifest.json", replace(manifest, state=state).as_dict()
            )
            self._append(self._entry(mode, pointer.id, generation, who, share=share))
            return rollout

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
