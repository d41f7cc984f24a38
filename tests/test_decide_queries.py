"""The queries that matter: must-pass, high-risk, frequent, exact codes; leaks; small test sets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import nearer
from nearer import config
from nearer.data.clusters import QueryClusters
from nearer.data.importance import frequencies_of, is_named
from nearer.data.leakage import Leakage, TrainedOn
from nearer.data.named import NamedQuery
from nearer.decision.answering import _Reading
from nearer.decision.building import Findings, TunedFindings
from nearer.decision.candidates import Finalists
from nearer.decision.comparisons import Statistics
from nearer.decision.hashes import reproducible
from nearer.decision.queries import QueryFindings
from nearer.decision.result import Decision
from nearer.errors import ConfigError, DataError
from nearer.guardrails import check_all, load_guardrails
from nearer.guardrails.base import GuardrailEvidence, Row
from nearer.guardrails.named import ROWS
from nearer.measure.metrics import Scores
from nearer.measure.named import NamedOutcome
from nearer.measure.significance import compare
from nearer.measure.slices import SliceEvidence, automatic_slices, compare_slices
from nearer.measure.verdict import TUNED, Candidate, Evidence, Verdict, judge
from nearer.project import Project
from nearer.report import markdown
from nearer.report.data import ReportData
from nearer.report.page import render
from nearer.stages import check as check_stage
from nearer.stages import decide as decide_stage
from nearer.training.mining import Mined
from nearer.types import Example, Query, Run, Split

N = 400
IDS = tuple(f"q{number}" for number in range(N))
SYSTEMS = SimpleNamespace(root=Path(), config=config.defaults())  # all that guardrails ask of them


def candidate(name: str, role: str, column: np.ndarray) -> Candidate:
    scores = Scores(IDS[: len(column)], {"nDCG@10": column})
    return Candidate(name, role, "dense", Run(name, {}), scores, 0.5)


def decided(
    codes: int = 0, gain: float = 0.15, loss: float = 0.5, n: int = N, **more: Any
) -> tuple[Verdict, list[Row]]:
    """A fine-tuned model that gains on all queries but the `codes` first, which ask for a code.

    Gives the verdict and the rows of all guardrails; `more` goes to the guardrails' evidence.
    """
    rng = np.random.default_rng(3)
    before = rng.uniform(0.5, 0.8, n)
    change = np.full(n, gain) + rng.uniform(-0.05, 0.05, n)
    change[:codes] = -loss
    after = before + change
    after[:codes] = np.where(loss >= 0.5, 0.0, after[:codes])
    texts = ["the fault CVE-2020-1234"] * codes + ["a plain question"] * (n - codes)
    queries = tuple(Query(name, text) for name, text in zip(IDS[:n], texts, strict=True))
    slices = automatic_slices(queries, SliceEvidence())
    today, tuned = candidate("dense", "today", before), candidate(TUNED, "candidate", after)
    facts = GuardrailEvidence(
        baseline=today,
        candidate=tuned,
        base=SYSTEMS,  # type: ignore[arg-type]
        tuned=SYSTEMS,  # type: ignore[arg-type]
        test=Split("test", queries, {}),
        slices=slices,
        slice_rows=compare_slices(
            today.scores, tuned.scores, slices, "nDCG@10", 10, rng, resamples=1000
        ),
        latencies={"dense": None, TUNED: None},
        general_set=None,
        settings=config.Decide(),
        primary="nDCG@10",
        **more,
    )
    rows = check_all(load_guardrails(), facts)
    gained = compare(before, after, rng, 1000)
    guardrails = [row.as_dict() for row in rows]
    found = Evidence(
        today, tuned, None, {("dense", TUNED): gained}, guardrails, "nDCG@10", 0.01, 0.05
    )
    return judge(found), rows


def row_of(rows: list[Row], name: str) -> Row:
    (row,) = [row for row in rows if row.name == name]
    return row


def outcome(query_id: str, before: float, after: float, group: str = "must_pass") -> NamedOutcome:
    return NamedOutcome(group, query_id, f"text of {query_id}", "test", before, after)


# -- the rule, with planted systems ---------------------------------------------------------------


def test_a_model_that_helps_on_average_and_ruins_exact_codes_is_not_shipped() -> None:
    verdict, rows = decided(codes=60)
    assert verdict.verdict == "do_not_ship"
    assert "slice identifier" in verdict.sentence
    assert {row.name: row.status for row in rows}["slice identifier"] == "fail"
    assert decided(codes=0)[0].verdict == "ship"


def test_a_handful_of_ruined_codes_holds_the_release_back_too() -> None:
    """Five queries are below evaluate.min_slice, and prove nothing: they are no reason to ship."""
    verdict, _ = decided(codes=5)
    assert verdict.verdict in {"do_not_ship", "inconclusive"}
    assert "slice identifier" in verdict.sentence


def test_a_handful_of_codes_that_lose_nothing_is_no_obstacle() -> None:
    verdict, rows = decided(codes=5, loss=-0.1)
    assert verdict.verdict == "ship"
    assert all(row.name != "slice identifier" for row in rows)


@pytest.mark.parametrize("group", ["must_pass", "high_risk"])
def test_a_lost_named_query_prevents_the_release_and_is_named(group: str) -> None:
    lost = (outcome("q7", 1.0, 0.0, group), outcome("q8", 1.0, 0.6, group))
    verdict, rows = decided(named=lost)
    assert verdict.verdict == "do_not_ship"
    row = row_of(rows, ROWS[group])
    assert row.name in verdict.sentence
    assert row.status == "fail"
    assert "q7 “text of q7”" in row.as_dict()["reason"]
    assert "q8" not in row.as_dict()["reason"]


def test_a_named_query_that_nobody_answers_is_listed_and_is_no_loss() -> None:
    verdict, rows = decided(named=(outcome("q7", 0.0, 0.0), outcome("q8", 0.0, 1.0)))
    assert verdict.verdict == "ship"
    line = row_of(rows, "must-pass queries").as_dict()
    assert (line["status"], line["missed"], line["lost"]) == ("pass", ["q7"], [])


def test_named_queries_that_were_not_judged_are_told_and_never_count_as_kept() -> None:
    named = [NamedQuery("must_pass", Query(name, name), "train", {"d": 1}) for name in ("q7", "q8")]
    inputs: Any = SimpleNamespace(named=named)
    outcomes = {TUNED: (outcome("q7", 1.0, 1.0),)}
    nothing: Any = None
    queries = QueryFindings(named=outcomes)
    found = Findings(inputs, nothing, (), TunedFindings(), None, {}, queries)
    (reason,) = found._not_judged()
    assert reason.startswith("fine-tuned: 1 of 2 must-pass and high-risk queries were not judged")
    assert "(q8)" in reason
    told = QueryFindings(named={TUNED: (*outcomes[TUNED], outcome("q8", 1.0, 1.0))})
    assert replace(found, queries=told)._not_judged() == []


def test_a_simpler_fix_that_loses_a_named_query_is_not_recommended() -> None:
    rng = np.random.default_rng(1)
    before = rng.uniform(0.4, 0.6, N)
    today, fix = candidate("dense", "today", before), candidate("bm25", "baseline", before + 0.1)
    gains = {("dense", "bm25"): compare(before, before + 0.1, rng, 1000)}
    lost = [{"name": "must-pass queries", "status": "fail"}]
    free = Evidence(today, None, fix, gains, (), "nDCG@10", 0.01, 0.05)
    assert judge(free).verdict == "use_simpler_fix"
    held = Evidence(today, None, fix, gains, (), "nDCG@10", 0.01, 0.05, fix_guardrails=lost)
    assert judge(held).verdict == "do_not_ship"
    assert "bm25 fails the guardrail must-pass queries" in judge(held).reasons


def test_a_model_trained_on_test_queries_is_not_shipped_and_the_leak_is_named() -> None:
    leak = Leakage(50, (TrainedOn("q3", "a plain question", "exact", 2),))
    verdict, rows = decided(leakage=leak)
    assert verdict.verdict == "do_not_ship"
    assert "no test query in training" in verdict.sentence
    row = row_of(rows, "no test query in training")
    assert row.as_dict()["reason"].startswith("leakage: 1 of 400 test queries")
    assert decided(leakage=Leakage(50))[0].verdict == "ship"


def test_thirty_test_queries_are_inconclusive_and_the_number_needed_is_told() -> None:
    verdict, _ = decided(n=30, gain=0.03)
    assert verdict.verdict == "inconclusive"
    assert "judged test queries would settle it" in verdict.sentence


# -- what a query says about itself ---------------------------------------------------------------


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "Yes", "1"])
def test_a_mark_is_read_in_every_usual_form(value: Any) -> None:
    assert is_named(Query("q", "text", metadata={"must_pass": value}), "must_pass")


@pytest.mark.parametrize("value", [None, False, 0, "", "false", "no", "0"])
def test_what_is_not_marked_is_not_named(value: Any) -> None:
    assert not is_named(Query("q", "text", metadata={"must_pass": value}), "must_pass")


@pytest.mark.parametrize("value", ["perhaps", 2, [True], {"a": 1}])
def test_a_mark_that_means_nothing_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="query 'q' has must_pass"):
        is_named(Query("q", "text", metadata={"must_pass": value}), "must_pass")


@pytest.mark.parametrize("value", [0, -1, "often", float("inf"), True, [3], 10**400])
def test_a_frequency_that_is_no_number_above_zero_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="frequency"):
        frequencies_of([Query("q", "text", metadata={"frequency": value})])


def test_a_query_without_a_frequency_counts_once_beside_those_that_have_one() -> None:
    queries = [Query("a", "x", metadata={"frequency": "40"}), Query("b", "y")]
    assert frequencies_of(queries) == {"a": 40.0, "b": 1.0}
    assert frequencies_of([Query("b", "y")]) is None


@pytest.mark.parametrize("unit", [1e-300, 1e-12, 1.0, 1e6, 1e303])
def test_counts_and_shares_of_all_requests_weigh_the_same(unit: float) -> None:
    rng = np.random.default_rng(5)
    before = rng.uniform(0.3, 0.5, 100)
    after = before + rng.uniform(0.05, 0.15, 100)
    asked = dict(zip(IDS, np.arange(1.0, 101.0) * unit, strict=False))
    tuned = candidate(TUNED, "candidate", after)
    statistics = Statistics("nDCG@10", 0.05, 1000, np.random.default_rng(1), frequencies=asked)
    units = statistics.requests(tuned)
    result = statistics.compare(candidate("dense", "today", before), tuned, units)
    expected = np.average(after - before, weights=np.arange(1.0, 101.0))
    assert result.delta == pytest.approx(expected)
    assert result.p < 0.01
    assert result.low == pytest.approx(0.04333, abs=1e-4)


def test_what_a_language_model_reads_is_compared_by_clusters_too() -> None:
    rng = np.random.default_rng(5)
    before = candidate("dense", "today", rng.uniform(0.3, 0.5, 60))
    after = candidate(TUNED, "candidate", rng.uniform(0.4, 0.6, 60))
    owners = {name: str(number // 6) for number, name in enumerate(IDS[:60])}
    rows = []
    for clusters in (QueryClusters(), QueryClusters(owners, "user")):
        inputs: Any = SimpleNamespace(settings=config.defaults(), clusters=clusters)
        reading = _Reading((), Finalists(before, after, None), inputs)
        rows.append(reading._row(before, after, "nDCG@10"))
    assert "clusters" not in rows[0]
    assert rows[1]["clusters"] == 10
    assert rows[1]["ci"][0] < rows[0]["ci"][0]


def test_queries_are_divided_by_how_often_they_are_asked() -> None:
    queries = [Query(name, "text") for name in "abcdef"]
    often = {"a": 100.0, "b": 50.0, "c": 9.0, "d": 8.0, "e": 1.0, "f": 1.0}
    slices = automatic_slices(queries, SliceEvidence(frequencies=often, high_risk={"f"}))
    assert slices["often asked"] == {"a", "b"}
    assert slices["sometimes asked"] == {"c", "d"}
    assert slices["rarely asked"] == {"e", "f"}
    assert slices["high risk"] == {"f"}
    alike = automatic_slices(queries, SliceEvidence(frequencies=dict.fromkeys("abcdef", 3.0)))
    assert "rarely asked" not in alike


# -- the stage ------------------------------------------------------------------------------------


def with_fields(folder: Path, target: Path, fields: Mapping[str, Mapping[str, Any]]) -> Path:
    """A copy of a data folder whose queries have further fields."""
    shutil.copytree(folder, target)
    path = target / "queries.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.update(fields.get(line["_id"], {}))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return target


def ids_of(folder: Path, split: str) -> list[str]:
    rows = (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
    return list(dict.fromkeys(row.split("\t")[0] for row in rows))


@pytest.fixture(scope="module")
def forgetful(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with random weights."""
    model = SentenceTransformer(str(tiny_model), device="cpu")
    torch.manual_seed(0)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=1.0)
    folder = tmp_path_factory.mktemp("models") / "forgetful"
    model.save(str(folder), create_model_card=False)
    return folder


