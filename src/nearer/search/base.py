"""The seam between nearer and anything that searches: a retriever answers queries with a run.

BM25, dense search, their fusion and the user's own system all stand behind it.  A retriever of your
own is a class with one method, made without arguments and named in nearer.yaml as
`search.system: "my_module:Mine"`::

    class Mine:
        def search(self, queries, k):
            results = {query.id: rank_hits(my_hits(query.text), k) for query in queries}
            return Run("mine", results)

It brings its own index of the same documents; a function, an HTTP endpoint and a file of results
need no class (`search.system: function | http | run`).  The tests in
`tests/test_contract_retrievers.py` run over every retriever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from nearer.types import Query, Run


@runtime_checkable
class Retriever(Protocol):
    """Anything that ranks documents for queries."""

    name: str

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """At most `k` hits per query, in canonical order (`nearer.types.rank_hits`).

        `results` has a key for every query, in the order given, with an empty list where nothing
        was found.  The same queries give the same run.  Raises NearerError when it cannot answer.
        """
