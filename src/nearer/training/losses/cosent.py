"""The CoSENT loss: of two scored pairs, the one with the higher score is the more similar one."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import SCORED_PAIRS
from nearer.training.losses.base import BatchVectors, Labels, Loss


class CoSentLoss(Loss):
    """log(1 + Σ w_i · w_j · exp(scale · (s_j - s_i))) over all i, j with score_i above score_j.

    Huang et al. 2024 (CoSENT, doi 10.1109/TASLP.2024.3402087); s are the cosines of the pairs.
    Only the order of the scores counts, never their scale.  The weights w are made to have mean 1.
    """

    takes: ClassVar[str] = SCORED_PAIRS

    def similarities_of_pairs(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        """(n_rows,): how similar the two texts of each row are."""
        return vectors.cosines(labels)

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        similarities = self.settings.scale * self.similarities_of_pairs(vectors, labels)
        log_weight = torch.log(labels["weight"] / labels["weight"].mean())
        # [i, j]: how much more similar pair j is than pair i
        excess = similarities[None, :] - similarities[:, None]
        excess = excess + log_weight[None, :] + log_weight[:, None]
        score = labels["score"]
        ordered = excess[score[:, None] > score[None, :]]
        return torch.logsumexp(torch.cat([ordered, similarities.new_zeros(1)]), dim=0)
