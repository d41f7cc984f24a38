"""Finer pieces: ranks against competitors that are cut alike, and paragraphs that stay apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nearer import config
from nearer.data.corpus import Corpus
from nearer.diagnosis.pieces import Pieces
from nearer.search import ranking
from nearer.search.chunkers import make_chunker
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.text import token_spans
from nearer.types import Document, Query

SPEC = "tokens:16:4"


@pytest.fixture(scope="module")
def systems(small_data: Path, tiny_model: Path) -> Systems:
    settings = config.build(
        {"data": {"folder": str(small_data)}, "model": {"name": str(tiny_model)}}
    )
    return Systems(settings, small_data, Corpus.open(small_data / "corpus.jsonl"))


@pytest.fixture(scope="module")
def queries(small_data: Path) -> list[Query]:
    lines = (small_data / "queries.jsonl").read_text(encoding="utf-8").splitlines()[:5]
    return [Query(line["_id"], line["text"]) for line in map(json.loads, lines)]


def exact(systems: Systems, queries: list[Query], position: int) -> dict[str, int | None]:
    """Ranks of one document when the whole corpus is cut."""
    scorer = systems.scorer(Pipeline(chunker=SPEC))
    found = ranking.ranks(scorer, queries, {query.id: [position] for query in queries})
    return {query_id: rank for (query_id, _), rank in found.items()}


@pytest.mark.long
def test_against_the_whole_corpus_the_rank_is_that_of_cutting_everything(
    systems: Systems, queries: list[Query]
) -> None:
    ids = systems.corpus.ids
    pools = {query.id: list(ids) for query in queries}
    pieces = Pieces(systems, Pipeline(), [SPEC], pools)
    pairs = [(query.id, ids[7]) for query in queries]
    expected = exact(systems, queries, 7)
    for pair, ways in pieces.ranks(queries, pairs, {}):
        assert ways.alone == {SPEC: expected[pair[0]]}
        assert pieces.among(pair[0]) is None
        assert set(ways.combined) == {f"{SPEC} + bm25"}


def test_against_some_competitors_the_rank_is_at_best_that_and_says_among_how_many(
    systems: Systems, queries: list[Query]
) -> None:
    ids = systems.corpus.ids
    pools = {query.id: [ids[7], *ids[20:60]] for query in queries}
    pieces = Pieces(systems, Pipeline(), [SPEC], pools)
    expected = exact(systems, queries, 7)
    for (query_id, _), ways in pieces.ranks(queries, [(q.id, ids[7]) for q in queries], {}):
        rank, full = ways.alone[SPEC], expected[query_id]
        assert rank is not None
        assert full is not None
        assert rank <= min(full, 41)
        assert pieces.among(query_id) == 41


def test_a_filter_and_pieces_are_tried_together(systems: Systems, queries: list[Query]) -> None:
    ids = systems.corpus.ids
    alone = np.zeros(len(ids), dtype=bool)
    alone[7] = True
    pair = (queries[0].id, ids[7])
    pieces = Pieces(systems, Pipeline(), [SPEC], {queries[0].id: list(ids)})
    ((_, ways),) = pieces.ranks(queries[:1], [pair], {pair: [("tenant=a", alone)]})
    assert ways.combined[f"tenant=a + {SPEC}"] == 1
    assert ways.combined["tenant=a + bm25"] == 1


def test_paragraphs_stay_apart_however_short() -> None:
    text = "One two.\n\nThree four five.\n\n" + "word " * 12
    chunker = make_chunker("paragraphs:8", token_spans)
    chunks = [chunk.text for chunk in chunker.chunk(Document("d", text))]
    assert chunks[:2] == ["One two.", "Three four five."]
    assert [len(chunk.split()) for chunk in chunks[2:]] == [8, 4]
    whole = [
        chunk.text for chunk in make_chunker("recursive:99", token_spans).chunk(Document("d", text))
    ]
    assert len(whole) == 1
