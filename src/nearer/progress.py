"""Progress without printing.

Library code says what it is doing through `task(...)`; the caller decides who listens, by default
nobody.  The command line installs a listener that draws bars on stderr.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, n: float = 1) -> None: ...

    def reach(self, done: float) -> None:
        """Work up to `done` units is finished, however it was counted before."""

    def expect(self, total: float) -> None:
        """The whole is `total` units after all."""

    def note(self, text: str, curve: Sequence[float] = ()) -> None:
        """A short word beside the bar, e.g. `nDCG@10 .512`, and values that may be drawn after it."""


class Listener(Protocol):
    """What a caller installs to show progress."""

    def start(self, what: str, total: float | None, unit: str) -> Task: ...

    def stop(self, task: Task) -> None: ...

    def message(self, text: str, level: str) -> None: ...


class Silent:
    """The default listener, and its own task: ignores everything."""

    def start(self, what: str, total: float | None, unit: str) -> Silent:
        return self

    def stop(self, task: Task) -> None: ...

    def message(self, text: str, level: str) -> None: ...

    def advance(self, n: float = 1) -> None: ...

    def reach(self, done: float) -> None: ...

    def expect(self, total: float) -> None: ...

    def note(self, text: str, curve: Sequence[float] = ()) -> None: ...


#: Ignores everything; also the task to pass to work that is too short to announce.
SILENT = Silent()
_listener: ContextVar[Listener] = ContextVar("nearer_progress", default=SILENT)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send progress to `listener` inside the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def task(what: str, total: float | None = None, unit: str = "texts") -> Iterator[Task]:
    """Announce work of `total` units; call `.advance(n)` as it gets done."""
    listener = _listener.get()
    running = listener.start(what, total, unit)
    try:
        yield running
    finally:
        listener.stop(running)


def info(text: str) -> None:
    """One line for the user about what is going on."""
    _listener.get().message(text, "info")


def warn(text: str) -> None:
    """One line the user should not miss."""
    _listener.get().message(text, "warning")
