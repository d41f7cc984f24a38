"""Repairs the state files of generations from what history, manifests and the store prove.

Nothing is deleted: a file that is replaced stays beside it as `NAME.damaged-N`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nearer.errors import NearerError, StoreError
from nearer.files import atomic, locked, write_json
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import ID, Manifest, Pointer
from nearer.live.index.ownership import (
    identity_path,
    is_owner,
    known_identity,
    read_identity_file,
    write_identity,
)
from nearer.live.index.state import History, read_history, read_pointer, read_rollout


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done to one file."""

    file: str
    done: str
    kept: str | None = None  # where the damaged content is now

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def repair(generations: Generations, active: str | None = None) -> list[Repair]:
    """Mend what is damaged; `active` says which generation answers where history leaves it open.

    Raises StoreError, before anything is changed, where nothing proves what a file must say.
    """
    folder = generations.folder
    with locked(folder / ".lock", 0), locked(folder / ".pointer"):
        history = read_history(folder / "history.jsonl")
        steps: list[Callable[[], Repair]] = []
        if step := _project(generations):
            steps.append(step)
        if step := _active(generations, history, active):
            steps.append(step)
        if step := _rollout(folder, history):
            steps.append(step)
        if history.bad:
            steps.append(lambda: _history(folder, history))
        return [step() for step in steps]


def _aside(path: Path) -> str | None:
    """Keep what a file holds under a name of its own."""
    if not path.exists():
        return None
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    kept = path.with_name(f"{path.name}.damaged-{number}")
    os.link(path, kept)  # the name itself is replaced in one step
    return kept.name


def _broken(read: Callable[[], Any]) -> bool:
    try:
        read()
    except NearerError:
        return True
    return False


def _history(folder: Path, history: History) -> Repair:
    path = folder / "history.jsonl"
    bad = {line.number for line in history.bad}
    lines = path.read_bytes().split(b"\n")
    kept = _aside(path)
    with atomic(path, "wb") as handle:
        for number, line in enumerate(lines, start=1):
            if number not in bad and line:
                handle.write(line + b"\n")
    places = ", ".join(str(line.number) for line in history.bad)
    return Repair(path.name, f"left out line {places}", kept)


def _active(
    generations: Generations, history: History, chosen: str | None
) -> Callable[[], Repair] | None:
    folder = generations.folder
    if chosen is None and not _broken(lambda: read_pointer(folder)):
        return None
    proved = history.pointer()
    if chosen is not None:
        generation = _readable(folder, chosen)
        if generation is None:
            raise _unproved(folder, f"{chosen[:40]!r} is no generation that can be read")
        if proved is None or proved.id != chosen:
            before = proved.id if proved else None
            proved = Pointer(chosen, before, None, proved.served if proved else {})
    else:
        _require_proof(generations, history, proved)

    def write() -> Repair:
        kept = _aside(folder / "ACTIVE")
        write_json(folder / "ACTIVE", asdict(proved or Pointer()))
        said = "as chosen" if chosen else "by the history"
        text = "nothing is active" if proved is None else f"{proved.id} is active, {said}"
        return Repair("ACTIVE", text, kept)

    return write


def _require_proof(generations: Generations, history: History, proved: Pointer | None) -> None:
    """Raise StoreError unless history alone says what is active.

    A damaged line may have been a move.  Then the store's own pointer must agree.
    """
    folder = generations.folder
    if proved is None:
        if history.bad or _any_active(folder):
            raise _unproved(folder, "no line of history says which generation is active")
        return
    manifest = _readable(folder, str(proved.id))
    if manifest is None:
        raise _unproved(folder, f"by the history {proved.id} is active, but it cannot be read")
    if history.bad:
        try:
            named = generations.store_of(manifest).active()
        except NearerError as error:
            raise _unproved(folder, f"history has damaged lines, and {error.what}") from None
        if named != manifest.space.generation:
            what = f"history has damaged lines and says {proved.id}, the store says {named}"
            raise _unproved(folder, what)


def _unproved(folder: Path, what: str) -> StoreError:
    return StoreError(
        what,
        where=str(folder / "ACTIVE"),
        next_step="nearer index list, then nearer index repair --active ID",
    )


def _readable(folder: Path, generation: str) -> Manifest | None:
    if not ID.fullmatch(generation):
        return None
    try:
        return Manifest.read(folder / generation / "manifest.json")
    except (NearerError, FileNotFoundError):
        return None


def _manifests(folder: Path) -> list[Manifest]:
    """Those that can be read."""
    names = [path.parent.name for path in sorted(folder.glob("*/manifest.json"))]
    manifests = [_readable(folder, name) for name in names]
    return [manifest for manifest in manifests if manifest is not None]


def _any_active(folder: Path) -> bool:
    return any(manifest.state in ("active", "retired") for manifest in _manifests(folder))


def _rollout(folder: Path, history: History) -> Callable[[], Repair] | None:
    if not _broken(lambda: read_rollout(folder)):
        return None
    running = history.rollout()

    def write() -> Repair:
        path = folder / "ROLLOUT"
        kept = _aside(path)
        if running is None or _readable(folder, running.generation) is None:
            path.unlink()
            return Repair("ROLLOUT", "nothing is tried, by the history", kept)
        write_json(path, asdict(running))
        return Repair("ROLLOUT", f"{running.generation} is tried, by the history", kept)

    return write


def _project(generations: Generations) -> Callable[[], Repair] | None:
    folder = generations.folder
    owners = Counter(one.owner for one in _manifests(folder) if is_owner(one.owner))
    path = identity_path(folder)
    missing = not path.exists()
    if missing and not owners:
        return None
    if not missing and not _broken(lambda: read_identity_file(folder)):
        return None
    if len(owners) != 1:
        what = f"the manifests name {len(owners)} projects: {', '.join(sorted(owners)) or 'none'}"
        raise StoreError(
            what,
            where=str(path),
            next_step=f"restore {path.name} from a backup",
        )
    (owner,) = owners

    def write() -> Repair:
        kept = _aside(path)
        write_identity(folder, known_identity(folder, owner))
        return Repair(path.name, f"this is project {owner}, by the manifests", kept)

    return write
