"""The edge of the service: requests arrive whole, in bounded size and time, before anything is done for them.

`Edge` bounds bodies, `BoundedProtocol` the heads before them.  What has not arrived yet takes no
place among the requests that are answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

Observer = Callable[[str, str, int, float], None]  # method, path, status, seconds

_LINGER = 1.0  # seconds in which a refused client may go on sending, so that it reads the refusal


@dataclass(frozen=True, slots=True)
class Bounds:
    """`size` bytes of a body, `seconds` for all of it, `waiting` bodies on their way, `answering` requests."""

    size: int
    seconds: float
    waiting: int
    answering: int


class _RefusedError(Exception):
    """A request that is answered here."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status, self.what = status, what


class Edge:
    """Hands the application whole requests.

    Answers 413 to bodies that are too large, 408 to those that take too long, and 503 beyond the
    number that may be answered at once.  Where too many are on their way, the one that has been on
    its way longest gives up its place.  Calls `observe` once per request, for metrics.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds, observe: Observer) -> None:
        self._app, self._bounds, self._observe = app, bounds, observe
        self._arriving: dict[asyncio.Timeout, None] = {}  # oldest first
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._whole(scope, receive, noted)
        except _RefusedError as refusal:
            await _refuse(refusal, scope, receive, noted)
        finally:
            self._observe(scope["method"], scope["path"], status, time.perf_counter() - started)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await self._arrived(scope, receive)
        if first is None:  # the client has gone
            return
        if self._answering >= self._bounds.answering:
            raise _RefusedError(503, "too many requests are being answered")
        waiting: list[Message] = [first]

        async def replayed() -> Message:
            return waiting.pop() if waiting else await receive()

        self._answering += 1
        try:
            await self._app(scope, replayed, send)
        finally:
            self._answering -= 1

    async def _arrived(self, scope: Scope, receive: Receive) -> Message | None:
        """The request with its whole body, None when the client left.  Raises _RefusedError."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._bounds.size:
            raise self._too_large()
        deadline = asyncio.timeout(self._bounds.seconds)
        try:
            async with deadline:
                self._arriving[deadline] = None
                self._make_room()
                return await self._body(receive)
        except TimeoutError:
            what = f"the request did not arrive within {self._bounds.seconds:g} s"
            raise _RefusedError(408, what) from None
        finally:
            self._arriving.pop(deadline, None)

    async def _body(self, receive: Receive) -> Message | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._bounds.size:
                raise self._too_large()
            if not message.get("more_body", False):
                return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _make_room(self) -> None:
        if len(self._arriving) > self._bounds.waiting:
            oldest = next(iter(self._arriving))
            del self._arriving[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())

    def _too_large(self) -> _RefusedError:
        return _RefusedError(413, f"a body has at most {self._bounds.size} bytes")


async def _refuse(refusal: _RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, and close the connection: what the client still sends would be taken for its next request.

    The last event is held back for a moment while the rest is thrown away: a connection closed on
    unread bytes is reset, and a client may then never see the answer.
    """
    headers = {"connection": "close"}
    if refusal.status == 503:
        headers["retry-after"] = "1"
    response = JSONResponse({"what": refusal.what, "next": None}, refusal.status, headers)
    start = {"type": "http.response.start", "status": refusal.status}
    await send(start | {"headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    if refusal.status != 408:
        await _thrown_away(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _thrown_away(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER):
            while True:
                message = await receive()
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, with a limit to the time in which the head of a request must arrive.

    uvicorn waits for a head that has begun, or never begins, for ever.
    """

    #: Seconds, set by `protocol_of`.
    head_seconds: float = 5.0

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()  # the clock of a head that has begun goes on
        else:
            self._head_arrived()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await_head()  # the next request began behind this one, and is not whole

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self.transport.close)

    def _head_arrived(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def protocol_of(seconds: float) -> type[BoundedProtocol]:
    """The protocol of a service whose requests have `seconds` to arrive."""
    return type("Protocol", (BoundedProtocol,), {"head_seconds": seconds})
