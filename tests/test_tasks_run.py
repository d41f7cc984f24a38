"""Recommend and cluster from end to end, over a small piece of Debian's packages and a tiny model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from conftest import QUICK
from nearer import config
from nearer.cli import app
from nearer.data.clusters import QueryClusters
from nearer.data.corpus import Corpus
from nearer.measure.metrics import score
from nearer.project import Project
from nearer.search.diversity import mmr
from nearer.search.engagement import pooled
from nearer.search.systems import Systems
from nearer.tasks import find_task
from nearer.tasks.base import Cannot, GuardInputs
from nearer.types import Query, Run, Split, rank_hits

DEBIAN = Path(__file__).parents[1] / "examples" / "debian-related"
SECTIONS = ("games", "fonts", "mail", "tex", "video", "math", "vcs", "doc")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 packages of each of eight sections, and relations between packages of one section."""
    folder = tmp_path_factory.mktemp("packages")
    lines = [json.loads(line) for line in (DEBIAN / "corpus.jsonl").read_text().splitlines()]
    kept: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for line in lines:
        if line["section"] in SECTIONS and counts[line["section"]] < 24:
            counts[line["section"]] += 1
            kept.append(line)
    _write(folder / "corpus.jsonl", kept)
    rng = np.random.default_rng(3)
    by_section = {name: [x["_id"] for x in kept if x["section"] == name] for name in SECTIONS}
    events = []
    for number in range(400):
        members = by_section[SECTIONS[number % len(SECTIONS)]]
        popular = 0.5 ** (np.arange(len(members)) / 6)
        chosen = rng.choice(members, 4, replace=False, p=popular / popular.sum())
        for step, item in enumerate(chosen):
            time = f"2026-01-{1 + number // 16:02d}T10:00:{step:02d}"
            events.append({"session": f"s{number}", "item": item, "time": time})
    _write(folder / "log.jsonl", events)
    return folder


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write(folder: Path, packages: Path, model: Path, **sections: Any) -> Path:
    values: dict[str, Any] = {
        **{name: dict(section) for name, section in QUICK.items()},
        "data": {"corpus": str(packages / "corpus.jsonl")},
        "model": {"name": str(model), "precision": "fp32"},
    }
    for name, section in sections.items():
        both = isinstance(section, dict) and isinstance(values.get(name), dict)
        values[name] = {**values[name], **section} if both else section
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nearer.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(path: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "-c", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


#: Measures of the task, and of another task on the same documents; nobody has a colour.
GUARDS = [
    {"task": "recommend", "measure": "Coverage@10", "keep": 0.95},
    {"task": "recommend", "measure": "R@10", "gain": 0.02},
    {"task": "cluster", "measure": "V-measure", "label": "section", "margin": 0.05},
    {"task": "cluster", "measure": "ARI", "label": "colour", "margin": 0.05},
]


@pytest.mark.long
def test_recommendation_from_a_log_to_the_report(
    packages: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = write(
        tmp_path,
        packages,
        tiny_model,
        task="recommend",
        recommend={"interactions": str(packages / "log.jsonl")},
        decide={"guards": GUARDS, "guardrails": {"general": None}},
    )
    run(path, "run")
    done = tmp_path / "runs" / "default"
    found = json.loads((done / "decide" / "task.json").read_text())
    assert {"dense", "bm25", "popularity", "item_knn", "item_hybrid", "fine-tuned"} <= set(
        found["measures"]
    )
    # everybody gets the same list, so hardly an item is ever shown, and those are the popular ones
    assert found["measures"]["popularity"]["Coverage@10"] < 0.1
    assert found["measures"]["popularity"]["Bias@10"] > found["measures"]["dense"]["Bias@10"]
    decision = json.loads((done / "decide" / "decision.json").read_text())
    rows = {row["name"]: row for row in decision["guardrails"]}
    assert rows["recommend: Coverage@10"]["keep"] == 0.95
    assert rows["recommend: R@10 (goal)"]["margin"] == -0.02
    assert rows["cluster: V-measure"]["status"] in ("pass", "fail", "inconclusive")
    assert rows["cluster: V-measure"]["before"] > 0
    assert rows["cluster: ARI"]["status"] == "inconclusive"
    assert rows["cluster: ARI"]["reason"].startswith("cannot say: no document has the field")
    assert decision["verdict"] != "ship"
    ladder = json.loads((done / "fix" / "summary.json").read_text())
    assert "diversity" in {rung["fix"] for rung in ladder["rungs"]}
    page = (done / "report" / "report.html").read_text()
    assert "What the lists do" in page
    assert "Warm and cold items" in page


STATUS = ("review", "status", "-c")


@pytest.mark.long
def test_clusters_from_labels_to_the_report_and_their_own_command(
    packages: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = write(
        tmp_path,
        packages,
        tiny_model,
        task="cluster",
        cluster={"label": "section", "shots": 3, "repeats": 3, "n_clusters": None},
        mine={"positives": 2, "negatives": 0},
        train={"loss": "supcon"},
        evaluate={"primary": "P@10"},
    )
    run(path, "run")
    done = tmp_path / "runs" / "default"
    found = json.loads((done / "decide" / "task.json").read_text())
    assert list(found["measures"]) == ["words (TF-IDF)", "today", "fine-tuned"]
    assert 0 < found["measures"]["today"]["V-measure"] < 1
    assert found["measures"]["today"]["Few-shot"] > 0.5  # of two sections
    assert any("no evidence of usefulness" in note for note in found["notes"])
    assert len(found["points"]) == 48
    assert {name: len(clusters) for name, clusters in found["groups"].items()} == {
        "today": 48,
        "fine-tuned": 48,
    }
    asked = json.loads(CliRunner().invoke(app, [*STATUS, str(path), "--json"]).stdout)
    assert [row["more"] for row in asked["odd_one_out"]["groupings"]] == [30, 30]
    titles = [sheet["title"] for sheet in found["sheets"]]
    assert {"How documents group", "The clusters", "What became of today's clusters"} <= {*titles}
    mined = json.loads((done / "mine" / "summary.json").read_text())
    assert mined["dropped"]["positive beyond mine.positives"] > 0
    page = (done / "report" / "report.html").read_text()
    assert page.count('class="leaf') == 2 * 48  # in two widths
    first = run(path, "clusters", "--set", "cluster.n_clusters=8")
    assert first["n_clusters"] == 8
    assert first["drift"] is None
    again = run(path, "clusters", "--set", "cluster.n_clusters=8")
    assert again["kept"] == 1.0
    lines = (tmp_path / "clusters" / "clusters.jsonl").read_text().splitlines()
    assert len(lines) == 8 * 24


def test_every_algorithm_groups_and_one_cluster_is_no_answer(
    packages: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, packages, tiny_model)
    for algorithm in ("minibatch", "agglomerative"):
        told = run(
            path,
            "clusters",
            "--set",
            f"cluster.algorithm={algorithm}",
            "--set",
            "cluster.reduce=pca",
        )
        assert told["n_clusters"] >= 2
    words = [
        "clusters",
        "-c",
        str(path),
        "--set",
        "cluster.algorithm=hdbscan",
        "--set",
        "cluster.min_size=150",
    ]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "cannot say what belongs together" in refused.output


# -- guards ------------------------------------------------------------------------------------------


def world(packages: Path, model: Path, **sections: Any) -> tuple[Systems, Split]:
    """Systems over the packages, and every package as a query for two others of its section."""
    settings = config.build({"task": "recommend", "model": {"name": str(model)}, **sections})
    corpus = Corpus.open(packages / "corpus.jsonl")
    systems = Systems(settings, packages, corpus, item_to_item=True)
    by_section: dict[str, list[str]] = {}
    for document in corpus:
        by_section.setdefault(document.metadata["section"], []).append(document.id)
    judgments = {}
    for members in by_section.values():
        for place, item in enumerate(members):
            judgments[item] = {members[place - 1]: 1, members[place - 2]: 1}
    queries = tuple(Query(document.id, document.content) for document in corpus)
    trained = {
        item: {members[0]: 1, members[1]: 1}
        for members in by_section.values()
        for item in members[2:]
    }
    systems.read_trained = lambda: trained
    return systems, Split("test", queries, judgments)


def popular_run(run: Run, systems: Systems) -> Run:
    """What a model gives that learnt nothing but what is popular: the same few items for everybody."""
    popular = systems.search("popularity", Split("x", (Query("nobody", ""),), {}), 12)
    best = [doc_id for doc_id, _ in popular.results["nobody"]]
    results = {}
    for query_id in run.results:
        own = [doc_id for doc_id in best if doc_id != query_id][:10]
        results[query_id] = rank_hits((doc_id, 1 - place / 20) for place, doc_id in enumerate(own))
    return Run("fine-tuned", results)


def inputs_of(
    systems: Systems, split: Split, before: Run, after: Run, tuned: Systems
) -> GuardInputs:
    return GuardInputs(
        before=before, after=after, base=systems, tuned=tuned, split=split, alpha=0.05, seed=7
    )


def test_a_model_that_only_learnt_what_is_popular_fails_the_guards_and_they_say_so(
    packages: Path, tiny_model: Path
) -> None:
    systems, split = world(packages, tiny_model)
    before = systems.search("dense", split)
    inputs = inputs_of(systems, split, before, popular_run(before, systems), systems)
    task = find_task("recommend")
    verdicts = {guard.measure: task.check(guard, inputs) for guard in task.guards(systems.config)}
    assert {found.status for found in verdicts.values()} == {"fail"}
    told = verdicts["Coverage@10"].sentence
    assert told.startswith("Coverage@10 goes from 0.")
    assert told.endswith("“not below 95% of today's” is broken")
    bias = verdicts["Bias@10"]  # less is better, so that a rise is a change below zero
    assert bias.after > bias.before
    assert bias.low is not None
    assert bias.high is not None
    assert bias.low <= bias.change <= bias.high < 0
    same = inputs_of(systems, split, before, before, systems)
    assert {task.check(guard, same).status for guard in task.guards(systems.config)} == {"pass"}


def test_items_that_hang_together_leave_a_guard_open(packages: Path, tiny_model: Path) -> None:
    systems, split = world(packages, tiny_model)
    before = systems.search("dense", split)
    inputs = inputs_of(systems, split, before, popular_run(before, systems), systems)
    one = replace(inputs, clusters=QueryClusters({q.id: "one user" for q in split.queries}))
    for measure, bound in (("Coverage@10", {"keep": 0.95}), ("nDCG@10", {"margin": 0.02})):
        guard = config.TaskGuard(task="recommend", measure=measure, **bound)
        task = find_task("recommend")
        assert task.check(guard, inputs).status == "fail"
        assert task.check(guard, one).status == "inconclusive"


def test_a_goal_passes_only_where_its_gain_is_shown(packages: Path, tiny_model: Path) -> None:
    systems, split = world(packages, tiny_model)
    run_of = systems.search("dense", split)
    perfect = Run(
        "fine-tuned",
        {item: rank_hits((d, 1.0) for d in graded) for item, graded in split.judgments.items()},
    )
    guard = config.TaskGuard(task="recommend", measure="R@10", gain=0.05)
    task = find_task("recommend")
    better = task.check(guard, inputs_of(systems, split, run_of, perfect, systems))
    same = task.check(guard, inputs_of(systems, split, run_of, run_of, systems))
    assert (better.status, same.status) == ("pass", "fail")
    assert better.after == 1.0


class Folded(Systems):
    """Systems whose documents lie on one line: a fine-tune that lost what sets sections apart."""

    @property
    def document_vectors(self) -> np.ndarray:
        angle = np.random.default_rng(0).random(len(self.corpus)) * np.pi / 2
        vectors = np.zeros((len(angle), 384), np.float32)
        vectors[:, 0], vectors[:, 1] = np.cos(angle), np.sin(angle)
        return vectors


@pytest.mark.parametrize("measure", ["V-measure", "ARI", "kNN", "Few-shot", "Retrieval", "Kept"])
def test_a_search_fine_tune_that_harms_clusters_is_caught_across_tasks(
    measure: str, packages: Path, tiny_model: Path
) -> None:
    systems, split = world(packages, tiny_model, task="search")
    harmed = Folded(systems.config, systems.root, systems.corpus)
    run_of = Run("x", {})
    bound = {"keep": 0.5} if measure == "Kept" else {"margin": 0.02}
    guard = config.TaskGuard(task="cluster", measure=measure, label="section", **bound)
    task = find_task("cluster")
    assert task.check(guard, inputs_of(systems, split, run_of, run_of, harmed)).status == "fail"
    if measure != "Kept":
        same = task.check(guard, inputs_of(systems, split, run_of, run_of, systems))
        assert same.status == "pass"


def test_what_cannot_be_said_is_said_and_never_passes(packages: Path, tiny_model: Path) -> None:
    systems, split = world(packages, tiny_model, task="search")
    inputs = inputs_of(systems, split, Run("x", {}), Run("x", {}), systems)
    for label, why in ((None, "names no label"), ("colour", "no document has the field")):
        guard = config.TaskGuard(task="cluster", measure="ARI", margin=0.1, label=label)
        with pytest.raises(Cannot, match=why):
            find_task("cluster").check(guard, inputs)


def test_too_few_documents_for_so_many_clusters_undo_no_decision(
    packages: Path, tiny_model: Path
) -> None:
    systems, split = world(packages, tiny_model, task="search", cluster={"n_clusters": 5000})
    inputs = inputs_of(systems, split, Run("x", {}), Run("x", {}), systems)
    guard = config.TaskGuard(task="cluster", measure="ARI", margin=0.1, label="section")
    with pytest.raises(Cannot, match="make no 5000 clusters"):
        find_task("cluster").check(guard, inputs)


# -- histories and diversity -------------------------------------------------------------------------


def test_a_history_lies_at_the_mean_of_its_items_and_finds_none_of_them(
    packages: Path, tiny_model: Path
) -> None:
    systems, _ = world(packages, tiny_model)
    items = systems.corpus.ids[:3]
    query = Query("history 1", "anything", metadata={"history": list(items)})
    found = systems.search("dense", Split("x", (query,), {}), 50).results["history 1"]
    assert not {doc_id for doc_id, _ in found} & set(items)
    mean = pooled(systems.item_vectors(items))
    expected = systems.document_vectors @ mean
    expected[:3] = -np.inf
    assert found[0][0] == systems.corpus.ids[int(expected.argmax())]
    assert found[0][1] == pytest.approx(float(expected.max()), abs=1e-4)
    knn = systems.search("item_knn", Split("y", (query,), {}), 50).results["history 1"]
    assert not {doc_id for doc_id, _ in knn} & set(items)


def test_recent_items_count_more_with_a_half_life() -> None:
    vectors = np.eye(2, dtype=np.float32)
    assert pooled(vectors).tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    recent = pooled(vectors, half_life=1.0)
    assert recent[1] == pytest.approx(2 * recent[0])


def test_mmr_shows_a_different_item_before_a_double_and_keeps_all() -> None:
    vectors = {"a": [1, 0], "a2": [1, 0], "b": [0, 1], "c": [0.7, 0.7]}
    hits = [("a", 1.0), ("a2", 0.99), ("b", 0.5), ("c", 0.0)]

    def of(ids: Any) -> np.ndarray:
        return np.array([vectors[doc_id] for doc_id in ids], np.float32)

    assert mmr(hits, 0.5, of, 3)[:2] == ["a", "b"]
    assert mmr(hits, 1.0, of, 3) == ["a", "a2", "b", "c"]
    assert mmr(hits, 0.9, lambda ids: 40 * of(ids), 3) == mmr(hits, 0.9, of, 3)
    assert sorted(mmr(hits, 0.3, of, 2)) == sorted(vectors)


def test_cold_items_are_left_to_the_vectors(packages: Path, tiny_model: Path) -> None:
    systems, split = world(packages, tiny_model)
    cold = Query("nobody knows", "chess for two players")
    runs = {
        name: systems.search(name, Split("x", (cold,), {}), 5)
        for name in ("item_knn", "item_hybrid", "dense")
    }
    assert runs["item_knn"].results[cold.id] == []
    assert runs["item_hybrid"].top(cold.id, 5) == runs["dense"].top(cold.id, 5)
    warm = score(systems.search("item_knn", split), split, ["R@10"], True)
    assert warm.mean("R@10") > 0


def test_projects_of_each_task_are_read_as_their_settings_say(
    packages: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, packages, tiny_model, task="cluster", cluster={"label": "section"})
    project = Project.at(tmp_path, config.load(path))
    assert project.task.name == "cluster"
    assert len(project.loaded.queries) == 8 * 24
