"""How many judgments does a verdict take, in nearer's order and in random order?

    python bench/review_order.py DATA --model models/minilm [--accuracy 0.9] [--confirm]

Takes the test queries of a BEIR folder, searches them with two systems, and hides 80% of the
judgments of relevant documents.  Simulated reviewers, right in 90% of their grades, then judge what
either system shows and nobody has judged.  After each further part of these pairs the verdict is
made anew; printed is from which share of the pairs on it stays the one that all judgments give.

The verdict here is that of the interval alone (a gain: above 0, and the mean at least
`decide.min_gain`), without the other guardrails of `decide`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nearer import config
from nearer.data.load import load
from nearer.measure.significance import DIFFERENCE, mean_interval
from nearer.review.lists import ListedQuery, Lists, ndcg
from nearer.review.pairs import Pair, pairs_of_lists
from nearer.search.systems import Systems
from nearer.types import Judgments, Split

DEPTH = 10
SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
ORDERS = ("nearer", "random")

Grades = dict[str, dict[str, int]]  # by query, then document


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated: the share of judgments that is hidden, and how good reviewers are."""

    hidden: float = 0.8
    accuracy: float = 0.9
    reviewers: int = 1  # of each pair; the majority counts, so an odd number
    confirm: bool = (
        False  # a relevant grade is asked again; where the second differs, a third decides
    )
    alpha: float = 0.05
    min_gain: float = 0.01


def searched(folder: Path, model: str, systems: Sequence[str], cache: Path | None) -> Lists:
    """The test queries with what two systems find, and every judgment there is."""
    search = {"system": "bm25"}
    settings = config.build(
        {"data": {"folder": str(folder)}, "model": {"name": model}, "search": search}
    )
    loaded = load(settings.data, folder)
    judged: Judgments = loaded.judgments["test"]
    queries = tuple(loaded.queries[query_id] for query_id in sorted(judged))
    split = Split("test", queries, judged)
    parts = Systems(settings, Path.cwd(), loaded.corpus, cache=cache)
    runs = [parts.search(name, split, DEPTH) for name in systems]
    rows = []
    for query in queries:
        tops = [tuple(run.top(query.id, DEPTH)) for run in runs]
        rows.append(ListedQuery(query.id, query.text, query.filter, *tops, judged[query.id]))
    return Lists(systems[0], systems[1], f"nDCG@{DEPTH}", tuple(rows))


def hide(lists: Lists, share: float, rng: np.random.Generator) -> Lists:
    """The same with that share of the judgments gone."""
    rows = []
    for row in lists.queries:
        kept = {doc_id: grade for doc_id, grade in row.grades.items() if rng.random() >= share}
        rows.append(replace(row, grades=kept))
    return replace(lists, queries=tuple(rows))


def answer(truth: int, setting: Setting, rng: np.random.Generator) -> tuple[int, int]:
    """What reviewers say of a pair, and how many judgments that took.

    One who is wrong mistakes relevant for not relevant, or not relevant for 1.
    """
    if not setting.confirm:
        right = int((rng.random(setting.reviewers) < setting.accuracy).sum())
        return _said(truth, 2 * right > setting.reviewers), setting.reviewers
    said = [_said(truth, correct) for correct in (rng.random(3) < setting.accuracy).tolist()]
    if not said[0]:
        return 0, 1
    if said[1]:
        return said[1], 2
    return said[2], 3


def _said(truth: int, correct: bool) -> int:
    if correct:
        return truth
    return 0 if truth > 0 else 1


class Board:
    """The difference of the two systems per query, kept up to date while grades come in."""

    def __init__(self, lists: Lists) -> None:
        self._rows = {row.query_id: row for row in lists.queries}
        self._grades: Grades = {row.query_id: dict(row.grades) for row in lists.queries}
        self._changes: dict[str, float | None] = {}
        for query_id in self._rows:
            self._measure(query_id)

    def add(self, pair: Pair, grade: int) -> None:
        self._grades[pair.query_id][pair.doc_id] = grade
        self._measure(pair.query_id)

    def _measure(self, query_id: str) -> None:
        row, grades = self._rows[query_id], self._grades[query_id]
        ideal = np.array([max(grade, 0) for grade in grades.values()], dtype=np.float64)
        if not ideal.any():
            self._changes[query_id] = None
            return
        values = []
        for ids in (row.candidate, row.baseline):
            gains = np.array([max(grades.get(doc_id, 0), 0) for doc_id in ids], dtype=np.float64)
            values.append(ndcg(gains, ideal, DEPTH))
        self._changes[query_id] = values[0] - values[1]

    def verdict(self, setting: Setting) -> str:
        """gain, no gain, or open; open where no query has a relevant document."""
        change = np.array([value for value in self._changes.values() if value is not None])
        if len(change) < 2:
            return "open"
        interval = mean_interval(np.clip(change, *DIFFERENCE), setting.alpha, bounds=DIFFERENCE)
        if interval.low > 0.0 and interval.mean >= setting.min_gain:
            return "gain"
        if interval.mean <= 0.0 or interval.high < setting.min_gain:
            return "no gain"
        return "open"


