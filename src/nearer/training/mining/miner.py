"""Makes one example of each judged pair of a training query, with its hard negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nearer import progress
from nearer.config import Mine
from nearer.data.clicks import CLICK_WEIGHTS
from nearer.data.generated import GENERATED, is_generated
from nearer.training.material import TrainingMaterial, UsableDocuments
from nearer.training.mining.negatives import (
    NOT_BELOW,
    Candidates,
    Choice,
    Chooser,
    Evidence,
    Reader,
    Reading,
    read_candidates,
)
from nearer.training.mining.result import Account, Mined
from nearer.training.mining.showing import Shown, similarities
from nearer.types import Example, Passage, Query

#: The smallest weight that an example gets by its grade or by how it was clicked.
_LEAST = 0.05
_JUDGED = "judged"  # where a positive is from
#: Why a judged pair gives no example although it could.
_BEYOND = "positive beyond mine.positives"


def mine(
    material: TrainingMaterial,
    evidence: Evidence,
    settings: Mine,
    rng: np.random.Generator,
) -> Mined:
    """One example for each judged pair of a training query, with hard negatives.

    Where chunks are searched, a positive of several chunks gives an example for each, and their
    weights sum to that of the pair.  Examples of one query stand together.  Documents judged 0 for
    the query are its first negatives; `evidence.runs` are ranked lists to take further ones from.
    Without a similarity negatives are drawn from them in the order of their ids.
    """
    miner = _Miner(material, evidence, settings, rng)
    with progress.task("mine examples", len(material.train.queries), "queries") as bar:
        for query in material.train.queries:
            bar.advance()
            miner.add(query)
    return miner.mined()


@dataclass(frozen=True, slots=True)
class _Draft:
    """An example whose negatives are still to be chosen."""

    query: Query
    positive: str
    passage: Passage | None
    weight: float
    source: str
    choice: Choice


class _Miner:
    """Drafts the examples of one query after the other; `mined` completes them together."""

    def __init__(
        self,
        material: TrainingMaterial,
        evidence: Evidence,
        settings: Mine,
        rng: np.random.Generator,
    ) -> None:
        self._usable = UsableDocuments(material)
        self._leakage: Counter[str] = Counter()
        self._drafts: list[_Draft] = []
        self._material = material
        self._evidence = evidence
        self._settings = settings
        self._chooser = Chooser(evidence, settings, rng)
        # A generator of its own: what is drawn here leaves the draws of negatives as they were.
        self._rng = np.random.default_rng(len(material.train.queries))
        self._highest = 1
        for judged in material.train.judgments.values():
            self._highest = max(self._highest, *judged.values(), 1)

    def add(self, query: Query) -> None:
        """Draft the examples of a query; one that is also held out, or empty, gives none."""
        dropped = self._usable.dropped
        collision = self._material.collides(query.text)
        if collision:
            self._leakage[collision] += 1
            dropped["query also held out"] += 1
            return
        if not query.text.strip():
            dropped["empty query"] += 1
            return
        positives = self._usable.positives(query)
        if not positives:
            return
        positives = self._drawn(positives)
        candidates = self._chooser.candidates(query.id, positives, self._usable)
        for doc_id in positives:
            self._draft(query, doc_id, candidates)

    def _drawn(self, positives: list[str]) -> list[str]:
        """At most `mine.positives` of them, in their order; the rest is counted."""
        most = self._settings.positives
        if most is None or len(positives) <= most:
            return positives
        self._usable.dropped[_BEYOND] += len(positives) - most
        places = np.sort(self._rng.choice(len(positives), most, replace=False))
        return [positives[place] for place in places]

    def _draft(self, query: Query, doc_id: str, candidates: Candidates) -> None:
        weight = self._weight(query, doc_id)
        choice = self._chooser.choice(doc_id, candidates)
        judged = (
            GENERATED if is_generated(query) else _JUDGED
        )  # of generated ones nobody judged any
        for passage, share, source in self._parts(query, doc_id):
            marked = source.replace(_JUDGED, judged)
            draft = _Draft(query, doc_id, passage, round(weight * share, 6), marked, choice)
            self._drafts.append(draft)

    def _parts(self, query: Query, doc_id: str) -> Sequence[tuple[Passage | None, float, str]]:
        if self._evidence.passages is None:
            return [(None, 1.0, _JUDGED)]
        return self._evidence.passages.answering(query, doc_id)

    def _weight(self, query: Query, doc_id: str) -> float:
        """By the grade of a pair among all grades, and by what clicks say of it."""
        weight = 1.0
        if self._settings.grades == "weight":
            weight = self._material.train.judgments[query.id][doc_id] / self._highest
        clicks = query.metadata.get(CLICK_WEIGHTS)
        if isinstance(clicks, Mapping):
            clicked = clicks.get(doc_id, 1.0)
            is_number = isinstance(clicked, int | float) and 0 < clicked <= 1
            weight *= clicked if is_number else 1.0
        return max(_LEAST, weight)

    def mined(self) -> Mined:
        """All examples, after the reader has read their candidates."""
        chooser = self._chooser
        if self._evidence.reader is not None:
            chooser.rejected[NOT_BELOW] += self._read(self._evidence.reader)
        examples = [self._example(draft) for draft in self._drafts]
        similar = similarities(self._similar_positives(), self._similar_negatives(examples))
        shown = Shown(self._material.corpus, self._material.train)
        account = Account(
            considered=chooser.considered,
            rejected={rule: count for rule, count in chooser.rejected.items() if count},
            similarities=similar,
            sample=tuple(shown.some(examples)),
        )
        dropped = Counter(chooser.rejected)
        for rule, count in self._usable.dropped.items():
            dropped[rule] = count  # per query, while the account counts per example
        self._leakage.update(self._usable.leakage)
        return Mined(tuple(examples), +dropped, self._leakage, account=account)

    def _read(self, reader: Reader) -> int:
        """Let the reader judge the candidates of every draft; returns how many it refused."""
        readings = []
        drafts = [draft for draft in self._drafts if draft.choice.wanted > 0]
        for draft in drafts:
            texts = {}
            for doc_id in draft.choice.to_read():
                texts[doc_id] = self._text(doc_id, self._passage(draft.query.id, doc_id))
            positive = self._text(draft.positive, draft.passage)
            readings.append(Reading(draft.query.text, positive, texts))
        return read_candidates(reader, readings, [draft.choice for draft in drafts])

    def _text(self, doc_id: str, passage: Passage | None) -> str:
        document = self._material.corpus.get(doc_id)
        content = "" if document is None else document.content
        if passage is None:
            return content
        return passage.text or content[passage.start : passage.end]

    def _passage(self, query_id: str, doc_id: str) -> Passage | None:
        passages = self._evidence.passages
        return None if passages is None else passages.nearest(query_id, doc_id)

    def _example(self, draft: _Draft) -> Example:
        negatives, sources = self._chooser.chosen(draft.choice)
        passages: tuple[Passage | None, ...] = ()
        if self._evidence.passages is not None:
            passages = tuple(self._passage(draft.query.id, doc_id) for doc_id in negatives)
        return Example(
            draft.positive,
            query_id=draft.query.id,
            negatives=tuple(negatives),
            source=(draft.source, *sources),
            weight=draft.weight,
            positive_passage=draft.passage,
            negative_passages=passages,
        )

    def _similar_positives(self) -> list[float]:
        return [draft.choice.similar[draft.positive] for draft in self._drafts]

    def _similar_negatives(self, examples: Sequence[Example]) -> list[float]:
        values: list[float] = []
        for draft, example in zip(self._drafts, examples, strict=True):
            values += [draft.choice.similar[doc_id] for doc_id in example.negatives]
        return values
