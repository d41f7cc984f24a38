"""Relevant documents that the corpus lacks: nothing can find them, and they count as missed."""

from __future__ import annotations

from nearer.data.corpus import Corpus
from nearer.types import Split


def missing_documents(split: Split, corpus: Corpus) -> dict[str, int]:
    """How many relevant documents of a split the corpus lacks, and how many queries that concerns.

    `queries` ask for at least one of them, `queries_without_any` for nothing else: those count 0
    in every measure of every system.
    """
    lost: set[str] = set()
    queries = without_any = 0
    for query in split.queries:
        relevant = split.relevant(query.id)
        absent = [doc_id for doc_id in relevant if doc_id not in corpus]
        lost.update(absent)
        queries += bool(absent)
        without_any += bool(absent) and len(absent) == len(relevant)
    return {"documents": len(lost), "queries": queries, "queries_without_any": without_any}


def without_missing(split: Split, corpus: Corpus) -> Split:
    """The split as if nobody had asked for documents that the corpus lacks."""
    judgments = {
        query.id: {
            doc_id: grade
            for doc_id, grade in split.judgments.get(query.id, {}).items()
            if doc_id in corpus
        }
        for query in split.queries
    }
    kept = Split(split.name, split.queries, judgments)
    answerable = tuple(query for query in split.queries if kept.relevant(query.id))
    return Split(split.name, answerable, judgments)
