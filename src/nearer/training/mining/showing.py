"""What the report shows of mined examples: a histogram of similarities, and some of them with texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.types import Example, Passage, Split

#: Examples that the report shows.
_SHOWN = 20
_BINS = 40
_CHARACTERS = 300


def similarities(positives: Sequence[float], negatives: Sequence[float]) -> dict[str, Any]:
    """Counts of positives and negatives per bar, with the edges of the bars and the means.

    Empty where there is no negative, or where no model was asked (all similarities are equal).
    """
    values = np.array([*positives, *negatives], np.float64)
    if not negatives or values.min() == values.max():
        return {}
    edges = np.linspace(float(values.min()), float(values.max()), _BINS + 1)
    return {
        "bins": np.round(edges, 5).tolist(),
        "positives": np.histogram(positives, edges)[0].tolist(),
        "negatives": np.histogram(negatives, edges)[0].tolist(),
        "positives_mean": round(float(np.mean(positives)), 5),
        "negatives_mean": round(float(np.mean(negatives)), 5),
    }


class Shown:
    """Examples as people read them."""

    def __init__(self, corpus: Corpus, train: Split) -> None:
        self._corpus = corpus
        self._queries = {query.id: query.text for query in train.queries}

    def some(self, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        """Twenty examples, spread evenly over those with hard negatives, or over all of them."""
        usable = [example for example in examples if example.negatives] or list(examples)
        count = min(_SHOWN, len(usable))
        for row in np.linspace(0, len(usable) - 1, count).astype(int).tolist():
            yield self._shown(usable[row])

    def _shown(self, example: Example) -> dict[str, Any]:
        passages = example.negative_passages or (None,) * len(example.negatives)
        sources = example.source[1:]
        negatives = []
        for doc_id, passage, source in zip(example.negatives, passages, sources, strict=True):
            text = self._text(doc_id, passage)
            negatives.append({"doc_id": doc_id, "text": text, "source": source})
        query_id = str(example.query_id)
        return {
            "query_id": query_id,
            "query": _cut(self._queries.get(query_id, "")),
            "positive": {
                "doc_id": example.positive,
                "text": self._text(example.positive, example.positive_passage),
                "source": example.source[0],
            },
            "negatives": negatives,
            "weight": example.weight,
        }

    def _text(self, doc_id: str, passage: Passage | None) -> str:
        document = self._corpus.get(doc_id)
        content = "" if document is None else document.content
        if passage is not None:
            content = passage.text or content[passage.start : passage.end]
        return _cut(content)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else line[: _CHARACTERS - 1].rstrip() + "…"