def ordered(lists: Lists, order: str, rng: np.random.Generator) -> list[Pair]:
    """The pairs to judge, in nearer's order (weightiest first) or at random."""
    pairs = sorted(pairs_of_lists(lists, DEPTH), key=lambda pair: pair.subject)
    pairs = [pairs[row] for row in rng.permutation(len(pairs)).tolist()]
    if order == "nearer":
        pairs.sort(key=lambda pair: -pair.weight)
    return pairs


@dataclass(frozen=True, slots=True)
class Review:
    """Verdicts after each of `SHARES` of `n_pairs` pairs, `before` any, and by all judgments (`full`).

    `spent` are the judgments after each of them, as shares of the pairs.
    """

    full: str
    before: str
    verdicts: tuple[str, ...]
    spent: tuple[float, ...]
    n_pairs: int

    @property
    def share(self) -> float | None:
        """Judgments per pair until the verdict stays the full one; 0: from the start, None: never."""
        first = len(SHARES)
        while first and self.verdicts[first - 1] == self.full:
            first -= 1
        if first == len(SHARES):
            return None
        if first == 0 and self.before == self.full:
            return 0.0
        return self.spent[first]


def simulate(lists: Lists, order: str, setting: Setting, seed: int) -> Review:
    """One review of `lists`, whose grades are all that is known, in one order."""
    truth: Mapping[str, Mapping[str, int]] = {row.query_id: row.grades for row in lists.queries}
    # The same judgments are hidden, whatever the order.
    shown = hide(lists, setting.hidden, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 2, ORDERS.index(order)])
    board = Board(shown)
    pairs = ordered(shown, order, rng)
    before = board.verdict(setting)
    verdicts = []
    spent = []
    done = judgments = 0
    for share in SHARES:
        upto = round(share * len(pairs))
        for pair in pairs[done:upto]:
            grade, asked = answer(truth[pair.query_id].get(pair.doc_id, 0), setting, rng)
            board.add(pair, grade)
            judgments += asked
        done = upto
        verdicts.append(board.verdict(setting))
        spent.append(judgments / max(len(pairs), 1))
    full = Board(lists).verdict(setting)
    return Review(full, before, tuple(verdicts), tuple(spent), len(pairs))


def summary(reviews: Sequence[Review]) -> dict[str, object]:
    """The median share, and how many reviews were there by a quarter of the pairs."""
    shares = [math.inf if review.share is None else review.share for review in reviews]
    middle = float(np.median(shares))
    return {
        "reviews": len(reviews),
        "pairs": reviews[0].n_pairs,
        "full": reviews[0].full,
        "median_share": None if math.isinf(middle) else round(middle, 3),
        "by_a_quarter": round(float(np.mean([share <= 0.25 for share in shares])), 3),
        "never": round(float(np.mean([math.isinf(share) for share in shares])), 3),
    }


def main() -> None:
    """Print one JSON line per order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="a BEIR folder with test judgments")
    parser.add_argument("--model", required=True, help="the embedding model of `dense`")
    parser.add_argument("--systems", nargs=2, default=("bm25", "dense"), metavar="SYSTEM")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--hidden", type=float, default=0.8)
    parser.add_argument("--accuracy", type=float, default=0.9)
    parser.add_argument("--reviewers", type=int, default=1)
    parser.add_argument("--confirm", action="store_true", help="ask again about relevant grades")
    parser.add_argument("--cache", type=Path, default=None, help="keeps embeddings")
    arguments = parser.parse_args()
    lists = searched(arguments.data, arguments.model, arguments.systems, arguments.cache)
    setting = Setting(arguments.hidden, arguments.accuracy, arguments.reviewers, arguments.confirm)
    for order in ORDERS:
        reviews = [simulate(lists, order, setting, seed) for seed in range(arguments.repeats)]
        print(json.dumps({"data": arguments.data.name, "order": order, **summary(reviews)}))


if __name__ == "__main__":
    main()
