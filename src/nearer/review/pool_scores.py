"""What the judgments of a pool say so far: every system's measure with an interval, its bounds, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.fields import query_line
from nearer.errors import DataError
from nearer.files import write_jsonl
from nearer.measure.pooled import (
    PooledMean,
    PooledValues,
    SampledPool,
    inferred_ap,
    ndcg_bounds,
    pooled_mean,
    weighted_ndcg,
)
from nearer.review.consensus import settled_grades
from nearer.review.judgments import CANNOT_TELL, GRADES, Judgments, Subject
from nearer.review.origins import TEST
from nearer.review.pool_queries import PooledQuery
from nearer.review.pools import SAMPLE, Pool, PooledDocument, folder_of, test_query
from nearer.types import Run


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query whose sample is judged: from the sample alone, and from all where its pool is judged whole."""

    query_id: str
    weight: float
    sample: SampledPool
    full: SampledPool | None


@dataclass(frozen=True, slots=True)
class SystemScore:
    """One system; `low` and `high` bound nDCG whatever the unjudged documents of the pools are."""

    name: str
    ndcg: PooledMean
    ap: PooledMean
    low: float
    high: float
    values: PooledValues  # nDCG per query


@dataclass(frozen=True, slots=True)
class PoolScores:
    """`differences` are of each system and the first one, in nDCG."""

    measure: str
    systems: Sequence[SystemScore]
    differences: Mapping[str, PooledMean]
    n_queries: int
    open: int  # queries whose sample is not judged yet
    judged: int  # documents
    asked: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        systems = []
        for each in self.systems:
            systems.append(
                {
                    "name": each.name,
                    self.measure: each.ndcg.as_dict(),
                    "AP": each.ap.as_dict(),
                    "bounds": [each.low, each.high],
                }
            )
        return {
            "measure": self.measure,
            "systems": systems,
            "differences": {name: mean.as_dict() for name, mean in self.differences.items()},
            "n_queries": self.n_queries,
            "open": self.open,
            "judged": self.judged,
            "asked": self.asked,
        }


def judged_queries(pool: Pool, judgments: Judgments, *, by_requests: bool) -> list[JudgedQuery]:
    """The queries whose sample is judged; one for which no system finds anything is judged as it is.

    A document of which people cannot tell is left out of its pool.  `by_requests`: a query counts
    as often as it is asked; else each different query counts once.
    """
    grades = settled_grades(judgments)
    found = []
    for query_id, pooled in pool.queries.items():
        told = []
        for each in pool.documents.get(query_id, ()):
            subject = (query_id, each.doc_id)
            if subject in grades or not _is_untellable(judgments, subject):
                told.append(each)
        if any(each.part == SAMPLE and (query_id, each.doc_id) not in grades for each in told):
            continue
        weight = _weight(pooled, by_requests)
        complete = all((query_id, each.doc_id) in grades for each in told)
        full = _pool_of(told, grades) if complete and pooled.whole else None
        sampled = [each for each in told if each.part == SAMPLE]
        found.append(JudgedQuery(query_id, weight, _pool_of(told, grades, sampled), full))
    return found


def _weight(pooled: PooledQuery, by_requests: bool) -> float:
    """Requests, or queries, that a drawn query stands for."""
    return pooled.stands_for if by_requests else 1.0 / pooled.probability


def _is_untellable(judgments: Judgments, subject: Subject) -> bool:
    said = judgments.by_subject.get(subject, {})
    return any(entry.action == CANNOT_TELL for entry in said.values())


def _pool_of(
    told: Sequence[PooledDocument],
    grades: Mapping[Subject, int],
    judged: Sequence[PooledDocument] | None = None,
) -> SampledPool:
    """The pool with the grades of `judged` alone (None: of all)."""
    strata = {each.doc_id: each.stratum for each in told}
    chosen = told if judged is None else judged
    return SampledPool(strata, {each.doc_id: grades[each.query_id, each.doc_id] for each in chosen})


