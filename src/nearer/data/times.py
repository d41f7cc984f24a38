"""The one reader of points in time, for metadata, logs, settings and file formats alike."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Any

from nearer.data.cells import as_float, shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Below each bound a number counts units since 1970, of which so many make a second.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
_YEAR = re.compile(r"(19|20)\d\d", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d\d", re.ASCII)
_COMPACT = re.compile(r"(?P<day>(19|20)\d{6})(?P<time>\d{6})?", re.ASCII)
_WHOLE = re.compile(r"(\d+)\.0*", re.ASCII)
_ZONE_NAME = re.compile(r"\s*(\[[^\]]*\]|UTC|GMT)$")


def read_time(value: Any) -> datetime:
    """A point in time, in UTC.  What names no zone is in UTC.

    Takes dates and times of Python, ISO 8601 (also a year or a month alone, and 20240131), and
    numbers, as text too: seconds, milliseconds, microseconds or nanoseconds since 1970, told apart
    by their size; a whole number may end in .0, as pandas writes years beside gaps.  Digits may be
    of any script.  Raises ValueError for anything else, and outside the years 1 to 9999.
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
    text = _in_ascii_digits(str(value).strip())
    whole = _WHOLE.fullmatch(text)
    if whole:
        text = whole[1]
    if _YEAR.fullmatch(text):
        return datetime(int(text), 1, 1, tzinfo=UTC)
    if _MONTH.fullmatch(text):
        return datetime.fromisoformat(f"{text}-01")
    compact = _COMPACT.fullmatch(text)
    if compact:
        time = compact["time"] or "000000"
        return datetime.strptime(compact["day"] + time, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    number = as_float(text)
    if not math.isnan(number):
        return _since_1970(number)
    zone_name = _ZONE_NAME.search(text)
    if zone_name:  # `2024-01-31 12:00 UTC`, and `…+01:00[Europe/Paris]`, as Java writes it
        text = text[: zone_name.start()]
    return datetime.fromisoformat(text)


def _in_ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in text)


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
