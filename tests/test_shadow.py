"""Shadow, replay, interleaving and canary on a running service, and what stops them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generations_kit import World
from nearer.config import Shadow
from nearer.data.splits import write_split
from nearer.decision.sign_off import signed
from nearer.errors import StoreError
from nearer.files import read_json
from nearer.live.index.generations import Rollout
from nearer.live.index.searcher import Served
from nearer.live.rollout import guards, shadow
from nearer.live.rollout.replay import replay_log
from nearer.live.rollout.shadow import JudgedBy
from nearer.live.traffic.log import Feedback, Request, read_traffic
from nearer.live.web import rollouts
from nearer.live.web.rollouts import _place
from nearer.types import Query, Run, Split
from test_serve import ask, made, models, start, wait_for, world  # noqa: F401 - fixtures

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def candidate(world: World, models: tuple[Path, Path]) -> str:
    return made(world, models[1])


def outcome(client: Any, name: str) -> float:
    lines = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith(f'nearer_shadow_total{{outcome="{name}"}}')
    ]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_a_shadow_is_compared_and_users_do_not_see_it(
    world: World, start: Any, candidate: str
) -> None:
    client, service = start()
    live = world.generations.pointer().id
    world.generations.start_rollout(candidate, "shadow", 1.0, who="ann")
    assert world.generations.manifest(candidate).state == "shadow"
    wait_for(lambda: service.rollouts._candidate)
    for number in range(25):
        assert ask(client, f"pump {number}")["generation"] == live
    wait_for(lambda: outcome(client, "compared") >= 20)
    service.log.flush()
    requests = read_traffic(world.root / "traffic")
    told = [one.shadow for one in requests if one.shadow]
    assert {one["generation"] for one in told} == {candidate}
    assert all(0 <= one["rbo"] <= 1 and one["latency_ms"] > 0 and one["results"] for one in told)
    record = shadow.write_report(world.generations, candidate, requests, str(live))
    assert record["verdict"] == "pass"
    assert record["queries"] == len(told)
    assert read_json(world.root / "shadow" / f"{candidate}.json") == record
    queue = [
        json.loads(line)
        for line in (world.root / "review" / "queue.jsonl").read_text().splitlines()
    ]
    assert queue == sorted(queue, key=lambda one: -one["disagreement"])
    assert {"query", "results", "shadow_results", "shadow_generation", "generation"} <= set(
        queue[0]
    )
    assert (
        shadow.write_report(world.generations, candidate, requests, str(live))["queued"] == 0
    )  # each text once
    assert world.generations.stop_rollout(why="seen enough") == candidate
    assert world.generations.manifest(candidate).state == "verified"


def test_a_candidate_that_crashes_hurts_nobody(
    world: World, start: Any, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = start()
    live, real = world.generations.pointer().id, Served.search

    def broken(self: Served, queries: Any, k: int) -> Any:
        if self.id == candidate:
            raise MemoryError("the candidate is broken")
        return real(self, queries, k)

    world.generations.start_rollout(candidate, "shadow", 1.0)
    wait_for(lambda: service.rollouts._candidate)
    monkeypatch.setattr(Served, "search", broken)
    for number in range(10):
        assert ask(client, f"pump {number}")["generation"] == live
    wait_for(lambda: outcome(client, "failed") >= 10)
    service.log.flush()
    record = shadow.write_report(
        world.generations, candidate, read_traffic(world.root / "traffic"), str(live)
    )
    assert (record["verdict"], record["failed"]) == ("inconclusive", 10)


def test_a_candidate_that_cannot_be_opened_hurts_nobody(
    world: World, start: Any, candidate: str
) -> None:
    client, _ = start()
    for path in (world.generations.path(candidate) / "model").rglob("*.safetensors"):
        path.write_bytes(b"broken")
    world.generations.start_rollout(candidate, "canary", 1.0)
    for number in range(5):
        assert ask(client, f"pump {number}")["generation"] != candidate
    assert client.get("/readyz").status_code == 200


def test_a_canary_goes_to_a_stable_share_of_users(world: World, start: Any, candidate: str) -> None:
    client, service = start()
    made_one = world.generations.start_rollout(candidate, "canary", 0.5)
    wait_for(lambda: service.rollouts._candidate)
    for user in (f"u{n}" for n in range(20)):
        wanted = candidate if _place(made_one.since, user) < 0.5 else world.generations.pointer().id
        assert {ask(client, "pump", user=user)["generation"] for _ in range(3)} == {wanted}
    service.log.flush()
    assert {one.arm for one in read_traffic(world.root / "traffic")} == {"live", "canary"}


def test_shares_are_shares() -> None:
    share = np.mean([_place("salt", f"user {n}") < 0.1 for n in range(20_000)])
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 20_000)
    assert {_place("a", "x"), _place("b", "x")} != {_place("a", "x")}


def test_interleaving_deals_both_and_logs_who_dealt(
    world: World, start: Any, candidate: str
) -> None:
    client, service = start()
    world.generations.start_rollout(candidate, "interleave", 1.0)
    wait_for(lambda: service.rollouts._candidate)
    told = ask(client, "pump 3", k=10)
    service.log.flush()
    (request,) = read_traffic(world.root / "traffic")
    assert request.arm == "interleaved"
    assert request.teams is not None
    assert list(request.teams) == [hit["id"] for hit in told["results"]]
    assert set(request.teams.values()) == {"live", "candidate"}


def requests(rng: np.random.Generator, n: int, arms: dict[str, dict[str, Any]]) -> list[Request]:
    """A log in which each arm has a share, a latency and a click rate of its own."""
    made_ones = []
    for number in range(n):
        arm = str(rng.choice(list(arms), p=[one["share"] for one in arms.values()]))
        own = arms[arm]
        time = NOW + timedelta(seconds=number)
        hits = () if rng.random() < own.get("empty", 0.0) else (("d1", 1.0), ("d2", 0.5))
        clicks = (
            (Feedback("click", "d1", 1.0, time),) if hits and rng.random() < own["clicks"] else ()
        )
        latency = float(rng.gamma(4, own.get("ms", 10) / 4))
        generation = "live" if arm == "live" else "new"
        made_ones.append(
            Request(time, f"r{number}", "q", generation, hits, latency, arm=arm, feedback=clicks)
        )
    return made_ones


@pytest.mark.parametrize(
    ("canary", "guard"),
    [
        ({"clicks": 0.3, "ms": 40}, "slow"),
        ({"clicks": 0.3, "empty": 0.3}, "empty"),
        ({"clicks": 0.05}, "without a click"),
        ({"clicks": 0.3}, ""),
    ],
)
def test_a_harmful_canary_is_stopped_for_what_it_does(canary: dict[str, float], guard: str) -> None:
    log = requests(
        np.random.default_rng(7),
        4000,
        {"live": {"share": 0.8, "clicks": 0.3}, "canary": {"share": 0.2, **canary}},
    )
    rollout = Rollout("new", "canary", 0.2, NOW.isoformat(), "ann")
    told = guards.guard(log, rollout, Shadow(), NOW + timedelta(days=1))
    if guard:
        assert guard in told["harm"]
    else:
        assert told["harm"] is None
    before = guards.guard(
        log,
        Rollout("new", "canary", 0.2, (NOW + timedelta(days=2)).isoformat(), "ann"),
        Shadow(),
        NOW + timedelta(days=3),
    )
    assert before["harm"] is None  # what happened before it began does not count


def test_interleaved_clicks_stop_a_worse_candidate() -> None:
    rng, log = np.random.default_rng(7), []
    for number in range(600):
        worse = rng.random() < 0.7
        clicked = Feedback("click", "d1" if worse else "d2", 1.0, NOW)
        log.append(
            Request(
                NOW, f"r{number}", "q", "live", (("d1", 1.0), ("d2", 0.5)), 9.0, arm="interleaved", teams={"d1": "live", "d2": "candidate"},
                feedback=(clicked,),
            )
        )  # fmt: skip
    told = guards.guard(
        log,
        Rollout("new", "interleave", 1.0, NOW.isoformat(), "ann"),
        Shadow(),
        NOW + timedelta(days=1),
    )
    assert "people prefer the live results" in told["harm"]


def test_the_service_stops_a_harmful_canary_by_itself(
    world: World,
    start: Any,
    candidate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollouts, "_GUARD", 0.1)
    client, service = start()
    world.generations.start_rollout(candidate, "canary", 0.5)
    wait_for(lambda: service.rollouts._candidate)
    real = Served.search

    def empty(self: Served, queries: Any, k: int) -> Any:
        run = real(self, queries, k)
        if self.id == candidate:
            return type(run)(run.name, {query_id: [] for query_id in run.results}, 0.0)
        return run

    monkeypatch.setattr(Served, "search", empty)
    for number in range(200):
        ask(client, f"pump {number % 40}", user=f"u{number}")
        if world.generations.rollout() is None:
            break
    wait_for(lambda: world.generations.history()[-1]["who"] == "guardrail")
    assert world.generations.rollout() is None
    assert "empty" in world.generations.history()[-1]["why"]
    assert world.generations.manifest(candidate).state == "verified"
    assert ask(client, user="anyone")["generation"] == world.generations.pointer().id
    assert "was stopped" in client.get("/dashboard").text


@pytest.mark.parametrize("mode", ["canary", "interleave"])
def test_users_of_a_candidate_that_fails_get_the_live_answer(
    world: World,
    start: Any,
    candidate: str,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    client, service = start()
    live, real = world.generations.pointer().id, Served.search
    expected = ask(client, "pump 3")["results"]
    world.generations.start_rollout(candidate, mode, 1.0)
    wait_for(lambda: service.rollouts._candidate)

    def broken(self: Served, queries: Any, k: int) -> Any:
        if self.id == candidate:
            raise RuntimeError("the candidate is broken")
        return real(self, queries, k)

    monkeypatch.setattr(Served, "search", broken)
    told = ask(client, "pump 3")
    assert (told["generation"], told["results"]) == (live, expected)
    service.log.flush()
    line = read_traffic(world.root / "traffic")[-1]
    assert line.arm == ("canary" if mode == "canary" else "interleaved")
    assert "the candidate is broken" in str(line.error)


def test_a_replay_says_what_a_shadow_would(world: World, start: Any, candidate: str) -> None:
    client, service = start()
    live = str(world.generations.pointer().id)
    for number in range(25):
        ask(client, f"pump {number}")
    service.log.flush()
    told = replay_log(world.generations, candidate, live)
    assert (told["queries"], told["live"], told["candidate"]) == (25, live, candidate)
    assert told["agreement"]["overlap"]["mean"] < 1
    same = replay_log(world.generations, live, live)
    assert same["agreement"]["overlap"]["mean"] == same["agreement"]["rbo"]["mean"] == 1.0


def test_judged_queries_estimate_ndcg_for_both() -> None:
    rng, asked = np.random.default_rng(7), []
    for number in range(40):
        answer = {
            "generation": "new",
            "latency_ms": 5.0,
            "results": [{"id": "good", "score": 1.0, "rank": 1}],
        }
        told = {"overlap": 0.0, "rbo": 0.0, "top1_changed": True, **answer}
        asked.append(
            Request(
                NOW,
                f"r{number}",
                f"Query {number}!",
                "old",
                (("bad", 1.0), ("good", 0.5)),
                5.0,
                shadow=told,
            )
        )
    judgments = {f"query {number}": {"good": 1} for number in range(30)}
    record = shadow.report(
        asked, "old", "new", Shadow(min_queries=20), rng, JudgedBy(judgments), timed=True
    )
    assert record["verdict"] == "pass"
    assert (record["judged"]["queries"], record["judged"]["candidate"]) == (30, 1.0)
    assert record["judged"]["live"] == pytest.approx(1 / np.log2(3))
    worse = [
        Request(
            NOW,
            one.request_id,
            one.query,
            "old",
            (("good", 1.0),),
            5.0,
            shadow=dict(one.shadow or {}) | {"results": []},
        )
        for one in asked
    ]
    assert (
        shadow.report(worse, "old", "new", Shadow(min_queries=20), rng, JudgedBy(judgments))[
            "verdict"
        ]
        == "fail"
    )


def test_a_cutover_may_ask_for_a_passing_shadow_record(world: World, candidate: str) -> None:
    live = str(world.generations.pointer().id)
    world.settings["index"]["require_shadow"] = True
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    decision = world.root / "runs" / "default" / "decide" / "decision.json"
    decision.parent.mkdir(parents=True)
    own = world.generations.manifest(candidate).fingerprint
    chosen = {
        "name": "fine-tuned",
        "fingerprint": type(own)(
            **{**{f: getattr(own, f) for f in own.__dataclass_fields__}, "chunker": None}
        ).id,
    }
    shipped = {"verdict": "ship", "recommended": "fine-tuned", "candidates": [chosen]}
    decision.write_text(json.dumps(signed(shipped, "ann", "2026-05-03")))
    with pytest.raises(StoreError, match="no shadow record"):
        world.generations.cutover(candidate)
    record = world.root / "shadow" / f"{candidate}.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"verdict": "fail", "live": live}))
    with pytest.raises(StoreError, match="says fail"):
        world.generations.cutover(candidate)
    record.write_text(json.dumps({"verdict": "pass", "live": "another"}))
    with pytest.raises(StoreError, match="against another"):
        world.generations.cutover(candidate)
    record.write_text(json.dumps({"verdict": "pass", "live": live}))
    assert world.generations.cutover(candidate).id == candidate


def test_only_one_verified_generation_is_tried(
    world: World, candidate: str, models: tuple[Path, Path]
) -> None:
    generations = world.generations
    with pytest.raises(StoreError, match="active already"):
        generations.start_rollout(str(generations.pointer().id), "shadow", 0.1)
    generations.start_rollout(candidate, "shadow", 0.1)
    with pytest.raises(StoreError, match="no generation"):
        generations.start_rollout("00000000-1", "shadow", 0.1)
    assert (
        generations.start_rollout(candidate, "canary", 0.2).mode == "canary"
    )  # on with the same one
    generations.cutover(candidate, override="a test")
    assert generations.rollout() is None  # it answers everybody now
    assert generations.stop_rollout() is None


class Stub:
    """Something served, that gives one answer to every query."""

    def __init__(self, doc_id: str) -> None:
        self._hit = (doc_id, 1.0)

    def as_judged(self, queries: Any) -> Any:
        return queries

    def search(self, queries: Any, k: int) -> Run:
        return Run("stub", {query.id: [self._hit] for query in queries})


def test_judged_canary_queries_stop_a_candidate_before_people_see_it() -> None:
    queries = tuple(Query(f"q{n}", f"query {n}") for n in range(30))
    split = Split("dev", queries, {query.id: {"good": 1} for query in queries})
    good, bad, rng = Stub("good"), Stub("bad"), np.random.default_rng(7)
    assert "falls by 1.000" in str(guards.canary_queries_fall(good, bad, split, "nDCG@10", rng))  # type: ignore[arg-type]
    assert guards.canary_queries_fall(bad, good, split, "nDCG@10", rng) is None  # type: ignore[arg-type]
    assert guards.canary_queries_fall(good, good, split, "nDCG@10", rng) is None  # type: ignore[arg-type]
    assert guards.canary_queries_fall(good, bad, Split("dev", (), {}), "nDCG@10", rng) is None  # type: ignore[arg-type]


def test_judgments_of_dev_and_of_reviewed_requests_count_and_those_of_train_do_not(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs" / "default" / "check" / "split"
    for name in ("train", "dev"):
        write_split(folder, Split(name, (Query("q", f"Asked in {name}?"),), {"q": {"d": 1}}))
    (tmp_path / "review").mkdir()
    (tmp_path / "review" / "queue.jsonl").write_text(
        json.dumps({"request_id": "r1", "query": "Reviewed!"}) + "\n"
    )
    (tmp_path / "review" / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\nr1\td2\t2\nr9\td3\t1\n"
    )
    assert shadow.known_judgments(tmp_path, "default") == {
        "asked in dev": {"d": 1},
        "reviewed": {"d2": 2},
    }
