"""The ranked lists between which a decision stands (`decide/lists.json`), read for review.

`decide` alone opens test; it leaves here what its two finalists find, so that people can judge what
nobody has judged, and so that new judgments can be weighed without opening test again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Below the run.
LISTS = "decide/lists.json"


@dataclass(frozen=True, slots=True)
class ListedQuery:
    """One test query: the first results of both systems, and its judgments so far."""

    query_id: str
    text: str
    filter: Mapping[str, Any] | None
    baseline: tuple[str, ...]
    candidate: tuple[str, ...]
    grades: Mapping[str, int]

    def n_relevant(self, least: int) -> int:
        """Documents judged relevant, at least `least`."""
        return max(least, sum(grade > 0 for grade in self.grades.values()))


@dataclass(frozen=True, slots=True)
class Lists:
    """What two systems find for every test query."""

    baseline: str
    candidate: str
    measure: str
    queries: tuple[ListedQuery, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Lists:
        """Read what `decide` wrote."""
        rows = []
        for row in values["queries"]:
            listed = ListedQuery(
                row["query_id"],
                row["text"],
                row.get("filter"),
                tuple(row["baseline"]),
                tuple(row["candidate"]),
                row["grades"],
            )
            rows.append(listed)
        return cls(values["baseline"], values["candidate"], values["measure"], tuple(rows))

    @property
    def depth(self) -> int:
        """k of the measure, or as deep as the lists go."""
        _, _, k = self.measure.partition("@")
        return int(k) if k else max((len(row.baseline) for row in self.queries), default=0)


def ndcg(gains: np.ndarray, ideal: np.ndarray, depth: int) -> float:
    """nDCG@depth with the grade as gain, as trec_eval's ndcg_cut.

    `gains` are the grades of the results in their order, `ideal` those of all judged documents.
    """
    best = np.sort(ideal)[::-1][:depth]
    reachable = float((best / np.log2(np.arange(2, len(best) + 2))).sum())
    if reachable == 0.0:
        return 0.0
    got = gains[:depth]
    return float((got / np.log2(np.arange(2, len(got) + 2))).sum()) / reachable
