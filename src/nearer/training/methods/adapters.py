"""Learns a linear adapter of query vectors (`nearer.embed.adapter`) in seconds, over vectors that are fixed.

Documents' vectors stay what they are, so that nothing has to be embedded again.  It begins as the
identity.  A low-rank change and a residual network of one hidden layer were measured too; at the
same harm to unseen documents they gained less (docs/candidates.md), and are gone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nearer.embed.adapter import QueryAdapter
from nearer.training.methods.vectors import HeldOut, VectorTask, mean_reciprocal_rank

_EPOCHS = 40
_PATIENCE = 6  # epochs without gain on the kept-out queries
_BATCH = 128  # pairs, at most
_FEWEST_STEPS = 12  # per epoch, with smaller batches where there are few pairs
_SMALLEST_BATCH = 8
_MOST_DOCUMENTS = 8192  # scored per batch: its positives, and others drawn at random
_LEARNING_RATE = 5e-4
_DECAY = 0.01
#: Shares of the way from the identity to what was learned, tried after every epoch.
_STRENGTHS = (0.25, 0.5, 0.75, 1.0)
#: What queries of unseen documents may lose in mean reciprocal rank.
_HARM = 0.01


@dataclass(frozen=True, slots=True)
class KeptOut:
    """Mean reciprocal rank of the training queries that were kept from a fit.

    `seen`: their documents have other training queries; `unseen`: they have none (every document
    counts the same).
    """

    seen: float
    unseen: float


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter with how it was found; without kept-out queries it is the identity."""

    adapter: QueryAdapter
    epochs: int
    strength: float
    before: KeptOut | None
    after: KeptOut | None
    seconds: float


def fit_adapter(task: VectorTask, scale: float, seed: int) -> FittedAdapter:
    """Learn an adapter with the ranking loss over all documents, stopped early.

    A first fit leaves out some training queries, part of them with their documents.  They choose the
    epoch and the strength: the best for documents that were seen, among those that lose at most
    0.01 for documents that were not.  The adapter is then fitted to all training queries for as many
    epochs.  With too few queries, or where nothing helps, it stays the identity.
    """
    started = time.monotonic()
    held_out = task.held_out(np.random.default_rng(seed))
    chosen = _Chosen()
    # The steps are tiny: threads that wait for each other cost more than they share, and on a busy
    # machine minutes instead of seconds.
    with threadpool_limits(1):
        if held_out is not None:
            chosen = _choose(task, held_out, scale, seed)
        fit = _Fit(task, scale, seed)
        for _ in range(chosen.epochs):
            fit.epoch(task.pairs)
    adapter = fit.adapter().at(chosen.strength)
    seconds = time.monotonic() - started
    return FittedAdapter(
        adapter, chosen.epochs, chosen.strength, chosen.before, chosen.after, seconds
    )


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The best epoch and strength; 0 epochs are the identity."""

    epochs: int = 0
    strength: float = 1.0
    before: KeptOut | None = None
    after: KeptOut | None = None


def _choose(task: VectorTask, held_out: HeldOut, scale: float, seed: int) -> _Chosen:
    """Fit without the kept-out queries until they have not gained for some epochs."""
    fit = _Fit(task, scale, seed)
    before = _kept_out(task, held_out, fit.adapter())
    best = _Chosen(before=before, after=before)
    for epoch in range(1, _EPOCHS + 1):
        fit.epoch(held_out.fitting)
        adapter = fit.adapter()
        for strength in _STRENGTHS:
            after = _kept_out(task, held_out, adapter.at(strength))
            assert best.after is not None  # noqa: S101 - it begins with `before`
            harmless = not after.unseen < before.unseen - _HARM  # NaN: there are none
            if harmless and after.seen > best.after.seen:
                best = _Chosen(epoch, strength, before, after)
        if epoch - best.epochs >= _PATIENCE:
            break
    return best


def _kept_out(task: VectorTask, held_out: HeldOut, adapter: QueryAdapter) -> KeptOut:
    queries = adapter(task.queries)
    return KeptOut(
        mean_reciprocal_rank(task, held_out.seen, queries, task.documents),
        mean_reciprocal_rank(task, held_out.unseen, queries, task.documents, per_document=True),
    )


class _Fit:
    """An adapter while it is learned."""

    def __init__(self, task: VectorTask, scale: float, seed: int) -> None:
        import torch

        self._task = task
        self._rng = np.random.default_rng(seed)
        self._change: Any = torch.nn.Linear(task.dimension, task.dimension)
        torch.nn.init.zeros_(self._change.weight)
        torch.nn.init.zeros_(self._change.bias)
        self._queries = torch.from_numpy(task.queries)
        self._documents = torch.from_numpy(task.documents)
        norms = np.linalg.norm(task.documents, axis=1)
        # Dot products are brought to the range of cosines, for which `scale` is meant.
        self._scale = scale if task.cosine else scale / max(1e-12, float(np.mean(norms)))
        self._optimizer = torch.optim.AdamW(
            self._change.parameters(), _LEARNING_RATE, weight_decay=_DECAY
        )

    def epoch(self, pairs: np.ndarray) -> None:
        """One pass over the pairs, in an order of its own."""
        order = self._rng.permutation(len(pairs))
        size = int(np.clip(len(order) // _FEWEST_STEPS, _SMALLEST_BATCH, _BATCH))
        for start in range(0, len(order), size):
            self._step(pairs[order[start : start + size]])

    def _step(self, pairs: np.ndarray) -> None:
        import torch

        columns = self._columns(pairs)
        blocked = self._task.blocked_mask(pairs[:, 0])[:, columns]
        targets = np.searchsorted(columns, pairs[:, 1])
        blocked[np.arange(len(pairs)), targets] = False
        queries = self._queries[pairs[:, 0]]
        adapted = torch.nn.functional.normalize(queries + self._change(queries), dim=-1)
        scores = self._scale * adapted @ self._documents[columns].T
        scores = scores.masked_fill(torch.from_numpy(blocked), -torch.inf)
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(targets))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        self._optimizer.step()

    def _columns(self, pairs: np.ndarray) -> np.ndarray:
        """Positions of the documents that a batch is ranked over, ascending."""
        count = len(self._task.documents)
        if count <= _MOST_DOCUMENTS:
            return np.arange(count)
        drawn = self._rng.choice(count, _MOST_DOCUMENTS, replace=False)
        return np.unique(np.concatenate([drawn, pairs[:, 1]]))

    def adapter(self) -> QueryAdapter:
        """As it stands."""
        weight = np.array(self._change.weight.detach().numpy(), np.float32)
        bias = np.array(self._change.bias.detach().numpy(), np.float32)
        identity = np.eye(len(weight), dtype=np.float32)
        return QueryAdapter(weight + identity, bias, self._task.cosine)
