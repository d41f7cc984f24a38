"""Where examples come from: grades, clicks, passages, weak pairs; and what must not leak into them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.config import Mine
from nearer.data.clicks import CLICK_WEIGHTS, read_clicks
from nearer.data.corpus import Corpus
from nearer.data.heldout import HeldOut
from nearer.data.propensity import liking, propensities
from nearer.errors import DataError
from nearer.training.examples import Duplicates, build_training_set, read_examples
from nearer.training.material import TrainingMaterial
from nearer.training.mining import Evidence, Mined, Suspect, mine
from nearer.training.mining.files import usable_examples
from nearer.training.mining.queue import queue_lines
from nearer.training.mining.weak import docstrings, faq, headings, titles, weak_pairs
from nearer.types import Document, Example, Passage, Query, Run, Split

TEXTS = {name: f"text of {name}" for name in ("good", "fair", "other", "more", "rest")}
CORPUS = Corpus.from_documents(Document(name, text) for name, text in TEXTS.items())
SIMILAR = {"good": 0.9, "fair": 0.8, "other": 0.7, "more": 0.5, "rest": 0.3}


def mined_of(
    settings: Mine,
    judged: Mapping[str, int] | None = None,
    query: Query | None = None,
    evidence: Mapping[str, Any] | None = None,
    collides: Sequence[str] = (),
) -> Mined:
    asked = query or Query("q", "which one")
    material = TrainingMaterial(
        Split("train", (asked,), {asked.id: judged or {"good": 1}}),
        CORPUS,
        Duplicates(),
        collides=lambda text: "exact" if text in collides else None,
    )
    parts: dict[str, Any] = {
        "runs": [Run("dense", {asked.id: list(SIMILAR.items())})],
        "similarity": lambda _, doc_ids: np.array([SIMILAR[name] for name in doc_ids]),
    }
    parts |= evidence or {}
    return mine(material, Evidence(**parts), settings, np.random.default_rng(0))


# -- weights ---------------------------------------------------------------------------------------


def test_a_positive_counts_by_its_grade() -> None:
    mined = mined_of(Mine(negatives=0), {"good": 3, "fair": 1})
    weights = {example.positive: example.weight for example in mined.examples}
    assert weights == {"good": 1.0, "fair": pytest.approx(1 / 3)}
    equal = mined_of(Mine(negatives=0, grades="equal"), {"good": 3, "fair": 1})
    assert {example.weight for example in equal.examples} == {1.0}


def test_what_clicks_say_becomes_a_weight() -> None:
    query = Query("q", "which one", metadata={CLICK_WEIGHTS: {"fair": 0.4, "good": "much"}})
    mined = mined_of(Mine(negatives=0), {"good": 1, "fair": 1}, query)
    assert {example.positive: example.weight for example in mined.examples} == {
        "good": 1.0,
        "fair": 0.4,
    }


def log_line(session: str, ranked: str, clicks: Sequence[Any]) -> str:
    results = [{"id": name, "rank": rank} for rank, name in enumerate(ranked, start=1)]
    line = {"query": "shoes", "session": session, "results": results, "clicks": list(clicks)}
    return json.dumps(line) + "\n"


def weights_of(folder: Path, lines: Sequence[str]) -> dict[str, float]:
    (folder / "clicks.jsonl").write_text("".join(lines))
    (query,) = read_clicks(folder / "clicks.jsonl").queries.values()
    weights: dict[str, float] = query.metadata[CLICK_WEIGHTS]
    return weights


def test_a_click_further_down_weighs_more_since_few_look_there(tmp_path: Path) -> None:
    lines = [log_line(f"s{n}", "xab", ["a"]) for n in range(30)]
    lines += [log_line(f"t{n}", "xab", ["b"]) for n in range(30)]
    weights = weights_of(tmp_path, lines)
    # nothing was shown at two ranks: rank 2 is taken to be looked at half as often as rank 1
    assert weights == {"a": pytest.approx(2 / 3, abs=0.01), "b": 1.0}


def test_short_visits_weigh_less_than_long_ones_and_thumbs(tmp_path: Path) -> None:
    clicks = [
        {"id": "b", "dwell_ms": 3000},
        {"id": "c", "dwell": 120},
        {"id": "d", "type": "thumbs_up", "dwell": 1},
    ]
    weights = weights_of(tmp_path, [log_line(f"s{n}", "abcd", clicks) for n in range(4)])
    assert weights["b"] < 0.1
    assert weights["d"] == 1.0


def test_as_many_thumbs_down_as_up_make_no_positive(tmp_path: Path) -> None:
    clicks = ["b", {"id": "b", "type": "thumbs_down"}, "c"]
    (tmp_path / "clicks.jsonl").write_text(
        "".join(log_line(f"s{n}", "abc", clicks) for n in range(3))
    )
    log = read_clicks(tmp_path / "clicks.jsonl")
    assert list(log.judgments.values()) == [{"c": 1}]
    assert log.dropped["documents with as many thumbs down as up"] == 1


class Pair:
    def __init__(self, impressions: dict[int, int], clicks: dict[int, int]) -> None:
        self.impressions, self.clicks_by_rank = impressions, clicks


def test_how_much_a_rank_is_looked_at_comes_from_documents_shown_at_both() -> None:
    pairs = [Pair({1: 100, 2: 100}, {1: 40, 2: 30}), Pair({2: 50, 3: 50}, {2: 20, 3: 4})]
    looked_at = propensities(pairs)
    assert looked_at == {1: 1.0, 2: pytest.approx(0.75), 3: pytest.approx(0.75 * 0.2)}
    assert liking(pairs[0], looked_at) == pytest.approx((40 + 30 / 0.75) / 200)


# -- hard negatives --------------------------------------------------------------------------------


def negatives(settings: Mine, **evidence: Any) -> list[str]:
    return sorted(mined_of(settings, evidence=evidence).examples[0].negatives)


def test_the_absolute_margin_holds_as_well() -> None:
    assert negatives(Mine(negatives=4, absolute_margin=0.3)) == ["more", "rest"]


def test_negatives_come_from_the_window_alone() -> None:
    assert negatives(Mine(negatives=4, first_rank=3, candidates=4)) == ["more", "other"]


def test_a_source_gives_no_more_than_its_quota() -> None:
    words = Run("bm25", {"q": [("rest", 3.0), ("good", 2.0)]})
    dense = Run("dense", {"q": [("fair", 0.8), ("other", 0.7), ("more", 0.5)]})
    mined = mined_of(
        Mine(negatives=4, margin=0.9, quota={"dense": 1}), evidence={"runs": [dense, words]}
    )
    (example,) = mined.examples
    sources = [source.partition("#")[0] for source in example.source[1:]]
    assert sorted(sources) == ["bm25", "dense"]
    assert mined.dropped["the quota of its source is used up"] >= 1


def test_what_the_second_model_scores_like_the_positive_is_no_negative() -> None:
    second = {**SIMILAR, "more": 0.89}
    similarity = lambda _, doc_ids: np.array([second[name] for name in doc_ids])  # noqa: E731
    assert negatives(Mine(negatives=4), second=similarity) == ["fair", "other", "rest"]


def test_a_reader_turns_down_what_it_does_not_score_below_the_positive() -> None:
    scores = {"text of good": 2.0, "text of other": 5.0}

    def reader(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        assert {query for query, _ in pairs} == {"which one"}
        return np.array([scores.get(text, 0.0) for _, text in pairs], np.float32)

    assert negatives(Mine(negatives=4), reader=reader) == ["fair", "more", "rest"]
    mined = mined_of(Mine(negatives=4), evidence={"reader": reader})
    assert mined.account.rejected["the reranker does not score it below the positive"] == 1


def test_the_share_that_each_rule_rejects_is_counted_per_example() -> None:
    mined = mined_of(Mine(negatives=4), {"good": 1, "more": 1})
    rejected = mined.summary()["candidates"]["rejected"]
    assert mined.account.considered == 10  # two positives, five candidates each
    assert rejected["candidate is a known positive or its duplicate"] == {"count": 4, "share": 0.4}
    assert rejected["candidate scores too close to the positive"]["count"] == 2  # above `more`


def test_the_histogram_and_the_sample_are_saved_and_read_back(tmp_path: Path) -> None:
    mined = mined_of(Mine(negatives=2))
    mined.save(tmp_path)
    again = Mined.load(tmp_path)
    assert again == mined
    counts = again.account.similarities
    assert (sum(counts["positives"]), sum(counts["negatives"])) == (1, 2)
    (shown,) = again.account.sample
    assert shown["positive"]["text"] == "text of good"
    assert len(shown["negatives"]) == 2


# -- passages --------------------------------------------------------------------------------------


class Halves:
    """Every document has two halves; a positive is both of them."""

    def nearest(self, query_id: str, doc_id: str) -> Passage:
        return Passage(0, 4)

    def answering(self, query: Query, doc_id: str) -> list[tuple[Passage | None, float, str]]:
        return [(Passage(0, 4), 0.75, "shared"), (Passage(5, 12, "of it"), 0.25, "shared")]


def test_a_positive_of_several_chunks_shares_its_weight(tmp_path: Path) -> None:
    mined = mined_of(Mine(negatives=1), {"good": 2, "fair": 1}, evidence={"passages": Halves()})
    weights = [(example.positive, example.weight) for example in mined.examples]
    assert weights == [("good", 0.75), ("good", 0.25), ("fair", 0.375), ("fair", 0.125)]
    mined.save(tmp_path)
    assert tuple(read_examples(tmp_path / "examples.jsonl")) == mined.examples


def test_training_reads_the_passages_and_spares_all_of_a_known_document() -> None:
    examples = [
        Example("good", query_id="q", positive_passage=Passage(0, 4)),
        Example("good", query_id="q", positive_passage=Passage(5, 7, "Title of")),
        Example("other", query_id="r", negatives=("good",), negative_passages=(Passage(5, 12),)),
        Example("fair", query_id="r"),
    ]
    queries = {"q": Query("q", "which"), "r": Query("r", "what")}
    judgments = {"q": {"good": 1}, "r": {"other": 1, "fair": 1}}
    rows = build_training_set(examples, CORPUS, queries, judgments, Duplicates())
    assert rows.documents == ("text", "Title of", "text of other", "of good", "text of fair")
    assert rows.rows[2] == (1, 2, (3,))
    assert rows.blocked == (frozenset({0, 1, 3}), frozenset({2, 4}))


@pytest.mark.parametrize(
    "line",
    [
        {"positive_span": [4, 4]},
        {"positive_span": "0-4"},
        {"positive_span": [0, 4], "positive_text": " "},
        {"negatives": ["other"], "negative_spans": []},
        {"negatives": ["other"], "negative_spans": [[3, 1]]},
        {"negatives": ["other"], "negative_spans": [[0, 4]], "negative_texts": "text"},
    ],
)
def test_a_passage_that_is_none_is_named_with_its_line(
    tmp_path: Path, line: dict[str, Any]
) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(json.dumps({"query_id": "q", "positive": "good", **line}) + "\n")
    with pytest.raises(DataError, match=r"examples.jsonl:1: "):
        read_examples(path)


def test_a_span_outside_of_its_document_is_named() -> None:
    example = Example("good", query_id="q", positive_passage=Passage(900, 950))
    with pytest.raises(DataError, match=r"examples.jsonl:1: document 'good' has no text from 900"):
        build_training_set([example], CORPUS, {"q": Query("q", "x")}, {}, Duplicates())


# -- weak pairs ------------------------------------------------------------------------------------

PAGE = """Intro words.

