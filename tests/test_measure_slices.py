"""Slices name the queries that a mean hides."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from nearer.measure.metrics import Scores
from nearer.measure.slices import (
    DESCRIPTIONS,
    SliceEvidence,
    automatic_slices,
    compare_slices,
    find_identifiers,
    slice_table,
    terms,
)
from nearer.types import Query

TEXTS = {
    "d1": "Buffer overflow in the parser of config files",
    "d2": "SQL injection through the login form",
    "d3": "Cross-site scripting in the login form",
    "d4": "Login without a password, login without a user",
    "d5": "The login page",
}


def slices_of(text: str, tags: tuple[str, ...] = (), **evidence: object) -> set[str]:
    found = automatic_slices([Query("q", text, tags=tags)], SliceEvidence(**evidence))  # type: ignore[arg-type]
    assert all(members == {"q"} for members in found.values())
    return set(found)


@pytest.mark.parametrize(
    ("text", "identifiers"),
    [
        ("patch for CVE-2020-1234 and CWE-79", ["CVE-2020-1234", "CWE-79"]),
        ("error E1234 then HTTP404, again E1234", ["E1234", "HTTP404"]),
        ("crash in libfoo.so with nginx.conf", ["libfoo.so", "nginx.conf"]),
        ("upgrade from 1.2.3 to v4.0", ["1.2.3", "v4.0"]),
        (
            "max_seq_length or __init__ or getUserName",
            ["max_seq_length", "__init__", "getUserName"],
        ),
        ("read /etc/passwd or C:\\Windows\\System32", ["/etc/passwd", "C:\\Windows\\System32"]),
        (
            "address 0xDEADBEEF, commit 3c5fa91b, host 10.0.0.1",
            ["0xDEADBEEF", "3c5fa91b", "10.0.0.1"],
        ),
        ('the "login form" of `admin panel`', ["login form", "admin panel"]),
        (
            "run with --force and call strcpy() in std::string",
            ["--force", "strcpy()", "std::string"],
        ),
        ("see https://example.com/a?b=1 there", ["https://example.com/a?b=1"]),
        ("550e8400-e29b-41d4-a716-446655440000", ["550e8400-e29b-41d4-a716-446655440000"]),
    ],
)
def test_identifiers_are_found_in_order_and_once(text: str, identifiers: list[str]) -> None:
    assert find_identifiers(text) == identifiers


@pytest.mark.parametrize(
    "text",
    [
        "how do I reset my password",
        "a well-known state-of-the-art method, e.g. this one",
        "it costs 3.50 and/or more than 20 percent in 2024",
        "it's the user's own file. Then it ends",
        "OpenSSL on GitHub by the FBI",
        "defaced facade decade",
        "",
    ],
)
def test_plain_words_are_no_identifiers(text: str) -> None:
    assert find_identifiers(text) == []


@pytest.mark.parametrize(
    "part", ["a-", "a_", "A-1", "1.", '"', "/a", "aB", "a.b", "0a", "a::", "--a", "http://"]
)
def test_no_text_makes_the_search_for_identifiers_slow(part: str) -> None:
    text = part * 20_000
    started = time.perf_counter()
    find_identifiers(text)
    assert time.perf_counter() - started < 2.0  # a pattern that backtracks takes minutes


def test_terms_are_folded_unicode_words_without_stop_words() -> None:
    assert terms("What is the STRASSE, Straße or naïve café_2 of 日本語?") == [
        "strasse",
        "strasse",
        "naïve",
        "café_2",
        "日本",
        "本語",
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("login form", "short query"),
        ("one two three four", "medium query"),
        (" ".join(["word"] * 13), "long query"),
    ],
)
def test_length_is_counted_in_words(text: str, name: str) -> None:
    assert slices_of(text) & {"short query", "medium query", "long query"} == {name}


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("How to log in", True),
        ("is it safe", True),
        ("overflow?", True),
        ("安全吗？", True),
        ("howling wolves", False),
        ("explain what happened", False),
    ],
)
def test_questions_start_with_a_question_word_or_end_with_a_mark(text: str, asked: bool) -> None:
    assert ("question" in slices_of(text)) is asked


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("memory corruption", "no overlap"),
        ("login with stolen cookies", "low overlap"),
        ("login form", "high overlap"),
        ("buffer cookies", "high overlap"),  # half of it stands in d1, the better of the two
        ("of the", None),
    ],
)
def test_overlap_is_with_the_best_relevant_document(text: str, name: str | None) -> None:
    found = slices_of(
        text, judgments={"q": {"d1": 1, "d2": 2, "d4": 0, "gone": 1}}, relevant_texts=TEXTS
    )
    assert found & {"no overlap", "low overlap", "high overlap"} == ({name} if name else set())


def test_rare_and_unknown_terms() -> None:
    counts = Counter(term for text in TEXTS.values() for term in set(terms(text)))
    assert {"rare term", "unknown term"} & slices_of("sql login", document_frequencies=counts) == {
        "rare term"
    }
    assert {"rare term", "unknown term"} & slices_of(
        "cookies login", document_frequencies=counts
    ) == {"unknown term"}
    assert {"rare term", "unknown term"} & slices_of(
        "the login", document_frequencies=counts
    ) == set()


def test_a_document_with_training_queries_is_seen() -> None:
    seen = {"seen documents", "unseen documents"}
    assert seen & slices_of("x", judgments={"q": {"d1": 1, "d2": 1}}, trained={"d2"}) == {
        "seen documents"
    }
    assert (
        seen & slices_of("x", judgments={"q": {"d1": 1, "d2": 1}}, trained={"d2"}, min_grade=2)
        == set()
    )
    assert seen & slices_of("x", judgments={"q": {"d1": 1}}, trained=set()) == {"unseen documents"}
    assert seen & slices_of("x", judgments={"q": {"d1": 1}}) == set()


def test_tags_name_slices_and_come_first_in_a_stable_order() -> None:
    queries = [Query("a", "CVE-2020-1234", tags=("web", "old")), Query("b", "why?", tags=("old",))]
    found = automatic_slices(queries, SliceEvidence())
    assert list(found) == ["tag:old", "tag:web", "short query", "identifier", "question"]
    assert found["tag:old"] == {"a", "b"}
    assert {name for name in found if not name.startswith("tag:")} <= set(DESCRIPTIONS)


def scores(values: list[float]) -> Scores:
    return Scores(tuple(f"q{i}" for i in range(len(values))), {"RR": np.array(values)})


def test_the_table_leaves_out_small_slices_and_unscored_queries() -> None:
    slices = {"big": {"q0", "q1", "q2", "gone"}, "small": {"q0", "gone", "missing"}}
    rows = slice_table(scores([0.0, 0.5, 1.0]), slices, "RR", 2)
    assert [(row["slice"], row["n"], row["mean"]) for row in rows] == [("big", 3, 0.5)]
    assert rows[0]["ci"][0] < 0.5 < rows[0]["ci"][1]


def test_slices_are_compared_with_p_values_adjusted_over_the_table() -> None:
    rng = np.random.default_rng(7)
    before = list(rng.random(40))
    after = [value + (0.2 if i < 20 else 0.0) for i, value in enumerate(before)]
    halves = {"better": {f"q{i}" for i in range(20)}, "same": {f"q{i}" for i in range(20, 40)}}
    better, same = compare_slices(
        scores(before), scores(after), halves, "RR", 10, rng, resamples=999
    )
    assert (better["slice"], better["n"], better["wins"], same["ties"]) == ("better", 20, 20, 20)
    assert (
        better["delta"]
        == pytest.approx(better["candidate"] - better["baseline"])
        == pytest.approx(0.2)
    )
    assert better["p_holm"] == pytest.approx(2 * better["p"])
    assert same["p_holm"] == 1.0


def test_scores_of_different_queries_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different queries"):
        compare_slices(
            scores([0.1]), scores([0.1, 0.2]), {"all": {"q0"}}, "RR", 1, np.random.default_rng(7)
        )
