"""How well documents group, before and after: against labels, against chance, and in use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nearer.config import Cluster
from nearer.errors import DataError
from nearer.measure import clusters as grouped
from nearer.measure import downstream
from nearer.measure.vectors import unit_rows
from nearer.tasks.base import Cannot, Findings, Sheet, TaskInputs
from nearer.tasks.cluster.grouping import Grouping, principal
from nearer.tasks.cluster.items import Items, items_of_split
from nearer.tasks.cluster.naming import Named, names_of, suggestions
from nearer.text import folded_words

#: What guards may name besides the measures against labels.
IN_USE = ("kNN", "Probe", "Few-shot", "Retrieval")
KEPT = "Kept"
_POINTS = 800
_TEXT = 100  # characters of a point
_WORDS = "words (TF-IDF)"
NOT_USEFUL = (
    "Silhouette and Davies-Bouldin say how clusters lie in a model's own space. They are no "
    "evidence of usefulness: a model that maps everything onto a few points has the best of both."
)


@dataclass(frozen=True)
class Space:
    """One way to place the documents, its clusters, and what they are measured by."""

    name: str
    items: Items
    vectors: np.ndarray
    settings: Cluster
    seed: int

    @cached_property
    def clusters(self) -> np.ndarray:
        """int64 (n_items,)."""
        return Grouping(self.settings, self.seed).clusters(self.vectors, self.items.n_labels)

    @property
    def cluster_of(self) -> dict[str, int]:
        """Document id → its cluster, -1 for a document of none."""
        return dict(zip(self.items.ids, self.clusters.tolist(), strict=True))

    @cached_property
    def agreement(self) -> grouped.Agreement:
        return grouped.Agreement(self.clusters, self.items.labels)

    def column(self, name: str) -> np.ndarray | None:
        """(n_items,) of a measure of IN_USE; None where there are too few documents per label."""
        labels = self.items.labels
        if name == "kNN":
            return downstream.knn_correct(self.vectors, labels, self.settings.neighbours)
        if name == "Probe":
            return downstream.probe_correct(self.vectors, labels, self.seed)
        if name == "Retrieval":
            return downstream.retrieval_by_cluster(self.clusters, labels)
        rng = np.random.default_rng([self.seed, 3])
        return downstream.few_shot_accuracy(self.vectors, labels, self.settings.shots, rng)

    def values(self) -> dict[str, float | None]:
        """Every measure, None where it cannot be told."""
        values: dict[str, float | None] = {}
        for name in grouped.WITH_LABELS:
            values[name] = round(self.agreement.value(name), 6)
        for name in IN_USE:
            column = self.column(name)
            values[name] = None
            if column is not None and not np.isnan(column).all():
                values[name] = round(float(np.nanmean(column)), 6)
        stable = Grouping(self.settings, self.seed).stability(self.vectors, self.clusters)
        values["Stability"] = round(float(np.mean(stable)), 6) if stable else None
        lie = downstream.shape(self.vectors, self.clusters, self.seed) or {}
        values["Silhouette"] = _rounded(lie.get("silhouette"))
        values["Davies-Bouldin"] = _rounded(lie.get("davies_bouldin"))
        return values


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def findings(inputs: TaskInputs) -> Findings:
    """The documents of a split under each model, and under their words alone."""
    try:
        return _findings(items_of_split(inputs.base, inputs.split), inputs)
    except Cannot as reason:
        return Findings(notes=(f"Cannot say: {reason.why}; {reason.next_step}.",))
    except DataError as error:  # too few documents for so many clusters
        return Findings(notes=(f"Cannot say: {error.what}; {error.next_step}.",))


def _findings(items: Items, inputs: TaskInputs) -> Findings:
    """Every measure of the documents.  Raises DataError for what cannot be grouped."""
    settings, seed = inputs.settings.cluster, inputs.seed
    spaces = []
    by_words = words(items.texts, seed)
    if by_words is not None:
        spaces.append(Space(_WORDS, items, by_words, settings, seed))
    for model in inputs.models:
        spaces.append(Space(model.name, items, items.vectors(model.systems), settings, seed))
    all_values = {space.name: space.values() for space in spaces}
    last = spaces[-1]
    named = names_of(last.clusters, last.vectors, items.ids, items.texts)
    sheets = [_table(all_values, items, settings), _cluster_table(named, last)]
    advice = _advice(named, last)
    if advice is not None:
        sheets.append(advice)
    if len(inputs.models) > 1:
        sheets.append(drift_sheet(spaces[-2].clusters, last.clusters, named))
    measures = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in all_values.items()
    }
    notes = [*_notes(items, settings), *_grouping_notes(spaces)]
    groups = {space.name: space.cluster_of for space in spaces if space.name != _WORDS}
    return Findings(measures, sheets, notes, points(last, named), groups)


def words(texts: list[str], seed: int) -> np.ndarray | None:
    """float32 (n_texts, ≤100) of unit length: TF-IDF, its largest 100 directions (latent semantic analysis).

    None for texts without a word, such as rows of emoji.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(map(folded_words, texts)):
        return None
    table = TfidfVectorizer(sublinear_tf=True, analyzer=folded_words).fit_transform(texts)
    directions = min(100, min(table.shape) - 1)
    vectors = TruncatedSVD(max(1, directions), random_state=seed).fit_transform(table)
    unit: np.ndarray = unit_rows(vectors).astype(np.float32)
    return unit


