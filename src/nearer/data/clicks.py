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
from collections.abc import Iterator, Mapping, Set
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
    """What a log says about one query and one document."""

    sessions: set[str] = field(default_factory=set)  # in which it was clicked
    impressions: Counter[int] = field(default_factory=Counter)  # by rank
    clicks: int = 0
    skipped_above: bool = False  # clicked at least once below a document that was not


class _Evidences:
    """Evidence of a whole log, and how often documents at each rank are clicked."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[str, str], _Evidence] = defaultdict(_Evidence)
        self._impressions = Counter[int]()
        self._clicks = Counter[int]()

    def add(self, query_id: str, ranks: Mapping[str, int], clicked: Set[str], session: str) -> None:
        """One request: the rank of each document that was returned, and which were clicked."""
        skipped = [rank for doc_id, rank in ranks.items() if doc_id not in clicked]
        first_skipped = min(skipped, default=math.inf)
        for doc_id, rank in ranks.items():
            evidence = self.pairs[query_id, doc_id]
            evidence.impressions[rank] += 1
            self._impressions[rank] += 1
            if doc_id in clicked:
                self._clicks[rank] += 1
                evidence.sessions.add(session)
                evidence.clicks += 1
                evidence.skipped_above |= first_skipped < rank

    def reason_against(self, evidence: _Evidence) -> str | None:
        """Why clicks prove nothing; None where they make the document relevant."""
        if len(evidence.sessions) < MIN_SESSIONS:
            return "documents clicked in one session only"
        expected = self._expected_clicks(evidence) * (1 + 1e-9)
        if not evidence.skipped_above and evidence.clicks <= expected:
            return "documents clicked no more than their position explains"
        return None

    def _expected_clicks(self, evidence: _Evidence) -> float:
        """Clicks that documents at the same ranks get on average in this log."""
        expected = 0.0
        for rank, impressions in evidence.impressions.items():
            expected += impressions * self._clicks[rank] / self._impressions[rank]
        return expected


def read_clicks(path: Path, columns: Columns = fields.DEFAULT) -> ClickLog:
    """Judgments from a click log, one request a line.

    A line has `query` (text), optionally `query_id`, `time`, `session` (else `request_id`, else the
    line), `results: [{"id", "rank"}, …]` in any order, and `clicks` or `clicked` (ids), or the
    `feedback` of nearer's own traffic log.  Raises DataError, with file and line, for other shapes
    and for a log from which no judgment can be drawn.
    """
    evidences = _Evidences()
    queries: dict[str, Query] = {}
    dropped = Counter[str]()
    for row in records.read(path):
        ranks = _results(row)
        clicked = set(_clicked(row))
        query = _query(row, columns)
        queries.setdefault(query.id, query)
        evidences.add(query.id, ranks, clicked, _session(row))
        dropped["clicks on documents that were not shown"] += len(clicked - ranks.keys())
    judgments: dict[str, dict[str, int]] = {}
    for (query_id, doc_id), evidence in evidences.pairs.items():
        if not evidence.clicks:
            continue
        reason = evidences.reason_against(evidence)
        if reason is None:
            judgments.setdefault(query_id, {})[doc_id] = 1
        else:
            dropped[reason] += 1
    if not judgments:
        reasons = "; ".join(f"{n} {why}" for why, n in dropped.items() if n) or "no clicks"
        raise bad(
            f"no judgment can be drawn from these clicks: {reasons}",
            path,
            "use a longer log, or set data.judgments",
        )
    dropped["queries without a judgment"] = len(queries) - len(judgments)
    return ClickLog(
        queries={query_id: queries[query_id] for query_id in judgments},
        judgments=judgments,
        dropped={why: n for why, n in dropped.items() if n},
    )


def _session(row: Row) -> str:
    """Who asked: the session, else the request, else the line itself.  Session 0 is one, too."""
    for name in ("session", "session_id", "request_id"):
        value = row.values.get(name)
        if not cells.is_empty(value):
            return str(fields.as_plain(value, row))
    return f"line {row.number}"


def _query(row: Row, columns: Columns) -> Query:
    """The row's query; its id is the log's own where it has one, else made from the normalised text."""
    filters = fields.structured("filter", row)
    own_id = row.values.get("query_id")
    text = row.values.get("query")
    if isinstance(text, str):
        text = cells.text(text)
    elif cells.is_empty(own_id):
        raise row.bad(
            "a line needs `query` (text) or `query_id`", "see data.clicks in the documentation"
        )
    else:
        text = ""
    query_id = _id_of(text)
    if not cells.is_empty(own_id):
        query_id = fields.as_id(own_id, row, "query")
    metadata: dict[str, Any] = {}
    timestamp = columns.timestamp or "time"
    moment = row.values.get(timestamp)
    if not cells.is_empty(moment):
        metadata[timestamp] = fields.as_plain(moment, row)
    declared = None
    if isinstance(filters, Mapping):
        declared = fields.as_plain(filters, row)
    return Query(query_id, text, filter=declared, metadata=metadata)


def _id_of(text: str) -> str:
    """The id of a query that the log gives none: equal for texts that are equal after `normalise`."""
    encoded = normalise(text).encode("utf-8", "replace")
    return f"click-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _results(row: Row) -> dict[str, int]:
    """Rank, from 1, of each document that was returned."""
    results = fields.structured("results", row)
    if not isinstance(results, list):
        raise row.bad("a line needs `results`: [{id, rank}, …]")
    ranks: dict[str, int] = {}
    for position, hit in enumerate(results, start=1):
        given_id, rank = hit, position
        if isinstance(hit, Mapping):
            given_id = hit.get("id")
            rank = _rank(hit.get("rank", position), row)
        doc_id = fields.as_id(given_id, row, "document")
        ranks.setdefault(doc_id, rank)
    return ranks


def _rank(value: Any, row: Row) -> int:
    try:
        rank = cells.number(value)
    except ValueError:
        rank = 0.0
    if not rank.is_integer() or rank < 1:
        raise row.bad(f"the rank {cells.shown(value)} is not 1, 2, …")
    return int(rank)


def _clicked(row: Row) -> Iterator[str]:
    """Ids of the documents that were clicked."""
    clicks: Any = None
    for name in ("clicks", "clicked", "feedback"):
        if clicks is None:
            clicks = fields.structured(name, row)
    if not isinstance(clicks or [], list):
        raise row.bad("`clicks` must be a list of document ids")
    for click in clicks or ():
        if not isinstance(click, Mapping):
            yield fields.as_id(click, row, "document")
        elif _is_click(click):
            yield fields.as_id(click.get("id", click.get("doc_id")), row, "document")


def _is_click(feedback: Mapping[str, Any]) -> bool:
    """Whether a line of feedback is a click, or something that means as much."""
    for name in ("type", "event", "kind", "action"):
        if name in feedback:
            return str(feedback[name]).lower() in _CLICK_WORDS
    return True
