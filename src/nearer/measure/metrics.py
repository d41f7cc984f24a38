"""Per-query measures of a run, by the names of ir-measures and the definitions of trec_eval.

trec_eval itself does the arithmetic (pytrec-eval-terrier); nearer adds what it leaves open:
queries without results count 0, queries without relevant documents are reported instead of
averaged, `RR@k` and `Judged@k` follow the same order of ties as every other measure (the
providers in ir-measures sort ties by ascending id there, trec_eval by descending), and a run
whose written order differs from trec_eval's is refused rather than silently re-sorted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nearer.errors import ConfigError, DataError
from nearer.measure.context import ContextEvidence, is_context, value_of
from nearer.types import MAX_GRADE, Hit, Judgments, Run, Split

_NAME = re.compile(r"^(?P<base>nDCG|R|P|RR|AP|Success|Judged)(?:@(?P<k>[1-9]\d{0,4}))?$")
#: trec_eval's name of each measure with a cut-off; RR@k is derived from RR, Judged@k is counted here
_TREC = {
    "nDCG": "ndcg_cut",
    "R": "recall",
    "P": "P",
    "Success": "success",
    "AP": "map_cut",
}
_WITHOUT_CUTOFF = {"AP": "map", "RR": "recip_rank"}

Values = dict[str, dict[str, float]]  # query id → document id or measure → value


@dataclass(frozen=True)
class Scores:
    """Values of several measures, per query.

    `values[measure]` is (n_queries,) float64 in the order of `query_ids` (the order of the
    split); `skipped` names the queries that have no relevant document and were left out.
    """

    query_ids: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.query_ids)

    def column(self, measure: str) -> np.ndarray:
        """(n_queries,) float64.  Raises ConfigError for a measure that was not asked for."""
        if measure not in self.values:
            problem = f"{measure} was not measured; there are {', '.join(self.values)}"
            raise ConfigError(problem, next_step=f"add {measure} to evaluate.measures")
        return self.values[measure]

    def mean(self, measure: str) -> float:
        """Mean over the queries; 0 when there are none."""
        column = self.column(measure)
        if not len(column):
            return 0.0
        return float(column.mean())

    def positions(self, query_ids: Iterable[str]) -> np.ndarray:
        """Ascending int64 positions of those queries that were scored."""
        wanted = set(query_ids)
        positions: list[int] = []
        for position, query_id in enumerate(self.query_ids):
            if query_id in wanted:
                positions.append(position)
        return np.array(positions, dtype=np.int64)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of `scores.jsonl`: `{"query_id", measure: value, …}`."""
        for position, query_id in enumerate(self.query_ids):
            row: dict[str, Any] = {"query_id": query_id}
            for name, column in self.values.items():
                row[name] = float(column[position])
            yield row


def score(
    run: Run,
    split: Split,
    measures: Sequence[str],
    item_to_item: bool = False,
    contexts: Mapping[str, ContextEvidence] | None = None,
) -> Scores:
    """Measure a run on the judged queries of a split.

    Names: nDCG@k, R@k, P@k, RR, RR@k, AP, AP@k, Success@k, Judged@k.  Grades from 1 on are
    relevant; nDCG takes the grade as gain (trec_eval's ndcg_cut: linear gain, log2 discount, ideal
    order from the judgments).  `item_to_item` drops each query from its own results and judgments.
    `contexts` (query id → its texts) are what the measures of contexts need besides
    (`nearer.measure.context`).

    Raises ConfigError for an unknown measure, DataError for a run that is not canonical (see
    `nearer.types.Run`): NaN scores, wrong order, a document twice.
    """
    import pytrec_eval

    parsed = {name: _parse(name) for name in measures}
    if item_to_item:
        run = drop_self(run)
    judgments: dict[str, dict[str, int]] = {}
    skipped: list[str] = []
    for query in split.queries:
        grades = _grades(split, query.id, item_to_item)
        if any(grades.values()):
            judgments[query.id] = grades
        else:
            skipped.append(query.id)
    retrieved: Values = {}
    for query_id in judgments:
        if run.results.get(query_id):
            retrieved[query_id] = _retrieved(run, query_id)

    trec_names = {measure.trec for measure in parsed.values() if measure.trec}
    evaluated: Values = {}
    if trec_names and retrieved:
        evaluator = pytrec_eval.RelevanceEvaluator(judgments, trec_names)
        evaluated = evaluator.evaluate(retrieved)
    values: dict[str, np.ndarray] = {}
    for name, measure in parsed.items():
        if is_context(name):
            values[name] = _context_column(name, judgments, contexts)
        elif measure.base == "Judged":
            values[name] = _judged_column(run, judgments, measure.k or 1)
        else:
            values[name] = _trec_column(evaluated, judgments, measure)
    return Scores(tuple(judgments), values, tuple(skipped))


