"""Planted wrong positives are found, right ones are left alone, and small data gives no verdict."""

from __future__ import annotations

import numpy as np
import pytest

from nearer.training.mining.doubtful import Doubtful, Space, doubtful
from nearer.training.mining.noise import doubts
from nearer.training.mining.signals import JudgedPairs, signals_of
from nearer.training.mining.suspects import LEAST, treated
from nearer.types import Example

TOPICS, QUERIES, DIMENSION = 30, 600, 32


class Labels:
    """Queries around topics, a document per topic, and judgments of which some are shuffled."""

    def __init__(self, wrong: float, seed: int = 0, spread: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.documents = rng.normal(size=(TOPICS, DIMENSION)).astype(np.float32)
        topic = rng.integers(TOPICS, size=QUERIES)
        noise = rng.normal(size=(QUERIES, DIMENSION)) * spread
        self.queries = (self.documents[topic] + noise).astype(np.float32)
        rows = rng.permutation(QUERIES)[: int(wrong * QUERIES)]
        judged = topic.copy()
        judged[rows] = topic[rng.permutation(rows)]
        self.rows = np.stack([np.arange(QUERIES), judged], axis=1)
        self.wrong = judged != topic

    @property
    def examples(self) -> list[Example]:
        return [Example(f"d{doc}", query_id=f"q{query}") for query, doc in self.rows.tolist()]

    def space(self, texts: dict[str, str] | None = None, **more: object) -> Space:
        return Space(
            {f"q{row}": f"query {row}" for row in range(QUERIES)},
            self.queries,
            self.documents,
            lambda name: int(name[1:]),
            lambda name: (texts or {}).get(name, f"text of {name}"),
            **more,  # type: ignore[arg-type]
        )


def found(labels: Labels) -> Doubtful:
    return doubtful(labels.examples, labels.space(), np.random.default_rng(0))


@pytest.mark.parametrize("wrong", [0.1, 0.3, 0.5])
def test_most_planted_noise_is_found_and_few_right_pairs_are_accused(wrong: float) -> None:
    labels = Labels(wrong)
    accused = {suspect.query_id for suspect in found(labels).suspects}
    is_accused = np.array([f"q{row}" in accused for row in range(QUERIES)])
    assert is_accused[labels.wrong].mean() >= 0.7
    assert is_accused[~labels.wrong].mean() <= 0.1


def test_clean_labels_give_few_suspects() -> None:
    assert len(found(Labels(0.0)).suspects) <= 0.05 * QUERIES


def test_the_share_of_wrong_positives_is_estimated() -> None:
    assert found(Labels(0.3)).noise["share"] == pytest.approx(0.3, abs=0.1)
    assert found(Labels(1.0)).noise["share"] >= 0.8


def test_each_suspect_has_a_probability_and_reasons_the_worst_first() -> None:
    suspects = found(Labels(0.3)).suspects
    scores = [suspect.score for suspect in suspects]
    assert scores == sorted(scores, reverse=True)
    assert all(0.3 <= score <= 1 for score in scores)
    assert all("of random documents fit better" in suspect.reasons[0] for suspect in suspects)


def test_the_same_seed_finds_the_same_suspects() -> None:
    assert found(Labels(0.3)) == found(Labels(0.3))


def test_too_few_pairs_are_not_compared_and_it_is_said() -> None:
    labels = Labels(0.3)
    few = doubtful(labels.examples[:40], labels.space(), np.random.default_rng(0))
    assert few.suspects == ()
    assert "fewer than" in few.noise["not_tried"]


def test_a_single_document_leaves_nothing_to_compare_with() -> None:
    labels = Labels(0.0)
    labels.rows[:, 1] = 0
    one = doubtful(labels.examples, labels.space(), np.random.default_rng(0))
    assert one.suspects == ()
    assert "no random pairs" in one.noise["not_tried"]


def test_comparing_too_few_pairs_is_refused() -> None:
    labels = Labels(0.0)
    pairs = JudgedPairs(labels.queries, labels.documents, labels.rows[:20])
    signals = signals_of(pairs, np.random.default_rng(0))
    with pytest.raises(ValueError, match="too few pairs"):
        doubts(signals, labels.rows[:20, 0])


def test_a_positive_without_a_word_and_boilerplate_are_suspects() -> None:
    labels = Labels(0.0)
    texts = {"d0": "* * *", "d1": "page not found", "d2": "Page not  found", "d3": "page not found"}
    group = frozenset(["d1", "d2", "d3"])
    space = labels.space(texts, copies=dict.fromkeys(group, group))
    suspects = doubtful(labels.examples, space, np.random.default_rng(0)).suspects
    reasons = {suspect.positive: suspect.reasons for suspect in suspects}
    assert "the positive has no word" in reasons["d0"]
    assert "boilerplate: 3 documents have this very text" in reasons["d1"]


def test_a_document_of_many_unlike_queries_is_a_suspect_and_a_large_topic_is_none() -> None:
    labels = Labels(0.0, spread=0.5)
    labels.rows[:60, 1] = TOPICS - 1  # sixty queries of every topic
    documents = np.concatenate([labels.documents[: TOPICS - 1], labels.documents[:1]])
    labels.documents = documents
    own = labels.rows[labels.rows[:, 1] != 0][0, 1]
    labels.rows[200:260, 1] = own
    labels.queries[200:260] = labels.documents[own] + 0.1
    suspects = found(labels).suspects
    hub = [s for s in suspects if any("nothing in common" in reason for reason in s.reasons)]
    assert {suspect.positive for suspect in hub} == {f"d{TOPICS - 1}"}


def test_suspects_are_weighted_down_dropped_or_kept() -> None:
    labels = Labels(0.3)
    suspects = found(labels).suspects
    worst = suspects[0]
    before = labels.examples
    lighter = treated(before, suspects, "downweight")
    weights = {(example.query_id, example.positive): example.weight for example in lighter}
    assert weights[worst.query_id, worst.positive] == pytest.approx(max(LEAST, 1 - worst.score))
    assert sum(example.weight < 1 for example in lighter) == len(suspects)
    assert len(treated(before, suspects, "drop")) == len(before) - len(suspects)
    assert treated(before, suspects, "keep") == before
