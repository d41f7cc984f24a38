"""Each loss against sentence-transformers' own, on the same random vectors; weights and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer import losses as reference
from sentence_transformers.util import pairwise_cos_sim

from nearer import plugins
from nearer.config import Train
from nearer.training.losses import choose_loss
from nearer.training.losses.base import BatchVectors, Labels
from nearer.training.losses.ranking import blocked_queries

SCALE = 10.0
DIMENSION = 12
SEEDS = range(3)


class Batch:
    """Random texts of a batch: `n` rows, each with a query, a positive and `negatives` negatives."""

    def __init__(self, seed: int, n: int = 7, negatives: int = 2) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.n, self.n_negatives = n, negatives
        self.queries = torch.randn(n, DIMENSION, generator=generator).requires_grad_()
        self.documents = torch.randn(
            n * (1 + negatives), DIMENSION, generator=generator
        ).requires_grad_()
        # Halves, so that some pairs have equal scores.
        self.scores = torch.randint(0, 5, (n,), generator=generator) / 2
        self.teacher_scores = 4 * torch.randn(n, 1 + negatives, generator=generator)
        self.taught = torch.nn.functional.normalize(
            torch.randn(2, n * (1 + negatives), DIMENSION, generator=generator), dim=-1
        )

    @property
    def columns(self) -> list[torch.Tensor]:
        """Queries, positives and negatives as sentence-transformers takes them: one per row."""
        return [self.queries, *self.documents.split(self.n)]

    @property
    def vectors(self) -> BatchVectors:
        return BatchVectors(
            torch.nn.functional.normalize(self.queries, dim=-1),
            torch.nn.functional.normalize(self.documents, dim=-1),
        )

    @property
    def labels(self) -> Labels:
        n, n_documents = self.n, len(self.documents)
        negatives = torch.zeros(n, n_documents, dtype=torch.bool)
        teacher_score = torch.full((n, n_documents), math.nan)
        grade = torch.full((n, n_documents), math.nan)
        for row in range(n):
            own = [row + n * column for column in range(1 + self.n_negatives)]
            negatives[row, own[1:]] = True
            teacher_score[row, own] = self.teacher_scores[row]
            grade[row, row] = 3.0
            if self.n_negatives:
                grade[row, own[1]] = 1.0
        labels: Any = {
            "query": torch.arange(n),
            "target": torch.arange(n),
            "negatives": negatives,
            "blocked": torch.zeros(n, n_documents, dtype=torch.bool),
            "score": self.scores,
            "weight": torch.ones(n),
            "grade": grade,
            "teacher_score": teacher_score,
            "query_teacher": self.taught[0][:n],
            "document_teacher": self.taught[1],
        }
        return labels

    def gradients(self, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(value, (self.queries, self.documents), allow_unused=True)


def loss_of(name: str, **settings: Any) -> Any:
    (loss,) = choose_loss(name).classes
    return loss(None, Train(scale=SCALE, **settings))


def assert_same(batch: Batch, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal values and equal gradients of all texts."""
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for left, right in zip(batch.gradients(ours), batch.gradients(theirs), strict=True):
        assert torch.allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("negatives", [0, 1, 2])
