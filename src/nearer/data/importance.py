"""What a query says about itself: how often it is asked, whether it must work, whom it is from.

These are fields of queries.jsonl beside the text: `frequency` (a number above 0: how often users
ask it), `must_pass` and `high_risk` (true or false), `user` and `template` (what it belongs to).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nearer.data.sources import bad
from nearer.types import Query

FREQUENCY = "frequency"
#: Fields that put a query on a list of named queries.
NAMED = ("must_pass", "high_risk")

TRUTHS: Mapping[str, bool] = {
    "true": True,
    "yes": True,
    "1": True,
    "1.0": True,
    "false": False,
    "no": False,
    "0": False,
    "0.0": False,
    "": False,
    "none": False,
}


def frequency_of(query: Query) -> float | None:
    """How often a query is asked; None where it does not say.  Raises DataError."""
    value = query.metadata.get(FREQUENCY)
    if value is None or value == "":
        return None
    number = math.nan
    if not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise _bad(query, FREQUENCY, value, "give a number above 0: how often users ask it")
    return number


def frequencies_of(queries: Sequence[Query]) -> dict[str, float] | None:
    """Query id → how often it is asked; None where no query says.

    Where some say it, the others count 1: a query that no log holds is asked rarely.
    Raises DataError for one that is no number above 0.
    """
    given = {query.id: frequency_of(query) for query in queries}
    if all(value is None for value in given.values()):
        return None
    return {query_id: 1.0 if value is None else value for query_id, value in given.items()}


def is_named(query: Query, name: str) -> bool:
    """Whether a query says `true` in a field such as `must_pass`.  Raises DataError."""
    value = query.metadata.get(name)
    truth = TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise _bad(query, name, value, "write true or false")
    return truth


def named_in_data(queries: Iterable[Query], name: str) -> set[str]:
    """Ids of the queries that say `true` in the field.  Raises DataError."""
    return {query.id for query in queries if is_named(query, name)}


def refuse_unreadable(queries: Iterable[Query]) -> None:
    """Raises DataError for a query whose frequency or mark cannot be read."""
    for query in queries:
        frequency_of(query)
        for name in NAMED:
            is_named(query, name)


def _bad(query: Query, name: str, value: Any, mend: str) -> Exception:
    return bad(f"query {query.id!r} has {name} {value!r}", "queries.jsonl", mend)