## How do I reset it?
Press the red button for ten seconds.

Colours of the light
====================
Red means that something is wrong with it.

Q: Is it safe to open?
A: Only when the plug is out of the wall.
"""

CODE = '''def area(width, height):
    """Area of a rectangle in square metres.

    More about it.
    """
    return width * height
'''


def test_headings_and_questions_stand_over_their_text() -> None:
    document = Document("page", PAGE, title="Manual of the lamp")
    assert list(titles(document)) == [("Manual of the lamp", PAGE)]
    found = {query: " ".join(text.split()) for query, text in headings(document)}
    assert found["How do I reset it?"] == "Press the red button for ten seconds."
    assert found["Colours of the light"].startswith("Red means that something is wrong")
    questions = {query: " ".join(text.split()) for query, text in faq(document)}
    assert questions == {
        "How do I reset it?": "Press the red button for ten seconds.",
        "Is it safe to open?": "Only when the plug is out of the wall.",
    }


def test_docstrings_stand_over_their_code() -> None:
    ((query, text),) = docstrings(Document("code", CODE))
    assert query == "Area of a rectangle in square metres."
    assert "return width * height" in text
    assert "Area of" not in text


def weak_corpus() -> Corpus:
    documents = [Document(f"d{n}", f"{PAGE} {n}", title=f"Manual number {n}") for n in range(8)]
    return Corpus.from_documents(documents)


def test_weak_pairs_are_capped_weighted_and_never_ambiguous() -> None:
    settings = Mine(weak=("titles", "headings"), weak_limit=5, weak_weight=0.2)
    weak = weak_pairs(weak_corpus(), settings, lambda _: None, np.random.default_rng(0))
    assert len(weak.examples) == 5
    assert {example.weight for example in weak.examples} == {0.2}
    sources = {example.source for example in weak.examples}
    assert sources == {("weak titles",), ("weak headings",)}
    # the last heading stands over another text in each of the eight documents
    assert weak.dropped["weak query over several texts"] == 8
    assert weak.dropped["weak pair again"] == 7
    assert weak.dropped["weak pairs beyond mine.weak_limit"] == 4


def test_a_weak_query_that_is_held_out_is_dropped_and_counted() -> None:
    settings = Mine(weak=("titles",))
    collides = HeldOut.of(["manual number 3"], 0.9).collides
    weak = weak_pairs(weak_corpus(), settings, collides, np.random.default_rng(0))
    assert "Manual number 3" not in {example.query for example in weak.examples}
    assert weak.leakage == {"exact": 1}
    assert weak.dropped["weak query also held out"] == 1


def test_no_part_of_the_document_of_a_weak_pair_is_its_negative() -> None:
    examples = [
        Example("good", query_id="q"),
        Example("the body", query="a title", document="good", source=("weak titles",)),
        Example("fair", query_id="r"),
    ]
    queries = {"q": Query("q", "which"), "r": Query("r", "what")}
    judgments = {"q": {"good": 1}, "r": {"fair": 1}}
    rows = build_training_set(examples, CORPUS, queries, judgments, Duplicates())
    assert rows.documents == ("text of good", "the body", "text of fair")
    assert rows.blocked == (frozenset({0, 1}), frozenset({0, 1}), frozenset({2}))


# -- leakage ---------------------------------------------------------------------------------------


def test_a_training_file_gives_no_held_out_query_as_a_document() -> None:
    held_out = HeldOut.of(["what is the tide table for today"], 0.8)
    examples = [
        Example("What is the tide table for today?", query="tide"),
        Example("sea level", query="tides", negatives=("what is the tide table for today", "sun")),
        Example("moon", query="What is the tide table, for today"),
    ]
    kept, dropped, leakage = usable_examples(examples, held_out.collides)
    assert kept == [Example("sea level", query="tides", negatives=("sun",))]
    assert dropped == {
        "positive is also a held-out query": 1,
        "negative is also a held-out query": 1,
        "query also held out": 1,
    }
    assert leakage == {"exact": 3}


def test_a_document_that_is_a_held_out_query_is_no_positive() -> None:
    mined = mined_of(Mine(negatives=0), {"good": 1, "fair": 1}, collides=["text of good"])
    assert [example.positive for example in mined.examples] == ["fair"]
    assert mined.leakage == {"exact": 1}
    assert mined.dropped["positive is also a held-out query"] == 1


def test_the_review_queue_names_each_suspect_once() -> None:
    suspects = [Suspect("which", "good", 0.9, ("BM25: no word",), "q"), Suspect("x", "y", 0.6, ())]
    lines = [json.loads(line) for line in queue_lines(suspects, set())]
    assert [line["query"] for line in lines] == ["which", "x"]
    assert all(line["split"] == "train" for line in lines)
    assert lines[0]["results"] == [{"id": "good", "rank": 1}]
    assert queue_lines(suspects, {line["request_id"] for line in lines}) == []
