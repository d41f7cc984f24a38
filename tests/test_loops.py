"""Background loops of the service: none ends, a guard that cannot see stops what it guards, half-sent requests cost nobody."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from generations_kit import World, documents
from nearer.live.web import rollouts
from nearer.live.web.metrics import Metrics
from nearer.live.web.process import raise_open_files
from nearer.live.web.service import ANSWERING, Service, Tokens, server_of
from nearer.live.web.supervisor import Supervisor
from test_serve import ask, made, models, start, wait_for  # noqa: F401 - fixtures


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    """A project with one active generation, which is looked at often."""
    shop = World(tmp_path / "shop", models[0]).write(documents(range(30)))
    shop.settings["serve"] = {"refresh": 0.05, "body_timeout": 1.0, "max_body": 20_000, "queue": 8}
    (shop.root / "nearer.yaml").write_text(json.dumps(shop.settings))
    shop.generations.cutover(made(shop, models[0]))
    return shop


@pytest.fixture
def candidate(world: World, models: tuple[Path, Path]) -> str:
    return made(world, models[1])


# -- the supervisor -------------------------------------------------------------------------------


def sample(metrics: Metrics, name: str, loop: str) -> float:
    value = metrics._registry.get_sample_value(name, {"loop": loop})
    assert value is not None
    return value


def test_a_loop_that_ends_or_fails_is_started_again_counted_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nearer.live.web.supervisor._PAUSE", 0.0)
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    rounds: list[int] = []

    async def run() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            return
        if len(rounds) < 4:
            raise RecursionError("no NearerError, no OSError")
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(supervisor.keep("loop", run))
        while len(rounds) < 4:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert sample(metrics, "nearer_loop_failures_total", "loop") == 3
    assert sample(metrics, "nearer_loop_failing", "loop") == 1
    assert "RecursionError" in supervisor.problems()["loop"]
    supervisor.worked("loop")
    assert supervisor.problems() == {}
    assert sample(metrics, "nearer_loop_failing", "loop") == 0


def test_a_thread_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearer.live.web.supervisor._PAUSE", 0.0)
    metrics = Metrics()
    rounds: list[int] = []

    def run() -> None:
        rounds.append(1)
        if len(rounds) < 3:
            raise TypeError("for once")

    Supervisor(metrics).thread("thread", run).join(10)
    assert len(rounds) == 3
    assert sample(metrics, "nearer_loop_failures_total", "thread") == 2


ACTIVE_OF_ANOTHER_SHAPE: dict[str, Callable[[str], str]] = {
    "null": lambda good: "null",
    "a list": lambda good: "[]",
    "a number": lambda good: "7",
    "nested too deep": lambda good: "[" * 100_000,
    "an id that is a list": lambda good: json.dumps(json.loads(good) | {"id": ["a"]}),
    "no text": lambda good: "\x00\x00",
}


@pytest.mark.parametrize("shape", ACTIVE_OF_ANOTHER_SHAPE)
def test_active_of_another_shape_is_survived_told_and_followed_again(
    shape: str, world: World, start: Any, candidate: str
) -> None:
    client, _ = start()
    live = world.generations.pointer().id
    active = world.root / "generations" / "ACTIVE"
    good = active.read_text()
    active.write_text(ACTIVE_OF_ANOTHER_SHAPE[shape](good))
    wait_for(lambda: "follow ACTIVE" in client.get("/readyz").json()["problems"])
    assert ask(client)["generation"] == live
    assert 'nearer_loop_failing{loop="follow ACTIVE"} 1.0' in client.get("/metrics").text
    active.write_text(good)
    world.generations.cutover(candidate, override="test")
    wait_for(lambda: ask(client)["generation"] == candidate)
    wait_for(lambda: client.get("/readyz").json() == {"accepted": True, "problems": {}})


def test_a_truncated_vector_file_is_survived_and_a_later_cutover_followed(
    world: World, start: Any, candidate: str
) -> None:
    client, _ = start()
    live = world.generations.pointer().id
    file = sorted((world.root / "vectors" / candidate).glob("*.npy"))[-1]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    world.generations.cutover(candidate, override="test")
    wait_for(lambda: client.get("/readyz").json()["problems"])
    assert ask(client)["generation"] == live
    file.write_bytes(whole)
    wait_for(lambda: ask(client)["generation"] == candidate)


def test_a_search_loop_that_fails_tells_who_waits_and_answers_again(
    world: World, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = start()
    plain = service.batcher._thread.submit
    broken = [True]

    def submit(*args: Any) -> Any:
        if broken:
            raise RuntimeError("cannot start a thread")
        return plain(*args)

    monkeypatch.setattr(service.batcher._thread, "submit", submit)
    assert client.post("/search", json={"query": "pump"}).status_code == 503
    wait_for(lambda: client.get("/readyz").status_code == 503)
    assert ANSWERING in client.get("/readyz").json()["what"]
    broken.clear()
    wait_for(lambda: client.post("/search", json={"query": "pump"}).status_code == 200)


# -- guards ---------------------------------------------------------------------------------------


def stopped(world: World) -> dict[str, Any]:
    """The line of history that says that the candidate was stopped, once it is there."""
    wait_for(lambda: world.generations.history()[-1]["action"] == "stop")
    return world.generations.history()[-1]


def tried(world: World, generation: str, mode: str = "canary") -> None:
    world.generations.start_rollout(generation, mode, 0.9)


def test_bad_lines_do_not_blind_the_guard(
    world: World, start: Any, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "_GUARD", 0.1)
    log = world.root / "traffic" / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    log.parent.mkdir(exist_ok=True)
    log.write_text('{"query": "written by hand"}\n')
    client, service = start()
    tried(world, candidate)
    wait_for(lambda: service.rollouts._candidate is not None)
    monkeypatch.setattr(service.rollouts._candidate, "search", None)  # every answer of it fails
    for number in range(400):
        ask(client, f"pump {number}", user=f"u{number}")
        if world.generations.rollout() is None:
            break
    stop = stopped(world)
    assert "failed" in stop["why"]
    assert "nearer_traffic_log_skipped_lines 1.0" in client.get("/metrics").text


@pytest.mark.parametrize("mode", ["canary", "interleave"])
@pytest.mark.parametrize("blind", ["cannot read", "cannot write"])
def test_a_guard_that_cannot_see_stops_what_it_guards(
    mode: str, blind: str, world: World, start: Any, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "_GUARD", 0.1)
    _, service = start()
    tried(world, candidate, mode)
    wait_for(lambda: service.rollouts._candidate is not None)
    if blind == "cannot read":
        today = world.root / "traffic" / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
        today.mkdir(parents=True)  # as an input error: the file is there and cannot be read
    else:
        monkeypatch.setattr(service.log, "error", "No space left on device")
    stop = stopped(world)
    assert "its guard cannot see" in stop["why"]
    assert service.rollouts._candidate is None


def test_a_candidate_that_cannot_be_stopped_on_disk_answers_nobody(
    world: World, start: Any, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "_GUARD", 0.1)
    client, service = start()
    live = world.generations.pointer().id
    full = [True]
    generations = service.searcher.generations
    plain = generations.stop_rollout

    def stop(**values: Any) -> Any:
        if full:
            raise OSError(28, "No space left on device")
        return plain(**values)

    monkeypatch.setattr(generations, "stop_rollout", stop)
    monkeypatch.setattr(service.log, "error", "No space left on device")
    tried(world, candidate)
    wait_for(lambda: service.rollouts._condemned is not None)
    for number in range(20):
        assert ask(client, user=f"u{number}")["generation"] == live
    assert "follow ROLLOUT" in client.get("/readyz").json()["problems"]
    full.clear()
    wait_for(lambda: world.generations.rollout() is None)


def test_a_rollout_that_cannot_be_read_lets_nobody_meet_the_candidate(
    world: World, start: Any, candidate: str
) -> None:
    client, service = start()
    live = world.generations.pointer().id
    tried(world, candidate)
    wait_for(lambda: service.rollouts._candidate is not None)
    (world.root / "generations" / "ROLLOUT").write_text("null")
    wait_for(lambda: service.rollouts._candidate is None)
    assert {ask(client, user=f"u{number}")["generation"] for number in range(20)} == {live}


def test_nobody_meets_a_candidate_before_its_canary_queries_were_judged(
    world: World, start: Any, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, service = start()
    met: list[Any] = []

    def asked(_: Any) -> str:
        met.append(service.rollouts.plan("anybody").instead)
        raise ValueError("the dev split cannot be read")

    monkeypatch.setattr(service.rollouts, "_canary_queries", asked)
    tried(world, candidate)
    wait_for(lambda: met)
    wait_for(lambda: world.generations.rollout() is None)
    assert met == [None]


# -- half-sent requests ---------------------------------------------------------------------------

_HEAD = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def address(world: World) -> Iterator[tuple[str, int]]:
    """A real server, with one second for a request to arrive."""
    service = Service(world.generations, Tokens())
    service.searcher.refresh()
    service.problem = ""
    server = server_of(service, 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join(30)


def sent(address: tuple[str, int], data: bytes) -> socket.socket:
    client = socket.create_connection(address, timeout=20)
    client.sendall(data)
    return client


def received(client: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    while True:
        try:
            data = client.recv(65536)
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data


def test_a_body_that_does_not_arrive_gets_408_and_the_connection_ends(
    address: tuple[str, int],
) -> None:
    for rest in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        with sent(address, _HEAD + rest) as client:
            answer = received(client)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()


def test_a_head_that_does_not_arrive_ends_the_connection(address: tuple[str, int]) -> None:
    for start_of_head in (b"", b"POST /sea", _HEAD):
        with sent(address, start_of_head) as client:
            assert received(client) == b""
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with sent(address, whole + _HEAD) as client:  # the second one of a connection
        assert received(client).count(b"HTTP/1.1 200") == 1


def test_a_body_that_trickles_does_not_reset_the_clock(address: tuple[str, int]) -> None:
    with sent(address, _HEAD + b"Content-Length: 1000\r\n\r\n") as client:
        client.settimeout(0.1)
        answer = b""
        for _ in range(200):
            try:
                client.sendall(b" ")
                answer = client.recv(65536)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_an_endless_body_gets_413_and_the_connection_ends(address: tuple[str, int]) -> None:
    client = sent(address, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    written = 0
    ended = False
    for _ in range(100_000):
        try:
            client.sendall(chunk)
            written += len(chunk)
        except OSError:
            ended = True
            break
    answer = received(client)
    client.close()
    assert ended
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 413")
    with sent(address, _HEAD + b"Content-Length: 999999999\r\n\r\n{") as client:
        assert received(client).startswith(b"HTTP/1.1 413")


def test_half_sent_requests_make_nobody_wait(address: tuple[str, int]) -> None:
    """More than the service would ever answer at once (4 × serve.queue = 32) hang half-sent.

    NEARER_HALF_SENT=1100 tries as many as once made users wait.
    """
    raise_open_files()
    number = int(os.environ.get("NEARER_HALF_SENT", "300"))
    half = _HEAD + b"Content-Length: 100\r\n\r\n{"
    hanging = [sent(address, half) for _ in range(number)]
    url = f"http://{address[0]}:{address[1]}"
    with httpx.Client(base_url=url) as client:
        for _ in range(5):
            assert client.post("/search", json={"query": "pump"}).status_code == 200
    answers = [received(one) for one in hanging]
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    for one in hanging:
        one.close()


def test_more_requests_than_may_be_answered_at_once_are_refused_at_once(world: World) -> None:
    from nearer.live.web.limits import Bounds, Edge

    async def main() -> list[int]:
        release = asyncio.Event()
        statuses: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        edge = Edge(app, Bounds(100, 5.0, 10, 2), lambda *told: statuses.append(told[2]))

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: Any) -> None: ...

        scope = {"type": "http", "headers": [], "method": "GET", "path": "/"}
        asked = [asyncio.create_task(edge(scope, receive, send)) for _ in range(3)]
        while not statuses:
            await asyncio.sleep(0.01)
        release.set()
        await asyncio.gather(*asked)
        return statuses

    assert asyncio.run(main()) == [503, 200, 200]
