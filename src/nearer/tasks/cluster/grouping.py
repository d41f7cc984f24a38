"""Vectors → clusters, by the algorithms of scikit-learn, and how stable those are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nearer.config import Cluster
from nearer.errors import ConfigError, DataError
from nearer.measure.clusters import Agreement, numbered
from nearer.measure.downstream import shape

#: Numbers of clusters that are tried where none is given.
_TRIED = 8
_MOST = 60
#: Fewer documents than this are not grouped.
LEAST = 4
#: Share of the items in each bootstrap of stability.
_PART = 0.8


@dataclass(frozen=True)
class Grouping:
    """Groups vectors as the settings say; the same seed gives the same clusters."""

    settings: Cluster
    seed: int

    def clusters(
        self,
        vectors: np.ndarray,
        n_clusters: int | None = None,
        choose_on: np.ndarray | None = None,
    ) -> np.ndarray:
        """int64 (n_items,), -1 for an item that belongs to none (HDBSCAN).

        Where neither the settings nor `n_clusters` say how many clusters there are, the number is
        chosen on the items at the positions `choose_on` (None: on all), as they are after the
        reduction that was asked for.  Raises DataError for fewer than four items and for as many
        clusters as items, ConfigError where umap-learn is missing.
        """
        wanted = self.settings.n_clusters or n_clusters
        if len(vectors) < LEAST:
            raise DataError(
                f"a corpus of fewer than {LEAST} documents cannot be grouped (this one: {len(vectors)})",
                where="data.corpus",
                next_step="use a corpus of more documents",
            )
        reduced = self._reduced(vectors)
        if self.settings.algorithm != "hdbscan" and wanted is None:
            wanted = self.chosen_number(reduced if choose_on is None else reduced[choose_on])
        if wanted is not None and wanted >= len(vectors):
            raise DataError(
                f"{len(vectors)} documents make no {wanted} clusters",
                where="cluster.n_clusters",
                next_step="ask for fewer",
            )
        return self._of(reduced, wanted)

    def chosen_number(self, vectors: np.ndarray) -> int:
        """The number of clusters with the best silhouette, out of eight between 2 and 60.

        `vectors` are those that are clustered: reduced ones where a reduction is asked for.
        """
        most = max(2, min(_MOST, math.isqrt(len(vectors)) * 2, len(vectors) - 1))
        tried = sorted({round(float(number)) for number in np.geomspace(2, most, _TRIED)})
        best, best_value = tried[0], -math.inf
        for number in tried:
            measured = shape(vectors, self._of(vectors, number), self.seed)
            value = measured["silhouette"] if measured else -math.inf
            if value > best_value:
                best, best_value = number, value
        return best

    def stability(self, vectors: np.ndarray, clusters: np.ndarray) -> list[float]:
        """ARI of clusters of random parts of the items with those of all, one value per bootstrap.

        Near 1: the groups are there whoever is left out.  Near 0: they are the algorithm's own.
        """
        rng = np.random.default_rng([self.seed, 1])
        number = len(np.unique(clusters[clusters >= 0]))
        size = int(_PART * len(vectors))
        if size <= max(number, self.settings.n_clusters or 0, 3):
            return []
        values = []
        for _ in range(self.settings.repeats):
            rows = np.sort(rng.choice(len(vectors), size, replace=False))
            again = self.clusters(vectors[rows], number if number >= 2 else None)
            values.append(Agreement(again, numbered(clusters[rows])).value("ARI"))
        return values

    def _reduced(self, vectors: np.ndarray) -> np.ndarray:
        settings = self.settings
        dimensions = min(settings.dimensions, vectors.shape[1], len(vectors) - 2)
        if settings.reduce == "none" or dimensions >= vectors.shape[1]:
            return vectors
        if settings.reduce == "pca":
            return principal(vectors, dimensions, self.seed)
        try:
            import umap
        except ImportError:
            raise ConfigError(
                "umap is not installed",
                where="cluster.reduce",
                next_step="pip install umap-learn, or set cluster.reduce: pca",
            ) from None
        reducer = umap.UMAP(n_components=dimensions, metric="cosine", random_state=self.seed)
        return np.asarray(reducer.fit_transform(vectors), np.float32)

    def _of(self, vectors: np.ndarray, number: int | None) -> np.ndarray:
        from sklearn import cluster

        algorithm = self.settings.algorithm
        if algorithm == "hdbscan":
            model = cluster.HDBSCAN(min_cluster_size=self.settings.min_size, copy=True)
        elif algorithm == "agglomerative":
            model = cluster.AgglomerativeClustering(number)
        elif algorithm == "minibatch":
            model = cluster.MiniBatchKMeans(number, n_init=5, random_state=self.seed)
        else:
            model = cluster.KMeans(number, n_init=5, random_state=self.seed)
        return np.asarray(model.fit_predict(vectors), np.int64)


def principal(vectors: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """float32 (n_items, dimensions): the principal components."""
    from sklearn.decomposition import PCA

    reducer = PCA(dimensions, random_state=seed)
    return np.asarray(reducer.fit_transform(vectors), np.float32)
