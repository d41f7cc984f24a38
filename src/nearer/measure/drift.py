"""Is today's sample from where the reference came from, what tells them apart, and is a rate worse than it was?

Every test gives the size of the effect beside its p value: with thousands of queries a difference
that nobody need care about is significant.  Vectors and terms belong to *distinct* queries, because
a repetition (a user's, a crawler's) is no new evidence, and to those that only one side has: a query
in both teaches a classifier that it belongs to either, which hides the new ones (measured: AUC .41).
p values are exact or conservative.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

PERMUTATIONS = 999
#: vectors of each side that the two-sample tests look at: enough to see a tenth of the traffic move
MOST = 800
_FOLDS = 5
_EDGE = 0.95  # quantile of the reference's distances from which a query lies outside every cluster
_GROUPED = 500  # vectors outside that are put into groups
_SMALLEST = 5  # queries of a group
_SESSION = 300.0  # seconds within which a user's next query may be a reformulation


@dataclass(frozen=True, slots=True)
class Shift:
    """A sample against its reference: how far it moved, by chance with probability `p`, and its value with a 95% interval."""

    size: float
    p: float
    value: float
    low: float
    high: float
    before: float = 0.0

    def within(self, share: float, unmoved: float = 0.0) -> Shift:
        """The shift of a whole of which only this share moved, and the rest is `unmoved`."""
        moved = {
            name: unmoved + (getattr(self, name) - unmoved) * share
            for name in ("value", "low", "high", "before")
        }
        return replace(self, size=self.size * share, **moved)


@dataclass(frozen=True, slots=True)
class Novelty:
    """Queries that lie outside every cluster of the reference: their share, which they are, and the groups they form."""

    shift: Shift
    outside: np.ndarray  # (n,) bool
    groups: tuple[np.ndarray, ...]  # positions, the largest group first


# -- one number a query ---------------------------------------------------------------------------------


def psi(reference: np.ndarray, sample: np.ndarray, bins: int = 10) -> float:
    """Population stability index over the reference's deciles (Siddiqi 2006, *Credit Risk Scorecards*, ch. 9).

    Σ (b - a)·ln(b / a) over the shares of each bin, half a count added to each; from .1 on it is
    customarily called a moderate change, from .25 on a large one.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, one, side="right"), minlength=len(edges) + 1) + 0.5
        for one in (reference, sample)
    ]
    before, now = (count / count.sum() for count in counts)
    return float(np.sum((now - before) * np.log(now / before)))


def score_shift(reference: np.ndarray, sample: np.ndarray) -> Shift:
    """PSI as the size, the two-sample Kolmogorov-Smirnov test as the p value; value and interval are those of the mean."""
    from scipy.stats import ks_2samp

    mean, half = float(sample.mean()), 1.96 * float(sample.std()) / len(sample) ** 0.5
    p = float(ks_2samp(reference, sample, method="asymp").pvalue)
    return Shift(psi(reference, sample), p, mean, mean - half, mean + half, float(reference.mean()))


def mean_shift(before: Sequence[np.ndarray], now: np.ndarray, worse: Literal[1, -1] = 1) -> Shift:
    """Is a mean worse (greater, or smaller with -1) than in a reference, of which each part is a day?  One-sided.

    Shares (bool) are compared by Fisher's exact test, other values by Welch's.  Days differ more than
    chance says; that spread divides the number of observations (quasi-likelihood: McCullagh and
    Nelder 1989, §4.5).  The interval is Wilson's for shares, normal for means.
    """
    from scipy.stats import binomtest, hypergeom, ttest_ind_from_stats

    pooled = np.concatenate(list(before))
    spread = _dispersion(before, pooled)
    was, value = float(pooled.mean()), float(now.mean())
    n0, n1 = (max(1, round(len(one) / spread)) for one in (pooled, now))
    if now.dtype == bool:
        k0, k1 = round(was * n0), round(value * n1)
        found = hypergeom(n0 + n1, k0 + k1, n1)
        p = found.sf(k1 - 1) if worse > 0 else found.cdf(k1)
        interval = binomtest(k1, n1).proportion_ci(method="wilson")
        low, high = float(interval.low), float(interval.high)
    else:
        sd0, sd1 = (float(one.std(ddof=1)) if len(one) > 1 else 0.0 for one in (pooled, now))
        half = 1.96 * sd1 / n1**0.5
        low, high = value - half, value + half
        if min(n0, n1) < 2 or sd0 == sd1 == 0:
            p = 0.0 if (value - was) * worse > 0 and min(n0, n1) > 1 else 1.0
        else:
            # Few values may not have shown their spread: ten queries that all score 0 are no news
            # where nine in ten always did.
            sd1 = max(sd0, sd1)
            side = "greater" if worse > 0 else "less"
            p = ttest_ind_from_stats(
                value, sd1, n1, was, sd0, n0, equal_var=False, alternative=side
            ).pvalue
    return Shift((value - was) * worse, float(p), value, low, high, was)


