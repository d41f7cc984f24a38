"""A stand-in for an OpenAI-compatible `/embeddings` endpoint: counts, throttles, fails, answers rubbish."""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

#: What a scripted answer is: a status, headers, and a body (or what makes it out of the usual one).
Answer = tuple[int, dict[str, str], Any]


@cache
def _direction(word: str, dimension: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(word.encode())])
    direction: np.ndarray = rng.normal(size=dimension)
    return direction


def vector(text: str, dimension: int, seed: int = 0) -> list[float]:
    """A vector that texts of equal words share: a random direction per word, added up."""
    total = np.zeros(dimension)
    for word in text.lower().split() or [""]:
        total += _direction(word, dimension, seed)
    return [round(float(value), 6) for value in total]


@dataclass
class StandIn:
    """The endpoint, as tests see it.  `script` holds what the next requests are answered instead."""

    dimension: int = 24
    seed: int = 0  # another one is another model behind the same name
    token: str | None = None
    script: list[Answer | Callable[[dict[str, Any]], Answer]] = field(default_factory=list)
    before: Callable[[int], None] | None = None  # called with the number of each request
    url: str = ""
    requests: list[list[str]] = field(default_factory=list)  # the texts of each that was answered
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    @property
    def tokens(self) -> int:
        """What was charged: the words of every text that was answered."""
        return sum(len(text.split()) for texts in self.requests for text in texts)

    @property
    def texts(self) -> Counter[str]:
        """How often each text was answered."""
        return Counter(text for texts in self.requests for text in texts)

    def usual(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = body["input"]
        dimension = body.get("dimensions") or self.dimension
        data = [
            {"object": "embedding", "index": row, "embedding": vector(text, dimension, self.seed)}
            for row, text in enumerate(texts)
        ]
        return {"data": data, "usage": {"total_tokens": sum(len(t.split()) for t in texts)}}

    def answer(self, body: dict[str, Any], authorization: str) -> Answer:
        self.asked += 1
        self.bodies.append(body)
        if self.before is not None:
            self.before(self.asked)
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, {}, {"error": {"message": f"wrong key: {authorization}"}}
        if self.script:
            scripted = self.script.pop(0)
            return scripted if isinstance(scripted, tuple) else scripted(body)
        self.requests.append(body["input"])
        return 200, {}, self.usual(body)


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """Serve it on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, content = stand_in.answer(
                body, self.headers.get("Authorization") or ""
            )
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def times(script: Answer, count: int) -> Sequence[Answer]:
    return [script] * count
