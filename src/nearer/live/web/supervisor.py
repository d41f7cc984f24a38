"""Keeps the background loops of a service running.

No loop ends while the service runs: one that fails is logged, counted, started again, and named by
`/readyz` and the metrics until it works again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable

from nearer.errors import NearerError
from nearer.live.web.metrics import Metrics

_PAUSE = 0.5  # seconds until a loop that ended is started again
_AGAIN = 60.0  # seconds after which the same failure is logged again
_SETTLED = 30.0  # seconds without a failure after which a restarted loop counts as working
_log = logging.getLogger("nearer.serve")


class Supervisor:
    """The loops of one service.  Safe for threads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failing: dict[str, tuple[str, float]] = {}  # loop → why, and when it was last logged
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def problems(self) -> dict[str, str]:
        """Loops that do not work now, and why."""
        with self._lock:
            return {name: why for name, (why, _) in self._failing.items()}

    def stop(self) -> None:
        """Loops that end from now on are not started again."""
        self._stopping.set()

    async def every(self, name: str, seconds: float, step: Callable[[], None]) -> None:
        """Call `step` in a thread, for ever, with pauses."""
        while True:
            try:
                await asyncio.to_thread(step)
                self.worked(name)
            except Exception as error:  # noqa: BLE001 - the next round may work
                self.failed(name, error)
            await asyncio.sleep(seconds)

    async def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Await `run`, and again whenever it ends."""
        self._metrics.loop_works(name)
        while True:
            try:
                async with self._settling(name):
                    await run()
            except Exception as error:  # noqa: BLE001 - it is started again
                self.failed(name, error)
            else:
                self.failed(name, RuntimeError("the loop ended"))
            await asyncio.sleep(_PAUSE)

    def thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        """A started daemon thread that runs `run`, again whenever it fails; a return ends it."""

        def kept() -> None:
            while not self._stopping.is_set():
                started = time.monotonic()
                try:
                    run()
                except Exception as error:  # noqa: BLE001 - it is started again
                    if time.monotonic() - started > _SETTLED:
                        self.worked(name)
                    self.failed(name, error)
                else:
                    return
                self._stopping.wait(_PAUSE)

        self._metrics.loop_works(name)
        thread = threading.Thread(target=kept, name=name, daemon=True)
        thread.start()
        return thread

    def worked(self, name: str) -> None:
        """A round of a loop went through."""
        self._metrics.loop_works(name)
        with self._lock:
            ended = self._failing.pop(name, None)
        if ended:
            _log.warning("%s works again", name)

    def failed(self, name: str, error: Exception) -> None:
        """A round of a loop failed."""
        why = f"{type(error).__name__}: {error}"[:300]
        now = time.monotonic()
        with self._lock:
            known = self._failing.get(name)
            fresh = known is None or known[0] != why or now - known[1] > _AGAIN
            self._failing[name] = (why, now if fresh or known is None else known[1])
        self._metrics.loop_failed(name)
        if fresh and isinstance(error, (NearerError, OSError)):
            _log.warning("%s failed: %s", name, error)
        elif fresh:
            _log.error("%s failed", name, exc_info=error)

    def _settling(self, name: str) -> _Settling:
        return _Settling(self, name)


class _Settling:
    """Says that a restarted loop works once it has run for a while."""

    def __init__(self, supervisor: Supervisor, name: str) -> None:
        self._supervisor, self._name = supervisor, name

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SETTLED, self._supervisor.worked, self._name)

    async def __aexit__(self, *exc: object) -> None:
        self._timer.cancel()
