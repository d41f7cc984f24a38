"""Results are kept by what was asked, not by what the split is called."""

from __future__ import annotations

from pathlib import Path

from nearer import config
from nearer.data.corpus import Corpus
from nearer.search.systems import Systems
from nearer.types import Document, Query, Split, typed_query


def systems(tmp_path: Path, *, item_to_item: bool = False) -> Systems:
    texts = {"0": "bread yeast oven", "1": "bicycle chain gear", "2": "volcano lava ash"}
    corpus = Corpus.from_documents(Document(doc_id, text) for doc_id, text in texts.items())
    return Systems(config.Config(), tmp_path, corpus, item_to_item=item_to_item)


def test_two_splits_of_one_name_do_not_share_results(tmp_path: Path) -> None:
    over = systems(tmp_path)
    first, second = (
        over.search("bm25", Split("why", (Query("asked", text),), {})).top("asked", 1)
        for text in ("bread", "volcano")
    )
    assert (first, second) == (["0"], ["2"])


def test_two_splits_of_one_content_are_searched_once(tmp_path: Path) -> None:
    over = systems(tmp_path)
    pipeline = over.base("bm25")
    runs = [over.run(pipeline, Split(name, (Query("a", "bread"),), {})) for name in ("x", "y")]
    assert runs[0] is runs[1]


def test_a_typed_query_finds_the_item_that_has_its_number(tmp_path: Path) -> None:
    over = systems(tmp_path, item_to_item=True)
    typed = [typed_query(text, number=n) for n, text in enumerate(("bread", "bicycle", "volcano"))]
    run = over.search("bm25", Split("typed", tuple(typed), {}))
    assert [run.top(query.id, 1) for query in typed] == [["0"], ["1"], ["2"]]
    item = over.search("bm25", Split("items", (Query("0", "bread yeast oven"),), {}))
    assert item.top("0", 1) != ["0"]
