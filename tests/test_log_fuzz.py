"""Logs of any shape: what is no log is refused with file and line, and nothing else is ever raised."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearer.data import cells
from nearer.data.clicks import read_clicks
from nearer.data.times import read_time
from nearer.errors import DataError
from nearer.live.traffic.imports import import_table, import_ubi, read_log
from nearer.live.traffic.log import append_whole, read_traffic

FUZZED = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TIMES = st.sampled_from(
    [
        "2026-11-20T10:00:00Z",
        1795168800000,
        "0001-01-01T00:00:00+05:00",
        "nan",
        1e300,
        -1,
        "20261120",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\ud800", "d0", "q1", "click", "1e999", "0", "NaN", "[", '{"object": 1}']),
    TIMES,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def records_of(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Records of a kind, of which any part may be missing or be anything."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES))


TARGET = st.one_of(VALUES, records_of("object_id", "internal_id"))
ATTRIBUTES = st.one_of(VALUES, st.fixed_dictionaries({"object": TARGET, "dwell_time": VALUES}))
EVENT = st.fixed_dictionaries(
    {
        "action_name": st.one_of(st.sampled_from(["click", "dwell", "purchase"]), VALUES),
        "query_id": st.one_of(st.just("q1"), VALUES),
        "timestamp": st.one_of(TIMES, VALUES),
        "event_attributes": ATTRIBUTES,
    }
)
UBI_QUERY = st.fixed_dictionaries(
    {
        "query_id": st.one_of(st.just("q1"), VALUES),
        "user_query": st.one_of(st.just("bread"), VALUES),
        "timestamp": st.one_of(TIMES, VALUES),
        "query_response_hit_ids": st.one_of(st.just(["d0", 0]), VALUES),
        "client_id": VALUES,
    }
)
RESULT = st.fixed_dictionaries(
    {
        "time": st.one_of(TIMES, VALUES),
        "query": st.one_of(st.just("bread"), VALUES),
        "doc_id": st.one_of(st.sampled_from(["d0", "d1", 0, ""]), VALUES),
    },
    optional=dict.fromkeys(
        ("rank", "score", "clicked", "user", "latency_ms", "request_id"), VALUES
    ),
)
HIT = st.one_of(VALUES, records_of("id", "rank", "score", "kind", "time", "value"))
CLICK_LOG = st.fixed_dictionaries(
    {
        "query": st.one_of(st.just("bread"), VALUES),
        "results": st.one_of(st.lists(HIT, max_size=3), VALUES),
    },
    optional={
        "clicks": st.one_of(st.lists(HIT, max_size=3), VALUES),
        **dict.fromkeys(("query_id", "filter", "time", "session", "feedback"), VALUES),
    },
)
TRAFFIC = st.fixed_dictionaries(
    {},
    optional={
        "results": st.one_of(st.lists(HIT, max_size=3), VALUES),
        "feedback": st.one_of(st.lists(HIT, max_size=3), VALUES),
        **dict.fromkeys(
            ("time", "request_id", "query", "generation", "latency_ms", "filter", "shadow"), VALUES
        ),
    },
)


def wrapped(record: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A record as it is, in the envelope of a hit, or in one that holds anything."""
    return st.one_of(
        record,
        st.builds(lambda one: {"_source": one}, record),
        st.builds(lambda one: {"_source": json.dumps(one)}, record),
        st.builds(lambda one: {"_source": one}, VALUES),
    )


def has_a_place(error: DataError) -> None:
    assert error.where


def is_short(error: ValueError) -> None:
    assert len(str(error)) < 120


def only_data_errors(read: Callable[[Path], Iterator[Any]], folder: Path) -> None:
    """Lines that come out are written and read back; whatever is refused is refused as DataError."""
    try:
        for line in read(folder):
            text = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            append_whole(folder / "traffic" / f"{line['time'][:10]}.jsonl", text)
    except DataError as error:
        has_a_place(error)
        return
    read_traffic(folder / "traffic")


