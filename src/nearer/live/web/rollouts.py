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
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.splits import frozen_split
from nearer.data.times import read_time
from nearer.live.index.manifest import Rollout
from nearer.live.index.searcher import Searcher, Served
from nearer.live.index.similar import find_similar
from nearer.live.rollout.guards import canary_queries_fall, guard
from nearer.live.rollout.replay import compare
from nearer.live.traffic.log import Request, TrafficLog, ranked, read_traffic
from nearer.live.web.metrics import Metrics
from nearer.live.web.supervisor import Supervisor
from nearer.measure.rollout import team_draft
from nearer.types import Hit, typed_query

_GUARD = 15.0  # seconds between looks at the outcomes of a canary or an interleaving
_AGAIN = 30.0  # seconds until a candidate that could not be opened is tried again
_SHADOW = "shadow queries"  # the name of its loop
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
        supervisor: Supervisor,
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
        # stopped here and why, whatever ROLLOUT still says
        self._condemned: tuple[Rollout, str] | None = None
        self._supervisor = supervisor
        self._thread = supervisor.thread(_SHADOW, self._shadow_all)

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
            with suppress(OSError):  # a container may forbid it; queries are shadowed all the same
                # on Linux: of this thread alone
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
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
                self._supervisor.worked(_SHADOW)
            except Exception as error:  # noqa: BLE001 - a broken candidate is a result, not a fault of the service
                self._metrics.shadow.labels("failed").inc()
                self._tell(
                    answered,
                    {"generation": candidate.id, "error": f"{type(error).__name__}: {error}"[:300]},
                )

    def _shadow(self, candidate: Served, answered: Request, query: str) -> None:
        started = time.perf_counter()
        hits = self._asked_too(candidate, answered, query)
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

    def _asked_too(self, candidate: Served, answered: Request, query: str) -> list[Hit]:
        """What the candidate answers to the same question.  Raises whatever a broken one raises."""
        if answered.similar is not None:
            return list(find_similar(candidate, answered.similar, answered.filter).hits)
        depth = max(len(answered.results), self._settings.k)
        asked = typed_query(query, answered.filter)
        return list(candidate.search([asked], depth).results[asked.id])

    def _tell(self, answered: Request, shadow: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._log.append({"time": now, "request_id": answered.request_id, "shadow": shadow})

    # -- following, and stopping -------------------------------------------------------------------

    def look(self) -> None:
        """Follow ROLLOUT, and stop what does harm.  Called from a thread, every second or so."""
        generations = self._searcher.generations
        try:
            rollout = generations.rollout()
        except Exception:
            self._rollout = self._candidate = None  # what nobody can guard does not answer
            raise
        if self._condemned and rollout == self._condemned[0]:
            self._end(*self._condemned)
            return
        changed = rollout != self._rollout
        if changed:
            self._candidate = None  # until the one that is tried now is open
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
        if changed:
            self._metrics.rollout.clear()
            self._metrics.rollout.labels(rollout.generation, rollout.mode).set(1)
        if rollout.mode == "shadow":
            self._candidate = candidate
            return
        why = self._harm(rollout, candidate)
        if why is None:
            self._candidate = candidate
            return
        self._condemned = rollout, why
        self._stopped = f"{rollout.generation} ({rollout.mode}) was stopped: {why}"
        _log.warning("%s", self._stopped)
        self._end(rollout, why)

    def _harm(self, rollout: Rollout, candidate: Served) -> str | None:
        """Why a candidate must not answer (any longer); a guard that cannot see is a reason as well."""
        try:
            if candidate is not self._candidate:  # before people meet it
                why = self._canary_queries(candidate)
                if why:
                    return why
            if time.monotonic() - self._guarded < _GUARD:
                return None
            self._guarded = time.monotonic()
            return self._guard(rollout)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody watches the candidate
            _log.exception("the guard of %s cannot see", rollout.generation)
            return f"its guard cannot see ({type(error).__name__}: {error})"[:500]

    def _guard(self, rollout: Rollout) -> str | None:
        """What the traffic log says so far.  Raises OSError where the log cannot be read or written."""
        if self._log.error:
            raise OSError(f"the traffic log cannot be written: {self._log.error}")
        skipped: list[str] = []
        since = read_time(rollout.since).date()
        requests = read_traffic(self._root / "traffic", since, skipped=skipped)
        self._metrics.skipped(len(skipped))
        self._outcomes = guard(requests, rollout, self._settings, datetime.now(UTC))
        harm: str | None = self._outcomes["harm"]
        return harm

    def _end(self, _: Rollout, why: str) -> None:
        """Take a condemned candidate out; raises where ROLLOUT cannot be removed, and is tried again then."""
        self._rollout = self._candidate = None
        self._searcher.generations.stop_rollout(why=why, who="guardrail")
        self._condemned = None
        self._metrics.rollout.clear()

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
