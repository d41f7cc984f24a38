"""Click logs → judgments.

A document becomes relevant (grade 1) for a query when it was clicked in at least two separate
sessions that asked the same query (compared without case, spacing and punctuation), and its clicks
say more than its position does, in one of two ways:

- *skip-above* (Joachims et al. 2005): at least once it was clicked while a document ranked above
  it was shown and not clicked;
- *clicks over expected clicks* (Zhang & Jones 2007): it was clicked more often than documents at
  the ranks where it was shown are clicked on average in this log.

No click is no judgment: documents that were skipped stay unjudged.  What is dropped is counted.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nearer.config import Columns
from nearer.data import cells, fields, records
from nearer.data.near import normalise
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.types import Query

MIN_SESSIONS = 2
_CLICK_WORDS = ("click", "clicked", "open", "select", "use", "relevant", "up", "thumbs_up")


class ClickLog(NamedTuple):
    """Queries by id, judgments (query id → document id → 1), and what was left out, by reason."""

    queries: dict[str, Query]
    judgments: dict[str, dict[str, int]]
    dropped: dict[str, int]


@dataclass(slots=True)
class _Evidence:
    sessions: set[str] = field(default_factory=set)
    shown: Counter[int] = field(default_factory=Counter)
    clicks: int = 0
    above: bool = False


def read_clicks(path: Path, columns: Columns = fields.DEFAULT) -> ClickLog:
    """Judgments from a click log, one request a line.

    A line has `query` (text), optionally `query_id`, `time`, `session` (else `request_id`, else the
    line), `results: [{"id", "rank"}, …]` in any order, and `clicks` or `clicked` (ids), or the
    `feedback` of nearer's own traffic log.  Raises DataError, with file and line, for other shapes
    and for a log from which no judgment can be drawn.
    """
    evidence: dict[tuple[str, str], _Evidence] = defaultdict(_Evidence)
    queries: dict[str, Query] = {}
    shown_at, clicked_at, dropped = Counter[int](), Counter[int](), Counter[str]()
    for row in records.read(path):
        ranks, clicked = _results(row), set(_clicked(row))
        query = _query(row, columns)
        queries.setdefault(query.id, query)
        session = _session(row)
        dropped["clicks on documents that were not shown"] += len(clicked - ranks.keys())
        first_skipped = min(
            (rank for doc_id, rank in ranks.items() if doc_id not in clicked), default=math.inf
        )
        for doc_id, rank in ranks.items():
            seen = evidence[query.id, doc_id]
            seen.shown[rank] += 1
            shown_at[rank] += 1
            if doc_id in clicked:
                clicked_at[rank] += 1
                seen.sessions.add(session)
                seen.clicks += 1
                seen.above |= first_skipped < rank
    found: dict[str, dict[str, int]] = {}
    for (query_id, doc_id), seen in evidence.items():
        expected = sum(n * clicked_at[rank] / shown_at[rank] for rank, n in seen.shown.items())
        if not seen.clicks:
            continue
        if len(seen.sessions) < MIN_SESSIONS:
            dropped["documents clicked in one session only"] += 1
        elif not seen.above and seen.clicks <= expected * (1 + 1e-9):
            dropped["documents clicked no more than their position explains"] += 1
        else:
            found.setdefault(query_id, {})[doc_id] = 1
    if not found:
        reasons = "; ".join(f"{n} {why}" for why, n in dropped.items() if n) or "no clicks"
        raise bad(
            f"no judgment can be drawn from these clicks: {reasons}",
            path,
            "use a longer log, or set data.judgments",
        )
    dropped["queries without a judgment"] = len(queries) - len(found)
    return ClickLog(
        {query_id: queries[query_id] for query_id in found},
        found,
        {why: n for why, n in dropped.items() if n},
    )


def _session(row: Row) -> str:
    """Who asked: the session, else the request, else the line itself.  Session 0 is one, too."""
    for name in ("session", "session_id", "request_id"):
        if not cells.is_empty(row.values.get(name)):
            return str(fields.plain(row.values[name]))
    return f"line {row.number}"


def _query(row: Row, columns: Columns) -> Query:
    """The row's query; its id is the log's own where it has one, else made from the normalised text."""
    text, given = row.values.get("query"), row.values.get("query_id")
    chosen = fields.structured("filter", row)
    given = None if cells.is_empty(given) else given
    if given is None and not isinstance(text, str):
        raise row.bad(
            "a line needs `query` (text) or `query_id`", "see data.clicks in the documentation"
        )
    text = cells.text(text) if isinstance(text, str) else ""
    made = f"click-{hashlib.sha256(normalise(text).encode('utf-8', 'replace')).hexdigest()[:12]}"
    stamp = columns.timestamp or "time"
    return Query(
        made if given is None else fields.as_id(given, row, "query"),
        text,
        filter=fields.plain(chosen) if isinstance(chosen, Mapping) else None,
        metadata={}
        if cells.is_empty(row.values.get(stamp))
        else {stamp: fields.plain(row.values[stamp])},
    )


def _results(row: Row) -> dict[str, int]:
    """Rank, from 1, of each document that was shown."""
    results = fields.structured("results", row)
    if not isinstance(results, list):
        raise row.bad("a line needs `results`: [{id, rank}, …]")
    ranks: dict[str, int] = {}
    for place, hit in enumerate(results, start=1):
        doc_id, rank = hit, float(place)
        if isinstance(hit, Mapping):
            doc_id = hit.get("id")
            rank = _rank(hit.get("rank", place), row)
        ranks.setdefault(fields.as_id(doc_id, row, "document"), int(rank))
    return ranks


def _rank(value: Any, row: Row) -> float:
    try:
        rank = cells.number(value)
    except ValueError:
        rank = 0.0
    if not rank.is_integer() or rank < 1:
        raise row.bad(f"the rank {value!r} is not 1, 2, …")
    return rank


def _clicked(row: Row) -> Iterator[str]:
    """Ids of the documents that were clicked."""
    given: Any = None
    for name in ("clicks", "clicked", "feedback"):
        if given is None:
            given = fields.structured(name, row)
    if not isinstance(given or [], list):
        raise row.bad("`clicks` must be a list of document ids")
    for one in given or ():
        hit = one if isinstance(one, Mapping) else {"id": one}
        kinds = [hit[name] for name in ("type", "event", "kind", "action") if name in hit]
        kind = kinds[0] if kinds else "click"
        if str(kind).lower() in _CLICK_WORDS:
            yield fields.as_id(hit.get("id", hit.get("doc_id")), row, "document")
