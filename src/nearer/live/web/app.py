"""The ASGI application: every endpoint of the service, and what a failure is answered with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from nearer import __version__
from nearer.errors import NearerError
from nearer.live.web import payloads, similar
from nearer.live.web.access import carries, needs_token
from nearer.live.web.batching import QueueFullError
from nearer.live.web.dashboard import dashboard_page
from nearer.live.web.limits import Bounds, Edge
from nearer.live.web.refusals import in_words

if TYPE_CHECKING:
    from nearer.live.web.service import Service

ANSWERING = "answer queries"  # the one loop without which nothing is answered
#: Seconds that answers under way get at the end.
DRAIN = 20.0
_REFUSALS: dict[int | str, Any] = {
    code: {"model": payloads.Problem} for code in (400, 401, 403, 409, 413, 503, 504)
}
_log = logging.getLogger("nearer.serve")


def create_app(service: Service) -> FastAPI:
    """The ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loops = [asyncio.create_task(loop) for loop in service.loops()]
        yield
        service.problem = "stopping"
        service.supervisor.stop()
        await service.batcher.drain(DRAIN)
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
    _answer_failures(app, service)
    for routes in (_searching, similar.routes, _health, _watching, _administration):
        app.include_router(routes(service))
    return app


def _answer_failures(app: FastAPI, service: Service) -> None:
    """What each kind of failure is answered with."""

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


# -- endpoints ------------------------------------------------------------------------------------


def _searching(service: Service) -> APIRouter:
    router = APIRouter()
    allowed = needs_token(service.tokens.search, open_without=True)

    @router.post(
        "/search", dependencies=[allowed], responses=_REFUSALS, response_model_exclude_none=True
    )
    async def search(asked: payloads.Asked) -> payloads.Answer | payloads.Answers:
        """The best documents of a query, or of several."""
        single = isinstance(asked, payloads.Search)
        queries = [asked] if isinstance(asked, payloads.Search) else asked.queries
        limits = service.settings
        _within(len(queries), limits.max_batch, "queries a request")
        for query in queries:
            _within(query.k, limits.max_k, "results (k)")
            _within(len(query.query), limits.max_query, "characters a query")
        answers = await service.answers(queries)
        return answers[0] if single else payloads.Answers(answers=answers)

    @router.post("/feedback", dependencies=[allowed], responses=_REFUSALS, status_code=202)
    async def feedback(told: payloads.Feedback) -> payloads.Accepted:
        """A click, dwell time, thumbs or conversion on a result."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {"kind": told.kind, "id": told.id, "value": told.value, "time": now}
        service.log.append({"time": now, "request_id": told.request_id, "feedback": [event]})
        return payloads.Accepted()

    return router


def _health(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> payloads.Accepted:
        """Is the process alive?"""
        return payloads.Accepted()

    @router.get("/readyz", responses={503: {"model": payloads.Problem}})
    async def readyz() -> payloads.Ready:
        """Can it answer?  Background loops that fail beside the answers are named in `problems`."""
        problems = service.supervisor.problems()
        if service.problem or ANSWERING in problems:
            raise HTTPException(503, service.problem or f"{ANSWERING}: {problems[ANSWERING]}")
        return payloads.Ready(problems=problems)

    return router


def _watching(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus."""
        service.metrics.now(service.batcher.depth, service.searcher.vectors.hits)
        return PlainTextResponse(service.metrics.text())

    @router.get("/dashboard", response_class=HTMLResponse, responses=_REFUSALS)
    async def dashboard(authorization: Annotated[str | None, Header()] = None) -> Response:
        """What answers, how well, and what is tried beside it."""
        if service.tokens.search and not carries(authorization, service.tokens.search):
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

    return router


def _administration(service: Service) -> APIRouter:
    router = APIRouter()
    allowed = needs_token(service.tokens.admin, open_without=False)

    @router.post("/admin/cutover", dependencies=[allowed], responses=_REFUSALS)
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

    @router.post("/admin/rollback", dependencies=[allowed], responses=_REFUSALS)
    async def rollback(asked: payloads.Reason) -> payloads.Moved:
        """Make the generation before answer again."""

        def move() -> Any:
            pointer = service.generations.rollback(why=asked.why, who="dashboard")
            service.searcher.refresh()
            return pointer

        pointer = await asyncio.to_thread(move)
        return payloads.Moved(active=pointer.id, previous=pointer.previous)

    return router


def _within(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise HTTPException(413, f"at most {limit} {what}, got {number}")


def _observed(service: Service, method: str, path: str, status: int, seconds: float) -> None:
    """Count and time a request, and log it without its query, its body or its token."""
    route = path if path in _PATHS else "other"
    service.metrics.observed(route, status, seconds)
    _log.info("%s %s", method, route, extra={"status": status, "ms": round(1000 * seconds, 2)})


_PATHS = frozenset(
    (
        "/search",
        "/similar",
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
