"""How biased are estimates from a part of a pool?  `python bench/pooling.py [--repeats N]`

Simulates queries with graded relevant documents and systems of different quality, pools their
first ten results, hides 70% of the pool's judgments by the design of `nearer pool make`, and prints
the bias of three estimates of nDCG@10: what is hidden counting as not relevant, the importance
weights alone (infNDCG), and the weights corrected by queries judged whole (`pooled_mean`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from nearer.measure.pooled import (
    PooledMean,
    PooledValues,
    SampledPool,
    pooled_mean,
    weighted_ndcg,
)
from nearer.measure.sampling import rank_stratum, sample_pool

DEPTH = 10
_DOCUMENTS = 60
_SYSTEMS = 3
_SAMPLES = 12  # samples of each pool, which the repeats mix

#: Name of a population → mean number of relevant documents, grades, and how they are spread.
POPULATIONS = {
    "one or two relevant": (1.3, (1,)),
    "about three, graded": (3.0, (1, 2, 3)),
    "about eight, graded": (8.0, (1, 2, 3)),
}


@dataclass(frozen=True, slots=True)
class Query:
    """`grades` by document, and the first results of each system."""

    grades: dict[str, int]
    rankings: list[list[str]]

    def pool(self) -> dict[str, int]:
        """Document → stratum."""
        best: dict[str, int] = {}
        for ranking in self.rankings:
            for rank, doc_id in enumerate(ranking, start=1):
                best[doc_id] = min(rank, best.get(doc_id, rank))
        return {doc_id: rank_stratum(best[doc_id]) for doc_id in sorted(best)}


def simulated(n: int, population: str, rng: np.random.Generator) -> list[Query]:
    """Queries that differ in how much is relevant and in how hard it is to find."""
    mean, grades = POPULATIONS[population]
    queries = []
    for _ in range(n):
        relevant = min(int(rng.geometric(1.0 / mean)), _DOCUMENTS)
        truth = np.zeros(_DOCUMENTS, dtype=np.int64)
        truth[:relevant] = rng.choice(grades, relevant)
        shared = rng.normal(0.0, 0.6, _DOCUMENTS) + (truth > 0) * rng.normal(0.0, 0.7)
        rankings = []
        for system in range(_SYSTEMS):
            signal = (truth > 0) * (1.0 + 0.4 * system) + 0.2 * truth
            scores = signal + shared + rng.normal(0.0, 0.8, _DOCUMENTS)
            rankings.append([f"d{row}" for row in np.argsort(-scores)[:DEPTH].tolist()])
        graded = {f"d{row}": int(grade) for row, grade in enumerate(truth)}
        queries.append(Query(graded, rankings))
    return queries


@dataclass(frozen=True, slots=True)
class Prepared:
    """Per system, query and sample: (systems, n) exact, (samples, systems, n) the others."""

    exact: np.ndarray
    relevant: np.ndarray  # (n,)
    weighted: np.ndarray
    naive: np.ndarray
    seen: np.ndarray  # (samples, n)
    shares: np.ndarray  # (samples, n) of each pool that was judged


def prepare(queries: list[Query], share: float, rng: np.random.Generator) -> Prepared:
    """What each of several samples of every pool says."""
    n = len(queries)
    exact = np.zeros((_SYSTEMS, n))
    relevant = np.zeros(n, dtype=bool)
    weighted, naive = (np.zeros((_SAMPLES, _SYSTEMS, n)) for _ in range(2))
    seen = np.zeros((_SAMPLES, n), dtype=bool)
    shares = np.zeros((_SAMPLES, n))
    for column, query in enumerate(queries):
        strata = query.pool()
        docs = list(strata)
        full = SampledPool(strata, {doc_id: query.grades[doc_id] for doc_id in docs})
        relevant[column] = any(full.grades.values())
        for system, ranking in enumerate(query.rankings):
            exact[system, column] = weighted_ndcg(ranking, full, DEPTH) or 0.0
        for sample in range(_SAMPLES):
            chosen = sample_pool(np.array(list(strata.values())), share, rng)
            kept = [doc_id for doc_id, taken in zip(docs, chosen, strict=True) if taken]
            judged = {doc_id: query.grades[doc_id] for doc_id in kept}
            seen[sample, column] = any(judged.values())
            shares[sample, column] = len(judged) / len(docs)
            part = SampledPool(strata, judged)
            alone = SampledPool(dict.fromkeys(judged, 0), judged)  # nothing else exists
            for system, ranking in enumerate(query.rankings):
                weighted[sample, system, column] = weighted_ndcg(ranking, part, DEPTH) or 0.0
                naive[sample, system, column] = weighted_ndcg(ranking, alone, DEPTH) or 0.0
    return Prepared(exact, relevant, weighted, naive, seen, shares)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means over the repeats, (systems,) each; `judged` is the share of the pool's judgments."""

    truth: np.ndarray
    naive: np.ndarray
    weighted: np.ndarray
    corrected: np.ndarray
    error: np.ndarray  # the spread of the corrected estimate
    covered: float
    judged: float