def loaded(folder: Path, model: Path, **decide: Any) -> Project:
    return nearer.load(
        folder,
        model=str(model),
        evaluate={"resamples": 1000, "baselines": ["bm25"]},
        decide={"guardrails": {"general": None}, **decide},
    )


@pytest.fixture(scope="module")
def judged(
    small_data: Path, tiny_model: Path, forgetful: Path, tmp_path_factory: pytest.TempPathFactory
) -> Decision:
    """A forgetful model judged on queries with frequencies, users, and marks; trained on a test query."""
    test, dev, train = (ids_of(small_data, split) for split in ("test", "dev", "train"))
    fields: dict[str, dict[str, Any]] = {}
    for number, query_id in enumerate(test):
        fields[query_id] = {"frequency": 1 + number, "user": f"u{number // 8}"}
        fields[query_id]["must_pass"] = True
    fields[dev[0]] = {"must_pass": True}
    fields[train[0]] = {"high_risk": "true"}
    folder = with_fields(small_data, tmp_path_factory.mktemp("named") / "data", fields)
    project = loaded(folder, tiny_model, high_risk=[test[3]])
    leaked = project.checked.splits["test"].queries[0]
    on_dev = project.checked.splits["dev"].queries[0]
    repeated = (leaked.text.upper(), on_dev.text)
    mined = Mined(tuple(Example("some text", query=text) for text in repeated), {}, {})
    decision: Decision = nearer.decide(project, forgetful, mined)
    return decision


