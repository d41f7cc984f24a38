"""Query vectors of a sample against those of its reference: two-sample tests and new clusters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from nearer.measure.drift.shift import Shift, mean_shift
from nearer.measure.vectors import unit_rows

PERMUTATIONS = 999
#: vectors of each side that the two-sample tests look at: enough to notice a tenth of the traffic move
MOST = 800
_NORMAL_95 = 1.96  # standard errors of half a 95% interval
_CHANCE = 0.5  # AUC of a classifier that tells nothing apart
_FOLDS = 5
_EDGE = 0.95  # quantile of the reference's distances from which a query lies outside every cluster
_GROUPED = 500  # vectors outside that are put into groups
_SMALLEST = 5  # queries of a group


Vectors = np.ndarray  # (n, d) float32
Rows = np.ndarray  # positions of queries, int64
Columns = np.ndarray  # (n, n_columns): the observed labels in column 0, then permuted ones
Statistic = np.ndarray  # (n_columns,) float64: one value per column


@dataclass(frozen=True, slots=True)
class Novelty:
    """Queries that lie outside every cluster of the reference: their share, which they are, and the groups they form."""

    shift: Shift
    outside: np.ndarray  # (n,) bool
    groups: tuple[Rows, ...]  # the largest group first


def unit(vectors: np.ndarray) -> Vectors:
    """Rows of length 1, float32."""
    return np.asarray(unit_rows(vectors), np.float32)


def two_sample(
    reference: Vectors,
    sample: Vectors,
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
    most: int = MOST,
) -> tuple[Shift, Shift]:
    """Maximum mean discrepancy, and the AUC of a classifier that tells the two apart, with permutation p values.

    MMD: unbiased, Gaussian kernel, bandwidth the median distance (Gretton et al., JMLR 2012); its
    size is √MMD².  AUC: out-of-fold scores of a ridge classifier (Lopez-Paz and Oquab, ICLR 2017);
    its size is AUC - .5.  Both are linear or quadratic in the labels, so that all permutations are
    one matrix product each, and both p values are exact: (k+1)/(B+1).
    """
    parts = [_some(vectors, rng, most) for vectors in (reference, sample)]
    sizes = [len(part) for part in parts]
    labels = np.repeat([False, True], sizes)
    pooled = unit(np.concatenate(parts))
    order = rng.permutation(len(pooled))  # ties must not follow the labels
    pooled = pooled[order]
    labels = labels[order]
    columns = [labels]
    for _ in range(permutations):
        columns.append(rng.permutation(labels))
    shuffled = np.stack(columns, axis=1)
    shuffled = shuffled.astype(np.float32)

    discrepancy = _mmd(pooled, shuffled)
    hat = _out_of_fold(pooled, rng)
    scores = hat @ (shuffled - labels.mean())
    auc = _auc(scores, shuffled)
    return _mmd_shift(discrepancy), _auc_shift(auc)


def _some(vectors: Vectors, rng: np.random.Generator, most: int) -> Vectors:
    """At most so many rows, drawn without repetition."""
    drawn = rng.permutation(len(vectors))[:most]
    return vectors[drawn]


def _mmd_shift(squares: Statistic) -> Shift:
    observed = squares[0]
    half = _half_interval(squares)
    value = _root(observed)
    return Shift(
        size=value,
        p=_permutation_p(squares),
        value=value,
        low=_root(observed - half),
        high=_root(observed + half),
    )


def _root(square: float) -> float:
    return float(np.sqrt(max(0.0, square)))


def _auc_shift(values: Statistic) -> Shift:
    value = float(values[0])
    half = _half_interval(values)
    return Shift(
        size=value - _CHANCE,
        p=_permutation_p(values),
        value=value,
        low=value - half,
        high=value + half,
        before=_CHANCE,
    )


def _permutation_p(statistic: Statistic) -> float:
    """Share of the columns at least as large as the observed one, which is among them."""
    extreme = statistic >= statistic[0]
    return float(extreme.mean())


def _half_interval(statistic: Statistic) -> float:
    permuted = statistic[1:]
    return _NORMAL_95 * float(permuted.std())


def _mmd(pooled: Vectors, labels: Columns) -> Statistic:
    """MMD² of every column of labels."""
    kernel = _gaussian_kernel(pooled)
    m = float(labels[:, 0].sum())
    n = len(pooled) - m
    inside = np.einsum("nc,nc->c", labels, kernel @ labels, dtype=np.float64)
    row_sums = kernel.sum(1, dtype=np.float64)
    across = row_sums @ labels - inside
    everything = float(kernel.sum(dtype=np.float64))
    others = everything - 2 * across - inside
    within = inside / (m * (m - 1))
    within += others / (n * (n - 1))
    return np.asarray(within - 2 * across / (n * m))


def _gaussian_kernel(pooled: Vectors) -> np.ndarray:
    """(n, n) float32 without its diagonal; the bandwidth is the median distance."""
    squared = 2.0 - 2.0 * (pooled @ pooled.T)
    squared = np.maximum(squared, 0.0)
    bandwidth = max(float(np.median(squared)), 1e-9)
    kernel = np.exp(-squared / (2.0 * bandwidth))
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel)


def _out_of_fold(pooled: Vectors, rng: np.random.Generator) -> np.ndarray:
    """(n, n): times labels gives the scores of ridge regressions that were not fitted to them.

    The penalty is the mean eigenvalue.
    """
    n = len(pooled)
    centred = pooled - pooled.mean(0)
    fold = rng.permutation(n) % _FOLDS
    hat = np.zeros((n, n), np.float32)
    for number in range(_FOLDS):
        out = np.flatnonzero(fold == number)
        rest = np.flatnonzero(fold != number)
        fitted = centred[rest]
        # Not `fitted.T @ fitted`: BLAS rounds that differently, and reported intervals would move.
        gram = centred[rest].T @ fitted
        eigenvalue = float(np.trace(gram)) / len(gram)
        diagonal = np.diag_indices_from(gram)
        gram[diagonal] += max(eigenvalue, 1e-9)
        solution = np.linalg.solve(gram, fitted.T)
        block = np.ix_(out, rest)
        hat[block] = centred[out] @ solution
    return hat


def _auc(scores: np.ndarray, labels: Columns) -> Statistic:
    """AUC of every column of scores for its column of labels."""
    order = scores.argsort(0)
    ranks = order.argsort(0) + 1.0
    m = float(labels[:, 0].sum())
    n = len(labels) - m
    rank_sums = np.einsum("nc,nc->c", ranks, labels)
    pairs_won = rank_sums - m * (m + 1) / 2
    return np.asarray(pairs_won / (m * n))


def new_clusters(reference: Vectors, sample: Vectors, rng: np.random.Generator) -> Novelty:
    """Queries farther from every cluster of the reference than nearly all of its own queries are.

    Half of the reference gives the centres (k-means, k = √(n/2)), the other half says how far its
    queries lie, so that centres do not flatter the queries they were made of.  Those outside are
    grouped by average linkage, cut where two queries would lie that are both that far from one centre.
    """
    reference = unit(reference)
    sample = unit(sample)
    order = rng.permutation(len(reference))
    learned = reference[order[::2]]
    held = reference[order[1::2]]
    centres = _centres(learned, rng)
    usual = _distance(held, centres)
    border = float(np.quantile(usual, _EDGE))
    outside = _distance(sample, centres) > border
    shift = mean_shift([usual > border], outside)
    rows = np.flatnonzero(outside)[:_GROUPED]
    groups: tuple[Rows, ...] = ()
    if len(rows) >= _SMALLEST:
        groups = _groups(sample, rows, border)
    return Novelty(shift, outside, groups)


def _centres(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """Centres of √(n/2) clusters, of length 1."""
    from scipy.cluster.vq import kmeans2

    root = (len(vectors) / 2) ** 0.5
    k = max(1, round(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster that loses its last query keeps its centre
        centres, _ = kmeans2(vectors, k, minit="++", rng=rng)
    return unit(centres)


def _groups(vectors: Vectors, rows: Rows, border: float) -> tuple[Rows, ...]:
    """The rows in groups of queries that lie together, the largest first."""
    from scipy.cluster.hierarchy import fcluster, linkage

    wide = vectors[rows].astype(np.float64)
    tree = linkage(wide, "average", metric="cosine")
    height = 1 - (1 - border) ** 2
    numbers = fcluster(tree, height, "distance")
    groups = [rows[numbers == number] for number in np.unique(numbers)]
    large = [group for group in groups if len(group) >= _SMALLEST]
    return tuple(sorted(large, key=len, reverse=True))


def _distance(vectors: Vectors, centres: Vectors) -> np.ndarray:
    """Cosine distance to the nearest centre."""
    similarities = vectors @ centres.T
    return np.asarray(1.0 - similarities.max(1))
