"""Which examples teach the distinctions that failed?  Training queries only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearer import config
from nearer.data.heldout import HeldOut
from nearer.data.load import load_training
from nearer.project import Project
from nearer.search.systems import Systems
from nearer.text import folded_line
from nearer.training.examples import Duplicates
from nearer.training.mining import Mined, Similarity, mine
from nearer.types import Example, Split


def similarity_of(systems: Systems, train: Split) -> Similarity:
    """Similarity of training queries and documents under today's embedding model."""
    encoder = systems.encoder
    vectors = encoder.encode([query.text for query in train.queries], "query")
    row = {query.id: position for position, query in enumerate(train.queries)}
    documents = systems.document_vectors

    def similarity(query_id: str, doc_ids: Sequence[str]) -> np.ndarray:
        positions = [systems.corpus.position(doc_id) for doc_id in doc_ids]
        result: np.ndarray = documents[positions] @ vectors[row[query_id]]
        return result

    return similarity


def mine_training_files(
    examples: Sequence[Example], held_out: HeldOut, min_score: float | None = None
) -> tuple[list[Example], dict[str, int], dict[str, int]]:
    """Examples of a plain training file, without those that meet a held-out query, score too low or repeat.

    Returns examples, dropped by reason, and collisions by kind.
    """
    kept: list[Example] = []
    dropped: dict[str, int] = {}
    leakage: dict[str, int] = {}
    seen = set()
    for example in examples:
        text = str(example.query)
        collision = held_out.collides(text)
        pair = (folded_line(text), folded_line(example.positive))
        if collision:
            leakage[collision] = leakage.get(collision, 0) + 1
        reason = None
        if collision:
            reason = "query also held out"
        elif _scores_below(example, min_score):
            reason = "score below mine.min_score"
        elif pair in seen:
            reason = "the same pair again"
        elif pair[0] == pair[1]:
            reason = "query and positive are the same text"
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            seen.add(pair)
            kept.append(example)
    return kept, dropped, leakage


def _scores_below(example: Example, min_score: float | None) -> bool:
    return example.score is not None and min_score is not None and example.score < min_score


def mine_examples(
    systems: Systems,
    train: Split,
    settings: config.Config,
    held_out: HeldOut,
    duplicates: Duplicates,
    rng: np.random.Generator,
    root: Path,
) -> Mined:
    """Examples from training judgments and from plain training files."""
    mined = Mined((), {}, {})
    if train.queries:
        sources = settings.mine.sources if settings.mine.negatives else ()
        mined = mine(
            train,
            systems.corpus,
            [systems.search(name, train, settings.mine.candidates) for name in sources],
            similarity_of(systems, train) if settings.mine.negatives else None,
            settings.mine,
            duplicates=duplicates,
            collides=held_out.collides,
            rng=rng,
            min_grade=settings.data.min_grade,
        )
    min_score = settings.mine.min_score
    more, dropped, leakage = mine_training_files(
        load_training(settings.data, root, min_score), held_out, min_score
    )
    return Mined(
        (*mined.examples, *more),
        {
            reason: mined.dropped.get(reason, 0) + dropped.get(reason, 0)
            for reason in {*mined.dropped, *dropped}
        },
        {
            kind: mined.leakage.get(kind, 0) + leakage.get(kind, 0)
            for kind in {*mined.leakage, *leakage}
        },
    )


def run(project: Project) -> Mined:
    """Training examples with hard negatives that are really negative, and what was dropped."""
    return mine_examples(
        project.systems,
        project.split("train"),
        project.settings,
        project.held_out,
        project.duplicates,
        project.rng("mine"),
        project.root,
    )


RESULT = Mined
