"""What reviewers said, as an append-only log (`review/judgments.jsonl`) that no kill can damage.

One line per action, on the disk before anybody is told that it is saved.  Nothing is ever changed
or removed: undoing an action is a line of its own.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer.errors import DataError
from nearer.live.traffic.log import append_whole

GRADE = "grade"
CANNOT_TELL = "cannot_tell"
SKIP = "skip"
UNDO = "undo"
ADJUDICATE = "adjudicate"  # settles what reviewers disagree on
PICK = "pick"  # of three documents the odd one
ACTIONS = (GRADE, CANNOT_TELL, SKIP, UNDO, ADJUDICATE, PICK)
GRADES = (0, 1, 2, 3)
MAX_COMMENT = 2000  # characters

ASKED_TOGETHER = 3  # documents of an odd-one-out question
#: Query or request id, and document id: what a judgment is about.  A question about several
#: documents has an id of its own and no document id.
Subject = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One action of a reviewer.  `undone` is the id of the entry that an undo takes back.

    An entry about an odd-one-out question has the question's id as `query_id`, its `documents` in
    the order in which they were shown, and no `doc_id`; `picked` is the odd one.
    """

    id: str
    time: str  # ISO 8601, UTC
    reviewer: str
    action: str
    query_id: str  # or the id of a request of the traffic log
    doc_id: str = ""
    grade: int | None = None
    documents: tuple[str, ...] = ()
    picked: str = ""
    comment: str = ""
    seconds: float | None = None  # that the reviewer looked at the pair
    source: str = "page"  # or what it was imported from
    undone: str = ""

    @property
    def subject(self) -> Subject:
        return self.query_id, self.doc_id

    @property
    def about(self) -> str:
        """What was asked, for messages."""
        if self.documents:
            return "documents " + ", ".join(map(repr, self.documents))
        return f"query {self.query_id!r}, document {self.doc_id!r}"

    def as_dict(self) -> dict[str, Any]:
        """The line of the log, without what is empty."""
        line = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in line.items() if value not in (None, "", ())}

    @classmethod
    def of(cls, values: Any) -> Entry:
        """Read a line of the log.  Raises ValueError for one that is no entry."""
        if not isinstance(values, Mapping):
            raise ValueError("not an object")  # noqa: TRY004 - a fault of the data, like the others
        known = {name: values[name] for name in _FIELDS if name in values}
        known["documents"] = _documents(known.get("documents", []))
        needed = _NEEDED if known["documents"] else (*_NEEDED, "doc_id")
        missing = [name for name in needed if not isinstance(known.get(name), str)]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        entry = cls(**known)
        if entry.action not in ACTIONS:
            raise ValueError(f"unknown action {entry.action!r}")
        if entry.action in (GRADE, ADJUDICATE) and not is_grade(entry.grade):
            raise ValueError(f"{entry.grade!r} is no grade from 0 to 3")
        if entry.action == PICK and entry.picked not in entry.documents:
            raise ValueError(f"{entry.picked!r} is none of the documents of the question")
        for name in ("doc_id", "picked", "comment", "source", "undone"):
            if not isinstance(getattr(entry, name), str):
                raise ValueError(f"{name} is no text")  # noqa: TRY004 - as above
        if entry.seconds is not None and not is_number(entry.seconds):
            raise ValueError(f"{entry.seconds!r} is no number of seconds")
        return entry


_FIELDS = tuple(field.name for field in fields(Entry))
_NEEDED = ("id", "time", "reviewer", "action", "query_id")


def _documents(value: Any) -> tuple[str, ...]:
    """The documents of a question, empty for a pair.  Raises ValueError for anything else."""
    is_list = isinstance(value, list) and all(isinstance(doc_id, str) for doc_id in value)
    if not is_list or len(set(value)) != len(value) or len(value) not in (0, ASKED_TOGETHER):
        raise ValueError(f"documents are not {ASKED_TOGETHER} different ids")
    return tuple(value)


