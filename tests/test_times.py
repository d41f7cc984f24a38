"""One reader of points in time, wherever one is read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from nearer.config import SplitSettings
from nearer.data.splits import make_splits
from nearer.data.times import read_time
from nearer.errors import DataError
from nearer.types import Query

NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)
SECONDS = 1_714_996_800


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2024-05-06T12:00:00Z",
        "2024-05-06 12:00:00",
        " 2024-05-06T14:00:00+02:00 ",
        "2024-05-06T12:00:00.000000000Z",
        "2024-05-06 12:00:00 UTC",
        "2024-05-06T14:00:00+02:00[Europe/Paris]",
        "20240506T120000",
        "20240506120000",
        SECONDS,
        float(SECONDS),
        str(SECONDS),
        f"{SECONDS}.0",
        SECONDS * 1_000,
        SECONDS * 1_000_000,
        SECONDS * 1_000_000_000,
        str(SECONDS * 1_000),
    ],
    ids=str,
)
def test_every_way_to_write_a_time_gives_the_same_time(value: Any) -> None:
    assert read_time(value) == NOON


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2024, 5, 6), datetime(2024, 5, 6, tzinfo=UTC)),
        ("2024-05-06", datetime(2024, 5, 6, tzinfo=UTC)),
        (20240506, datetime(2024, 5, 6, tzinfo=UTC)),
        ("2024-05", datetime(2024, 5, 1, tzinfo=UTC)),
        (2024, datetime(2024, 1, 1, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
    ids=str,
)
def test_days_months_years_and_the_epoch_are_told_apart(value: Any, expected: datetime) -> None:
    assert read_time(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "infinity",
        "10000-01-01",
        "0044-03-15 BC",
        "2024-02-30",
        "soon",
        "",
        None,
        True,
        float("nan"),
        float("inf"),
        1e30,
        10**5000,
        [SECONDS],
        "2024-05-06 12:00:00 Mars/Phobos",
        "0001-01-01T00:00:00+14:00",
    ],
    ids=lambda value: str(type(value)) if isinstance(value, int) else str(value),
)
def test_what_is_no_time_is_a_value_error_and_never_another(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - also Python's own, for numbers of 5,000 digits
        read_time(value)


def test_a_split_by_time_orders_all_ways_to_write_it() -> None:
    asked = [
        "2024-05-06T12:00:00Z",
        SECONDS + 60,
        (SECONDS + 120) * 1000,
        "2024-05-06 14:03:00+02:00",
    ]
    words = ("bread", "volcano", "bicycle", "glacier")
    queries = {
        f"q{i}": Query(f"q{i}", words[i], metadata={"time": time}) for i, time in enumerate(asked)
    }
    judgments = {query_id: {"d": 1} for query_id in queries}
    settings = SplitSettings(by="time", dev=0.25, test=0.25)
    ids = make_splits(queries, judgments, settings, 7, 0.9, "time").ids
    assert ids == {"train": ["q0", "q1"], "dev": ["q2"], "test": ["q3"]}


@pytest.mark.parametrize("time", ["infinity", 1e30, True])
def test_a_split_by_time_names_the_query_whose_time_cannot_be_read(time: Any) -> None:
    queries = {"q": Query("q", "text", metadata={"time": time})}
    with pytest.raises(DataError, match="query 'q' has no readable time in 'time'"):
        make_splits(queries, {"q": {"d": 1}}, SplitSettings(by="time"), 7, 0.9, "time")


SOURCE = Path(__file__).parents[1] / "src" / "nearer"


def test_no_other_module_parses_times_of_users() -> None:
    """`fromisoformat` of days that nearer itself wrote into file names and series is another thing."""
    parsers = ("datetime.fromisoformat", "strptime(")
    own = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if any(parser in path.read_text(encoding="utf-8") for parser in parsers)
    }
    assert own == {"data/times.py"}
