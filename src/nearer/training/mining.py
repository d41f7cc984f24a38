"""Hard negatives that are really negative.

Positive-aware selection (NV-Retriever, arXiv 2407.15831, "TopK-PercPos"): a candidate counts as a
negative only when the model scores it below `margin` × the score of the positive, so that unlabelled
relevant documents, which fill the top of the list, are left alone.  Documents that somebody judged
not relevant need no such guess: they come first, whatever the model scores them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Mine
from nearer.files import read_json, write_json, write_jsonl
from nearer.results import Block, Line, Result
from nearer.text import folded_line
from nearer.training.examples import Duplicates, known_positives, read_examples
from nearer.types import Example, Run, Split

#: (query id, document ids) → similarity of each under today's model, float32 (n_documents,)
Similarity = Callable[[str, Sequence[str]], np.ndarray]
#: Source of a negative that somebody judged not relevant.
JUDGED_NEGATIVE = "judged 0"


@dataclass(frozen=True)
class Mined(Result):
    """Examples kept, and what was dropped, by reason."""

    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    #: of the held-out guard: training queries that collide with dev or test, by kind
    leakage: Mapping[str, int]

    def save(self, folder: Path) -> None:
        """`examples.jsonl` and `summary.json`."""
        write_jsonl(folder / "examples.jsonl", (example.as_dict() for example in self.examples))
        write_json(folder / "summary.json", self.summary())

    @classmethod
    def load(cls, folder: Path) -> Mined:
        """Read the examples and what was dropped.  Raises DataError for a damaged file."""
        summary = read_json(folder / "summary.json")
        examples = tuple(read_examples(folder / "examples.jsonl"))
        return cls(examples, summary.get("dropped", {}), summary.get("leakage", {}))

    def brief(self) -> dict[str, Any]:
        return self.summary()

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per example."""
        return (example.as_dict() for example in self.examples)

    def blocks(self) -> list[Block]:
        summary = self.summary()
        mean = summary["negatives"]["mean"]
        lines = [Line(f"{summary['examples']:,} examples, {mean:.2f} hard negatives each")]
        for reason, count in summary["dropped"].items():
            lines.append(Line(f"  · dropped {count:,}: {reason}", "dim"))
        return [*lines]

    def summary(self) -> dict[str, Any]:
        """What was kept, dropped by reason, and found to leak: `summary.json`."""
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
    whether a text is also a held-out query.  Documents judged 0 for the query are its first negatives;
    `candidates` are ranked lists to take further ones from.  Without `similarity` negatives are
    drawn from them in the order of their ids.
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
            never = known.get(query.id, frozenset())
            refused: list[str] = []
            if settings.negatives:
                refused = judged_negatives(train, query.id, never, corpus, dropped)
            pool = pool_of(query.id, candidates, settings, never, corpus, dropped)
            for doc_id in refused:
                pool.pop(doc_id, None)
            asked = [*positives, *refused, *pool]
            scores = np.zeros(len(asked))
            if similarity and len(asked) > len(positives):
                scores = similarity(query.id, asked)
            similar = dict(zip(asked, map(float, scores), strict=True))
            for doc_id in positives:
                judged = _hardest(refused, similar, settings.negatives, settings.pool, rng)
                mined, places = _draw(
                    similar[doc_id], pool, similar, settings, rng, dropped, len(judged)
                )
                negatives = (*judged, *mined)
                sources = (*(JUDGED_NEGATIVE for _ in judged), *places)
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


def judged_negatives(
    train: Split, query_id: str, never: Collection[str], corpus: Any, dropped: Counter[str]
) -> list[str]:
    """Documents that somebody judged not relevant (grade 0 or below) and that can be negatives.

    `never` are the query's known positives and their near-duplicates: where judgments contradict
    each other, nothing is learned from them.
    """
    usable: list[str] = []
    for doc_id, grade in train.judgments.get(query_id, {}).items():
        if grade > 0:
            continue
        document = corpus.get(doc_id)
        if document is None:
            dropped["judged 0, but not in the corpus"] += 1
        elif doc_id == query_id:
            dropped["judged 0, but the query itself"] += 1
        elif doc_id in never:
            dropped["judged 0, but a known positive or its duplicate"] += 1
        elif not document.content.strip():
            dropped["judged 0, but empty"] += 1
        else:
            usable.append(doc_id)
    return usable


def _draw(
    positive: float,
    pool: Mapping[str, str],
    similar: Mapping[str, float],
    settings: Mine,
    rng: np.random.Generator,
    dropped: Counter[str],
    taken: int,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw from the hardest candidates that score clearly below the positive.

    `taken` negatives of the example were judged and are not drawn again.
    """
    # margin × positive, also below zero
    ceiling = positive - (1.0 - settings.margin) * abs(positive)
    below = [doc_id for doc_id in pool if similar[doc_id] < ceiling]
    if len(below) < len(pool):
        dropped["candidate scores too close to the positive"] += len(pool) - len(below)
    chosen = _hardest(below, similar, settings.negatives - taken, settings.pool, rng)
    return tuple(chosen), tuple(pool[doc_id] for doc_id in chosen)


def _hardest(
    doc_ids: Sequence[str],
    similar: Mapping[str, float],
    count: int,
    pool: int,
    rng: np.random.Generator,
) -> list[str]:
    """At most `count` documents, drawn from the `pool` that are most similar to the query."""
    hardest = sorted(doc_ids, key=lambda doc_id: (-similar[doc_id], doc_id))[:pool]
    take = min(count, len(hardest))
    if take <= 0:
        return []
    rows = sorted(rng.choice(len(hardest), size=take, replace=False))
    return [hardest[row] for row in rows]
