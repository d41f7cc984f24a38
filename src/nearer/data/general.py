"""Built-in sets of everyday language: has a fine-tuned model forgotten ordinary language?

Every set is made of topics of everyday knowledge: four passages each that lie close together, and
one question per passage in few of its words.  Written for nearer, Apache-2.0.  No topic and no text
stands in two sets.

- `guard` is the guardrail's.  `decide` alone opens it: 280 passages, 280 questions.
- `calibration` is training's: merge weight, frozen depth and general pairs are chosen on it, so
  that the guardrail still judges what training never saw: 332 passages, 332 questions.

They say nothing about how good a model is; a model is compared with itself, before and after
training.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from typing import Any, Literal

from nearer.data.corpus import Corpus
from nearer.types import Document, Query, Split

GeneralSet = Literal["guard", "calibration"]
FILES: dict[GeneralSet, str] = {
    "guard": "general.jsonl.gz",
    "calibration": "general_calibration.jsonl.gz",
}


def load_general(which: GeneralSet = "guard") -> tuple[Corpus, Split]:
    """Documents and queries of one of the general sets; topics are the tags of the queries.

    The split is called `general` (the guardrail's set) or `general-calibration`.  A query and the
    passage it belongs to have ids of their own (`q-bread-1`, `bread-1`), so that the set is never
    taken for item-to-item data.
    """
    documents: list[Document] = []
    queries: list[Query] = []
    judgments: dict[str, dict[str, int]] = {}
    for entry in _entries(FILES[which]):
        doc_id = entry["_id"]
        query_id = f"q-{doc_id}"
        documents.append(Document(doc_id, entry["text"]))
        queries.append(Query(query_id, entry["query"], tags=(entry["topic"],)))
        relevant = [doc_id, *entry.get("also", ())]
        judgments[query_id] = dict.fromkeys(relevant, 1)
    name = "general" if which == "guard" else f"general-{which}"
    return Corpus.from_documents(documents), Split(name, tuple(queries), judgments)


def _entries(file: str) -> list[dict[str, Any]]:
    """The lines of a packed file: `_id`, `topic`, `text`, `query`, and `also` (ids of other answers)."""
    packed = files("nearer.data").joinpath(file).read_bytes()
    text = gzip.decompress(packed).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]
