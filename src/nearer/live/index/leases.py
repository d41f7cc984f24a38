"""Which generations are being read: each reader notes what it holds, for a time that ends.

A note is a file `generations/.readers/.HOST.PID.RANDOM.json`.  Its reader renews it while it lives;
what a killed reader held becomes free when the note ends.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nearer.errors import NearerError, StoreError
from nearer.files import read_json, write_json

#: Below the folder of generations.
FOLDER = ".readers"
#: Seconds that a note counts.  Opening a generation may take minutes: a model is loaded meanwhile.
SECONDS = 300.0


class HeldError(StoreError):
    """A generation that a reader holds was to be removed."""


@dataclass(frozen=True, slots=True)
class Note:
    """One reader: what it holds (None: unknown, so everything), and until when."""

    reader: str
    holds: frozenset[str] | None
    until: float

    def __str__(self) -> str:
        ends = datetime.fromtimestamp(self.until, UTC).isoformat(timespec="seconds")
        return f"{self.reader} until {ends}"


class Lease:
    """What one reader holds.  A folder that cannot be written is no obstacle to reading."""

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        host = "".join(
            letter for letter in socket.gethostname() if letter.isalnum() or letter == "-"
        )
        name = f".{host or 'host'}.{os.getpid()}.{secrets.token_hex(4)}.json"
        self._path, self._seconds = folder / FOLDER / name, seconds
        self._holds: frozenset[str] = frozenset()
        self._until = 0.0
        # A reader that is no longer used, or whose process ends, gives back what it held.
        self._finalizer = weakref.finalize(self, _remove, self._path)

    def hold(self, generations: Iterable[str]) -> None:
        """Note these generations; written only when they changed or a third of the time is over."""
        holds, now = frozenset(generations), time.time()
        if holds == self._holds and now < self._until - self._seconds * 2 / 3:
            return
        until = now + self._seconds
        with suppress(OSError):
            write_json(self._path, {"holds": sorted(holds), "until": until})
            self._holds, self._until = holds, until


def readers(folder: Path) -> list[Note]:
    """Notes that still count; those that ended are removed."""
    notes = []
    for path in sorted((folder / FOLDER).glob(".*.json")):
        try:
            note = _read(path)
        except FileNotFoundError:
            continue
        if note.until > time.time():
            notes.append(note)
        else:
            _remove(path)
    return notes


def holders(folder: Path, generation: str) -> list[Note]:
    """The readers that hold a generation."""
    return [note for note in readers(folder) if note.holds is None or generation in note.holds]


def _read(path: Path) -> Note:
    reader = "a reader (process {1} on {0})".format(*path.name[1:].split(".")[:2])
    try:
        values = read_json(path)
        return Note(reader, frozenset(map(str, values["holds"])), float(values["until"]))
    except (NearerError, KeyError, TypeError, ValueError):
        # What it held is unknown: nothing is removed while it may still be held.
        return Note(reader, None, path.stat().st_mtime + SECONDS)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
