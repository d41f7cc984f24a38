"""The search service: one process, one active generation, and perhaps one that is tried beside it.

A query goes: limits → queue → batch → the pipeline that was judged → answer → traffic log.  What
is tried (shadow, interleaving, canary) hangs on `rollouts.py`; nothing there can fail an answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException

from nearer import progress
from nearer.errors import NearerError, StoreError
from nearer.files import value_hash
from nearer.live.index.generations import Generations
from nearer.live.index.searcher import Searcher, Served
from nearer.live.traffic import log as traffic
from nearer.live.traffic.log import TrafficLog
from nearer.live.web import payloads
from nearer.live.web.access import Tokens
from nearer.live.web.app import ANSWERING, DRAIN, create_app
from nearer.live.web.batching import Ask, Batcher
from nearer.live.web.limits import protocol_of
from nearer.live.web.metrics import Metrics
from nearer.live.web.process import JsonLines, Logged, raise_open_files
from nearer.live.web.rollouts import Plan, Rollouts
from nearer.live.web.supervisor import Supervisor
from nearer.types import typed_query

_EMAIL = re.compile(r"\S+@\S+\.\S+")
_NUMBER = re.compile(r"\d[\d \-./]{4,}\d")


@dataclass(slots=True)
class _Pending:
    """A query on its way: how it is answered, and what a candidate beside found or raised."""

    asked: payloads.Search
    request_id: str
    plan: Plan
    served: Served
    started: float = field(default_factory=time.perf_counter)
    beside: Any = None

    def ask(self, served: Served) -> Ask:
        return Ask(typed_query(self.asked.query, self.asked.filter), self.asked.k, served)


class Service:
    """Everything behind the endpoints."""

    def __init__(self, generations: Generations, tokens: Tokens) -> None:
        self.generations, self.settings, self.tokens = generations, generations.config.serve, tokens
        self.metrics = Metrics()
        self.searcher = Searcher(generations, waiting=False)
        self.batcher = Batcher(self.settings.queue, self.settings.batch)
        self.log = TrafficLog(generations.root / "traffic")
        self.supervisor = Supervisor(self.metrics)
        self.rollouts = Rollouts(
            self.searcher,
            self.log,
            self.metrics,
            generations.root,
            busy=lambda: self.batcher.depth > 0,
            supervisor=self.supervisor,
        )
        self.problem = "starting"  # why it is not ready; empty when it is

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Everything that runs beside the requests, for the event loop; each goes on whatever happens in it."""
        seconds, supervisor = self.settings.refresh, self.supervisor
        return [
            supervisor.keep(ANSWERING, self.batcher.run),
            supervisor.every("follow ACTIVE", seconds, self.follow),
            supervisor.every("follow ROLLOUT", seconds, self.rollouts.look),
            supervisor.every("watch the traffic log", seconds, self.watch_log),
        ]

    def follow(self) -> None:
        """Follow ACTIVE.  What cannot be opened raises, and the generation that is open goes on answering."""
        try:
            served = self.searcher.refresh()
        except Exception as error:
            nothing_open = self.searcher._current is None
            if nothing_open and isinstance(error, NearerError):
                self.problem = str(error)
            elif nothing_open:
                self.problem = f"the active generation cannot be opened: {_named(error)}"
            raise
        self.problem = ""
        self.metrics.serving(served)

    def watch_log(self) -> None:
        """Count what the traffic log lost.  Raises OSError while it cannot be written."""
        self.metrics.log_state(self.log.lost, self.log.error)
        if self.log.error:
            raise OSError(f"the traffic log cannot be written: {self.log.error}")

    async def answers(self, asked: Sequence[payloads.Search]) -> list[payloads.Answer]:
        """Several queries, answered by the generation that is active now; where a candidate fails, the live one answers.

        Raises QueueFullError, TimeoutError and NearerError.
        """
        live = self.live()
        pending = [self._pending(query, live) for query in asked]
        asks = [query.ask(query.served) for query in pending]
        beside = []
        for query in pending:
            if query.plan.beside is not None:
                beside.append(query)
                asks.append(query.ask(query.plan.beside))
        try:
            results = await self.batcher.ask(asks, self.settings.timeout)
        except TimeoutError as error:
            for query in pending:
                self._logged(query, query.served, arm=query.plan.arm, error=_named(error))
            raise
        for query, results_beside in zip(beside, results[len(pending) :], strict=True):
            query.beside = results_beside
        answers = []
        for query, hits in zip(pending, results, strict=False):
            answers.append(await self._answered(query, hits, live))
        return answers

    def _pending(self, asked: payloads.Search, live: Served) -> _Pending:
        request_id = asked.request_id or uuid.uuid4().hex
        plan = self.rollouts.plan(asked.user or request_id)
        return _Pending(asked, request_id, plan, plan.instead or live)

    async def _answered(self, query: _Pending, hits: Any, live: Served) -> payloads.Answer:
        """The answer to a query, logged, out of what its generation found or raised."""
        served, notes = query.served, {"arm": query.plan.arm}
        if isinstance(hits, BaseException) and query.plan.instead is not None:
            notes["error"], served = _named(hits), live
            (hits,) = await self.batcher.ask([query.ask(live)], self.settings.timeout)
        if isinstance(hits, StoreError):
            hits, served = await self._again(query, served, hits)
        if isinstance(hits, BaseException):
            self._logged(query, served, arm=query.plan.arm, error=_named(hits))
            raise hits
        teams = None
        if isinstance(query.beside, BaseException):
            notes["error"] = _named(query.beside)
        elif query.beside is not None:
            hits, teams = self.rollouts.interleave(
                query.request_id, hits, query.beside, query.asked.k
            )
        line = self._logged(query, served, hits=tuple(hits), teams=teams, **notes)
        self.metrics.answered(not hits)
        self.rollouts.after(line, query.asked.query)
        return self.payload(query.asked.text, line, served)

    async def _again(
        self, query: _Pending, served: Served, error: StoreError
    ) -> tuple[Any, Served]:
        """One more try where another generation answers by now, as when the old one was dropped."""
        try:
            live = await asyncio.to_thread(self.searcher.refresh)
        except (NearerError, OSError):
            return error, served
        if live is served:
            return error, served
        (hits,) = await self.batcher.ask([query.ask(live)], self.settings.timeout)
        return hits, live

    def _logged(self, query: _Pending, served: Served, **more: Any) -> traffic.Request:
        """The line of the traffic log about a request, on its way to the disk."""
        asked = query.asked
        user = None
        if asked.user:  # enough to count people by, nobody's name
            user = value_hash(asked.user)[:16]
        line = traffic.Request(
            time=datetime.now(UTC),
            request_id=query.request_id,
            query=self.redacted(asked.query),
            generation=served.id,
            results=more.pop("hits", ()),
            latency_ms=1000 * (time.perf_counter() - query.started),
            filter=asked.filter,
            user=user,
            **more,
        )
        self.log.append(line.as_dict() | {"pipeline": served.identity})
        return line

    def redacted(self, query: str) -> str:
        """A query as the log may keep it."""
        return redact(query, self.settings.redact)

    def payload(self, with_text: bool, line: traffic.Request, served: Served) -> payloads.Answer:
        """What the caller gets, with texts and metadata where they were asked for."""
        results = traffic.ranked(line.results)
        if with_text:
            ids = [hit["id"] for hit in results]
            rows = served.generation.store.fetch(served.manifest.space, ids)
            contents: dict[str, dict[str, Any]] = {}
            for doc_id, text, metadata in zip(
                rows.doc_ids, rows.texts, rows.metadata, strict=True
            ):  # of a document's chunks, the first
                contents.setdefault(doc_id, {"text": text, "metadata": metadata})
            nothing = {"text": None, "metadata": None}
            results = [hit | contents.get(hit["id"], nothing) for hit in results]
        return payloads.Answer(
            request_id=line.request_id,
            generation=served.id,
            pipeline=served.identity,
            latency_ms=round(line.latency_ms, 3),
            results=[payloads.Result(**hit) for hit in results],
        )

    def live(self) -> Served:
        """What answers now.  Raises HTTPException (503) where nothing does."""
        if self.searcher._current is None:
            raise HTTPException(
                503, self.problem or "no generation is active", {"Retry-After": "5"}
            )
        return self.searcher._current


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def redact(query: str, how: str) -> str:
    """A query as the log may keep it."""
    if how == "all":
        return ""
    if how == "none":
        return query
    return _NUMBER.sub("<number>", _EMAIL.sub("<e-mail>", query))


def run(generations: Generations, tokens: Tokens) -> None:
    """Run until SIGTERM or Ctrl-C; answers under way are finished."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("nearer", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    raise_open_files()
    service = Service(generations, tokens)
    service.searcher.refresh()  # what cannot be served is said at once, before a port is taken
    service.problem = ""
    with progress.listen(Logged()):  # warnings of the library go where the service's own go
        server_of(service, service.settings.port).run()


def server_of(service: Service, port: int) -> Any:
    """The uvicorn server of a service; port 0 is any free one."""
    import uvicorn

    settings = uvicorn.Config(
        create_app(service),
        host=service.settings.host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(DRAIN) + 5,
        timeout_keep_alive=30,
        http=protocol_of(service.settings.body_timeout),
        server_header=False,
    )
    return uvicorn.Server(settings)
