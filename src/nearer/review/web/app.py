"""The ASGI application of the review page.

It knows no cookies: the token comes with every request, in a header.  What it sends of a pair is
the query, the document and a name that tells nothing; no system, no rank, no reason.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from nearer.errors import ConfigError, NearerError
from nearer.live.web.limits import Bounds, Edge, protocol_of
from nearer.review.asking import Action, Asking
from nearer.review.judgments import (
    ASKED_TOGETHER,
    CANNOT_TELL,
    GRADE,
    MAX_COMMENT,
    PICK,
    SKIP,
    is_grade,
    is_number,
)
from nearer.review.reviewers import Expired, Reviewer
from nearer.review.web.page import html_of, page

_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_ARRIVAL = 10.0  # seconds for a request to arrive
_AT_ONCE = 64
_EVERY = 10  # judgments between two looks at how many more there should be
_LONGEST = 24 * 3600.0  # seconds that a pair can have been looked at
_log = logging.getLogger("nearer.review")

Handler = Callable[["Room", Reviewer, Request], Awaitable[Response]]


class RefusedError(Exception):
    """A request that is answered with a refusal."""

    def __init__(self, status: int, what: str, next_step: str | None = None) -> None:
        super().__init__(what)
        self.status, self.what, self.next_step = status, what, next_step


class Room:
    """The review as the page sees it, with what is costly to say kept for a while."""

    def __init__(self, review: Asking[Any]) -> None:
        self.review = review
        self._told: tuple[int, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def outlook(self) -> dict[str, Any]:
        """What all answers say so far, computed anew every few judgments."""
        count = len(self.review.log.judgments.by_id)
        with self._lock:
            if self._told is not None and self._told[0] // _EVERY == count // _EVERY:
                return self._told[1]
            told = self.review.outlook()
            self._told = (count, told)
            return told


def create_app(review: Asking[Any]) -> Starlette:
    """The application over one review, of pairs or of odd-one-out questions."""
    room = Room(review)
    routes = [
        Route("/", _page_for(review.answer), methods=["GET"]),
        Route("/api/next", _guarded(room, _next), methods=["GET"]),
        Route("/api/outlook", _guarded(room, _outlook), methods=["GET"]),
        Route("/api/judge", _guarded(room, _judge), methods=["POST"]),
        Route("/api/undo", _guarded(room, _undo), methods=["POST"]),
    ]
    size = review.project.settings.review.max_body
    bounds = Bounds(size=size, seconds=_ARRIVAL, waiting=_AT_ONCE, answering=_AT_ONCE)
    edge = Middleware(Edge, bounds=bounds, observe=_observed)
    return Starlette(routes=routes, middleware=[edge])


def server_of(review: Asking[Any]) -> Any:
    """The uvicorn server of the page; port 0 is any free one."""
    import uvicorn

    settings = review.project.settings.review
    values = uvicorn.Config(
        create_app(review),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        http=protocol_of(_ARRIVAL),
        server_header=False,
    )
    return uvicorn.Server(values)


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 is any free one.  Raises ConfigError where it cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family=family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"cannot listen on {address(host, port)}: {error.strerror or error}",
            where="review.host, review.port",
            next_step="nearer review serve --port 0 takes any free port",
        ) from None
    return bound


def address(host: str, port: int) -> str:
    """Host and port as they stand in a link."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _observed(method: str, path: str, status: int, seconds: float) -> None:
    """Log a request without its token, its query or its judgment."""
    known = path if path.startswith("/api/") and len(path) < 20 else "/"
    _log.info("%s %s %d %.1f ms", method, known, status, 1000 * seconds)


