"""Logs of other systems → lines of the traffic log.

User Behavior Insights (UBI), which OpenSearch and Elasticsearch log in one schema, with or without
the `_source` around each hit (what elasticdump and `GET _search` give); and tables with a row per
result.  Both are read as every other file of records is (see `nearer.data.records`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.data import cells, fields, records
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.data.times import read_time
from nearer.errors import DataError
from nearer.live.traffic.log import KINDS, ranked
from nearer.types import Hit

#: Events of UBI that say something about a result.  https://github.com/o19s/ubi
_ACTIONS = {
    "click": "click",
    "item_click": "click",
    "dwell": "dwell",
    "purchase": "conversion",
    "add_to_cart": "conversion",
}
_NAMES = {
    "time": ("time", "timestamp", "@timestamp", "date"),
    "request_id": ("request_id", "query_id", "search_id", "session_query_id"),
    "query": ("query", "user_query", "search_term", "q"),
    "doc_id": ("doc_id", "document_id", "object_id", "result_id", "id"),
    "rank": ("rank", "position", "ordinal"),
    "score": ("score",),
    "clicked": ("clicked", "click", "clicks"),
    "user": ("user", "client_id", "user_id", "session", "session_id"),
    "latency_ms": ("latency_ms", "took", "latency"),
}
_UBI_NAMES = ("_source", "query_response_hit_ids", "query_response_objects_ids")
_TIMES = "use ISO 8601, or seconds or milliseconds since 1970"
Skipped = Counter[str]


class _UnusableError(Exception):
    """A record of UBI that says nothing that can be used, and why."""


def read_log(
    queries: Path, events: Path | None, generation: str, skipped: Skipped | None = None
) -> Iterator[dict[str, Any]]:
    """Lines of a traffic log from either kind of file: UBI, or a table with a row per result.

    `skipped` counts, by reason, what was left out.  Raises DataError with file and line.
    """
    first = next(records.read(queries), None)
    names = first.values.keys() if first is not None else ()
    is_ubi = any(name in names for name in _UBI_NAMES)
    is_table = any(name in names for name in _NAMES["doc_id"])
    if events is not None or is_ubi or ("user_query" in names and not is_table):
        return import_ubi(queries, events, generation, skipped)
    return import_table(queries, generation, skipped)


# -- User Behavior Insights --------------------------------------------------------------------------


def import_ubi(
    queries: Path, events: Path | None, generation: str, skipped: Skipped | None = None
) -> Iterator[dict[str, Any]]:
    """Lines of a traffic log from `ubi_queries` and `ubi_events`.

    A query that cannot be used is refused: raises DataError with file and line.  An event that
    cannot be used is left out, and `skipped` counts it with its reason.
    """
    skipped = Skipped() if skipped is None else skipped
    known: set[str] = set()
    for row in records.read(queries):
        request = _ubi_query(row, generation)
        known.add(request["request_id"])
        yield request
    for row in records.read(events) if events else ():
        try:
            feedback = _ubi_event(row)
        except _UnusableError as error:
            skipped[f"events left out: {error}"] += 1
            continue
        if feedback["request_id"] not in known:
            skipped["events kept whose query is not in this export"] += 1
        yield feedback


def _ubi_query(row: Row, generation: str) -> dict[str, Any]:
    """The request that a line of `ubi_queries` tells.  Raises DataError."""
    try:
        line = _source(row)
    except _UnusableError as error:
        raise row.bad(str(error), "export the index ubi_queries") from None
    query = line.get("user_query")
    if cells.is_empty(line.get("query_id")) or not isinstance(query, str):
        what = "a line of ubi_queries needs query_id and user_query"
        raise row.bad(what, "export the index ubi_queries")
    hits: Any = None
    for name in ("query_response_hit_ids", "query_response_objects_ids"):
        hits = hits or _parsed(line.get(name))
    if not isinstance(hits or [], list):
        raise row.bad("query_response_hit_ids is not a list of document ids")
    doc_ids = [fields.as_id(hit, row, "document") for hit in hits or ()]
    request = _Request(
        time=_time(line.get("timestamp"), row),
        id=fields.as_id(line["query_id"], row, "query"),
        query=cells.text(query),
        user=_cell(cells.text, line.get("client_id"), row, "client_id"),
        results=_by_position(list(dict.fromkeys(doc_ids))),
    )
    return request.as_line(generation)


def _ubi_event(row: Row) -> dict[str, Any]:
    """The feedback that a line of `ubi_events` tells.  Raises _UnusableError with why it tells none."""
    line = _source(row)
    action = cells.text(line.get("action_name")).strip().lower()
    kind = _ACTIONS.get(action, action)
    if kind not in KINDS:
        raise _UnusableError("they say nothing about a result")
    try:
        request_id = fields.as_id(line.get("query_id"), row, "query")
    except DataError:
        raise _UnusableError("they have no query_id") from None
    attributes = _parsed(line.get("event_attributes"))
    if not isinstance(attributes, Mapping):
        raise _UnusableError("their event_attributes are not an object")
    target = _parsed(attributes.get("object"))
    if not isinstance(target, Mapping):
        raise _UnusableError("their event_attributes.object is not an object")
    named = target.get("object_id")
    if cells.is_empty(named):
        named = target.get("internal_id")
    try:
        doc_id = fields.as_id(named, row, "document")
    except DataError:
        raise _UnusableError("they name no document (object_id)") from None
    try:
        time = _iso(line.get("timestamp"))
    except ValueError:
        raise _UnusableError("their timestamp is not a time") from None
    value = 1.0
    if kind == "dwell":
        try:
            value = cells.number(attributes.get("dwell_time"))
        except ValueError:
            raise _UnusableError("their dwell_time is not a number") from None
    one = {"kind": kind, "id": doc_id, "value": value, "time": time}
    return {"time": time, "request_id": request_id, "feedback": [one]}


def _source(row: Row) -> Mapping[str, Any]:
    """The record itself, with or without the envelope of a hit.  Raises _UnusableError."""
    source = _parsed(row.values.get("_source", row.values))
    if not isinstance(source, Mapping):
        raise _UnusableError("_source is not a JSON object")
    return source


def _parsed(value: Any) -> Any:
    """A value, or what it holds where it is JSON written as text; None for text that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None if value.strip()[:1] in ("{", "[") else value


