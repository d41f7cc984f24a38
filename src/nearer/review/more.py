"""How many more judgments would settle the open question, and whether it is settled already.

What nobody has judged is drawn, again and again, at the rates of relevance that reviewers found so
far; each draw has a verdict.  The question is settled when the remaining judgments leave that
verdict as it is in nearly all draws, whichever verdict it is: stopping then does not favour a
candidate, as stopping at the first significant difference would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nearer.config import Config
from nearer.measure.significance import DIFFERENCE, mean_interval, queries_to_settle
from nearer.review.judgments import Subject
from nearer.review.lists import Lists
from nearer.review.pairs import pairs_of_lists
from nearer.types import Interval

GAIN, NO_GAIN, OPEN = "gain", "no gain", "open"
_DRAWS = 200  # of everything that is not judged
_TRUTHS, _REDRAWS = 8, 24  # of the search for how many more
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of the open pairs, weightiest first
_STRENGTH = 4.0  # judgments that the overall rate counts for in a stratum
_LEAST_SD = 0.02  # equal differences are a coincidence
_LEAST = 20  # judgments of open pairs before anything counts as settled
_FIRST = 3  # ranks that are a stratum of their own


@dataclass(frozen=True, slots=True)
class More:
    """What further judgments can change.

    `probability` is that of each outcome once all pairs are judged; `needed` the judgments after
    which the outcome would probably be settled, 0 when it is, None when no number of them settles
    it; then `queries` says how many test queries would, None when no number does.
    """

    measure: str
    delta: float
    low: float
    high: float
    n_queries: int
    judged: int  # pairs that were open when the lists were made and are judged by now
    open: int
    probability: Mapping[str, float]
    settled: bool
    needed: int | None
    queries: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self, *, blind: bool) -> str:
        """For people; `blind`: for reviewers, who must not learn which side leads."""
        if self.settled:
            return "The question is settled: further judgments would hardly change the answer."
        if self.needed is None:
            more = "no number of queries"
            if self.queries is not None:
                more = f"about {self.queries:,} test queries"
            return f"Judging these pairs will not settle the question; {more} would (nearer pool)."
        text = f"About {self.needed:,} more judgments would settle the question."
        if blind:
            return text
        chances = ", ".join(f"{name} {share:.0%}" for name, share in self.probability.items())
        return f"{text} As it stands: {chances}."


@dataclass(frozen=True)
class _Board:
    """The lists as arrays: n queries, u documents in either list, k results of each system.

    `grades` is (n, u), NaN where nobody judged; `outside` (n, m) are grades of documents in neither
    list; `before` and `after` are (n, k) columns of `grades`, u where a list is shorter.
    """

    grades: np.ndarray
    outside: np.ndarray
    before: np.ndarray
    after: np.ndarray
    stratum: np.ndarray  # (n, u) integers
    real: np.ndarray  # (n, u) whether there is such a document
    rows: Mapping[Subject, tuple[int, int]]

    def difference(self, grades: np.ndarray) -> np.ndarray:
        """Candidate minus baseline in nDCG of the queries that have a relevant document."""
        n, k = self.before.shape
        padded = np.concatenate([np.where(self.real, grades, 0.0), np.zeros((n, 1))], axis=1)
        weights = 1.0 / np.log2(np.arange(2, k + 2))
        every = np.sort(np.concatenate([padded, self.outside], axis=1), axis=1)[:, ::-1][:, :k]
        ideal = every @ weights[: every.shape[1]]
        gain = (
            np.take_along_axis(padded, self.after, 1) - np.take_along_axis(padded, self.before, 1)
        ) @ weights
        scored = ideal > 0.0
        change: np.ndarray = gain[scored] / ideal[scored]
        return change


def how_many_more(
    lists: Lists, reviewed: Mapping[Subject, int], settings: Config, rng: np.random.Generator
) -> More | None:
    """What further judgments of these lists can change; None without queries or for other measures than nDCG.

    `reviewed` are grades of pairs that were judged since, on the scale of reviewers.
    """
    if not lists.measure.startswith("nDCG@") or not lists.queries:
        return None
    scale = max([1, *(g for row in lists.queries for g in row.grades.values())])
    board = _board(lists, reviewed, scale)
    unknown = board.real & np.isnan(board.grades)
    draw = _Imputation(board, lists, reviewed, scale, rng)
    alpha, min_gain = settings.decide.alpha, settings.decide.min_gain
    current = np.clip(board.difference(np.nan_to_num(board.grades)), *DIFFERENCE)
    if not len(current):
        return None
    interval = mean_interval(current, alpha, bounds=DIFFERENCE)
    rule = _Rule.of(current, interval, min_gain)
    outcomes = [rule.outcome(board.difference(draw(board.grades))) for _ in range(_DRAWS)]
    probability = {name: outcomes.count(name) / _DRAWS for name in (GAIN, NO_GAIN, OPEN)}
    certainty = settings.review.certainty
    judged = sum(subject in board.rows for subject in reviewed)
    n_open = int(unknown.sum())
    lacking = max(0, min(_LEAST - judged, n_open))  # before, the rates are a guess
    sure = max(probability[GAIN], probability[NO_GAIN]) >= certainty
    needed: int | None = lacking
    if not sure:
        needed = None
        if probability[OPEN] < certainty:
            needed = _needed(lists, board, draw, rule, settings)
        if needed is not None:
            needed = max(needed, lacking)
    queries = queries_to_settle(current, max(abs(interval.mean), min_gain), alpha / 2)
    return More(
        measure=lists.measure,
        delta=float(interval.mean),
        low=float(interval.low),
        high=float(interval.high),
        n_queries=len(current),
        judged=judged,
        open=n_open,
        probability=probability,
        settled=needed == 0,
        needed=needed,
        queries=queries,
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the verdict would say of a difference, by an interval as wide as that of the verdict.

    The exact interval takes too long for thousands of draws; here it is the mean and so many
    standard errors below and above as the exact one of the present differences has.
    """

    below: float  # standard errors
    above: float
    min_gain: float

    @classmethod
    def of(cls, change: np.ndarray, interval: Interval, min_gain: float) -> _Rule:
        error = _standard_error(change)
        below = (interval.mean - interval.low) / error
        return cls(below, (interval.high - interval.mean) / error, min_gain)

    def outcome(self, change: np.ndarray) -> str:
        """GAIN, NO_GAIN or OPEN for (n,) differences."""
        if len(change) < 2:
            return OPEN
        mean, error = float(change.mean()), _standard_error(change)
        if mean - self.below * error > 0.0 and mean >= self.min_gain:
            return GAIN
        if mean <= 0.0 or mean + self.above * error < self.min_gain:
            return NO_GAIN
        return OPEN


