"""Listwise distillation: a reranker's distribution over positive and negatives, imitated."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import TEACHER_SCORES
from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean


class DistillKlLoss(Loss):
    """KL(softmax(t) ‖ softmax(scale · cosine)) over the row's positive and its own negatives.

    Lin et al. 2020 (arXiv 2010.11386, section 3.1).  t are the teacher's scores as they stand, so
    that only their differences count, not where they lie.  sentence-transformers multiplies the same by
    the square of the temperature, which is 1 / scale here; Adam's steps do not depend on it.
    """

    takes: ClassVar[str] = TEACHER_SCORES

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        teacher = labels["teacher_score"]
        unknown = teacher.isnan()
        student = self.settings.scale * vectors.similarities(labels)
        log_student = torch.log_softmax(student.masked_fill(unknown, -torch.inf), dim=1)
        log_teacher = torch.log_softmax(teacher.masked_fill(unknown, -torch.inf), dim=1)
        # Both are -inf where the teacher gave no score; their difference there is no number.
        difference = torch.where(unknown, 0.0, log_teacher - log_student)
        divergences = (log_teacher.exp() * difference).sum(dim=1)
        return weighted_mean(divergences, labels)
