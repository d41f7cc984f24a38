"""Hard negatives that are really negative.

Positive-aware selection (NV-Retriever, arXiv 2407.15831, "TopK-PercPos"): a candidate counts as a
negative only when the model scores it below `margin` × the score of the positive, so that unlabelled
relevant documents, which fill the top of the list, are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Mine
from nearer.text import folded_line
from nearer.training.examples import Duplicates, known_positives
from nearer.types import Example, Run, Split

#: (query id, document ids) → similarity of each under today's model, float32 (n_documents,)
Similarity = Callable[[str, Sequence[str]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Mined:
    """Examples kept, and what was dropped, by reason."""

    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    #: of the held-out guard: training queries that collide with dev or test, by kind
    leakage: Mapping[str, int]

    def summary(self) -> dict[str, Any]:
        counts = [len(example.negatives) for example in self.examples]
        return {
            "examples": len(self.examples),
            "kept": len(self.examples),
            "queries": len({example.query_id or example.query for example in self.examples}),
            "documents": len({example.positive for example in self.examples}),
            "negatives": {
                "total": sum(counts),
                "mean": round(float(np.mean(counts)), 3) if counts else 0.0,
                "without": counts.count(0),
            },
            "sources": dict(
                Counter(part.split("#")[0] for example in self.examples for part in example.source)
            ),
            "dropped": dict(sorted(self.dropped.items())),
            "leakage": dict(sorted(self.leakage.items())),
        }


def mine(  # noqa: PLR0913 - what it may look at is listed one by one, since that is the point
    train: Split,
    corpus: Any,
    candidates: Sequence[Run],
    similarity: Similarity | None,
    settings: Mine,
    *,
    duplicates: Duplicates,
    collides: Callable[[str], str | None],
    rng: np.random.Generator,
    min_grade: int = 1,
) -> Mined:
    """One example for each judged pair of a training query, with hard negatives.

    Blind to dev and test judgments: it is given none, and `collides` (the held-out guard) says only
    whether a text is also a held-out query.  `candidates` are ranked lists to take negatives from;
    without them no `similarity` is needed.
    """
    dropped: Counter[str] = Counter()
    leakage: Counter[str] = Counter()
    known = known_positives(train.judgments, duplicates)
    examples: list[Example] = []
    seen: set[tuple[str, str]] = set()
    with progress.task("mine examples", len(train.queries), "queries") as bar:
        for query in train.queries:
            bar.advance()
            collision = collides(query.text)
            if collision:
                leakage[collision] += 1
                dropped["query also held out"] += 1
                continue
            if not query.text.strip():
                dropped["empty query"] += 1
                continue
            positives = []
            for doc_id in train.relevant(query.id, min_grade):
                reason = unusable(query.text, doc_id, corpus, seen)
                if reason:
                    dropped[reason] += 1
                else:
                    positives.append(doc_id)
            if not positives:
                continue
            pool = pool_of(
                query.id, candidates, settings, known.get(query.id, frozenset()), corpus, dropped
            )
            scores = (
                similarity(query.id, [*positives, *pool])
                if similarity and pool
                else np.zeros(len(positives) + len(pool))
            )
            for position, doc_id in enumerate(positives):
                negatives, sources = _draw(
                    float(scores[position]),
                    list(pool.items()),
                    scores[len(positives) :],
                    settings,
                    rng,
                    dropped,
                )
                examples.append(
                    Example(
                        doc_id, query_id=query.id, negatives=negatives, source=("judged", *sources)
                    )
                )
    return Mined(tuple(examples), dropped, leakage)


def unusable(text: str, doc_id: str, corpus: Any, seen: set[tuple[str, str]]) -> str | None:
    """Why a judged pair teaches nothing, or None; `seen` remembers the pairs that passed."""
    document = corpus.get(doc_id)
    if document is None:
        return "positive not in the corpus"
    if not document.content.strip():
        return "positive is empty"
    pair = (folded_line(text), folded_line(document.content))
    if pair in seen:
        return "the same pair again"
    if pair[0] == pair[1]:
        return "query and positive are the same text"
    seen.add(pair)
    return None


def pool_of(
    query_id: str,
    candidates: Sequence[Run],
    settings: Mine,
    known: frozenset[str],
    corpus: Any,
    dropped: Counter[str],
) -> dict[str, str]:
    """Candidate document id → where it was found (`dense#4`), nothing relevant or empty among them."""
    pool: dict[str, str] = {}
    if not settings.negatives:
        return pool
    for run in candidates:
        for rank, doc_id in enumerate(run.top(query_id, settings.candidates), start=1):
            if doc_id in pool:
                continue
            if doc_id == query_id:
                dropped["candidate is the query itself"] += 1
            elif doc_id in known:
                dropped["candidate is a known positive or its duplicate"] += 1
            elif not corpus.get(doc_id).content.strip():
                dropped["candidate is empty"] += 1
            else:
                pool[doc_id] = f"{run.name}#{rank}"
    return pool


def _draw(
    positive: float,
    pool: list[tuple[str, str]],
    scores: np.ndarray,
    settings: Mine,
    rng: np.random.Generator,
    dropped: Counter[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw from the hardest candidates that score clearly below the positive."""
    ceiling = positive - (1.0 - settings.margin) * abs(
        positive
    )  # margin × positive, also below zero
    below = [position for position in range(len(pool)) if scores[position] < ceiling]
    if len(below) < len(pool):
        dropped["candidate scores too close to the positive"] += len(pool) - len(below)
    hardest = sorted(below, key=lambda position: (-float(scores[position]), pool[position][0]))[
        : settings.pool
    ]
    take = min(settings.negatives, len(hardest))
    chosen = (
        [pool[hardest[i]] for i in sorted(rng.choice(len(hardest), size=take, replace=False))]
        if take
        else []
    )
    return tuple(doc_id for doc_id, _ in chosen), tuple(source for _, source in chosen)
