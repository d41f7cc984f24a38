"""The listwise loss: all judged documents of a query at once, each by its grade."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import GRADED
from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean


class ListwiseLoss(Loss):
    """Cross-entropy of the grades' shares and softmax(scale · cos(q, ·)) over the batch.

    Cao et al. 2007 (ListNet, section 4.2), the share of a document being its grade over the sum of
    the query's grades, linear as in nDCG.  Documents that nobody judged have the share 0; blocked
    ones without a grade (near-duplicates of positives) are left out.  With one positive per query
    it is the ranking loss.
    """

    takes: ClassVar[str] = GRADED

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        grade = labels["grade"]
        left_out = labels["blocked"] & grade.isnan()
        scores = self.settings.scale * vectors.similarities(labels)
        log_shares = torch.log_softmax(scores.masked_fill(left_out, -torch.inf), dim=1)
        gains = grade.nan_to_num(0.0)
        wanted = gains / gains.sum(dim=1, keepdim=True)
        # Where nothing is wanted, -inf times 0 would be NaN.
        terms = torch.where(wanted > 0, wanted * log_shares, 0.0)
        return weighted_mean(-terms.sum(dim=1), labels)
