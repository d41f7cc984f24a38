"""Vectors that training is guided by: of the base model, and of a teacher that is imitated.

Both are computed once, before training, through the cache of embeddings; a batch takes along those
of its texts (`nearer.training.batches`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nearer.embed import bridge
from nearer.embed.base import of_length_one
from nearer.embed.encoder import Encoder
from nearer.errors import ModelError
from nearer.search.systems import Systems
from nearer.training.examples import Guide, TextVectors, TrainingSet


def with_vectors(rows: TrainingSet, systems: Systems, width: int) -> TrainingSet:
    """The training set with the vectors that `train.guide_margin` and `train.teacher` ask for.

    `width` is the dimension of the model that is trained.  Raises ModelError for a teacher whose
    vectors are not finite.
    """
    settings = systems.config.train
    if settings.guide_margin is None and settings.teacher is None:
        return rows
    base = vectors_of(rows, systems.encoder)
    if settings.guide_margin is not None:
        rows = replace(rows, guide=Guide(base, settings.guide_margin))
    if settings.teacher is not None:
        taught = vectors_of(rows, systems.encoder_of(settings.teacher))
        rows = replace(rows, teacher=fitted(taught, base, width, settings.teacher))
    return rows


def vectors_of(rows: TrainingSet, encoder: Encoder) -> TextVectors:
    """A vector per distinct text, as the kind of text that it is in training."""
    asked: set[int] = set()
    symmetric: set[int] = set()
    for row, (query, _, _) in enumerate(rows.rows):
        own = symmetric if rows.is_symmetric(rows.part(row)) else asked
        own.add(query)
    documents = of_length_one(encoder.encode(rows.documents, "document"))
    queries = np.full((len(rows.queries), documents.shape[1]), np.nan, np.float32)
    for members, kind in ((sorted(asked), "query"), (sorted(symmetric), "document")):
        if members:
            texts = [rows.queries[query] for query in members]
            queries[members] = of_length_one(encoder.encode(texts, kind))  # type: ignore[arg-type]
    return TextVectors(queries, documents)


def fitted(teacher: TextVectors, base: TextVectors, width: int, name: str) -> TextVectors:
    """The teacher's vectors in the model's dimension, turned to lie as near as possible to its own.

    A larger teacher's are projected on the directions that hold most of them (Eckart and Young
    1936), which keeps similarities best; a smaller one's are filled up with zeros.  The rotation
    (Schönemann 1966) leaves all similarities as they are and saves the model a longer way.
    """
    known = ~np.isnan(teacher.queries[:, 0])
    texts = np.concatenate([teacher.queries[known], teacher.documents])
    if not np.isfinite(texts).all():
        raise ModelError(
            "the teacher gives vectors that are not finite numbers",
            where=name,
            next_step="name another model with train.teacher",
        )
    directions = np.eye(texts.shape[1], dtype=np.float32)
    if texts.shape[1] > width:
        _, vectors = np.linalg.eigh(texts.T.astype(np.float64) @ texts)
        directions = np.ascontiguousarray(vectors[:, ::-1][:, :width], np.float32)
    missing = width - directions.shape[1]
    projection = np.pad(directions, ((0, 0), (0, missing)))
    own = np.concatenate([base.queries[known], base.documents])
    rotation = bridge.fit(of_length_one(texts @ projection), own).weights["matrix"]
    matrix = projection @ rotation
    return TextVectors(
        of_length_one(teacher.queries @ matrix), of_length_one(teacher.documents @ matrix)
    )
