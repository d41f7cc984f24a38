"""The user's own search system, measured as it is: a run file, a Python function or an HTTP endpoint.

What comes back is checked before it is measured, because a system that answers with unknown ids
or NaN scores would otherwise just look bad.
"""

from __future__ import annotations

import base64
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from nearer import progress
from nearer.data.trec import read_run
from nearer.errors import ConfigError, DataError, SearchSystemError
from nearer.plugins import import_from
from nearer.types import Hit, Query, Run, rank_hits

_CONTRACT = "return one list a query, of (document id, score) pairs"
_BATCH = 64  # queries per call of the user's function, so that progress shows


class RunFile:
    """Retriever that answers from TREC run files.  `known` are the ids of the corpus, where they should be checked."""

    def __init__(self, paths: Path | Sequence[Path], known: Collection[str] | None = None) -> None:
        paths = [paths] if isinstance(paths, Path) else paths
        self.name = "run"
        self._known = known
        self._where = ", ".join(map(str, paths))
        self._results: dict[str, Sequence[Hit]] = {}
        for path in paths:
            results = read_run(path).results
            twice = [query_id for query_id in results if query_id in self._results]
            if twice:
                raise DataError(
                    f"query {twice[0]!r} is in more than one run file",
                    where=str(path),
                    next_step="keep one answer a query",
                )
            self._results |= results

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """What the files say; a query they do not mention has no results.

        Raises SearchSystemError for documents that are not in the corpus, and when the files
        mention none of the queries (they belong to other data, or to another split).
        """
        if queries and not any(query.id in self._results for query in queries):
            raise SearchSystemError(
                f"none of the {len(queries)} queries is in the run",
                where=self._where,
                next_step="give the run file of this split (search.run)",
            )
        results = {
            query.id: _checked(self._results.get(query.id, ()), query, k, self._known, self._where)
            for query in queries
        }
        return Run(self.name, results)


