"""A whole corpus in groups, with their names, for people and for other programs; no label is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer.config import Cluster
from nearer.errors import DataError
from nearer.files import read_jsonl, write_json, write_jsonl
from nearer.measure.clusters import kept_share, match
from nearer.measure.downstream import shape
from nearer.measure.vectors import unit_rows
from nearer.search.systems import Systems
from nearer.tasks.base import Sheet
from nearer.tasks.cluster.grouping import Grouping
from nearer.tasks.cluster.items import sampled_rows
from nearer.tasks.cluster.measures import NOT_USEFUL, drift_sheet
from nearer.tasks.cluster.naming import Named, Suggestion, names_of, suggestions

ASSIGNMENTS = "clusters.jsonl"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Grouped:
    """The groups of a corpus; `clusters` is int64 (n_documents,), -1 for a document of none."""

    ids: list[str]
    clusters: np.ndarray
    named: list[Named]
    suggested: list[Suggestion]
    figures: Mapping[str, Any]
    drift: Sheet | None = None  # against the groups that were there before

    @property
    def names(self) -> dict[int, str]:
        return {one.cluster: one.name for one in self.named}

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of `clusters.jsonl`."""
        for doc_id, cluster in zip(self.ids, self.clusters.tolist(), strict=True):
            yield {"_id": doc_id, "cluster": cluster, "name": self.names.get(cluster)}

    def summary(self) -> dict[str, Any]:
        """`summary.json`."""
        rows = [
            {
                "cluster": one.cluster,
                "name": one.name,
                "size": one.size,
                "medoid": one.medoid,
                "text": one.text,
            }
            for one in self.named
        ]
        suggested = [
            {"kind": one.kind, "clusters": list(one.clusters), "ratio": one.ratio}
            for one in self.suggested
        ]
        drift = None if self.drift is None else self.drift.as_dict()
        return {**self.figures, "clusters": rows, "suggestions": suggested, "drift": drift}

    def save(self, folder: Path) -> None:
        """`clusters.jsonl` and `summary.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / ASSIGNMENTS, self.lines())
        write_json(folder / SUMMARY, self.summary())


def group_corpus(systems: Systems, settings: Cluster, seed: int, before: Path | None) -> Grouped:
    """Group every document; `before` is a `clusters.jsonl` to compare with, where there is one.

    The number of clusters, where none is given, is chosen on at most `cluster.limit` documents.
    Raises DataError for a corpus that cannot be grouped.
    """
    vectors = unit_rows(systems.document_vectors)
    part = sampled_rows(len(vectors), settings.limit, seed)
    clusters = Grouping(settings, seed).clusters(vectors, choose_on=part)
    n_clusters = len(np.unique(clusters[clusters >= 0]))
    if n_clusters < 2:
        raise _not_grouped(settings, n_clusters)
    ids = list(systems.corpus.ids)
    named = names_of(clusters, vectors, ids, list(systems.corpus.contents()))
    figures: dict[str, Any] = {
        "documents": len(ids),
        "n_clusters": n_clusters,
        "in_no_cluster": int((clusters < 0).sum()),
        "chosen_by": _chosen_by(settings),
        "model": systems.encoder.fingerprint.id,
        "shape": shape(vectors, clusters, seed),
        "note": NOT_USEFUL,
    }
    drift, kept = _drift(before, ids, clusters, named)
    if kept is not None:
        figures["kept"] = kept
    suggested = suggestions(clusters, vectors, seed)
    return Grouped(ids, clusters, named, suggested, figures, drift)


def _not_grouped(settings: Cluster, n_clusters: int) -> DataError:
    """The refusal of a corpus in which nothing is told apart."""
    mend = "nothing sets these documents apart for this model: look whether their texts are alike"
    if settings.algorithm == "hdbscan":
        mend = "set cluster.algorithm: kmeans, or lower cluster.min_size"
    found = "one cluster" if n_clusters else "no cluster"
    return DataError(
        f"cannot say what belongs together: {settings.algorithm} finds {found}",
        where="cluster.algorithm",
        next_step=mend,
    )


def _chosen_by(settings: Cluster) -> str:
    """What said how many clusters there are; HDBSCAN finds as many as there are dense places."""
    if settings.algorithm == "hdbscan":
        return "hdbscan"
    return "given" if settings.n_clusters else "silhouette"


def _earlier(path: Path) -> dict[str, int]:
    """Document id → its cluster the last time.  Raises DataError for a damaged line."""
    earlier = {}
    for number, line in enumerate(read_jsonl(path), start=1):
        cluster = line.get("cluster") if isinstance(line, dict) else None
        if type(cluster) is not int or "_id" not in line:
            raise DataError(
                "no document with its cluster",
                where=f"{path}:{number}",
                next_step="restore the file, or move it away to start anew",
            )
        earlier[str(line["_id"])] = cluster
    return earlier


def _drift(
    before: Path | None, ids: list[str], clusters: np.ndarray, named: list[Named]
) -> tuple[Sheet | None, float | None]:
    """What became of earlier groups of the documents that were there; nothing without earlier groups."""
    if before is None or not before.is_file():
        return None, None
    earlier = _earlier(before)
    rows = [row for row, doc_id in enumerate(ids) if doc_id in earlier]
    if not rows:
        return None, None
    old = np.array([earlier[ids[row]] for row in rows])
    new = clusters[rows]
    return drift_sheet(old, new, named), round(kept_share(match(old, new), len(rows)), 6)
