"""The number of epochs follows the number of examples, where nobody sets it."""

from __future__ import annotations

import pytest

from nearer.config import Train
from nearer.training.batches import planned_batches
from nearer.training.examples import TrainingSet
from nearer.training.passes import epochs_of


def pairs(n: int, queries_each: int = 1) -> TrainingSet:
    """As many queries, each document with so many of them."""
    queries = [f"query {i}" for i in range(n)]
    documents = [f"document {i}" for i in range(n // queries_each)]
    rows = [(i, i // queries_each, ()) for i in range(n)]
    positives = tuple(frozenset({i // queries_each}) for i in range(n))
    return TrainingSet(queries, documents, rows, positives)


def test_many_examples_get_three_epochs_and_few_get_more() -> None:
    assert epochs_of(Train(), pairs(10_000)) == 3
    assert epochs_of(Train(), pairs(1_600)) == 3
    assert epochs_of(Train(), pairs(1_000)) == 5
    assert epochs_of(Train(), pairs(600)) == 6
    assert epochs_of(Train(), pairs(1)) == 6


@pytest.mark.parametrize("n", [800, 1_600, 2_200, 6_000])
def test_there_are_a_hundred_and_fifty_steps_where_six_epochs_give_them(n: int) -> None:
    rows = pairs(n)
    settings = Train(epochs=epochs_of(Train(), rows))
    assert sum(1 for _ in planned_batches(rows, settings)) >= 140


def test_what_is_set_stands() -> None:
    assert epochs_of(Train(epochs=1), pairs(40)) == 1
    assert epochs_of(Train(epochs=0.5), pairs(10_000)) == 0.5


def test_documents_count_as_the_queries_of_one_share_a_batch() -> None:
    assert epochs_of(Train(), pairs(1_600, queries_each=8)) == 6


def test_smaller_batches_make_more_steps() -> None:
    assert epochs_of(Train(batch_size=16), pairs(600)) == 4
