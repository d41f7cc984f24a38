"""What the causes of all failures add up to: each repair's gain, the ceiling of fine-tuning, freshness."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nearer.diagnosis.causes import causes
from nearer.measure.metrics import score
from nearer.types import Run, Split, rank_hits

_NEWEST = 0.75  # quantile from which documents are new
_FEWEST, _FEWEST_NEW = 40, 10  # documents with a date, and new ones, below which nothing is said
_TIMES = 1.5  # how much more often new documents must be missed


def promote(run: Run, repaired: Mapping[str, Sequence[str]]) -> Run:
    """The run as if the documents of `repaired` (query id → document ids) had been ranked first."""
    results = {}
    for query_id, hits in run.results.items():
        first = list(dict.fromkeys(repaired.get(query_id, ())))
        if not first:
            results[query_id] = hits
            continue
        order = [*first, *(doc_id for doc_id, _ in hits if doc_id not in first)]
        descending = range(len(order), 0, -1)
        results[query_id] = rank_hits(zip(order, map(float, descending), strict=True))
    return Run(run.name, results)


def waterfall(
    run: Run, split: Split, failures: Sequence[Mapping[str, Any]], measure: str
) -> dict[str, Any]:
    """What each repair would give, cause by cause in order of cost, and what semantic failures hold.

    `failures` are lines of `failures.jsonl`.  Returns `steps` (each cause with its failures, the
    queries that still fail after it and the measure then) and `fine_tuning_ceiling`: the measure if
    every semantic failure were found first, as an upper bound, nothing else repaired.
    """
    baseline = score(run, split, [measure]).mean(measure)
    semantic = _measure_with(run, split, _of(failures, {"semantic"}), measure)
    possible = _measure_with(run, split, _of(failures, {"semantic", "unknown"}), measure)
    shortfall = max(1.0 - baseline, 1e-12)
    ceiling = {
        "measure": measure,
        "today": baseline,
        "if_found": semantic,
        "gain": semantic - baseline,
        "share_of_shortfall": (semantic - baseline) / shortfall,
        "if_unknown_were_semantic": possible,
    }
    return {"steps": _steps(run, split, failures, measure), "fine_tuning_ceiling": ceiling}


def _steps(
    run: Run, split: Split, failures: Sequence[Mapping[str, Any]], measure: str
) -> list[dict[str, Any]]:
    """Each cause that has failures: the measure once they, and those of cheaper causes, are repaired."""
    failing = {line["query_id"] for line in failures if line.get("query_fails", True)}
    repaired: list[Mapping[str, Any]] = []
    steps: list[dict[str, Any]] = []
    for cause in causes():
        lines = _of(failures, {cause.name})
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


def _of(failures: Iterable[Mapping[str, Any]], names: Collection[str]) -> list[Mapping[str, Any]]:
    """The failures of some causes."""
    return [line for line in failures if line["cause"] in names]


def _measure_with(
    run: Run, split: Split, repaired: Iterable[Mapping[str, Any]], measure: str
) -> float:
    """The measure if the documents of some failures were ranked first."""
    documents: dict[str, list[str]] = {}
    for line in repaired:
        documents.setdefault(line["query_id"], []).append(line["doc_id"])
    return score(promote(run, documents), split, [measure]).mean(measure)


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
    dates, missed = dates[known], missed[known]
    if len(dates) < _FEWEST or len(np.unique(dates)) < 4 or not missed.any() or missed.all():
        return None
    border = float(np.quantile(dates, _NEWEST))
    new = dates > border
    if new.sum() < _FEWEST_NEW:
        new = dates >= border
    table = [
        [int((missed & new).sum()), int((~missed & new).sum())],
        [int((missed & ~new).sum()), int((~missed & ~new).sum())],
    ]
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
