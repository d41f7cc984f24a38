"""The whole story, as docs/tutorial.md tells it: from a decision to production, to an alert, and back."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from nearer import config
from nearer.data.load import load_corpus
from nearer.data.splits import read_split
from nearer.live.index.generations import Generations, for_chunks
from nearer.live.web.service import Service, Tokens
from nearer.search.systems import Systems
from test_cli import nearer
from test_serve import serving, wait_for

pytestmark = pytest.mark.long


def told(*words: str | Path) -> Any:
    """What a command prints with --json."""
    result = nearer(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_run_build_shadow_cutover_drift_alert_rollback(
    tmp_path: Path, write_project: Any, small_data_with_whole_texts: Path
) -> None:
    here = tmp_path / "weaknesses"
    data = here / "data"
    for file in (path for path in small_data_with_whole_texts.rglob("*") if path.is_file()):
        (data / file.relative_to(small_data_with_whole_texts)).parent.mkdir(
            parents=True, exist_ok=True
        )
        (data / file.relative_to(small_data_with_whole_texts)).write_bytes(file.read_bytes())
    path = write_project(
        here,
        data={"folder": "data"},
        train={
            "epochs": 4,
            "learning_rate": 3e-4,
            "dev_documents": 200,
            "anchor": 0,
            "general": None,
        },
        # 40 test queries cannot show that fine-tuning beats a hybrid: the story is about what follows.
        evaluate={"baselines": ["dense"]},
        fix={"fixes": ["metadata"]},
        decide={
            "alpha": 0.3,
            "skip": dict.fromkeys(
                ("rewriting", "hybrid", "reranking", "chunking", "base_model"),
                "the story is about what follows",
            ),
            "guardrails": {"general": None, "slice_margin": 0.5, "latency_ratio": 10.0},
        },
        index={"require_shadow": True, "store": "numpy"},
        shadow={"min_queries": 50, "latency_ratio": 10.0},
        serve={"refresh": 0.05},
    )
    at = ("-c", path)
    generations = Generations(here, config.load(path))

    # run: a decision
    told("run", *at)
    decision = json.loads((here / "runs/default/decide/decision.json").read_text())
    assert decision["verdict"] == "ship", decision["sentence"]

    # sign-off: a person approves it, and says so in the report
    assert told("sign-off", "--by", "Ann Lee", *at)["verdict"] == "ship"

    # build: today's generation serves, the new one waits
    today = told("index", "build", *at)["id"]
    assert told("index", "verify", today, *at)["passed"]
    told("index", "cutover", today, *at)
    new = told("index", "build", "--model", here / "runs/default/train/model", *at)["id"]
    assert told("index", "verify", new, *at)["passed"]

    # shadow: yesterday's log, imported from another system, asked again of both
    queries = [
        query.text
        for name in ("train", "dev")
        for query in read_split(here / "runs/default/check/split", name).queries
    ]
    with (here / "old.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["timestamp", "query", "doc_id", "rank", "clicked"])
        for number, text in enumerate(queries):
            rows.writerow(
                [f"2026-03-01T10:{number // 60:02}:{number % 60:02}", text, "CWE-79", 1, 0]
            )
    assert told("log", "import", here / "old.csv", *at)["requests"] == len(queries)
    refused = nearer("index", "cutover", new, *at)
    assert refused.exit_code == 2
    assert "no shadow record" in refused.output.replace("\n", " ")
    record = told("shadow", "replay", new, *at)
    assert record["verdict"] == "pass", record["reasons"]
    assert record["queries"] >= 50
    assert record["judged"]["candidate"] > record["judged"]["live"]
    assert record["queued"] > 0

    service = Service(Generations(here, config.load(path)), Tokens("secret"))
    with serving(service) as address, httpx.Client(base_url=address, timeout=30) as client:
        assert client.post("/search", json={"query": queries[0]}).json()["generation"] == today

        # cut-over: the decision ships it, the shadow record passes
        moved = client.post(
            "/admin/cutover", json={"generation": new}, headers={"Authorization": "Bearer secret"}
        )
        assert moved.json() == {"active": new, "previous": today}
        answer = client.post("/search", json={"query": queries[0], "k": 5}).json()
        assert answer["generation"] == new
        served = service.searcher.current()
        recommended = next(
            one for one in decision["candidates"] if one["name"] == decision["recommended"]
        )
        assert served.pipeline.system == recommended["system"]
        assert replace(served.manifest.fingerprint, chunker=None).id == recommended["fingerprint"]

        # what is served ranks as what was judged, query by query
        dev = read_split(here / "runs/default/check/split", "dev")
        settings = config.load(path)
        encoder = for_chunks(served.generation.encoder, None)
        systems = Systems(settings, here, load_corpus(settings.data, here), encoder=encoder)  # type: ignore[arg-type]
        wanted, found = (
            systems.run(served.pipeline, dev),
            served.search(served.as_judged(dev.queries), 10),
        )
        assert [[d for d, _ in found.results[q.id]] for q in dev.queries] == [
            wanted.top(q.id, 10) for q in dev.queries
        ]

        # monitor: all is well
        for text in queries:
            client.post("/search", json={"query": text})
        service.log.flush()
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        assert told("monitor", "--since", day, *at)["alerts"] == []

        # drift: a broken export loses half of the documents that people look for
        split = read_split(here / "runs/default/check/split", "dev")
        gone = {doc_id for judged in split.judgments.values() for doc_id in sorted(judged)[:1]}
        lines = (data / "corpus.jsonl").read_text().splitlines(keepends=True)
        (data / "corpus.jsonl").write_text(
            "".join(line for line in lines if json.loads(line)["_id"] not in gone)
        )
        told("index", "sync", *at)
        alarm = nearer("monitor", "--gate", *at, "--json")
        assert alarm.exit_code == 1, alarm.output
        alerts = {one["condition"]: one for one in json.loads(alarm.stdout)["alerts"]}
        assert alerts["quality_canary"]["diagnosis"]["answer"] == "missing documents", alerts[
            "quality_canary"
        ]
        assert len(alerts["quality_canary"]["examples"]) > 0
        assert "quality_canary" in client.get("/dashboard").text.replace(" ", "_")

        # rollback at once, then the documents back, and all is well again
        back = client.post(
            "/admin/rollback",
            json={"why": "alert quality_canary"},
            headers={"Authorization": "Bearer secret"},
        )
        assert back.json()["active"] == today
        assert client.post("/search", json={"query": queries[0]}).json()["generation"] == today
        (data / "corpus.jsonl").write_text("".join(lines))
        told("index", "sync", *at)
        wait_for(
            lambda: (
                service.searcher.refresh().manifest.content == generations.manifest(today).content
            )
        )
        found = [
            hit["id"]
            for hit in client.post(
                "/search", json={"query": split.queries[0].text, "k": 100}
            ).json()["results"]
        ]
        assert gone & set(found)
    actions = [line["action"] for line in generations.history()]
    assert [one for one in actions if one in ("cutover", "rollback")] == [
        "cutover",
        "cutover",
        "rollback",
    ]
