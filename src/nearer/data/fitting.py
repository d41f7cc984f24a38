"""Findings as they come in, and which judgments fit the documents and queries they speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.data import near
from nearer.data.corpus import Corpus
from nearer.errors import DataError
from nearer.types import Finding, Judgments, Query

_FOREIGN = 0.5  # from this share of unknown ids on, the judgments belong to other data


@dataclass
class Found:
    """Findings as they come in."""

    examples: int
    items: list[Finding] = field(default_factory=list)

    def add(self, code: str, message: str, examples: Sequence[str] = (), count: int | None = None, **more: Any) -> None:
        """`count` is how many examples there are, where not all of them are given."""
        shown = tuple(_short(example) for example in examples[: self.examples])
        self.items.append(Finding(code, message, len(examples) if count is None else count, examples=shown, **more))

    def stop_if_fatal(self) -> None:
        fatal = [item for item in self.items if item.fatal]
        if fatal:
            raise DataError("\n".join(item.message for item in fatal), where=fatal[0].where, next_step=fatal[0].next_step)


def notice_item_to_item(
    corpus: Corpus, queries: Mapping[str, Query], judgments: Mapping[str, Judgments], setting: bool | None, found: Found
) -> bool:
    """Whether queries are documents: their ids are, and their words too (small numbers may be ids of both by chance)."""
    ids = sorted({query_id for graded in judgments.values() for query_id in graded if query_id in queries})
    both = [query_id for query_id in ids if query_id in corpus]
    noticed = bool(ids) and len(both) >= 0.9 * len(ids)
    if noticed:
        sample = both[:: max(1, len(both) // 100)]
        overlaps = []
        for query_id in sample:
            words = set(near.normalise(queries[query_id].text).split())
            document = corpus[corpus.position(query_id)]
            overlaps.append(len(words & set(near.normalise(document.content).split())) / max(len(words), 1))
        noticed = bool(np.median(overlaps) >= 0.5)
    if setting is not None:
        return setting
    if noticed:
        found.add(
            "item_to_item",
            f"Item-to-item data: {len(both)} of {len(ids)} judged queries are documents. An item is left out of its own results.",
            count=len(both),
            next_step="set data.item_to_item: false if a query may find itself",
        )
    return noticed


def fitting_judgments(
    corpus: Corpus, queries: Mapping[str, Query], judgments: Mapping[str, Judgments], item_to_item: bool, found: Found
) -> dict[str, dict[str, dict[str, int]]]:
    """Judgments without those of unknown documents or queries, and of an item for itself."""
    doc_ids = {doc_id for graded in judgments.values() for judged in graded.values() for doc_id in judged}
    query_ids = {query_id for graded in judgments.values() for query_id in graded}
    for what, ids, known in (("documents", doc_ids, corpus), ("queries", query_ids, queries)):
        lost = sorted(one for one in ids if one not in known)
        if not ids:
            continue
        fatal = len(lost) >= _FOREIGN * len(ids)
        if lost:
            message = f"{len(lost)} of the {len(ids)} judged {what} are not in the data"
            if fatal:
                own_id = next(iter(known.ids if isinstance(known, Corpus) else known), "")
                message += f", for example {lost[0]!r} (the data has {own_id!r}): these judgments belong to another corpus."
            else:
                message += ". Their judgments are left out."
            found.add(
                f"missing_{what}",
                message,
                lost,
                fatal=fatal,
                where="data.judgments" if fatal else None,
                next_step="name the judgments that belong to this corpus, or the right id column in data.columns" if fatal else None,
            )
    own = 0
    fitting: dict[str, dict[str, dict[str, int]]] = {}
    for name, graded in judgments.items():
        fitting[name] = {}
        for query_id in sorted(query_id for query_id in graded if query_id in queries):
            judged = {d: grade for d, grade in graded[query_id].items() if d in corpus and not (item_to_item and d == query_id)}
            own += item_to_item and query_id in graded[query_id]
            fitting[name][query_id] = judged
    if own:
        found.add("self_judgments", f"{own} items are judged relevant to themselves; these judgments are left out.", count=own)
    if not query_ids:
        found.add("no_judgments", "There are no judgments.", fatal=True, where="data.judgments")
    return fitting


def usable_queries(
    queries: Mapping[str, Query], judgments: Mapping[str, dict[str, dict[str, int]]], found: Found
) -> dict[str, dict[str, dict[str, int]]]:
    """Judgments of queries that have a text and at least one relevant document."""
    judged = {query_id for graded in judgments.values() for query_id in graded}
    unjudged = [f"{query_id}: {query.text}" for query_id, query in queries.items() if query_id not in judged]
    if unjudged:
        found.add("queries_without_judgments", f"{len(unjudged)} of {len(queries)} queries have no judgment and are not used.", unjudged)
    blank = sorted(query_id for query_id in judged if not queries[query_id].text.strip())
    if blank:
        found.add("empty_queries", f"{len(blank)} judged queries have no text and are left out.", blank)
    barren = sorted({q for graded in judgments.values() for q, docs in graded.items() if not any(docs.values())} - set(blank))
    if barren:
        found.add(
            "queries_without_relevant",
            f"{len(barren)} judged queries have no relevant document in the corpus and are left out: no ranking could score above 0.",
            [f"{query_id}: {queries[query_id].text}" for query_id in barren],
        )
    useless = set(blank)
    usable = {
        name: {q: docs for q, docs in graded.items() if q not in useless and any(docs.values())} for name, graded in judgments.items()
    }
    if not any(usable.values()):
        found.add("no_usable_query", "No query has both a text and a relevant document.", fatal=True, where="data.judgments")
    return usable


def _short(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
