"""Built-in sets of everyday language: has a fine-tuned model forgotten ordinary language?

The two sets for judging are made of topics of everyday knowledge: four passages each that lie close
together, and one question per passage in few of its words.

- `guard` is the guardrail's, which `decide` alone opens: 1,040 passages and questions, 260 topics.
- `calibration` is training's, where merge weight, frozen depth and the share of general pairs are
  chosen, so that the guardrail judges what training never saw: 332 of each, 83 topics.

The general pairs are a third part, to be trained on: 748 short passages, each with a query.  No
topic and no text stands in two of the three.  All of it is written for nearer, Apache-2.0.

The sets say nothing about how good a model is; a model is compared with itself, before and after
training.  With all-MiniLM-L6-v2 nDCG@10 is .77 on the guard set and .77 on the calibration set,
so that there is room to fall and room to rise.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from typing import Any, Literal

from nearer.data.corpus import Corpus
from nearer.types import Document, Example, Query, Split

GeneralSet = Literal["guard", "calibration"]
FILES: dict[GeneralSet, str] = {
    "guard": "general.jsonl.gz",
    "calibration": "general_calibration.jsonl.gz",
}
PAIRS_FILE = "general_pairs.jsonl.gz"


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


def load_general_pairs() -> tuple[Example, ...]:
    """Training examples of everyday language, as texts, to be mixed into the user's own.

    Their `source` is `general`.  Examples of one topic stand side by side, four each; the other
    passages of a topic hardly ever answer a query, so that they can serve as its negatives.
    """
    return tuple(
        Example(positive=entry["text"], query=entry["query"], source=("general",))
        for entry in _entries(PAIRS_FILE)
    )


def _entries(file: str) -> list[dict[str, Any]]:
    """The lines of a packed file: `_id`, `topic`, `text`, `query`, and `also` (ids of other answers)."""
    packed = files("nearer.data").joinpath(file).read_bytes()
    text = gzip.decompress(packed).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]
