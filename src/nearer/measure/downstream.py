"""What vectors are good for beside search: classification by neighbours, probes, few examples.

Vectors are float32 (n_items, dimension) of unit length, labels int64 (n_items,) from 0.  Each
function says per item whether its label was found, so that models are compared item by item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCK = 1024  # items whose cosines to all others are in memory at once
_FOLDS = 5
_EPISODES = 20
#: Items among which the silhouette is measured: its time grows with their square.
_SILHOUETTE_ITEMS = 2000


def knn_correct(vectors: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(n_items,) float64, 1 where the `k` nearest other items vote for the item's label.

    Votes count by cosine; of equal votes the smaller label wins.  0 where there is no other item.
    """
    n_items = len(vectors)
    n_labels = int(labels.max(initial=0)) + 1
    k = min(k, n_items - 1)
    correct = np.zeros(n_items)
    if k < 1:
        return correct
    for start in range(0, n_items, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n_items))
        nearest, cosines = _nearest_others(vectors, rows, k)
        votes = np.zeros((len(rows), n_labels))
        voter_rows = np.arange(len(rows))[:, None]  # (n_rows, 1), beside the (n_rows, k) labels
        vote_weights = cosines + 1  # no vote counts less than nothing
        np.add.at(votes, (voter_rows, labels[nearest]), vote_weights)
        correct[rows] = votes.argmax(1) == labels[rows]
    return correct


def _nearest_others(vectors: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest other items of some items: their positions and cosines, both (n_rows, k).

    They stand in no particular order.
    """
    cosines = vectors[rows] @ vectors.T
    cosines[np.arange(len(rows)), rows] = -np.inf  # no item is its own neighbour
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return nearest, np.take_along_axis(cosines, nearest, axis=1)


def probe_correct(vectors: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray | None:
    """(n_items,) float64, 1 where a linear classifier that never saw the item finds its label.

    Logistic regression in stratified folds; None where a label has too few items for two folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    fewest = int(np.bincount(labels).min())
    folds = min(_FOLDS, fewest)
    if folds < 2:
        return None
    shuffled = StratifiedKFold(folds, shuffle=True, random_state=seed)
    probe = LogisticRegression(C=10.0, max_iter=300)
    predicted = cross_val_predict(probe, vectors, labels, cv=shuffled)
    return np.asarray(predicted == labels, np.float64)


def few_shot_accuracy(
    vectors: np.ndarray, labels: np.ndarray, shots: int, rng: np.random.Generator
) -> np.ndarray | None:
    """(n_items,) float64: how often the label of an item is found from `shots` examples of each.

    In each of 20 episodes the examples are drawn anew and the other items go to the nearest mean
    (Snell et al. 2017).  Two models with generators of the same seed meet the same episodes.  NaN
    for an item that was an example in every episode; None where a label has no item to spare.
    """
    n_labels = int(labels.max()) + 1
    rows_of_label = [np.flatnonzero(labels == label) for label in range(n_labels)]
    if min(map(len, rows_of_label)) <= shots:
        return None
    times_found = np.zeros(len(labels))
    times_asked = np.zeros(len(labels))
    for _ in range(_EPISODES):
        examples = [rng.choice(rows, shots, replace=False) for rows in rows_of_label]
        means = _unit_means(vectors, examples)
        is_asked = np.ones(len(labels), dtype=bool)
        is_asked[np.concatenate(examples)] = False
        predicted = (vectors[is_asked] @ means.T).argmax(1)
        times_found[is_asked] += predicted == labels[is_asked]
        times_asked += is_asked
    with np.errstate(invalid="ignore"):  # 0 / 0 for an item that was never asked
        accuracy: np.ndarray = times_found / times_asked
    return accuracy


def _unit_means(vectors: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (n_groups, dimension): the mean of the vectors at each group's positions, of unit length."""
    means = np.stack([vectors[rows].mean(0) for rows in groups])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means /= np.maximum(lengths, 1e-12)
    return means


def retrieval_by_cluster(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n_items,) float64: share of the other items of an item's cluster that have its label.

    0 for an item that is alone: its cluster finds nothing.
    """
    share = np.zeros(len(labels))
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        if cluster < 0 or len(rows) < 2:
            continue
        own_labels = labels[rows]
        with_same_label = np.bincount(own_labels)[own_labels] - 1  # without the item itself
        share[rows] = with_same_label / (len(rows) - 1)
    return share


def shape(vectors: np.ndarray, clusters: np.ndarray, seed: int) -> dict[str, float] | None:
    """Silhouette (cosine) and Davies-Bouldin of a clustering; None where there are fewer than two clusters.

    They say how clusters lie in this model's own space, and nothing about their use.
    """
    from sklearn.metrics import davies_bouldin_score, silhouette_score

    is_grouped = clusters >= 0
    grouped_vectors, own_clusters = vectors[is_grouped], clusters[is_grouped]
    n_grouped = len(own_clusters)
    n_clusters = len(np.unique(own_clusters))
    if not 2 <= n_clusters < n_grouped:
        return None
    silhouette = silhouette_score(
        grouped_vectors,
        own_clusters,
        metric="cosine",
        sample_size=min(_SILHOUETTE_ITEMS, n_grouped),
        random_state=seed,
    )
    bouldin = davies_bouldin_score(grouped_vectors, own_clusters)
    return {"silhouette": float(silhouette), "davies_bouldin": float(bouldin)}
