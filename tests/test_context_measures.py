"""Measures of the context: what fits a budget of tokens, and whether it is what should be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearer import config
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError
from nearer.measure.context import NAMES, ContextEvidence, Piece, pieces_within, value_of
from nearer.measure.metrics import score
from nearer.rag.contexts import Contexts, measured
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Document, Query, Run, Split


def piece(doc_id: str, text: str, start: int = 0) -> Piece:
    return Piece(doc_id, start, start + len(text), text)


def evidence(
    pieces: Sequence[Piece], relevant: str = "a", gold: dict[str, Any] | None = None
) -> ContextEvidence:
    return ContextEvidence(pieces, frozenset(relevant.split()), gold or {})


def test_the_last_piece_is_cut_and_what_comes_after_is_not_read() -> None:
    pieces = [piece("a", "one two three"), piece("b", "four five six"), piece("c", "seven")]
    fitting = pieces_within(pieces, 5)
    assert [each.text for each in fitting] == ["one two three", "four five"]
    assert fitting[1].end == len("four five")


def test_a_title_before_a_chunk_counts_as_text_and_not_as_characters_of_the_document() -> None:
    chunk = Piece("a", 100, 108, "Title here. four five"[:12] + "fourfive")
    assert chunk.first(3).end == 100
    assert chunk.first(9) is chunk


@pytest.mark.parametrize(
    ("gold", "budget", "expected"),
    [
        ({"a": [(0, 3)]}, 2, 1.0),  # the span stands whole in what fits
        ({"a": [(8, 13)]}, 2, 0.0),  # it stands behind the cut
        ({"a": [(0, 3), (8, 13)]}, 2, 0.5),
        ({"z": [(0, 3)]}, 9, 0.0),  # its document was not found
    ],
)
def test_recall_counts_gold_spans_that_stand_whole_in_the_budget(
    gold: dict[str, Any], budget: int, expected: float
) -> None:
    read = evidence([piece("a", "one two three four")], gold=gold)
    assert value_of(f"ContextRecall@{budget}tok", read) == expected


def test_a_span_over_two_chunks_that_touch_is_whole() -> None:
    chunks = [piece("a", "three four", 8), piece("a", "one two ", 0)]
    read = evidence(chunks, gold={"a": [(4, 13)]})
    assert value_of("ContextRecall@50tok", read) == 1.0


def test_without_gold_spans_relevant_documents_count_by_the_share_that_fits() -> None:
    read = evidence([piece("x", "1 2 3 4"), piece("a", "one two three four")], "a b")
    assert value_of("ContextRecall@6tok", read) == 0.25
    assert value_of("ContextRecall@100tok", read) == 0.5


def test_precision_novelty_and_order() -> None:
    pieces = [piece("a", "red green blue"), piece("x", "red green blue"), piece("b", "cyan pink")]
    read = evidence(pieces, "a b")
    assert value_of("ContextPrecision@100tok", read) == pytest.approx(5 / 8)
    assert value_of("ContextNovelty@100tok", read) == pytest.approx(2 / 3)
    assert value_of("ContextOrder@100tok", read) == pytest.approx(9 / 15)
    assert value_of("ContextOrder@3tok", read) == 1.0
    assert value_of("ContextOrder@100tok", evidence(pieces, "z")) == 0.0


def test_where_the_answer_lies_decides_which_chunk_is_relevant() -> None:
    pieces = [piece("a", "one two", 0), piece("a", "three four", 8)]
    read = evidence(pieces, gold={"a": [(8, 13)]})
    assert value_of("ContextPrecision@100tok", read) == 0.5
    assert value_of("ContextOrder@100tok", read) == 0.0


@given(
    texts=st.lists(st.tuples(st.sampled_from("abcd"), st.text(max_size=30)), max_size=6),
    gold=st.dictionaries(
        st.sampled_from("abz"), st.lists(st.tuples(*[st.integers(0, 40)] * 2), max_size=3)
    ),
    budget=st.integers(1, 60),
    name=st.sampled_from(NAMES),
)
def test_every_measure_lies_between_0_and_1(
    texts: list[tuple[str, str]], gold: dict[str, Any], budget: int, name: str
) -> None:
    read = evidence([piece(doc_id, text) for doc_id, text in texts], "a b", gold)
    assert 0.0 <= value_of(f"{name}@{budget}tok", read) <= 1.0


def test_names_are_settings_and_one_that_cannot_decide_says_why() -> None:
    names = [f"{name}@2000tok" for name in NAMES]
    assert config.build({"evaluate": {"measures": names}}).evaluate.measures == tuple(names)
    with pytest.raises(ConfigError, match="cannot decide"):
        config.build({"evaluate": {"primary": "ContextRecall@2000tok"}})
    for wrong in ("ContextRecall@2000", "ContextRecall", "ContextRecall@0tok", "Context@5tok"):
        with pytest.raises(ConfigError, match="unknown measure"):
            config.build({"evaluate": {"measures": [wrong]}})


def test_ids_alone_are_not_enough_to_measure_contexts() -> None:
    split = Split("dev", (Query("q", "x"),), {"q": {"a": 1}})
    run = Run("r", {"q": [("a", 1.0)]})
    with pytest.raises(ConfigError, match="needs the texts"):
        score(run, split, ["ContextRecall@10tok"])


@pytest.fixture
def systems(tiny_model: Path, tmp_path: Path) -> Systems:
    documents = [
        Document("pumps", "Grease the bearing. " * 12 + "The pump stops at 34 bar.", "Pumps"),
        Document("fans", "A fan moves air. " * 12, "Fans"),
    ]
    settings = config.build(
        {
            "model": {"name": str(tiny_model), "precision": "fp32"},
            "search": {"chunker": "tokens:16:4"},
            "evaluate": {"measures": ["nDCG@10", "ContextRecall@30tok", "ContextPrecision@30tok"]},
        }
    )
    return Systems(settings, tmp_path, Corpus.from_documents(documents))


def test_the_chunk_nearest_to_the_query_is_what_is_read(systems: Systems) -> None:
    query = Query("q", "at which pressure does the pump stop?", gold_spans=({"text": "34 bar"},))
    split = Split("dev", (query,), {"q": {"pumps": 1}})
    names = systems.config.evaluate.measures
    chunked = systems.base("dense")
    run = systems.run(chunked, split)
    pieces = Contexts.of(systems, chunked).pieces(run, [query], 30)["q"]
    assert pieces[0].doc_id == "pumps"
    assert "34 bar" in pieces[0].text
    found = measured(systems, chunked, run, split, names)
    assert found.mean("ContextRecall@30tok") == 1.0
    whole = Pipeline("dense")
    missed = measured(systems, whole, systems.run(whole, split), split, names)
    assert missed.mean("ContextRecall@30tok") == 0.0  # the answer stands behind the cut
    assert systems.depth == 100  # 30 tokens are no cut-off of results


def test_two_chunks_of_one_document_stand_in_the_order_of_its_text(systems: Systems) -> None:
    query = Query("q", "pump stops at 34 bar, grease the bearing")
    split = Split("dev", (query,), {"q": {"pumps": 1}})
    pipeline = systems.base("dense")
    contexts = Contexts(systems, pipeline, chunks=2)
    pieces = contexts.pieces(systems.run(pipeline, split), [query], 1000)["q"]
    starts = [each.start for each in pieces if each.doc_id == "pumps"]
    assert len(starts) == 2
    assert starts == sorted(starts)


@pytest.mark.parametrize("chunker", ["tokens:16:4", "tokens:16:4+title"])
def test_neighbours_of_a_chunk_are_read_with_it_as_one_piece(
    systems: Systems, chunker: str
) -> None:
    query = Query("q", "at which pressure does the pump stop?")
    pipeline = replace(systems.base("dense"), chunker=chunker)
    run = systems.run(pipeline, Split("dev", (query,), {"q": {"pumps": 1}}))

    def read(neighbours: int) -> Piece:
        contexts = Contexts(systems, pipeline, chunks=1, neighbours=neighbours)
        return contexts.pieces(run, [query], 1000)["q"][0]

    alone, wider, widest = read(0), read(1), read(99)
    content = systems.corpus[systems.corpus.position("pumps")].content
    assert alone.doc_id == wider.doc_id == "pumps"
    assert "34 bar" in wider.text
    assert wider.start < alone.start
    for piece in (wider, widest):
        assert piece.text.endswith(content[piece.start : piece.end])  # nothing is said twice
    titled = chunker.endswith("+title")  # then the chunks are those of the text behind the title
    assert (widest.start, widest.end) == (content.index("Grease") if titled else 0, len(content))
    assert wider.text.startswith("Pumps") == titled
