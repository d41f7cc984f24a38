"""Two systems side by side on the same judged queries: what changed, for whom, and whether it is real.

`nearer compare` shows it, `nearer gate` asks whether it is a regression.  Pure: sides come in, a
value goes out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.data.clusters import QueryClusters
from nearer.decision.record import ClustersRecord
from nearer.errors import DataError
from nearer.measure.metrics import Scores
from nearer.measure.significance import RESAMPLES, Comparison, compare
from nearer.measure.slices import compare_slices
from nearer.results import Block, Line, Row, Table

Json = dict[str, Any]

_SHOWN_FLIPS = 10  # in the terminal; the JSON has all


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two systems: what it is called, its scores per query, and what it is made of.

    `empty` counts the judged queries that it has no results for.
    """

    name: str
    scores: Scores
    described: Mapping[str, Any] = field(default_factory=dict)
    empty: int = 0

    def on(self, query_ids: Sequence[str]) -> Side:
        """The same for these queries, in this order."""
        row_of = {query_id: row for row, query_id in enumerate(self.scores.query_ids)}
        rows = [row_of[query_id] for query_id in query_ids]
        values = {name: column[rows] for name, column in self.scores.values.items()}
        return Side(self.name, Scores(tuple(query_ids), values), self.described, self.empty)