# -- tables ------------------------------------------------------------------------------------------


def import_table(
    path: Path, generation: str, skipped: Skipped | None = None
) -> Iterator[dict[str, Any]]:
    """Lines of a traffic log from rows of results: time, query, document and rank, perhaps request_id, clicked, user.

    Rows with the same request_id (without one: the same time, user and query) are one request; a
    document that stands there twice counts once, and was clicked if one of its rows says so.
    Raises DataError with file and line.
    """
    skipped = Skipped() if skipped is None else skipped
    requests: dict[str, _Request] = {}
    columns: dict[str, str | None] = {}
    for row in records.read(path):
        columns = columns or _columns(row)
        values = {
            name: row.values.get(column) for name, column in columns.items() if column is not None
        }
        request = _table_request(values, row)
        request = requests.setdefault(request.id, request)
        if cells.text(values.get("query")) != request.query:
            what = f"request {request.id!r} asks {request.query!r} on an earlier line"
            raise row.bad(what, "give every request an id of its own")
        if cells.is_empty(values.get("doc_id")):
            continue  # a request that found nothing
        result = _table_result(values, row, len(request.results))
        known = request.results.get(result.doc_id)
        if known is None:
            request.results[result.doc_id] = result
        else:
            known.clicked = known.clicked or result.clicked
            skipped["rows left out: the same document again in one request"] += 1
    for request in requests.values():
        yield request.as_line(generation)
        clicks = [
            {"kind": "click", "id": result.doc_id, "value": 1.0, "time": request.time}
            for result in request.in_order()
            if result.clicked
        ]
        if clicks:
            yield {"time": request.time, "request_id": request.id, "feedback": clicks}


