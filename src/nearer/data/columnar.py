"""Rows of Arrow tables (Parquet files and `datasets` folders), also of values that Python cannot hold.

Dates outside the years 1 to 9999 and times finer than a microsecond become text; a time in an
unknown zone is given in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.sources import bad, is_dataset
from nearer.data.texts import BROKEN, open_bytes

_EPOCH = datetime(1970, 1, 1)
_BATCH = 1024
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_UNITS_OF_DATES = {"date32[day]": "D", "date64[ms]": "ms"}


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file.  Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_bytes(path) as handle:
            file = pq.ParquetFile(pa.PythonFile(handle, mode="r"))
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from _rows(batch, path)
    except (pa.ArrowException, *BROKEN) as error:
        raise bad(
            f"not a readable parquet file: {_first_line(error)}",
            path,
            "copy or write the file anew",
        ) from None


def dataset_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of all splits of a `datasets` folder.  Raises DataError."""
    if not is_dataset(path):
        raise bad(
            "a folder, but not one that datasets.load_from_disk reads", path, "name a file in it"
        )
    import datasets
    import pyarrow as pa

    try:
        loaded = datasets.load_from_disk(str(path))
        parts = loaded.values() if isinstance(loaded, dict) else (loaded,)
        for part in parts:
            for table in part.with_format("arrow").iter(batch_size=_BATCH):
                yield from _rows(table, path)
    except (pa.ArrowException, *BROKEN, ValueError, KeyError, TypeError) as error:
        raise bad(
            f"not a readable `datasets` folder: {_first_line(error)}",
            path,
            "write it anew with save_to_disk",
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _rows(table: Any, path: Path) -> Iterator[dict[str, Any]]:
    names = list(table.column_names)
    for name in names:
        if names.count(name) > 1:
            raise bad(f"column {name!r} appears twice", path, "rename one of them")
    columns = [_column(table.column(name), name, path) for name in names]
    for position in range(table.num_rows):
        yield {name: column[position] for name, column in zip(names, columns, strict=True)}


def _column(column: Any, name: str, path: Path) -> list[Any]:
    """Values of a column: all at once where Python holds them, else one by one."""
    import pyarrow as pa

    try:
        column = _microseconds(column)
        if "[ns" not in str(column.type):  # Arrow hands nanoseconds to pandas where it is installed
            return list(column.to_pylist())
    except UnicodeDecodeError:
        raise bad(
            f"column {name!r} holds text that is not UTF-8", path, "write the file anew as UTF-8"
        ) from None
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    return [_value(scalar) for scalar in column]


def _microseconds(column: Any) -> Any:
    """The same points in time in microseconds; unchanged where that would lose digits."""
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type) or column.type.unit != "ns":
        return column
    try:
        return column.cast(pa.timestamp("us", column.type.tz))
    except pa.ArrowException:
        return column


def _value(scalar: Any) -> Any:
    import pyarrow as pa

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_dictionary(kind):
        return _value(scalar.value)
    if pa.types.is_map(kind):
        return [tuple(_value(part) for part in pair.values()) for pair in scalar.values]
    if pa.types.is_struct(kind):
        return {key: _value(inner) for key, inner in scalar.items()}
    if isinstance(scalar, pa.ListScalar):
        return [_value(inner) for inner in scalar.values]
    if pa.types.is_temporal(kind):
        return _temporal(scalar)
    return scalar.as_py()


def _temporal(scalar: Any) -> Any:
    """A date, time or duration: as Python has it, or as text where Python cannot hold it."""
    import pyarrow as pa

    kind = scalar.type
    if pa.types.is_date(kind):
        return _date(scalar)
    if not hasattr(kind, "unit"):  # an interval of months, days and nanoseconds
        return str(scalar)
    if pa.types.is_timestamp(kind):
        return _timestamp(scalar.value, kind)
    return _length(scalar.value, kind.unit, of_day=pa.types.is_time(kind))


def _length(ticks: int, unit: str, of_day: bool) -> Any:
    """A duration, or a time of day, which Arrow counts from midnight."""
    per_second = _PER_SECOND[unit]
    try:
        length = timedelta(microseconds=ticks * 10**6 // per_second)
        too_fine = per_second == 10**9 and ticks % 1000
        if too_fine or (of_day and not timedelta(0) <= length < timedelta(days=1)):
            return f"{ticks} {unit}"
    except OverflowError:
        return f"{ticks} {unit}"
    return (datetime.min + length).time() if of_day else length


def _date(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return _far_off(scalar.value, _UNITS_OF_DATES[str(scalar.type)]).partition("T")[0]


def _far_off(ticks: int, unit: Any) -> str:
    """A point in time as ISO 8601 has it, whatever its year."""
    text = str(np.datetime64(ticks, unit))
    if text.startswith("-"):  # NumPy writes -044 for the year -0044
        year, hyphen, rest = text[1:].partition("-")
        return f"-{year:0>4}{hyphen}{rest}"
    return text


def _timestamp(ticks: int, kind: Any) -> Any:
    per_second = _PER_SECOND[kind.unit]
    as_text = _far_off(ticks, kind.unit).replace("T", " ") + ("+00:00" if kind.tz else "")
    if per_second == 10**9 and ticks % 1000:
        return as_text  # finer than Python's microseconds
    try:
        moment = _EPOCH + timedelta(microseconds=ticks * 10**6 // per_second)
        if kind.tz:
            return moment.replace(tzinfo=UTC).astimezone(_zone(kind.tz))
    except OverflowError:
        return as_text
    return moment


def _zone(name: str) -> Any:
    """The time zone of that name, UTC where it is unknown."""
    import pyarrow as pa

    try:
        return pa.lib.string_to_tzinfo(name)
    except (ValueError, KeyError, pa.ArrowException):
        return UTC
