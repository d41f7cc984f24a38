"""A function of the user's own that says which filters the text of a query names (`search.extract`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nearer.errors import SearchSystemError
from nearer.plugins import import_from

#: query text → filters that it names, each from a field to the value (or values) wanted
Extraction = Callable[[str], list[dict[str, Any]]]

_SETTING = "search.extract"
_KEPT = 4096  # answers: one query is looked at by several stages


def own_extraction(name: str, root: Path) -> Extraction:
    """The user's `module:function`, from the text of a query to its filters.

    The function returns a filter (a dict), a list of them, or None for a text that names none.
    Raises what `plugins.import_from` raises for a function that cannot be imported, and
    SearchSystemError, when called, for one that fails or answers anything else.
    """
    function = import_from(name, root, _SETTING, "function")

    @lru_cache(maxsize=_KEPT)
    def extract(text: str) -> list[dict[str, Any]]:
        try:
            answer = function(text)
        except Exception as error:
            raise SearchSystemError(
                f"the function raised {type(error).__name__}: {error}",
                where=f"{_SETTING}: {name}",
                next_step="mend the function",
            ) from error
        return _filters(answer, name)

    return extract


def _filters(answer: Any, name: str) -> list[dict[str, Any]]:
    """One filter for each field that an answer names.  Raises SearchSystemError for other answers."""
    given = [answer] if isinstance(answer, Mapping) else answer
    if given is None:
        return []
    if not isinstance(given, list) or not all(map(_is_filter, given)):
        raise SearchSystemError(
            f"{str(answer)[:80]!r} is no filter",
            where=f"{_SETTING}: {name}",
            next_step="return a dict of metadata fields and values, a list of such, or None",
        )
    return [{field: value} for filter in given for field, value in filter.items()]


def _is_filter(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(field, str) and _is_wanted(wanted) for field, wanted in value.items())


def _is_wanted(value: Any) -> bool:
    """Whether a value is one that documents can have, or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str | int | float) for each in value)
    return isinstance(value, str | int | float)
