"""Moves the vectors of documents towards the training queries that they answer.

NUDGE (Zeighami, Wellmer, Parameswaran: "Lightweight Non-Parametric Fine-Tuning of Embeddings for
Retrieval", arXiv 2409.02343).  The sum of the similarities of training queries to their documents
is largest, under a bound on how far each vector moves, at a point that has a closed form:

- vectors compared by cosine stay on the sphere (NUDGE-N): each turns towards the sum of its
  queries until the distance moved is the bound, or until it is there;
- vectors compared by dot product (NUDGE-M): each goes the bound's length in that direction.

The bound is the one that ranks best for training queries that were kept from the sums; the vectors
then move by it with all training queries.  Documents without training queries do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearer.embed.base import of_length_one
from nearer.training.methods.vectors import VectorTask, mean_reciprocal_rank

#: Bounds tried: the distance that a vector may move.  Two unit vectors are at most 2 apart.
_BOUNDS = tuple(round(float(bound), 3) for bound in np.linspace(0.0, 1.4, 29))


@dataclass(frozen=True, slots=True)
class Nudged:
    """Documents' vectors after the move, float32 (n_documents, dimension).

    `bound` is the distance allowed (0: nothing pays), `moved` how many vectors changed, and
    `curve` the mean reciprocal rank of the kept-out training queries at each bound.
    """

    documents: np.ndarray
    bound: float
    moved: int
    curve: tuple[tuple[float, float], ...]


def nudge(task: VectorTask, rng: np.random.Generator) -> Nudged:
    """Move the documents of `task`.  Nothing moves where too few queries are there to choose a bound."""
    fitting, kept = task.divided(rng)
    curve: tuple[tuple[float, float], ...] = ()
    if len(kept):
        curve = _curve(task, fitting, kept)
    # The smallest of equally good bounds: max keeps the first.
    bound, _ = max(curve, key=lambda point: point[1], default=(0.0, 0.0))
    all_directions = _directions(task, task.pairs)
    documents = _moved(task, all_directions, bound)
    has_moved = np.any(documents != task.documents, axis=1)
    return Nudged(documents, bound, int(has_moved.sum()), curve)


def _curve(
    task: VectorTask, fitting: np.ndarray, kept: np.ndarray
) -> tuple[tuple[float, float], ...]:
    """(bound, mean reciprocal rank) for each bound: moved by some pairs, ranked for the others.

    `fitting` and `kept` are pairs of the task, int64 (n_pairs, 2).  Bounds are distances between
    unit vectors; where vectors are not of unit length, they are multiples of the mean length.
    """
    scale = 1.0
    if not task.cosine:
        lengths = np.linalg.norm(task.documents, axis=1)
        scale = float(np.mean(lengths))
    directions = _directions(task, fitting)
    curve = []
    for unit_bound in _BOUNDS:
        bound = unit_bound * scale
        documents = _moved(task, directions, bound)
        curve.append((bound, mean_reciprocal_rank(task, kept, task.queries, documents)))
    return tuple(curve)


def _directions(task: VectorTask, pairs: np.ndarray) -> np.ndarray:
    """float32 (n_documents, dimension): per document the unit sum of its queries, or zeros.

    `pairs` is int64 (n_pairs, 2): positions of a query and of a document that answers it.
    """
    query_of_pair, document_of_pair = pairs.T
    sums = np.zeros_like(task.documents)
    np.add.at(sums, document_of_pair, task.queries[query_of_pair])
    return of_length_one(sums)


def _moved(task: VectorTask, directions: np.ndarray, bound: float) -> np.ndarray:
    """float32 (n_documents, dimension): documents moved by at most `bound` in their directions.

    A document whose direction is all zeros has no query, and stays.
    """
    if bound == 0.0:
        return task.documents
    has_queries = np.any(directions, axis=1)
    documents = task.documents.copy()
    if task.cosine:
        with_queries = task.documents[has_queries]
        documents[has_queries] = _turned(with_queries, directions[has_queries], bound)
    else:
        documents[has_queries] += np.float32(bound) * directions[has_queries]
    return documents


def _turned(documents: np.ndarray, directions: np.ndarray, bound: float) -> np.ndarray:
    """Unit vectors turned towards unit directions by a chord of `bound`, at most until they are there.

    All are float32 (n_documents, dimension).  Each vector turns in the plane that it spans with its
    direction: by an angle along `across`, the part of the direction at right angles to the vector.
    """
    cosines = np.sum(documents * directions, axis=1, keepdims=True)
    cosines = np.clip(cosines, -1.0, 1.0)
    angle_between = np.arccos(cosines)
    angle_of_bound = 2.0 * np.arcsin(min(1.0, bound / 2.0))
    angle = np.minimum(angle_between, angle_of_bound)
    across = of_length_one(directions - cosines * documents)
    return of_length_one(np.cos(angle) * documents + np.sin(angle) * across)
