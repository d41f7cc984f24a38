"""The state files of generations, each read in one place: ACTIVE, ROLLOUT, .project, history.jsonl.

A damaged file is refused with its name and line, and with the command that repairs it.  A damaged
line of history is reported and left out: what the other lines say stays usable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer.data.times import read_time
from nearer.errors import DataError, StoreError
from nearer.files import read_json
from nearer.live.index.manifest import ID, Pointer, Rollout

REPAIR = "nearer index repair, which restores what the history proves"
#: Actions that move ACTIVE.
MOVES = ("cutover", "rollback")
#: Actions that write ROLLOUT.
TRIALS = ("shadow", "interleave", "canary")


def read_state(path: Path, keys: Mapping[str, Any], mend: str = REPAIR) -> dict[str, Any] | None:
    """A JSON object with these keys and kinds of values; None where there is no file.

    Other keys may stand beside them.  Raises StoreError with file and line for everything else.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        return None
    except DataError as error:
        raise StoreError(
            f"{path.name} is damaged: not valid JSON", where=error.where, next_step=mend
        ) from None
    problem = ""
    if not isinstance(values, dict):
        problem = f"it holds {json.dumps(values)[:40]}, not an object"
    else:
        for key, kind in keys.items():
            if key not in values:
                problem = f"it has no {key!r}"
            elif not isinstance(values[key], kind) or isinstance(values[key], bool):
                problem = f"{key!r} is {json.dumps(values[key])[:40]}"
    if problem:
        raise StoreError(f"{path.name} is damaged: {problem}", where=f"{path}:1", next_step=mend)
    result: dict[str, Any] = values
    return result


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of history that cannot be used."""

    number: int
    text: str
    problem: str


@dataclass(frozen=True, slots=True)
class History:
    """The lines of history.jsonl, oldest first, and those that are damaged."""

    entries: Sequence[dict[str, Any]]
    bad: Sequence[BadLine]

    @property
    def next_number(self) -> int:
        """The sequence number of the next line; lines of older versions have none and count."""
        known = [int(entry["seq"]) for entry in self.entries if "seq" in entry]
        return max([len(self.entries) + len(self.bad), *known], default=0) + 1

    def pointer(self) -> Pointer | None:
        """The pointer that the moves in this history lead to; None when there was no move."""
        pointer: Pointer | None = None
        for entry in self.entries:
            if entry["action"] in MOVES:
                pointer = _after(pointer or Pointer(), entry)
        return pointer

    def rollout(self) -> Rollout | None:
        """What is tried on live traffic by this history; None when nothing is."""
        rollout: Rollout | None = None
        for entry in self.entries:
            if entry["action"] in TRIALS and isinstance(entry.get("share"), int | float):
                rollout = Rollout(
                    entry["to"], entry["action"], entry["share"], entry["time"], str(entry["who"])
                )
            elif entry["action"] == "stop":
                rollout = None
        return rollout


def _after(pointer: Pointer, entry: Mapping[str, Any]) -> Pointer:
    """Where a move leads from a pointer."""
    target, source = str(entry["to"]), entry.get("from")
    served: dict[str, Mapping[str, Any] | None] = {}
    if source is not None and source in pointer.served:
        served[source] = pointer.served[source]
    if entry["action"] == "cutover":
        served[target] = entry.get("decision")
        return Pointer(target, source, entry, served)
    if target in pointer.served:
        served = {target: pointer.served[target]}
    return Pointer(target, None, entry, served)


def read_history(path: Path) -> History:
    """All lines; a last line that a kill cut short does not count."""
    entries: list[dict[str, Any]] = []
    bad: list[BadLine] = []
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return History((), ())
    if parse_entry(last)[1] == "":
        lines.append(last)
    for number, line in enumerate(lines, start=1):
        entry, problem = parse_entry(line)
        if problem:
            bad.append(BadLine(number, line.decode("utf-8", "replace"), problem))
        else:
            entries.append(entry)
    return History(entries, bad)


def parse_entry(line: bytes) -> tuple[dict[str, Any], str]:
    """A line of history, and what is wrong with it (empty when nothing is)."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}, "not valid JSON"
    if not isinstance(entry, dict):
        return {}, "not an object"
    for key in ("time", "action", "to"):
        if not isinstance(entry.get(key), str):
            return {}, f"it has no {key!r}"
    if not ID.fullmatch(entry["to"]) and entry["action"] != "claim":
        return {}, f"{entry['to'][:40]!r} is no generation"
    if not isinstance(entry.get("from"), str | None) or not isinstance(entry.get("seq", 0), int):
        return {}, "a value is of another kind"
    try:
        read_time(entry["time"])
    except ValueError:
        return {}, f"{entry['time'][:40]!r} is no time"
    return entry, ""


def read_pointer(folder: Path) -> Pointer:
    """ACTIVE.  Raises StoreError when it is damaged, or gone although history tells of moves."""
    path = folder / "ACTIVE"
    generation: Any = str | None
    keys = {"id": generation, "previous": generation, "entry": dict | None}
    values = read_state(path, keys)
    if values is None:
        proved = read_history(folder / "history.jsonl").pointer()
        if proved is None:
            return Pointer()
        what = f"ACTIVE is gone, but by the history {proved.id} is active"
        raise StoreError(what, where=str(path), next_step=REPAIR)
    served = values.get("served", {})
    names = [values["id"], values["previous"]]
    if not isinstance(served, dict) or not all(
        name is None or ID.fullmatch(name) for name in names
    ):
        raise StoreError(
            "ACTIVE is damaged: it names no generation", where=f"{path}:1", next_step=REPAIR
        )
    return Pointer(values["id"], values["previous"], values["entry"], served)


def read_rollout(folder: Path) -> Rollout | None:
    """ROLLOUT, as it stands.  Raises StoreError when it is damaged."""
    path = folder / "ROLLOUT"
    keys = {"generation": str, "mode": str, "share": int | float, "since": str, "who": str}
    values = read_state(path, keys)
    if values is None:
        return None
    if not ID.fullmatch(values["generation"]) or values["mode"] not in TRIALS:
        raise StoreError(
            "ROLLOUT is damaged: it names no trial", where=f"{path}:1", next_step=REPAIR
        )
    return Rollout(**{key: values[key] for key in keys})
