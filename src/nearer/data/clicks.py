"""Click logs → judgments.

A document becomes relevant (grade 1) for a query when it was clicked in at least two separate
sessions that asked the same query (compared without case, spacing and punctuation), and its clicks
say more than its position does, in one of two ways:

- *skip-above* (Joachims et al. 2005): at least once it was clicked while a document ranked above
  it was shown and not clicked;
- *clicks over expected clicks* (Zhang & Jones 2007): it was clicked more often than documents at
  the ranks where it was shown are clicked on average in this log.

No click is no judgment: documents that were skipped stay unjudged.  What is dropped is counted.

How much a positive counts in training (its weight, kept in the query's metadata) is its clicks by
inverse propensity (see `nearer.data.propensity`), beside those of the query's best document, times
how satisfied people were where the log says so: a thumb up or a visit of 30 seconds is full
satisfaction.  A document with at least as many thumbs down as up is no positive.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nearer.config import Columns
from nearer.data import cells, fields, records
from nearer.data.near import normalise
from nearer.data.propensity import liking, propensities
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.types import Query

MIN_SESSIONS = 2
_CLICK_WORDS = ("click", "clicked", "open", "select", "use", "relevant", "up", "thumbs_up")
_UP = ("relevant", "up", "thumbs_up")
_DOWN = ("irrelevant", "not_relevant", "down", "thumbs_down")
#: Key of a query's metadata: document id → weight of the positive in training, above 0 to 1.
CLICK_WEIGHTS = "click_weights"
_LEAST_WEIGHT = 0.05
_SATISFIED = 30.0  # seconds on a document
#: Field of a click → how many of its units are a second.
_DWELL = {"dwell": 1.0, "dwell_seconds": 1.0, "dwell_ms": 1000.0}


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
    clicks_by_rank: Counter[int] = field(default_factory=Counter)
    satisfaction: list[float] = field(default_factory=list)  # of each click, 0 to 1
    thumbs: Counter[str] = field(default_factory=Counter)  # up and down
    clicks: int = 0
    skipped_above: bool = False  # clicked at least once below a document that was not


class _Evidences:
    """Evidence of a whole log, and how often documents at each rank are clicked."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[str, str], _Evidence] = defaultdict(_Evidence)
        self._impressions = Counter[int]()
        self._clicks = Counter[int]()

    def add(
        self, query_id: str, ranks: Mapping[str, int], clicked: Mapping[str, float], session: str
    ) -> None:
        """One request: the rank of each document that was returned, and how satisfying each click was."""
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
                evidence.clicks_by_rank[rank] += 1
                evidence.satisfaction.append(clicked[doc_id])
                evidence.skipped_above |= first_skipped < rank

    def reason_against(self, evidence: _Evidence) -> str | None:
        """Why clicks prove nothing; None where they make the document relevant."""
        if len(evidence.sessions) < MIN_SESSIONS:
            return "documents clicked in one session only"
        if evidence.thumbs["down"] and evidence.thumbs["down"] >= evidence.thumbs["up"]:
            return "documents with as many thumbs down as up"
        expected = self._expected_clicks(evidence) * (1 + 1e-9)
        if not evidence.skipped_above and evidence.clicks <= expected:
            return "documents clicked no more than their position explains"
        return None

    def weights(self, judgments: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
        """Weight of each positive beside the best one of its query; queries without a difference are left out."""
        looked_at = propensities(self.pairs.values())
        weights: dict[str, dict[str, float]] = {}
        for query_id, judged in judgments.items():
            liked = {doc_id: liking(self.pairs[query_id, doc_id], looked_at) for doc_id in judged}
            best = max(liked.values())
            own: dict[str, float] = {}
            for doc_id, value in liked.items():
                satisfaction = self.pairs[query_id, doc_id].satisfaction
                share = value / best * sum(satisfaction) / len(satisfaction)
                own[doc_id] = round(max(_LEAST_WEIGHT, min(1.0, share)), 4)
            if min(own.values()) < 1.0:
                weights[query_id] = own
        return weights

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
        clicked = _clicks(row)
        query = _query(row, columns)
        queries.setdefault(query.id, query)
        evidences.add(query.id, ranks, clicked, _session(row))
        for doc_id, thumb in _thumbs(row):
            evidences.pairs[query.id, doc_id].thumbs[thumb] += 1
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
    weights = evidences.weights(judgments)
    return ClickLog(
        queries={
            query_id: weighted(queries[query_id], weights.get(query_id)) for query_id in judgments
        },
        judgments=judgments,
        dropped={why: n for why, n in dropped.items() if n},
    )


def weighted(query: Query, weights: Mapping[str, float] | None) -> Query:
    """The query with the weights of its positives; as it is where there are none."""
    if not weights:
        return query
    return replace(query, metadata={**query.metadata, CLICK_WEIGHTS: dict(weights)})


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


def _clicks(row: Row) -> dict[str, float]:
    """Documents that were clicked, with the satisfaction of the click, 0 to 1."""
    clicked: dict[str, float] = {}
    for click in _events(row):
        if not isinstance(click, Mapping):
            clicked[fields.as_id(click, row, "document")] = 1.0
        elif _is_click(click):
            doc_id = fields.as_id(click.get("id", click.get("doc_id")), row, "document")
            clicked[doc_id] = max(clicked.get(doc_id, 0.0), _satisfaction(click, row))
    return clicked


def _thumbs(row: Row) -> Iterator[tuple[str, str]]:
    """Documents that people said something about, with `up` or `down`."""
    for click in _events(row):
        if isinstance(click, Mapping):
            kind = _kind(click)
            if kind in _UP or kind in _DOWN:
                doc_id = fields.as_id(click.get("id", click.get("doc_id")), row, "document")
                yield doc_id, "up" if kind in _UP else "down"


def _events(row: Row) -> list[Any]:
    """Everything that people did with the results."""
    clicks: Any = None
    for name in ("clicks", "clicked", "feedback"):
        if clicks is None:
            clicks = fields.structured(name, row)
    if not isinstance(clicks or [], list):
        raise row.bad("`clicks` must be a list of document ids")
    return list(clicks or ())


def _satisfaction(click: Mapping[str, Any], row: Row) -> float:
    """1 for a thumb up, a long visit, or where the log says nothing of it.  Raises DataError."""
    if _kind(click) in _UP:
        return 1.0
    for name, per_second in _DWELL.items():
        if cells.is_empty(click.get(name)):
            continue
        try:
            seconds = cells.number(click[name]) / per_second
        except ValueError:
            raise row.bad(f"the {name} {click[name]!r} of a click is no number") from None
        return max(0.0, min(1.0, seconds / _SATISFIED))
    return 1.0


def _is_click(feedback: Mapping[str, Any]) -> bool:
    """Whether a line of feedback is a click, or something that means as much."""
    kind = _kind(feedback)
    return kind is None or kind in _CLICK_WORDS


def _kind(feedback: Mapping[str, Any]) -> str | None:
    """What a line of feedback says it is; None where it says nothing."""
    for name in ("type", "event", "kind", "action"):
        if name in feedback:
            return str(feedback[name]).lower()
    return None