@dataclass(frozen=True, slots=True)
class Terms:
    """How the two are compared: the deciding measure, the error rate, slices and texts of queries."""

    primary: str
    alpha: float = 0.05
    resamples: int = RESAMPLES
    slices: Mapping[str, Collection[str]] = field(default_factory=dict)
    min_slice: int = 10
    texts: Mapping[str, str] = field(default_factory=dict)
    clusters: QueryClusters = field(default_factory=QueryClusters)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure under both."""

    measure: str
    before: float
    after: float
    change: Comparison

    def as_dict(self) -> Json:
        means = {"measure": self.measure, "baseline": self.before, "candidate": self.after}
        return {**means, **self.change.as_dict()}


@dataclass(frozen=True, slots=True)
class Flipped:
    """A query that one of the two answers and the other does not."""

    query_id: str
    text: str
    before: float
    after: float

    def as_dict(self) -> Json:
        return {
            "query_id": self.query_id,
            "text": self.text,
            "before": self.before,
            "after": self.after,
        }


@dataclass(frozen=True, slots=True)
class Contrast:
    """Candidate minus baseline.  `measured` holds the deciding measure first."""

    baseline: Side
    candidate: Side
    measured: tuple[Measured, ...]
    slices: tuple[Mapping[str, Any], ...]
    lost: tuple[Flipped, ...]  # the baseline answers them, the candidate does not
    won: tuple[Flipped, ...]  # the other way round
    only_baseline: int  # queries that the other side has no score for
    only_candidate: int
    alpha: float
    clusters: Mapping[str, Any] = field(default_factory=dict)  # the units of the intervals

    @property
    def primary(self) -> Measured:
        """The deciding measure."""
        return self.measured[0]

    @property
    def regressed(self) -> bool:
        """Whether the deciding measure is really worse: the interval excludes 0 and p agrees."""
        return self.primary.change.outcome == "worse"

    @property
    def worse_slices(self) -> tuple[str, ...]:
        """Slices that are really worse, allowing for their number (Holm)."""
        worse = []
        for row in self.slices:
            if row["outcome"] == "worse" and row["p_holm"] <= self.alpha:
                worse.append(str(row["slice"]))
        return tuple(worse)

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """What the descriptions of the two systems disagree on: key → (baseline, candidate)."""
        before, after = self.baseline.described, self.candidate.described
        different = {}
        for key in dict.fromkeys([*before, *after]):
            pair = (before.get(key), after.get(key))
            if before and after and pair[0] != pair[1]:
                different[key] = pair
        return different

    def sentence(self) -> str:
        """What a person needs to know, in one sentence."""
        row = self.primary
        moved = f"{row.measure} {row.before:.3f} → {row.after:.3f} ({row.change})"
        if row.change.outcome == "worse":
            return f"Regression: {moved}."
        if row.change.outcome == "better":
            return f"Better: {moved}."
        text = f"No significant change: {moved}."
        if row.change.low < 0:
            text += f" A loss of up to {-row.change.low:.3f} would fit these queries too."
        return text

    def warnings(self) -> list[str]:
        """What weakens the comparison."""
        notes = []
        clusters = ClustersRecord.of(self.clusters).sentence()
        if clusters:
            notes.append(clusters)
        if self.only_baseline or self.only_candidate:
            notes.append(
                f"only the {self.primary.change.n:,} queries that both have are compared: "
                f"{self.only_baseline:,} are in {self.baseline.name} alone, "
                f"{self.only_candidate:,} in {self.candidate.name} alone"
            )
        for side in (self.baseline, self.candidate):
            if side.empty:
                notes.append(
                    f"{side.name} has no results for {side.empty:,} judged queries: they count 0"
                )
        return notes

    def as_dict(self) -> Json:
        """What `--json` prints."""
        return {
            "baseline": {"name": self.baseline.name, "system": dict(self.baseline.described)},
            "candidate": {"name": self.candidate.name, "system": dict(self.candidate.described)},
            "primary": self.primary.measure,
            "alpha": self.alpha,
            "n_queries": self.primary.change.n,
            "clusters": dict(self.clusters),
            "only_in_baseline": self.only_baseline,
            "only_in_candidate": self.only_candidate,
            "sentence": self.sentence(),
            "regressed": self.regressed,
            "worse_slices": list(self.worse_slices),
            "comparisons": [row.as_dict() for row in self.measured],
            "slices": [dict(row) for row in self.slices],
            "lost": [flip.as_dict() for flip in self.lost],
            "won": [flip.as_dict() for flip in self.won],
        }

    def blocks(self) -> list[Block]:
        """What the terminal shows."""
        outcome = self.primary.change.outcome
        tone = {"worse": "bad", "better": "good"}.get(outcome, "doubt")
        lines: list[Block] = [Line(self.sentence(), tone)]
        lines += [Line(f"! {warning}", "warn") for warning in self.warnings()]
        for key, (before, after) in self.differences().items():
            lines.append(Line(f"  · {key}: {before} → {after}", "dim"))
        columns = ("measure", self.baseline.name, self.candidate.name, "change", "interval", "p")
        lines.append(Table(columns, [_row(row) for row in self.measured]))
        if self.slices:
            names = ("slice", "queries", "change", "interval", "Holm p")
            lines.append(Table(names, [_slice_row(row, self.alpha) for row in self.slices]))
        lines += _flip_lines(self.lost, "lost")
        lines += _flip_lines(self.won, "won")
        return lines


def _row(row: Measured) -> Row:
    change = row.change
    tone = {"worse": "bad", "better": "good"}.get(change.outcome, "")
    cells = (
        row.measure,
        f"{row.before:.3f}",
        f"{row.after:.3f}",
        f"{change.delta:+.3f}",
        f"{change.low:+.3f} to {change.high:+.3f}",
        f"{change.p:.4f}",
    )
    return Row(cells, tone)


def _slice_row(row: Mapping[str, Any], alpha: float) -> Row:
    low, high = row["ci"]
    tone = ""
    if row["p_holm"] <= alpha:
        tone = {"worse": "bad", "better": "good"}.get(row["outcome"], "")
    cells = (
        str(row["slice"]),
        f"{row['n']:,}",
        f"{row['delta']:+.3f}",
        f"{low:+.3f} to {high:+.3f}",
        f"{row['p_holm']:.4f}",
    )
    return Row(cells, tone)


def _flip_lines(flips: Sequence[Flipped], what: str) -> list[Block]:
    if not flips:
        return []
    count = f"{len(flips):,} {'query' if len(flips) == 1 else 'queries'} {what}"
    lines: list[Block] = [Line(f"{count}:")]
    for flip in flips[:_SHOWN_FLIPS]:
        change = f"{flip.before:.3f} → {flip.after:.3f}"
        lines.append(Line(f"  · {change}  {flip.query_id}  {flip.text[:80]}", "dim"))
    if len(flips) > _SHOWN_FLIPS:
        lines.append(Line(f"  · {len(flips) - _SHOWN_FLIPS:,} more with --json", "dim"))
    return lines


def contrast(baseline: Side, candidate: Side, terms: Terms, rng: np.random.Generator) -> Contrast:
    """Compare two systems query by query, on the queries that both have scores for.

    Raises DataError where they have no query in common, and ConfigError where one of them has no
    value of the deciding measure.
    """
    known = set(baseline.scores.query_ids)
    common = [query_id for query_id in candidate.scores.query_ids if query_id in known]
    if not common:
        raise DataError(
            f"{baseline.name} and {candidate.name} have no judged query in common",
            next_step="compare runs of the same queries: nearer evaluate with the same data",
        )
    before, after = baseline.on(common), candidate.on(common)
    measured = [_measured(terms.primary, before.scores, after.scores, terms, rng)]
    for name in after.scores.values:
        if name != terms.primary and name in before.scores.values:
            measured.append(_measured(name, before.scores, after.scores, terms, rng))
    slices = compare_slices(
        before.scores,
        after.scores,
        terms.slices,
        terms.primary,
        terms.min_slice,
        rng,
        resamples=terms.resamples,
        alpha=terms.alpha,
        clusters=terms.clusters.labels(common),
    )
    lost, won = _flips(before.scores, after.scores, terms)
    return Contrast(
        baseline=baseline,
        candidate=candidate,
        measured=tuple(measured),
        slices=tuple(slices),
        lost=lost,
        won=won,
        only_baseline=len(baseline.scores) - len(common),
        only_candidate=len(candidate.scores) - len(common),
        alpha=terms.alpha,
        clusters=terms.clusters.as_dict(common),
    )


def _measured(
    name: str, before: Scores, after: Scores, terms: Terms, rng: np.random.Generator
) -> Measured:
    first, second = before.column(name), after.column(name)
    labels = terms.clusters.labels(before.query_ids)
    change = compare(first, second, rng, terms.resamples, terms.alpha, labels)
    return Measured(name, float(first.mean()), float(second.mean()), change)


def _flips(
    before: Scores, after: Scores, terms: Terms
) -> tuple[tuple[Flipped, ...], tuple[Flipped, ...]]:
    """Queries that lost all that counts in the deciding measure, and those that won from nothing."""
    lost: list[Flipped] = []
    won: list[Flipped] = []
    first, second = before.column(terms.primary), after.column(terms.primary)
    for row in np.flatnonzero((first > 0) != (second > 0)).tolist():
        query_id = before.query_ids[row]
        text = terms.texts.get(query_id, "")
        flip = Flipped(query_id, text, float(first[row]), float(second[row]))
        (lost if flip.before > 0 else won).append(flip)
    lost.sort(key=lambda flip: (-flip.before, flip.query_id))
    won.sort(key=lambda flip: (-flip.after, flip.query_id))
    return tuple(lost), tuple(won)
