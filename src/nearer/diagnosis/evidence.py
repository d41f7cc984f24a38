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
from nearer.diagnosis.values import Diagnosis, Facts, Pair, Probe
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
        results = {pair: _without_untried(probes) for pair, probes in results.items()}
    evidence = Evidence(misses, settings.check.near_duplicate)
    diagnoses = {}
    for pair, probes in results.items():
        diagnoses[pair] = classify(probes, evidence.of(pair, probes), settings.diagnose.k)
    return results, diagnoses


def _without_untried(probes: Mapping[str, Probe]) -> dict[str, Probe]:
    """The probes that ran, as if nothing else could have been tried."""
    return {
        name: replace(probe, skipped=None, next_step="")
        for name, probe in probes.items()
        if not probe.skipped or probe.variants
    }


class Evidence:
    """Facts about failing pairs.  `near_duplicate` is the similarity that `check` uses."""

    def __init__(self, misses: Misses, near_duplicate: float) -> None:
        self._misses, self._near = misses, near_duplicate
        self._systems, self._corpus = misses.systems, misses.systems.corpus
        self._k = misses.settings.k
        self._over_words = misses.baseline.system == "bm25"
        asked_for: set[str] = set()
        for query in misses.queries.values():
            asked_for.update(terms(query.text))
        self._frequencies = document_frequencies(self._corpus, asked_for)
        self._rare = max(RARE, int(_COMMON * len(self._corpus)))
        self._reading = Reading(misses)
        self._shingler = Shingler()
        self._shingles = lru_cache(_KEPT)(self._shingles_of)
        self._words = lru_cache(_KEPT)(self._words_of)

    def of(self, pair: Pair, probes: Mapping[str, Probe]) -> Facts:
        """The facts of one pair."""
        query, document = self._misses.queries[pair[0]], self._corpus.get(pair[1])
        if document is None:
            return Facts(missing="not in the corpus")
        if missing := lost_answer(query, document):
            return Facts(missing=missing)
        identifiers, share = self._identifiers(query, document)
        above = self._unjudged_above(query, document)
        words = self._words(document.id)
        return Facts(
            excluded=self._excluded(query, document),
            filters_apply=self._misses.filters_apply,
            declared=bool(query.filter),
            over_model=self._misses.over_model or self._over_words,
            identifiers=identifiers,
            identifier_share=share,
            unread=self._reading.unread(query, document),
            mixed=_mixed(probes, self._k),
            duplicates=self._duplicates(above, document),
            preferred=self._preferred(query),
            overlap=_share_within(set(terms(query.text)), words),
            fragments=self._fragments(query, words),
            distractors=sum(_overlap(self._words(doc_id), words) >= _ALIKE for doc_id in above),
            words=(count_words(query.text), count_words(document.content)),
        )

    # -- one fact each -----------------------------------------------------------------------------

    def _excluded(self, query: Query, document: Document) -> str:
        """How filter and metadata disagree: absent, wrong (the text speaks for the filter), or as asked."""
        if not query.filter:
            return ""
        mismatches = mismatch(query.filter, self._systems.fields.read(document.metadata))
        if not mismatches:
            return ""
        name, wanted, value = mismatches[0]
        if value in (None, "", [], ()):
            return f"metadata absent: the filter asks {name} = {wanted!r}, the document has none"
        content = fold(document.content)
        speaks = fold(str(wanted)) in content and fold(str(value)) not in content
        common = self._systems.fields.selectivity({name: value}) * len(self._corpus) > 1
        kind = "metadata wrong" if speaks or not common else "filter as asked"
        return f"{kind}: the filter asks {name} = {wanted!r}, the document has {value!r}"

    def _identifiers(self, query: Query, document: Document) -> tuple[tuple[str, ...], float]:
        """Codes, names and rare terms of the query that stand in the document.

        Also the share of the query's terms that codes and names make up.
        """
        text, words = fold(document.content), self._words(document.id)
        names: list[str] = []
        for name in find_identifiers(query.text):
            if fold(name) in text and self._is_rare(name):
                names.append(name)
        query_terms = terms(query.text)
        covered: set[str] = set()
        for name in names:
            covered.update(terms(name))
        share = 0.0
        if query_terms:
            share = sum(term in covered for term in query_terms) / len(query_terms)
        rare: list[str] = []
        for term in query_terms:
            named = any(term in fold(name) for name in names)
            if term in words and self._frequencies.get(term, 0) <= RARE and not named:
                rare.append(term)
        return tuple(dict.fromkeys([*names, *rare])), share

    def _is_rare(self, name: str) -> bool:
        """Whether the rarest term of a name stands in few documents."""
        frequencies = [self._frequencies.get(term, 0) for term in terms(name)]
        return min(frequencies, default=0) <= self._rare

    def _fragments(self, query: Query, words: frozenset[str]) -> tuple[str, ...]:
        """Acronyms and terms of the query that the tokenizer breaks up and the document does not have."""
        if self._over_words:
            return ()
        spans = self._systems.encoder.token_spans(query.text)
        broken: list[str] = []
        stop = 0
        for piece in pieces(query.text):
            start = query.text.index(piece, stop)
            stop = start + len(piece)
            n_tokens = sum(first >= start and last <= stop for first, last in spans)
            word = piece.strip(".,;:!?()[]\"'")
            if word.isalpha() and _is_broken(word, n_tokens) and fold(word) not in words:
                broken.append(word)
        return tuple(dict.fromkeys(broken))

    def _unjudged_above(self, query: Query, document: Document) -> list[str]:
        """Unjudged results of the first page above the document that the query's filter allows."""
        judged = self._misses.split.judgments.get(query.id, {})
        allowed = self._systems.fields.eligible(query.filter) if query.filter else None
        above: list[str] = []
        for doc_id in self._misses.baseline_run.top(query.id, self._k):
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
        return tuple(
            doc_id for doc_id in above if jaccard(self._shingles(doc_id), own) >= self._near
        )

    def _preferred(self, query: Query) -> str:
        """The unjudged document that the baseline, BM25 and the reranker all put first."""
        misses = self._misses
        first = misses.first_choice.get(query.id)
        if not first or first in misses.split.judgments.get(query.id, {}):
            return ""
        if misses.baseline_run.top(query.id, 1) != [first]:
            return ""
        lexical = misses.run(self._systems.base("bm25"))
        return first if lexical.top(query.id, 1) == [first] else ""

    # -- texts -------------------------------------------------------------------------------------

    def _content(self, doc_id: str) -> str:
        document = self._corpus.get(doc_id)
        return document.content if document is not None else ""

    def _words_of(self, doc_id: str) -> frozenset[str]:
        return frozenset(terms(self._content(doc_id)))

    def _shingles_of(self, doc_id: str) -> np.ndarray:
        return self._shingler(normalise(self._content(doc_id)))


def _is_broken(word: str, n_tokens: int) -> bool:
    """Does the tokenizer break up an acronym, or a term into three tokens or more?"""
    is_acronym = word.isupper() and len(word) <= 6
    fewest = 2 if is_acronym else 3
    return len(word) > 1 and n_tokens >= fewest


def _mixed(probes: Mapping[str, Probe], k: int) -> str:
    """Most chunkings agree that a part of the document is much nearer than the whole."""
    exact = probes.get("exact", Probe())
    variants = probes.get("chunking", Probe()).variants
    agreed = 0
    for name, rank in variants.items():
        agreed += name != "document" and Probe(rank).repairs(exact, k)
    if agreed <= max(1, len(variants) / 2):
        return ""
    return f"mixed topics: {agreed} of {len(variants)} chunkings find it"


def _share_within(query_terms: set[str], words: frozenset[str]) -> float:
    """Share of the query's terms that stand in the document."""
    return len(query_terms & words) / len(query_terms) if query_terms else 0.0


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words."""
    both = len(a & b)
    return both / max(1, len(a) + len(b) - both)
