"""The losses for labels: every document of the query's label is pulled, and none pushed away."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nearer.config import Train
from nearer.errors import ConfigError
from nearer.training.losses import choose_loss
from nearer.training.losses.base import BatchVectors


def batch(blocked: list[list[bool]]) -> tuple[BatchVectors, Any]:
    """Two queries, two targets, and a third document; `blocked` says what is of a query's label besides."""
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], requires_grad=True)
    labels = {
        "query": torch.tensor([0, 1]),
        "target": torch.tensor([0, 1]),
        "blocked": torch.tensor(blocked),
        "weight": torch.tensor([1.0, 1.0]),
    }
    return BatchVectors(queries, documents), labels


NONE = [[False, False, False], [False, False, False]]
SHARED = [[False, False, True], [False, False, False]]  # the third is of the first query's label


def test_supcon_is_the_mean_of_the_log_probabilities_of_all_positives() -> None:
    vectors, labels = batch(SHARED)
    loss = choose_loss("supcon").classes[0](None, Train(scale=1.0))
    first = [1.0, 0.0, 0.6]
    total = math.log(sum(map(math.exp, first)))
    of_first = -((1.0 - total) + (0.6 - total)) / 2
    second = [0.0, 1.0, 0.8]
    of_second = -(1.0 - math.log(sum(map(math.exp, second))))
    value = loss.of_vectors(vectors, labels)
    assert float(value) == pytest.approx((of_first + of_second) / 2, abs=1e-6)


def test_supcon_pulls_a_document_of_the_label_that_ranking_leaves_alone() -> None:
    pulls = {}
    for name in ("supcon", "ranking"):
        vectors, labels = batch(SHARED)
        labels["weight"] = torch.tensor([1.0, 1e-9])  # the first row alone
        choose_loss(name).classes[0](None, Train(scale=1.0)).of_vectors(vectors, labels).backward()
        pulls[name] = -float(vectors.documents.grad[2, 0])  # along the first query
    assert pulls["supcon"] > 0
    assert pulls["ranking"] == pytest.approx(0.0, abs=1e-6)


def test_batch_hard_sets_the_farthest_positive_against_the_nearest_negative() -> None:
    loss = choose_loss("batch_hard").classes[0](None, Train(margin=0.5))
    vectors, labels = batch(SHARED)
    # first: positives 1 and .6, negative 0; second: positive 1, negatives 0 and .8
    expected = (max(0.0, 0.0 - 0.6 + 0.5) + max(0.0, 0.8 - 1.0 + 0.5)) / 2
    assert float(loss.of_vectors(vectors, labels)) == pytest.approx(expected, abs=1e-6)


def test_batch_hard_says_nothing_without_a_negative() -> None:
    loss = choose_loss("batch_hard").classes[0](None, Train(margin=2.0))
    everything = [[False, True, True], [True, False, True]]
    vectors, labels = batch(everything)
    value = loss.of_vectors(vectors, labels)
    value.backward()
    assert float(value) == 0.0
    assert not bool(vectors.documents.grad.any())


@pytest.mark.parametrize("name", ["supcon", "batch_hard"])
def test_what_a_guide_blocks_is_no_positive_so_it_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a guide blocks others"):
        choose_loss(name).classes[0](None, Train(guide_margin=0.1))
