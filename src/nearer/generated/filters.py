"""Which proposed queries are kept: pure rules, and a count of everything that is not.

In this order: what is no query; what copies its document; what repeats another query, of people or
generated; what the documents do not come back for (round trip).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nearer.data.near import near_duplicates, normalise
from nearer.generated.base import Draft
from nearer.generated.phrases import content_words
from nearer.search.languages import language_of
from nearer.settings.generate import Generate
from nearer.text import folded_words, search_terms
from nearer.types import Document, Run

UNUSABLE = "no usable text"
COPIED = "copies the document's words in a row"
OVERLAP = "nearly all of its words are the document's"
OF_PEOPLE = "repeats a query of people"
REPEATED = "repeats another generated query"
GENERAL = "asks for too many documents"
ROUND_TRIP = "round trip"

_LONGEST = 300  # characters of a query
_FEW = 4  # content words from which on more than some must not be the document's
_MOST_DOCUMENTS = 3  # that one query may ask for


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed query and the ids of the documents that should answer it."""

    kind: str
    text: str
    doc_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A proposed query that was refused, and why."""

    candidate: Candidate
    reason: str


@dataclass
class Sieve:
    """Collects what the rules refuse; each step returns what it keeps, in order."""

    settings: Generate
    dropped: list[Dropped] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many were refused, by reason, the most frequent first."""
        return dict(Counter(row.reason for row in self.dropped).most_common())

    def own_words(self, drafts: Sequence[Draft], documents: Sequence[Document]) -> list[Candidate]:
        """The drafts of some documents that are queries, and in words of their own."""
        doc_ids = tuple(document.id for document in documents)
        kept = []
        for draft in drafts:
            text = " ".join(draft.text.split()).strip("\"“”'` ")
            candidate = Candidate(draft.kind, text, doc_ids)
            reason = self._fault(text, documents)
            if reason:
                self._drop(candidate, reason)
            else:
                kept.append(candidate)
        return kept

    def _fault(self, text: str, documents: Sequence[Document]) -> str:
        """Why a text is no query of these documents; empty where it is one."""
        if not search_terms(text) or len(text) > _LONGEST or "\0" in text:
            return UNUSABLE
        run = self.settings.copied_words
        words = folded_words(text)
        language = language_of(documents[0].content)
        asked = set(content_words(text, language))
        for document in documents:
            held = folded_words(document.content)
            if not _runs(words, run).isdisjoint(_runs(held, run)):
                return COPIED
            share = len(asked & set(held)) / len(asked) if asked else 0.0
            if len(asked) > _FEW and share > self.settings.overlap:
                return OVERLAP
        return ""

    def different(
        self, candidates: Sequence[Candidate], people: Sequence[str], near_duplicate: float
    ) -> list[Candidate]:
        """Candidates that repeat neither a query of people nor each other.

        One that several documents gave word for word asks for all of them, where they are few.
        """
        joined = self._joined(candidates)
        texts = [*people, *(candidate.text for candidate in joined)]
        first = len(people)
        refused: dict[int, str] = {}
        for group in near_duplicates(texts, near_duplicate, what="queries").groups:
            generated = [row for row in group if row >= first]
            if len(generated) < len(group):
                refused |= dict.fromkeys(generated, OF_PEOPLE)
            else:
                refused |= dict.fromkeys(generated[1:], REPEATED)
        kept = []
        for row, candidate in enumerate(joined, start=first):
            if row in refused:
                self._drop(candidate, refused[row])
            else:
                kept.append(candidate)
        return kept

    def _joined(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates of the same words as one that asks for all of their documents."""
        by_words: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            by_words.setdefault(normalise(candidate.text), []).append(candidate)
        joined = []
        for same in by_words.values():
            ids: dict[str, None] = {}
            for candidate in same:
                ids |= dict.fromkeys(candidate.doc_ids)
            if len(ids) > _MOST_DOCUMENTS:
                for candidate in same:
                    self._drop(candidate, GENERAL)
                continue
            joined.append(replace(same[0], doc_ids=tuple(ids)))
            for candidate in same[1:]:
                self._drop(candidate, REPEATED)
        return joined

    def found_again(
        self, candidates: Mapping[str, Candidate], runs: Sequence[Run], top: int
    ) -> dict[str, Candidate]:
        """Candidates, by query id, whose documents every system has among its first `top` results."""
        kept = {}
        for query_id, candidate in candidates.items():
            lost = []
            for run in runs:
                found = set(run.top(query_id, top))
                if not found.issuperset(candidate.doc_ids):
                    lost.append(run.name)
            if lost:
                systems = " and ".join(lost)
                self._drop(candidate, f"{ROUND_TRIP}: {systems} do not find the document")
            else:
                kept[query_id] = candidate
        return kept

    def _drop(self, candidate: Candidate, reason: str) -> None:
        self.dropped.append(Dropped(candidate, reason))


def _runs(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Every run of so many words."""
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