def simulate(
    population: str, n: int, repeats: int, rng: np.random.Generator, shown: float = 0.3
) -> Outcome:
    """Hide all but `shown` of the judgments, again and again.  Half of the budget goes to whole pools."""
    queries = simulated(n, population, rng)
    whole_share = shown / 2.0
    prepared = prepare(queries, (shown - whole_share) / (1.0 - whole_share), rng)
    counted = max(1, int(prepared.relevant.sum()))
    truth = prepared.exact.sum(axis=1) / counted
    rows = []
    naive = []
    judged = []
    for _ in range(repeats):
        sample = rng.integers(0, _SAMPLES, n)
        whole = np.zeros(n, dtype=bool)
        whole[rng.permutation(n)[: round(whole_share * n)]] = True
        each = np.arange(n)
        seen = prepared.seen[sample, each]
        judged.append(np.where(whole, 1.0, prepared.shares[sample, each]).mean())
        for system in range(_SYSTEMS):
            exact = np.where(whole, prepared.exact[system], 0.0)
            predicted = prepared.weighted[sample, system, each]
            values = PooledValues(
                np.ones(n), predicted, seen, whole, exact, prepared.relevant & whole
            )
            rows.append(pooled_mean(values))
            naive.append(prepared.naive[sample, system, each][seen].mean())
    return _outcome(truth, rows, np.array(naive), float(np.mean(judged)))


def _outcome(
    truth: np.ndarray, rows: list[PooledMean], naive: np.ndarray, judged: float
) -> Outcome:
    plain = np.array([row.plain for row in rows], dtype=np.float64).reshape(-1, _SYSTEMS)
    means, covered = [], []
    for number, row in enumerate(rows):
        if row.corrected is None:
            raise ValueError(
                "no query with a relevant document was judged whole: take more queries"
            )
        means.append(row.corrected.mean)
        covered.append(row.corrected.low <= truth[number % _SYSTEMS] <= row.corrected.high)
    corrected = np.array(means).reshape(-1, _SYSTEMS)
    return Outcome(
        truth=truth,
        naive=naive.reshape(-1, _SYSTEMS).mean(axis=0),
        weighted=plain.mean(axis=0),
        corrected=corrected.mean(axis=0),
        error=corrected.std(axis=0),
        covered=float(np.mean(covered)),
        judged=judged,
    )


def main() -> None:
    """Print one line per population: the mean absolute bias over the systems."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "| population | judged | hidden = not relevant | weights alone | corrected | sd | covered |"
    )
    print("|---|---|---|---|---|---|---|")
    for number, population in enumerate(POPULATIONS):
        rng = np.random.default_rng([arguments.seed, number])
        found = simulate(population, arguments.queries, arguments.repeats, rng)
        biases = [
            f"{np.abs(values - found.truth).mean():.3f}"
            for values in (found.naive, found.weighted, found.corrected)
        ]
        print(
            f"| {population} | {found.judged:.0%} | {' | '.join(biases)} "
            f"| {found.error.mean():.3f} | {found.covered:.1%} |"
        )


if __name__ == "__main__":
    main()
