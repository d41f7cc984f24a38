"""Logs of other systems → lines of the traffic log.

User Behavior Insights (UBI), which OpenSearch and Elasticsearch log in one schema, exported as JSON
lines, with or without the `_source` around each hit (what elasticdump and `GET _search` give); and
CSV, a row a result or a row a request.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer.data import records
from nearer.data.sources import bad
from nearer.data.traffic import KINDS, ranked

#: Events of UBI that say something about a result.  https://github.com/o19s/ubi
_ACTIONS = {
    "click": "click",
    "item_click": "click",
    "product_hover": None,
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


def import_ubi(queries: Path, events: Path | None, generation: str) -> Iterator[dict[str, Any]]:
    """Lines of a traffic log from `ubi_queries` and `ubi_events`.  Raises DataError with file and line."""
    for where, line in _json_lines(queries):
        query_id, text = line.get("query_id"), line.get("user_query")
        if not isinstance(query_id, str) or not isinstance(text, str):
            raise bad(
                "a line of ubi_queries needs query_id and user_query",
                where,
                "export the index ubi_queries",
            )
        hits = line.get("query_response_hit_ids") or line.get("query_response_objects_ids") or []
        yield _request(
            _time(line.get("timestamp"), where),
            query_id,
            text,
            [(str(hit), None) for hit in hits],
            generation,
            line.get("client_id"),
        )
    for where, line in _json_lines(events) if events else ():
        known = str(line.get("action_name", "")).lower()
        kind = _ACTIONS.get(known, known if known in KINDS else None)
        attributes: Any = line.get("event_attributes") or {}
        held: Any = attributes.get("object") or {}
        doc_id = held.get("object_id") or held.get("internal_id")
        if kind and doc_id and line.get("query_id"):
            time = _time(line.get("timestamp"), where)
            value = attributes.get("dwell_time", 1.0) if kind == "dwell" else 1.0
            told = {"kind": kind, "id": str(doc_id), "value": float(value), "time": time}
            yield {"time": time, "request_id": str(line["query_id"]), "feedback": [told]}


def import_csv(path: Path, generation: str) -> Iterator[dict[str, Any]]:
    """Lines of a traffic log from rows of results: time, query, document and rank, perhaps request_id, clicked, user.

    Rows with the same request_id (without one: the same time, user and query) are one request.
    Raises DataError with file and line.
    """
    requests: dict[str, tuple[dict[str, str], list[tuple[int, str, float | None, bool]]]] = {}
    with open(path, encoding="utf-8-sig", newline="") as handle:
        rows = csv.DictReader(handle)
        found = {
            name: next((one for one in aliases if one in (rows.fieldnames or ())), None)
            for name, aliases in _NAMES.items()
        }
        missing = [name for name in ("time", "query", "doc_id") if found[name] is None]
        if missing:
            raise bad(
                f"no column for {', '.join(missing)}",
                f"{path}:1",
                f"name it {' or '.join(_NAMES[missing[0]])}",
            )
        for number, row in enumerate(rows, start=2):
            one = {
                name: (row.get(column) or "") if column else "" for name, column in found.items()
            }
            key = (
                one["request_id"]
                or hashlib.sha256(
                    "\0".join((one["time"], one["user"], one["query"])).encode()
                ).hexdigest()[:24]
            )
            values, hits = requests.setdefault(key, (one, []))
            try:
                rank = int(one["rank"] or len(hits) + 1)
                score = float(one["score"]) if one["score"] else None
                values["time"] = _time(values["time"], f"{path}:{number}")
            except ValueError:
                raise bad(
                    f"rank {one['rank']!r} or score {one['score']!r} is not a number",
                    f"{path}:{number}",
                    "mend that row",
                ) from None
            if one["doc_id"]:
                hits.append(
                    (
                        rank,
                        one["doc_id"],
                        score,
                        one["clicked"].strip().lower() not in ("", "0", "false", "no"),
                    )
                )
    for key, (values, hits) in requests.items():
        ordered = sorted(hits)
        latency = float(values["latency_ms"] or 0)
        yield _request(
            values["time"],
            key,
            values["query"],
            [(d, s) for _, d, s, _ in ordered],
            generation,
            values["user"],
            latency,
        )
        if feedback := [
            {"kind": "click", "id": d, "value": 1.0, "time": values["time"]}
            for _, d, _, clicked in ordered
            if clicked
        ]:
            yield {"time": values["time"], "request_id": key, "feedback": feedback}


def _request(
    time: str,
    request_id: str,
    query: str,
    hits: Sequence[tuple[str, float | None]],
    generation: str,
    user: Any = None,
    latency: float = 0.0,
) -> dict[str, Any]:
    scored = [
        (doc_id, 1.0 / rank if score is None else score)
        for rank, (doc_id, score) in enumerate(hits, start=1)
    ]
    line = {
        "time": time,
        "request_id": request_id,
        "query": query,
        "filter": None,
        "generation": generation,
        "results": ranked(scored),
    }
    person = {"user": hashlib.sha256(str(user).encode()).hexdigest()[:16]} if user else {}
    return line | {"latency_ms": latency} | person


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in records.read(path):
        source = row.values.get("_source", row.values)
        if isinstance(source, str):
            source = json.loads(source)
        if isinstance(source, Mapping):
            yield row.where, source


def _time(value: Any, where: str) -> str:
    """ISO 8601 in UTC, of a text or of seconds or milliseconds since 1970."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            time = datetime.fromisoformat(value)
            time = time if time.tzinfo else time.replace(tzinfo=UTC)
        else:
            seconds = float(value)
            time = datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise bad(
            f"{value!r} is not a time", where, "use ISO 8601, or seconds or milliseconds since 1970"
        ) from None
    return time.astimezone(UTC).isoformat(timespec="milliseconds")