def score_pool(pool: Pool, judgments: Judgments, *, by_requests: bool, alpha: float) -> PoolScores:
    """Every system of a pool.

    Raises DataError while no query has its sample judged.
    """
    queries = judged_queries(pool, judgments, by_requests=by_requests)
    grades = settled_grades(judgments)
    every = [each for found in pool.documents.values() for each in found if each.is_asked]
    judged = sum((each.query_id, each.doc_id) in grades for each in every)
    if not queries or not judged:
        raise DataError(
            f"no query of the pool {pool.name} is judged yet ({judged} of {len(every)} documents are)",
            where=str(pool.name),
            next_step="nearer review serve",
        )
    depth = int(pool.facts["depth"])
    known = _known_queries(pool, grades, by_requests=by_requests)
    systems = []
    for name in pool.runs:
        bounds = _bounds(pool.runs[name], known, depth)
        systems.append(_score(pool.runs[name], name, queries, depth, alpha, bounds))
    differences = {}
    for each in systems[1:]:
        differences[each.name] = pooled_mean(each.values.less(systems[0].values), alpha)
    return PoolScores(
        measure=f"nDCG@{depth}",
        systems=systems,
        differences=differences,
        n_queries=len(queries),
        open=len(pool.queries) - len(queries),
        judged=judged,
        asked=len(every),
    )


@dataclass(frozen=True, slots=True)
class _KnownQuery:
    """One query of the pool with every grade that people settled; the rest of its pool is unjudged."""

    query_id: str
    weight: float
    pool: SampledPool


def _known_queries(
    pool: Pool, grades: Mapping[Subject, int], *, by_requests: bool
) -> list[_KnownQuery]:
    """Every query that may have something relevant, also an open one.

    What reviewers disagree on or cannot tell is unjudged here: the bounds hold whatever it is.
    """
    known = []
    for query_id, pooled in pool.queries.items():
        documents = pool.documents.get(query_id, ())
        judged = [each for each in documents if (query_id, each.doc_id) in grades]
        sampled = _pool_of(documents, grades, judged)
        if any(sampled.grades.values()) or len(judged) < len(documents):
            known.append(_KnownQuery(query_id, _weight(pooled, by_requests), sampled))
    return known


def _bounds(run: Run, queries: Sequence[_KnownQuery], depth: int) -> tuple[float, float]:
    """Bounds of the mean of one system, whatever the unjudged documents of the pools are."""
    if not queries:
        return 0.0, 1.0
    lows, highs, weights = [], [], []
    for each in queries:
        top = run.top(each.query_id, depth)
        low, high = ndcg_bounds(top, each.pool, depth, max(GRADES))
        lows.append(low)
        highs.append(high)
        weights.append(each.weight)
    return float(np.average(lows, weights=weights)), float(np.average(highs, weights=weights))


def _score(
    run: Run,
    name: str,
    queries: Sequence[JudgedQuery],
    depth: int,
    alpha: float,
    bounds: tuple[float, float],
) -> SystemScore:
    ndcg, ap = [], []
    for each in queries:
        top = run.top(each.query_id, depth)
        full = each.full
        ndcg.append(
            (
                weighted_ndcg(top, each.sample, depth),
                None if full is None else weighted_ndcg(top, full, depth),
            )
        )
        ap.append((inferred_ap(top, each.sample), None if full is None else inferred_ap(top, full)))
    values = _values(queries, ndcg)
    ap_mean = pooled_mean(_values(queries, ap), alpha)
    return SystemScore(name, pooled_mean(values, alpha), ap_mean, *bounds, values)


def _values(
    queries: Sequence[JudgedQuery], found: Sequence[tuple[float | None, float | None]]
) -> PooledValues:
    return PooledValues(
        weights=np.array([each.weight for each in queries]),
        predicted=np.array([predicted or 0.0 for predicted, _ in found]),
        seen=np.array([predicted is not None for predicted, _ in found]),
        whole=np.array([each.full is not None for each in queries]),
        exact=np.array([exact or 0.0 for _, exact in found]),
        relevant=np.array([exact is not None for _, exact in found]),
    )


def finish(root: Path, pool: Pool, judgments: Judgments) -> tuple[int, int]:
    """Write the queries whose pool is judged whole for `check`, which takes them into test.

    Returns how many there are, and how many of them have a relevant document.  Raises DataError
    where there is none.
    """
    queries = judged_queries(pool, judgments, by_requests=True)
    whole = [each for each in queries if each.full is not None]
    relevant = [each for each in whole if each.full is not None and any(each.full.grades.values())]
    if not relevant:
        raise DataError(
            f"no query of the pool {pool.name} is judged whole and has a relevant document",
            where=str(folder_of(root, pool.name)),
            next_step="nearer review serve",
        )
    lines = [query_line(test_query(pool.queries[each.query_id])) for each in relevant]
    write_jsonl(folder_of(root, pool.name) / TEST, lines)
    return len(whole), len(relevant)
