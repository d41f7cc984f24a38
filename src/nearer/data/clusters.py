"""Queries that are not independent of each other: noticed, or as the settings declare them.

Queries of one user, of one template or about one document tend to gain and lose together.  Taken
for independent, they make an interval too short, so whole clusters are the unit instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer import config
from nearer.data.cells import is_empty
from nearer.data.near import joined, near_duplicates, normalise
from nearer.errors import ConfigError
from nearer.measure.slices import find_identifiers
from nearer.types import Query, Split

#: `decide.clusters`: notice clusters, or take every query for independent; else a field's name.
AUTO, NONE = "auto", "none"

_SLOT = "\x00"
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_LEAST_WORDS = 2  # of a template, beside its slots

Labels = Mapping[str, str]  # query id → what it belongs to
Links = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Noticed:
    """One reason why queries hang together, and how far it reaches."""

    kind: str  # shared document, near-duplicate, template, user, or a field's name
    clusters: int  # of two or more queries
    queries: int  # in them
    largest: int

    def as_dict(self) -> dict[str, Any]:
        """A row of `clusters.noticed` in decision.json."""
        return {
            "kind": self.kind,
            "clusters": self.clusters,
            "queries": self.queries,
            "largest": self.largest,
        }


@dataclass(frozen=True, slots=True)
class QueryClusters:
    """What each query belongs to; `by_query` is None where every query stands for itself."""

    by_query: Labels | None = None
    kind: str = "query"  # what the clusters are made of
    noticed: tuple[Noticed, ...] = ()

    def labels(self, query_ids: Sequence[str]) -> np.ndarray | None:
        """(n_queries,) str, in the order of the ids; None where every query stands for itself."""
        if self.by_query is None:
            return None
        known = self.by_query
        return np.array([known.get(query_id, query_id) for query_id in query_ids], dtype=str)

    def as_dict(self, query_ids: Sequence[str]) -> dict[str, Any]:
        """`clusters` in decision.json: how many units the judged queries are."""
        labels = self.labels(query_ids)
        sizes = Counter(query_ids if labels is None else labels.tolist())
        return {
            "unit": self.kind,
            "n": len(sizes),
            "queries": len(query_ids),
            "largest": max(sizes.values(), default=0),
            "noticed": [reason.as_dict() for reason in self.noticed],
        }


@dataclass(frozen=True, slots=True)
class ClusterRules:
    """How clusters are found: `how` is `decide.clusters`, the others say what is alike."""

    how: str = AUTO
    near_duplicate: float = 0.9  # Jaccard similarity of word 3-grams
    min_grade: int = 1
    item_to_item: bool = False  # a query is a document too, and belongs to those that are like it

    @classmethod
    def of(cls, settings: config.Config, item_to_item: bool) -> ClusterRules:
        """As the settings say."""
        return cls(
            how=settings.decide.clusters,
            near_duplicate=settings.check.near_duplicate,
            min_grade=settings.data.min_grade,
            item_to_item=item_to_item,
        )


@dataclass(frozen=True, slots=True)
class _Grouping:
    """The queries in groups, by position."""

    kind: str
    groups: Sequence[Sequence[int]]
    noticed: tuple[Noticed, ...] = field(default=())

    @property
    def repeats(self) -> bool:
        """Whether any two queries are together."""
        return any(len(group) > 1 for group in self.groups)

    @property
    def effective(self) -> float:
        """How many clusters of equal size would leave as much uncertainty: n² / Σ size²."""
        sizes = np.array([len(group) for group in self.groups], np.float64)
        return float(sizes.sum() ** 2 / (sizes**2).sum())


def query_clusters(split: Split, rules: ClusterRules) -> QueryClusters:
    """Clusters of the queries of a split.  Raises ConfigError for a field that no query has.

    Noticed are: a shared relevant document, a text that is nearly the same, a text that differs in
    numbers, identifiers and quoted phrases alone, and equal values of `template`; and, apart from
    these, equal values of `user`.  Where both kinds are there, the one that leaves fewer clusters
    is taken: what holds queries together across the two is then not counted.
    """
    queries = split.queries
    if rules.how == NONE or not queries:
        return QueryClusters()
    if rules.how != AUTO:
        return _named(_declared(queries, rules.how), queries)
    groupings = [_by_content(split, rules), _by_field(queries, "user")]
    noticed = tuple(reason for grouping in groupings for reason in grouping.noticed)
    repeating = [grouping for grouping in groupings if grouping.repeats]
    if not repeating:
        return QueryClusters()
    unit = min(repeating, key=lambda grouping: grouping.effective)
    return _named(_Grouping(unit.kind, unit.groups, noticed), queries)


def _named(grouping: _Grouping, queries: Sequence[Query]) -> QueryClusters:
    labels: dict[str, str] = {}
    for group in grouping.groups:
        first = queries[group[0]].id
        for position in group:
            labels[queries[position].id] = first
    return QueryClusters(labels, grouping.kind, grouping.noticed)


def require_field(how: str, fields: Collection[str]) -> None:
    """Raises ConfigError where `decide.clusters` names a field that is not among those given."""
    if how not in (AUTO, NONE) and how not in fields:
        raise ConfigError(
            f"no test query has the field {how!r}",
            where="decide.clusters",
            next_step="name a field of queries.jsonl, or use auto or none",
        )


def _declared(queries: Sequence[Query], name: str) -> _Grouping:
    require_field(name, {name for query in queries if _value(query, name) is not None})
    return _by_field(queries, name)


def _by_field(queries: Sequence[Query], name: str) -> _Grouping:
    links = _links([_value(query, name) for query in queries])
    groups = joined(len(queries), links)
    return _Grouping(name, groups, _reasons(name, groups))


def _by_content(split: Split, rules: ClusterRules) -> _Grouping:
    """Queries that ask for the same, or in the same words."""
    queries = split.queries
    texts = [query.text for query in queries]
    alike: Links = []
    for first, *others in near_duplicates(texts, rules.near_duplicate, what="queries").groups:
        alike.extend((first, position) for position in others)
    templates = _links([template_of(text) for text in texts])
    templates += _links([_value(query, "template") for query in queries])
    links = {
        "shared document": _links(_documents(split, rules)),
        "near-duplicate": alike,
        "template": templates,
    }
    noticed: list[Noticed] = []
    together: Links = []
    for kind, pairs in links.items():
        noticed += _reasons(kind, joined(len(queries), pairs))
        together += pairs
    kind = " or ".join(reason.kind for reason in noticed)
    return _Grouping(kind, joined(len(queries), together), tuple(noticed))


def _documents(split: Split, rules: ClusterRules) -> list[str | None]:
    """For each query the relevant document that it shares with the most queries; None: it has none.

    A query that is a document itself stands among its own: otherwise those that are relevant to
    each other would share nothing.
    """
    relevant = []
    for query in split.queries:
        own = [query.id] if rules.item_to_item else []
        relevant.append(sorted({*split.relevant(query.id, rules.min_grade), *own}))
    return most_shared(relevant)


def most_shared(documents: Sequence[Sequence[str]]) -> list[str | None]:
    """Of each list of document ids the one that stands in the most lists; None for an empty list.

    One document per list: linking every shared one would chain most queries of rich judgments into
    a single cluster, although its ends have nothing in common.
    """
    asked = Counter(doc_id for doc_ids in documents for doc_id in doc_ids)
    return [max(doc_ids, key=lambda doc_id: asked[doc_id], default=None) for doc_ids in documents]


def template_of(text: str) -> str | None:
    """A text without its numbers, identifiers and quoted phrases; None where it has none of them."""
    masked = text
    for identifier in find_identifiers(text):
        masked = masked.replace(identifier, _SLOT)
    masked = _NUMBER.sub(_SLOT, masked)
    if _SLOT not in masked:
        return None
    words = normalise(masked).split()
    if sum(_SLOT not in word for word in words) < _LEAST_WORDS:
        return None
    return " ".join(words)


def _value(query: Query, name: str) -> str | None:
    """What stands in a field; None where nothing does."""
    value = query.metadata.get(name)
    return None if is_empty(value) else str(value)


def _links(values: Sequence[str | None]) -> Links:
    """Pairs of positions with the same value."""
    first: dict[str, int] = {}
    links: Links = []
    for position, value in enumerate(values):
        if value is None:
            continue
        if value in first:
            links.append((first[value], position))
        first.setdefault(value, position)
    return links


def _reasons(kind: str, groups: Sequence[Sequence[int]]) -> tuple[Noticed, ...]:
    sizes = [len(group) for group in groups if len(group) > 1]
    if not sizes:
        return ()
    return (Noticed(kind, len(sizes), sum(sizes), max(sizes)),)