def _columns(row: Row) -> dict[str, str | None]:
    """Which column plays each part.  Raises DataError when one that is needed is not there."""
    found = {
        name: next((alias for alias in aliases if alias in row.values), None)
        for name, aliases in _NAMES.items()
    }
    missing = [name for name in ("time", "query", "doc_id") if found[name] is None]
    if missing:
        what = f"no column for {', '.join(missing)}; the columns here: {', '.join(row.values)}"
        raise bad(what, row.path, f"name it {' or '.join(_NAMES[missing[0]])}")
    return found


def _table_request(values: Mapping[str, Any], row: Row) -> _Request:
    query = values.get("query")
    if not isinstance(query, str | None):
        raise row.bad(f"the query is {type(query).__name__}, not text")
    query, user = cells.text(query), _cell(cells.text, values.get("user"), row, "user")
    latency = 0.0
    if not cells.is_missing(values.get("latency_ms")):
        latency = _cell(cells.number, values["latency_ms"], row, "latency_ms")
    if latency < 0:
        raise row.bad(f"latency_ms: {latency:g} is below 0", "correct that cell")
    given = values.get("request_id")
    if cells.is_empty(given):
        made_of = "\0".join((_cell(cells.text, values.get("time"), row, "time"), user, query))
        request_id = hashlib.sha256(made_of.encode()).hexdigest()[:24]
    else:
        request_id = fields.as_id(given, row, "request")
    return _Request(_time(values.get("time"), row), request_id, query, user, latency)


def _table_result(values: Mapping[str, Any], row: Row, before: int) -> _Result:
    """The result that a row tells; `before` results of its request were read already."""
    doc_id = fields.as_id(values["doc_id"], row, "document")
    rank, score = float(before + 1), None
    if not cells.is_missing(values.get("rank")):
        rank = _cell(cells.number, values["rank"], row, "rank")
    if not rank.is_integer() or rank < 0:
        raise row.bad(f"rank: {rank:g} is not a whole number", "correct that cell")
    if not cells.is_missing(values.get("score")):
        score = _cell(cells.number, values["score"], row, "score")
    clicked = _cell(cells.yes_or_no, values.get("clicked"), row, "clicked")
    return _Result(doc_id, rank, score, clicked)


# -- what both kinds become --------------------------------------------------------------------------


@dataclass(slots=True)
class _Result:
    """A document that was shown; `rank` gives its order only."""

    doc_id: str
    rank: float
    score: float | None = None
    clicked: bool = False


@dataclass(slots=True)
class _Request:
    """A request while its rows are read."""

    time: str
    id: str
    query: str
    user: str = ""
    latency_ms: float = 0.0
    results: dict[str, _Result] = field(default_factory=dict)

    def in_order(self) -> list[_Result]:
        return sorted(self.results.values(), key=lambda result: result.rank)

    def as_line(self, generation: str) -> dict[str, Any]:
        """The line of the traffic log; a result without a score gets 1 / rank."""
        hits: list[Hit] = []
        for place, result in enumerate(self.in_order(), start=1):
            hits.append((result.doc_id, 1.0 / place if result.score is None else result.score))
        line = {
            "time": self.time,
            "request_id": self.id,
            "query": self.query,
            "filter": None,
            "generation": generation,
            "results": ranked(hits),
            "latency_ms": self.latency_ms,
        }
        if self.user:
            line["user"] = hashlib.sha256(self.user.encode()).hexdigest()[:16]
        return line


def _by_position(doc_ids: Sequence[str]) -> dict[str, _Result]:
    return {doc_id: _Result(doc_id, float(place)) for place, doc_id in enumerate(doc_ids)}


def _cell(parse: Any, value: Any, row: Row, column: str) -> Any:
    """A cell, parsed by one function of `cells`.  Raises DataError with file, line and column."""
    try:
        return parse(value)
    except ValueError as error:
        raise row.bad(f"{column}: {error}", "correct that cell") from None


def _time(value: Any, row: Row) -> str:
    try:
        return _iso(value)
    except ValueError as error:
        raise row.bad(str(error), _TIMES) from None


def _iso(value: Any) -> str:
    """A time as the traffic log writes it.  Raises ValueError."""
    return read_time(value).isoformat(timespec="milliseconds")
