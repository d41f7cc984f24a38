"""The traffic log: never torn, never lost for a full disk, and readable whatever a kill left; logs of other systems."""

from __future__ import annotations

import errno
import gzip
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from nearer import progress
from nearer.data.clicks import read_clicks
from nearer.errors import DataError
from nearer.live.traffic import log as traffic
from nearer.live.traffic.imports import import_table, import_ubi, read_log
from nearer.live.traffic.log import Request, TrafficLog, append_whole, read_traffic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def request(number: int = 1, **more: Any) -> Request:
    return Request(
        NOON,
        f"r{number}",
        f"query {number} – ü",
        "1a2b3c4d-1",
        (("d1", 0.9), ("d2", 0.5)),
        12.5,
        **more,
    )


def test_what_is_logged_is_read_back(tmp_path: Path) -> None:
    log = TrafficLog(tmp_path)
    asked = request(filter={"team": "t1"}, user="u", arm="canary", error="none")
    log.append(asked.as_dict())
    log.append(
        {"time": NOON.isoformat(), "request_id": "r1", "feedback": [{"kind": "click", "id": "d2"}]}
    )
    log.append(
        {"time": NOON.isoformat(), "request_id": "r1", "shadow": {"generation": "x", "rbo": 0.5}}
    )
    log.append(
        {
            "time": NOON.isoformat(),
            "request_id": "unknown",
            "feedback": [{"kind": "click", "id": "d2"}],
        }
    )
    log.close()
    (found,) = read_traffic(tmp_path)
    assert found.as_dict() == asked.as_dict()
    assert [(one.kind, one.doc_id, one.value) for one in found.feedback] == [("click", "d2", 1.0)]
    assert found.shadow == {"generation": "x", "rbo": 0.5}


def test_the_format_of_the_contract_is_read(tmp_path: Path) -> None:
    line = {
        "time": "2026-03-01T12:00:00+00:00",
        "request_id": "a",
        "query": "q",
        "filter": None,
        "generation": "g",
        "results": [{"id": "b", "score": 0.5, "rank": 2}, {"id": "a", "score": 0.9, "rank": 1}],
        "latency_ms": 3,
        "feedback": [{"kind": "click", "id": "a"}],
    }
    (tmp_path / "2026-03-01.jsonl").write_text(json.dumps(line) + "\n")
    (found,) = read_traffic(tmp_path)
    assert found.results == (("a", 0.9), ("b", 0.5))
    assert found.feedback[0].doc_id == "a"