class Function:
    """Retriever that calls `search(queries, k)` of the user's module, given as `"module:function"`.

    The function gets a list of `nearer.types.Query` and returns one list of (document id, score)
    pairs a query.  The module is looked for in `root` (while it is imported) and then as usual.
    Raises ConfigError for a name that is not `module:function`, SearchSystemError when there is no
    such function or its module cannot be imported.
    """

    def __init__(self, name: str, root: Path, known: Collection[str] | None = None) -> None:
        self.name, self._known, self._where = "function", known, name
        self._function = import_from(name, root, "search.function", "function")

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Calls the function with blocks of queries.  Raises SearchSystemError for what it raises or answers wrongly."""
        started = time.perf_counter()
        results: dict[str, list[Hit]] = {}
        with progress.task(f"{self._where}: searching", len(queries), "queries") as task:
            for start in range(0, len(queries), _BATCH):
                block = list(queries[start : start + _BATCH])
                try:
                    answers = self._function(block, k)
                except Exception as error:
                    problem = f"the function raised {type(error).__name__}: {error}"
                    raise SearchSystemError(
                        problem, where=self._where, next_step="mend the function"
                    ) from error
                self._require_lists(answers, len(block))
                for query, answer in zip(block, answers, strict=True):
                    results[query.id] = _checked(answer, query, k, self._known, self._where)
                task.advance(len(block))
        return Run(self.name, results, time.perf_counter() - started)

    def _require_lists(self, answers: Any, count: int) -> None:
        if not isinstance(answers, (list, tuple)):
            got = type(answers).__name__
        elif len(answers) != count:
            got = f"{len(answers)} lists"
        else:
            return
        raise SearchSystemError(
            f"{count} queries got {got}", where=self._where, next_step=_CONTRACT
        )


class Http:
    """Retriever that asks an endpoint: POST `{"id", "query", "k", "filter"}` → `{"results": [{"id", "score"}, …]}`.

    Requests run in `workers` threads.  429 and 5xx answers and broken connections are tried again
    (`Retry-After` in seconds is honoured up to `patience`), anything else is an error at once; each
    attempt takes `timeout` seconds at most.  User name and password in the address are sent as
    basic authentication and, like its query string, never shown.
    Raises ConfigError for an address that is not http or https.
    """

    attempts = 4
    patience = 30.0
    largest_answer = 10_000_000  # bytes

    def __init__(
        self,
        url: str,
        timeout: float = 10.0,
        known: Collection[str] | None = None,
        workers: int = 4,
    ) -> None:
        parts = _split_url(url)
        address = parts.netloc.rpartition("@")[2]
        self.name = "http"
        self._known = known
        self._where = urlunsplit((parts.scheme, address, parts.path, "", ""))
        self._url = urlunsplit((parts.scheme, address, parts.path or "/", parts.query, ""))
        self._timeout, self._workers = timeout, workers
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "nearer",
        }
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Asks for every query once.  Raises SearchSystemError that names the query and the address."""
        started = time.perf_counter()
        results: dict[str, list[Hit]] = {}
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="nearer-http")
        try:
            with progress.task(f"{self._where}: searching", len(queries), "queries") as task:
                answers = pool.map(lambda query: self._ask(query, k), queries)
                for query, hits in zip(queries, answers, strict=True):
                    results[query.id] = hits
                    task.advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return Run(self.name, results, time.perf_counter() - started)

    def _ask(self, query: Query, k: int) -> list[Hit]:
        body = {
            "id": query.id,
            "query": query.text,
            "k": k,
            "filter": dict(query.filter) if query.filter is not None else None,
        }
        content = json.dumps(body, default=str).encode()
        # http and https only, see _split_url
        request = urllib.request.Request(self._url, content, self._headers, method="POST")  # noqa: S310
        answer = self._answer(query, request)
        try:
            hits = [(hit["id"], hit["score"]) for hit in json.loads(answer)["results"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = f"answered {answer[:80].decode('utf-8', 'replace')!r}"
            raise _refuse(
                query, problem, self._where, 'answer {"results": [{"id": "…", "score": 1.0}, …]}'
            ) from None
        return _checked(hits, query, k, self._known, self._where)

    def _answer(self, query: Query, request: urllib.request.Request) -> bytes:
        """What the endpoint answers, at most `attempts` times asked."""
        attempt = 1
        while True:
            try:
                return self._read(request)
            except (OSError, HTTPException) as error:
                failure = self._failure(error)
            if not failure.passing or attempt == self.attempts:
                break
            wait = failure.wait
            if wait is None:
                wait = 0.25 * 2 ** (attempt - 1)
            time.sleep(min(wait, self.patience))
            attempt += 1
        tries = f" ({attempt} attempts)" if attempt > 1 else ""
        next_step = "see that the endpoint is up, or raise search.timeout"
        raise _refuse(query, failure.problem + tries, self._where, next_step)

    def _failure(self, error: OSError | HTTPException) -> _Failure:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            passing = error.code == 429 or error.code >= 500
            retry_after = str(error.headers.get("Retry-After")).strip()
            wait = float(retry_after) if retry_after.isdecimal() else None
            return _Failure(f"answered {error.code} {error.reason}", passing, wait)
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        passing = isinstance(cause, (ConnectionError, HTTPException))
        if isinstance(cause, TimeoutError):
            return _Failure(f"did not answer within {self._timeout:g} s", passing)
        return _Failure(f"{type(cause).__name__}: {cause}", passing)

    def _read(self, request: urllib.request.Request) -> bytes:
        deadline = time.monotonic() + self._timeout
        answer = bytearray()
        with self._opener.open(request, timeout=self._timeout) as response:
            while chunk := response.read1(65_536):
                answer += chunk
                if len(answer) > self.largest_answer:
                    problem = f"an answer is larger than {self.largest_answer // 1_000_000} MB"
                    raise SearchSystemError(
                        problem, where=self._where, next_step="return ids and scores only"
                    )
                # the socket's own time limit starts anew with every packet
                if time.monotonic() > deadline:
                    raise TimeoutError
        return bytes(answer)


class _Failure(NamedTuple):
    """Why a request failed, whether another may succeed, and after how many seconds where the endpoint says it."""

    problem: str
    passing: bool
    wait: float | None = None


class OwnRetriever:
    """A retriever class of the user's, `"my_module:MyRetriever"`, its answers checked like all others.

    Raises SearchSystemError when it cannot be made, or has no `search(queries, k)`.
    """

    def __init__(self, name: str, make: Callable[[], Any], known: Collection[str] | None) -> None:
        self.name, self._known = name, known
        try:
            self._retriever = make()
        except Exception as error:
            raise SearchSystemError(
                f"making it raised {type(error).__name__}: {error}",
                where=name,
                next_step="mend the class; it is made without arguments",
            ) from error
        if not callable(getattr(self._retriever, "search", None)):
            raise SearchSystemError(
                "this class has no search(queries, k)",
                where=name,
                next_step="see nearer.search.base.Retriever",
            )

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """What the class answers.  Raises SearchSystemError for what it raises or answers wrongly."""
        started = time.perf_counter()
        try:
            answers = self._retriever.search(queries, k).results
            lists = [answers.get(query.id, ()) for query in queries]
        except Exception as error:
            raise SearchSystemError(
                f"search raised {type(error).__name__}: {error}",
                where=self.name,
                next_step="return a nearer.types.Run",
            ) from error
        results: dict[str, list[Hit]] = {}
        for query, hits in zip(queries, lists, strict=True):
            results[query.id] = _checked(hits, query, k, self._known, self.name)
        return Run(self.name, results, time.perf_counter() - started)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its query, and credentials could follow it to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            "not an http or https address",
            where="search.url",
            next_step="for example http://localhost:8000/search",
        )
    return parts


def _refuse(query: Query, problem: str, where: str, next_step: str) -> SearchSystemError:
    return SearchSystemError(f"query {query.id!r}: {problem}", where=where, next_step=next_step)


def _checked(
    answer: Any, query: Query, k: int, known: Collection[str] | None, where: str
) -> list[Hit]:
    """The hits in canonical order, at most `k`.  Raises SearchSystemError for anything that cannot be measured."""
    if isinstance(answer, (str, bytes, Mapping)) or not hasattr(answer, "__iter__"):
        raise _refuse(
            query, f"a list of results was expected, not {type(answer).__name__}", where, _CONTRACT
        )
    scores: dict[str, float] = {}
    for hit in answer:
        if not isinstance(hit, (tuple, list)) or len(hit) != 2:
            raise _refuse(
                query, f"{str(hit)[:60]!r} is not a pair of document id and score", where, _CONTRACT
            )
        doc_id, value = hit
        if not isinstance(doc_id, str):
            problem, next_step = (
                f"document id {str(doc_id)[:60]} is {type(doc_id).__name__}, not a string",
                "return ids as strings",
            )
        elif not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            problem, next_step = (
                f"document {doc_id!r} has score {str(value)[:60]}",
                "return finite numbers as scores",
            )
        elif doc_id in scores:
            problem, next_step = (
                f"document {doc_id!r} is returned twice",
                "return each document once (of its chunks, the best)",
            )
        elif known is not None and doc_id not in known:
            problem, next_step = (
                f"document {doc_id!r} is not in the corpus",
                "search the same documents that nearer.yaml names",
            )
        else:
            scores[doc_id] = float(value)
            continue
        raise _refuse(query, problem, where, next_step)
    return rank_hits(scores.items(), k)
