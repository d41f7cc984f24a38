"""Vectors from an OpenAI-compatible `/embeddings` endpoint.

POST `{"model", "input": [text, …], "dimensions"?}` → `{"data": [{"index", "embedding"}, …],
"usage": {"total_tokens"}}`, as OpenAI, and servers such as vLLM, TEI, Ollama and llama.cpp speak it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import numpy as np

from nearer import progress
from nearer.embed.base import Embedded, EncoderSpec, Kind
from nearer.errors import ConfigError, ModelError

#: Environment variable with the token; without it requests carry none.
TOKEN = "NEARER_EMBEDDINGS_TOKEN"  # noqa: S105 - the name of the variable
TRIES = 6
FIRST_WAIT = 0.5  # seconds; doubled from try to try
PATIENCE = 60.0  # seconds that an endpoint may ask to wait
_LARGEST = 512 * 2**20  # bytes of one answer


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a try failed, whether another may succeed, and the seconds to wait where the endpoint says so."""

    problem: str
    passing: bool = False
    wait: float | None = None
    next_step: str = (
        "see that the endpoint is up, then run the same command again; what was paid for is kept"
    )


class _FailedError(Exception):
    def __init__(self, failure: _Failure) -> None:
        super().__init__(failure.problem)
        self.failure = failure