def test_ranking_is_multiple_negatives_ranking(seed: int, negatives: int) -> None:
    batch = Batch(seed, negatives=negatives)
    other = reference.MultipleNegativesRankingLoss(None, scale=SCALE)
    assert_same(
        batch,
        loss_of("ranking").of_vectors(batch.vectors, batch.labels),
        other.compute_loss_from_embeddings(batch.columns, None),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("negatives", [0, 1])
def test_symmetric_ranking_is_the_reference_in_both_directions(seed: int, negatives: int) -> None:
    batch = Batch(seed, negatives=negatives)
    other = reference.MultipleNegativesRankingLoss(
        None,
        scale=SCALE,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    assert_same(
        batch,
        loss_of("ranking", symmetric=True).of_vectors(batch.vectors, batch.labels),
        other.compute_loss_from_embeddings(batch.columns, None),
    )


def test_the_mask_is_where_ranking_differs_from_the_reference_on_purpose() -> None:
    """A query that comes twice meets its other positive as a negative there, never here."""
    batch = Batch(0, n=4, negatives=0)
    labels = batch.labels
    labels["query"] = torch.tensor([0, 0, 1, 2])  # rows 0 and 1 are two positives of one query
    labels["blocked"][0, 1] = labels["blocked"][1, 0] = True
    queries, documents = batch.vectors
    vectors = BatchVectors(queries[1:], documents)
    ours = loss_of("ranking").of_vectors(vectors, labels)
    rows = SCALE * vectors.similarities(labels)
    by_hand = []
    for row, allowed in enumerate(([0, 2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3])):
        by_hand.append(torch.logsumexp(rows[row, allowed], dim=0) - rows[row, row])
    assert ours.item() == pytest.approx(torch.stack(by_hand).mean().item(), abs=1e-6)
    repeated = [queries[1:][labels["query"]], documents]
    other = reference.MultipleNegativesRankingLoss(None, scale=SCALE)
    assert ours < other.compute_loss_from_embeddings(repeated, None)


def test_backwards_no_document_meets_a_query_that_it_answers() -> None:
    labels = Batch(0, n=4, negatives=0).labels
    labels["query"] = torch.tensor([0, 0, 1, 2])
    labels["target"] = torch.tensor([0, 1, 2, 2])  # queries 1 and 2 share their positive
    labels["blocked"][3, 0] = True  # query 2: document 0 is a near-duplicate of a positive
    assert blocked_queries(labels, 3).tolist() == [
        [False, False, True],
        [False, False, False],
        [False, False, True],
        [False, True, False],
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_triplet_is_the_reference(seed: int) -> None:
    batch = Batch(seed, negatives=1)
    other = reference.TripletLoss(
        None, distance_metric=reference.TripletDistanceMetric.COSINE, triplet_margin=0.3
    )
    assert_same(
        batch,
        loss_of("triplet", margin=0.3).of_vectors(batch.vectors, batch.labels),
        other.compute_loss_from_embeddings(batch.columns, None),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cosent", reference.CoSENTLoss(None, scale=SCALE)),
        ("angle", reference.AnglELoss(None, scale=SCALE)),
        ("cosine", reference.CosineSimilarityLoss(None)),
    ],
)
def test_losses_of_scored_pairs_are_the_references(seed: int, name: str, other: Any) -> None:
    batch = Batch(seed, negatives=0)
    assert_same(
        batch,
        loss_of(name).of_vectors(batch.vectors, batch.labels),
        other.compute_loss_from_embeddings(batch.columns, batch.scores),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("negatives", [1, 3])
def test_losses_of_teacher_scores_are_the_references(seed: int, negatives: int) -> None:
    batch = Batch(seed, negatives=negatives)

    def scaled(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return SCALE * pairwise_cos_sim(left, right)

    margin = reference.MarginMSELoss(None, similarity_fct=scaled)
    assert_same(
        batch,
        loss_of("margin_mse").of_vectors(batch.vectors, batch.labels),
        margin.compute_loss_from_embeddings(batch.columns, batch.teacher_scores),
    )
    # The reference multiplies by the square of the student's temperature, 1 / scale.
    kl = reference.DistillKLDivLoss(
        None, pairwise_cos_sim, student_temperature=1 / SCALE, teacher_temperature=1.0
    )
    assert_same(
        batch,
        loss_of("distill_kl").of_vectors(batch.vectors, batch.labels),
        SCALE**2 * kl.compute_loss_from_embeddings(batch.columns, batch.teacher_scores),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_listwise_is_a_divergence_from_the_shares_of_the_grades(seed: int) -> None:
    batch = Batch(seed, n=1, negatives=3)
    labels = batch.labels
    grades = torch.tensor([3.0, 1.0, 2.0, 0.0])
    labels["grade"] = grades[None, :]
    shares = grades / grades.sum()
    # A divergence with the logarithms of the grades as a teacher's scores, and the shares' entropy.
    kl = reference.DistillKLDivLoss(
        None, pairwise_cos_sim, student_temperature=1 / SCALE, teacher_temperature=1.0
    )
    teacher = torch.log(grades.clamp(min=1e-30))[None, :]
    entropy = -(shares[:3] * shares[:3].log()).sum()
    assert_same(
        batch,
        loss_of("listwise").of_vectors(batch.vectors, labels),
        SCALE**2 * kl.compute_loss_from_embeddings(batch.columns, teacher) + entropy,
    )


def test_listwise_with_one_positive_per_query_is_ranking() -> None:
    batch = Batch(1)
    labels = batch.labels
    labels["grade"] = torch.full_like(labels["grade"], math.nan)
    labels["grade"][torch.arange(batch.n), labels["target"]] = 2.0
    labels["blocked"][0, 3] = True
    assert_same(
        batch,
        loss_of("listwise").of_vectors(batch.vectors, labels),
        loss_of("ranking").of_vectors(batch.vectors, labels),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_mse_is_the_reference_and_a_term_beside_another_loss(seed: int) -> None:
    batch = Batch(seed, negatives=0)
    labels, vectors = batch.labels, batch.vectors
    other = reference.MSELoss(None)
    assert_same(
        batch,
        loss_of("mse").of_vectors(vectors, labels),
        other.compute_loss_from_embeddings(list(batch.vectors), list(batch.taught[:, : batch.n])),
    )


def test_weights_of_one_give_the_very_gradients_of_a_plain_mean() -> None:
    batch = Batch(3)
    labels = batch.labels
    ours = batch.gradients(loss_of("ranking").of_vectors(batch.vectors, labels))
    scores = SCALE * batch.vectors.similarities(labels)
    plain = batch.gradients(torch.nn.functional.cross_entropy(scores, labels["target"]))
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1], plain[1])


@pytest.mark.parametrize("name", plugins.names("loss"))
@pytest.mark.parametrize("symmetric", [False, True])
def test_only_the_proportions_of_weights_count(name: str, symmetric: bool) -> None:
    batch = Batch(4)
    labels = batch.labels
    weights = torch.tensor(np.random.default_rng(0).uniform(0.1, 1, batch.n), dtype=torch.float32)
    values = []
    for factor in (1.0, 0.5):
        labels["weight"] = factor * weights
        values.append(loss_of(name, symmetric=symmetric).of_vectors(batch.vectors, labels).item())
    labels["weight"] = torch.ones(batch.n)
    unweighted = loss_of(name, symmetric=symmetric).of_vectors(batch.vectors, labels).item()
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0] != pytest.approx(unweighted, rel=1e-3)


@pytest.mark.parametrize("name", sorted(set(plugins.names("loss")) - {"cosent", "angle"}))
def test_a_weighted_loss_is_the_weighted_mean_of_its_rows(name: str) -> None:
    batch = Batch(5)
    labels, loss = batch.labels, loss_of(name)
    alone = []
    for row in range(batch.n):
        labels["weight"] = torch.full((batch.n,), 1e-20)
        labels["weight"][row] = 1.0
        alone.append(loss.of_vectors(batch.vectors, labels).item())
    weights = np.linspace(0.1, 1.0, batch.n)
    labels["weight"] = torch.tensor(weights, dtype=torch.float32)
    value = loss.of_vectors(batch.vectors, labels).item()
    assert value == pytest.approx(np.average(alone, weights=weights), rel=1e-4)


@pytest.mark.parametrize("name", ["cosent", "angle"])
def test_a_pair_of_pairs_counts_by_both_weights(name: str) -> None:
    batch = Batch(6, negatives=0)
    labels, loss = batch.labels, loss_of(name)
    weights = torch.linspace(0.5, 1.5, batch.n)
    labels["weight"] = weights
    similar = loss.similarities_of_pairs(batch.vectors, labels).detach()
    total = 1.0
    for i in range(batch.n):
        for j in range(batch.n):
            if batch.scores[i] > batch.scores[j]:
                excess = SCALE * (similar[j] - similar[i])
                total += float(weights[i] * weights[j] * torch.exp(excess))
    assert loss.of_vectors(batch.vectors, labels).item() == pytest.approx(math.log(total), rel=1e-5)


@pytest.mark.parametrize("name", plugins.names("loss"))
def test_a_batch_without_anything_to_compare_has_a_finite_loss_and_gradient(name: str) -> None:
    """One row, its negatives blocked, all scores equal: 0 or a finite number, and no NaN."""
    batch = Batch(7, n=1)
    labels = batch.labels
    labels["blocked"] = ~labels["grade"].isnan() | labels["negatives"]
    labels["blocked"][0, 0] = False
    labels["negatives"] = torch.zeros_like(labels["negatives"])
    value = loss_of(name, symmetric=True).of_vectors(batch.vectors, labels)
    assert bool(torch.isfinite(value))
    value.backward()
    for texts in (batch.queries, batch.documents):
        if texts.grad is not None:
            assert bool(torch.isfinite(texts.grad).all())


def _documents_moved(batch: Batch, value: torch.Tensor) -> Sequence[bool]:
    _, gradient = batch.gradients(value)
    return [bool(row.abs().max() > 0) for row in gradient]


def test_a_document_blocked_for_every_query_is_left_alone() -> None:
    batch = Batch(8, n=3, negatives=1)
    labels = batch.labels
    labels["blocked"][:, 4] = True
    labels["negatives"][:, 4] = False
    labels["grade"][:, 4] = math.nan
    for name in ("ranking", "listwise", "triplet"):
        value = loss_of(name, margin=2.0).of_vectors(batch.vectors, labels)
        moved = _documents_moved(batch, value)
        assert moved[3], name
        assert not moved[4], name