def written(folder: Path, lines: list[Any]) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_ubi_queries_of_any_shape() -> None:
    @FUZZED
    @given(st.lists(wrapped(UBI_QUERY), max_size=4))
    def fuzz(lines: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            only_data_errors(lambda f: import_ubi(written(f, lines), None, "old"), Path(name))

    fuzz()


def test_ubi_events_of_any_shape_are_left_out_and_counted() -> None:
    query = {"query_id": "q1", "user_query": "bread", "timestamp": 0}

    @FUZZED
    @given(st.lists(wrapped(EVENT), max_size=4))
    def fuzz(lines: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder, skipped = Path(name), Counter[str]()
            (folder / "q.jsonl").write_text(json.dumps(query))
            events = written(folder, lines)
            found = list(import_ubi(folder / "q.jsonl", events, "old", skipped))
            left_out = sum(n for why, n in skipped.items() if "left out" in why)
            assert len(found) - 1 + left_out == len(lines)

    fuzz()


@pytest.mark.parametrize("reader", [import_table, lambda path, name: read_log(path, None, name)])
def test_tables_of_any_shape(reader: Any) -> None:
    @FUZZED
    @given(st.lists(RESULT, max_size=5))
    def fuzz(lines: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            only_data_errors(lambda f: reader(written(f, lines), "old"), Path(name))

    fuzz()


def test_csv_of_any_bytes() -> None:
    header = b"time,query,doc_id,rank,clicked,latency_ms\n"
    row = b"2026-11-20T10:00:00Z,bread,d0,1,1,12\n"

    @FUZZED
    @given(st.lists(st.one_of(st.just(row), st.binary(max_size=60)), max_size=4))
    def fuzz(parts: list[bytes]) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "log.csv"
            path.write_bytes(header + b"".join(parts))
            only_data_errors(lambda _: read_log(path, None, "old"), Path(name))

    fuzz()


def test_click_logs_of_any_shape() -> None:
    @FUZZED
    @given(st.lists(CLICK_LOG, min_size=1, max_size=5))
    def fuzz(lines: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            try:
                found = read_clicks(written(Path(name), lines))
            except DataError as error:
                has_a_place(error)
                return
            json.dumps([one.metadata for one in found.queries.values()], default=dict).encode()

    fuzz()


def test_traffic_logs_of_any_shape() -> None:
    @FUZZED
    @given(st.lists(TRAFFIC, max_size=5))
    def fuzz(lines: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "2026-03-01.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            try:
                read_traffic(Path(name))
            except DataError as error:
                has_a_place(error)

    fuzz()


@given(VALUES)
@FUZZED
def test_cells_say_what_they_cannot_read(value: Any) -> None:
    for parse in (cells.text, cells.number, cells.yes_or_no, read_time):
        try:
            parse(value)
        except ValueError as error:
            is_short(error)


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "0",
        "0.0",
        0,
        0.0,
        "nan",
        float("nan"),
        "N",
        "null",
        None,
        "no-clicks",
        "FALSE",
        False,
        "-",
    ],
)
def test_cells_that_say_no(cell: Any) -> None:
    assert cells.yes_or_no(cell) is False


@pytest.mark.parametrize("cell", ["1", "1.0", 1, 1.0, "3", "Y", "yes", "TRUE", True, " true "])
def test_cells_that_say_yes(cell: Any) -> None:
    assert cells.yes_or_no(cell) is True


@pytest.mark.parametrize("cell", ["maybe", "-1", "inf", "d0", "2026-11-20", ["d0"], {}, "1,0"])
def test_cells_that_say_neither_are_refused(cell: Any) -> None:
    with pytest.raises(ValueError, match="neither yes nor no"):
        cells.yes_or_no(cell)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-20T10:00:00Z",
        "2026-11-20T11:00:00+01:00",
        "2026-11-20 10:00:00",
        "2026-11-20T10:00:00.000000000Z",
        1795168800,
        "1795168800",
        1795168800000,
        "1795168800000.0",
        1795168800000000,
        1795168800000000000,
    ],
)
def test_one_moment_in_every_writing(value: Any) -> None:
    assert read_time(value).isoformat() == "2026-11-20T10:00:00+00:00"
