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
    lines = [json.loads(line) for line in gzip.decompress(packed).decode("utf-8").splitlines()]
    corpus = Corpus.from_documents(Document(line["_id"], line["text"]) for line in lines)
    queries = tuple(
        Query(f"q-{line['_id']}", line["query"], tags=(line["topic"],)) for line in lines
    )
    judgments = {
        f"q-{line['_id']}": dict.fromkeys([line["_id"], *line.get("also", ())], 1) for line in lines
    }
    return corpus, Split("general", queries, judgments)