class EndpointEmbedder:
    """Embedder over one model behind an endpoint.

    429 and 5xx answers, timeouts and broken connections are tried again, at most `TRIES` times in
    all, after waits that double; `Retry-After` is honoured up to `PATIENCE`.  The token, and the
    query string of the address, never appear in a message.  Raises ConfigError for an address or a
    token that cannot be used, ModelError for whatever comes back.
    """

    similarity = "cosine"
    tells_kinds_apart = False

    def __init__(
        self,
        model: str,
        url: str,
        *,
        token: str = "",
        dimension: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        import httpx

        address = _address(url)
        self.identity = model
        self.place = str(address.host)
        self.name = f"{model} at {self.place}"
        self._where = f"{address.scheme}://{address.netloc.decode()}{address.path}"
        self._url, self._token, self._timeout = address, _usable(token), timeout
        self._fixed: dict[str, Any] = {"model": model}
        if dimension is not None:
            self._fixed["dimensions"] = dimension
        headers = {"User-Agent": "nearer"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)

    @classmethod
    def from_spec(cls, spec: EncoderSpec) -> EndpointEmbedder:
        """From `openai:MODEL`, `model.url` and the environment.  Raises ConfigError."""
        settings = spec.settings
        if not spec.argument:
            raise ConfigError(
                f"{spec.text} names no model",
                where="model.name",
                next_step="for example openai:text-embedding-3-small",
            )
        if not settings.url:
            raise ConfigError(
                f"nothing says where {spec.text} is",
                where="model.url",
                next_step="set model.url, for example to https://api.openai.com/v1 or http://localhost:8000/v1",
            )
        return cls(
            spec.argument,
            settings.url,
            token=os.environ.get(TOKEN, ""),
            dimension=settings.dimension,
            timeout=settings.timeout,
        )

    def encode(self, texts: Sequence[str], kind: Kind) -> Embedded:
        """Vectors (n_texts, dimension) in the order of `texts`, from one request."""
        # A lone surrogate is no text: it is sent as a question mark.
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        body = json.dumps({**self._fixed, "input": whole}).encode()
        answer = self._answer(body)
        try:
            values = json.loads(answer)
            rows = [(row["index"], row["embedding"]) for row in values["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._refuse(f"answered {self._shown(answer)!r}, which holds no embeddings")
        ordered = dict(rows)
        if len(rows) != len(texts) or set(ordered) != set(range(len(texts))):
            self._refuse(f"gave {len(rows)} vectors for {len(texts)} texts, or not one for each")
        vectors = self._array([ordered[row] for row in range(len(texts))])
        return Embedded(vectors, _tokens(values))

    def _array(self, rows: list[Any]) -> np.ndarray:
        """float64 (n, dimension).  Raises ModelError for anything but lists of equally many numbers."""
        for row in rows:
            if not isinstance(row, list) or not all(type(value) in (int, float) for value in row):
                self._refuse("gave a vector that is no list of numbers")
        if len({len(row) for row in rows}) > 1:
            self._refuse("gave vectors of different dimensions in one answer")
        try:
            return np.array(rows, np.float64)
        except OverflowError:
            self._refuse("gave a number that no vector holds")

    # -- asking --------------------------------------------------------------------------------

    def _answer(self, body: bytes) -> bytes:
        """What the endpoint answers, at most `TRIES` times asked."""
        backoff = FIRST_WAIT
        tried = 1
        while True:
            try:
                return self._ask(body)
            except _FailedError as error:
                failure = error.failure
            wait = backoff if failure.wait is None else failure.wait
            if not failure.passing or tried == TRIES or wait > PATIENCE:
                break
            progress.info(f"{self._where} {failure.problem}: trying again in {wait:.3g} s")
            time.sleep(wait)
            backoff *= 2
            tried += 1
        problem = failure.problem
        if failure.passing and wait > PATIENCE:
            problem += f" and asks to wait for {wait:.0f} s"
        elif tried > 1:
            problem += f" ({tried} tries)"
        self._refuse(problem, failure.next_step)

    def _ask(self, body: bytes) -> bytes:
        """One try.  Raises _FailedError."""
        import httpx

        deadline = time.monotonic() + self._timeout
        headers = {"Content-Type": "application/json"}
        answer = bytearray()
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                for chunk in response.iter_bytes():
                    answer += chunk
                    if len(answer) > _LARGEST:
                        raise _FailedError(_Failure("gave an endless answer"))
                    if time.monotonic() > deadline:  # httpx's limit starts anew with every packet
                        raise httpx.ReadTimeout("")
        except httpx.TimeoutException:
            problem = f"did not answer within {self._timeout:g} s"
            raise _FailedError(_Failure(problem, passing=True)) from None
        except httpx.TransportError as error:
            problem = f"is not reached ({type(error).__name__}: {self._scrubbed(str(error))})"
            raise _FailedError(_Failure(problem, passing=True)) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            problem = f"answered what is no HTTP ({type(error).__name__})"
            raise _FailedError(_Failure(problem)) from None
        if response.status_code != 200:
            raise _FailedError(self._failure(response, bytes(answer)))
        return bytes(answer)

    def _failure(self, response: Any, answer: bytes) -> _Failure:
        status = response.status_code
        problem = f"answered {status}"
        if status == 429 or status >= 500:
            return _Failure(problem, True, _seconds_to_wait(response.headers.get("Retry-After")))
        problem += f": {self._shown(answer)}"
        if status in (401, 403):
            return _Failure(problem, next_step=f"set the environment variable {TOKEN}")
        if status == 404 or status < 400:
            return _Failure(problem, next_step="correct model.url, or the model of model.name")
        return _Failure(
            problem,
            next_step="see the message; model.max_characters cuts long texts, "
            "model.batch_texts and model.batch_characters make requests smaller",
        )

    def _refuse(self, problem: str, next_step: str = "") -> NoReturn:
        raise ModelError(
            f"the endpoint {problem}",
            where=self._where,
            next_step=next_step or "see that model.url and model.name are right",
        )

    def _shown(self, answer: bytes) -> str:
        """The beginning of an answer, for a message."""
        text = answer[:4000].decode("utf-8", "replace")
        return " ".join(self._scrubbed(text).split())[:200]

    def _scrubbed(self, text: str) -> str:
        """Servers repeat tokens in their messages."""
        return text.replace(self._token, "…") if self._token else text


def _tokens(values: Any) -> int | None:
    """What was counted, where the endpoint says it."""
    usage = values.get("usage")
    if not isinstance(usage, dict):
        return None
    tokens = usage.get("total_tokens", usage.get("prompt_tokens"))
    return tokens if type(tokens) is int and tokens >= 0 else None


def _address(url: str) -> Any:
    """The address of `/embeddings` below `url`.  Raises ConfigError."""
    import httpx

    try:
        address = httpx.URL(url.strip())
        usable = address.scheme in ("http", "https") and bool(address.host)
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise ConfigError(
            "not an http or https address",
            where="model.url",
            next_step="for example https://api.openai.com/v1",
        )
    if address.userinfo:
        raise ConfigError(
            "the address holds a user name or password",
            where="model.url",
            next_step=f"put the token into the environment variable {TOKEN}",
        )
    path = address.path.rstrip("/")
    if not path.endswith("/embeddings"):
        path += "/embeddings"
    return address.copy_with(path=path)


def _usable(token: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            "the token holds characters that no header takes",
            where=f"environment variable {TOKEN}",
            next_step=f"set {TOKEN} to the token alone",
        )
    return token


def _seconds_to_wait(header: str | None) -> float | None:
    """`Retry-After` as seconds; it is a number or a date (RFC 9110, 10.2.3)."""
    text = (header or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)
