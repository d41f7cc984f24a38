"""When metadata values count as equal, and which of them are numbers, dates or versions.

Numbers compare by value, also with numbers written as text (CSV has no others); two texts compare
exactly but for case.  A list means any of its values.  Null and absent match nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from nearer.data.fields import plain
from nearer.data.times import read_time
from nearer.types import Metadata

_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d(-\d\d([T ].*)?)?", re.ASCII)
_VERSION = re.compile(r"v?(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?", re.ASCII)
_TIME_NAME = re.compile(
    r"date|time|epoch|stamp|modif|chang|creat|publish|releas|issued|_at$", re.IGNORECASE
)


def matches(filter: Metadata, metadata: Metadata) -> bool:
    """Whether metadata satisfies every field of a filter.

    Numbers compare by value, also with numbers written as text (CSV has no others); two texts
    compare exactly but for case.  A list on either side means any of its values.  Null and absent
    match nothing.
    """
    return not mismatch(filter, metadata)


def mismatch(filter: Metadata, metadata: Metadata) -> list[tuple[str, Any, Any]]:
    """`(field, wanted, held)` of every field of the filter that the metadata does not satisfy; held is None where absent."""
    unsatisfied = []
    for name, wanted in filter.items():
        held = metadata.get(name)
        if wanted_keys(wanted).isdisjoint(held_keys(held)):
            unsatisfied.append((name, wanted, held))
    return unsatisfied


def held_keys(value: Any) -> set[str]:
    """The keys under which a value of metadata is found."""
    keys: set[str] = set()
    for scalar in scalars(value):
        keys.update(keys_of(scalar))
    return keys


def wanted_keys(value: Any) -> set[str]:
    """The keys that a filter's value asks for.  Two texts never meet as numbers: version 1.10 is not 1.1."""
    keys = set()
    for key in held_keys(value):
        kind, rest = key[0], key[1:]
        if kind == "s":
            keys.add(key)
        elif kind == "n":
            keys.update((key, f"t{rest}"))
        else:
            keys.add(f"n{rest}")
    return keys


@lru_cache(maxsize=4096, typed=True)  # values repeat; typed, because True == 1
def keys_of(scalar: Any) -> tuple[str, ...]:
    """The keys of one value: `s` text, `n` a number, `t` a number written as text, beside its `s`.

    Its own comes first.
    """
    number = number_of(scalar)
    if isinstance(scalar, str):
        own = f"s{scalar}".casefold()
        return (own,) if number is None else (own, f"t{number}")
    if number is None:
        return (f"s{scalar}".casefold(),)
    return (f"n{number}",)


def scalars(value: Any) -> Iterator[Any]:
    """The values in a value: those of lists one by one, objects as JSON, null none."""
    if isinstance(value, list | tuple):
        for inner in value:
            yield from scalars(inner)
    elif isinstance(value, Mapping):
        yield json.dumps(plain(value), sort_keys=True)
    else:
        scalar = plain(value)
        if scalar is not None:
            yield scalar


def elements(scalar: Any) -> list[Any]:
    """The elements of a comma-separated string; any other value is its one element."""
    if not isinstance(scalar, str):
        return [scalar]
    return [part for part in map(str.strip, scalar.split(", ")) if part]


def number_of(scalar: Any) -> int | float | None:
    """A number, or text that is one; whole ones as int, so that 2004, 2004.0 and "2004" are the same."""
    if isinstance(scalar, str) and _NUMBER.fullmatch(scalar):
        scalar = float(scalar) if "." in scalar else int(scalar)
    if isinstance(scalar, bool) or not isinstance(scalar, int | float):
        return None
    return int(scalar) if scalar == int(scalar) else scalar


def names_versions(field: str) -> bool:
    """Whether a field's name says that it holds versions."""
    return "version" in field.casefold()


@lru_cache(maxsize=4096, typed=True)
def year_of(scalar: Any, field: str) -> float:
    """A year, date or time as decimal years, NaN if it is none.

    The name of the field allows epochs (s, ms), or makes versions numbers in their order.
    """
    if names_versions(field):
        return _version_order(str(scalar))
    number = number_of(scalar)
    if isinstance(number, int) and 1900 <= number <= 2100:
        return float(number)
    try:
        if isinstance(scalar, str) and _DATE.fullmatch(scalar):
            date = read_time(scalar)
        elif number is not None and _TIME_NAME.search(field) and _is_epoch(number):
            date = read_time(number)
        else:
            return math.nan
    except ValueError:
        return math.nan
    new_year = datetime(date.year, 1, 1, tzinfo=UTC)
    return date.year + (date - new_year).total_seconds() / (366 * 86_400)


def _is_epoch(number: float) -> bool:
    """Seconds or milliseconds since 1970, from 1973 to 2103."""
    return 1e8 < number < 4.2e9 or 1e11 < number < 4.2e12


def _version_order(text: str) -> float:
    match = _VERSION.fullmatch(text)
    if match is None:
        return math.nan
    parts = enumerate(match.groups())
    return sum(int(part or 0) / 1e4**level for level, part in parts)
