"""How well groups agree with labels, with each other, and with themselves; no I/O, no model.

A clustering is int64 (n_items,): the number of each item's cluster, -1 for an item that belongs to
none (HDBSCAN).  Such an item counts as a cluster of its own: to leave everything out is no success.

With labels, in [0, 1], from the table of clusters by labels: V-measure, homogeneity and completeness
(Rosenberg and Hirschberg 2007), purity, B-cubed F1 (Amigó et al. 2009), ARI (Hubert and Arabie 1985)
and AMI (Vinh et al. 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Measures against labels, more is better.
WITH_LABELS = ("V-measure", "ARI", "AMI", "B-cubed", "Purity", "Homogeneity", "Completeness")


def numbered(clusters: np.ndarray) -> np.ndarray:
    """Clusters numbered from 0 without gaps, every item of none in a cluster of its own."""
    alone = clusters < 0
    own = clusters.copy()
    first = int(clusters.max(initial=-1)) + 1
    own[alone] = first + np.arange(int(alone.sum()))
    _, dense = np.unique(own, return_inverse=True)
    return np.asarray(dense, np.int64)


@dataclass(frozen=True)
class Agreement:
    """Clusters beside labels of the same items; both int64 (n_items,), labels from 0."""

    clusters: np.ndarray
    labels: np.ndarray

    def value(self, name: str, weights: np.ndarray | None = None) -> float:
        """A measure of WITH_LABELS.  Raises KeyError for another.

        `weights`, int (n_items,), says how often each item counts: a bootstrap's draw.
        """
        table = self._table(weights)
        if name == "ARI":
            return _ari(table)
        if name == "AMI":
            return self._ami(weights)
        if name == "Purity":
            return float(table.max(1, initial=0.0).sum() / max(1.0, table.sum()))
        if name == "B-cubed":
            return _b_cubed(table)
        homogeneity, completeness = _homogeneity(table), _homogeneity(table.T)
        if name == "Homogeneity":
            return homogeneity
        if name == "Completeness":
            return completeness
        if name == "V-measure":
            total = homogeneity + completeness
            return 2 * homogeneity * completeness / total if total else 0.0
        raise KeyError(name)

    def _table(self, weights: np.ndarray | None) -> np.ndarray:
        """float64 (n_clusters, n_labels): how many items have both."""
        clusters = numbered(self.clusters)
        width = int(self.labels.max(initial=-1)) + 1
        height = int(clusters.max(initial=-1)) + 1
        cells = np.bincount(clusters * width + self.labels, weights, height * width)
        table: np.ndarray = cells.reshape(height, width).astype(np.float64)
        return table

    def _ami(self, weights: np.ndarray | None) -> float:
        from sklearn.metrics import adjusted_mutual_info_score

        clusters, labels = numbered(self.clusters), self.labels
        if weights is not None:
            clusters, labels = np.repeat(clusters, weights), np.repeat(labels, weights)
        return float(adjusted_mutual_info_score(labels, clusters))


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _homogeneity(table: np.ndarray) -> float:
    """How far each row holds one column only: 1 - H(columns | rows) / H(columns)."""
    total = table.sum()
    if not total:
        return 0.0
    whole = _entropy(table.sum(0))
    if not whole:
        return 1.0
    rows = table[table.sum(1) > 0]
    left = sum(row.sum() / total * _entropy(row) for row in rows)
    return float(1 - left / whole)


def _ari(table: np.ndarray) -> float:
    """Pairs that both agree on, beyond chance; 1 where both are the same."""

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together = pairs(table)
    in_clusters, in_labels = pairs(table.sum(1)), pairs(table.sum(0))
    all_pairs = pairs(np.array([table.sum()]))
    if not all_pairs:
        return 1.0
    expected = in_clusters * in_labels / all_pairs
    most = (in_clusters + in_labels) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _b_cubed(table: np.ndarray) -> float:
    """F1 of B-cubed: how pure an item's cluster is for it, and how much of its label is in it."""
    total = table.sum()
    if not total:
        return 0.0
    squares = table**2
    in_cluster = table.sum(1, keepdims=True)
    with_label = table.sum(0, keepdims=True)
    precision = float((squares / np.maximum(in_cluster, 1)).sum() / total)
    recall = float((squares / np.maximum(with_label, 1)).sum() / total)
    return 2 * precision * recall / (precision + recall)


# -- two clusterings of the same items --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """What became of one cluster: `kind` is kept, split, merged, new or gone.

    `before` and `after` name the clusters concerned, `overlap` is the share of their items that
    they have in common (Jaccard; of a split or a merger, of all parts together).
    """

    kind: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    overlap: float
    items: int


def match(before: np.ndarray, after: np.ndarray, least: float = 0.5) -> list[Match]:
    """How clusters of the same items changed, matched by overlap, largest first.

    kept: two clusters share more than `least` of their items.  split: parts that lie mostly (at
    least `least` of each) in one old cluster make up `least` of it; merged: the same the other way
    round.  What is left over is gone or new.  Items of no cluster are left out.
    """
    both = (before >= 0) & (after >= 0)
    old_names, old = np.unique(before[both], return_inverse=True)
    new_names, new = np.unique(after[both], return_inverse=True)
    table = np.zeros((len(old_names), len(new_names)))
    np.add.at(table, (old, new), 1)
    found = _kept(table, least)
    used_old = {row for one in found for row in one.before}
    used_new = {column for one in found for column in one.after}
    found += _broken(table, used_old, used_new, least)
    found += [_turned(one) for one in _broken(table.T, used_new, used_old, least)]
    for row in range(len(table)):
        if row not in used_old:
            found.append(Match("gone", (row,), (), 0.0, int(table[row].sum())))
    for column in range(table.shape[1]):
        if column not in used_new:
            found.append(Match("new", (), (column,), 0.0, int(table[:, column].sum())))
    named = []
    for one in found:
        olds = tuple(int(old_names[row]) for row in one.before)
        news = tuple(int(new_names[column]) for column in one.after)
        named.append(Match(one.kind, olds, news, one.overlap, one.items))
    return sorted(named, key=lambda one: (-one.items, one.before, one.after))


def kept_share(matches: list[Match], n_items: int) -> float:
    """Share of the items that are in a cluster that was kept."""
    return sum(one.items for one in matches if one.kind == "kept") / max(1, n_items)


def _kept(table: np.ndarray, least: float) -> list[Match]:
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    overlap = table / np.maximum(union, 1)
    found: list[Match] = []
    rows, columns = set(), set()
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = divmod(int(flat), table.shape[1])
        if overlap[row, column] <= least:
            break
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            share = float(overlap[row, column])
            found.append(Match("kept", (row,), (column,), share, int(table[row, column])))
    return found


def _broken(table: np.ndarray, rows: set[int], columns: set[int], least: float) -> list[Match]:
    """Rows that fell into several columns; both are then used up."""
    found = []
    sizes = table.sum(0)
    for row in range(len(table)):
        if row in rows:
            continue
        parts = [
            column
            for column in range(table.shape[1])
            if column not in columns and table[row, column] >= least * max(1, sizes[column])
        ]
        inside = float(table[row, parts].sum())
        if len(parts) < 2 or inside < least * table[row].sum():
            continue
        rows.add(row)
        columns.update(parts)
        union = table[row].sum() + sizes[parts].sum() - inside
        found.append(Match("split", (row,), tuple(parts), float(inside / union), int(inside)))
    return found


def _turned(one: Match) -> Match:
    return Match("merged", one.after, one.before, one.overlap, one.items)
