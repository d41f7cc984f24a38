"""The batch size and the epochs follow the number of examples, where nobody sets them."""

from __future__ import annotations

import pytest

from nearer.config import Train
from nearer.training.batches import planned_batches
from nearer.training.examples import TrainingSet
from nearer.training.sizing import sizes_of


def pairs(n: int) -> TrainingSet:
    """As many queries, each with a document of its own."""
    queries = [f"query {i}" for i in range(n)]
    documents = [f"document {i}" for i in range(n)]
    rows = [(i, i, ()) for i in range(n)]
    return TrainingSet(queries, documents, rows, tuple(frozenset({i}) for i in range(n)))


def steps(settings: Train, rows: TrainingSet) -> int:
    sized = settings.model_copy(update=sizes_of(settings, rows))
    return sum(1 for _ in planned_batches(rows, sized))


def test_many_examples_get_the_usual_sizes() -> None:
    assert sizes_of(Train(), pairs(10_000)) == {"batch_size": 32, "epochs": 3}


def test_fewer_examples_get_smaller_batches_and_then_more_epochs() -> None:
    assert sizes_of(Train(), pairs(1_600)) == {"batch_size": 16, "epochs": 3}
    assert sizes_of(Train(), pairs(640)) == {"batch_size": 16, "epochs": 5}
    assert sizes_of(Train(), pairs(40)) == {"batch_size": 16, "epochs": 8}
    assert sizes_of(Train(), pairs(1)) == {"batch_size": 16, "epochs": 8}


@pytest.mark.parametrize("n", [400, 800, 1_600, 2_200, 6_000])
def test_there_are_two_hundred_steps_where_eight_epochs_give_them(n: int) -> None:
    assert steps(Train(), pairs(n)) >= 190


def test_what_is_set_stands() -> None:
    assert sizes_of(Train(epochs=1, batch_size=64), pairs(40)) == {}
    assert sizes_of(Train(epochs=1), pairs(40)) == {"batch_size": 16}
    assert sizes_of(Train(batch_size=8), pairs(40)) == {"epochs": 8}


def test_queries_of_one_document_share_a_batch() -> None:
    """Eight queries to a document make an eighth of the steps: the documents count."""
    queries = [f"query {i}" for i in range(1_600)]
    documents = [f"document {i}" for i in range(200)]
    rows = [(i, i // 8, ()) for i in range(1_600)]
    positives = tuple(frozenset({i // 8}) for i in range(1_600))
    few = TrainingSet(queries, documents, rows, positives)
    assert sizes_of(Train(), few) == {"batch_size": 16, "epochs": 8}
