"""What the texts and the metadata of failing pairs say: the evidence beside the probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from nearer.config import Config
from nearer.data.near import Shingler, jaccard, normalise
from nearer.diagnosis.causes import classify
from nearer.diagnosis.passages import Reading, lost_answer
from nearer.diagnosis.probes import run_probes
from nearer.diagnosis.probes.base import Misses
from nearer.diagnosis.values import ByName, Diagnosis, Facts, Pair, Probe
from nearer.measure.slices import RARE, find_identifiers, terms
from nearer.search.filters import mismatch
from nearer.search.slices import document_frequencies
from nearer.search.systems import Systems
from nearer.text import count_words, fold, pieces
from nearer.types import Document, Query, Split

_COMMON = 0.01  # share of the documents from which a term is no longer rare
_ALIKE = 0.5  # Jaccard similarity of words from which a result is a near-identical distractor
_KEPT = 4096  # documents whose words and shingles are kept


def diagnosed(
    systems: Systems,
    failing: Split,
    wanted: Mapping[str, Sequence[str]],
    settings: Config,
    *,
    tried_only: bool = False,
) -> tuple[dict[Pair, dict[str, Probe]], dict[Pair, Diagnosis]]:
    """Every probe of every pair of `wanted` (query id → document ids), and the cause of each.

    With `tried_only` a repair that could not be tried counts as one that does not work.
    """
    misses = Misses(systems, failing, wanted, settings.diagnose)
    results = run_probes(misses)
    if tried_only:
        for pair, probes in results.items():
            results[pair] = _without_untried(probes)
    evidence = Evidence(misses, settings.check.near_duplicate)
    diagnoses: dict[Pair, Diagnosis] = {}
    for pair, probes in results.items():
        facts = evidence.of(pair, probes)
        diagnoses[pair] = classify(probes, facts, misses.k)
    return results, diagnoses


def _without_untried(probes: ByName) -> dict[str, Probe]:
    """The probes that ran, as if nothing else could have been tried."""
    return {
        name: replace(probe, skipped=None, next_step="")
        for name, probe in probes.items()
        if not probe.skipped or probe.variants
    }


class Evidence:
    """Facts about failing pairs.  `near_duplicate` is the similarity that `check` uses."""

    def __init__(self, misses: Misses, near_duplicate: float) -> None:
        self._misses = misses
        self._near = near_duplicate
        self._corpus = misses.corpus
        self._reading = Reading(misses)
        self._rare = max(RARE, int(_COMMON * len(misses.corpus)))
        query_terms: set[str] = set()
        for query in misses.split.queries:
            query_terms.update(terms(query.text))
        self._frequencies = document_frequencies(misses.corpus, query_terms)
        self._shingler = Shingler()
        self._shingles = lru_cache(_KEPT)(self._shingles_of)
        self._words = lru_cache(_KEPT)(self._words_of)

    def of(self, pair: Pair, probes: ByName) -> Facts:
        """The facts of one pair."""
        query = self._misses.queries[pair[0]]
        document = self._corpus.get(pair[1])
        if document is None:
            return Facts(missing="not in the corpus")
        missing = lost_answer(query, document)
        if missing:
            return Facts(missing=missing)
        identifiers, share = self._identifiers(query, document)
        above = self._unjudged_above(query, document)
        words = self._words(document.id)
        alike = [_overlap(self._words(doc_id), words) >= _ALIKE for doc_id in above]
        return Facts(
            excluded=self._excluded(query, document),
            filters_apply=self._misses.filters_apply,
            declared=bool(query.filter),
            over_model=self._misses.over_model or self._misses.over_words,
            identifiers=identifiers,
            identifier_share=share,
            unread=self._reading.unread(query, document),
            mixed=_mixed(probes, self._misses.k),
            duplicates=self._duplicates(above, document),
            preferred=self._preferred(query),
            overlap=_share_within(set(terms(query.text)), words),
            fragments=self._fragments(query, words),
            distractors=sum(alike),
            words=(count_words(query.text), count_words(document.content)),
        )

    # -- one fact each -----------------------------------------------------------------------------

    def _excluded(self, query: Query, document: Document) -> str:
        """How filter and metadata disagree: absent, wrong (the text speaks for the filter), or as asked."""
        if not query.filter:
            return ""
        fields = self._misses.fields
        metadata = fields.read(document.metadata)
        mismatches = mismatch(query.filter, metadata)
        if not mismatches:
            return ""
        name, wanted, value = mismatches[0]
        if value in (None, "", [], ()):
            return f"metadata absent: the filter asks {name} = {wanted!r}, the document has none"
        kind = "filter as asked"
        holders = fields.selectivity({name: value}) * len(self._corpus)
        if holders <= 1 or _speaks_for(document, wanted, value):
            kind = "metadata wrong"
        return f"{kind}: the filter asks {name} = {wanted!r}, the document has {value!r}"

    def _identifiers(self, query: Query, document: Document) -> tuple[tuple[str, ...], float]:
        """Codes, names and rare terms of the query that stand in the document.

        Also the share of the query's terms that codes and names make up.
        """
        content = fold(document.content)
        words = self._words(document.id)
        names: list[str] = []
        covered: set[str] = set()
        for name in find_identifiers(query.text):
            if fold(name) in content and self._is_rare(name):
                names.append(name)
                covered.update(terms(name))
        query_terms = terms(query.text)
        rare: list[str] = []
        for term in query_terms:
            named = any(term in fold(name) for name in names)
            if term in words and not named and self._frequency(term) <= RARE:
                rare.append(term)
        identifiers = dict.fromkeys([*names, *rare])
        share = 0.0
        if query_terms:
            share = sum(term in covered for term in query_terms) / len(query_terms)
        return tuple(identifiers), share

    def _frequency(self, term: str) -> int:
        """In how many documents a term of a query stands."""
        return self._frequencies.get(term, 0)

    def _is_rare(self, name: str) -> bool:
        """Whether the rarest term of a name stands in few documents."""
        frequencies = map(self._frequency, terms(name))
        return min(frequencies, default=0) <= self._rare

    def _fragments(self, query: Query, words: frozenset[str]) -> tuple[str, ...]:
        """Acronyms and terms of the query that the tokenizer breaks up and the document does not have."""
        if self._misses.over_words:
            return ()
        encoder = self._misses.systems.encoder
        spans = encoder.token_spans(query.text)
        broken: list[str] = []
        stop = 0
        for piece in pieces(query.text):
            start = query.text.index(piece, stop)
            stop = start + len(piece)
            tokens = [(first, last) for first, last in spans if first >= start and last <= stop]
            word = piece.strip(".,;:!?()[]\"'")
            if _is_broken(word, len(tokens)) and fold(word) not in words:
                broken.append(word)
        return tuple(dict.fromkeys(broken))

    def _unjudged_above(self, query: Query, document: Document) -> list[str]:
        """Unjudged results of the first page above the document that the query's filter allows."""
        misses = self._misses
        judged = misses.split.judgments.get(query.id, {})
        allowed = None
        if query.filter:
            allowed = misses.fields.eligible(query.filter)
        above: list[str] = []
        for doc_id in misses.baseline_run.top(query.id, misses.k):
            if doc_id == document.id:
                break
            if doc_id in judged or doc_id not in self._corpus:
                continue
            if allowed is None or allowed[self._corpus.position(doc_id)]:
                above.append(doc_id)
        return above

    def _duplicates(self, above: Sequence[str], document: Document) -> tuple[str, ...]:
        """Results above the document that are near-duplicates of it."""
        if not above:
            return ()
        own = self._shingles(document.id)
        duplicates: list[str] = []
        for doc_id in above:
            similarity = jaccard(self._shingles(doc_id), own)
            if similarity >= self._near:
                duplicates.append(doc_id)
        return tuple(duplicates)

    def _preferred(self, query: Query) -> str:
        """The unjudged document that the baseline, BM25 and the reranker all put first."""
        misses = self._misses
        judged = misses.split.judgments.get(query.id, {})
        first = misses.first_choice.get(query.id)
        if not first or first in judged:
            return ""
        if misses.baseline_run.top(query.id, 1) != [first]:
            return ""
        words = misses.systems.base("bm25")
        if misses.run(words).top(query.id, 1) != [first]:
            return ""
        return first

    # -- texts -------------------------------------------------------------------------------------

    def _content(self, doc_id: str) -> str:
        document = self._corpus.get(doc_id)
        if document is None:
            return ""
        return document.content

    def _words_of(self, doc_id: str) -> frozenset[str]:
        content = self._content(doc_id)
        return frozenset(terms(content))

    def _shingles_of(self, doc_id: str) -> np.ndarray:
        content = self._content(doc_id)
        return self._shingler(normalise(content))