def _dispersion(days: Sequence[np.ndarray], pooled: np.ndarray) -> float:
    """Pearson's χ² over its degrees of freedom: how much more days differ than their observations let expect; at least 1."""
    variance = float(pooled.var())
    if len(days) < 3 or not variance:
        return 1.0
    return max(
        1.0,
        float(sum(len(day) * (day.mean() - pooled.mean()) ** 2 for day in days))
        / variance
        / (len(days) - 1),
    )


# -- behaviour ------------------------------------------------------------------------------------------


def corrected_clicks(ranks: Sequence[Collection[int]], depth: int = 10) -> np.ndarray:
    """Clicks of each request as if every rank were looked at alike, (n,) float64.

    Inverse propensity weighting (Joachims, Swaminathan and Schnabel, WSDM 2017).  The examination of
    a rank is *assumed*, not estimated: 1 / log2(rank + 1), the discount of nDCG; ranks beyond `depth`
    do not count, which bounds the weight.  Relevant documents that move down lower the plain click
    rate; those that are gone lower this as well.
    """
    return np.array(
        [sum(np.log2(rank + 1.0) for rank in one if rank <= depth) for one in ranks],
        dtype=np.float64,
    )


def reformulated(
    users: Sequence[str | None], seconds: np.ndarray, asked: Sequence[Collection[str]]
) -> np.ndarray:
    """(n,) bool, in order of time: the same user next asks something else that shares a term, within five minutes.

    The term-overlap rule of Jansen, Booth and Spink (JASIST 2009).
    """
    found = np.zeros(len(users), bool)
    last: dict[str, int] = {}
    for place, user in enumerate(users):
        if user is None:
            continue
        before = last.get(user)
        if before is not None and seconds[place] - seconds[before] <= _SESSION:
            mine, theirs = set(asked[place]), set(asked[before])
            found[before] = mine != theirs and bool(mine & theirs)
        last[user] = place
    return found


# -- vectors --------------------------------------------------------------------------------------------


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return np.asarray(
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32
    )


