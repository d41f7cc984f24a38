"""`queries.json`: every query that was judged, with its results before and after, for the report.

Bounded: at most 2,000 queries (those of test before those of dev, the most changed first), eight
results each (five where there are many queries), and the beginning of each document once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.data.corpus import Corpus
from nearer.decision.candidates import Finalists, PlannedCandidate
from nearer.decision.inputs import DecisionInputs
from nearer.measure.metrics import Scores, score
from nearer.search.slices import slices_of
from nearer.types import Run, Split

MOST_QUERIES = 2000
_HITS, _HITS_OF_MANY, _MANY = 8, 5, 500
_TITLE, _TEXT, _QUERY = 120, 120, 400  # characters

Json = dict[str, Any]


@dataclass
class _Documents:
    """The documents that any query shows, each written once; queries name their position."""

    corpus: Corpus
    rows: list[list[str]] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)

    def position(self, doc_id: str) -> int:
        if doc_id not in self.positions:
            self.positions[doc_id] = len(self.rows)
            document = self.corpus.get(doc_id)
            row = [doc_id, "", ""]
            if document is not None:
                row = [doc_id, _cut(document.title, _TITLE), _cut(document.text, _TEXT)]
            self.rows.append(row)
        return self.positions[doc_id]

    def of(self, doc_ids: Sequence[str]) -> list[int]:
        return [self.position(doc_id) for doc_id in doc_ids]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True, slots=True)
class _Judged:
    """The results of both systems for the queries of a split."""

    split: Split
    before: tuple[Run, Scores]
    after: tuple[Run, Scores]

    def changes(self, measure: str) -> list[tuple[str, float, float]]:
        """(query id, before, after) of each query, the most changed first."""
        before = self.before[1].column(measure).tolist()
        after = self.after[1].column(measure).tolist()
        rows = list(zip(self.before[1].query_ids, before, after, strict=True))
        rows.sort(key=lambda row: -abs(row[2] - row[1]))
        return rows


def browsed_queries(
    plan: Sequence[PlannedCandidate], finalists: Finalists, inputs: DecisionInputs
) -> Json:
    """The whole file; empty where nothing is set against the baseline."""
    challenger = finalists.challenger
    if challenger is None:
        return {}
    today = finalists.today
    judged = [
        _Judged(inputs.test, (today.run, today.scores), (challenger.run, challenger.scores)),
        _on_dev(plan, (today.name, challenger.name), inputs),
    ]
    slices = _slices(inputs)
    names = list(slices)
    documents = _Documents(inputs.base.corpus)
    scored = sum(len(each.before[1]) for each in judged)
    hits = _HITS if scored <= _MANY else _HITS_OF_MANY
    queries: list[Json] = []
    for each in judged:
        texts = {query.id: query.text for query in each.split.queries}
        changes = each.changes(inputs.primary)
        for query_id, before, after in changes[: MOST_QUERIES - len(queries)]:
            tops = [side[0].top(query_id, hits) for side in (each.before, each.after)]
            shown = {doc_id for top in tops for doc_id in top}
            # Those that stand in a list first, so that none of its marks is cut.
            relevant = sorted(each.split.relevant(query_id), key=lambda doc: doc not in shown)
            queries.append(
                {
                    "id": query_id,
                    "text": _cut(texts[query_id], _QUERY),
                    "split": each.split.name,
                    "before": round(before, 4),
                    "after": round(after, 4),
                    "slices": [names.index(name) for name in names if query_id in slices[name]],
                    "relevant": documents.of(relevant[: 2 * hits]),
                    "before_top": documents.of(tops[0]),
                    "after_top": documents.of(tops[1]),
                }
            )
    return {
        "measure": inputs.primary,
        "baseline": today.name,
        "candidate": challenger.name,
        "n": scored,
        "slices": names,
        "documents": documents.rows,
        "queries": queries,
    }


def _on_dev(
    plan: Sequence[PlannedCandidate], names: tuple[str, str], inputs: DecisionInputs
) -> _Judged:
    """Results on dev are there already: choices rested on them."""
    planned = {each.name: each for each in plan}
    results = []
    for name in names:
        each = planned[name]
        run = each.systems.run(each.pipeline, inputs.dev)
        scores = score(run, inputs.dev, [inputs.primary], each.systems.item_to_item)
        results.append((run, scores))
    before, after = results
    return _Judged(inputs.dev, before, after)


def _slices(inputs: DecisionInputs) -> Mapping[str, set[str]]:
    """Slices over the queries of both splits, found in one pass over the documents."""
    both = Split(
        f"{inputs.test.name} and {inputs.dev.name}",
        (*inputs.test.queries, *inputs.dev.queries),
        {**inputs.dev.judgments, **inputs.test.judgments},
    )
    grade = inputs.settings.data.min_grade
    slices = slices_of(both, inputs.base.corpus, grade, inputs.training_judgments)
    least = inputs.settings.evaluate.min_slice
    return {name: ids for name, ids in slices.items() if len(ids) >= least}