def _standard_error(change: np.ndarray) -> float:
    n = len(change)
    return max(float(change.std()), _LEAST_SD) / math.sqrt(n)


class _Imputation:
    """Draws grades for what nobody judged, at rates that are uncertain themselves.

    A stratum is where a document stands: in both lists or in one, among the first ranks or below.
    Its rate has a beta distribution around the overall one, which has a wide one of its own.
    """

    def __init__(
        self,
        board: _Board,
        lists: Lists,
        reviewed: Mapping[Subject, int],
        scale: int,
        rng: np.random.Generator,
    ) -> None:
        self._board, self._rng = board, rng
        strata = int(board.stratum.max()) + 1
        self._relevant = np.zeros(strata)
        self._total = np.zeros(strata)
        grades: list[int] = []
        for subject, grade in reviewed.items():
            place = board.rows.get(subject)
            if place is None:
                continue
            stratum = int(board.stratum[place])
            self._total[stratum] += 1
            self._relevant[stratum] += grade > 0
            if grade > 0:
                grades.append(min(grade, scale))
        self._grades = np.array(grades or [1], dtype=np.float64)

    def __call__(self, grades: np.ndarray) -> np.ndarray:
        """(n, u) grades without a gap."""
        total, relevant = self._total.sum(), self._relevant.sum()
        overall = self._rng.beta(0.5 + relevant, 2.0 + total - relevant)
        rates = self._rng.beta(
            _STRENGTH * overall + self._relevant + 1e-3,
            _STRENGTH * (1.0 - overall) + self._total - self._relevant + 1e-3,
        )
        drawn = self._rng.random(grades.shape) < rates[self._board.stratum]
        values = self._rng.choice(self._grades, grades.shape)
        filled: np.ndarray = np.where(np.isnan(grades), np.where(drawn, values, 0.0), grades)
        return filled


