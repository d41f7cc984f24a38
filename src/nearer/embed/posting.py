"""Posts JSON to an endpoint outside: tries again where that may help, never shows the token.

What the seams over an endpoint share: encoders (`endpoint.py`) and language models (`nearer.rag`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from nearer import progress
from nearer.errors import ConfigError, ModelError

TRIES = 6
FIRST_WAIT = 0.5  # seconds; doubled from try to try
PATIENCE = 60.0  # seconds that an endpoint may ask to wait
_SHORTEST_SECRET = 8  # characters; shorter values of a query string are names and versions
_LARGEST = 512 * 2**20  # bytes of one answer


@dataclass(frozen=True, slots=True)
class Wording:
    """Where an endpoint is, and what its messages name: settings and an environment variable."""

    path: str  # below the address of the setting
    url: str  # the setting with the address
    model: str  # the setting with the model
    token: str  # the environment variable with the token
    smaller: str  # what makes requests smaller


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


class Endpoint:
    """One address that takes JSON.

    429 and 5xx answers, timeouts and broken connections are tried again, at most `TRIES` times in
    all, after waits that double; `Retry-After` is honoured up to `PATIENCE`.  The token, and the
    query string of the address, never appear in a message.  Raises ConfigError for an address or a
    token that cannot be used.
    """

    def __init__(
        self, url: str, wording: Wording, *, token: str = "", timeout: float = 60.0
    ) -> None:
        import httpx

        address = _address(url, wording)
        self.place = str(address.host)
        self._wording = wording
        #: The address as messages show it: without its query string, which may hold secrets.
        self.where = f"{address.scheme}://{address.netloc.decode()}{address.path}"
        self._url, self._token, self._timeout = address, _usable(token, wording), timeout
        in_query = [value for value in address.params.values() if len(value) >= _SHORTEST_SECRET]
        #: What no message shows, the longest first: one may be a part of another.
        self._secrets = sorted(filter(None, [self._token, *in_query]), key=len, reverse=True)
        headers = {"User-Agent": "nearer"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)

    def post(self, body: bytes) -> bytes:
        """What the endpoint answers, at most `TRIES` times asked.  Raises ModelError."""
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
            progress.info(f"{self.where} {failure.problem}: trying again in {wait:.3g} s")
            time.sleep(wait)
            backoff *= 2
            tried += 1
        problem = failure.problem
        if failure.passing and wait > PATIENCE:
            problem += f" and asks to wait for {wait:.0f} s"
        elif tried > 1:
            problem += f" ({tried} tries)"
        self.refuse(problem, failure.next_step)

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
        problem += f": {self.shown(answer)}"
        if status in (401, 403):
            return _Failure(
                problem, next_step=f"set the environment variable {self._wording.token}"
            )
        if status == 404 or status < 400:
            names = f"correct {self._wording.url}, or the model of {self._wording.model}"
            return _Failure(problem, next_step=names)
        return _Failure(problem, next_step=f"see the message; {self._wording.smaller}")

    def refuse(self, problem: str, next_step: str = "") -> NoReturn:
        """Raise ModelError: the endpoint did something that cannot be used."""
        raise ModelError(
            f"the endpoint {problem}",
            where=self.where,
            next_step=next_step
            or f"see that {self._wording.url} and {self._wording.model} are right",
        )

    def shown(self, answer: bytes) -> str:
        """The beginning of an answer, for a message."""
        text = answer[:4000].decode("utf-8", "replace")
        return " ".join(self._scrubbed(text).split())[:200]

    def _scrubbed(self, text: str) -> str:
        """Servers repeat tokens, and parts of the address, in their messages."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _address(url: str, wording: Wording) -> Any:
    """The address of the path below `url`.  Raises ConfigError."""
    import httpx

    try:
        address = httpx.URL(url.strip())
        usable = address.scheme in ("http", "https") and bool(address.host)
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise ConfigError(
            "not an http or https address",
            where=wording.url,
            next_step="for example https://api.openai.com/v1",
        )
    if address.userinfo:
        raise ConfigError(
            "the address holds a user name or password",
            where=wording.url,
            next_step=f"put the token into the environment variable {wording.token}",
        )
    path = address.path.rstrip("/")
    if not path.endswith(wording.path):
        path += wording.path
    return address.copy_with(path=path)


def _usable(token: str, wording: Wording) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            "the token holds characters that no header takes",
            where=f"environment variable {wording.token}",
            next_step=f"set {wording.token} to the token alone",
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
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)
