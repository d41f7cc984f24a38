"""The edge of the service: bodies are bounded, declared or streamed, and every request is told to whoever counts."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Observer = Callable[[str, str, int, float], None]  # method, path, status, seconds


class Edge:
    """Answers 413 to bodies of more than `size` bytes, without holding more of them than that."""

    def __init__(self, app: ASGIApp, size: int, observe: Observer) -> None:
        self._app, self._size, self._observe = app, size, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, seen, status = time.perf_counter(), 0, 500
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = HTTPException(413, f"a body has at most {self._size} bytes")

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._size:
                raise refusal
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if declared.isdigit() and int(declared) > self._size:
                await JSONResponse({"what": refusal.detail, "next": None}, 413)(
                    scope, receive, noted
                )
            else:
                await self._app(scope, bounded, noted)
        finally:
            self._observe(scope["method"], scope["path"], status, time.perf_counter() - started)
