"""The ranking loss: the positive against every other document of the batch."""

from __future__ import annotations

import torch

from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean


class RankingLoss(Loss):
    """MultipleNegativesRankingLoss over the distinct texts of a batch, with a mask.

    For row (q, d+): cross-entropy of softmax(scale · cos(q, ·)) over d+ and every document of the
    batch that is not blocked for q (Henderson et al. 2017, arXiv 1705.00652, section 4).  Without
    blocked documents, and with each text once, it is sentence-transformers' loss.  `scale` is
    `train.scale`.

    With `train.symmetric` it is the mean of this and of the same from d+ to the queries of the
    batch: those that d+ is blocked for, or answers as well, are left out.
    """

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        similarities = self.settings.scale * vectors.similarities(labels)
        allowed = similarities.masked_fill(labels["blocked"], -torch.inf)
        losses = _cross_entropies(allowed, labels["target"])
        if self.settings.symmetric:
            losses = (losses + self._backwards(vectors, labels)) / 2
        return weighted_mean(losses, labels)

    def _backwards(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        """(n_rows,): the cross-entropy of each row's query among the queries, for its document."""
        similarities = vectors.documents[labels["target"]] @ vectors.queries.T
        scores = self.settings.scale * similarities
        blocked = blocked_queries(labels, len(vectors.queries))
        return _cross_entropies(scores.masked_fill(blocked, -torch.inf), labels["query"])


def blocked_queries(labels: Labels, n_queries: int) -> torch.Tensor:
    """(n_rows, n_queries) bool: queries that are never a negative of the row's document.

    The mask of the documents, read the other way: a query for which the document is blocked, or is
    the positive of another row.  The row's own query is not among them.
    """
    query, target = labels["query"], labels["target"]
    # (n_rows, n_rows): [row, other] says whether the row's document must not meet the other's query
    by_row = labels["blocked"][:, target].T | (target[:, None] == target[None, :])
    counts = torch.zeros(len(query), n_queries, device=query.device)
    counts.index_add_(1, query, by_row.float())
    blocked = counts > 0
    return blocked.scatter(1, query[:, None], False)


def _cross_entropies(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(scores, target, reduction="none")
