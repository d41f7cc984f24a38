"""The MarginMSE loss: a reranker's margins between positive and negatives, imitated."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import TEACHER_SCORES
from nearer.training.losses.base import BatchVectors, Labels, Loss


class MarginMseLoss(Loss):
    """((s+ - s-) - (t+ - t-))² over the row's own negatives; s is scale · cosine, t the teacher's.

    Hofstätter et al. 2021 (arXiv 2010.02666, section 4.1).  The scale lets a cosine reach the
    margins of a reranker's logits.
    """

    takes: ClassVar[str] = TEACHER_SCORES

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        student = self.settings.scale * vectors.similarities(labels)
        teacher = labels["teacher_score"]
        target = labels["target"][:, None]
        margins = student.gather(1, target) - student
        wanted = teacher.gather(1, target) - teacher
        known = labels["negatives"] & ~wanted.isnan()
        weight = known * labels["weight"][:, None]
        squares = (margins - wanted.nan_to_num(0.0)) ** 2
        return (squares * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
