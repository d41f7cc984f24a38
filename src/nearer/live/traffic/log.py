"""The traffic log: what was asked, what was answered, what people did with it.

A JSONL file a day (UTC), below `traffic/`.  A request is one line, written when it was answered::

    {"time", "request_id", "query", "filter", "generation", "results": [{"id", "score", "rank"}], "latency_ms", "user"?, …}

What comes later (clicks, the shadow's answer) is a line of its own with the same `request_id` and
`feedback` or `shadow` in place of the query: a log is only ever appended to.  `read_traffic` puts
them together.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.data.times import read_time
from nearer.live.traffic.similar import SimilarTo
from nearer.types import Hit, Metadata

KINDS = ("click", "dwell", "thumbs", "conversion")
_WAITING = 20_000  # lines kept in memory while the disk refuses them
_RETRY = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person did with a result.  `value`: 1 for a click, seconds for dwell, +1 or -1 for thumbs."""

    kind: str
    doc_id: str
    value: float
    time: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """One search of a user.  `arm` says which side of an experiment answered: live, canary or interleaved."""

    time: datetime
    request_id: str
    query: str
    generation: str
    results: tuple[Hit, ...]
    latency_ms: float
    filter: Metadata | None = None
    user: str | None = None
    error: str | None = None
    arm: str = "live"
    teams: Mapping[str, str] | None = (
        None  # interleaved: document id → generation that put it there
    )
    feedback: tuple[Feedback, ...] = ()
    shadow: Mapping[str, Any] | None = None
    similar: SimilarTo | None = None  # what POST /similar was asked; None: a search

    def as_dict(self) -> dict[str, Any]:
        """The line of the log, without what comes later."""
        line: dict[str, Any] = {
            name: getattr(self, name) for name in ("request_id", "query", "filter", "generation")
        }
        line = {"time": self.time.isoformat(timespec="milliseconds"), **line}
        line["results"] = ranked(self.results)
        line["latency_ms"] = round(self.latency_ms, 3)
        extra = {
            "user": self.user,
            "error": self.error,
            "arm": self.arm if self.arm != "live" else None,
            "teams": self.teams,
            "similar": self.similar.as_dict() if self.similar is not None else None,
        }
        return line | {name: value for name, value in extra.items() if value is not None}


class TrafficLog:
    """Appends lines from any thread without making it wait for the disk.

    One thread writes whole lines and takes back what a full disk cut short, so that no line is ever
    torn.  While the disk refuses, lines wait in memory; beyond `_WAITING` the oldest are lost and counted in `lost`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lost, self.error = folder, 0, ""
        self._lines: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._written = threading.Condition()
        self._pending = 0
        self._thread = threading.Thread(target=self._write_all, name="traffic log", daemon=True)
        self._thread.start()

    def append(self, line: Mapping[str, Any]) -> None:
        """Put a line on its way; `line["time"]` says to which day it belongs."""
        text = (
            json.dumps(line, ensure_ascii=False, allow_nan=False, default=str).encode(
                "utf-8", "replace"
            )
            + b"\n"
        )
        with self._written:
            if self._pending >= _WAITING:
                self.lost += 1
                return
            self._pending += 1
        self._lines.put((str(line["time"])[:10], text))

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all lines are on disk; False when they are not in time."""
        with self._written:
            return self._written.wait_for(lambda: self._pending == 0, timeout)

    def close(self, timeout: float = 10.0) -> None:
        self.flush(timeout)
        self._lines.put(None)
        self._thread.join(timeout)

    def _write_all(self) -> None:
        stop = threading.Event()
        while (first := self._lines.get()) is not None:
            batch = [first]
            ending = False
            while not ending and not self._lines.empty() and len(batch) < 256:
                more = self._lines.get()
                if more is None:
                    ending = True
                else:
                    batch.append(more)
            for day in dict.fromkeys(day for day, _ in batch):
                lines = [text for own, text in batch if own == day]
                self._write(self.folder / f"{day}.jsonl", lines, stop)
            with self._written:
                self._pending -= len(batch)
                self._written.notify_all()
            if ending:
                return

    def _write(self, path: Path, lines: Sequence[bytes], stop: threading.Event) -> None:
        """Write lines of one day, waiting for the disk; what no waiting helps against costs these lines alone."""
        while True:
            try:
                append_whole(path, b"".join(lines))
            except OSError as error:
                self.error = error.strerror or str(error)
                stop.wait(_RETRY)
            except Exception as error:  # noqa: BLE001 - the thread must not end: it is the only one that writes
                self.error = f"{type(error).__name__}: {error}"
                with self._written:
                    self.lost += len(lines)
                return
            else:
                self.error = ""
                return