def test_the_record_says_what_the_units_of_its_intervals_are(judged: Decision) -> None:
    clusters = judged.decided.clusters
    assert clusters is not None
    assert clusters.queries == judged.decided.n_queries
    assert clusters.n is not None
    assert clusters.n <= 5
    assert {row.kind for row in clusters.noticed} >= {"user", "shared document"}
    assert all(row.clusters == clusters.n for row in judged.decided.comparisons)
    assert "clusters" in str(judged.record["reasons"][0])


def test_requests_stand_beside_the_plain_mean(judged: Decision) -> None:
    requests = judged.decided.requests
    assert requests is not None
    assert len(requests) == len(judged.decided.comparisons)
    plain = {(row.baseline, row.candidate): row.delta for row in judged.decided.comparisons}
    for row in requests:
        assert row.delta != plain[row.baseline, row.candidate]
    assert {"often asked", "rarely asked"} <= {row.slice for row in judged.decided.slices}
    assert judged.decided.pays is not None
    assert judged.decided.pays["counted"] == "requests"


def test_named_queries_are_judged_in_whatever_split_they_stand(judged: Decision) -> None:
    tuned = judged.decided.compared.candidate
    named = [row for row in judged.decided.named_queries or () if row.candidate == tuned]
    assert {(row.group, row.split) for row in named} == {
        ("must_pass", "test"),
        ("must_pass", "dev"),
        ("high_risk", "train"),
        ("high_risk", "test"),
    }
    lost = [row.query_id for row in named if row.fate == "lost" and row.group == "must_pass"]
    assert lost
    rows = {row.name: row for row in judged.decided.guardrails}
    assert rows["must-pass queries"].status == "fail"
    assert rows["must-pass queries"].more["lost"] == lost
    assert judged.verdict != "ship"


