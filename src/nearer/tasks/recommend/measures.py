"""What the lists of several systems do besides being right, in one table; cold items apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nearer.data.items import history_of
from nearer.measure.metrics import Scores, score
from nearer.measure.recommendation import (
    OF_ALL,
    PER_LIST,
    Catalogue,
    Lists,
    engagements,
    of_all,
    per_list,
)
from nearer.measure.vectors import unit_rows
from nearer.search.systems import Systems
from nearer.tasks.base import Findings, Sheet, TaskInputs
from nearer.types import Judgments, Run, Split

_FEWEST = 10  # queries of a part that is shown
_LEFT_OUT = "they count 0 in the first measures, and are left out of Popularity, Bias, Novelty and Diversity"


def cut_of(measure: str) -> int | None:
    """The k of `Coverage@10`; None where there is none."""
    _, at, k = measure.partition("@")
    if not at or not k.isdigit() or int(k) < 1:
        return None
    return int(k)


def judged_ids(split: Split) -> list[str]:
    """Queries with a relevant item, in the order of the split."""
    return [query.id for query in split.queries if split.relevant(query.id)]


def relevant_items(split: Split) -> dict[str, list[str]]:
    """What people chose, by query."""
    return {query.id: list(split.relevant(query.id)) for query in split.queries}


def shared_catalogue(base: Systems, with_vectors: bool) -> Catalogue:
    """The items, how popular each is in training, and where today's model puts them."""
    ids = base.corpus.ids
    vectors = unit_rows(base.document_vectors) if with_vectors else None
    return Catalogue(ids, engagements(base.trained, ids), vectors)


def lists_of(run: Run, ids: Sequence[str], catalogue: Catalogue, k: int) -> Lists:
    return Lists.of(run, ids, catalogue, k)


def findings(inputs: TaskInputs) -> Findings:
    """One row per system: is it right, and what else do its lists do?"""
    base, split, k = inputs.base, inputs.split, inputs.settings.recommend.k
    ids = judged_ids(split)
    catalogue = shared_catalogue(base, with_vectors=True)
    relevant = relevant_items(split)
    measures: dict[str, dict[str, float]] = {}
    scores = {}
    notes = _notes(catalogue)
    for name, run in inputs.runs.items():
        lists = lists_of(run, ids, catalogue, k)
        scores[name] = _right(run, split, k, base.item_to_item)
        values = {measure: scores[name].mean(measure) for measure in scores[name].values}
        for measure in OF_ALL:
            values[f"{measure}@{k}"] = of_all(measure, lists, len(catalogue.ids))
        for measure in PER_LIST:
            column = per_list(measure, lists, catalogue, relevant)
            if not np.isnan(column).all():
                values[f"{measure}@{k}"] = float(np.nanmean(column))
        measures[name] = {measure: round(value, 6) for measure, value in values.items()}
        empty = int((lists.items[:, 0] < 0).sum())
        if empty:
            notes.append(
                f"{name} finds nothing for {empty:,} of {len(ids):,} queries: {_LEFT_OUT}."
            )
    sheets = [_table(measures, len(ids)), *_cold(scores, split, inputs.trained, k)]
    return Findings(measures, sheets, notes)


def _right(run: Run, split: Split, k: int, items: bool) -> Scores:
    names = (f"nDCG@{k}", f"R@{k}", f"RR@{k}", f"Success@{k}")
    return score(run, split, names, items)


def _table(measures: Mapping[str, Mapping[str, float]], n_queries: int) -> Sheet:
    names = list(dict.fromkeys(name for values in measures.values() for name in values))
    rows = tuple(
        (name, *(values.get(measure) for measure in names)) for name, values in measures.items()
    )
    lead = (
        f"{n_queries:,} queries. Success is the hit rate; Coverage the share of all items that is "
        "shown to anybody; Gini how unequally (1: one item gets everything); Popularity the share "
        "of items less popular than what is shown; Bias how much more popular that is than what "
        "people chose; Novelty and Diversity: more is more surprising, and more different within a list."
    )
    return Sheet("What the lists do", lead, ("system", *names), rows)


def _cold(scores: Mapping[str, Scores], split: Split, trained: Judgments, k: int) -> list[Sheet]:
    """The same systems on warm and cold queries; none where a part has too few."""
    known = set(trained) | {doc_id for graded in trained.values() for doc_id in graded}
    warm: list[str] = []
    cold: list[str] = []
    for query in split.queries:
        items = history_of(query) or (query.id,)
        part = cold
        if any(item in known for item in items):
            part = warm
        part.append(query.id)
    parts = {"warm": warm, "cold": cold}
    rows = []
    for name, scored in scores.items():
        row: list[object] = [name]
        for ids in parts.values():
            positions = scored.positions(ids)
            column = scored.column(f"R@{k}")[positions]
            row.append(round(float(column.mean()), 6) if len(column) >= _FEWEST else None)
        rows.append(tuple(row))
    first = next(iter(scores.values()), None)
    sizes = [len(first.positions(ids)) if first is not None else 0 for ids in parts.values()]
    lead = (
        f"R@{k} on {sizes[0]:,} queries about items that training knows and {sizes[1]:,} about cold "
        "ones, with which nobody engaged there. A part of fewer than 10 queries says nothing."
    )
    return [
        Sheet("Warm and cold items", lead, ("system", f"warm R@{k}", f"cold R@{k}"), tuple(rows))
    ]


def _notes(catalogue: Catalogue) -> list[str]:
    unknown = int(np.count_nonzero(catalogue.engagements == 0))
    total = len(catalogue.ids)
    if not catalogue.engagements.any():
        return ["No training relations: popularity, bias and novelty say nothing here."]
    return [
        f"Popularity counts training relations alone; {unknown:,} of {total:,} items have none. "
        "Distances within lists are those of today's model for every system."
    ]
