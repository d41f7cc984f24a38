"""What the causes of all failures add up to: each repair's gain, the ceiling of fine-tuning, freshness."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nearer.diagnosis.causes import causes
from nearer.diagnosis.values import Failure
from nearer.measure.metrics import score
from nearer.types import Run, Split, rank_hits

_NEWEST = 0.75  # quantile from which documents are new
_FEWEST, _FEWEST_DATES = 40, 4  # documents with a date, and dates, below which nothing is said
_FEWEST_NEW = 10  # documents after the quantile; of fewer, those at it are new too
_TIMES = 1.5  # how much more often new documents must be missed


def promote(run: Run, repaired: Mapping[str, Sequence[str]]) -> Run:
    """The run as if the documents of `repaired` (query id → document ids) had been ranked first."""
    results = {}
    for query_id, hits in run.results.items():
        first = list(dict.fromkeys(repaired.get(query_id, ())))
        if not first:
            results[query_id] = hits
            continue
        rest = [doc_id for doc_id, _ in hits if doc_id not in first]
        order = first + rest
        scores = map(float, range(len(order), 0, -1))
        promoted = zip(order, scores, strict=True)
        results[query_id] = rank_hits(promoted)
    return Run(run.name, results)


def waterfall(run: Run, split: Split, failures: Sequence[Failure], measure: str) -> dict[str, Any]:
    """What each repair would give, cause by cause in order of cost, and what semantic failures hold.

    `failures` are lines of `failures.jsonl`.  Returns `steps` (each cause with its failures, the
    queries that still fail after it and the measure then) and `fine_tuning_ceiling`: the measure if
    every semantic failure were found first, as an upper bound, nothing else repaired.
    """
    semantic_failures = _of(failures, ["semantic"])
    possible_failures = _of(failures, ["semantic", "unknown"])
    baseline = score(run, split, [measure]).mean(measure)
    semantic = _measure_with(run, split, semantic_failures, measure)
    possible = _measure_with(run, split, possible_failures, measure)
    shortfall = max(1.0 - baseline, 1e-12)
    ceiling = {
        "measure": measure,
        "today": baseline,
        "if_found": semantic,
        "gain": semantic - baseline,
        "share_of_shortfall": (semantic - baseline) / shortfall,
        "if_unknown_were_semantic": possible,
    }
    steps = _steps(run, split, failures, measure)
    return {"steps": steps, "fine_tuning_ceiling": ceiling}


def _steps(
    run: Run, split: Split, failures: Sequence[Failure], measure: str
) -> list[dict[str, Any]]:
    """Each cause that has failures: the measure once they, and those of cheaper causes, are repaired."""
    failing = {line["query_id"] for line in failures if line.get("query_fails", True)}
    repaired: list[Failure] = []
    steps: list[dict[str, Any]] = []
    for cause in causes():
        lines = _of(failures, [cause.name])
        if not lines:
            continue
        repaired += lines
        failing -= {line["query_id"] for line in lines}
        steps.append(
            {
                "cause": cause.name,
                "failures": len(lines),
                "failing_queries_left": len(failing),
                "measure": _measure_with(run, split, repaired, measure),
                "remedy": cause.remedy,
            }
        )
    return steps


def _of(failures: Iterable[Failure], names: Collection[str]) -> list[Failure]:
    """The failures of some causes."""
    return [line for line in failures if line["cause"] in names]


def _measure_with(run: Run, split: Split, repaired: Iterable[Failure], measure: str) -> float:
    """The measure if the documents of some failures were ranked first."""
    documents: dict[str, list[str]] = {}
    for line in repaired:
        of_query = documents.setdefault(line["query_id"], [])
        of_query.append(line["doc_id"])
    promoted = promote(run, documents)
    return score(promoted, split, [measure]).mean(measure)


def freshness(
    name: str, failed: Sequence[float], fine: Sequence[float], alpha: float = 0.01
) -> dict[str, Any] | None:
    """Do failures concentrate on the newest quarter of the relevant documents?

    `failed` and `fine` are the dates (any increasing number) of relevant documents of failing and
    of other queries, by field `name`.  One-sided Fisher test; None where there is nothing to say.
    """
    from scipy.stats import fisher_exact

    dates = np.array([*failed, *fine], dtype=np.float64)
    missed = np.arange(len(dates)) < len(failed)
    known = np.isfinite(dates)
    dates = dates[known]
    missed = missed[known]
    if len(dates) < _FEWEST or len(np.unique(dates)) < _FEWEST_DATES:
        return None
    if missed.all() or not missed.any():
        return None
    border = float(np.quantile(dates, _NEWEST))
    new = dates > border
    if new.sum() < _FEWEST_NEW:
        new = dates >= border
    table = [_counts(missed[new]), _counts(missed[~new])]
    rates = [row[0] / max(1, sum(row)) for row in table]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    if p >= alpha or rates[0] < _TIMES * rates[1]:
        return None
    return {
        "field": name,
        "newer_than": border,
        "failure_rate_newest": rates[0],
        "failure_rate_others": rates[1],
        "n_newest": sum(table[0]),
        "p": p,
        "remedy": "failures concentrate on the newest documents: update the index (nearer index sync) before any training",
    }


def _counts(missed: np.ndarray) -> list[int]:
    """How many are missed, and how many are not."""
    n_missed = int(missed.sum())
    return [n_missed, len(missed) - n_missed]