def test_flips_and_judged_results_are_counted(judged: Decision) -> None:
    flips, results = judged.decided.flips, judged.decided.judged
    assert flips is not None
    assert flips.negative == len(judged.decided.negative_flips)
    assert all(row.before for row in judged.decided.negative_flips)
    assert results is not None
    assert results.measure == "Judged@10"
    assert results.worst is not None
    assert results.best is not None
    assert results.delta is not None
    assert results.worst <= results.delta <= results.best


def test_the_leak_is_named_in_the_record_and_in_the_reasons(judged: Decision) -> None:
    leakage = judged.decided.leakage
    assert leakage is not None
    assert [(row.kind, row.examples) for row in leakage.queries] == [("exact", 1)]
    assert any("leakage: 1 of" in reason for reason in judged.decided.reasons)
    (mistake,) = [row for row in judged.mistakes if row.mistake.startswith("training on")]
    # The repeated dev query is a mistake too, though it judges nothing.
    assert "2 training examples 2 repeat a held-out query exactly" in mistake.evidence


def test_the_record_is_read_and_written_back_and_shown(judged: Decision, tmp_path: Path) -> None:
    judged.save(tmp_path / "decide")
    again = Decision.load(tmp_path / "decide")
    again.save(tmp_path / "again")
    written = (tmp_path / "decide" / "decision.json").read_bytes()
    assert (tmp_path / "again" / "decision.json").read_bytes() == written
    assert str(again) == str(judged)
    assert "must-pass queries that fail" in str(judged)
    data = ReportData(run="r", decision=json.loads(written))
    page, text = render(data), markdown.render(data)
    for shown in (page, text):
        assert "Queries that matter" in shown
        assert "must-pass queries that fail" in shown
    assert "no longer answered" in page