def two_sample(
    reference: np.ndarray,
    sample: np.ndarray,
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
    parts = [one[rng.permutation(len(one))[:most]] for one in (reference, sample)]
    pooled, labels = (
        unit(np.concatenate(parts)),
        np.repeat([False, True], [len(one) for one in parts]),
    )
    order = rng.permutation(len(pooled))  # ties must not follow the labels
    pooled, labels = pooled[order], labels[order]
    shuffled = np.stack(
        [labels, *(rng.permutation(labels) for _ in range(permutations))], axis=1
    ).astype(np.float32)
    shifts = []
    for statistic, null in (
        (_mmd(pooled, shuffled), 0.0),
        (_auc(_out_of_fold(pooled, rng) @ (shuffled - labels.mean()), shuffled), 0.5),
    ):
        p = float((statistic >= statistic[0]).mean())  # the observed labels are among the columns
        half = 1.96 * float(statistic[1:].std())
        value, low, high = (
            float(np.sqrt(max(0.0, one))) if null == 0 else float(one)
            for one in statistic[0] + np.array([0, -half, half])
        )
        shifts.append(Shift(value - null, p, value, low, high, null))
    return shifts[0], shifts[1]


def _mmd(pooled: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """MMD² of every column of labels, (n_columns,) float64."""
    squared = np.maximum(2.0 - 2.0 * (pooled @ pooled.T), 0.0)
    kernel = np.exp(-squared / (2.0 * max(float(np.median(squared)), 1e-9)))
    np.fill_diagonal(kernel, 0.0)
    m = float(labels[:, 0].sum())
    n = len(pooled) - m
    inside = np.einsum("nc,nc->c", labels, kernel @ labels, dtype=np.float64)
    across = kernel.sum(1, dtype=np.float64) @ labels - inside
    others = float(kernel.sum(dtype=np.float64)) - 2 * across - inside
    return np.asarray(inside / (m * (m - 1)) + others / (n * (n - 1)) - 2 * across / (n * m))


def _out_of_fold(pooled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, n): times labels gives the scores of ridge regressions that did not see them; the penalty is the mean eigenvalue."""
    centred = pooled - pooled.mean(0)
    fold = rng.permutation(len(pooled)) % _FOLDS
    hat = np.zeros((len(pooled), len(pooled)), np.float32)
    for number in range(_FOLDS):
        out, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        gram = centred[rest].T @ centred[rest]
        gram[np.diag_indices_from(gram)] += max(float(np.trace(gram)) / len(gram), 1e-9)
        hat[np.ix_(out, rest)] = centred[out] @ np.linalg.solve(gram, centred[rest].T)
    return hat


def _auc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    ranks = scores.argsort(0).argsort(0) + 1.0
    m = float(labels[:, 0].sum())
    return np.asarray(
        (np.einsum("nc,nc->c", ranks, labels) - m * (m + 1) / 2) / (m * (len(labels) - m))
    )


def new_clusters(reference: np.ndarray, sample: np.ndarray, rng: np.random.Generator) -> Novelty:
    """Queries farther from every cluster of the reference than nearly all of its own queries are.

    Half of the reference gives the centres (k-means, k = √(n/2)), the other half says how far its
    queries lie, so that centres do not flatter the queries they were made of.  Those outside are
    grouped by average linkage, cut where two queries would lie that are both that far from one centre.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.cluster.vq import kmeans2

    reference, sample = unit(reference), unit(sample)
    order = rng.permutation(len(reference))
    learned, held = reference[order[::2]], reference[order[1::2]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster that loses its last query keeps its centre
        centres = unit(
            kmeans2(learned, max(1, round((len(learned) / 2) ** 0.5)), minit="++", rng=rng)[0]
        )
    border = float(np.quantile(_distance(held, centres), _EDGE))
    outside = _distance(sample, centres) > border
    shift = mean_shift([_distance(held, centres) > border], outside)
    places = np.flatnonzero(outside)[:_GROUPED]
    if len(places) < _SMALLEST:
        return Novelty(shift, outside, ())
    numbers = fcluster(
        linkage(sample[places].astype(np.float64), "average", metric="cosine"),
        1 - (1 - border) ** 2,
        "distance",
    )
    groups = [places[numbers == number] for number in np.unique(numbers)]
    return Novelty(
        shift,
        outside,
        tuple(sorted((one for one in groups if len(one) >= _SMALLEST), key=len, reverse=True)),
    )


def _distance(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Cosine distance to the nearest centre."""
    return np.asarray(1.0 - (vectors @ centres.T).max(1))


# -- words ----------------------------------------------------------------------------------------------


def telling_terms(
    reference: Sequence[Collection[str]], sample: Sequence[Collection[str]], most: int = 8
) -> list[str]:
    """Terms that the sample uses more than the reference, the surest first; each text counts a term once.

    Log-odds ratio with an informative Dirichlet prior, the two sides together, as z scores from 2 on
    (Monroe, Colaresi and Quinn 2008, eq. 16 and 22).
    """
    before, now = (
        Counter(term for text in texts for term in set(text)) for texts in (reference, sample)
    )
    total = before + now
    n0, n1 = before.total(), now.total()
    prior = 0.1 * (n0 + n1)
    found = []
    for term in now:
        weight = prior * total[term] / (n0 + n1)
        a, b = now[term] + weight, before[term] + weight
        odds = np.log(a / max(n1 + prior - a, 1e-9)) - np.log(b / max(n0 + prior - b, 1e-9))
        found.append((float(odds / np.sqrt(1 / a + 1 / b)), term))
    return [term for z, term in sorted(found, key=lambda one: (-one[0], one[1]))[:most] if z >= 2]


def new_terms(
    reference: Sequence[Collection[str]], sample: Sequence[Collection[str]], known: Collection[str]
) -> tuple[Shift, np.ndarray]:
    """Share of texts with a term that neither the reference nor `known` has, and which texts these are, (n,) bool.

    What is to be expected comes from the reference itself: a text is new in it when one of its terms
    stands in no other (Good 1953: as many are unseen as were seen once).
    """
    counts = Counter(term for text in reference for term in set(text))
    before = np.array(
        [any(counts[term] == 1 and term not in known for term in text) for text in reference], bool
    )
    now = np.array(
        [any(term not in counts and term not in known for term in text) for text in sample], bool
    )
    return mean_shift([before], now), now
