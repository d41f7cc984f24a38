"""The service: what it answers, what it refuses, what it survives."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from generations_kit import World, documents, static_model
from nearer import config
from nearer.errors import StoreError
from nearer.live.index.build import build
from nearer.live.index.searcher import Searcher, Served
from nearer.live.index.verify import verify
from nearer.live.rollout.replay import replay
from nearer.live.traffic import log as traffic
from nearer.live.traffic.log import read_traffic
from nearer.live.web.batching import Ask, answer
from nearer.live.web.service import Service, Tokens, create_app, server_of
from nearer.types import Query, typed_query

ADMIN = {"Authorization": "Bearer admin-secret"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return static_model(folder / "a", 0), static_model(folder / "b", 1)


def made(world: World, model: Path) -> str:
    """A verified generation of a model."""
    today = str(model) == world.config.model.name
    filled = build(world.generations, world.corpus, world.encoder(model), model.name, today=today)
    assert verify(world.generations, filled.manifest.id, world.corpus).state in (
        "verified",
        "active",
    )
    return filled.manifest.id


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    """A project with one active generation, and settings that tests can reach the limits of."""
    made_world = World(tmp_path / "shop", models[0]).write(documents(range(40)))
    made_world.settings["serve"] = {
        "max_k": 20,
        "max_batch": 5,
        "max_query": 200,
        "max_body": 20_000,
        "refresh": 0.05,
    }
    made_world.settings["shadow"] = {"min_queries": 20}
    (made_world.root / "nearer.yaml").write_text(json.dumps(made_world.settings))
    generation = made(made_world, models[0])
    made_world.generations.cutover(generation)
    return made_world


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., tuple[TestClient, Service]]]:
    """`start()` gives a client of a service over `world` that is ready, and the service."""
    open_clients: list[TestClient] = []

    def begin(search: str | None = None) -> tuple[TestClient, Service]:
        service = Service(world.generations, Tokens("admin-secret", search))
        client = TestClient(create_app(service), raise_server_exceptions=False)
        client.__enter__()
        open_clients.append(client)
        wait_for(lambda: client.get("/readyz").status_code == 200)
        return client, service

    yield begin
    for client in open_clients:
        client.__exit__(None, None, None)


def wait_for(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something becomes true."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it never became true"
        time.sleep(0.02)


def ask(client: Any, query: str = "pump valve 7", **more: Any) -> dict[str, Any]:
    answer = client.post("/search", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_answers_are_those_of_the_judged_pipeline(world: World, start: Any) -> None:
    client, _ = start()
    expected = Searcher.open(world.root).ask("seal leak 12", 5)
    told = ask(client, "seal leak 12", k=5, request_id="mine-1", text=True)
    assert [(hit["id"], pytest.approx(hit["score"])) for hit in told["results"]] == expected
    assert [hit["rank"] for hit in told["results"]] == [1, 2, 3, 4, 5]
    assert told["request_id"] == "mine-1"
    assert told["generation"] == world.generations.pointer().id
    assert told["results"][0]["text"] in {document.content for document in world.corpus}
    assert told["results"][0]["metadata"]["team"].startswith("t")


def test_a_filter_that_is_sent_is_always_applied(world: World, start: Any) -> None:
    client, _ = start()
    teams = {document.id: document.metadata["team"] for document in world.corpus}
    told = ask(client, k=20, filter={"team": "t1"})
    assert told["results"]
    assert {teams[hit["id"]] for hit in told["results"]} == {"t1"}


def test_batches_answer_each_query_by_itself(start: Any) -> None:
    client, _ = start()
    texts = ["pump 3", "oil filter 9", "shaft noise"]
    answer = client.post(
        "/search", json={"queries": [{"query": text, "k": 3 + i} for i, text in enumerate(texts)]}
    )
    assert answer.status_code == 200
    for i, (text, told) in enumerate(zip(texts, answer.json()["answers"], strict=True)):
        assert told["results"] == ask(client, text, k=3 + i)["results"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": ""}, 422),
        ({"query": "x", "k": 0}, 422),
        ({"query": "x", "k": 21}, 413),
        ({"query": "x" * 201}, 413),
        ({"queries": []}, 422),
        ({"queries": [{"query": "x"}] * 6}, 413),
        ({"query": "x", "unknown": 1}, 422),
        ({"query": "x", "filter": {"team": {"nested": 1}}}, 422),
        ({"query": "x", "filter": {"team": 10**30}}, 422),
        ({"query": "x", "request_id": "../../etc/passwd"}, 422),
        ({"query": "x" * 30_000}, 413),
    ],
)
def test_limits_are_said(start: Any, body: dict[str, Any], status: int) -> None:
    client, _ = start()
    answer = client.post("/search", json=body)
    assert answer.status_code == status
    assert answer.json()["what"]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"query": "x", "filter": {"team": None}}, "filter.team must be text, a number, .*not null"),
        ({"query": "x", "filter": {"team": [{}]}}, "filter.team must be text, .*not an object"),
        ({"queries": [{"query": "x"}, {"q": 1}]}, r"queries\[1\].query is missing; queries\[1\].q is"),
        ({"query": "x", "k": "ten"}, "k must be a whole number"),
        ({"query": "x", "request_id": "../"}, "request_id must be 1 to 128 letters"),
        ({"query": "x", "size": 3}, "size is not a field of this request"),
        ({}, "query is missing"),
        ([], "the body must be a JSON object"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_what_is_wrong(start: Any, body: Any, what: str) -> None:
    client, _ = start()
    answer = client.post("/search", json=body)
    assert answer.status_code == 422
    told = answer.json()["what"]
    assert re.match(what, told), told
    assert "Batch" not in told
    assert " at 0x" not in told


@pytest.mark.parametrize(
    "query", ["", "   ", "\u200b", "\u00ad\ufeff", "\x00\x1f", "\u3000\u2060\t", "\u3164", "\ufe0f"]
)
def test_a_query_in_which_nothing_can_be_seen_is_refused(start: Any, query: str) -> None:
    client, _ = start()
    answer = client.post("/search", json={"query": query})
    assert answer.status_code == 422
    assert answer.json()["what"].startswith("query is empty")


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_field_names_compare_in_one_unicode_form(
    tmp_path: Path, models: tuple[Path, Path], written: Any
) -> None:
    name = unicodedata.normalize(written, "größe")
    lines = [one | {name: one["_id"]} for one in documents(range(12))]
    world = World(tmp_path / "shop", models[0]).write(lines)
    world.generations.cutover(made(world, models[0]))
    searcher = Searcher.open(world.root)
    with TestClient(create_app(Service(world.generations, Tokens()))) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        for form in ("NFC", "NFD"):
            chosen = {unicodedata.normalize(form, "größe"): "d3"}
            assert [hit[0] for hit in searcher.ask("pump", 5, chosen)] == ["d3"]
            told = ask(client, "pump", k=5, filter=chosen)
            assert [hit["id"] for hit in told["results"]] == ["d3"]


def test_a_typed_query_is_never_an_item(tmp_path: Path, models: tuple[Path, Path]) -> None:
    lines = [one | {"_id": str(number)} for number, one in enumerate(documents(range(12)))]
    world = World(tmp_path / "shop", models[0]).write(lines)
    world.settings["data"]["item_to_item"] = True
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    world.generations.cutover(made(world, models[0]))
    searcher = Searcher.open(world.root)
    served = searcher.current()
    texts = {document.id: document.content for document in world.corpus}
    alone = {doc_id: searcher.ask(text, 1)[0][0] for doc_id, text in texts.items()}
    asks = [Ask(typed_query(text), 1, served) for text in texts.values()]
    together = [hits[0][0] for hits in answer(asks) if not isinstance(hits, Exception)]
    requests = [
        traffic.Request(datetime.now(UTC), doc_id, text, served.id, (), 1.0)
        for doc_id, text in texts.items()
    ]
    replayed = replay(requests, served, served, config.Shadow(k=1))
    assert list(alone.values()) == list(texts)
    assert together == list(texts)
    assert [one.results[0][0] for one in replayed] == list(texts)
    items = [Query(doc_id, text) for doc_id, text in texts.items()]
    found = searcher.search(items, 11).results
    assert all(doc_id not in dict(hits) for doc_id, hits in found.items())


def test_malformed_and_huge_bodies(start: Any) -> None:
    client, _ = start()
    assert (
        client.post(
            "/search", content=b"{", headers={"content-type": "application/json"}
        ).status_code
        == 422
    )
    assert client.post(
        "/search", content=b"\xff\xfe", headers={"content-type": "application/json"}
    ).status_code in (400, 422)

    def chunks() -> Iterator[bytes]:  # no content-length: only counting can stop it
        for _ in range(100):
            yield b'{"query": "' + b"x" * 1000

    assert (
        client.post(
            "/search", content=chunks(), headers={"content-type": "application/json"}
        ).status_code
        == 413
    )
    lone = client.post(
        "/search",
        content=b'{"query": "\\ud800 pump"}',
        headers={"content-type": "application/json"},
    )
    assert lone.status_code == 200


def test_tokens(world: World, start: Any) -> None:
    client, _ = start(search="look")
    assert client.post("/search", json={"query": "pump"}).status_code == 401
    assert (
        client.post(
            "/search", json={"query": "pump"}, headers={"Authorization": "Bearer wrong"}
        ).status_code
        == 401
    )
    assert (
        client.post(
            "/search", json={"query": "pump"}, headers={"Authorization": "Bearer look"}
        ).status_code
        == 200
    )
    assert client.get("/dashboard").status_code == 401
    basic = base64.b64encode(b"anyone:look").decode()
    assert client.get("/dashboard", headers={"Authorization": f"Basic {basic}"}).status_code == 200
    assert (
        client.post(
            "/admin/rollback", json={}, headers={"Authorization": "Bearer look"}
        ).status_code
        == 401
    )
    assert client.post("/admin/rollback", json={}).status_code == 401
    assert client.get("/healthz").status_code == 200
    with TestClient(create_app(Service(world.generations, Tokens()))) as open_one:
        assert open_one.post("/admin/rollback", json={}, headers=ADMIN).status_code == 403


def test_nothing_active_is_not_ready(tmp_path: Path, models: tuple[Path, Path]) -> None:
    empty = World(tmp_path / "empty", models[0]).write(documents(range(3)))
    with TestClient(create_app(Service(empty.generations, Tokens()))) as client:
        assert client.get("/readyz").status_code == 503
        answer = client.post("/search", json={"query": "pump"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]


def test_the_log_holds_requests_feedback_and_no_name(world: World, start: Any) -> None:
    client, service = start()
    told = ask(client, "pump 3", user="ann@example.org", filter={"team": "t0"})
    given = {"request_id": told["request_id"], "id": told["results"][0]["id"]}
    assert client.post("/feedback", json=given).status_code == 202
    assert (
        client.post("/feedback", json=given | {"kind": "dwell", "value": 42.5}).status_code == 202
    )
    assert client.post("/feedback", json=given | {"kind": "wink"}).status_code == 422
    assert service.log.flush()
    (request,) = read_traffic(world.root / "traffic")
    assert (request.query, request.filter, request.generation) == (
        "pump 3",
        {"team": "t0"},
        told["generation"],
    )
    assert [hit[0] for hit in request.results] == [hit["id"] for hit in told["results"]]
    assert [(one.kind, one.doc_id, one.value) for one in request.feedback] == [
        ("click", given["id"], 1.0),
        ("dwell", given["id"], 42.5),
    ]
    assert request.user
    assert "ann" not in next((world.root / "traffic").iterdir()).read_text()


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ("none", "call 0043 1 55443322 or ann@example.org"),
        ("identifiers", "call <number> or <e-mail>"),
        ("all", ""),
    ],
)
def test_queries_are_redacted_as_asked(world: World, start: Any, how: str, kept: str) -> None:
    world.settings["serve"]["redact"] = how
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    client, service = start()
    ask(client, "call 0043 1 55443322 or ann@example.org")
    service.log.flush()
    assert read_traffic(world.root / "traffic")[0].query == kept


def test_hot_cutover_and_rollback_by_the_api(
    world: World, start: Any, models: tuple[Path, Path]
) -> None:
    client, _ = start()
    old, new = world.generations.pointer().id, made(world, models[1])
    refused = client.post("/admin/cutover", json={"generation": new}, headers=ADMIN)
    assert refused.status_code == 409
    assert "no decision" in refused.json()["what"]
    moved = client.post(
        "/admin/cutover", json={"generation": new, "override": "a test"}, headers=ADMIN
    )
    assert moved.json() == {"active": new, "previous": old}
    assert ask(client)["generation"] == new
    assert (
        client.post("/admin/rollback", json={"why": "seen enough"}, headers=ADMIN).json()["active"]
        == old
    )
    assert ask(client)["generation"] == old
    assert world.generations.history()[-1]["why"] == "seen enough"
    assert (
        client.post("/admin/cutover", json={"generation": "../../etc"}, headers=ADMIN).status_code
        == 422
    )


def test_a_cutover_elsewhere_is_followed(
    world: World, start: Any, models: tuple[Path, Path]
) -> None:
    client, _ = start()
    new = made(world, models[1])
    world.generations.cutover(new, override="from the command line")
    wait_for(lambda: ask(client)["generation"] == new)


def test_a_query_whose_generation_is_gone_is_answered_by_the_active_one(
    world: World, start: Any, models: tuple[Path, Path]
) -> None:
    world.settings["serve"]["refresh"] = 60  # it looks only when a query needs it
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    client, _ = start()
    old, new = world.generations.pointer().id, made(world, models[1])
    world.generations.cutover(new, override="from the command line")
    assert ask(client)["generation"] == old
    world.generations.store("numpy").drop(str(old))
    assert ask(client)["generation"] == new


def test_documents_that_sync_takes_away_are_found_no_longer(world: World, start: Any) -> None:
    from nearer.live.index.sync import sync

    client, _ = start()
    first = ask(client, "pump 3", k=1)["results"][0]["id"]
    world.write(line for line in documents(range(40)) if line["_id"] != first)
    sync(world.generations, world.corpus)
    assert first not in [hit["id"] for hit in ask(client, "pump 3", k=20)["results"]]


def test_a_full_queue_answers_503(
    world: World, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings["serve"] |= {"queue": 4, "batch": 1}
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    client, service = start()
    gate, real = threading.Event(), Served.search

    def slow(self: Served, queries: Any, k: int) -> Any:
        gate.wait(5)
        return real(self, queries, k)

    monkeypatch.setattr(Served, "search", slow)
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(client.post, "/search", json={"query": f"pump {i}"}) for i in range(12)
        ]
        wait_for(lambda: any(one.done() for one in asked))
        gate.set()
        statuses = [one.result().status_code for one in asked]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 4
    refused = next(one.result() for one in asked if one.result().status_code == 503)
    assert refused.headers["Retry-After"]
    assert f"nearer_rejected_total {float(statuses.count(503))}" in client.get("/metrics").text
    assert service.batcher.depth == 0


def test_a_slow_store_times_out_and_recovers(
    world: World, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings["serve"]["timeout"] = 0.2
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    client, _ = start()
    real = Served.search
    monkeypatch.setattr(
        Served, "search", lambda self, queries, k: time.sleep(0.6) or real(self, queries, k)
    )
    assert client.post("/search", json={"query": "pump"}).status_code == 504
    monkeypatch.setattr(Served, "search", real)
    wait_for(lambda: client.post("/search", json={"query": "pump"}).status_code == 200)


def test_one_bad_query_does_not_fail_its_neighbours(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = start()
    real = Served.search

    def picky(self: Served, queries: Any, k: int) -> Any:
        if any("poison" in query.text for query in queries):
            raise StoreError("cannot search for this")
        return real(self, queries, k)

    monkeypatch.setattr(Served, "search", picky)
    with ThreadPoolExecutor(8) as pool:
        asked = {
            text: pool.submit(client.post, "/search", json={"query": text})
            for text in ["poison", *(f"pump {i}" for i in range(7))]
        }
        statuses = {text: one.result().status_code for text, one in asked.items()}
    assert statuses.pop("poison") == 409
    assert set(statuses.values()) == {200}


def test_a_store_that_fails_is_503_and_logged(
    world: World, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = start()
    real = Served.search

    def broken(self: Served, queries: Any, k: int) -> Any:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(Served, "search", broken)
    answer = client.post("/search", json={"query": "pump"})
    assert answer.status_code == 503
    assert "fire" not in answer.text
    monkeypatch.setattr(Served, "search", real)
    ask(client)
    service.log.flush()
    failed, well = read_traffic(world.root / "traffic")
    assert ("fire" in str(failed.error), failed.results, well.error) == (True, (), None)


# -- a real server --------------------------------------------------------------------------------


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """A server on a free port; gives its address, and ends it in an orderly way."""
    runner = server_of(service, 0)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        wait_for(lambda: runner.started and not service.problem, 60)
        yield f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
    finally:
        runner.should_exit = True
        thread.join(15)
    assert not thread.is_alive()


@pytest.fixture
def server(world: World) -> Iterator[tuple[str, Service]]:
    service = Service(world.generations, Tokens("admin-secret"))
    with serving(service) as address:
        yield address, service


@pytest.mark.long
def test_200_clients_at_once_and_no_torn_line(world: World, server: tuple[str, Service]) -> None:
    address, service = server
    with (
        httpx.Client(
            base_url=address, timeout=30, limits=httpx.Limits(max_connections=200)
        ) as client,
        ThreadPoolExecutor(200) as pool,
    ):
        answers = list(
            pool.map(
                lambda i: client.post(
                    "/search", json={"query": f"pump {i % 40}", "request_id": f"r{i}"}
                ),
                range(600),
            )
        )
    counts = {status: sum(one.status_code == status for one in answers) for status in (200, 503)}
    assert sum(counts.values()) == 600
    assert counts[200] >= 200
    assert service.log.flush()
    (path,) = (world.root / "traffic").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]  # raises for a torn one
    assert {line["request_id"] for line in lines} == {
        f"r{i}" for i, one in enumerate(answers) if one.status_code == 200
    }


def test_clients_that_leave_cost_nothing(
    server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, service = server
    real = Served.search
    monkeypatch.setattr(
        Served, "search", lambda self, queries, k: time.sleep(0.1) or real(self, queries, k)
    )
    for _ in range(10):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{address}/search", json={"query": "pump"}, timeout=0.03)
    wait_for(lambda: service.batcher.depth == 0)
    assert httpx.post(f"{address}/search", json={"query": "pump"}, timeout=10).status_code == 200


def test_answers_under_way_are_finished_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun = Served.search, threading.Event()

    def slow(self: Served, queries: Any, k: int) -> Any:
        begun.set()
        time.sleep(0.5)
        return real(self, queries, k)

    with ThreadPoolExecutor(1) as pool:
        with serving(Service(world.generations, Tokens())) as address:
            monkeypatch.setattr(Served, "search", slow)
            asked = pool.submit(
                httpx.post, f"{address}/search", json={"query": "pump 1"}, timeout=10
            )
            assert begun.wait(5)
        assert asked.result().status_code == 200
    assert [one.query for one in read_traffic(world.root / "traffic")] == ["pump 1"]
