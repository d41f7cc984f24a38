"""Negatives that are really negative, and an account of everything left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nearer.config import Mine
from nearer.data.corpus import Corpus
from nearer.training.examples import Duplicates, known_positives
from nearer.training.material import TrainingMaterial
from nearer.training.mining import Evidence, Mined, mine
from nearer.types import Document, Query, Run, Split

#: similarity to the query; d1 is the positive
SIMILAR = {
    "d1": 0.8,
    "twin": 0.79,
    "close": 0.77,
    "hard": 0.7,
    "middle": 0.5,
    "easy": 0.1,
    "empty": 0.6,
    "q1": 0.99,
}
CORPUS = Corpus.from_documents(
    Document(doc_id, "" if doc_id == "empty" else f"text of {doc_id}") for doc_id in SIMILAR
)


def run_mine(
    settings: Mine,
    judgments: dict[str, dict[str, int]] | None = None,
    queries: Sequence[Query] = (Query("q1", "a question"),),
    duplicates: Duplicates | None = None,
    held_out: Sequence[str] = (),
    seed: int = 0,
) -> Mined:
    ranked = sorted(SIMILAR.items(), key=lambda pair: -pair[1])
    material = TrainingMaterial(
        Split("train", tuple(queries), judgments or {"q1": {"d1": 1}}),
        CORPUS,
        duplicates or Duplicates.of([["d1", "twin"]]),
        collides=lambda text: "exact" if text in held_out else None,
    )
    return mine(
        material,
        Evidence(
            [Run("dense", {query.id: ranked for query in queries})],
            lambda query_id, ids: np.array([SIMILAR[doc_id] for doc_id in ids], np.float32),
        ),
        settings,
        np.random.default_rng(seed),
    )


def test_negatives_score_clearly_below_the_positive() -> None:
    mined = run_mine(Mine(negatives=4, margin=0.95))
    assert set(mined.examples[0].negatives) == {"hard", "middle", "easy"}
    assert (
        mined.dropped["candidate scores too close to the positive"] == 1
    )  # `close`, .77 ≥ .95 × .8


def test_positives_their_duplicates_the_query_itself_and_empty_texts_are_never_negatives() -> None:
    mined = run_mine(Mine(negatives=10, margin=1.0))
    assert not {"d1", "twin", "q1", "empty"} & set(mined.examples[0].negatives)
    assert mined.dropped["candidate is a known positive or its duplicate"] == 2
    assert mined.dropped["candidate is the query itself"] == 1
    assert mined.dropped["candidate is empty"] == 1


def test_positives_of_a_near_identical_query_are_spared_too() -> None:
    known = known_positives(
        {"q1": {"d1": 1}, "q2": {"hard": 2}, "q3": {"easy": 1}},
        Duplicates.of([["hard", "close"]], [["q1", "q2"]]),
    )
    assert known["q1"] == {"d1", "hard", "close"}
    assert known["q3"] == {"easy"}


def test_the_margin_holds_for_negative_similarities_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SIMILAR, "d1", -0.2)
    mined = run_mine(Mine(negatives=10, margin=0.9))
    assert mined.examples[0].negatives == ()  # everything else scores above the positive


def test_draws_come_from_the_hardest_and_are_seeded() -> None:
    assert run_mine(Mine(negatives=1, pool=1)).examples[0].negatives == ("hard",)
    drawn = {
        run_mine(Mine(negatives=1, pool=3), seed=seed).examples[0].negatives for seed in range(20)
    }
    assert len(drawn) == 3
    assert run_mine(Mine(negatives=2), seed=5) == run_mine(Mine(negatives=2), seed=5)


def test_each_example_says_where_it_came_from() -> None:
    assert run_mine(Mine(negatives=1, pool=1)).examples[0].source == ("judged", "dense#5")


def test_documents_judged_0_are_the_first_negatives_whatever_the_margin_says() -> None:
    judged = {"q1": {"d1": 1, "close": 0, "easy": -1, "twin": 0, "gone": 0, "q1": 0}}
    mined = run_mine(Mine(negatives=3, margin=0.95), judged)
    example = mined.examples[0]
    assert set(example.negatives[:2]) == {"close", "easy"}  # `close` lies within the margin
    assert example.source[:3] == ("judged", "judged 0", "judged 0")
    assert example.negatives[2] in {"hard", "middle"}
    assert mined.summary()["sources"] == {"judged": 1, "judged 0": 2, "dense": 1}
    dropped = mined.summary()["dropped"]
    assert dropped["judged 0, but a known positive or its duplicate"] == 1  # `twin`
    assert dropped["judged 0, but not in the corpus"] == 1
    assert dropped["judged 0, but the query itself"] == 1


def test_of_many_documents_judged_0_the_hardest_are_drawn() -> None:
    judged = {"q1": {"d1": 1, "close": 0, "middle": 0, "easy": 0}}
    mined = run_mine(Mine(negatives=1, pool=1), judged)
    assert mined.examples[0].negatives == ("close",)
    assert run_mine(Mine(negatives=0), judged).examples[0].negatives == ()


def test_a_partly_relevant_document_is_no_document_judged_0() -> None:
    judged = {"q1": {"d1": 2, "close": 1}}
    mined = run_mine(Mine(negatives=4, margin=0.95), judged)
    assert "judged 0" not in mined.examples[0].source


def test_a_training_query_that_is_also_held_out_is_dropped_and_counted() -> None:
    queries = (Query("q1", "a question"), Query("q2", "secret"))
    mined = run_mine(
        Mine(negatives=0), {"q1": {"d1": 1}, "q2": {"d1": 1}}, queries, held_out=["secret"]
    )
    assert [example.query_id for example in mined.examples] == ["q1"]
    assert mined.leakage == {"exact": 1}
    assert mined.summary()["dropped"]["query also held out"] == 1


def test_unusable_positives_are_counted_by_reason() -> None:
    queries = (
        Query("q1", "a question"),
        Query("q2", "A  question"),
        Query("q3", "text of hard"),
        Query("q4", " "),
    )
    judged = {
        "q1": {"d1": 1, "gone": 1, "empty": 1, "easy": 0},
        "q2": {"d1": 1},
        "q3": {"hard": 1},
        "q4": {"d1": 1},
    }
    mined = run_mine(Mine(negatives=0), judged, queries)
    assert [(example.query_id, example.positive) for example in mined.examples] == [("q1", "d1")]
    assert mined.summary()["dropped"] == {
        "empty query": 1,
        "positive is empty": 1,
        "positive not in the corpus": 1,
        "query and positive are the same text": 1,
        "the same pair again": 1,
    }
