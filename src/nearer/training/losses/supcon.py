"""The supervised contrastive loss: every document of the query's label against all of other labels."""

from __future__ import annotations

from typing import Any

import torch

from nearer.config import Train
from nearer.errors import ConfigError
from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean


class SupConLoss(Loss):
    """The mean over a row's positives p of -log softmax(scale · cos(q, ·))[p].

    Khosla et al. 2020 (arXiv 2004.11362, equation 2, L_out), over queries and documents.  A row's
    positives are its target and every other document of the batch that its judgments hold relevant,
    as far as a mask can tell: what is blocked for the query.  Meant for judgments that are complete,
    such as labels; the documents that a guide blocks are no positives, so it is refused beside one.
    `scale` is `train.scale`.
    """

    def __init__(self, model: Any, settings: Train | None = None) -> None:
        super().__init__(model, settings)
        refuse_guide(self.settings, "supcon")

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        scores = self.settings.scale * vectors.similarities(labels)
        positives = positives_of(labels)
        logs = torch.nn.functional.log_softmax(scores, dim=1)
        means = (logs * positives).sum(dim=1) / positives.sum(dim=1)
        return weighted_mean(-means, labels)


def positives_of(labels: Labels) -> torch.Tensor:
    """(n_rows, n_documents) bool: the row's target, and what its judgments hold relevant besides."""
    return labels["blocked"].scatter(1, labels["target"][:, None], True)


def refuse_guide(settings: Train, name: str) -> None:
    """Raises ConfigError where `train.guide_margin` blocks documents that are no positives."""
    if settings.guide_margin is not None:
        raise ConfigError(
            f"{name} takes documents that are blocked for positives, and a guide blocks others",
            where="train.guide_margin",
            next_step="set it to null, or use another train.loss",
        )
