"""The example of examples/rag from end to end: what the model reads, what it answers, what the report says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from embeddings_kit import serving
from nearer import config
from nearer.cli import app
from nearer.data.corpus import Corpus
from nearer.decision.answering import RagFindings
from nearer.decision.candidates import Finalists, PlannedCandidate
from nearer.decision.inputs import DecisionInputs
from nearer.decision.record import DecisionRecord
from nearer.embed import posting, spending
from nearer.measure.metrics import score
from nearer.measure.verdict import Candidate
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Query, Run, Split, rank_hits
from rag_kit import EXAMPLE, STAND_IN, ChatStandIn, example

pytestmark = pytest.mark.long


def nearer(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def stand_in() -> Iterator[ChatStandIn]:
    with serving(ChatStandIn()) as running:  # type: ignore[type-var]
        yield running


@pytest.fixture(scope="module")
def finished(
    stand_in: ChatStandIn,
    tmp_path_factory: pytest.TempPathFactory,
    write_project: Any,
    small_data: Path,
) -> Path:
    """nearer.yaml of the example over a small piece of its data, run from check to report."""
    folder = tmp_path_factory.mktemp("rag")
    example("prepare").prepare(small_data, folder / "data")
    settings = yaml.safe_load((EXAMPLE / "nearer.yaml").read_text())
    path: Path = write_project(
        folder,
        data={"folder": "data"},
        evaluate={**settings["evaluate"], "resamples": 1000},
        rag={**settings["rag"], "url": stand_in.url},
        # Of two systems the one in time goes first: on a busy machine the clock would choose.
        decide={"guardrails": {"general": None, "latency_ratio": 1000.0}},
    )
    result = nearer("run", "--to", "train", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    assert stand_in.asked == 0  # answers to held-out queries are made by decide alone
    result = nearer("run", "--from", "decide", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    return path


def decided(path: Path, run: str = "default") -> dict[str, Any]:
    record: dict[str, Any] = json.loads(
        (path.parent / "runs" / run / "decide" / "decision.json").read_text()
    )
    return record


def again(path: Path, *words: str) -> dict[str, Any]:
    """The decision with changed settings."""
    result = nearer("decide", "-c", path, "--json", *words)
    assert result.exit_code == 0, result.output
    return decided(path)


def test_contexts_are_measured_wherever_systems_are(finished: Path) -> None:
    run = finished.parent / "runs" / "default"
    summary = json.loads((run / "evaluate" / "summary.json").read_text())
    recall = summary["measures"]["ContextRecall@2000tok"]
    assert 0 < recall["mean"] <= 1
    trials = [json.loads(line) for line in (run / "fix" / "trials.jsonl").read_text().splitlines()]
    assert all("ContextOrder@2000tok" in trial["measures"] for trial in trials)
    record = decided(finished)
    assert "ContextPrecision@2000tok" in record["candidates"][0]["measures"]
    compared = {(row["candidate"], row["measure"]) for row in record["rag"]["contexts"]}
    assert (record["compared"]["candidate"], "ContextNovelty@2000tok") in compared


def test_answers_are_compared_in_pairs_and_the_judge_waits_for_people(
    finished: Path, stand_in: ChatStandIn
) -> None:
    record = decided(finished)
    found = record["rag"]["answers"]
    assert found["n_queries"] == found["queries_with_answers"] == 40
    rows = {(row["candidate"], row["measure"]): row for row in found["comparisons"]}
    candidate = record["compared"]["candidate"]
    assert rows[candidate, "TokenF1"]["n"] == 40
    assert found["systems"][candidate]["Grounded"]["mean"] == 1.0  # it answers by extracts
    assert found["judge"] is None
    assert found["not_tried"][0]["what"] == "judge"
    assert record["rag"]["finding"].startswith("nDCG@10 ")
    assert any("what a language model reads" in reason for reason in record["reasons"])
    lines = (finished.parent / "runs/default/decide/answers.jsonl").read_text().splitlines()
    systems = {json.loads(line)["system"] for line in lines}
    assert len(lines) == 40 * len(systems)
    assert set(stand_in.questions.values()) == {1}


def test_the_report_says_the_same_in_three_forms(finished: Path) -> None:
    folder = finished.parent / "runs" / "default" / "report"
    html = (folder / "report.html").read_text()
    markdown = (folder / "report.md").read_text()
    facts = json.loads((folder / "report.json").read_text())
    assert 'id="rag"' in html
    assert "### What a language model makes of it" in markdown
    assert facts["language_model"]["answers"]["n_queries"] == 40
    assert "Not tried:" in markdown
    assert html.count("nobody graded answers") >= 1
    assert facts["queries"]["better"] + facts["queries"]["same"] + facts["queries"]["worse"] == 70


def test_the_same_seed_gives_the_same_bytes_and_pays_nothing_again(
    finished: Path, stand_in: ChatStandIn
) -> None:
    folder = finished.parent / "runs" / "default" / "decide"
    names = ("queries.json", "neighbours.json", "answers.jsonl")
    before = {name: (folder / name).read_bytes() for name in names}
    rag = decided(finished)["rag"]
    asked = stand_in.asked
    again(finished, "--force")
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert decided(finished)["rag"] == rag
    assert stand_in.asked == asked


def test_pictures_are_bounded_and_hold_every_query(finished: Path) -> None:
    folder = finished.parent / "runs" / "default" / "decide"
    queries = json.loads((folder / "queries.json").read_text())
    splits = [row["split"] for row in queries["queries"]]
    assert (splits.count("test"), splits.count("dev")) == (40, 30)
    row = queries["queries"][0]
    assert len(row["after_top"]) == 8
    assert max(row["after_top"]) < len(queries["documents"])
    picture = json.loads((folder / "neighbours.json").read_text())
    assert len(picture["queries"]) == 12
    for query in picture["queries"]:
        kinds = [point["kind"] for point in query["points"]]
        assert kinds[0] == "query"
        assert "positive" in kinds
        assert "negative" in kinds
        assert all(len(point["before"]) == len(point["after"]) == 2 for point in query["points"])
    assert 0 < picture["explained"][0] <= 1


def test_an_endpoint_that_is_down_is_not_tried_with_its_reason(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting.time, "sleep", lambda seconds: None)
    record = again(finished, "--set", "rag.url=http://127.0.0.1:9/v1")
    told = record["rag"]["answers"]["not_tried"]
    assert [row["what"] for row in told] == ["answers"]
    assert "is not reached" in told[0]["why"]
    assert any("not tried: answers" in reason for reason in record["reasons"])
    assert record["rag"]["contexts"]  # what needs no endpoint was measured


def test_a_cap_makes_answers_not_tried(
    finished: Path, stand_in: ChatStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "_sent", {})
    asked = stand_in.asked
    record = again(
        finished,
        *("--set", "rag.model=dear"),
        *("--set", "rag.price_per_million_tokens=1000"),
        *("--set", "rag.max_cost=0.001"),
    )
    assert "rag.max_cost" in record["rag"]["answers"]["not_tried"][0]["why"]
    assert stand_in.asked == asked


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "rag.graded=nowhere.jsonl"], "rag.graded"),
        (["--set", "rag.url=ftp://x"], "rag.url"),
        (["--set", "rag.url=http://user:pw@x/v1"], "NEARER_RAG_TOKEN"),
    ],
)
def test_settings_that_cannot_work_end_before_test_is_opened(
    finished: Path, words: list[str], says: str
) -> None:
    looks = finished.parent / "runs" / "default" / "test_looks.jsonl"
    before = looks.read_text()
    result = nearer("decide", "-c", finished, *words)
    assert result.exit_code == 2
    assert says in result.output.replace("\n", " ")
    assert looks.read_text() == before


def test_a_judge_is_shown_with_its_agreement(finished: Path) -> None:
    run = finished.parent / "runs" / "default"
    again(finished)
    lines = (run / "decide" / "answers.jsonl").read_text().splitlines()
    graded = []
    for line in map(json.loads, lines):
        right = line["ExactMatch"] == 1 or line["TokenF1"] > 0.5  # a person who is no stand-in
        graded.append(json.dumps({**line, "correct": right}))
    (finished.parent / "graded.jsonl").write_text("\n".join(graded))
    record = again(finished, "--set", "rag.graded=graded.jsonl")
    judge = record["rag"]["answers"]["judge"]
    assert judge["n"] == len(lines)
    assert 0 <= judge["agreement"]["mean"] <= 1
    assert any(row["measure"] == "Judge" for row in record["rag"]["answers"]["comparisons"])
    assert nearer("report", "-c", finished, "--set", "rag.graded=graded.jsonl").exit_code == 0
    assert f"agrees with people on {judge['agreed']} of" in (run / "report/report.md").read_text()


# -- planted: a gain of the search, with a model that does not use it -------------------------------


def _planted(tmp_path: Path, url: str) -> tuple[list[PlannedCandidate], Finalists, DecisionInputs]:
    """A baseline that finds nothing and a candidate that puts the right document first."""
    rng = np.random.default_rng(5)
    words = [f"part{number}" for number in range(400)]
    documents, queries, judgments = [], [], {}
    for number in range(60):
        own = rng.choice(words, 6, replace=False)
        text = " ".join(own)
        documents.append({"_id": f"d{number}", "title": "", "text": text})
        queries.append(Query(f"q{number}", " ".join(own[:4]), metadata={"answer": text}))
        judgments[f"q{number}"] = {f"d{number}": 1}
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    corpus = Corpus.open(tmp_path / "corpus.jsonl")
    settings = config.build(
        {
            "evaluate": {"resamples": 1000, "measures": ["nDCG@10", "ContextRecall@20tok"]},
            "rag": {"url": url, "model": "m", "budget": 20},
        }
    )
    systems = Systems(settings, tmp_path, corpus)
    split = Split("held out", tuple(queries), judgments)
    pipeline = Pipeline("bm25")
    candidates = []
    for name, role, shift in (("before", "today", 30), ("after", "candidate", 0)):
        results = {}
        for number in range(60):
            right = f"d{(number + shift) % 60}"
            results[f"q{number}"] = rank_hits([(right, 2.0), (f"d{(number + 1) % 60}", 1.0)])
        run = Run(name, results)
        names = ["nDCG@10"]
        candidates.append(Candidate(name, role, "bm25", run, score(run, split, names), 0.5))
    plan = [PlannedCandidate(systems, pipeline, each.role, each.name) for each in candidates]
    inputs = DecisionInputs(base=systems, tuned=None, dev=split, test=split)
    return plan, Finalists(candidates[0], candidates[1], None), inputs


def test_a_gain_that_does_not_reach_the_answers_is_in_the_sentence(
    tmp_path: Path, stand_in: ChatStandIn
) -> None:
    plan, finalists, inputs = _planted(tmp_path, stand_in.url)
    record = DecisionRecord(sentence="Ship it.")
    reached = RagFindings.of(plan, finalists, inputs).added_to(record)
    assert reached.rag
    assert reached.rag["reaches_answers"] is True
    assert reached.rag["about"] == "after"
    assert reached.sentence == "Ship it."
    stand_in.reply = lambda body: "part1 part2"  # a model that reads nothing
    try:
        other = inputs.settings.model_copy(
            update={"rag": inputs.settings.rag.model_copy(update={"model": "deaf"})}
        )
        inputs.base.config = other
        deaf = RagFindings.of(plan, finalists, inputs)
    finally:
        stand_in.reply = STAND_IN.reply
    added = deaf.added_to(record)
    assert added.rag
    assert added.rag["reaches_answers"] is False
    assert added.sentence == ("Ship it. The gain of the search is not shown to reach the answers.")
    assert "the gain is not shown to reach it" in added.reasons[0]
