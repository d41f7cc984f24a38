"""What training examples may be made from: training judgments, and nothing of dev or test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nearer.data.corpus import Corpus
from nearer.data.items import MET
from nearer.text import folded_line
from nearer.training.examples import Duplicates, known_positives
from nearer.types import Document, Query, Run, Split

#: Why a pair is left out whose document is a held-out query.
POSITIVE_HELD_OUT = "positive is also a held-out query"


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """Everything that mining may look at, listed one by one, since that is the point.

    Blind to dev and test judgments: it holds none, and `collides` (the held-out guard) says only
    whether a text is also a held-out query, and how ("exact", "near-duplicate"), or None.
    Of `items` every query is a document: that a document is also a held-out query leaks nothing.
    """

    train: Split
    corpus: Corpus
    duplicates: Duplicates
    collides: Callable[[str], str | None]
    min_grade: int = 1  # smallest grade of a positive
    items: bool = False


class UsableDocuments:
    """Which documents can be positives and negatives of the training queries.

    What is left out is counted in `dropped`, by reason.
    """

    def __init__(self, material: TrainingMaterial) -> None:
        self.dropped: Counter[str] = Counter()
        #: of positives whose text is also a held-out query, by kind
        self.leakage: Counter[str] = Counter()
        self._material = material
        self._collisions: dict[str, str | None] = {}
        self._train = material.train
        self._corpus = material.corpus
        self._min_grade = material.min_grade
        self._known = known_positives(material.train.judgments, material.duplicates)
        self._queries = {query.id: query for query in material.train.queries}
        self._duplicates = material.duplicates.documents
        self._pairs: set[tuple[str, str]] = set()

    def positives(self, query: Query) -> list[str]:
        """Relevant documents that teach something; no pair of texts is given twice."""
        usable = []
        for doc_id in self._train.relevant(query.id, self._min_grade):
            reason = self._unusable(query.text, doc_id)
            if reason:
                self.dropped[reason] += 1
            else:
                usable.append(doc_id)
        return usable

    def _unusable(self, text: str, doc_id: str) -> str | None:
        """Why a judged pair teaches nothing, or None; pairs that pass are remembered."""
        document = self._corpus.get(doc_id)
        if document is None:
            return "positive not in the corpus"
        if not document.content.strip():
            return "positive is empty"
        collision = self._collision(document)
        if collision:
            self.leakage[collision] += 1
            return POSITIVE_HELD_OUT
        pair = (folded_line(text), folded_line(document.content))
        if pair in self._pairs:
            return "the same pair again"
        if pair[0] == pair[1]:
            return "query and positive are the same text"
        self._pairs.add(pair)
        return None

    def _collision(self, document: Document) -> str | None:
        """How a document collides with a held-out query; each is looked at once."""
        if self._material.items:
            return None
        if document.id not in self._collisions:
            self._collisions[document.id] = self._material.collides(document.content)
        return self._collisions[document.id]

    def judged_negatives(self, query_id: str) -> list[str]:
        """Documents that somebody judged not relevant (grade 0 or below) and that can be negatives.

        Where judgments contradict each other (a known positive, or a near-duplicate of one, judged
        0), nothing is learned from them.
        """
        usable: list[str] = []
        for doc_id, grade in self._train.judgments.get(query_id, {}).items():
            if grade > 0:
                continue
            document = self._corpus.get(doc_id)
            if document is None:
                self.dropped["judged 0, but not in the corpus"] += 1
            elif doc_id == query_id:
                self.dropped["judged 0, but the query itself"] += 1
            elif doc_id in self._never(query_id):
                self.dropped["judged 0, but a known positive or its duplicate"] += 1
            elif not document.content.strip():
                self.dropped["judged 0, but empty"] += 1
            else:
                usable.append(doc_id)
        return usable

    def candidates(
        self, query_id: str, runs: Sequence[Run], depth: int, first: int = 1
    ) -> dict[str, str]:
        """Document id → where it was found (`dense#4`), from rank `first` to `depth` of each run.

        Nothing relevant or empty is among them, and not the query itself; where queries are items,
        nothing that met the query in the log either, however seldom.
        """
        sources: dict[str, str] = {}
        engaged = self._engaged(query_id)
        for run in runs:
            window = run.top(query_id, depth)[first - 1 :]
            for rank, doc_id in enumerate(window, start=first):
                if doc_id in sources:
                    continue
                if doc_id == query_id:
                    self.dropped["candidate is the query itself"] += 1
                elif doc_id in self._never(query_id):
                    self.dropped["candidate is a known positive or its duplicate"] += 1
                elif doc_id in engaged:
                    self.dropped["candidate met the item in the log, or is its duplicate"] += 1
                elif self._is_empty(doc_id):
                    self.dropped["candidate is empty"] += 1
                else:
                    sources[doc_id] = f"{run.name}#{rank}"
        return sources

    def _is_empty(self, doc_id: str) -> bool:
        document = self._corpus.get(doc_id)
        return document is None or not document.content.strip()

    def _engaged(self, query_id: str) -> frozenset[str]:
        """Of items: what met the query in the log, and near-duplicates of these and of the query."""
        if not self._material.items:
            return frozenset()
        met = self._queries[query_id].metadata.get(MET) if query_id in self._queries else None
        items = [query_id, *met] if isinstance(met, list) else [query_id]
        groups = [self._duplicates.get(item, frozenset()) for item in items]
        return frozenset(items).union(*groups)

    def _never(self, query_id: str) -> frozenset[str]:
        """Known positives of a query and their near-duplicates."""
        return self._known.get(query_id, frozenset())
