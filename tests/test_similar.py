"""`POST /similar`: items that go with an item or a history, over a served generation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from generations_kit import World, documents, static_model
from nearer.config import Monitor, Shadow
from nearer.files import read_json
from nearer.live.index.build import build
from nearer.live.index.manifest import Rollout
from nearer.live.index.similar import both
from nearer.live.index.verify import verify
from nearer.live.monitor.conditions import TESTED, Seen, monitor
from nearer.live.monitor.watch import look
from nearer.live.rollout import shadow
from nearer.live.rollout.guards import guard
from nearer.live.rollout.replay import replay_log
from nearer.live.traffic.exposure import Exposure
from nearer.live.traffic.log import Request, parse_request, read_traffic
from nearer.live.traffic.similar import SimilarTo
from nearer.live.web.service import Service, Tokens, create_app
from nearer.measure.drift import coverage_shift
from nearer.measure.recommendation import Catalogue
from test_serve import made, wait_for

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
        world.settings["shadow"] = {"timeout": 60.0}  # a shadow gives way to everybody else
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
    assert both({"tags": "Red"}, rules) == {"tags": ["red"], "year": 2004, "in_stock": True}
    assert both({"year": "2004", "team": "t1"}, {"year": 2004}) == {"year": [2004], "team": "t1"}
    assert both({"tags": ["green"]}, rules) is None
    assert both({}, rules) == rules


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


# -- what people were shown, as the task judges it -------------------------------------------------

DAY = datetime(2026, 3, 9, 12, tzinfo=UTC)
ITEMS = [f"i{number}" for number in range(300)]


def exposure_of_items() -> Exposure:
    """A catalogue of 300 items, the first ten of which are popular."""
    engaged = np.zeros(len(ITEMS), np.int64)
    engaged[:10] = 50
    return Exposure(Catalogue(ITEMS, engaged), 10)


def shown(rng: np.random.Generator, n: int, pool: int, *, day: int = 0) -> list[Request]:
    """Answers to /similar of ten items each, out of the first `pool` of the catalogue."""
    requests = []
    for number in range(n):
        chosen = rng.choice(pool, 10, replace=False).tolist()
        hits = tuple((ITEMS[row], 1.0 - place / 10) for place, row in enumerate(chosen))
        requests.append(
            Request(
                DAY + timedelta(days=day),
                f"r{day}-{number}",
                f"item {number}",
                "live",
                hits,
                5.0,
                similar=SimilarTo((f"q{day}-{number}",), 10),
            )
        )
    return requests


def test_the_log_keeps_what_similar_was_asked_and_reads_it_back(start: Start) -> None:
    client, service = start()
    ask(client, id="d7", k=3)
    ask(client, history=["d1", "d2"], k=4, diversity=0.5)
    assert service.log.flush()
    logged = read_traffic(service.log.folder)
    assert {request.similar for request in logged} == {
        SimilarTo(("d7",), 3),
        SimilarTo(("d1", "d2"), 4, history=True, diversity=0.5),
    }
    for request in logged:
        assert parse_request(request.as_dict()).similar == request.similar


@pytest.mark.parametrize(
    "similar",
    [
        {"id": "d1"},
        {"history": [], "k": 3},
        {"k": 3},
        {"id": "d1", "k": 0},
        "d1",
        {"history": "d1", "k": 3},
        {"id": "d1", "k": 3, "diversity": 7},
    ],
)
def test_a_line_that_does_not_say_what_was_asked_is_none(similar: Any) -> None:
    line = shown(np.random.default_rng(7), 1, 300)[0].as_dict() | {"similar": similar}
    with pytest.raises((KeyError, TypeError, ValueError)):
        parse_request(line)


def test_similar_is_shadowed_and_replayed_by_the_question_it_was_asked(
    start: Start, tmp_path: Path
) -> None:
    client, service = start()
    generations = service.generations
    live = str(generations.pointer().id)
    world = World(generations.root, tmp_path / "model").write(documents(range(40)))
    candidate = made(world, static_model(tmp_path / "other", seed=1))
    generations.start_rollout(candidate, "shadow", 1.0)
    wait_for(lambda: service.rollouts._candidate)
    for number in range(8):
        ask(client, id=f"d{number}", k=5)
    ask(client, history=["d1", "d2"], k=5, diversity=0.5)

    def compared() -> list[Request]:
        service.log.flush()
        return [one for one in read_traffic(service.log.folder) if one.shadow]

    wait_for(lambda: len(compared()) == 9, 60.0)
    for request in compared():
        answered = [hit["id"] for hit in (request.shadow or {})["results"]]
        assert request.similar is not None
        assert len(answered) == 5
        assert not set(answered) & set(request.similar.items)
    record = shadow.write_report(generations, candidate, compared(), live)
    replayed = replay_log(generations, candidate, live)
    for told in (record, replayed):
        assert told["queries"] == told["exposure"]["requests"] == 9
        assert told["exposure"]["items"] == 40
        for side in ("live", "candidate"):
            assert set(told["exposure"][side]) == {"Coverage@10", "Gini@10"}
            assert 0 < told["exposure"][side]["Coverage@10"] <= 1
    assert replayed["exposure"]["live"] == record["exposure"]["live"]
    assert replayed["exposure"]["candidate"] == record["exposure"]["candidate"]
    assert read_json(generations.root / "shadow" / f"{candidate}.json") == replayed


def test_a_question_whose_item_is_gone_is_not_replayed(start: Start) -> None:
    client, service = start()
    live = str(service.generations.pointer().id)
    ask(client, id="d7", k=5)
    gone = replace(
        shown(np.random.default_rng(7), 1, 300)[0], time=datetime.now(UTC), generation=live
    )
    service.log.append(gone.as_dict())
    service.log.flush()
    told = replay_log(service.generations, live, live)
    assert (told["queries"], told["failed"]) == (1, 0)


@pytest.mark.parametrize(("pool", "verdict"), [(300, "pass"), (12, "fail")])
def test_a_candidate_that_shows_less_of_the_catalogue_fails(pool: int, verdict: str) -> None:
    rng = np.random.default_rng(7)
    requests = []
    others = shown(rng, 60, pool)
    for request, other in zip(shown(rng, 60, 300), others, strict=True):
        results = [{"id": item, "score": score} for item, score in other.results]
        told = {"generation": "new", "latency_ms": 5.0, "results": results}
        told |= {"overlap": 0.0, "rbo": 0.0, "top1_changed": True}
        requests.append(replace(request, shadow=told))
    by = shadow.JudgedBy(exposure=exposure_of_items())
    record = shadow.report(requests, "live", "new", Shadow(min_queries=50), rng, by)
    assert record["verdict"] == verdict
    before, after = record["exposure"]["live"], record["exposure"]["candidate"]
    assert set(before) == {"Coverage@10", "Gini@10", "Popularity@10"}
    assert record["exposure"]["lost"] == (verdict == "fail")
    if verdict == "fail":
        assert after["Coverage@10"] == pytest.approx(12 / 300)
        assert after["Gini@10"] > before["Gini@10"]
        assert after["Popularity@10"] > before["Popularity@10"]
        assert "Coverage@10" in record["reasons"][0]


def test_answers_to_similar_are_no_side_of_a_canary() -> None:
    rng = np.random.default_rng(7)
    rollout = Rollout("new", "canary", 0.5, (DAY - timedelta(days=1)).isoformat(), "ann")
    searches = [replace(request, similar=None) for request in shown(rng, 50, 300)]
    found = guard(searches, rollout, Shadow(), DAY + timedelta(days=1))
    with_similar = [*searches, *(replace(one, results=()) for one in shown(rng, 50, 300, day=0))]
    assert guard(with_similar, rollout, Shadow(), DAY + timedelta(days=1)) == found


def judged(today: list[Request], before: list[list[Request]], **more: Any) -> Any:
    seen = Seen("2026-03-09", today, "live", before, exposure=exposure_of_items(), **more)
    return monitor(seen, Monitor(), np.random.default_rng(7))


def test_coverage_that_falls_below_its_share_of_the_reference_is_an_alert() -> None:
    rng = np.random.default_rng(7)
    before = [shown(rng, 150, 300, day=day) for day in range(-3, 0)]
    quiet = judged(shown(rng, 120, 300), before)
    assert not quiet.conditions["coverage"]["fires"]
    assert quiet.conditions["coverage"]["threshold"] == pytest.approx(0.2)
    series = {row.name: row.value for row in quiet.series}
    assert {"Coverage@10", "Gini@10", "Popularity@10", "coverage"} <= set(series)
    narrow = judged(shown(rng, 120, 60), before)
    (alert,) = [one for one in narrow.alerts if one["condition"] == "coverage"]
    assert alert["size"] == pytest.approx(1 - (60 / 300) / narrow_reference(narrow), abs=0.02)
    assert set(alert["examples"]) <= set(ITEMS[:60])
    assert "nearer index rollback" in alert["do"]


def narrow_reference(report: Any) -> float:
    """Coverage of the reference, as the alert names it."""
    (alert,) = [one for one in report.alerts if one["condition"] == "coverage"]
    return float(alert["what"].rpartition("show ")[2].partition("%")[0]) / 100


def test_fewer_answers_than_on_other_days_are_no_fall_of_coverage() -> None:
    """A tenth of the lists shows less of a catalogue whoever answers."""
    rng = np.random.default_rng(7)
    items = exposure_of_items()
    before = items.lists({one.request_id: one.results[:3] for one in shown(rng, 1000, 300)})
    now = items.lists({one.request_id: one.results[:3] for one in shown(rng, 100, 300)})
    shift = coverage_shift(before, now, len(ITEMS), rng)
    assert abs(shift.size) < 0.1
    assert shift.p > 0.01
    assert coverage_shift(now, before, len(ITEMS), rng).size < 0.1


def test_the_same_question_asked_again_is_no_evidence() -> None:
    rng = np.random.default_rng(7)
    before = [shown(rng, 150, 300, day=-1)]
    (once,) = shown(rng, 1, 300)
    again = [replace(once, request_id=f"again-{number}") for number in range(200)]
    report = judged(again, before)
    assert "different questions" in report.skipped["coverage"]


def test_nothing_changes_for_projects_that_search() -> None:
    rng = np.random.default_rng(7)
    before = [shown(rng, 150, 300, day=-1)]
    seen = Seen("2026-03-09", shown(rng, 120, 12), "live", before)
    report = monitor(seen, Monitor(), rng)
    assert "coverage" not in {*report.conditions, *report.skipped}
    (alpha,) = {one["alpha"] for one in report.conditions.values() if one["alpha"]}
    assert alpha == pytest.approx(Monitor().false_alarms / (len(TESTED) - 1))


def test_monitor_reads_the_answers_of_the_service(start: Start) -> None:
    client, service = start()
    for number in range(40):
        ask(client, id=f"d{number}", k=5)
    service.log.flush()
    (report,) = look(service.generations)
    series = {row.name: row.value for row in report.series}
    assert series["Coverage@10"] > 0
    assert "different questions" in report.skipped["coverage"]