def _speaks_for(document: Document, wanted: object, value: object) -> bool:
    """Does the text say the value that a filter wants, and not the one that the metadata has?"""
    content = fold(document.content)
    return fold(str(wanted)) in content and fold(str(value)) not in content


def _is_broken(word: str, n_tokens: int) -> bool:
    """Does the tokenizer break up an acronym, or a term into three tokens or more?"""
    is_acronym = word.isupper() and len(word) <= 6
    fewest = 2 if is_acronym else 3
    return word.isalpha() and len(word) > 1 and n_tokens >= fewest


def _mixed(probes: ByName, k: int) -> str:
    """Most chunkings agree that a part of the document is much nearer than the whole."""
    nothing = Probe()
    exact = probes.get("exact", nothing)
    variants = probes.get("chunking", nothing).variants
    agreed = 0
    for name, rank in variants.items():
        agreed += name != "document" and Probe(rank).repairs(exact, k)
    if agreed <= max(1, len(variants) / 2):
        return ""
    return f"mixed topics: {agreed} of {len(variants)} chunkings find it"


def _share_within(query_terms: set[str], words: frozenset[str]) -> float:
    """Share of the query's terms that stand in the document."""
    if not query_terms:
        return 0.0
    return len(query_terms & words) / len(query_terms)


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words."""
    both = len(a & b)
    return both / max(1, len(a) + len(b) - both)
