"""Negatives that share a category with the item of the query, drawn at random: alike, but not in what people do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nearer.data.corpus import Corpus
from nearer.errors import ConfigError
from nearer.search.filters.values import held_keys
from nearer.types import Query, Run, Split

#: The name of the source, in examples and in `mine.quota`.
CATEGORY = "category"


def category_run(
    corpus: Corpus, train: Split, field: str, most: int, rng: np.random.Generator
) -> Run:
    """At most `most` other items per training query, in the order of the draw.

    They share a value of the metadata `field` with the query's item; values are equal as in
    filters, and an item may have several.  Raises ConfigError where no document has the field.
    """
    keys_of, members = _categories(corpus, field)
    drawn: dict[str, list[tuple[str, float]]] = {}
    for query in train.queries:
        others = _others(query, corpus, keys_of, members)
        n = min(most, len(others))
        rows = others[rng.choice(len(others), n, replace=False)] if n else others
        ids = [corpus.ids[row] for row in rows.tolist()]
        drawn[query.id] = [(doc_id, 1 - rank / (n + 1)) for rank, doc_id in enumerate(ids)]
    return Run(CATEGORY, drawn)


def _categories(
    corpus: Corpus, field: str
) -> tuple[Mapping[str, set[str]], Mapping[str, np.ndarray]]:
    """Item → its values, and value → positions of the items that have it."""
    keys_of: dict[str, set[str]] = {}
    positions: dict[str, list[int]] = {}
    fields: dict[str, None] = {}
    for position, document in enumerate(corpus):
        fields.update(dict.fromkeys(document.metadata))
        value = document.metadata.get(field)
        if value == "":  # an empty cell of a table says nothing
            continue
        keys = held_keys(value)
        if not keys:
            continue
        keys_of[document.id] = keys
        for key in keys:
            positions.setdefault(key, []).append(position)
    if not keys_of:
        raise ConfigError(
            f"no document has the field {field!r}; the fields there are: {', '.join(fields) or 'none'}",
            where="mine.category",
            next_step="set mine.category to the field that says what an item is, or to null",
        )
    return keys_of, {key: np.array(rows, np.int64) for key, rows in positions.items()}


def _others(
    query: Query,
    corpus: Corpus,
    keys_of: Mapping[str, set[str]],
    members: Mapping[str, np.ndarray],
) -> np.ndarray:
    """(n,) int64: positions of the other items that share a value with the query's item."""
    keys = sorted(keys_of.get(query.id, ()))
    if not keys:
        return np.empty(0, np.int64)
    rows = np.unique(np.concatenate([members[key] for key in keys]))
    others: np.ndarray = rows[rows != corpus.position(query.id)]
    return others
