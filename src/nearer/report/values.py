"""Values out of JSON made safe, and figures made readable for people.

Files of a run may miss anything or hold anything; a value of the wrong kind becomes a gap (–).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

Json = Mapping[str, Any]

DASH = "–"
MANY_QUERIES = 100_000  # nobody judges more than this: "needs more" is then all there is to say

_LARGEST = 1e300  # sums and differences of larger figures are infinite
_BYTE_UNITS = ("kB", "MB", "GB", "TB")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c]")  # of Windows, and the page breaks of converted files
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


# -- values made safe ------------------------------------------------------------------------------


def as_number(value: Any) -> float | None:
    """A number that can be reckoned with, or None: NaN and what is next to infinite are none."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int beyond the range of floats
        return None
    if not abs(number) <= _LARGEST:
        return None
    return number


def as_object(value: Any) -> Json:
    """A JSON object, or an empty one."""
    if isinstance(value, Mapping):
        return value
    return {}


def as_list(value: Any) -> list[Any]:
    """A JSON list, or an empty one."""
    if isinstance(value, list | tuple):
        return list(value)
    return []


def as_objects(value: Any) -> list[Json]:
    """The objects in a JSON list; what is no object is left out."""
    return [item for item in as_list(value) if isinstance(item, Mapping)]


def as_numbers(value: Any) -> list[float]:
    """The finite numbers in a JSON list; what is no number is left out."""
    numbers = [as_number(item) for item in as_list(value)]
    return [number for number in numbers if number is not None]


def as_pair(value: Any) -> tuple[float, float] | None:
    """The two numbers of an interval, or of a part and its whole; None where there are not two."""
    numbers = as_numbers(value)
    if len(numbers) != 2:
        return None
    return numbers[0], numbers[1]


def as_text(value: Any, limit: int = 400) -> str:
    """Text without control characters or lone surrogates, cut at `limit` characters."""
    if value is None:
        return ""
    clean = _printable(str(value)).strip()
    if len(clean) <= limit:
        return clean
    return clean[: limit - 1].rstrip() + "…"


def as_json(value: Any) -> Any:
    """Values that JSON takes: what is no finite number is null, and no text holds a lone surrogate."""
    if isinstance(value, Mapping):
        return {_printable(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _printable(text: str) -> str:
    return _CONTROL.sub("�", _LINE_ENDS.sub("\n", text))


# -- figures for people ----------------------------------------------------------------------------


def _typographic(figure: str) -> str:
    """A figure with a minus sign in place of a hyphen."""
    return figure.replace("-", "−")


def fixed(value: Any, places: int = 3, sign: str = "") -> str:
    """A number with so many decimal places; `sign="+"` also marks positive ones."""
    number = as_number(value)
    if number is None:
        return DASH
    return _typographic(f"{number:{sign}.{places}f}")


def signed(value: Any, places: int = 3) -> str:
    """A change, with its sign; what rounds to zero has none."""
    change = fixed(value, places, "+")
    is_zero = not change.strip("+−0.")
    if is_zero:
        return change.lstrip("+−")
    return change


def span(interval: Any, show: Callable[[Any], str] = fixed) -> str:
    """An interval as `0.315 to 0.379`."""
    ends = as_pair(interval)
    if ends is None:
        return DASH
    low, high = ends
    return f"{show(low)} to {show(high)}"


def p_value(value: Any) -> str:
    """A p-value; below 0.001 the bound alone."""
    number = as_number(value)
    if number is not None and number < 0.001:
        return "< 0.001"
    return fixed(number)


def whole(value: Any) -> str:
    """A number without decimal places, thousands apart."""
    number = as_number(value)
    if number is None:
        return DASH
    return _typographic(f"{number:,.0f}")


def needed(value: Any) -> str:
    """Number of queries that would settle a guardrail."""
    number = as_number(value)
    if number is not None and number > MANY_QUERIES:
        return f"over {whole(MANY_QUERIES)}"
    return whole(value)


def duration(value: Any) -> str:
    """Seconds as `0.4 s`, `2 min 05 s`, `3 h 20 min`."""
    seconds = as_number(value)
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        minutes, rest = divmod(int(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: Any) -> str:
    """Bytes as `980 B`, `1.4 MB`, `2.0 TB`."""
    number = as_number(value)
    if number is None:
        return DASH
    if abs(number) < 1000:
        return f"{number:.0f} B"
    magnitude = math.log10(abs(number))
    power = min(len(_BYTE_UNITS), int(magnitude // 3))
    unit = _BYTE_UNITS[power - 1]
    return f"{number / 1000**power:.1f} {unit}"


def words(key: str) -> str:
    """A JSON key as words: `near_duplicate` becomes `near duplicate`."""
    return as_text(key, 60).replace("_", " ")


def model_name(path: Any) -> str:
    """The last telling part of a path or hub name."""
    parts = re.split(r"[/\\]", as_text(path, 400))
    for part in reversed(parts):
        if part and part != "model":
            return part
    if "model" in parts:
        return "model"
    return ""


#: Ending of a key → how its number is written.
_BY_ENDING: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("bytes", size),
    ("seconds", duration),
    ("_ms", lambda number: f"{number:,.1f} ms"),
    ("hours", lambda number: f"{number:,.2f} h"),
)


def figure(key: str, value: Any) -> str:
    """A value written by what its key says: seconds, bytes, shares, counts."""
    number = as_number(value)
    if number is None:
        return _not_a_number(value)
    for ending, show in _BY_ENDING:
        if key.endswith(ending):
            return show(number)
    if "share" in key and 0 <= number <= 1:
        return f"{number:.1%}"
    if number == int(number) and abs(number) < 1e15:
        return whole(number)
    if 0.001 <= abs(number) < 1:
        return fixed(number)
    return _typographic(f"{number:,.4g}")


def _not_a_number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return as_text(value, 160) or DASH


def facts(value: Any, limit: int = 60) -> list[tuple[str, str]]:
    """(label, figure) of every scalar in nested JSON; long lists are left out."""
    return list(islice(_facts(as_object(value), ""), limit))


def _facts(node: Json, parents: str) -> Iterator[tuple[str, str]]:
    for key, item in node.items():
        label = f"{parents}{words(str(key))}"
        if isinstance(item, Mapping):
            yield from _facts(item, f"{label} · ")
        elif isinstance(item, list | tuple):
            if _is_short(item):
                figures = [figure(str(key), part) for part in item]
                yield label, ", ".join(figures)
        elif item is not None:
            yield label, figure(str(key), item)


def _is_short(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list holds one to eight plain values."""
    if not 0 < len(items) <= 8:
        return False
    return not any(isinstance(item, Mapping | list) for item in items)