def _table(measured: dict[str, dict[str, float | None]], items: Items, settings: Cluster) -> Sheet:
    names = list(next(iter(measured.values())))
    rows = tuple((measure, *(values[measure] for values in measured.values())) for measure in names)
    lead = (
        f"{len(items):,} documents with {items.n_labels} labels, grouped by {settings.algorithm}. "
        f"kNN: the label found by {settings.neighbours} neighbours; Probe: by a linear classifier; "
        f"Few-shot: from {settings.shots} examples per label; Retrieval: share of a document's "
        "cluster that has its label; Stability: ARI of clusters of random parts with those of all."
    )
    return Sheet("How documents group", lead, ("measure", *measured), rows)


def _cluster_table(named: list[Named], space: Space) -> Sheet:
    rows = []
    for one in named[: space.settings.examples]:
        labels = space.items.labels[space.clusters == one.cluster]
        counts = np.bincount(labels)
        label = space.items.names[int(counts.argmax())]
        rows.append(
            (one.name, one.size, label, round(float(counts.max() / len(labels)), 3), one.text)
        )
    shown = min(len(named), space.settings.examples)
    lead = (
        f"{shown} of {len(named)} clusters of {space.name}, the largest first: the words that set each apart, its "
        "commonest label with that label's share, and its most central document."
    )
    columns = ("cluster", "size", "commonest label", "its share", "most central document")
    return Sheet("The clusters", lead, columns, tuple(rows))


def _advice(named: list[Named], space: Space) -> Sheet | None:
    """Clusters to merge or to split; None where none suggests itself."""
    found = suggestions(space.clusters, space.vectors, space.seed)
    if not found:
        return None
    name_of = {one.cluster: one.name for one in named}
    rows = tuple(
        (one.kind, " | ".join(name_of[cluster] for cluster in one.clusters), one.ratio)
        for one in found[: space.settings.examples]
    )
    lead = (
        "For people to look at; nothing was tried. Merge: the two lie less than half as far apart as "
        "two clusters usually do. Split: the two halves lie nearly as far apart as two clusters do, or farther."
    )
    return Sheet("Merge or split?", lead, ("suggestion", "clusters", "distance, usual is 1"), rows)


def drift_sheet(before: np.ndarray, after: np.ndarray, named: list[Named]) -> Sheet:
    """What became of the clusters of today's model under the other one."""
    matches = grouped.match(before, after)
    name_of = {one.cluster: one.name for one in named}
    kept = grouped.kept_share(matches, len(before))
    kinds = {kind: sum(one.kind == kind for one in matches) for kind in ("kept", "split", "merged")}
    rows = []
    for one in matches[:20]:
        new = " | ".join(name_of.get(cluster, str(cluster)) for cluster in one.after)
        old = ", ".join(f"#{cluster}" for cluster in one.before)
        rows.append((one.kind, old, new, one.items, round(one.overlap, 3)))
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    lead = (
        f"{kept:.0%} of the documents stay in a cluster that was kept ({counted} of "
        f"{len(np.unique(before))}). Clusters are matched by overlap: kept ones share more than half of their documents."
    )
    columns = ("what happened", "before", "after", "documents", "overlap")
    return Sheet("What became of today's clusters", lead, columns, tuple(rows))


def points(space: Space, named: list[Named]) -> list[tuple[float, float, int, str]]:
    """A map: two principal components of at most 800 documents, the rank of each one's cluster, its text."""
    rows = np.arange(len(space.items))
    if len(rows) > _POINTS:
        rng = np.random.default_rng([space.seed, 4])
        rows = np.sort(rng.choice(len(rows), _POINTS, replace=False))
    flat = principal(space.vectors, 2, space.seed)
    rank = {one.cluster: place for place, one in enumerate(named)}
    name = {one.cluster: one.name for one in named}
    texts = space.items.texts
    placed = []
    for row in rows.tolist():
        cluster = int(space.clusters[row])
        text = " ".join(texts[row].split())[:_TEXT]
        label = space.items.names[int(space.items.labels[row])]
        about = f"{text} · {label} · {name.get(cluster, 'no cluster')}"
        x, y = (round(float(value), 4) for value in flat[row])
        placed.append((x, y, rank.get(cluster, -1), about))
    return placed


def _grouping_notes(spaces: list[Space]) -> list[str]:
    """Which groupings tell nothing apart, and how many documents are in no cluster."""
    notes = []
    for space in spaces:
        is_grouped = space.clusters >= 0
        n_clusters = len(np.unique(space.clusters[is_grouped]))
        left_out = int((~is_grouped).sum())
        if n_clusters < 2:
            found = "one cluster" if n_clusters else "no cluster"
            notes.append(
                f"{space.name}: {space.settings.algorithm} finds {found}. Nothing is told apart: "
                "its measures against labels say nothing."
            )
        elif left_out:
            notes.append(
                f"{space.name}: {left_out:,} of {len(is_grouped):,} documents are in no cluster; "
                "each counts as a cluster of its own, which raises purity and homogeneity."
            )
    return notes


def _notes(items: Items, settings: Cluster) -> list[str]:
    notes = [NOT_USEFUL]
    if items.left_out:
        notes.append(
            f"{items.left_out:,} labelled documents were left out (cluster.limit: {settings.limit:,})."
        )
    if settings.hold_out == "classes":
        notes.append(
            "The labels measured here were held out: training saw none of their documents."
        )
    notes.append("The map shows two of many dimensions: what overlaps there may lie apart.")
    return notes
