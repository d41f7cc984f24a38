"""Imitation of the vectors of a larger model, the teacher."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import TEACHER_VECTORS
from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean


class MseLoss(Loss):
    """The mean squared difference of a row's two vectors from the teacher's.

    Reimers and Gurevych 2020 (arXiv 2004.09813, section 2).
    """

    takes: ClassVar[str] = TEACHER_VECTORS

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        queries, documents = vectors.pairs(labels)
        query_targets = labels["query_teacher"][labels["query"]]
        document_targets = labels["document_teacher"][labels["target"]]
        losses = _squares(queries, query_targets) + _squares(documents, document_targets)
        return weighted_mean(losses / 2, labels)


def _squares(vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(n,): mean squared difference over the dimensions.

    Where only the first dimensions are trained (Matryoshka), the target is cut likewise.
    """
    cut = torch.nn.functional.normalize(targets[:, : vectors.shape[1]].float(), dim=-1)
    return ((vectors - cut) ** 2).mean(dim=1)
