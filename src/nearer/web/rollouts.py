"""What is tried on live traffic: shadow, interleaving and canary, and what stops them.

Nothing here can slow or fail an answer: shadow queries run one at a time in a thread of the lowest
priority, after the answer has gone out and only while nobody waits; what goes wrong is counted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.splits import frozen_split
from nearer.data.times import read_time
from nearer.data.traffic import Request, TrafficLog, ranked, read_traffic
from nearer.index.manifest import Rollout
from nearer.index.searcher import Searcher, Served
from nearer.measure.rollout import team_draft
from nearer.stages.shadow import canary_queries_fall, compare, guard
from nearer.types import Hit, typed_query
from nearer.web.metrics import Metrics

_GUARD = 15.0  # seconds between looks at the outcomes of a canary or an interleaving
_AGAIN = 30.0  # seconds until a candidate that could not be opened is tried again
_PATIENCE = 0.05  # seconds a shadow query waits for a quiet moment before it looks again
_log = logging.getLogger("nearer.serve")


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is answered: by the canary `instead` of the live generation, or with another one `beside` it."""

    arm: str = "live"
    instead: Served | None = None
    beside: Served | None = None


class Rollouts:
    """The candidate of one service."""

    def __init__(
        self,
        searcher: Searcher,
        log: TrafficLog,
        metrics: Metrics,
        root: Path,
        *,
        busy: Callable[[], bool],
    ) -> None:
        self._searcher, self._log, self._metrics, self._root, self._busy = (
            searcher,
            log,
            metrics,
            root,
            busy,
        )
        self._settings = searcher.generations.config.shadow
        self._rollout: Rollout | None = None
        self._candidate: Served | None = None
        self._waiting: queue.Queue[tuple[Request, str, float] | None] = queue.Queue(
            self._settings.queue
        )
        self._guarded = self._again = 0.0
        self._outcomes: dict[str, Any] = {}
        self._stopped = ""
        self._thread = threading.Thread(target=self._shadow_all, name="shadow", daemon=True)
        self._thread.start()

    # -- a request ---------------------------------------------------------------------------------

    def plan(self, user: str) -> Plan:
        """Which arm a user (or, without one, a request) is in: the same for as long as a rollout lasts."""
        rollout, candidate = self._rollout, self._candidate
        if (
            rollout is None
            or candidate is None
            or rollout.mode == "shadow"
            or _place(rollout.since, user) >= rollout.share
        ):
            return Plan()
        if rollout.mode == "canary":
            return Plan("canary", instead=candidate)
        return Plan("interleaved", beside=candidate)

    def interleave(
        self, request_id: str, live: Sequence[Hit], other: Sequence[Hit], k: int
    ) -> tuple[list[Hit], dict[str, str]]:
        """Results of both, dealt into one list."""
        digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return team_draft(live, other, k, np.random.default_rng(int.from_bytes(digest, "big")))

    def after(self, answered: Request, query: str) -> None:
        """An answer has gone out: put its query on the way to the shadow, if there is room."""
        rollout = self._rollout
        if (
            rollout is None
            or rollout.mode != "shadow"
            or _place(rollout.since, answered.request_id) >= rollout.share
        ):
            return
        if self._candidate is None:
            self._metrics.shadow.labels("unavailable").inc()
            return
        try:
            self._waiting.put_nowait((answered, query, time.monotonic()))
        except queue.Full:
            self._metrics.shadow.labels("dropped").inc()

    # -- the shadow --------------------------------------------------------------------------------

    def _shadow_all(self) -> None:
        if hasattr(os, "setpriority"):
            os.setpriority(
                os.PRIO_PROCESS, threading.get_native_id(), 19
            )  # on Linux: of this thread alone
        while (waiting := self._waiting.get()) is not None:
            answered, query, since = waiting
            while self._busy() and time.monotonic() - since < self._settings.timeout:
                time.sleep(_PATIENCE)
            candidate = self._candidate
            if candidate is None or time.monotonic() - since >= self._settings.timeout:
                self._metrics.shadow.labels("late").inc()
                continue
            try:
                self._shadow(candidate, answered, query)
                self._metrics.shadow.labels("compared").inc()
            except Exception as error:  # noqa: BLE001 - a broken candidate is a result, not a fault of the service
                self._metrics.shadow.labels("failed").inc()
                self._tell(
                    answered,
                    {"generation": candidate.id, "error": f"{type(error).__name__}: {error}"[:300]},
                )

    def _shadow(self, candidate: Served, answered: Request, query: str) -> None:
        started = time.perf_counter()
        depth = max(len(answered.results), self._settings.k)
        asked = typed_query(query, answered.filter)
        hits = list(candidate.search([asked], depth).results[asked.id])
        seconds = time.perf_counter() - started
        self._metrics.shadow_seconds.observe(seconds)
        told = compare(answered.results, hits, self._settings.k)
        self._tell(
            answered,
            {
                "generation": candidate.id,
                "latency_ms": round(1000 * seconds, 3),
                **told,
                "results": ranked(hits),
            },
        )

    def _tell(self, answered: Request, shadow: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._log.append({"time": now, "request_id": answered.request_id, "shadow": shadow})

    # -- following, and stopping -------------------------------------------------------------------

    def look(self) -> None:
        """Follow ROLLOUT, and stop what does harm.  Called from a thread, every second or so."""
        generations = self._searcher.generations
        rollout = generations.rollout()
        changed = rollout != self._rollout
        self._rollout = rollout
        if rollout is None:
            self._candidate = None
            if changed:
                self._metrics.rollout.clear()
            return
        if not changed and self._candidate is None and time.monotonic() < self._again:
            return
        try:
            candidate = self._searcher.opened(rollout.generation)
        except Exception:  # noqa: BLE001 - a broken candidate is a result
            self._candidate, self._again = (
                None,
                time.monotonic() + _AGAIN,
            )  # meanwhile the live generation answers alone
            if changed:
                _log.exception("cannot open %s, which is to be tried", rollout.generation)
            return
        fresh, self._candidate = candidate is not self._candidate, candidate
        if changed:
            self._metrics.rollout.clear()
            self._metrics.rollout.labels(rollout.generation, rollout.mode).set(1)
        if rollout.mode == "shadow":
            return
        why = self._canary_queries(candidate) if fresh else None
        if why is None and time.monotonic() - self._guarded >= _GUARD:
            self._guarded, now = time.monotonic(), datetime.now(UTC)
            since = read_time(rollout.since).date()
            self._outcomes = guard(
                read_traffic(self._root / "traffic", since), rollout, self._settings, now
            )
            why = self._outcomes["harm"]
        if why:
            generations.stop_rollout(why=why, who="guardrail")
            self._rollout = self._candidate = None
            self._stopped = f"{rollout.generation} ({rollout.mode}) was stopped: {why}"
            _log.warning("%s", self._stopped)

    def _canary_queries(self, candidate: Served) -> str | None:
        """Judged queries of dev, asked of both generations once, before people are."""
        settings = self._searcher.generations.config
        dev = frozen_split(self._root, settings.run, "dev")
        rng = np.random.default_rng([settings.seed, *b"canary"])
        return canary_queries_fall(
            self._searcher.current(), candidate, dev, settings.evaluate.primary, rng
        )

    def told(self) -> dict[str, Any]:
        """For the dashboard: what is tried, its outcomes, and what was stopped last."""
        return {
            "rollout": asdict(self._rollout) if self._rollout else None,
            "outcomes": self._outcomes,
            "stopped": self._stopped,
        }

    def close(self) -> None:
        """End the thread; shadow queries that still wait are left out."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(5.0)


def _place(salt: str, user: str) -> float:
    """Where a user falls in 0..1, evenly and always alike within one rollout."""
    digest = hashlib.blake2b(f"{salt}\0{user}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
