"""Which examples teach the distinctions that failed?  Training queries only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from nearer.data.heldout import HeldOut
from nearer.data.load import load_training
from nearer.project import Project
from nearer.search.systems import Systems
from nearer.text import folded_line
from nearer.training.examples import Duplicates
from nearer.training.material import TrainingMaterial
from nearer.training.mining import Mined, Similarity, mine
from nearer.types import Example, Split


def similarity_of(systems: Systems, train: Split) -> Similarity:
    """Similarity of training queries and documents under today's embedding model."""
    encoder = systems.encoder
    queries = encoder.encode([query.text for query in train.queries], "query")
    row = {query.id: position for position, query in enumerate(train.queries)}
    documents = systems.document_vectors

    def similarity(query_id: str, doc_ids: Sequence[str]) -> np.ndarray:
        positions = [systems.corpus.position(doc_id) for doc_id in doc_ids]
        similarities: np.ndarray = documents[positions] @ queries[row[query_id]]
        return similarities

    return similarity


def mine_training_files(
    examples: Sequence[Example], held_out: HeldOut, min_score: float | None = None
) -> tuple[list[Example], dict[str, int], dict[str, int]]:
    """The usable examples of a plain training file.

    Left out are those that collide with a held-out query, score too low, repeat another or teach
    nothing.  Returns examples, dropped by reason, and collisions by kind.
    """
    kept: list[Example] = []
    dropped: Counter[str] = Counter()
    leakage: Counter[str] = Counter()
    pairs: set[tuple[str, str]] = set()
    for example in examples:
        query = str(example.query)
        pair = (folded_line(query), folded_line(example.positive))
        collision = held_out.collides(query)
        if collision:
            leakage[collision] += 1
            dropped["query also held out"] += 1
        elif _scores_below(example, min_score):
            dropped["score below mine.min_score"] += 1
        elif pair in pairs:
            dropped["the same pair again"] += 1
        elif pair[0] == pair[1]:
            dropped["query and positive are the same text"] += 1
        else:
            pairs.add(pair)
            kept.append(example)
    return kept, dict(dropped), dict(leakage)


def _scores_below(example: Example, min_score: float | None) -> bool:
    return example.score is not None and min_score is not None and example.score < min_score


def mine_examples(
    systems: Systems,
    train: Split,
    held_out: HeldOut,
    duplicates: Duplicates,
    rng: np.random.Generator,
) -> Mined:
    """Examples from training judgments and from plain training files.

    `systems` are those of the baseline; they name the settings and the project's folder.
    """
    settings = systems.config
    mined = Mined((), {}, {})
    if train.queries:
        material = TrainingMaterial(
            train, systems.corpus, duplicates, held_out.collides, settings.data.min_grade
        )
        mined = _mine_judgments(systems, material, rng)
    min_score = settings.mine.min_score
    training_file = load_training(settings.data, systems.root)
    examples, dropped, leakage = mine_training_files(training_file, held_out, min_score)
    return Mined(
        (*mined.examples, *examples),
        Counter(mined.dropped) + Counter(dropped),
        Counter(mined.leakage) + Counter(leakage),
    )


def _mine_judgments(
    systems: Systems, material: TrainingMaterial, rng: np.random.Generator
) -> Mined:
    settings = systems.config.mine
    if not settings.negatives:
        return mine(material, [], None, settings, rng)
    train = material.train
    candidates = [systems.search(name, train, settings.candidates) for name in settings.sources]
    return mine(material, candidates, similarity_of(systems, train), settings, rng)


def run(project: Project) -> Mined:
    """Training examples with hard negatives that are really negative, and what was dropped."""
    return mine_examples(
        project.systems,
        project.split("train"),
        project.held_out,
        project.duplicates,
        project.rng("mine"),
    )


RESULT = Mined
