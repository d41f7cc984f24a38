"""Which of several models dev chooses, and the table of all of them (`train/candidates.json`).

What was trained because the settings ask for it competes by its mean on dev: the best is taken, and
of equal ones the first.  References are cheap and always run; one of them is taken only where its gain
over the best trained model is more than chance (interval and p agree, at 5% shared among the
references that could be taken).  Otherwise the trained model stays: dev was looked at for every
reference, and the luckiest of several looks is no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.measure.significance import Comparison, compare

ALPHA = 0.05
_SAME = 1e-9  # means that differ by less are equal

#: What must be embedded again before a candidate can be served.
ALL, MOVED, NONE = "all documents", "moved documents", "none"


@dataclass(frozen=True)
class Entry:
    """One candidate: how long it took, and its dev scores per query, float64 (n_queries,).

    `scores` is None where there is no dev.  `model` is whether it can be saved as a model;
    `more` are figures of its own.
    """

    name: str
    seconds: float
    reindex: str
    size_bytes: int
    scores: np.ndarray | None = None
    reference: bool = False
    model: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean on dev; minus infinity where it was not judged."""
        if self.scores is None or not len(self.scores):
            return -np.inf
        return float(self.scores.mean())


@dataclass(frozen=True, slots=True)
class Chosen:
    """The candidate that is taken, and why in one sentence."""

    entry: Entry
    reason: str


def best_of(entries: Sequence[Entry]) -> Entry:
    """The highest mean on dev; the first of equal ones."""
    best = entries[0]
    for entry in entries[1:]:
        if entry.mean > best.mean + _SAME:
            best = entry
    return best


def choose(trained: Sequence[Entry], references: Sequence[Entry], seed: int) -> Chosen:
    """The candidate that becomes `train/model/`; `trained` holds at least one."""
    best = best_of(trained)
    usable = [entry for entry in references if entry.model and entry.scores is not None]
    better: list[tuple[Entry, Comparison]] = []
    for entry in usable:
        result = _compared(best.scores, entry.scores, seed, ALPHA / len(usable))
        if result is not None and result.outcome == "better":
            better.append((entry, result))
    if better:
        entry, result = max(better, key=lambda pair: pair[0].mean)
        reason = (
            f"{entry.name} is better than {best.name} on dev by more than chance "
            f"({result.delta:+.3f}, p = {result.p:.4f})"
        )
        return Chosen(entry, reason)
    reason = "the only trained candidate"
    if len(trained) > 1:
        reason = "the best trained candidate on dev"
    if usable:
        reason += "; no reference is better by more than chance"
    return Chosen(best, reason)


def _compared(
    before: np.ndarray | None, after: np.ndarray | None, seed: int, alpha: float = ALPHA
) -> Comparison | None:
    if before is None or after is None or not len(before):
        return None
    return compare(before, after, np.random.default_rng(seed), alpha=alpha)


@dataclass(frozen=True)
class Table:
    """All candidates beside the base model; `base` and `seen` are (n_queries,)."""

    measure: str
    base: np.ndarray | None
    seen: np.ndarray
    entries: Sequence[Entry]
    chosen: Chosen
    not_tried: Sequence[Mapping[str, str]] = ()
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """`train/candidates.json`."""
        return {
            "measure": self.measure,
            "queries": {
                "all": len(self.seen),
                "seen": int(self.seen.sum()),
                "unseen": int((~self.seen).sum()),
            },
            "chosen": self.chosen.entry.name,
            "reason": self.chosen.reason,
            "alpha": ALPHA,
            "candidates": [self._row(entry) for entry in self.entries],
            "not_tried": [dict(line) for line in self.not_tried],
        }

    def _row(self, entry: Entry) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": entry.name,
            "reference": entry.reference,
            "chosen": entry is self.chosen.entry,
            "model": entry.model,
            "seconds": round(entry.seconds, 2),
            "reindex": entry.reindex,
            "size_bytes": entry.size_bytes,
            "dev": self._change(entry, np.ones(len(self.seen), bool)),
            "seen": self._change(entry, self.seen),
            "unseen": self._change(entry, ~self.seen),
        }
        return row | dict(entry.more)

    def _change(self, entry: Entry, among: np.ndarray) -> dict[str, Any] | None:
        """Before and after on some of the queries; None where there are none."""
        if self.base is None or entry.scores is None or not among.any():
            return None
        before, after = self.base[among], entry.scores[among]
        result = _compared(before, after, self.seed)
        change: dict[str, Any] = {
            "n": int(among.sum()),
            "before": float(before.mean()),
            "after": float(after.mean()),
            "gain": float(after.mean() - before.mean()),
        }
        if result is not None:
            change |= {"ci": [result.low, result.high], "p": result.p, "outcome": result.outcome}
        return change
