"""The general-ability guard set: has a fine-tuned model forgotten ordinary language?

70 topics of everyday knowledge, four passages each that lie close together, and one question a
passage in few of its words: 280 documents, 280 queries.  Written for nearer, Apache-2.0.  With
all-MiniLM-L6-v2 nDCG@10 is .82, so that there is room to fall and room to rise.

It says nothing about how good a model is; it is compared with itself, before and after training.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files

from nearer.data.corpus import Corpus
from nearer.types import Document, Query, Split

FILE = "general.jsonl.gz"


def load_general() -> tuple[Corpus, Split]:
    """Documents and queries of the guard set; the split is called `general`, topics are its tags.

    A query and the passage it belongs to have ids of their own (`q-bread-1`, `bread-1`), so that
    the set is never taken for item-to-item data.
    """
    # A line: `_id`, `topic`, `text`, `query`, and `also` where other passages answer too.
    packed = files("nearer.data").joinpath(FILE).read_bytes()
    text = gzip.decompress(packed).decode("utf-8")
    documents: list[Document] = []
    queries: list[Query] = []
    judgments: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        entry = json.loads(line)
        doc_id = entry["_id"]
        query_id = f"q-{doc_id}"
        documents.append(Document(doc_id, entry["text"]))
        queries.append(Query(query_id, entry["query"], tags=(entry["topic"],)))
        relevant = [doc_id, *entry.get("also", ())]
        judgments[query_id] = dict.fromkeys(relevant, 1)
    corpus = Corpus.from_documents(documents)
    return corpus, Split("general", tuple(queries), judgments)
