"""What lists of recommended items do besides being right: coverage, exposure, popularity, diversity.

All of them look at the first `k` items of each list.  Items are positions in the catalogue.

- Coverage@k: share of the catalogue that stands in any list (Ge, Delgado-Battenfeld and Jannach,
  RecSys 2010).
- Gini@k: how unequally places in lists are shared among all items: 0 all alike, 1 one item has all.
- Popularity@k: mean share of the catalogue that is less popular than a recommended item.
- Bias@k: how much more popular recommended items are than those that people chose; 0 is no bias.
- Novelty@k: mean self-information -log2 p of recommended items (Vargas and Castells, RecSys 2011),
  as a share of that of an item with which nobody engaged.
- Diversity@k: mean of (1 - cosine) / 2 over all pairs within a list.

Popularity counts training engagements alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nearer.types import Judgments, Run

#: Measures with one value per list, and those of all lists together.
PER_LIST = ("Popularity", "Bias", "Novelty", "Diversity")
OF_ALL = ("Coverage", "Gini")
#: Measures of which less is better.
LESS_IS_BETTER = frozenset({"Gini", "Popularity", "Bias"})


@dataclass(frozen=True)
class Catalogue:
    """All items, how often people engaged with each in training, and where each lies.

    `vectors` are float32 (n_items, dimension) of unit length, of one model for all systems that are
    compared: every model would call its own neighbours alike.
    """

    ids: Sequence[str]
    engagements: np.ndarray  # (n_items,) int64
    vectors: np.ndarray | None = None

    @property
    def shares(self) -> np.ndarray:
        """(n_items,) float64: share of the catalogue that is less popular, ties counting half."""
        order = np.sort(self.engagements)
        below = np.searchsorted(order, self.engagements, side="left")
        upto = np.searchsorted(order, self.engagements, side="right")
        shares: np.ndarray = (below + upto) / 2 / max(1, len(order))
        return shares

    @property
    def surprise(self) -> np.ndarray:
        """(n_items,) float64 in [0, 1]: self-information beside that of an item nobody engaged with."""
        total = max(1.0, float(self.engagements.sum()) + len(self.engagements))
        information = np.log2(total) - np.log2(self.engagements + 1.0)
        most = float(np.log2(total)) or 1.0
        surprise: np.ndarray = information / most
        return surprise


def engagements(judgments: Judgments, ids: Sequence[str]) -> np.ndarray:
    """(n_items,) int64: with how many others each item was engaged, in either direction."""
    position = {doc_id: place for place, doc_id in enumerate(ids)}
    counts = np.zeros(len(ids), np.int64)
    for query_id, graded in judgments.items():
        for doc_id, grade in graded.items():
            if grade <= 0:
                continue
            for item in (query_id, doc_id):
                if item in position:
                    counts[position[item]] += 1
    return counts


@dataclass(frozen=True)
class Lists:
    """The first `k` items of every query: `items` is int64 (n_queries, k), -1 where a list ends."""

    query_ids: tuple[str, ...]
    items: np.ndarray

    @classmethod
    def of(cls, run: Run, query_ids: Sequence[str], catalogue: Catalogue, k: int) -> Lists:
        """Lists of a run in the order of the queries; unknown items are left out."""
        position = {doc_id: place for place, doc_id in enumerate(catalogue.ids)}
        items = np.full((len(query_ids), k), -1, np.int64)
        for row, query_id in enumerate(query_ids):
            known = [position[doc_id] for doc_id in run.top(query_id, k) if doc_id in position]
            items[row, : len(known)] = known
        return cls(tuple(query_ids), items)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(n_queries,): the mean of one value per item over each list; NaN for an empty list."""
        shown = self.items >= 0
        picked = np.where(shown, values[self.items], 0.0)
        means: np.ndarray = picked.sum(1) / np.maximum(shown.sum(1), 1)
        return np.where(shown.any(1), means, np.nan)


def per_list(
    name: str, lists: Lists, catalogue: Catalogue, relevant: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """(n_queries,) float64 of a measure of PER_LIST.  Raises KeyError for another.

    NaN for a list that says nothing: an empty one, or of a single item where items are compared.
    `relevant` are the items that people chose, by query: what Bias compares with.
    """
    if name == "Popularity":
        return lists.mean(catalogue.shares)
    if name == "Novelty":
        return lists.mean(catalogue.surprise)
    if name == "Diversity":
        return _diversity(lists, catalogue)
    if name == "Bias":
        bias: np.ndarray = lists.mean(catalogue.shares) - _chosen(lists, catalogue, relevant)
        return bias
    raise KeyError(name)


def of_all(name: str, lists: Lists, n_items: int, weights: np.ndarray | None = None) -> float:
    """A measure of OF_ALL.  Raises KeyError for another.

    `weights`, int (n_queries,), says how often each list counts: a bootstrap's draw.
    """
    counts = np.ones(len(lists.items), np.int64) if weights is None else weights
    shown = lists.items[counts > 0]
    flat = shown.ravel()
    if name == "Coverage":
        return len(np.unique(flat[flat >= 0])) / max(1, n_items)
    if name == "Gini":
        times = np.repeat(counts[counts > 0], shown.shape[1])
        exposure = np.bincount(flat[flat >= 0], times[flat >= 0], minlength=n_items)
        return gini(exposure)
    raise KeyError(name)


def shown(lists: Lists, catalogue: Catalogue) -> dict[str, float]:
    """What lists show that nobody judged: Coverage, Gini and Popularity, by name with their k.

    Without training engagements no item is known to be popular, and Popularity is left out.
    """
    k = lists.items.shape[1]
    values = {f"{name}@{k}": of_all(name, lists, len(catalogue.ids)) for name in OF_ALL}
    popularity = per_list("Popularity", lists, catalogue, {})
    if catalogue.engagements.any() and not np.isnan(popularity).all():
        values[f"Popularity@{k}"] = float(np.nanmean(popularity))
    return values


def gini(exposure: np.ndarray) -> float:
    """The Gini coefficient of (n_items,) amounts: 0 all alike, near 1 one has all; 0 of nothing."""
    amounts = np.sort(exposure)
    total = float(amounts.sum())
    if total <= 0:
        return 0.0
    ranks = np.arange(1, len(amounts) + 1)
    return float((2 * ranks - len(amounts) - 1) @ amounts / (len(amounts) * total))


def _chosen(
    lists: Lists, catalogue: Catalogue, relevant: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """(n_queries,): how popular the items are that people chose; like all items where none is known."""
    position = {doc_id: place for place, doc_id in enumerate(catalogue.ids)}
    shares = catalogue.shares
    typical = float(shares.mean()) if len(shares) else 0.0
    means = np.full(len(lists.query_ids), typical)
    for row, query_id in enumerate(lists.query_ids):
        known = [position[doc_id] for doc_id in relevant.get(query_id, ()) if doc_id in position]
        if known:
            means[row] = shares[known].mean()
    return means


def _diversity(lists: Lists, catalogue: Catalogue) -> np.ndarray:
    """(n_queries,): mean distance within each list; NaN for lists of fewer than two items."""
    if catalogue.vectors is None:
        raise ValueError("diversity needs vectors")
    values = np.full(len(lists.items), np.nan)
    for row, items in enumerate(lists.items):
        known = items[items >= 0]
        if len(known) < 2:
            continue
        vectors = catalogue.vectors[known]
        cosines = vectors @ vectors.T
        upper = cosines[np.triu_indices(len(known), 1)]
        values[row] = float(np.clip((1 - upper) / 2, 0, 1).mean())
    return values
