"""What vectors are good for beside search: classification by neighbours, probes, few examples.

Vectors are float32 (n_items, dimension) of unit length, labels int64 (n_items,) from 0.  Each
function says per item whether its label was found, so that models are compared item by item.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 1024
_FOLDS = 5
_EPISODES = 20


def knn_correct(vectors: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(n_items,) float64, 1 where the `k` nearest other items vote for the item's label.

    Votes count by cosine; of equal votes the smaller label wins.  0 where there is no other item.
    """
    n_labels = int(labels.max(initial=0)) + 1
    k = min(k, len(vectors) - 1)
    correct = np.zeros(len(vectors))
    if k < 1:
        return correct
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        cosines = vectors[rows] @ vectors.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(rows), n_labels))
        weights = np.take_along_axis(cosines, nearest, axis=1) + 1
        np.add.at(votes, (np.arange(len(rows))[:, None], labels[nearest]), weights)
        correct[rows] = votes.argmax(1) == labels[rows]
    return correct


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
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    if min(map(len, members)) <= shots:
        return None
    found, asked = np.zeros(len(labels)), np.zeros(len(labels))
    for _ in range(_EPISODES):
        shown = [rng.choice(rows, shots, replace=False) for rows in members]
        means = np.stack([vectors[rows].mean(0) for rows in shown])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        others = np.ones(len(labels), bool)
        others[np.concatenate(shown)] = False
        predicted = (vectors[others] @ means.T).argmax(1)
        found[others] += predicted == labels[others]
        asked += others
    with np.errstate(invalid="ignore"):
        accuracy: np.ndarray = found / asked
    return accuracy


def retrieval_by_cluster(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n_items,) float64: share of the other items of an item's cluster that have its label.

    0 for an item that is alone: its cluster finds nothing.
    """
    share = np.zeros(len(labels))
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        if cluster < 0 or len(rows) < 2:
            continue
        counts = np.bincount(labels[rows])
        share[rows] = (counts[labels[rows]] - 1) / (len(rows) - 1)
    return share


def shape(vectors: np.ndarray, clusters: np.ndarray, seed: int) -> dict[str, float] | None:
    """Silhouette (cosine) and Davies-Bouldin of a clustering; None where there are fewer than two clusters.

    They say how clusters lie in this model's own space, and nothing about their use.
    """
    from sklearn.metrics import davies_bouldin_score, silhouette_score

    inside = clusters >= 0
    names = np.unique(clusters[inside])
    if not 2 <= len(names) < int(inside.sum()):
        return None
    sample = min(2000, int(inside.sum()))
    silhouette = silhouette_score(
        vectors[inside], clusters[inside], metric="cosine", sample_size=sample, random_state=seed
    )
    bouldin = davies_bouldin_score(vectors[inside], clusters[inside])
    return {"silhouette": float(silhouette), "davies_bouldin": float(bouldin)}
