"""The search service: one process, one active generation, and perhaps one that is tried beside it.

A query goes: limits → queue → batch → the pipeline that was judged → answer → traffic log.  What
is tried (shadow, interleaving, canary) hangs on `rollouts.py`; nothing there can fail an answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security.utils import get_authorization_scheme_param
from starlette.exceptions import HTTPException

from nearer import __version__, progress
from nearer.errors import NearerError, StoreError
from nearer.files import value_hash
from nearer.live.index.generations import Generations
from nearer.live.index.searcher import Searcher, Served
from nearer.live.traffic import log as traffic
from nearer.live.traffic.log import TrafficLog
from nearer.live.web import payloads
from nearer.live.web.batching import Ask, Batcher, QueueFullError
from nearer.live.web.dashboard import dashboard_page
from nearer.live.web.limits import Bounds, Edge, protocol_of
from nearer.live.web.metrics import Metrics
from nearer.live.web.process import JsonLines, Logged, raise_open_files
from nearer.live.web.refusals import in_words
from nearer.live.web.rollouts import Rollouts
from nearer.live.web.supervisor import Supervisor
from nearer.types import typed_query

ANSWERING = "answer queries"  # the one loop without which nothing is answered
_DRAIN = 20.0  # seconds that answers under way get at the end
_EMAIL = re.compile(r"\S+@\S+\.\S+")
_NUMBER = re.compile(r"\d[\d \-./]{4,}\d")
_log = logging.getLogger("nearer.serve")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What callers must bring as `Authorization: Bearer …`; None: nothing (admin: nobody may)."""

    admin: str | None = field(default=None, repr=False)
    search: str | None = field(default=None, repr=False)


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

    async def answer(self, asked: payloads.Search) -> payloads.Answer:
        """One query.  Raises QueueFullError, TimeoutError and NearerError."""
        return (await self.answers([asked]))[0]

    async def answers(self, asked: Sequence[payloads.Search]) -> list[payloads.Answer]:
        """Several queries, answered by the generation that is active now; where a candidate fails, the live one answers."""
        started, live = time.perf_counter(), self._live()
        ids = [one.request_id or uuid.uuid4().hex for one in asked]
        plans = [
            self.rollouts.plan(one.user or request_id)
            for one, request_id in zip(asked, ids, strict=True)
        ]
        asks = [
            Ask(typed_query(one.query, one.filter), one.k, plan.instead or live)
            for one, plan in zip(asked, plans, strict=True)
        ]
        beside = [place for place, plan in enumerate(plans) if plan.beside is not None]
        extra = [
            Ask(asks[place].query, asks[place].k, served)
            for place in beside
            if (served := plans[place].beside)
        ]
        try:
            found = await self.batcher.ask([*asks, *extra], self.settings.timeout)
        except TimeoutError as error:
            for one, request_id, ask, plan in zip(asked, ids, asks, plans, strict=True):
                self._logged(
                    one, request_id, ask.served, started, arm=plan.arm, error=_named(error)
                )
            raise
        second = dict(zip(beside, found[len(asks) :], strict=True))
        answers = []
        for place, (one, request_id, plan) in enumerate(zip(asked, ids, plans, strict=True)):
            hits, served, told = found[place], asks[place].served, {"arm": plan.arm}
            if isinstance(hits, BaseException) and plan.instead is not None:
                told["error"], served = _named(hits), live
                (hits,) = await self.batcher.ask(
                    [Ask(typed_query(one.query, one.filter), one.k, live)],
                    self.settings.timeout,
                )
            if isinstance(hits, StoreError):
                hits, served = await self._again(one, served, hits)
            if isinstance(hits, BaseException):
                self._logged(one, request_id, served, started, arm=plan.arm, error=_named(hits))
                raise hits
            teams, other = None, second.get(place)
            if isinstance(other, BaseException):
                told["error"] = _named(other)
            elif other is not None:
                hits, teams = self.rollouts.interleave(request_id, hits, other, one.k)
            line = self._logged(
                one, request_id, served, started, hits=tuple(hits), teams=teams, **told
            )
            self.metrics.answered(not hits)
            self.rollouts.after(line, one.query)
            answers.append(self._told(one, line, served))
        return answers

    async def _again(
        self, asked: payloads.Search, served: Served, error: StoreError
    ) -> tuple[Any, Served]:
        """One more try where another generation answers by now, as when the old one was dropped."""
        try:
            live = await asyncio.to_thread(self.searcher.refresh)
        except (NearerError, OSError):
            return error, served
        if live is served:
            return error, served
        ask = Ask(typed_query(asked.query, asked.filter), asked.k, live)
        (hits,) = await self.batcher.ask([ask], self.settings.timeout)
        return hits, live

    def _logged(
        self, asked: payloads.Search, request_id: str, served: Served, started: float, **more: Any
    ) -> traffic.Request:
        """The line of the traffic log about a request, on its way to the disk."""
        line = traffic.Request(
            time=datetime.now(UTC),
            request_id=request_id,
            query=redact(asked.query, self.settings.redact),
            generation=served.id,
            results=more.pop("hits", ()),
            latency_ms=1000 * (time.perf_counter() - started),
            filter=asked.filter,
            user=value_hash(asked.user)[:16]
            if asked.user
            else None,  # enough to count people by, nobody's name
            **more,
        )
        self.log.append(line.as_dict() | {"pipeline": served.identity})
        return line

    def _told(
        self, asked: payloads.Search, line: traffic.Request, served: Served
    ) -> payloads.Answer:
        results = traffic.ranked(line.results)
        if asked.text:
            rows = served.generation.store.fetch(
                served.manifest.space, [one["id"] for one in results]
            )
            texts = dict(
                zip(
                    reversed(rows.doc_ids),
                    zip(reversed(rows.texts), reversed(rows.metadata), strict=True),
                    strict=True,
                )
            )
            results = [
                one
                | dict(zip(("text", "metadata"), texts.get(one["id"], (None, None)), strict=True))
                for one in results
            ]
        return payloads.Answer(
            request_id=line.request_id,
            generation=served.id,
            pipeline=served.identity,
            latency_ms=round(line.latency_ms, 3),
            results=[payloads.Result(**one) for one in results],
        )

    def _live(self) -> Served:
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
    return query if how == "none" else _NUMBER.sub("<number>", _EMAIL.sub("<e-mail>", query))


