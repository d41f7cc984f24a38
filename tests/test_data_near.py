"""Near-duplicates, splits, and the guard of held-out queries."""

# ruff: noqa: S311 - texts that can be made again, no secrets

from __future__ import annotations

import itertools
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.config import SplitSettings
from nearer.data.heldout import HeldOut, open_test
from nearer.data.near import Shingler, jaccard, near_duplicates, normalise
from nearer.data.splits import make_splits, read_split, write_split
from nearer.errors import DataError, HeldOutError
from nearer.types import Query, Split

WORDS = [f"w{i}" for i in range(400)]


def random_text(rng: random.Random, n: int = 60) -> str:
    return " ".join(rng.choices(WORDS, k=n))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Hello,  World", "hello world"),
        ("ﬁne — “print”", "fine print"),
        ("What is it?", "what is it"),
        ("naïve", "NAÏVE"),
    ],
)
def test_case_spacing_and_punctuation_do_not_matter(a: str, b: str) -> None:
    assert normalise(a) == normalise(b)


@pytest.mark.parametrize(
    ("a", "b"), [("C++ tutorial", "C# tutorial"), ("a < b", "a > b"), ("?", "!"), ("ls -l", "ls l")]
)
def test_symbols_that_carry_meaning_do(a: str, b: str) -> None:
    assert normalise(a) != normalise(b)


def shingles(text: str) -> set[tuple[str, ...]]:
    """The definition, written plainly."""
    words = normalise(text).split()
    if len(words) < 3:
        return {tuple(sorted(set(words)))} if words else set()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
def test_similarity_is_the_jaccard_of_word_3_grams(a: list[str], b: list[str]) -> None:
    shingle = Shingler()
    one, two = " ".join(a), " ".join(b)
    union = shingles(one) | shingles(two)
    expected = len(shingles(one) & shingles(two)) / len(union) if union else 0.0
    assert jaccard(shingle(normalise(one)), shingle(normalise(two))) == pytest.approx(expected)


@pytest.mark.long
def test_all_pairs_above_the_threshold_are_found_and_no_others() -> None:
    rng = random.Random(3)
    texts = []
    for _ in range(120):
        words = random_text(rng, rng.randint(5, 120)).split()
        texts.append(" ".join(words))
        for _ in range(rng.randint(0, 2)):
            changed = list(words)
            changed[rng.randrange(len(changed))] = rng.choice(WORDS)
            texts.append(" ".join(changed))
    expected = set()
    for a, b in itertools.combinations(range(len(texts)), 2):
        one, two = shingles(texts[a]), shingles(texts[b])
        if len(one & two) >= 0.9 * len(one | two):
            expected.add((a, b))
    found = near_duplicates(texts, 0.9)
    pairs = {(pair.a, pair.b) for pair in found.pairs}
    assert pairs <= expected
    assert len(pairs) >= 0.98 * len(expected) > 30
    assert (
        near_duplicates(texts, 0.9, reread=lambda positions: (texts[i] for i in positions)) == found
    )


def test_groups_are_transitive_and_empty_texts_belong_to_none() -> None:
    found = near_duplicates(["", "One two", "two, one", "other", "ONE TWO!", "", "  "], 0.9)
    assert found.groups == ((1, 2, 4),)
    assert [(pair.a, pair.b, pair.exact) for pair in found.pairs] == [(1, 2, False), (1, 4, True)]


def test_ten_thousand_texts_are_paired_with_their_copies() -> None:
    rng = random.Random(5)
    texts = [random_text(rng, 20) for _ in range(5000)]
    found = near_duplicates([*texts, *texts], 0.9)
    assert found.groups == tuple((i, i + 5000) for i in range(5000))


# -- held out ----------------------------------------------------------------------------------


@pytest.mark.long
def test_the_guard_knows_held_out_texts_exactly_and_nearly() -> None:
    rng = random.Random(7)
    texts = [random_text(rng, rng.randint(3, 50)) for _ in range(200)]
    guard = HeldOut.of([*texts, ""], 0.8)
    shingle = Shingler()
    for _ in range(300):
        words = rng.choice(texts).split()
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        text = " ".join(words)
        best = max(jaccard(shingle(normalise(text)), shingle(normalise(one))) for one in texts)
        expected = "exact" if text in texts else "near-duplicate" if best >= 0.8 else None
        assert guard.collides(text) == expected
    assert guard.collides(texts[0].upper() + "!") == "exact"
    assert guard.collides("") is None


@pytest.mark.parametrize(
    ("threshold", "size", "added"), [(0.8, 10, 2), (0.9, 10, 1), (0.55, 100, 45)]
)
def test_a_pair_just_at_the_threshold_is_found(threshold: float, size: int, added: int) -> None:
    held = " ".join(WORDS[: size + 2 - added])
    longer = " ".join(WORDS[: size + 2])  # `size` shingles, `added` of them new
    assert HeldOut.of([held], threshold).collides(longer) == "near-duplicate"
    assert HeldOut.of([held], threshold + 0.01).collides(longer) is None
    assert [pair.similarity for pair in near_duplicates([held, longer], threshold).pairs] == [
        threshold
    ]
    assert near_duplicates([held, longer], threshold + 0.01).pairs == ()


def test_the_guard_is_saved_without_texts_and_byte_for_byte_alike(tmp_path: Path) -> None:
    texts = [
        "How do I reset the alpha device?",
        "short one",
        "a longer question about nothing in particular",
    ]
    HeldOut.of(texts, 0.9).save(tmp_path / "one.npz")
    HeldOut.of(reversed(texts), 0.9).save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {
            (1980, 1, 1, 0, 0, 0)
        }  # no clock in the bytes
    assert b"reset" not in (tmp_path / "one.npz").read_bytes()
    back = HeldOut.load(tmp_path / "one.npz")
    assert [back.collides(text) for text in [*texts, "unknown thing here"]] == ["exact"] * 3 + [
        None
    ]
    with np.load(tmp_path / "one.npz", allow_pickle=False) as stored:
        assert {array.dtype.kind for array in stored.values()} <= set("uif")


