"""What is written down about generations: the manifest of each, the pointer to the active one, and what is tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nearer.embed.fingerprint import Fingerprint
from nearer.errors import DataError, StoreError
from nearer.files import read_json
from nearer.live.stores.base import Space

STATES = ("building", "verified", "shadow", "canary", "active", "retired", "dropping")
#: States from which a generation may be cut over to.
READY = ("verified", "shadow", "canary")
ID = re.compile(r"[0-9a-f]{8}-[1-9]\d{0,6}")
#: What a manifest must hold under each key, so that a damaged one is refused where it is read.
_KINDS: Mapping[str, Any] = {
    "id": str,
    "state": str,
    "model": dict,
    "dtype": str,
    "dimension": int,
    "store": str,
    "created": str,
}
_OPTIONAL: Mapping[str, Any] = {
    "counts": dict,
    "content": dict,
    "index": dict,
    "parts": dict,
    "owner": str,
    "namespace": str,
    "verified": dict | None,
    "decision": dict | None,
    "bridge": dict | None,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation is made of.  `model` says where it came from, `decision` what it was activated on."""

    id: str
    state: str
    fingerprint: Fingerprint
    model: Mapping[str, Any]
    dtype: str
    dimension: int
    store: str
    created: str
    counts: Mapping[str, int] = field(default_factory=dict)  # documents, chunks
    content: Mapping[str, str] = field(
        default_factory=dict
    )  # documents: a hash of all of them, in any order
    index: Mapping[str, Any] = field(
        default_factory=dict
    )  # the approximate index, as the store tells it
    verified: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None
    bridge: Mapping[str, Any] | None = (
        None  # without vectors of its own: over which generation, how, and what it keeps
    )
    #: The project whose tables these are (see ownership.py); empty before tables knew their owner.
    owner: str = ""
    #: Where the tables stand at index.location (a schema, a folder, a prefix); empty: at its top.
    namespace: str = ""
    #: Checksum of each part, by file name, as it was when the generation was last filled.
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def chunker(self) -> str:
        return self.fingerprint.chunker or "document"

    @property
    def space(self) -> Space:
        """The table that is searched: its own, or that of the generation it is a bridge to."""
        if self.bridge:
            under = Fingerprint.from_dict(self.bridge["fingerprint"], self.id)
            return self._space(str(self.bridge["over"]), under)
        return self._space(self.id, self.fingerprint)

    def _space(self, table: str, fingerprint: Fingerprint) -> Space:
        return Space(table, fingerprint, self.dimension, self.dtype, self.owner)  # type: ignore[arg-type]  # validated by config

    @property
    def made_of(self) -> tuple[str, str, int, str]:
        """What tells generations apart: two that agree here hold the same vectors of the same documents."""
        return self.fingerprint.id, self.dtype, self.dimension, self.store

    def as_dict(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return values | {"fingerprint": self.fingerprint.as_dict(), "chunker": self.chunker}

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises StoreError or FingerprintError for a manifest that is damaged, was edited or was moved."""
        mend = (
            f"restore {path.parent.name}, or remove the folder and build again: nearer index build"
        )
        try:
            values = read_json(path)
        except DataError as error:
            what = "the manifest is damaged: not valid JSON"
            raise StoreError(what, where=error.where, next_step=mend) from None
        try:
            known = {
                one.name: values[one.name] for one in fields(cls) if one.name in values
            }  # older ones may lack what has a default
            manifest = cls(
                **known | {"fingerprint": Fingerprint.from_dict(values["fingerprint"], str(path))}
            )
        except (KeyError, TypeError):
            raise StoreError("the manifest is damaged", where=str(path), next_step=mend) from None
        wrong = [name for name, kind in _KINDS.items() if not isinstance(values[name], kind)]
        for name, kind in _OPTIONAL.items():
            if name in values and not isinstance(values[name], kind):
                wrong.append(name)
        if wrong:
            what = f"the manifest is damaged: {wrong[0]} holds {str(values[wrong[0]])[:40]!r}"
            raise StoreError(what, where=str(path), next_step=mend)
        if manifest.id != path.parent.name or manifest.state not in STATES:
            what = f"this folder is not generation {manifest.id}: it was renamed or copied"
            raise StoreError(
                what if manifest.state in STATES else f"no state {manifest.state!r}",
                where=str(path),
                next_step=mend,
            )
        return manifest


@dataclass(frozen=True, slots=True)
class Pointer:
    """The contents of ACTIVE.  `entry` is the line of history about the move that wrote it.

    `served` holds the decision by which each of the two generations answers.  It moves with the
    pointer, so that no command that dies in between changes what a generation serves.  Pointers
    that older versions wrote lack it; then the decision in the manifest counts.
    """

    id: str | None = None
    previous: str | None = None
    entry: Mapping[str, Any] | None = None
    served: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def of(self, manifest: Manifest) -> Manifest:
        """A manifest as this pointer has it, whatever a kill kept the stored one from saying."""
        decision = self.served.get(manifest.id, manifest.decision)
        return replace(manifest, state=self.state(manifest), decision=decision)

    def state(self, manifest: Manifest) -> str:
        """The state that a manifest has by this pointer."""
        if manifest.id == self.id:
            return "active"
        if manifest.state == "active":
            return (
                "retired" if manifest.id == self.previous else "verified"
            )  # rolled back: it may be tried again
        return manifest.state


@dataclass(frozen=True, slots=True)
class Rollout:
    """A candidate that live traffic judges before everybody gets it (the contents of ROLLOUT).

    `mode` shadow: it answers out of sight; interleave: its results stand among the live ones; canary:
    it answers alone.  `share` of the requests (canary: of the users), 0..1.
    """

    generation: str
    mode: str
    share: float
    since: str
    who: str