@pytest.mark.long
def test_the_same_seed_finds_the_same_whatever_the_clock_measured(
    small_data: Path, tiny_model: Path, forgetful: Path
) -> None:
    # A limit far from any ratio: which system is in time must not depend on a busy machine.
    limits = {"general": None, "latency_ratio": 1000.0}
    records = []
    for _ in range(2):
        project = loaded(small_data, tiny_model, guardrails=limits, cost_per_hour=3.0)
        records.append(nearer.decide(project, forgetful).record)
    first, second = map(reproducible, records)
    assert json.dumps(first) == json.dumps(second)
    assert first["comparisons"]
    assert first["slices"]
    assert records[0]["hashes"] == records[1]["hashes"]
    assert set(records[0]["hashes"]) >= {"findings", "settings"}


def test_a_named_query_that_does_not_exist_is_refused_with_its_name(
    small_data: Path, tiny_model: Path
) -> None:
    for group in ("must_pass", "high_risk"):
        project = loaded(small_data, tiny_model, **{group: ["nobody", "nothing"]})
        with pytest.raises(ConfigError, match="'nobody', 'nothing'") as refused:
            nearer.decide(project, None)
        assert refused.value.where == f"decide.{group}"


@pytest.mark.parametrize(
    "setting", ["decide.must_pass=[nobody]", "decide.clusters=nobody", "decide.clusters=text"]
)
def test_a_misspelt_name_costs_no_look_at_test(project: Path, setting: str) -> None:
    settings = config.load(project, overrides=[setting])
    run = Project.at(project.parent, settings)
    assert run.run_dir is not None
    check_stage.run(run).save(run.run_dir / "check")
    with pytest.raises(ConfigError, match=r"nobody|'text'"):
        decide_stage.run(run)
    assert not (run.run_dir / "test_looks.jsonl").exists()


def test_check_tells_of_named_queries_that_nobody_judged_and_refuses_rubbish(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    query_id = ids_of(small_data, "dev")[0]
    folder = with_fields(small_data, tmp_path / "data", {})
    with open(folder / "queries.jsonl", "a") as out:
        out.write(json.dumps({"_id": "new", "text": "an unjudged one", "must_pass": True}) + "\n")
    findings = {
        finding.code: finding for finding in nearer.check(loaded(folder, tiny_model)).findings
    }
    assert findings["named_queries_unjudged"].examples == ("new: an unjudged one",)
    broken = with_fields(small_data, tmp_path / "broken", {query_id: {"frequency": "daily"}})
    with pytest.raises(DataError, match="frequency 'daily'"):
        nearer.check(loaded(broken, tiny_model))


def test_test_queries_in_training_data_are_left_out_and_counted_before_training(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The usual way: `mine` drops them, so that `decide` has nothing to find."""
    project = loaded(small_data, tiny_model)
    test = project.checked.splits["test"].queries
    rows = [{"query": query.text, "positive": f"text {n}"} for n, query in enumerate(test[:3])]
    rows.append({"query": "a question of its own", "positive": "and its answer"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained_on = nearer.load(
        small_data,
        model=str(tiny_model),
        data={"training": str(path)},
        mine={"negatives": 0},
    )
    mined: Mined = nearer.mine(trained_on)
    assert sum(mined.leakage.values()) == 3
    texts = {example.query for example in mined.examples}
    assert texts.isdisjoint(query.text for query in test)