def test_days_are_chosen(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        time = NOON.replace(day=day)
        append_whole(
            tmp_path / f"{time.date()}.jsonl",
            json.dumps(request(day).as_dict() | {"time": time.isoformat()}).encode() + b"\n",
        )
    assert [
        one.request_id for one in read_traffic(tmp_path, date(2026, 3, 2), date(2026, 3, 2))
    ] == ["r2"]
    assert [one.request_id for one in read_traffic(tmp_path, since=date(2026, 3, 2))] == [
        "r2",
        "r3",
    ]


def test_a_line_that_a_power_cut_tore_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "2026-03-01.jsonl"
    path.write_bytes(json.dumps(request(1).as_dict()).encode() + b'\n{"time": "2026-03-01T12:0')
    append_whole(path, json.dumps(request(2).as_dict()).encode() + b"\n")
    assert [one.request_id for one in read_traffic(tmp_path)] == ["r1", "r2"]


BAD_LINES = (
    '{"query": "written by hand"}',
    "no JSON",
    "[1, 2]",
    "7",
    "null",
    '"query"',
    "[" * 100_000,
    json.dumps(request(9).as_dict() | {"time": "noon"}),
    json.dumps(request(9).as_dict() | {"time": "0001-01-01T00:00:00+23:59"}),
    json.dumps(request(9).as_dict() | {"results": 5}),
    json.dumps(request(9).as_dict() | {"latency_ms": float("nan")}),
    json.dumps(request(9).as_dict() | {"latency_ms": 10**400}),
    json.dumps(request(9).as_dict() | {"arm": ["canary"]}),
    json.dumps(request(9).as_dict() | {"teams": "live"}),
    json.dumps({"time": NOON.isoformat(), "request_id": "r1", "shadow": "other"}),
    json.dumps({"time": NOON.isoformat(), "request_id": "r1", "feedback": ["click"]}),
    json.dumps({"time": NOON.isoformat(), "feedback": []}),
)


class Heard(progress.Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str, level: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_line_that_is_no_request_costs_that_line_only_and_says_where(
    line: str, tmp_path: Path
) -> None:
    path = tmp_path / "2026-03-01.jsonl"
    path.write_text(
        f"{json.dumps(request(1).as_dict())}\n{line}\n{json.dumps(request(2).as_dict())}\n"
    )
    (tmp_path / "2026-99-01.jsonl").write_text("")
    skipped: list[str] = []
    heard = Heard()
    with progress.listen(heard):
        for _ in range(2):  # told once
            found = read_traffic(tmp_path, skipped=skipped)
    assert [one.request_id for one in found] == ["r1", "r2"]
    assert sorted(one.partition(": ")[0] for one in skipped) == [
        *[f"{path}:2"] * 2,
        *[f"{tmp_path}/2026-99-01.jsonl:0"] * 2,
    ]
    assert sum(f"{path}:2" in message for message in heard.messages) == 1
    assert len(heard.messages) == 2


def test_what_cannot_be_written_by_waiting_is_counted_and_the_thread_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, failing = traffic.append_whole, [True]

    def append(path: Path, lines: bytes) -> None:
        if failing:
            failing.clear()
            raise MemoryError("for once")
        plain(path, lines)

    monkeypatch.setattr(traffic, "append_whole", append)
    log = TrafficLog(tmp_path)
    log.append(request(1).as_dict())
    assert log.flush()
    assert (log.lost, log.error) == (1, "MemoryError: for once")
    log.append(request(2).as_dict())
    log.close()
    assert [one.request_id for one in read_traffic(tmp_path)] == ["r2"]
    assert log.error == ""
    assert not log._thread.is_alive()


def test_a_full_disk_tears_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.write, threading.Event()
    monkeypatch.setattr(traffic, "_RETRY", 0.02)

    def short(handle: int, data: bytes) -> int:
        if full.is_set():
            real(handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(traffic.os, "write", short)
    log = TrafficLog(tmp_path)
    log.append(request(1).as_dict())
    assert log.flush()
    full.set()
    for number in range(2, 30):
        log.append(request(number).as_dict())
    assert not log.flush(0.2)
    assert "space" in log.error
    path = tmp_path / "2026-03-01.jsonl"
    assert [json.loads(line)["request_id"] for line in path.read_text().splitlines()] == [
        "r1"
    ]  # nothing torn while it is full
    full.clear()
    assert log.flush()
    log.close()
    assert sorted(one.request_id for one in read_traffic(tmp_path)) == sorted(
        f"r{n}" for n in range(1, 30)
    )
    assert (log.lost, log.error) == (0, "")


def test_memory_is_bounded_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "_WAITING", 10)
    monkeypatch.setattr(traffic, "_RETRY", 0.02)
    blocked = tmp_path / "traffic"
    blocked.write_text("a file where the folder should be")
    log = TrafficLog(blocked)
    for number in range(50):
        log.append(request(number).as_dict())
    assert log.lost == 40
    blocked.unlink()
    assert log.flush()
    log.close()
    assert len(read_traffic(blocked)) == 10


def test_two_processes_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "2026-03-01.jsonl"
    line = json.dumps(request(1).as_dict() | {"padding": "x" * 5000}).encode() + b"\n"
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            for _ in range(50):
                append_whole(path, line)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert [json.loads(one)["request_id"] for one in path.read_text().splitlines()] == ["r1"] * 150


def written(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def imported(folder: Path, lines: Any) -> list[Request]:
    for line in lines:
        append_whole(folder / f"{line['time'][:10]}.jsonl", json.dumps(line).encode() + b"\n")
    return read_traffic(folder)


@pytest.mark.parametrize(
    "wrap", [lambda line: line, lambda line: {"_index": "ubi", "_id": "1", "_source": line}]
)
def test_ubi_logs_come_in(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    queries = [
        {
            "timestamp": "2026-03-01T12:00:00Z",
            "query_id": "q1",
            "client_id": "c",
            "user_query": "pump",
            "query_response_hit_ids": ["a", "b"],
        },
        {
            "timestamp": 1772366400000,
            "query_id": "q2",
            "user_query": "seal",
            "query_response_hit_ids": [],
        },
    ]
    clicked = {"object": {"object_id": "b"}, "position": {"ordinal": 2}}
    events = [
        {
            "timestamp": "2026-03-01T12:00:05Z",
            "action_name": "click",
            "query_id": "q1",
            "event_attributes": clicked,
        },
        {
            "timestamp": "2026-03-01T12:00:06Z",
            "action_name": "product_hover",
            "query_id": "q1",
            "event_attributes": clicked,
        },
        {
            "timestamp": "2026-03-01T12:00:09Z",
            "action_name": "purchase",
            "query_id": "q1",
            "event_attributes": clicked,
        },
    ]
    files = [
        written(tmp_path / f"{name}.jsonl", [wrap(one) for one in lines])
        for name, lines in (("q", queries), ("e", events))
    ]
    first, second = imported(tmp_path / "traffic", import_ubi(files[0], files[1], "old"))
    assert (first.query, first.results, first.generation) == (
        "pump",
        (("a", 1.0), ("b", 0.5)),
        "old",
    )
    assert [(one.kind, one.doc_id) for one in first.feedback] == [
        ("click", "b"),
        ("conversion", "b"),
    ]
    assert (second.query, second.results, second.time) == ("seal", (), NOON)


def test_csv_logs_come_in(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "timestamp,user_query,doc_id,position,clicked,session_id\n"
        "2026-03-01 12:00:00,pump,a,1,0,s1\n2026-03-01 12:00:00,pump,b,2,1,s1\n2026-03-01 12:00:00,pump,a,1,0,s2\n"
    )
    found = imported(tmp_path / "traffic", import_table(path, "old"))
    assert sorted((one.query, [hit[0] for hit in one.results]) for one in found) == [
        ("pump", ["a"]),
        ("pump", ["a", "b"]),
    ]
    assert sorted(one.feedback[0].doc_id for one in found if one.feedback) == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,query\n2026-03-01,pump\n", "no column for doc_id"),
        ("time,query,doc_id\nyesterday,pump,a\n", "log.csv:2: 'yesterday' is not a time"),
        (
            "time,query,doc_id,rank\n2026-03-01,pump,a,first\n",
            "log.csv:2: rank: 'first' is not a number",
        ),
    ],
)
def test_csv_that_is_no_log_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        list(import_table(tmp_path / "log.csv", "old"))


HEADER = "time,query,doc_id,rank,clicked,latency_ms\n"
ROW = "2026-11-20T10:00:00Z,bread,d0,1,1,12\n"


def test_cells_that_say_no_are_no_clicks(tmp_path: Path) -> None:
    rows = [f"2026-11-20T10:00:00Z,bread,d{i},{i + 1},{cell},12\n" for i, cell in enumerate(
        ("1.0", "0.0", "nan", "N", "null", "no-clicks", "")
    )]  # fmt: skip
    (tmp_path / "log.csv").write_text(HEADER + "".join(rows))
    (found,) = imported(tmp_path / "traffic", import_table(tmp_path / "log.csv", "old"))
    assert [one.doc_id for one in found.feedback] == ["d0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + ROW.replace("d0,1,1", "d0,1,maybe"), ":2: clicked: 'maybe' is neither yes nor no"),
        (HEADER + ROW.replace("12", '"12,5"'), ":2: latency_ms: '12,5' is not a number"),
        (HEADER + ROW + ROW.replace("12", "12 ms"), ":3: latency_ms: '12 ms' is not a number"),
        (HEADER + ROW + ROW.replace("d0,1,1", "d0,1.5,1"), ":3: rank: 1.5 is not a whole number"),
        ((HEADER + ROW).replace("bread", "caf\xe9").encode("latin1"), ":2: not UTF-8"),
        ((HEADER + ROW).replace("12", "12 ms").encode("utf-16"), ":2: latency_ms: '12 ms'"),
        (HEADER + ROW.replace("bread", '"toys ""r us') + ROW, ":2: not valid CSV"),
        (HEADER + ROW.replace("2026-11-20T10:00:00Z", "0001-01-01T00:00:00+05:00"), ":2: .*not a time"),
    ],
    ids=["flag", "comma", "unit", "rank", "latin1", "utf-16", "open quote", "year 1"],
)  # fmt: skip
def test_a_bad_table_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        list(read_log(path, None, "old"))


def test_tables_come_in_every_format_and_packed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"time": NOON, "query": "pump", "doc_id": 0, "rank": 1.0, "clicked": True, "user": 0},
        {"time": NOON, "query": "pump", "doc_id": 7, "rank": 2.0, "clicked": None, "user": 0},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    lines = [json.dumps(row | {"time": NOON.timestamp()}) + "\n" for row in rows]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    table = "time,query,doc_id,rank,clicked,user\n" + "".join(
        f"{NOON.isoformat()},pump,{row['doc_id']},{row['rank']},{row['clicked'] or ''},0\n" for row in rows
    )  # fmt: skip
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "log.tsv").write_text(table.replace(",", "\t"))
    seen = set()
    for name in ("log.parquet", "log.jsonl", "log.csv.gz", "log.tsv"):
        (found,) = imported(tmp_path / f"{name} read", read_log(tmp_path / name, None, "old"))
        clicked = tuple(one.doc_id for one in found.feedback)
        seen.add((found.time, found.query, found.results, clicked, found.user))
    assert len(seen) == 1
    ((time, _, results, clicked, user),) = seen
    assert (time, [hit[0] for hit in results], clicked) == (NOON, ["0", "7"], ("0",))
    assert user