def _grades(split: Split, query_id: str, item_to_item: bool) -> dict[str, int]:
    """Grades of one query as trec_eval takes them.  Raises DataError for one that is too large."""
    grades: dict[str, int] = {}
    for doc_id, grade in split.judgments.get(query_id, {}).items():
        if item_to_item and doc_id == query_id:
            continue
        # trec_eval counts a negative grade as not relevant; pytrec-eval cannot store one
        grades[doc_id] = max(int(grade), 0)
    if max(grades.values(), default=0) > MAX_GRADE:  # trec_eval's memory grows with it
        raise DataError(
            f"query {query_id!r} has a grade that is too large to be one",
            next_step=f"use grades up to {MAX_GRADE:,}",
        )
    return grades


def _trec_column(
    evaluated: Values,
    query_ids: Collection[str],
    measure: _Measure,
) -> np.ndarray:
    """What trec_eval measured per query; 0 for queries without results."""
    column = np.zeros(len(query_ids))
    for position, query_id in enumerate(query_ids):
        if query_id in evaluated:
            column[position] = evaluated[query_id][measure.trec]
    if measure.base == "RR" and measure.k:
        column[column < 1.0 / measure.k] = 0.0
    return column


def _judged_column(run: Run, judgments: Judgments, k: int) -> np.ndarray:
    """Share of the first k results that somebody judged (of those returned, when fewer than k)."""
    column = np.zeros(len(judgments))
    for position, (query_id, grades) in enumerate(judgments.items()):
        top = run.top(query_id, k)
        judged = [doc_id for doc_id in top if doc_id in grades]
        if top:
            column[position] = len(judged) / len(top)
    return column


def _context_column(
    name: str, query_ids: Collection[str], contexts: Mapping[str, ContextEvidence] | None
) -> np.ndarray:
    """A measure of contexts per query.  Raises ConfigError where there are only ids to measure."""
    if contexts is None:
        raise ConfigError(
            f"{name} needs the texts of the results, and here there are only their ids",
            next_step="put it into evaluate.measures: evaluate, fix and decide measure it",
        )
    column = np.zeros(len(query_ids))
    for position, query_id in enumerate(query_ids):
        if query_id in contexts:
            column[position] = value_of(name, contexts[query_id])
    return column


def drop_self(run: Run) -> Run:
    """The run without hits whose document is the query itself (item-to-item data)."""
    results: dict[str, list[Hit]] = {}
    for query_id, hits in run.results.items():
        results[query_id] = [hit for hit in hits if hit[0] != query_id]
    return Run(run.name, results, run.seconds, run.latencies)


class _Measure(NamedTuple):
    """A measure by its parts; `trec` is trec_eval's name of it, empty where it has none."""

    base: str
    k: int | None
    trec: str


def _parse(name: str) -> _Measure:
    """The measure that a name means.  Raises ConfigError."""
    if is_context(name):
        return _Measure(name.partition("@")[0], None, "")
    match = _NAME.match(name)
    base = match["base"] if match else ""
    if match is None or (match["k"] is None and base not in _WITHOUT_CUTOFF):
        known = (
            "use nDCG@k, R@k, P@k, RR, RR@k, AP, AP@k, Success@k or Judged@k, for example nDCG@10, "
            "or a measure of contexts such as ContextRecall@2000tok"
        )
        raise ConfigError(f"unknown measure {name!r}", next_step=known)
    if match["k"] is None:
        return _Measure(base, None, _WITHOUT_CUTOFF[base])
    k = int(match["k"])
    if base == "Judged":
        return _Measure(base, k, "")
    if base == "RR":  # trec_eval has no cut-off for it
        return _Measure(base, k, _WITHOUT_CUTOFF[base])
    return _Measure(base, k, f"{_TREC[base]}_{k}")


def _retrieved(run: Run, query_id: str) -> dict[str, float]:
    """Document id → score, having checked that trec_eval will read the same order as the run has."""
    hits = run.results[query_id]
    problem = _problem(hits)
    if problem:
        raise DataError(
            f"query {query_id!r}: {problem}",
            where=f"run {run.name!r}",
            next_step="order hits with nearer.types.rank_hits",
        )
    return dict(hits)


def _problem(hits: Sequence[Hit]) -> str | None:
    """Why hits are not canonical; None where they are."""
    doc_ids = [doc_id for doc_id, _ in hits]
    wide = np.array([score for _, score in hits], dtype=np.float64)
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused below
        scores = wide.astype(np.float32)
    if not np.isfinite(scores).all():
        return "a score is not a finite number"
    if len(set(doc_ids)) != len(doc_ids):
        return "a document appears twice"
    steps = np.diff(scores)
    ordered = not (steps > 0).any()
    for row in np.flatnonzero(steps == 0).tolist():
        if doc_ids[row] < doc_ids[row + 1]:
            ordered = False
    if not ordered:
        return "results are not in order of score, then id, both descending"
    return None
