"""The one reader of durations: `10m`, `1h30m`, `90 s`, or a number of seconds."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_LONG_NAMES = re.compile(r"(seconds?|secs?|minutes?|mins?|hours?|days?)")


def read_duration(value: Any) -> float:
    """Seconds, of a number or a text such as `45s`, `10m`, `1h30m`, `1.5 hours`.

    Raises ValueError for anything else, and for what is not longer than nothing.
    """
    seconds = _seconds(value)
    if seconds is None or not math.isfinite(seconds) or seconds <= 0:
        raise ValueError("use a time such as 45s, 10m or 1h30m, or a number of seconds")
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).replace(" ", "").lower()
    text = _LONG_NAMES.sub(lambda name: name[0][0], text)
    try:
        return float(text)
    except ValueError:
        pass
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


#: A setting that is a time span: seconds, once it is read.
Duration = Annotated[float, BeforeValidator(read_duration)]