CLICK = {"action_name": "click", "query_id": "u1", "timestamp": "2026-11-20T10:00:30Z"}


@pytest.mark.parametrize(
    ("event", "clicked", "reason"),
    [
        ({"event_attributes": {"object": {"object_id": 0}}}, ["0"], None),
        ({"event_attributes": '{"object": {"object_id": "d0"}}'}, ["d0"], None),
        ({"event_attributes": [{"object": {"object_id": "d0"}}]}, [], "event_attributes"),
        ({"event_attributes": {"object": "d0"}}, [], "object is not an object"),
        ({"event_attributes": {"object": {}}}, [], "name no document"),
        ({"event_attributes": {"object": {"object_id": "d0"}}, "timestamp": "?"}, [], "not a time"),
        ({"event_attributes": {"object": {"object_id": "d0"}}, "query_id": None}, [], "query_id"),
        ({"_source": "no json"}, [], "_source"),
        (
            {"action_name": "dwell", "event_attributes": {"object": {"object_id": "d0"}, "dwell_time": None}},
            [],
            "dwell_time",
        ),
        (
            {"action_name": "dwell", "event_attributes": {"object": {"object_id": "d0"}, "dwell_time": "3.4 s"}},
            [],
            "dwell_time",
        ),
    ],
)  # fmt: skip
def test_an_event_of_another_shape_is_left_out_and_the_import_says_so(
    tmp_path: Path, event: dict[str, Any], clicked: list[str], reason: str | None
) -> None:
    from typer.testing import CliRunner

    from nearer.cli import app

    (tmp_path / "nearer.yaml").write_text("data: {corpus: corpus.jsonl}\n")
    query = {"query_id": "u1", "user_query": "bread", "timestamp": "2026-11-20T10:00:00Z"}
    paths = [
        str(written(tmp_path / "q.jsonl", [query | {"query_response_hit_ids": ["d0", 0]}])),
        str(written(tmp_path / "e.jsonl", [CLICK | event])),
    ]
    run = ["log", "import", paths[0], "--events", paths[1], "-c", str(tmp_path / "nearer.yaml")]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    (found,) = read_traffic(tmp_path / "traffic")
    assert [one.doc_id for one in found.feedback] == clicked
    if reason:
        assert "1 events left out" in result.output
        assert reason in result.output


