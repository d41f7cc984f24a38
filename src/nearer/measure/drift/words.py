"""Terms that tell a sample of queries from its reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from nearer.measure.drift.shift import Shift, mean_shift

_SUREST = 2.0  # z from which a term is told
_PRIOR = 0.1  # weight of the two sides together, as a share of their terms

Texts = Sequence[Collection[str]]  # the terms of each text


def telling_terms(reference: Texts, sample: Texts, most: int = 8) -> list[str]:
    """Terms that the sample uses more than the reference, the surest first; each text counts a term once.

    Log-odds ratio with an informative Dirichlet prior, the two sides together, as z scores from 2 on
    (Monroe, Colaresi and Quinn 2008, eq. 16 and 22).
    """
    before = _texts_per_term(reference)
    now = _texts_per_term(sample)
    total = before + now
    n_reference = before.total()
    n_sample = now.total()
    n = n_reference + n_sample
    prior = _PRIOR * n

    def z_score(term: str) -> float:
        weight = prior * total[term] / n
        in_sample = now[term] + weight
        in_reference = before[term] + weight
        odds = _log_odds(in_sample, n_sample + prior)
        odds -= _log_odds(in_reference, n_reference + prior)
        variance = 1 / in_sample + 1 / in_reference
        return odds / math.sqrt(variance)

    def surest_first(term: str) -> tuple[float, str]:
        return -scores[term], term

    scores = {term: z_score(term) for term in now}
    surest = sorted(scores, key=surest_first)[:most]
    return [term for term in surest if scores[term] >= _SUREST]


def _texts_per_term(texts: Texts) -> Counter[str]:
    counts = Counter[str]()
    for text in texts:
        counts.update(set(text))
    return counts


def _log_odds(count: float, total: float) -> float:
    others = max(total - count, 1e-9)
    return float(np.log(count / others))


def new_terms(reference: Texts, sample: Texts, known: Collection[str]) -> tuple[Shift, np.ndarray]:
    """Share of texts with a term that neither the reference nor `known` has, and which texts these are, (n,) bool.

    What is to be expected comes from the reference itself: a text is new in it when one of its terms
    stands in no other (Good 1953: as many are unseen as were seen once).
    """
    counts = _texts_per_term(reference)

    def only_here(term: str) -> bool:
        return counts[term] == 1 and term not in known

    def nowhere(term: str) -> bool:
        return term not in counts and term not in known

    before = _with_any(reference, only_here)
    now = _with_any(sample, nowhere)
    return mean_shift([before], now), now


def _with_any(texts: Texts, is_new: Callable[[str], bool]) -> np.ndarray:
    """Which texts have a new term, (n,) bool."""
    result = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        result[row] = any(map(is_new, text))
    return result
