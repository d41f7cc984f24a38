"""Test queries that people look at: those that won and lost most, and those that lost everything."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.decision.candidates import Finalists
from nearer.measure.verdict import Candidate
from nearer.types import Run, Split

_EXAMPLES = 8  # wins and losses in the report
_HITS = 5  # results of each
_TITLE = 120  # characters
_LISTED = 20  # results of each finalist that people may judge later


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed for each test query from one system to another."""

    before: Candidate
    after: Candidate
    test: Split
    corpus: Corpus
    primary: str

    @classmethod
    def of(cls, finalists: Finalists, test: Split, corpus: Corpus, primary: str) -> Changes | None:
        """None where nothing is set against today's system."""
        challenger = finalists.challenger
        if challenger is None:
            return None
        return cls(finalists.today, challenger, test, corpus, primary)

    def worst_and_best(self) -> dict[str, list[dict[str, Any]]]:
        """`examples.json`: the queries that won and lost most, with both ranked lists."""
        before, after = self._columns()
        change = after - before
        order = np.argsort(change, kind="stable")
        best, worst = order[::-1][:_EXAMPLES], order[:_EXAMPLES]
        return {
            "wins": [self._example(row) for row in best if change[row] > 0],
            "losses": [self._example(row) for row in worst if change[row] < 0],
        }

    def values(self) -> list[tuple[str, float, float]]:
        """(query id, before, after) of every query, in the primary measure."""
        before, after = self._columns()
        return list(zip(self.after.scores.query_ids, before.tolist(), after.tolist(), strict=True))

    def flips(self) -> dict[str, int]:
        """How many queries lost all their results, and how many without any found some."""
        before, after = self._columns()
        return {
            "n": len(before),
            "negative": int(((before > 0) & (after == 0)).sum()),
            "positive": int(((before == 0) & (after > 0)).sum()),
        }

    def negative_flips(self) -> list[dict[str, Any]]:
        """Queries that had a relevant result where it counts and lost it altogether."""
        before, after = self._columns()
        texts = self._texts()
        flips: list[dict[str, Any]] = []
        for row in np.flatnonzero((before > 0) & (after == 0)):
            query_id = self.after.scores.query_ids[row]
            value = float(before[row])
            flips.append({"query_id": query_id, "text": texts[query_id], "before": value})
        return flips

    def lists(self) -> dict[str, Any]:
        """`lists.json`: what both systems find for every test query, for review and nothing else."""
        rows = []
        for query in self.test.queries:
            rows.append(
                {
                    "query_id": query.id,
                    "text": query.text,
                    "filter": query.filter,
                    "baseline": list(self.before.run.top(query.id, _LISTED)),
                    "candidate": list(self.after.run.top(query.id, _LISTED)),
                    "grades": dict(self.test.judgments.get(query.id, {})),
                }
            )
        names = {"baseline": self.before.name, "candidate": self.after.name}
        return {**names, "measure": self.primary, "queries": rows}

    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        """The primary measure before and after, (n_queries,) each."""
        return self.before.scores.column(self.primary), self.after.scores.column(self.primary)

    def _texts(self) -> dict[str, str]:
        return {query.id: query.text for query in self.test.queries}

    def _example(self, row: int) -> dict[str, Any]:
        query_id = self.after.scores.query_ids[row]
        relevant = self.test.relevant(query_id)
        before, after = self._columns()
        return {
            "query_id": query_id,
            "text": self._texts()[query_id],
            "before": float(before[row]),
            "after": float(after[row]),
            "relevant": [{"id": doc_id, "title": self._title(doc_id)} for doc_id in relevant],
            "before_top": self._hits(self.before.run, query_id, relevant),
            "after_top": self._hits(self.after.run, query_id, relevant),
        }

    def _hits(self, run: Run, query_id: str, relevant: Collection[str]) -> list[dict[str, Any]]:
        hits = []
        for doc_id, score in run.results.get(query_id, ())[:_HITS]:
            hits.append(
                {
                    "id": doc_id,
                    "title": self._title(doc_id),
                    "relevant": doc_id in relevant,
                    "score": round(score, 4),
                }
            )
        return hits

    def _title(self, doc_id: str) -> str:
        document = self.corpus.get(doc_id)
        if document is None:
            return ""
        text = document.title or document.text
        return text if len(text) <= _TITLE else text[: _TITLE - 1] + "…"
