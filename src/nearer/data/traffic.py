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
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from nearer.data.sources import bad
from nearer.data.times import read_time
from nearer.types import Hit, Metadata

KINDS = ("click", "dwell", "thumbs", "conversion")
_WAITING = 20_000  # lines kept in memory while the disk refuses them
_RETRY = 1.0  # seconds
#: What a line of any JSON, but not of a traffic log, raises while it is read.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


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
            while (
                not self._lines.empty()
                and len(batch) < 256
                and (more := self._lines.get()) is not None
            ):
                batch.append(more)
            for day in dict.fromkeys(day for day, _ in batch):
                lines = b"".join(text for own, text in batch if own == day)
                while True:
                    try:
                        append_whole(self.folder / f"{day}.jsonl", lines)
                        self.error = ""
                        break
                    except OSError as error:
                        self.error = error.strerror or str(error)
                        stop.wait(_RETRY)
            with self._written:
                self._pending -= len(batch)
                self._written.notify_all()


def ranked(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """Hits, best first, as the log writes them."""
    return [
        {"id": doc_id, "score": score, "rank": rank}
        for rank, (doc_id, score) in enumerate(hits, start=1)
    ]


def append_whole(path: Path, lines: bytes) -> None:
    """Append to a file that other processes append to as well: everything or nothing.  Raises OSError."""
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
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def daily_files(folder: Path) -> list[tuple[date, Path]]:
    """The files of a traffic log with their days, earliest first.  Raises DataError for a day that is none."""
    found = []
    for path in sorted(folder.glob("????-??-??.jsonl")):
        try:
            found.append((date.fromisoformat(path.stem), path))
        except ValueError:
            raise bad("the file's name is not a day", path, "rename it or move it away") from None
    return found


def read_traffic(
    folder: Path, since: date | None = None, until: date | None = None
) -> list[Request]:
    """Requests in order of time, from the files of the days `since` to `until` (both included).

    Feedback and shadow lines are put to their request; those without one, and a last line that a
    power cut tore, do not count.  Raises DataError for a line that is no request.
    """
    requests: dict[str, Request] = {}
    feedback: dict[str, list[Feedback]] = {}
    shadows: dict[str, Mapping[str, Any]] = {}
    for day, path in daily_files(folder):
        if (since and day < since) or (until and day > until):
            continue
        for number, line in _lines(path):
            try:
                if "query" in line:
                    request = parse_request(line)
                    requests[request.request_id] = request
                    continue
                request_id = str(line["request_id"])
                feedback.setdefault(request_id, []).extend(_feedback(line))
                if line.get("shadow"):
                    shadows[request_id] = _object(line["shadow"], "shadow")
            except _MALFORMED as error:
                why = f"{error} is missing" if isinstance(error, KeyError) else error
                raise bad(
                    f"not a line of a traffic log ({why})",
                    f"{path}:{number}",
                    "mend or remove that line",
                ) from None
    for request_id in requests.keys() & (feedback.keys() | shadows.keys()):
        known = requests[request_id]
        requests[request_id] = replace(
            known,
            feedback=(*known.feedback, *feedback.get(request_id, ())),
            shadow=shadows.get(request_id) or known.shadow,
        )
    return sorted(requests.values(), key=lambda one: (one.time, one.request_id))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue  # torn by a power cut; what was appended after it stands on a line of its own
            if isinstance(value, dict):
                yield number, value


def parse_request(line: Mapping[str, Any]) -> Request:
    """A line of the log.  Raises one of `_MALFORMED` when it is none."""
    results = sorted(line["results"], key=lambda hit: float(hit["rank"]))
    more: dict[str, Any] = {
        name: _object(line[name], name)
        for name in ("filter", "teams", "shadow")
        if line.get(name) is not None
    }
    more |= {
        name: str(line[name]) for name in ("user", "error", "arm") if line.get(name) is not None
    }
    return Request(
        time=read_time(line["time"]),
        request_id=str(line["request_id"]),
        query=str(line["query"]),
        generation=str(line["generation"]),
        results=tuple((str(hit["id"]), float(hit["score"])) for hit in results),
        latency_ms=float(line["latency_ms"]),
        feedback=tuple(_feedback(line)),
        **more,
    )


def _feedback(line: Mapping[str, Any]) -> Iterator[Feedback]:
    for one in line.get("feedback") or ():
        yield Feedback(
            str(one["kind"]),
            str(one["id"]),
            float(one.get("value", 1.0)),
            read_time(one.get("time", line["time"])),
        )


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is not an object")
    return value