def _needed(
    lists: Lists, board: _Board, draw: _Imputation, rule: _Rule, settings: Config
) -> int | None:
    """Judgments, weightiest first, after which the outcome is settled in half of the draws."""
    order = _open_pairs(lists, board, settings)
    if not order:
        return None
    enough = settings.review.certainty * _REDRAWS
    found: list[float] = []
    for _ in range(_TRUTHS):
        known = board.grades.copy()
        truth = draw(board.grades)
        found.append(math.inf)
        done = 0
        for share in _SHARES:
            upto = max(1, round(share * len(order)))
            for place in order[done:upto]:
                known[place] = truth[place]
            done = upto
            if _is_settled(known, board, draw, rule, enough):
                found[-1] = upto
                break
    middle = float(np.median(found))
    return None if math.isinf(middle) else max(1, round(middle))


def _is_settled(
    known: np.ndarray, board: _Board, draw: _Imputation, rule: _Rule, enough: float
) -> bool:
    """Whether `enough` of the draws of what is open have one and the same outcome."""
    outcomes = [rule.outcome(board.difference(draw(known))) for _ in range(_REDRAWS)]
    return max(outcomes.count(GAIN), outcomes.count(NO_GAIN)) >= enough


def _open_pairs(lists: Lists, board: _Board, settings: Config) -> list[tuple[int, int]]:
    """Places of the open pairs in the order in which people are asked."""
    pairs = sorted(pairs_of_lists(lists, settings.review.depth), key=lambda pair: -pair.weight)
    places = [board.rows[pair.subject] for pair in pairs if pair.subject in board.rows]
    return [place for place in places if np.isnan(board.grades[place])]


def _board(lists: Lists, reviewed: Mapping[Subject, int], scale: int) -> _Board:
    depth = lists.depth
    documents = [
        list(dict.fromkeys((*row.baseline[:depth], *row.candidate[:depth])))
        for row in lists.queries
    ]
    n, width = len(lists.queries), max(1, *(len(found) for found in documents), 1)
    grades = np.full((n, width), np.nan)
    stratum = np.zeros((n, width), dtype=np.int64)
    real = np.zeros((n, width), dtype=bool)
    before = np.full((n, depth), width)
    after = np.full((n, depth), width)
    rows: dict[Subject, tuple[int, int]] = {}
    others: list[list[int]] = []
    for number, (row, found) in enumerate(zip(lists.queries, documents, strict=True)):
        known = dict(row.grades)
        columns = {doc_id: column for column, doc_id in enumerate(found)}
        for doc_id, column in columns.items():
            real[number, column] = True
            subject = (row.query_id, doc_id)
            rows[subject] = (number, column)
            grade = reviewed.get(subject)
            if grade is not None:
                known[doc_id] = min(grade, scale)
            if doc_id in known:
                grades[number, column] = max(0, known[doc_id])
            stratum[number, column] = _stratum(row.baseline[:depth], row.candidate[:depth], doc_id)
        for side, ids in ((before, row.baseline[:depth]), (after, row.candidate[:depth])):
            side[number, : len(ids)] = [columns[doc_id] for doc_id in ids]
        others.append([max(0, known[doc_id]) for doc_id in known if doc_id not in columns])
    outside = np.zeros((n, max((len(row_others) for row_others in others), default=0)))
    for number, row_others in enumerate(others):
        outside[number, : len(row_others)] = row_others
    return _Board(grades, outside, before, after, stratum, real, rows)


def _stratum(before: Sequence[str], after: Sequence[str], doc_id: str) -> int:
    """0 to 5: in both lists, in the first or in the second one; among the first ranks or below."""
    ranks = [side.index(doc_id) for side in (before, after) if doc_id in side]
    where = 0
    if len(ranks) == 1:
        where = 1 if doc_id in before else 2
    return 2 * where + int(min(ranks) >= _FIRST)