def _page_for(answer: str) -> Callable[[Request], Awaitable[Response]]:
    """The empty page; everything that is somebody's comes later, with the token."""

    async def empty_page(request: Request) -> Response:
        text, policy = page(answer)
        return HTMLResponse(text, headers=_headers(policy))

    return empty_page


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _guarded(room: Room, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler for reviewers only, whose refusals are said in one form."""

    async def answer(request: Request) -> Response:
        try:
            reviewer = _reviewer(room, request)
            response = await handler(room, reviewer, request)
        except RefusedError as error:
            response = _problem(error.status, error.what, error.next_step)
        except NearerError as error:
            response = _problem(409, error.what, error.next_step)
        except OSError as error:
            _log.error("not saved: %s", error)
            what = f"not saved: {error.strerror or error}"
            response = _problem(503, what, "make room or access, then send it again")
        response.headers["Cache-Control"] = "no-store"
        return response

    return answer


def _problem(status: int, what: str, next_step: str | None) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"what": what, "next": next_step}, status, headers)


def _reviewer(room: Room, request: Request) -> Reviewer:
    """Whose token the request carries.  Raises RefusedError."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = room.review.reviewers.of(token.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise RefusedError(401, "this is no token of a reviewer", "nearer review invite NAME")
    if isinstance(found, Expired):
        day = found.reviewer.expires.date().isoformat()
        again = f"nearer review invite {found.reviewer.name}"
        raise RefusedError(401, f"this token expired on {day}; what you judged is kept", again)
    return found


# -- what reviewers do -----------------------------------------------------------------------------


async def _next(room: Room, reviewer: Reviewer, request: Request) -> Response:
    """The pair to judge next."""
    return await asyncio.to_thread(_shown, room, reviewer)


def _shown(room: Room, reviewer: Reviewer) -> Response:
    review = room.review
    turn = review.turn(reviewer)
    pair, progress = turn.pair, turn.progress
    value: dict[str, Any] = {
        "reviewer": reviewer.name,
        "progress": {
            "done": progress.done,
            "open": progress.open,
            "own": progress.own,
            "minutes_left": progress.minutes_left,
        },
        "pair": None,
        "html": None,
        "adjudicate": turn.adjudicates,
        "can_undo": turn.can_undo,
    }
    if pair is not None:
        value["pair"] = review.desk.id_of(pair)
        value["html"] = html_of(pair, review.project.corpus)
    return JSONResponse(value)


async def _outlook(room: Room, reviewer: Reviewer, request: Request) -> Response:
    """How far reviewers agree, and how many more judgments there should be."""
    return JSONResponse(await asyncio.to_thread(room.outlook))


async def _judge(room: Room, reviewer: Reviewer, request: Request) -> Response:
    """Save one judgment; it is on the disk before the answer is sent."""
    values = await _body_by(reviewer, request)
    pair = room.review.desk.by_id.get(str(values.get("pair")))
    if pair is None:
        what = "this pair is not among those to judge"
        raise RefusedError(404, what, "reload the page: the pairs were chosen anew")
    action = _action(values, room.review.answer)
    await asyncio.to_thread(room.review.judge, reviewer, pair, action)
    return JSONResponse({"saved": action.id})


async def _undo(room: Room, reviewer: Reviewer, request: Request) -> Response:
    """Take back this reviewer's latest action."""
    values = await _body_by(reviewer, request)
    undone = await asyncio.to_thread(room.review.undo, reviewer, _id_of(values))
    if undone is None:
        raise RefusedError(409, "there is nothing to undo")
    return JSONResponse({"undone": undone.id})


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request.  Raises RefusedError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "the body must be JSON (Content-Type: application/json)")
    try:
        values = await request.json()
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not valid JSON") from None
    if not isinstance(values, dict):
        raise RefusedError(422, "the body must be a JSON object")
    return values


async def _body_by(reviewer: Reviewer, request: Request) -> Mapping[str, Any]:
    """The body of an action, which whoever sends it must have done.  Raises RefusedError.

    A page keeps what it could not send; somebody else's token may be entered there meanwhile.
    """
    values = await _body(request)
    by = values.get("by") or reviewer.name
    if by != reviewer.name:
        what = (
            f"the last judgment of {by!s:.64} could not be sent and is not yours: it was left out"
        )
        raise RefusedError(409, what, f"let {by!s:.64} judge it again")
    return values


def _id_of(values: Mapping[str, Any]) -> str:
    action_id = values.get("id")
    if not isinstance(action_id, str) or not _ID.fullmatch(action_id):
        raise RefusedError(422, "id must be 8 to 64 letters, digits and hyphens")
    return action_id


def _action(values: Mapping[str, Any], answer: str) -> Action:
    """What a body says; `answer` is the action that answers what is asked.  Raises RefusedError."""
    kind, grade, picked = values.get("action"), values.get("grade"), values.get("picked")
    known = (answer, CANNOT_TELL, SKIP)
    if kind not in known:
        raise RefusedError(422, f"action must be one of {', '.join(known)}")
    if kind == GRADE and not is_grade(grade):
        raise RefusedError(422, "grade must be 0, 1, 2 or 3")
    if kind == PICK and not (type(picked) is int and 1 <= picked <= ASKED_TOGETHER):
        raise RefusedError(422, "picked must be 1, 2 or 3")
    comment = values.get("comment", "")
    if not isinstance(comment, str) or len(comment) > MAX_COMMENT:
        raise RefusedError(422, f"comment must be text of at most {MAX_COMMENT} characters")
    seconds = values.get("seconds")
    timed = seconds is None or (is_number(seconds) and 0 <= seconds <= _LONGEST)
    if not timed:
        raise RefusedError(422, "seconds must be a number from 0 to 86,400")
    return Action(_id_of(values), str(kind), grade, comment.strip(), seconds, picked)
