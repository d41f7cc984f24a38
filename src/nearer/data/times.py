"""The one reader of points in time, for metadata, logs, settings and file formats alike."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from nearer.data.cells import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Below each bound a number counts units since 1970, of which so many make a second.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
_YEAR = re.compile(r"(19|20)\d\d", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d\d", re.ASCII)
_COMPACT = re.compile(r"(?P<day>(19|20)\d{6})(?P<time>\d{6})?", re.ASCII)
_ZONE_NAME = re.compile(r"\s*(\[[^\]]*\]|UTC|GMT)$")


def read_time(value: Any) -> datetime:
    """A point in time, in UTC.  What names no zone is in UTC.

    Takes dates and times of Python, ISO 8601 (also a year or a month alone, and 20240131), and
    numbers, as text too: seconds, milliseconds, microseconds or nanoseconds since 1970, told apart
    by their size.  Raises ValueError for anything else, and outside the years 1 to 9999.
    """
    try:
        return _aware(_parse(value)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is not a time") from None


def _parse(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    text = str(value).strip()
    if _YEAR.fullmatch(text):
        return datetime(int(text), 1, 1, tzinfo=UTC)
    if _MONTH.fullmatch(text):
        return datetime.fromisoformat(f"{text}-01")
    compact = _COMPACT.fullmatch(text)
    if compact:
        time = compact["time"] or "000000"
        return datetime.strptime(compact["day"] + time, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    number = _number(text)
    if number is not None:
        return _since_1970(number)
    zone_name = _ZONE_NAME.search(text)
    if zone_name:  # `2024-01-31 12:00 UTC`, and `…+01:00[Europe/Paris]`, as Java writes it
        text = text[: zone_name.start()]
    return datetime.fromisoformat(text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _since_1970(number: float) -> datetime:
    if math.isfinite(number):
        for bound, units in _UNITS:
            if abs(number) < bound:
                return _EPOCH + timedelta(seconds=number / units)
    raise ValueError


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    return time
