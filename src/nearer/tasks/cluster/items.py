"""The documents that a measurement of clusters is about, with their labels and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearer.data.corpus import Corpus
from nearer.errors import DataError
from nearer.measure.vectors import unit_rows
from nearer.search.systems import Systems
from nearer.tasks.base import Cannot
from nearer.tasks.cluster.data import labelled
from nearer.types import Split

#: Below so many documents nothing is said.
LEAST = 20


@dataclass(frozen=True)
class Items:
    """Documents by position in the corpus; `labels` is int64 (n_items,), `names` say what each means."""

    corpus: Corpus
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    left_out: int = 0  # labelled documents beyond cluster.limit

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        return [self.corpus.ids[row] for row in self.rows]

    @property
    def texts(self) -> list[str]:
        return list(self.corpus.contents(self.rows.tolist()))

    @property
    def n_labels(self) -> int:
        return len(self.names)

    def vectors(self, systems: Systems) -> np.ndarray:
        """float32 (n_items, dimension) of unit length, of the documents under a model."""
        return unit_rows(systems.document_vectors[self.rows])


def items_of_split(systems: Systems, split: Split) -> Items:
    """The documents that a split asks for, with their labels.  Raises Cannot where they are too few."""
    field = systems.config.cluster.label
    if field is None:
        raise Cannot("cluster.label names no field", "set cluster.label")
    asked = [query.id for query in split.queries if query.id in systems.corpus]
    return _items(systems, field, asked)


def items_of_corpus(systems: Systems, field: str) -> Items:
    """All documents with a label.  Raises Cannot where the field is missing or they are too few."""
    return _items(systems, field, systems.corpus.ids)


def _items(systems: Systems, field: str, ids: Sequence[str]) -> Items:
    try:
        found = labelled(systems.corpus, field)
    except DataError as error:
        raise Cannot(error.what, error.next_step or "set cluster.label") from None
    known = [doc_id for doc_id in ids if doc_id in found.label_of]
    sizes = Counter(found.label_of[doc_id] for doc_id in known)
    known = [doc_id for doc_id in known if sizes[found.label_of[doc_id]] > 1]
    kept = _sampled(known, systems.config.cluster.limit, systems.config.seed)
    names = tuple(sorted({found.label_of[doc_id] for doc_id in kept}))
    if len(kept) < LEAST or len(names) < 2:
        raise Cannot(
            f"{len(kept)} documents with {len(names)} labels ({field}) are too few to judge clusters",
            f"label at least {LEAST} documents of two kinds",
        )
    number = {name: place for place, name in enumerate(names)}
    rows = np.array([systems.corpus.position(doc_id) for doc_id in kept])
    labels = np.array([number[found.label_of[doc_id]] for doc_id in kept])
    return Items(systems.corpus, rows, labels, names, len(known) - len(kept))


def _sampled(ids: Sequence[str], most: int, seed: int) -> list[str]:
    """At most so many, drawn at random, in their order."""
    return [ids[place] for place in sampled_rows(len(ids), most, seed)]


def sampled_rows(n: int, most: int, seed: int) -> np.ndarray:
    """At most so many of n positions, drawn at random, ascending."""
    if n <= most:
        return np.arange(n)
    rng = np.random.default_rng([seed, 2])
    return np.sort(rng.choice(n, most, replace=False))