def test_an_empty_guard_lets_everything_pass(tmp_path: Path) -> None:
    HeldOut.of([], 0.9).save(tmp_path / "none.npz")
    assert HeldOut.load(tmp_path / "none.npz").collides("anything at all") is None


def test_a_damaged_guard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a guard"):
        HeldOut.load(tmp_path / "bad.npz")


# -- splits ------------------------------------------------------------------------------------


def some_queries(
    n: int, per_document: int = 2
) -> tuple[dict[str, Query], dict[str, dict[str, int]]]:
    rng = random.Random(1)
    queries = {
        f"q{i}": Query(
            f"q{i}",
            random_text(rng, 12),
            metadata={"time": f"2026-01-{i % 28 + 1:02d}T00:00:{i % 60:02d}Z"},
        )
        for i in range(n)
    }
    return queries, {f"q{i}": {f"d{i // per_document}": 1} for i in range(n)}


def test_groups_never_straddle_splits_and_the_shares_are_kept() -> None:
    queries, judgments = some_queries(300)
    queries["q299"] = Query("q299", queries["q0"].text.upper())
    division = make_splits(
        queries, judgments, SplitSettings(dev=0.1, test=0.3), seed=7, near_duplicate=0.9
    )
    where = {query_id: name for name, ids in division.ids.items() for query_id in ids}
    assert len(where) == 300
    assert all(where[f"q{i}"] == where[f"q{i + 1}"] for i in range(0, 300, 2))
    assert where["q0"] == where["q299"]
    assert {name: len(ids) for name, ids in division.ids.items()} == pytest.approx(
        {"train": 180, "dev": 30, "test": 90}, abs=4
    )


def test_splits_depend_on_the_seed_and_not_on_the_order() -> None:
    queries, judgments = some_queries(100)
    shuffled = dict(sorted(queries.items(), key=lambda item: item[1].text))
    backwards = {q: judgments[q] for q in reversed(judgments)}
    first = make_splits(queries, judgments, SplitSettings(), 7, 0.9)
    assert make_splits(shuffled, backwards, SplitSettings(), 7, 0.9) == first
    assert make_splits(queries, judgments, SplitSettings(), 8, 0.9).ids != first.ids


def test_one_giant_group_of_shared_documents_is_broken_up_and_said_so() -> None:
    queries, _ = some_queries(60)
    judgments = {query_id: {"hub": 1} for query_id in queries}
    division = make_splits(queries, judgments, SplitSettings(), 7, 0.9)
    assert all(division.ids.values())
    assert "60 of 60 queries into one group" in division.notes[-1]


def test_a_split_by_time_tests_on_the_latest_and_drops_their_earlier_twins() -> None:
    queries = {
        f"q{i}": Query(
            f"q{i}", f"{WORDS[i]} {WORDS[i + 50]} {WORDS[i + 100]}", metadata={"when": 1000 + i}
        )
        for i in range(20)
    }
    queries["q0"] = Query("q0", queries["q19"].text, metadata={"when": 1})
    judgments = {query_id: {"d": 1} for query_id in queries}
    division = make_splits(
        queries, judgments, SplitSettings(by="time", dev=0.1, test=0.3), 7, 0.9, timestamp="when"
    )
    assert division.ids["test"] == sorted(f"q{i}" for i in range(14, 20))
    assert division.ids["dev"] == ["q12", "q13"]
    assert "q0" not in division.ids["train"]
    assert "1 earlier near-duplicates" in division.notes[1]


def test_a_missing_time_is_named() -> None:
    queries = {"q1": Query("q1", "x")}
    with pytest.raises(DataError, match="'q1' has no readable time in 'time'"):
        make_splits(queries, {"q1": {"d": 1}}, SplitSettings(by="time"), 7, 0.9)


def frozen(name: str) -> Split:
    query = Query(
        "q1",
        "ä text\nof two lines",
        {"lang": "en"},
        ("tag",),
        ({"doc_id": "d1", "start": 1, "end": 4},),
        {"year": 2026},
    )
    return Split(name, (query,), {"q1": {"d1": 2, "d2": 0}})


def test_a_split_comes_back_as_it_was_frozen(tmp_path: Path) -> None:
    write_split(tmp_path, frozen("dev"))
    assert read_split(tmp_path, "dev") == frozen("dev")
    write_split(tmp_path, Split("train", (), {}))
    assert len(read_split(tmp_path, "train")) == 0


def test_test_is_refused_and_each_look_at_it_is_logged_first(tmp_path: Path) -> None:
    write_split(tmp_path, frozen("test"))
    log = tmp_path / "test_looks.jsonl"
    with pytest.raises(HeldOutError, match="test split is not open"):
        read_split(tmp_path, "test")
    assert not log.exists()
    assert open_test(tmp_path, log, "decide: base") == frozen("test")
    open_test(tmp_path, log, "decide: again")
    looks = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(look["reason"], look["n_queries"]) for look in looks] == [
        ("decide: base", 1),
        ("decide: again", 1),
    ]
    assert all(look["time"] and look["pid"] for look in looks)
    (tmp_path / "test" / "queries.jsonl").write_text("broken\n")
    with pytest.raises(DataError):
        open_test(tmp_path, log, "decide: broken")
    assert len(log.read_text().splitlines()) == 3
