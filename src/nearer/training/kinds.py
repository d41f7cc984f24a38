"""The kinds of training examples: what an example brings decides which losses can learn from it."""

from __future__ import annotations

from typing import Final

PAIRS: Final = "pairs"
TRIPLETS: Final = "triplets"
SCORED_PAIRS: Final = "scored pairs"
GRADED: Final = "graded"
TEACHER_SCORES: Final = "teacher scores"
TEACHER_VECTORS: Final = "teacher vectors"

#: Kind → what each of its examples must bring (`Loss.takes`).
KINDS: Final = {
    PAIRS: "a query and its positive, with or without hard negatives",
    TRIPLETS: "a query, its positive, and at least one negative",
    SCORED_PAIRS: "two texts and a score of their similarity",
    GRADED: "a query whose positives are judged with different grades",
    TEACHER_SCORES: "a reranker's scores of the positive and of each negative",
    TEACHER_VECTORS: "texts whose vectors a teacher gives (train.teacher)",
}
