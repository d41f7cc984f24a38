"""Single values of logs: yes or no, numbers, times and texts, whatever type the file's format gave them.

Every function raises ValueError with a sentence for people; the caller adds file and line.
"""

from __future__ import annotations

import math
from typing import Any

_YES = frozenset(("true", "t", "yes", "y", "on", "x", "click", "clicked"))
_NO = frozenset(
    (
        *("false", "f", "no", "n", "off", "-", "no-click", "no-clicks", "no click", "no clicks"),
        *("not-clicked", "not clicked", "unclicked", "no_click", "no_clicks", "not_clicked"),
    )
)
_MISSING = frozenset(("nan", "null", "none", "na", "n/a", "<na>", "nat"))


def is_empty(value: Any) -> bool:
    """Whether a cell of ids or texts holds nothing: null, NaN or blank.  `NA` may be an id."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_missing(value: Any) -> bool:
    """Whether a cell of numbers or answers holds nothing, or a word that exports write for it."""
    return is_empty(value) or (isinstance(value, str) and value.strip().lower() in _MISSING)


def text(value: Any) -> str:
    """A value as text that UTF-8 can hold (JSON may carry half a surrogate pair); null is empty."""
    if is_empty(value):
        return ""
    try:
        return str(value).encode("utf-8", "replace").decode()
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None


def as_float(value: Any) -> float:
    """What a value says as a number; NaN where it says none.

    `1_000` is a number in Python's own code only; an integer beyond every float is infinite.
    """
    if isinstance(value, str) and "_" in value:
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def number(value: Any) -> float:
    """A finite number.  Raises ValueError, also for units (`12 ms`) and decimal commas (`12,5`)."""
    parsed = as_float(value)
    if isinstance(value, bool) or not math.isfinite(parsed):
        raise ValueError(f"{shown(value)} is not a number")
    return parsed


def yes_or_no(value: Any) -> bool:
    """Whether a cell says yes: a word for it, or a number above 0 (a count of clicks).  Missing is no.

    Raises ValueError for everything that means neither.
    """
    if isinstance(value, bool):
        return value
    if is_missing(value):
        return False
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, str) and word in _YES | _NO:
        return word in _YES
    try:
        count = number(word)
    except ValueError:
        count = -1.0
    if count < 0:
        raise ValueError(f"{shown(value)} is neither yes nor no")
    return count > 0


def shown(value: Any) -> str:
    """A value in an error message, cut to a length that can be read."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: an integer of more than 4,300 digits
        return f"a {type(value).__name__}"
    if len(text) <= 60:
        return text
    return f"{text[:59]}…"
