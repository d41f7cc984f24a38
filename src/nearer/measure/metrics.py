"""Per-query measures of a run, by the names of ir-measures and the definitions of trec_eval.

trec_eval itself does the arithmetic (pytrec-eval-terrier); nearer adds what it leaves open:
queries without results count 0, queries without relevant documents are reported instead of
averaged, `RR@k` and `Judged@k` follow the same order of ties as every other measure (the
providers in ir-measures sort ties by ascending id there, trec_eval by descending), and a run
whose written order differs from trec_eval's is refused rather than silently re-sorted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.errors import ConfigError, DataError
from nearer.types import MAX_GRADE, Hit, Run, Split

_NAME = re.compile(r"^(?P<base>nDCG|R|P|RR|AP|Success|Judged)(?:@(?P<k>[1-9]\d{0,4}))?$")
#: trec_eval's name of each measure; RR@k is derived from RR, Judged@k is counted here
_TREC = {
    "nDCG": "ndcg_cut",
    "R": "recall",
    "P": "P",
    "Success": "success",
    "AP": "map_cut",
    "RR": "recip_rank",
}
_WITHOUT_CUTOFF = {"AP": "map", "RR": "recip_rank"}


@dataclass(frozen=True)
class Scores:
    """Values of several measures, a query at a time.

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
        return float(column.mean()) if len(column) else 0.0

    def positions(self, query_ids: Iterable[str]) -> np.ndarray:
        """Ascending int64 positions of those queries that were scored."""
        wanted = set(query_ids)
        return np.array(
            [i for i, query_id in enumerate(self.query_ids) if query_id in wanted], dtype=np.int64
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of `scores.jsonl`: `{"query_id", measure: value, …}`."""
        for i, query_id in enumerate(self.query_ids):
            yield {"query_id": query_id} | {
                name: float(column[i]) for name, column in self.values.items()
            }


def score(run: Run, split: Split, measures: Sequence[str], item_to_item: bool = False) -> Scores:
    """Measure a run on the judged queries of a split.

    Names: nDCG@k, R@k, P@k, RR, RR@k, AP, AP@k, Success@k, Judged@k.  Grades from 1 on are
    relevant; nDCG takes the grade as gain (trec_eval's ndcg_cut: linear gain, log2 discount, ideal
    order from the judgments).  `item_to_item` drops each query from its own results and judgments.

    Raises ConfigError for an unknown measure, DataError for a run that is not canonical (see
    `nearer.types.Run`): NaN scores, wrong order, a document twice.
    """
    import pytrec_eval

    parsed = {name: _parse(name) for name in measures}
    if item_to_item:
        run = drop_self(run)
    judgments: dict[str, dict[str, int]] = {}
    skipped = []
    for query in split.queries:
        # trec_eval counts a negative grade as not relevant; pytrec-eval cannot store one
        grades = {
            d: max(int(g), 0)
            for d, g in split.judgments.get(query.id, {}).items()
            if not (item_to_item and d == query.id)
        }
        if max(grades.values(), default=0) > MAX_GRADE:  # trec_eval's memory grows with it
            raise DataError(
                f"query {query.id!r} has a grade that is too large to be one",
                next_step=f"use grades up to {MAX_GRADE:,}",
            )
        if any(grades.values()):
            judgments[query.id] = grades
        else:
            skipped.append(query.id)
    query_ids = tuple(judgments)
    retrieved = {q: _retrieved(run, q) for q in query_ids if run.results.get(q)}

    wanted = {trec for _, _, trec in parsed.values() if trec}
    evaluated = (
        pytrec_eval.RelevanceEvaluator(judgments, wanted).evaluate(retrieved)
        if wanted and retrieved
        else {}
    )
    values = {}
    for name, (base, k, trec) in parsed.items():
        if base == "Judged":
            column = np.array(
                [_judged(run.results.get(q, ()), judgments[q], k or 1) for q in query_ids],
                dtype=np.float64,
            )
        else:
            column = np.array(
                [evaluated[q][trec] if q in evaluated else 0.0 for q in query_ids], dtype=np.float64
            )
            if base == "RR" and k:
                column = np.where(column >= 1.0 / k, column, 0.0)
        values[name] = column
    return Scores(query_ids, values, tuple(skipped))


def drop_self(run: Run) -> Run:
    """The run without hits whose document is the query itself (item-to-item data)."""
    results = {q: [hit for hit in hits if hit[0] != q] for q, hits in run.results.items()}
    return Run(run.name, results, run.seconds, run.latencies)


def _parse(name: str) -> tuple[str, int | None, str | None]:
    """Base name, cut-off and trec_eval's name (None where it has none)."""
    match = _NAME.match(name)
    base = match["base"] if match else ""
    if match is None or (match["k"] is None and base not in _WITHOUT_CUTOFF):
        known = (
            "use nDCG@k, R@k, P@k, RR, RR@k, AP, AP@k, Success@k or Judged@k, for example nDCG@10"
        )
        raise ConfigError(f"unknown measure {name!r}", next_step=known)
    k = int(match["k"]) if match["k"] else None
    if base == "Judged":
        return base, k, None
    return base, k, _WITHOUT_CUTOFF[base] if k is None or base == "RR" else f"{_TREC[base]}_{k}"


def _judged(hits: Sequence[Hit], grades: Mapping[str, int], k: int) -> float:
    """Share of the first k results that somebody judged (of those returned, when fewer than k)."""
    top = hits[:k]
    return sum(doc_id in grades for doc_id, _ in top) / len(top) if top else 0.0


def _retrieved(run: Run, query_id: str) -> dict[str, float]:
    """Document id → score, having checked that trec_eval will see the same order as the run shows."""
    hits = run.results[query_id]
    retrieved = dict(hits)
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused below
        scores = np.array([s for _, s in hits], dtype=np.float64).astype(np.float32)
    problem = None
    if not np.isfinite(scores).all():
        problem = "a score is not a finite number"
    elif len(retrieved) != len(hits):
        problem = "a document appears twice"
    else:
        steps = np.diff(scores)
        if (steps > 0).any() or any(
            hits[i][0] < hits[i + 1][0] for i in np.flatnonzero(steps == 0).tolist()
        ):
            problem = "results are not in order of score, then id, both descending"
    if problem:
        raise DataError(
            f"query {query_id!r}: {problem}",
            where=f"run {run.name!r}",
            next_step="order hits with nearer.types.rank_hits",
        )
    return retrieved
