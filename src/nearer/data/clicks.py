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
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.config import Columns
from nearer.data import fields, records
from nearer.data.near import normalise
from nearer.data.records import Row
from nearer.errors import DataError
from nearer.types import Query

MIN_SESSIONS = 2
_CLICK_WORDS = ("click", "clicked", "open", "select", "use", "relevant", "up", "thumbs_up")


@dataclass(frozen=True, slots=True)
class ClickLog:
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


def read_clicks(path: Path, columns: Columns | None = None) -> ClickLog:
    """Judgments from a click log, one request a line.

    A line has `query` (text), optionally `query_id`, `time`, `session` (else `request_id`, else the
    line), `results: [{"id", "rank"}, …]` in any order, and `clicks` or `clicked` (ids), or the
    `feedback` of nearer's own traffic log.  Raises DataError, with file and line, for other shapes
    and for a log from which no judgment can be drawn.
    """
    columns = columns or Columns()
    evidence: dict[tuple[str, str], _Evidence] = {}
    queries: dict[str, Query] = {}
    ids: dict[str, str] = {}
    shown_at: Counter[int] = Counter()
    clicked_at: Counter[int] = Counter()
    dropped: Counter[str] = Counter()
    for row in records.read(path):
        ranks, clicked = _results(row), set(_clicked(row))
        key = _add_query(row, columns, queries, ids)
        session = next((str(row.values[name]) for name in ("session", "session_id", "request_id") if row.values.get(name)), str(row.number))
        dropped["clicks on documents that were not shown"] += len(clicked - ranks.keys())
        shown_at.update(ranks.values())
        clicked_at.update(ranks[doc_id] for doc_id in clicked & ranks.keys())
        first_skipped = min((rank for doc_id, rank in ranks.items() if doc_id not in clicked), default=None)
        for doc_id, rank in ranks.items():
            seen = evidence.setdefault((key, doc_id), _Evidence())
            seen.shown[rank] += 1
            if doc_id in clicked:
                seen.sessions.add(session)
                seen.clicks += 1
                seen.above |= first_skipped is not None and first_skipped < rank
    found: dict[str, dict[str, int]] = {}
    for (key, doc_id), seen in evidence.items():
        expected = sum(n * clicked_at[rank] / shown_at[rank] for rank, n in seen.shown.items())
        if not seen.clicks:
            continue
        if len(seen.sessions) < MIN_SESSIONS:
            dropped["documents clicked in one session only"] += 1
        elif not seen.above and seen.clicks <= expected * (1 + 1e-9):
            dropped["documents clicked no more than their position explains"] += 1
        else:
            found.setdefault(key, {})[doc_id] = 1
    if not found:
        reasons = "; ".join(f"{n} {why}" for why, n in dropped.items() if n) or "no clicks"
        raise DataError(f"no judgment can be drawn from these clicks: {reasons}", where=str(path),
                        next_step="use a longer log, or set data.judgments")  # fmt: skip
    dropped["queries without a judgment"] = len(queries) - len(found)
    return ClickLog({key: queries[key] for key in found}, found, {why: n for why, n in dropped.items() if n})


def _add_query(row: Row, columns: Columns, queries: dict[str, Query], ids: dict[str, str]) -> str:
    """Id of the row's query: the log's own where it has one, else made from the normalised text."""
    text, given = row.values.get("query"), row.values.get("query_id")
    if not isinstance(text, str) and given is None:
        raise DataError("a line needs `query` (text) or `query_id`", where=row.where, next_step="see data.clicks in the documentation")
    normal = normalise(text) if isinstance(text, str) else ""
    if given is not None:
        key = fields.as_id(given, row, "query")
    else:
        key = ids.setdefault(normal, f"click-{hashlib.sha256(normal.encode()).hexdigest()[:12]}")
    if key not in queries:
        stamp = columns.timestamp or "time"
        metadata = {stamp: row.values[stamp]} if row.values.get(stamp) is not None else {}
        chosen = row.values.get("filter")
        queries[key] = Query(key, text or "", filter=fields.plain(chosen) if isinstance(chosen, Mapping) else None, metadata=metadata)
    return key


def _results(row: Row) -> dict[str, int]:
    """Rank, from 1, of each document that was shown."""
    results = row.values.get("results")
    if not isinstance(results, list):
        raise DataError("a line needs `results`: [{id, rank}, …]", where=row.where, next_step="mend that line")
    ranks: dict[str, int] = {}
    for place, hit in enumerate(results, start=1):
        doc_id, rank = (hit.get("id"), hit.get("rank", place)) if isinstance(hit, Mapping) else (hit, place)
        if not isinstance(rank, int) or rank < 1:
            raise DataError(f"the rank {rank!r} is not 1, 2, …", where=row.where, next_step="mend that line")
        ranks.setdefault(fields.as_id(doc_id, row, "document"), rank)
    return ranks


def _clicked(row: Row) -> Iterator[str]:
    given: Any = next((row.values[name] for name in ("clicks", "clicked", "feedback") if row.values.get(name) is not None), [])
    if not isinstance(given, list):
        raise DataError("`clicks` must be a list of document ids", where=row.where, next_step="mend that line")
    for one in given:
        if not isinstance(one, Mapping):
            yield fields.as_id(one, row, "document")
            continue
        kind = next((one[name] for name in ("type", "event", "kind", "action") if name in one), "click")
        if str(kind).lower() in _CLICK_WORDS:
            yield fields.as_id(one.get("id", one.get("doc_id")), row, "document")
