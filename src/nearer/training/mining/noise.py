"""Which judged positives are probably wrong.

A wrong positive is, as far as anybody can tell without reading it, a document that some other query
is answered by.  So the judged pairs are a mixture of right ones and of random ones, and random ones
can be drawn at will: what the mixture's share is, and how probably a pair with given signals is a
random one, follows from comparing both (learning from positive and unlabelled examples: Elkan &
Noto 2008; the share by the best bin: Garg et al. 2021, "Mixture Proportion Estimation and PU
Learning").  Nothing is tuned to a data set, and no judgment vouches for itself: the classifier that
scores a pair has not seen its query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearer.training.mining.signals import Signals

#: No pair is a suspect below this probability.
SUSPICIOUS = 0.3
#: Share of the right pairs that may be suspects, as far as the probabilities say.
FALSE_ALARMS = 0.06
#: With fewer judged pairs no distribution can be told from another.
FEWEST_PAIRS = 60
_FOLDS = 5
_STEPS = 50
_PENALTY = 1.0
#: Signals beyond these are as good or bad as they get.
_LOW, _HIGH = -3.0, 8.0
#: Standard errors by which the share of wrong positives is estimated from above.
_CAUTION = 1.0


@dataclass(frozen=True, slots=True)
class Doubts:
    """What the mixture says of judged pairs.

    `share` is the estimated share of wrong ones; `probability` float64 (n_pairs,) that each is
    wrong; `surer` float64 (n_pairs,) is the share of random pairs that look more like a judged one
    (0.5: as good as drawn at random); `accused` bool (n_pairs,) are the suspects.
    """

    share: float
    probability: np.ndarray
    surer: np.ndarray
    accused: np.ndarray


def doubts(signals: Signals, groups: np.ndarray) -> Doubts:
    """Compare judged pairs with random ones; `groups` int64 (n_pairs,) are the judged pairs' queries.

    Raises ValueError for fewer than `FEWEST_PAIRS` judged pairs, or no random ones.
    """
    n_judged, n_random = len(signals.judged), len(signals.random)
    if n_judged < FEWEST_PAIRS or not n_random:
        raise ValueError("too few pairs to compare")
    table = _features(np.concatenate([signals.judged, signals.random]))
    is_judged = np.arange(n_judged + n_random) < n_judged
    weights = np.where(is_judged, 1.0, n_judged / n_random)
    folds = np.concatenate([groups, signals.groups]) % _FOLDS
    scores = np.zeros(len(table))
    for fold in range(_FOLDS):
        own = folds == fold
        if own.any() and not own.all():
            model = _Logistic.fitted(table[~own], is_judged[~own], weights[~own])
            scores[own] = model.scores(table[own])
    share = _share(scores[:n_judged], scores[n_judged:])
    ratio = _ratio(scores, is_judged, weights)[:n_judged]
    probability = np.clip(share / np.maximum(ratio, 1e-9), 0.0, 1.0)
    ordered = np.sort(scores[n_judged:])
    surer = 1.0 - np.searchsorted(ordered, scores[:n_judged]) / n_random
    return Doubts(share, probability, surer, _accused(probability, surer))


def _accused(probability: np.ndarray, surer: np.ndarray) -> np.ndarray:
    """The most probable ones, while few right pairs are expected among them."""
    order = np.lexsort((-surer, -probability))
    right = 1.0 - probability[order]
    alarms = np.cumsum(right) / max(float(right.sum()), 1e-9)
    accused = np.zeros(len(probability), bool)
    accused[order] = (alarms <= FALSE_ALARMS) | (right <= 0.0)
    return accused & (probability >= SUSPICIOUS)


def _features(signals: np.ndarray) -> np.ndarray:
    """The signals, the worst and the best of each pair, and a constant."""
    clipped = np.clip(signals, _LOW, _HIGH)
    worst = clipped.min(axis=1, keepdims=True)
    best = clipped.max(axis=1, keepdims=True)
    constant = np.ones((len(signals), 1))
    return np.concatenate([clipped, worst, best, constant], axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Logistic:
    """Logistic regression."""

    coefficients: np.ndarray

    @classmethod
    def fitted(cls, table: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> _Logistic:
        """Newton's method; the penalty keeps it finite where both kinds can be told apart for sure."""
        coefficients = np.zeros(table.shape[1])
        penalty = _PENALTY * np.eye(table.shape[1])
        for _ in range(_STEPS):
            chance = _sigmoid(table @ coefficients)
            gradient = table.T @ (weights * (labels - chance)) - penalty @ coefficients
            curvature = (table * (weights * chance * (1 - chance))[:, None]).T @ table
            step = np.linalg.solve(curvature + penalty, gradient)
            coefficients = coefficients + step
            if np.abs(step).max() < 1e-6:
                break
        return cls(coefficients)

    def scores(self, table: np.ndarray) -> np.ndarray:
        scores: np.ndarray = table @ self.coefficients
        return scores


def _sigmoid(values: np.ndarray) -> np.ndarray:
    sigmoid: np.ndarray = 0.5 * (1 + np.tanh(0.5 * values))
    return sigmoid


def _ratio(scores: np.ndarray, is_judged: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How much more often judged pairs score so than random ones do, rising with the score."""
    from scipy.optimize import isotonic_regression

    # Equal scores get one value: isotonic regression would order them by their labels.
    places = np.unique(scores, return_inverse=True)[1]
    mass = np.bincount(places, weights)
    judged = np.bincount(places, weights * is_judged)
    fitted = isotonic_regression(judged / mass, weights=mass).x
    chance = np.clip(fitted, 0.0, 1.0)[places]
    ratio: np.ndarray = chance / np.maximum(1 - chance, 1e-9)
    return ratio


def _share(judged: np.ndarray, random: np.ndarray) -> float:
    """The share of random pairs among the judged ones, from above.

    Below any score there can be at most so many random pairs among the judged ones as there are
    judged ones; the score at which this bound is lowest gives the share.
    """
    lowest = 1.0
    for level in np.linspace(0.25, 0.95, 15):
        threshold = np.quantile(random, level)
        below = int((judged <= threshold).sum())
        cautious = below + _CAUTION * np.sqrt(below + 1)
        lowest = min(lowest, cautious / len(judged) / float((random <= threshold).mean()))
    return float(lowest)
