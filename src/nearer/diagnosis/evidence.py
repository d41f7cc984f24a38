"""What the texts and the metadata of failing pairs say: the evidence beside the probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from nearer.config import Config
from nearer.data.near import Shingler, jaccard, normalise
from nearer.diagnosis.causes import Diagnosis, Facts, Probe, classify
from nearer.diagnosis.pieces import Pair
from nearer.diagnosis.probes import Prober
from nearer.measure.slices import RARE, find_identifiers, terms
from nearer.search.chunkers import Chunked
from nearer.search.filters import mismatch
from nearer.search.slices import document_frequencies
from nearer.search.systems import Systems
from nearer.text import count_words, fold, pieces
from nearer.types import Document, Query, Split

_COMMON = 0.01  # share of the documents from which a term is no longer rare
_ALIKE = 0.5  # Jaccard similarity of words from which a result is a near-identical distractor


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
    prober = Prober(systems, failing, wanted, settings.diagnose)
    found = prober.run()
    if tried_only:
        found = {
            pair: {
                name: replace(probe, skipped=None, next_step="")
                for name, probe in probes.items()
                if not probe.skipped or probe.variants
            }
            for pair, probes in found.items()
        }
    evidence = Evidence(prober, settings.check.near_duplicate)
    return found, {
        pair: classify(probes, evidence.of(pair, probes), settings.diagnose.k)
        for pair, probes in found.items()
    }


class Evidence:
    """Facts about the pairs of a prober.  `near_duplicate` is the similarity that `check` uses."""

    def __init__(self, prober: Prober, near_duplicate: float) -> None:
        self._prober, self._near = prober, near_duplicate
        self._systems, self._corpus, self._k = (
            prober.systems,
            prober.systems.corpus,
            prober.settings.k,
        )
        queries = prober.queries.values()
        self._counts = document_frequencies(
            self._corpus, {term for query in queries for term in terms(query.text)}
        )
        self._dense = prober.plain
        chunker = next(
            (spec for spec in prober.settings.chunkers if spec.startswith("tokens:")), None
        )
        self._chunker = (
            chunker
            if chunker and self._dense.chunker == "document" and prober.today.system != "bm25"
            else None
        )
        self._shingles = lru_cache(4096)(self._shingle)
        self._words = lru_cache(4096)(lambda doc_id: frozenset(terms(self._content(doc_id))))
        self._shingler = Shingler()

    def of(self, pair: Pair, probes: Mapping[str, Probe]) -> Facts:
        """The facts of one pair."""
        query, document = self._prober.queries[pair[0]], self._corpus.get(pair[1])
        missing = self._missing(query, document)
        if document is None or missing:
            return Facts(missing=missing)
        identifiers, share = self._identifiers(query, document)
        asked, has = set(terms(query.text)), self._words(document.id)
        above = self._above(query, document)
        today = self._prober.today_run.results.get(query.id, ())
        return Facts(
            excluded=self._excluded(query, document),
            filters_apply=self._prober.filters_apply,
            declared=bool(query.filter),
            over_model=self._prober.over_model or self._prober.today.system == "bm25",
            identifiers=identifiers,
            identifier_share=share,
            unread=self._unread(query, document),
            mixed=_mixed(probes, self._k),
            duplicates=tuple(
                d
                for d in above
                if jaccard(self._shingles(d), self._shingles(document.id)) >= self._near
            ),
            preferred=self._preferred(query, today[0][0] if today else ""),
            overlap=len(asked & has) / len(asked) if asked else 0.0,
            fragments=self._fragments(query, document),
            distractors=sum(_overlap(self._words(d), has) >= _ALIKE for d in above),
            words=(count_words(query.text), count_words(document.content)),
        )

    # -- one fact each -----------------------------------------------------------------------------

    def _missing(self, query: Query, document: Document | None) -> str:
        if document is None:
            return "not in the corpus"
        if not document.content.strip():
            return "the document is empty"
        content = normalise(document.content)
        for span in _spans(query, document):
            text, end = span.get("text"), span.get("end")
            if isinstance(text, str) and normalise(text) not in content:
                return "the answer did not survive ingestion"
            if text is None and isinstance(end, int) and end > len(document.text):
                return "the answer lies behind the end of the stored text"
        return ""

    def _excluded(self, query: Query, document: Document) -> str:
        """How filter and metadata disagree: absent, wrong (the text speaks for the filter), or as asked."""
        for name, wanted, found in (
            mismatch(query.filter, self._systems.fields.read(document.metadata))
            if query.filter
            else ()
        ):
            if found in (None, "", [], ()):
                return (
                    f"metadata absent: the filter asks {name} = {wanted!r}, the document has none"
                )
            known = self._systems.fields.selectivity({name: found}) * len(self._corpus) > 1
            content = fold(document.content)
            says = fold(str(wanted)) in content and fold(str(found)) not in content
            kind = "metadata wrong" if says or not known else "filter as asked"
            return f"{kind}: the filter asks {name} = {wanted!r}, the document has {found!r}"
        return ""

    def _identifiers(self, query: Query, document: Document) -> tuple[tuple[str, ...], float]:
        """Codes, names and rare terms of the query that stand in the document; the share of its terms that codes and names make up."""
        rare = max(RARE, int(_COMMON * len(self._corpus)))
        text, has, asked = fold(document.content), self._words(document.id), terms(query.text)
        named = [one for one in find_identifiers(query.text) if fold(one) in text]
        named = [
            one
            for one in named
            if min((self._counts.get(term, 0) for term in terms(one)), default=0) <= rare
        ]
        single = [
            term
            for term in dict.fromkeys(asked)
            if term in has and self._counts.get(term, 0) <= RARE
        ]
        covered = {term for one in named for term in terms(one)}
        share = sum(term in covered for term in asked) / len(asked) if asked else 0.0
        return tuple(
            dict.fromkeys(
                [
                    *named,
                    *(term for term in single if not any(term in fold(one) for one in named)),
                ]
            )
        ), share

    def _unread(self, query: Query, document: Document) -> str:
        """Does the answer lie where the model does not read, or across a border of today's chunks?"""
        content = document.content
        if self._dense.chunker != "document":
            chunked = self._systems.chunked(self._dense.chunker)
            texts = (
                []
                if chunked is None
                else [normalise(text) for text in chunked.of(self._corpus.position(document.id))]
            )
            spans = [
                normalise(str(span["text"])) for span in _spans(query, document) if span.get("text")
            ]
            return (
                "split: the answer lies across a border of chunks"
                if any(all(s not in t for t in texts) for s in spans)
                else ""
            )
        limit = self._systems.encoder.fingerprint.max_seq_length
        tokens = (
            self._systems.encoder.token_spans(content)
            if limit and self._prober.today.system != "bm25"
            else []
        )
        if not limit or len(tokens) <= limit - 2:
            return ""
        border = tokens[limit - 3][1]  # two tokens are special ones
        title = len(document.content) - len(document.text)
        for span in _spans(query, document):
            start = (
                content.find(str(span["text"]))
                if span.get("text")
                else int(span.get("start", 0)) + title
            )
            return (
                f"cut off: the answer starts at character {start}, the model reads {border}"
                if start >= border
                else ""
            )
        nearest = self._nearest(query, document)
        if nearest is not None and nearest + 1 >= border:
            return f"cut off: the nearest part starts at character {nearest}, the model reads {border} of {len(content)}"
        return ""

    def _nearest(self, query: Query, document: Document) -> int | None:
        """Where the chunk that is nearest to the query starts."""
        chunked: Chunked | None = self._systems.chunked(self._chunker) if self._chunker else None
        if chunked is None:
            return None
        position = self._corpus.position(document.id)
        first, stop = np.searchsorted(chunked.owners, (position, position + 1))  # owners ascend
        vectors = self._systems.vectors_of(self._chunker or "")[first:stop]
        asked = self._systems.encoder.encode([query.text], "query")[0]
        return int(chunked.spans[first + int(np.argmax(vectors @ asked))][0])

    def _fragments(self, query: Query, document: Document) -> tuple[str, ...]:
        """Acronyms and terms of the query that the tokenizer breaks up and the document does not have."""
        if self._prober.today.system == "bm25":
            return ()
        spans = self._systems.encoder.token_spans(query.text)
        known = self._words(document.id)
        found: list[str] = []
        offset = 0
        for word in pieces(query.text):
            offset = query.text.index(word, offset)
            stop = offset + len(word)
            n_tokens = sum(start >= offset and end <= stop for start, end in spans)
            bare = word.strip(".,;:!?()[]\"'")
            acronym = bare.isupper() and 2 <= len(bare) <= 6 and n_tokens >= 2
            term = len(bare) > 1 and n_tokens >= 3
            if bare.isalpha() and (acronym or term) and fold(bare) not in known:
                found.append(bare)
            offset = stop
        return tuple(dict.fromkeys(found))

    def _above(self, query: Query, document: Document) -> list[str]:
        """Unjudged results of the first page above the document that the query's filter allows."""
        judged = self._prober.split.judgments.get(query.id, {})
        allowed = self._systems.fields.eligible(query.filter) if query.filter else None
        top = self._prober.today_run.top(query.id, self._k)
        top = top[: top.index(document.id)] if document.id in top else top
        known = (d for d in top if d not in judged and d in self._corpus)
        return [d for d in known if allowed is None or allowed[self._corpus.position(d)]]

    def _preferred(self, query: Query, first: str) -> str:
        """The unjudged document that today's search, BM25 and the reranker all put first."""
        chosen = self._prober.first_choice.get(query.id)
        if not chosen or chosen != first or first in self._prober.split.judgments.get(query.id, {}):
            return ""
        lexical = self._systems.run(
            self._systems.base("bm25"), self._prober.split, self._prober.settings.depth
        )
        return first if lexical.top(query.id, 1) == [first] else ""

    def _content(self, doc_id: str) -> str:
        document = self._corpus.get(doc_id)
        return document.content if document is not None else ""

    def _shingle(self, doc_id: str) -> np.ndarray:
        return self._shingler(normalise(self._content(doc_id)))


def _mixed(probes: Mapping[str, Probe], k: int) -> str:
    """Most chunkings agree that a part of the document is much nearer than the whole."""
    exact = probes.get("exact", Probe()).rank
    variants = probes.get("chunking", Probe()).variants
    agreed = [
        name
        for name, rank in variants.items()
        if name != "document" and rank and rank <= k and (not exact or 2 * rank <= exact)
    ]
    most = len(agreed) > max(1, len(variants) / 2)
    return f"mixed topics: {len(agreed)} of {len(variants)} chunkings find it" if most else ""


def _spans(query: Query, document: Document) -> Iterable[Mapping[str, Any]]:
    """Gold spans of the query that lie in the document."""
    return [
        span
        for span in query.gold_spans
        if span.get("doc_id", span.get("corpus-id", document.id)) == document.id
    ]


def _overlap(a: Sequence[str] | frozenset[str], b: frozenset[str]) -> float:
    both = len(b.intersection(a))
    return both / max(1, len(a) + len(b) - both)