# -- endpoints ------------------------------------------------------------------------------------


def create_app(service: Service) -> FastAPI:  # noqa: PLR0915 - the endpoints, one after another
    """The ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loops = [asyncio.create_task(loop) for loop in service.loops()]
        yield
        service.problem = "stopping"
        service.supervisor.stop()
        await service.batcher.drain(_DRAIN)
        for loop in loops:
            loop.cancel()
        service.batcher.close()
        await asyncio.to_thread(service.rollouts.close)
        await asyncio.to_thread(service.log.close)

    app = FastAPI(
        title="nearer",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={422: {"model": payloads.Problem}},
    )
    bounds = Bounds(
        size=service.settings.max_body,
        seconds=service.settings.body_timeout,
        waiting=4 * service.settings.queue,
        answering=4 * service.settings.queue,
    )
    app.add_middleware(Edge, bounds=bounds, observe=partial(_observed, service))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(
            payloads.Problem(what=str(error.detail)).model_dump(), error.status_code, error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        what = in_words(error.errors())
        return JSONResponse(payloads.Problem(what=what).model_dump(), 422)

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> JSONResponse:
        service.metrics.rejected.inc()
        return JSONResponse(
            payloads.Problem(what=error.what, next=error.next_step).model_dump(),
            503,
            {"Retry-After": "1"},
        )

    @app.exception_handler(TimeoutError)
    async def late(_: Request, __: TimeoutError) -> JSONResponse:
        what = f"no answer within {service.settings.timeout:g} s"
        return JSONResponse(payloads.Problem(what=what, next="try again").model_dump(), 504)

    @app.exception_handler(NearerError)
    async def mendable(_: Request, error: NearerError) -> JSONResponse:
        return JSONResponse(
            payloads.Problem(what=error.what, next=error.next_step).model_dump(), 409
        )

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:  # the server logs its traceback
        problem = payloads.Problem(
            what="the search failed", next="try again; the service's log says why"
        )
        return JSONResponse(problem.model_dump(), 503, {"Retry-After": "1"})

    searching = Depends(partial(_required, service.tokens.search, open_without=True))
    admin = Depends(partial(_required, service.tokens.admin, open_without=False))
    refusals: dict[int | str, Any] = {
        code: {"model": payloads.Problem} for code in (400, 401, 403, 409, 413, 503, 504)
    }

    @app.post(
        "/search", dependencies=[searching], responses=refusals, response_model_exclude_none=True
    )
    async def search(asked: payloads.Asked) -> payloads.Answer | payloads.Answers:
        """The best documents of a query, or of several."""
        queries = [asked] if isinstance(asked, payloads.Search) else asked.queries
        _within(len(queries), service.settings.max_batch, "queries a request")
        for one in queries:
            _within(one.k, service.settings.max_k, "results (k)")
            _within(len(one.query), service.settings.max_query, "characters a query")
        if isinstance(asked, payloads.Search):
            return await service.answer(asked)
        return payloads.Answers(answers=await service.answers(queries))

    @app.post("/feedback", dependencies=[searching], responses=refusals, status_code=202)
    async def feedback(told: payloads.Feedback) -> payloads.Accepted:
        """A click, dwell time, thumbs or conversion on a result."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        one = {"kind": told.kind, "id": told.id, "value": told.value, "time": now}
        service.log.append({"time": now, "request_id": told.request_id, "feedback": [one]})
        return payloads.Accepted()

    @app.get("/healthz")
    async def healthz() -> payloads.Accepted:
        """Is the process alive?"""
        return payloads.Accepted()

    @app.get("/readyz", responses={503: {"model": payloads.Problem}})
    async def readyz() -> payloads.Ready:
        """Can it answer?  Background loops that fail beside the answers are named in `problems`."""
        problems = service.supervisor.problems()
        if service.problem or ANSWERING in problems:
            raise HTTPException(503, service.problem or f"{ANSWERING}: {problems[ANSWERING]}")
        return payloads.Ready(problems=problems)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus."""
        service.metrics.now(service.batcher.depth, service.searcher.vectors.hits)
        return PlainTextResponse(service.metrics.text())

    @app.get("/dashboard", response_class=HTMLResponse, responses=refusals)
    async def dashboard(authorization: Annotated[str | None, Header()] = None) -> Response:
        """What answers, how well, and what is tried beside it."""
        if service.tokens.search and not _known(authorization, service.tokens.search):
            return PlainTextResponse(
                "a token is needed",
                401,
                {"WWW-Authenticate": 'Basic realm="nearer: the token as password"'},
            )
        text, policy = await asyncio.to_thread(
            dashboard_page, service.generations, service.rollouts.told()
        )
        return HTMLResponse(
            text, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        )

    @app.post("/admin/cutover", dependencies=[admin], responses=refusals)
    async def cutover(asked: payloads.Cutover) -> payloads.Moved:
        """Make a verified generation answer, once it is open here."""

        def move() -> Any:
            service.searcher.opened(asked.generation)
            pointer = service.generations.cutover(
                asked.generation, override=asked.override, who="dashboard"
            )
            service.searcher.refresh()
            return pointer

        pointer = await asyncio.to_thread(move)
        return payloads.Moved(active=pointer.id, previous=pointer.previous)

    @app.post("/admin/rollback", dependencies=[admin], responses=refusals)
    async def rollback(asked: payloads.Reason) -> payloads.Moved:
        """Make the generation before answer again."""

        def move() -> Any:
            pointer = service.generations.rollback(why=asked.why, who="dashboard")
            service.searcher.refresh()
            return pointer

        pointer = await asyncio.to_thread(move)
        return payloads.Moved(active=pointer.id, previous=pointer.previous)

    return app


def _within(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise HTTPException(413, f"at most {limit} {what}, got {found}")


def _required(
    token: str | None, authorization: Annotated[str | None, Header()] = None, *, open_without: bool
) -> None:
    """Refuse callers without the token; without one configured, search is open and admin is closed."""
    if token is None:
        if not open_without:
            raise HTTPException(
                403, "no admin token is set: start the service with NEARER_ADMIN_TOKEN"
            )
    elif not _known(authorization, token):
        raise HTTPException(401, "a token is needed", {"WWW-Authenticate": "Bearer"})


def _known(authorization: str | None, token: str) -> bool:
    """Whether a header carries the token, as Bearer, or as the password of Basic (what a browser asks for)."""
    scheme, given = get_authorization_scheme_param(authorization)
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    return hmac.compare_digest(given.encode(), token.encode())


def _observed(service: Service, method: str, path: str, status: int, seconds: float) -> None:
    """Count and time a request, and log it without its query, its body or its token."""
    route = path if path in _PATHS else "other"
    service.metrics.observed(route, status, seconds)
    _log.info("%s %s", method, route, extra={"status": status, "ms": round(1000 * seconds, 2)})


_PATHS = frozenset(
    (
        "/search",
        "/feedback",
        "/healthz",
        "/readyz",
        "/metrics",
        "/dashboard",
        "/admin/cutover",
        "/admin/rollback",
        "/openapi.json",
    )
)


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
        timeout_graceful_shutdown=int(_DRAIN) + 5,
        timeout_keep_alive=30,
        http=protocol_of(service.settings.body_timeout),
        server_header=False,
    )
    return uvicorn.Server(settings)
