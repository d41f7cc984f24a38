"""Sections of the tasks beside search: recommend and cluster, and what guards name of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nearer.settings.base import Count, Fraction, Positive, Section, named

TaskName = Annotated[str, named("task")]

#: The settings of which a guard names exactly one.
_BOUNDS = ("keep", "margin", "gain")


class TaskGuard(Section):
    """One measure of a task that must not get worse, or must rise: `{task, measure, keep | margin | gain}`."""

    task: TaskName = Field("search", description="whose measure it is: search, recommend, cluster")
    measure: str = Field(
        description="a name of the task's measures: R@10, Coverage@10, V-measure, …"
    )
    keep: Fraction | None = Field(
        None, description="share of today's value that must be kept: 0.95"
    )
    margin: Annotated[float, Field(ge=0)] | None = Field(
        None, description="largest loss accepted (where less is better: largest rise)"
    )
    gain: Annotated[float, Field(ge=0)] | None = Field(
        None, description="a goal: the smallest gain that must be shown"
    )
    label: str | None = Field(
        None, description="cluster: metadata field with the labels (null: cluster.label)"
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [name for name in _BOUNDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name one of keep, margin and gain, not {' and '.join(given) or 0}")
        return self


class Recommend(Section):
    """`task: recommend`: similar items, and items for a history."""

    interactions: str | None = Field(
        None,
        description="log of who engaged with which item, in place of queries and judgments: one row per event",
    )
    session: str = Field("session", description="interactions: column of the session or user")
    item: str = Field("item", description="interactions: column of the item's id")
    time: str | None = Field("time", description="interactions: column of the time (null: none)")
    kind: str = Field("kind", description="interactions: column of the kind of event, if any")
    kinds: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="what an event of a kind counts: {purchase: 3} (others count 1)"
    )
    queries: Literal["items", "histories"] = Field(
        "items",
        description="what dev and test ask: items similar to one, or what follows a session's history",
    )
    split: Literal["group", "time"] = Field(
        "group",
        description="interactions: items held out at random, or what happened last is held out",
    )
    min_together: Positive = Field(
        2, description="sessions in which two items must meet to be related"
    )
    correction: Fraction = Field(
        0.5,
        description="how strongly popular items are discounted in training pairs (0: not at all)",
    )
    history: Positive = Field(10, description="last items of a history that count")
    half_life: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="items after which one in a history counts half (null: all count the same)",
    )
    eligible: dict[str, str | bool | int | float] = Field(
        {}, description="metadata that every result must have: {in_stock: true}"
    )
    same: tuple[str, ...] = Field(
        (), description="metadata fields in which a result must agree with its query: [category]"
    )
    k: Positive = Field(10, description="length of the lists that coverage and the like are about")
    diversity: tuple[Fraction, ...] = Field(
        (0.9, 0.7), description="fix diversity: weights of relevance in MMR that are tried"
    )


class Cluster(Section):
    """`task: cluster`: groups of documents that belong together."""

    label: str | None = Field(
        None, description="metadata field of documents that says where each belongs"
    )
    hold_out: Literal["classes", "rows"] = Field(
        "classes",
        description="classes: dev and test have labels that training never sees; rows: other documents of the same labels",
    )
    per_class: Annotated[int, Field(ge=2)] = Field(
        50, description="documents per label that are asked for, at most"
    )
    algorithm: Literal["kmeans", "minibatch", "agglomerative", "hdbscan"] = Field(
        "kmeans", description="how documents are grouped"
    )
    n_clusters: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="number of clusters (null: of labels where there are some, else silhouette)",
    )
    reduce: Literal["none", "pca", "umap"] = Field(
        "none", description="fewer dimensions before clustering; umap needs umap-learn"
    )
    dimensions: Annotated[int, Field(ge=2)] = Field(50, description="that reduce leaves")
    min_size: Annotated[int, Field(ge=2)] = Field(5, description="hdbscan: smallest cluster")
    shots: Positive = Field(5, description="labelled examples per class in the few-shot test")
    neighbours: Positive = Field(5, description="neighbours that vote in kNN classification")
    limit: Annotated[int, Field(ge=10)] = Field(
        5000, description="documents that are clustered in a measurement, at most"
    )
    repeats: Count = Field(10, description="bootstraps of the stability of clusters")
    examples: Positive = Field(12, description="clusters that the report names, largest first")
