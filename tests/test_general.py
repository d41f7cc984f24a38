"""The built-in sets of everyday language: whole, unambiguous, and hard enough to notice a loss."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from importlib.resources import files
from itertools import chain
from typing import Any

import pytest

from nearer.data.general import (
    FILES,
    PAIRS_FILE,
    GeneralSet,
    load_general,
    load_general_pairs,
)
from nearer.data.near import near_duplicates

SMALL_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        "a an and are as at be by do does for from has have how i if in is it my no not of on or so than that the them to was what when "
        "where which why with you",
    )
)
SIZES: dict[GeneralSet, int] = {"guard": 1040, "calibration": 332}

every_set = pytest.mark.parametrize("which", list(FILES))


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - SMALL_WORDS


def texts_of(which: GeneralSet) -> list[str]:
    corpus, split = load_general(which)
    return [document.text for document in corpus] + [query.text for query in split.queries]


def topics_of(which: GeneralSet) -> Counter[str]:
    return Counter(query.tags[0] for query in load_general(which)[1].queries)


def lines_of(file: str) -> list[dict[str, Any]]:
    packed = files("nearer.data").joinpath(file).read_bytes()
    return [json.loads(line) for line in gzip.decompress(packed).splitlines()]


@every_set
def test_every_query_has_its_passage_and_every_passage_its_query(which: GeneralSet) -> None:
    corpus, split = load_general(which)
    assert len(split) == len(corpus.ids) == SIZES[which]
    known = set(corpus.ids)
    for query in split.queries:
        relevant = split.relevant(query.id)
        assert query.id.removeprefix("q-") in relevant
        assert set(relevant) <= known


def test_each_set_names_its_split() -> None:
    assert load_general()[1].name == "general"
    assert load_general("calibration")[1].name == "general-calibration"


@every_set
def test_topics_are_many_and_each_holds_passages_that_compete(which: GeneralSet) -> None:
    topics = topics_of(which)
    assert len(topics) == SIZES[which] // 4
    assert set(topics.values()) == {4}


def test_there_are_pairs_to_train_on_and_each_has_both_texts() -> None:
    examples = load_general_pairs()
    assert len(examples) == 748
    assert all(example.query and example.positive for example in examples)
    assert {example.source for example in examples} == {("general",)}


def test_no_topic_stands_in_two_sets() -> None:
    times = Counter(chain.from_iterable(topics_of(which) for which in FILES))
    times.update({entry["topic"] for entry in lines_of(PAIRS_FILE)})
    assert set(times.values()) == {1}


def test_no_text_stands_twice_nor_nearly_in_the_sets_and_the_pairs() -> None:
    texts = list(chain.from_iterable(texts_of(which) for which in FILES))
    for example in load_general_pairs():
        texts.extend([example.positive, example.query or ""])
    assert min(map(len, texts)) > 0
    assert near_duplicates(texts, 0.5).groups == ()


@every_set
def test_queries_share_few_words_with_their_passages(which: GeneralSet) -> None:
    corpus, split = load_general(which)
    texts = {document.id: words(document.text) for document in corpus}
    shares = [
        len(words(query.text) & texts[query.id.removeprefix("q-")]) / len(words(query.text))
        for query in split.queries
    ]
    assert sum(shares) / len(shares) < 0.2
    assert max(shares) <= 0.7


@pytest.mark.parametrize("file", [*FILES.values(), PAIRS_FILE])
def test_the_file_is_the_same_bytes_wherever_it_is_packed(file: str) -> None:
    packed = files("nearer.data").joinpath(file).read_bytes()
    assert packed[4:8] == b"\0\0\0\0"  # no time of packing (RFC 1952, MTIME)
    assert all({"_id", "topic", "text", "query"} <= set(line) for line in lines_of(file))
