"""The story of one query and document: where it stands, what each repair does, the list around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nearer import config
from nearer.diagnosis.evidence import diagnosed
from nearer.diagnosis.values import ByName, Diagnosis, Pair
from nearer.errors import DataError
from nearer.search.systems import Systems
from nearer.types import Query, Run, Split, typed_query

_AROUND = 5  # first results shown in the story of a pair
_BESIDE = 2  # results shown on each side of the document


def failure_line(pair: Pair, diagnosis: Diagnosis, probes: ByName, k: int) -> dict[str, Any]:
    return {
        "query_id": pair[0],
        "doc_id": pair[1],
        "cause": diagnosis.cause,
        "kind": diagnosis.kind,
        "probes": {name: probe.as_dict(k) for name, probe in probes.items()},
        "evidence": diagnosis.evidence,
        "also": list(diagnosis.also),
    }


def label(systems: Systems, doc_id: str, length: int = 120) -> str:
    """Title or beginning of a document."""
    document = systems.corpus.get(doc_id)
    if document is None:
        return ""
    text = document.title or " ".join(document.text.split())
    if len(text) <= length:
        return text
    return text[: length - 1] + "…"


def why(
    systems: Systems,
    splits: Sequence[Split],
    query: str,
    documents: Sequence[str],
    settings: config.Config,
) -> list[dict[str, Any]]:
    """The story of a query and each document: probes, cause, and the baseline's list around the document.

    `query` is the id of a train or dev query, or any text; without `documents` its relevant ones are
    meant.  Raises DataError for unknown ids.
    """
    known, judged = _query_of(splits, query)
    if known is None and (not documents or " " not in query.strip()):
        step = "give the id of a train or dev query, or a text of several words with a document id"
        raise DataError(f"no train or dev query called {query!r}", where="query", next_step=step)
    for doc_id in documents:
        if doc_id not in systems.corpus and doc_id not in judged:
            raise DataError(
                f"no document called {doc_id!r}",
                where="document",
                next_step="check the id in the corpus file",
            )
    asked = known or typed_query(query)
    grade = settings.data.min_grade
    chosen = list(documents) or [doc_id for doc_id, value in judged.items() if value >= grade]
    judged.update(dict.fromkeys(chosen, 1))
    split = Split(f"why {asked.id}", (asked,), {asked.id: judged})
    probes, diagnoses = diagnosed(systems, split, {asked.id: chosen}, settings)
    baseline = systems.base(systems.today)
    run = systems.run(baseline, split, settings.diagnose.depth)
    stories: list[dict[str, Any]] = []
    for doc_id in chosen:
        pair = (asked.id, doc_id)
        story = failure_line(pair, diagnoses[pair], probes[pair], settings.diagnose.k)
        rank = run.rank(*pair)
        if known is None:
            story["query_id"] = "your query"
        story["query"] = asked.text
        story["document"] = label(systems, doc_id)
        story["rank"] = rank
        story["fails"] = rank is None or rank > settings.diagnose.k
        story["around"] = _around(systems, split, run, rank)
        stories.append(story)
    return stories


def _query_of(splits: Iterable[Split], query_id: str) -> tuple[Query | None, dict[str, int]]:
    """The query of a split that has this id, with its judgments; None where no split has it."""
    for split in splits:
        for query in split.queries:
            if query.id == query_id:
                return query, dict(split.judgments.get(query_id, {}))
    return None, {}


def _around(systems: Systems, split: Split, run: Run, rank: int | None) -> list[dict[str, Any]]:
    """The first results of the one query of a split, and those around a rank."""
    query_id = split.queries[0].id
    shown = set(range(1, _AROUND + 1))
    if rank is not None:
        shown.update(range(rank - _BESIDE, rank + _BESIDE + 1))
    judged = split.judgments[query_id]
    hits = run.results.get(query_id, ())
    rows: list[dict[str, Any]] = []
    for position, (doc_id, score) in enumerate(hits, start=1):
        if position not in shown:
            continue
        rows.append(
            {
                "rank": position,
                "id": doc_id,
                "score": score,
                "title": label(systems, doc_id),
                "relevant": judged.get(doc_id, 0) > 0,
            }
        )
    return rows