def test_a_traffic_log_with_feedback_of_another_shape_says_where(tmp_path: Path) -> None:
    lines = [request().as_dict(), {"time": NOON.isoformat(), "request_id": "r1", "feedback": [{}]}]
    written(tmp_path / "2026-03-01.jsonl", lines)
    skipped: list[str] = []
    assert len(read_traffic(tmp_path, skipped=skipped)) == 1
    assert [one.partition(": ")[0] for one in skipped] == [f"{tmp_path}/2026-03-01.jsonl:2"]
    (tmp_path / "2026-03-01.jsonl").rename(tmp_path / "2026-13-01.jsonl")
    assert read_traffic(tmp_path, skipped=skipped) == []
    assert "its name is no day" in skipped[-1]


def test_clicks_drawn_out_of_the_log_become_judgments(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nearer.cli import app

    (tmp_path / "nearer.yaml").write_text("data: {corpus: corpus.jsonl}\n")
    log = TrafficLog(tmp_path / "traffic")
    for number in range(4):
        log.append(request(number, user=f"u{number}").as_dict() | {"query": "the same"})
        log.append(
            {
                "time": NOON.isoformat(),
                "request_id": f"r{number}",
                "feedback": [{"kind": "click", "id": "d2"}],
            }
        )
    log.close()
    out = tmp_path / "clicks.jsonl"
    result = CliRunner().invoke(
        app, ["log", "clicks", "-c", str(tmp_path / "nearer.yaml"), "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    found = read_clicks(out)
    assert [list(grades) for grades in found.judgments.values()] == [["d2"]]


def test_an_export_that_overlaps_the_last_one_adds_what_is_new(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nearer.cli import app

    (tmp_path / "nearer.yaml").write_text("data: {corpus: corpus.jsonl}\n")
    path = tmp_path / "log.csv"
    lines = [
        "time,query,doc_id,clicked",
        "2026-03-01T12:00:00,pump,a,1",
        "2026-03-01T12:00:01,seal,b,1",
    ]
    for count in (2, 3, 3):
        path.write_text("\n".join(lines[:count]) + "\n")
        assert (
            CliRunner()
            .invoke(app, ["log", "import", str(path), "-c", str(tmp_path / "nearer.yaml")])
            .exit_code
            == 0
        )
    found = read_traffic(tmp_path / "traffic")
    assert [(one.query, len(one.feedback)) for one in found] == [("pump", 1), ("seal", 1)]
