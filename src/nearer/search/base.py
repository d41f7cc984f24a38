"""The seam between nearer and anything that searches.

A retriever answers queries with a run.  BM25, dense search, their fusion and the user's own
system all stand behind it, and a class of your own needs nothing but these two members::

    class Mine:
        name = "mine"

        def search(self, queries, k):
            return Run(self.name, {query.id: rank_hits(my_hits(query.text), k) for query in queries})
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from nearer.types import Query, Run


@runtime_checkable
class Retriever(Protocol):
    """Anything that ranks documents for queries."""

    name: str

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """At most `k` hits a query, in canonical order (`nearer.types.rank_hits`).

        `results` has a key for every query, in the order given, with an empty list where nothing
        was found.  The same queries give the same run.  Raises NearerError when it cannot answer.
        """


def timed(retriever: Retriever, queries: Sequence[Query], k: int, sample: int = 50) -> list[float]:
    """Seconds a query, asked one at a time, for `sample` queries spread evenly over those given.

    One query is asked beforehand and not counted, so that loading and warming up are not measured.
    """
    if not queries:
        return []
    count = min(sample, len(queries))
    chosen = [queries[i * len(queries) // count] for i in range(count)]
    retriever.search(chosen[:1], k)
    seconds = []
    for query in chosen:
        started = time.perf_counter()
        retriever.search([query], k)
        seconds.append(time.perf_counter() - started)
    return seconds
