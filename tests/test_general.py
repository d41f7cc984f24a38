"""The general-ability guard set: whole, unambiguous, and hard enough to notice a loss."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from importlib.resources import files

from nearer.data.general import FILE, load_general

SMALL_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        "a an and are as at be by do does for from has have how i if in is it my no not of on or so than that the them to was what when "
        "where which why with you",
    )
)


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - SMALL_WORDS


def test_every_query_has_its_passage_and_every_passage_its_query() -> None:
    corpus, split = load_general()
    assert split.name == "general"
    assert len(split) == len(corpus.ids) == 280
    known = set(corpus.ids)
    for query in split.queries:
        relevant = split.relevant(query.id)
        assert query.id.removeprefix("q-") in relevant
        assert set(relevant) <= known


def test_topics_are_many_and_each_holds_passages_that_compete() -> None:
    _, split = load_general()
    topics = Counter(query.tags[0] for query in split.queries)
    assert len(topics) == 70
    assert set(topics.values()) == {4}


def test_no_text_stands_twice() -> None:
    corpus, split = load_general()
    texts = [document.text for document in corpus]
    assert len(set(texts)) == len(texts)
    assert len({query.text for query in split.queries}) == len(split)


def test_queries_share_few_words_with_their_passages() -> None:
    corpus, split = load_general()
    texts = {document.id: words(document.text) for document in corpus}
    shares = [
        len(words(query.text) & texts[query.id.removeprefix("q-")]) / len(words(query.text))
        for query in split.queries
    ]
    assert sum(shares) / len(shares) < 0.2
    assert max(shares) <= 0.7


def test_the_file_is_the_same_bytes_wherever_it_is_packed() -> None:
    packed = files("nearer.data").joinpath(FILE).read_bytes()
    assert packed[4:8] == b"\0\0\0\0"  # no time of packing (RFC 1952, MTIME)
    lines = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    assert all({"_id", "topic", "text", "query"} <= set(line) for line in lines)
