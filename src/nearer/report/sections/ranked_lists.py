"""The section of wins and losses: queries with their ranked lists before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.decision.record import DecisionRecord
from nearer.report.values import Json, as_objects

MAX_EXAMPLES, MAX_RANKED = 20, 10


def examples(data: Json, decided: DecisionRecord) -> Json | None:
    """Wins and losses with their ranked lists, and queries that the candidate no longer answers."""
    groups = []
    for key in ("wins", "losses"):
        rows = as_objects(data.get(key))
        group = {
            "key": key,
            "rows": [_example(row) for row in rows[:MAX_EXAMPLES]],
            "more": max(0, len(rows) - MAX_EXAMPLES),
        }
        groups.append(group)
    flips = decided.negative_flips
    any_example = any(group["rows"] for group in groups)
    if not flips and not any_example:
        return None
    return {"groups": groups, "flips": flips}


def _example(row: Json) -> Json:
    """One query: ranks of its relevant documents, and both lists with what moved."""
    judged = as_objects(row.get("relevant"))
    relevant = {_id(doc): doc.get("title") for doc in judged}
    before = as_objects(row.get("before_top"))[:MAX_RANKED]
    after = as_objects(row.get("after_top"))[:MAX_RANKED]
    before_ranks = _ranks(before)
    after_ranks = _ranks(after)
    left = []
    right = []
    for rank, doc in enumerate(before, start=1):
        move = _departure(_id(doc), after_ranks)
        left.append(_entry(doc, rank, relevant, move))
    for rank, doc in enumerate(after, start=1):
        move = _arrival(before_ranks.get(_id(doc)), rank)
        right.append(_entry(doc, rank, relevant, move))
    ranked = []
    for doc_id, title in relevant.items():
        old = _rank_in_words(before_ranks, doc_id)
        new = _rank_in_words(after_ranks, doc_id)
        entry = {"id": doc_id, "title": title}
        ranked.append({**entry, "before": old, "after": new})
    return {
        **row,
        "relevant": ranked[:8],
        "columns": [("Before", left), ("After", right)],
    }


def _id(doc: Json) -> str:
    return str(doc.get("id"))


def _ranks(hits: list[Json]) -> dict[str, int]:
    return {_id(doc): rank for rank, doc in enumerate(hits, start=1)}


def _rank_in_words(ranks: Mapping[str, int], doc_id: str) -> str:
    if doc_id in ranks:
        return str(ranks[doc_id])
    if ranks:
        return f"beyond {len(ranks)}"
    return "not found"


def _entry(doc: Json, rank: int, relevant: Mapping[str, Any], move: tuple[str, str]) -> Json:
    """A document of a list; `move` is its tone and its words.

    Only relevant documents have the tone: an irrelevant one that moves down is no loss.
    """
    is_marked = doc.get("relevant") is True
    is_relevant = is_marked or _id(doc) in relevant
    tone, change = move
    if not is_relevant:
        tone = ""
    return {
        **doc,
        "rank": rank,
        "relevant": is_relevant,
        "tone": tone,
        "change": change,
    }


def _departure(doc_id: str, after_ranks: Mapping[str, int]) -> tuple[str, str]:
    if doc_id in after_ranks:
        return "", ""
    return "gone", "gone"


def _arrival(before: int | None, rank: int) -> tuple[str, str]:
    """Tone and words for a document's move from rank `before` to `rank`."""
    if before is None:
        return "new", "new"
    if rank < before:
        return "up", f"▲ {before - rank}"
    if rank > before:
        return "down", f"▼ {rank - before}"
    return "", "="
