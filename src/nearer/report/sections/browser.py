"""Every judged query with its results before and after, as data that the page's script draws on demand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from nearer.measure.slices import STOP_WORDS
from nearer.report.data import ReportData
from nearer.report.values import Json, as_list, as_number, as_object, as_objects, as_text, words

_MOST_QUERIES, _MOST_DOCUMENTS, _MOST_HITS = 2000, 40_000, 10


def browser(data: ReportData) -> Json | None:
    """The data as JSON that is safe inside a page, and the counts; None without queries."""
    table = browsed(data)
    if not table["queries"]:
        return None
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    # Inside a script element only `<` could end it; in JSON it may be written as an escape.
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return {
        "data": Markup(safe),  # noqa: S704 - holds no `<`
        "shown": len(table["queries"]),
        "n": as_number(as_object(data.queries).get("n")) or len(table["queries"]),
        "measure": table["measure"],
        "baseline": table["baseline"],
        "candidate": table["candidate"],
        "counts": counts(table["queries"]),
    }


def browsed(data: ReportData) -> dict[str, Any]:
    """The queries of `queries.json` with the causes that were diagnosed, everything as it is drawn."""
    table = as_object(data.queries)
    documents = [_document(row) for row in as_list(table.get("documents"))[:_MOST_DOCUMENTS]]
    slices = [as_text(name, 80) for name in as_list(table.get("slices"))]
    causes = _causes(data.failures)
    names = sorted({name for found in causes.values() for name in found})
    queries = []
    for row in as_objects(table.get("queries"))[:_MOST_QUERIES]:
        query = _query(row, len(documents), len(slices))
        if query is not None:
            found = causes.get(query["id"], ())
            query["causes"] = [names.index(name) for name in found]
            queries.append(query)
    return {
        "measure": as_text(table.get("measure"), 40),
        "baseline": as_text(table.get("baseline"), 80),
        "candidate": as_text(table.get("candidate"), 80),
        "slices": slices,
        "causes": [words(name) for name in names],
        "stop": sorted(STOP_WORDS),
        "documents": documents,
        "queries": queries,
    }


def counts(queries: Iterable[Json]) -> dict[str, int]:
    """How many queries gained, lost and stayed, and how many lost or found all they have."""
    counted = dict.fromkeys(("better", "same", "worse", "lost", "found"), 0)
    for query in queries:
        before, after = query["before"], query["after"]
        if after > before:
            counted["better"] += 1
        elif after < before:
            counted["worse"] += 1
        else:
            counted["same"] += 1
        counted["lost"] += before > 0 and after == 0
        counted["found"] += before == 0 and after > 0
    return counted


def _causes(failures: Iterable[Any]) -> dict[str, list[str]]:
    """Query id → the causes of its failures, each once."""
    causes: dict[str, dict[str, None]] = {}
    for line in as_objects(list(failures)):
        name = as_text(line.get("cause"), 60)
        if name:
            causes.setdefault(as_text(line.get("query_id"), 200), {})[name] = None
    return {query_id: list(names) for query_id, names in causes.items()}


def _document(row: Any) -> list[str]:
    texts = [as_text(value, 200) for value in as_list(row)[:3]]
    return texts + [""] * (3 - len(texts))


def _query(row: Json, n_documents: int, n_slices: int) -> dict[str, Any] | None:
    before, after = as_number(row.get("before")), as_number(row.get("after"))
    if before is None or after is None:
        return None
    return {
        "id": as_text(row.get("id"), 200),
        "text": as_text(row.get("text"), 400),
        "split": as_text(row.get("split"), 20),
        "before": before,
        "after": after,
        "slices": _positions(row.get("slices"), n_slices, n_slices),
        "relevant": _positions(row.get("relevant"), n_documents, _MOST_HITS),
        "hits": [
            _positions(row.get("before_top"), n_documents, _MOST_HITS),
            _positions(row.get("after_top"), n_documents, _MOST_HITS),
        ],
    }


def _positions(value: Any, count: int, most: int) -> list[int]:
    """Positions below `count`; anything else is left out."""
    positions = []
    for item in as_list(value)[:most]:
        if type(item) is int and 0 <= item < count:
            positions.append(item)
    return positions
