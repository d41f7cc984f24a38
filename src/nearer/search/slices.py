"""Slices of a split, from its queries and from what its relevant documents look like."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nearer.data.corpus import Corpus
from nearer.data.importance import frequencies_of, named_in_data
from nearer.measure.slices import SliceEvidence, automatic_slices, terms
from nearer.search.languages import across_languages
from nearer.types import Judgments, Split


def slices_of(
    split: Split,
    corpus: Corpus,
    min_grade: int,
    trained: Judgments | None = None,
    high_risk: Collection[str] = (),
) -> Mapping[str, set[str]]:
    """Slices of a split by tags, by what its queries and relevant documents look like, by languages.

    `high_risk` names queries beside those that the data marks.
    """
    words: set[str] = set()
    for query in split.queries:
        words.update(terms(query.text))
    frequencies = document_frequencies(corpus, words)
    texts = relevant_texts(split, corpus, min_grade)
    trained_on = None if trained is None else _relevant(trained, min_grade)
    evidence = SliceEvidence(
        judgments=split.judgments,
        relevant_texts=texts,
        document_frequencies=frequencies,
        trained=trained_on,
        min_grade=min_grade,
        frequencies=frequencies_of(split.queries),
        high_risk={*high_risk, *named_in_data(split.queries, "high_risk")},
    )
    slices = automatic_slices(split.queries, evidence)
    return slices | across_languages(split.queries, split.judgments, texts, min_grade)


def relevant_texts(split: Split, corpus: Corpus, min_grade: int) -> dict[str, str]:
    """The contents of the relevant documents of a split that the corpus has, by id."""
    texts = {}
    for doc_id in sorted(_relevant(split.judgments, min_grade)):
        document = corpus.get(doc_id)
        if document is not None:
            texts[doc_id] = document.content
    return texts


def document_frequencies(corpus: Corpus, wanted: Collection[str]) -> dict[str, int]:
    """In how many documents each of the wanted terms stands."""
    frequencies = dict.fromkeys(wanted, 0)
    wanted = set(wanted)
    for text in corpus.contents():
        for term in wanted.intersection(terms(text)):
            frequencies[term] += 1
    return frequencies


def _relevant(judgments: Judgments, min_grade: int) -> set[str]:
    """Documents that are judged at least `min_grade` for any query."""
    relevant: set[str] = set()
    for judged in judgments.values():
        relevant.update(doc_id for doc_id, grade in judged.items() if grade >= min_grade)
    return relevant