def ranked(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """Hits, best first, as the log writes them."""
    return [
        {"id": doc_id, "score": score, "rank": rank}
        for rank, (doc_id, score) in enumerate(hits, start=1)
    ]


def append_whole(path: Path, lines: bytes, *, durable: bool = False) -> None:
    """Append to a file that other processes append to as well: everything or nothing.

    `durable` waits until the disk has it.  Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # a power cut, in the middle of a line
            lines = b"\n" + lines
        try:
            done = 0
            while done < len(lines):
                done += os.write(handle, lines[done:])
            if durable:
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def daily_files(folder: Path, faults: list[str] | None = None) -> list[tuple[date, Path]]:
    """The files of a traffic log with their days, earliest first.

    One whose name is no day is left out, told once, and named in `faults`.
    """
    found = []
    for path in sorted(folder.glob("????-??-??.jsonl")):
        day = _day(path, [] if faults is None else faults)
        if day is not None:
            found.append((day, path))
    return found


def read_traffic(
    folder: Path,
    since: date | None = None,
    until: date | None = None,
    *,
    skipped: list[str] | None = None,
) -> list[Request]:
    """Requests in order of time, from the files of the days `since` to `until` (both included).

    Feedback and shadow lines are put to their request; those without one do not count.  A line that
    is neither (torn by a power cut, written by hand) is skipped: a warning says where, once, and
    `skipped` gets its file, line and fault.  Raises OSError for a file that cannot be read.
    """
    faults: list[str] = [] if skipped is None else skipped
    requests: dict[str, Request] = {}
    later: dict[str, list[_Later]] = {}
    for day, path in daily_files(folder, faults):
        if (since and day < since) or (until and day > until):
            continue
        for line in _parsed(path, faults):
            if isinstance(line, Request):
                requests[line.request_id] = line
            else:
                later.setdefault(line.request_id, []).append(line)
    for request_id, lines in later.items():
        if request_id in requests:
            requests[request_id] = _completed(requests[request_id], lines)
    return sorted(requests.values(), key=lambda one: (one.time, one.request_id))


@dataclass(frozen=True, slots=True)
class _Later:
    """A line about a request that is in the log already."""

    request_id: str
    feedback: tuple[Feedback, ...]
    shadow: Mapping[str, Any] | None


def _completed(request: Request, lines: Sequence[_Later]) -> Request:
    feedback = list(request.feedback)
    shadow = request.shadow
    for line in lines:
        feedback += line.feedback
        shadow = line.shadow or shadow
    return replace(request, feedback=tuple(feedback), shadow=shadow)


def _day(path: Path, faults: list[str]) -> date | None:
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        _skip(path, {0: "its name is no day"}, faults)
        return None


def _parsed(path: Path, faults: list[str]) -> Iterator[Request | _Later]:
    """What the lines of a file say; those that say nothing are skipped, and told at the end."""
    bad: dict[int, str] = {}
    with open(path, "rb") as handle:
        for number, text in enumerate(handle, start=1):
            if text.isspace():
                continue
            try:
                line = _line(json.loads(text))
            except Exception as error:  # noqa: BLE001 - what stands in a file may fail in any way
                bad[number] = f"{type(error).__name__}: {error}"[:200]
                continue
            yield line
    _skip(path, bad, faults)


_told: dict[Path, int] = {}  # bad lines of a file when they were told last


def _skip(path: Path, bad: Mapping[int, str], faults: list[str]) -> None:
    """Tell once where lines were skipped, and again when there are more."""
    faults += [f"{path}:{number}: {fault}" for number, fault in bad.items()]
    if len(bad) <= _told.get(path, 0):
        return
    _told[path] = len(bad)
    number, fault = next(iter(bad.items()))
    lines = ", ".join(str(one) for one in list(bad)[:10])
    progress.warn(
        f"{path}:{number}: not a line of a traffic log ({fault}); skipped {len(bad)} of its lines: {lines}"
    )


def _line(line: Any) -> Request | _Later:
    """A line of the log, of either kind.  Raises all sorts of errors when it is none."""
    if "query" in line:
        return parse_request(line)
    shadow = line.get("shadow")
    if shadow is not None:
        shadow = _object(shadow, "shadow")
    return _Later(str(line["request_id"]), tuple(_feedback(line)), shadow)


def parse_request(line: Mapping[str, Any]) -> Request:
    """A line of the log.  Raises KeyError, TypeError, ValueError or OverflowError when it is none."""
    results = sorted(line["results"], key=lambda hit: float(hit["rank"]))
    more: dict[str, Any] = {
        name: _object(line[name], name)
        for name in ("filter", "teams", "shadow")
        if line.get(name) is not None
    }
    for name in ("user", "error", "arm"):
        value = line.get(name)
        if value is None:
            continue
        if not isinstance(value, str | int | float):
            raise TypeError(f"{name} is a {type(value).__name__}")
        more[name] = str(value)
    if line.get("similar") is not None:
        more["similar"] = SimilarTo.from_dict(_object(line["similar"], "similar"))
    return Request(
        time=read_time(line["time"]),
        request_id=str(line["request_id"]),
        query=str(line["query"]),
        generation=str(line["generation"]),
        results=tuple((str(hit["id"]), _number(hit["score"])) for hit in results),
        latency_ms=_number(line["latency_ms"]),
        feedback=tuple(_feedback(line)),
        **more,
    )


def _feedback(line: Mapping[str, Any]) -> Iterator[Feedback]:
    for one in line.get("feedback") or ():
        yield Feedback(
            str(one["kind"]),
            str(one["id"]),
            _number(one.get("value", 1.0)),
            read_time(one.get("time", line["time"])),
        )


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is not an object")
    return value


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number")
    return number