def is_grade(value: Any) -> bool:
    """Whether a value is a whole number from 0 to 3: True and 1.0, which equal one, are none."""
    return type(value) is int and value in GRADES


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def now() -> str:
    """The time of an entry."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Judgments:
    """What every line of a log means together: who said what about which pair."""

    def __init__(self) -> None:
        self.by_subject: dict[Subject, dict[str, Entry]] = {}  # reviewer → what counts now
        self.final: dict[Subject, Entry] = {}  # adjudicated
        self.by_id: dict[str, Entry] = {}
        self.taken_back: set[str] = set()
        self.repeated = 0  # lines that judge again what their reviewer had judged

    def copy(self) -> Judgments:
        """One that can be added to without changing this one."""
        other = Judgments()
        other.by_subject = {subject: dict(said) for subject, said in self.by_subject.items()}
        other.final = dict(self.final)
        other.by_id = dict(self.by_id)
        other.taken_back = set(self.taken_back)
        other.repeated = self.repeated
        return other

    def add(self, entry: Entry) -> None:
        """Take in one line; a second judgment by the same reviewer is counted and does not count."""
        problem = self.problem(entry)
        if problem:
            self.repeated += 1
            return
        self.by_id[entry.id] = entry
        if entry.action == UNDO:
            self._undo(self.by_id[entry.undone])
        elif entry.action == ADJUDICATE:
            self.final[entry.subject] = entry
        else:
            self.by_subject.setdefault(entry.subject, {})[entry.reviewer] = entry

    def _undo(self, entry: Entry) -> None:
        self.taken_back.add(entry.id)
        if entry.action == ADJUDICATE:
            self.final.pop(entry.subject, None)
            return
        said = self.by_subject[entry.subject]
        said.pop(entry.reviewer, None)
        if not said:
            del self.by_subject[entry.subject]

    def problem(self, entry: Entry) -> str:
        """Why an entry cannot be added; empty where it can."""
        if entry.id in self.by_id:
            return "this was saved already"
        if entry.action == UNDO:
            return self._cannot_undo(entry)
        if entry.action == ADJUDICATE:
            return "this pair was adjudicated" if entry.subject in self.final else ""
        earlier = self.by_subject.get(entry.subject, {}).get(entry.reviewer)
        if earlier is None or earlier.action == SKIP:
            return ""
        return f"{entry.reviewer} judged this pair already; undo that first"

    def _cannot_undo(self, entry: Entry) -> str:
        target = self.by_id.get(entry.undone)
        if target is None or target.action == UNDO:
            return "there is nothing to undo"
        if target.reviewer != entry.reviewer:
            return "only its own reviewer can undo a judgment"
        return "this was undone already" if target.id in self.taken_back else ""

    def last_of(self, reviewer: str) -> Entry | None:
        """The latest action of a reviewer that can be undone."""
        for entry in reversed(self.by_id.values()):
            undoable = entry.action != UNDO and entry.id not in self.taken_back
            if undoable and entry.reviewer == reviewer and self._stands(entry):
                return entry
        return None

    def _stands(self, entry: Entry) -> bool:
        if entry.action == ADJUDICATE:
            return self.final.get(entry.subject) is entry
        return self.by_subject.get(entry.subject, {}).get(entry.reviewer) is entry

    def grades(self, subject: Subject) -> dict[str, int]:
        """Grade by reviewer, of those who gave one."""
        said = self.by_subject.get(subject, {})
        return {
            name: entry.grade
            for name, entry in said.items()
            if entry.action == GRADE and entry.grade is not None
        }

    def reviewers(self) -> list[str]:
        """Everybody who said something that counts, in order."""
        names = {name for said in self.by_subject.values() for name in said}
        return sorted(names)


class JudgmentLog:
    """The log on disk, and what it says.  Safe for threads and for several processes.

    A line that is cut or is no entry is left out and named in `faults`; what stands after it is
    read.  The last line counts once its line end is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.judgments = Judgments()
        self.faults: list[str] = []
        self.cut = False  # the file ends in the middle of a line
        self._read, self._lines = 0, 0
        self._lock = threading.RLock()
        self._held = 0  # how often `alone` was entered
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since, by whichever process.  Raises OSError."""
        with self._lock:
            if not self.path.is_file():
                return
            with open(self.path, "rb") as handle:
                handle.seek(self._read)
                content = handle.read()
            whole = content.rfind(b"\n") + 1
            for line in content[:whole].splitlines():
                self._lines += 1
                self._take(line)
            self._read += whole
            self.cut = whole < len(content)

    def snapshot(self) -> Judgments:
        """What the log says now, as a copy that no other thread adds to.  Raises OSError."""
        with self._lock:
            self.refresh()
            return self.judgments.copy()

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            self.judgments.add(Entry.of(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            fault = str(error).split("\n", 1)[0][:120]
            self.faults.append(f"{self.path}:{self._lines}: {fault}")

    def append(self, entries: list[Entry]) -> int:
        """Add entries, all or none of them; those with an id that is there already are not added again.

        Returns how many are new, once they are on the disk.  Raises DataError for one that
        contradicts what is there.
        """
        with self.alone():
            fresh = [entry for entry in entries if entry.id not in self.judgments.by_id]
            _refuse_contradictions(self.judgments, fresh)
            if fresh:
                lines = [json.dumps(entry.as_dict(), ensure_ascii=False) for entry in fresh]
                text = "".join(f"{line}\n" for line in lines)
                append_whole(self.path, text.encode("utf-8", "replace"), durable=True)
                self.refresh()
            return len(fresh)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other thread and no other process appends, with everything read so far.

        Two of them must not both judge the same.  Who holds it may enter it again.
        """
        with self._lock:
            handle = None if self._held else self._locked_file()
            self._held += 1
            try:
                self.refresh()
                yield
            finally:
                self._held -= 1
                if handle is not None:
                    os.close(handle)

    def _locked_file(self) -> int:
        """The handle of the lock file, locked; closing it unlocks it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def warnings(self) -> list[str]:
        """What could not be read, in words."""
        said = []
        if self.faults:
            first = self.faults[0]
            said.append(
                f"{len(self.faults)} lines of the log are no judgments and were left out, first {first}"
            )
        if self.cut:
            said.append(
                f"{self.path} ends in the middle of a line, which was not saved; the rest is there"
            )
        if self.judgments.repeated:
            said.append(
                f"{self.judgments.repeated} lines judge again what was judged and do not count"
            )
        return said


def _refuse_contradictions(judgments: Judgments, entries: list[Entry]) -> None:
    """Raises DataError for an entry that cannot be added after those before it."""
    trial = judgments if len(entries) == 1 else judgments.copy()
    for entry in entries:
        problem = trial.problem(entry)
        if problem:
            raise DataError(
                problem,
                where=entry.about,
                next_step="keep one of the judgments, or undo the earlier one on the page",
            )
        if trial is not judgments:
            trial.add(entry)
