"""`POST /similar`: items that go with an item or a history, over a served generation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from generations_kit import World, documents, static_model
from nearer.live.index.build import build
from nearer.live.index.verify import verify
from nearer.live.traffic.log import read_traffic
from nearer.live.web.service import Service, Tokens, create_app
from nearer.live.web.similar import _both
from test_serve import wait_for

Start = Callable[..., tuple[TestClient, Service]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(**recommend)` gives a client of a service over 40 items, and the service."""
    open_clients: list[TestClient] = []

    def begin(**recommend: Any) -> tuple[TestClient, Service]:
        world = World(tmp_path / "shop", static_model(tmp_path / "model")).write(
            documents(range(40))
        )
        world.settings |= {"task": "recommend", "recommend": recommend}  # type: ignore[dict-item]
        world.settings["serve"] = {"max_k": 20, "refresh": 0.05}
        (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
        model = tmp_path / "model"
        filled = build(
            world.generations, world.corpus, world.encoder(model), model.name, today=True
        )
        verify(world.generations, filled.manifest.id, world.corpus)
        world.generations.cutover(filled.manifest.id)
        service = Service(world.generations, Tokens("admin", None))
        client = TestClient(create_app(service), raise_server_exceptions=False)
        client.__enter__()
        open_clients.append(client)
        wait_for(lambda: client.get("/readyz").status_code == 200)
        return client, service

    yield begin
    for client in open_clients:
        client.__exit__(None, None, None)


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/similar", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def ids(told: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in told["results"]]


def vectors(service: Service, items: list[str]) -> dict[str, np.ndarray]:
    served = service.live()
    rows = served.generation.store.fetch(served.manifest.space, items)
    return dict(zip(rows.doc_ids, rows.vectors.array, strict=True))


def test_an_item_is_answered_by_its_nearest_and_never_by_itself(start: Start) -> None:
    client, service = start()
    told = ask(client, id="d7", k=5, text=True)
    of = vectors(service, [f"d{number}" for number in range(40)])
    nearest = sorted((item for item in of if item != "d7"), key=lambda item: -of[item] @ of["d7"])
    assert ids(told) == nearest[:5]
    assert told["results"][0]["text"]
    assert told["generation"] == service.live().id


def test_a_history_is_answered_at_its_mean_by_none_of_its_items(start: Start) -> None:
    client, service = start()
    history = ["d1", "d2", "d3"]
    told = ask(client, history=history, k=6)
    of = vectors(service, [f"d{number}" for number in range(40)])
    mean = np.mean([of[item] for item in history], axis=0)
    nearest = sorted(
        (item for item in of if item not in history), key=lambda item: -of[item] @ mean
    )
    assert ids(told) == nearest[:6]
    with_unknown = ask(client, history=["gone", *history], k=6)
    assert ids(with_unknown) == nearest[:6]
    assert with_unknown["unknown"] == ["gone"]


def test_filters_and_the_rules_of_the_project_always_hold(start: Start) -> None:
    client, _ = start(same=["team"])
    team = {document["_id"]: document["team"] for document in documents(range(40))}
    assert {team[item] for item in ids(ask(client, id="d7", k=20))} == {team["d7"]}
    assert {team[item] for item in ids(ask(client, history=["d1", "d5"], k=20))} == {team["d5"]}
    of_others = {"team": ["t0", "t1", "t2"]}
    assert ids(ask(client, id="d7", k=20, filter=of_others)) == ids(ask(client, id="d7", k=20))
    assert ids(ask(client, id="d7", k=20, filter={"team": "nobody"})) == []


def test_a_filter_narrows_rules_with_several_values_and_compares_as_filters_do() -> None:
    rules = {"tags": ["red", "blue"], "year": 2004, "in_stock": True}
    assert _both({"tags": "Red"}, rules) == {"tags": ["red"], "year": 2004, "in_stock": True}
    assert _both({"year": "2004", "team": "t1"}, {"year": 2004}) == {"year": [2004], "team": "t1"}
    assert _both({"tags": ["green"]}, rules) is None
    assert _both({}, rules) == rules


def test_a_long_history_leaves_as_many_results_as_were_asked_for(start: Start) -> None:
    client, _ = start(history=2)
    history = [f"d{number}" for number in range(20, 35)]
    told = ask(client, history=history, k=20)
    assert len(ids(told)) == 20
    assert not set(ids(told)) & set(history)


def test_diversity_shows_items_that_are_less_alike(start: Start) -> None:
    client, service = start()
    alike, differing = (ids(ask(client, id="d7", k=8, diversity=weight)) for weight in (1.0, 0.2))
    assert alike == ids(ask(client, id="d7", k=8))
    assert set(alike) != set(differing)

    def likeness(items: list[str]) -> float:
        of = np.stack(list(vectors(service, items).values()))
        unit = of / np.linalg.norm(of, axis=1, keepdims=True)
        return float((unit @ unit.T).sum())

    assert likeness(differing) < likeness(alike)


@pytest.mark.parametrize(
    ("body", "status", "what"),
    [
        ({"id": "gone"}, 404, "no item 'gone'"),
        ({"history": ["gone", "lost"]}, 404, "no item 'lost'"),
        ({}, 422, "either id or history"),
        ({"id": "d1", "history": ["d2"]}, 422, "either id or history"),
        ({"history": []}, 422, "history"),
        ({"id": "d1", "k": 21}, 413, "at most 20 results"),
        ({"id": "d1", "diversity": 2}, 422, "diversity"),
        ({"id": "d1", "colour": "red"}, 422, "colour"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    body: dict[str, Any], status: int, what: str, start: Start
) -> None:
    client, _ = start()
    refused = client.post("/similar", json=body)
    assert refused.status_code == status
    assert what in refused.json()["what"]


def test_what_was_recommended_is_in_the_traffic_log(start: Start) -> None:
    client, service = start()
    told = ask(client, id="d7", k=3, request_id="mine-1")
    assert service.log.flush()
    (logged,) = read_traffic(service.log.folder)
    assert logged.request_id == "mine-1"
    assert [doc_id for doc_id, _ in logged.results] == ids(told)
    assert logged.query
