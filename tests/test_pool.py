"""`nearer pool`: from what users asked to a test set, judged by people, with honest means on the way."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import WriteProject
from nearer.cli import app
from nearer.data.reviewed import with_pooled_in_test
from nearer.lifecycle import between
from nearer.review.judgments import ADJUDICATE, CANNOT_TELL, JudgmentLog, Judgments
from nearer.review.pairs import IN_POOL, choose_pairs
from nearer.review.pool_queries import Asked, Candidates, draw, from_traffic
from nearer.review.pool_runs import FINE_TUNED
from nearer.review.pool_scores import score_pool
from nearer.review.pools import read_pool
from nearer.types import Query
from nearer.workspace import Workspace
from review_kit import graded, workspace

RUNNER = CliRunner()
TOPICS = ("overflow of a buffer", "cross-site scripting", "weak password", "race condition")
PLACES = ("kernel", "browser", "router", "printer", "library", "database", "parser", "mailer")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, write_project: WriteProject) -> Path:
    settings: dict[str, Any] = {"search": {"system": "bm25"}, "evaluate": {"baselines": ["bm25"]}}
    path = write_project(tmp_path_factory.mktemp("pool") / "project", **settings)
    workspace(path).run(between("check", "check"))
    return path.parent


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture
def opened(root: Path) -> Workspace:
    return workspace(root / "nearer.yaml")


def nearer(root: Path, *words: str, code: int = 0) -> Any:
    result = RUNNER.invoke(app, [*words, "-c", str(root / "nearer.yaml"), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def asked_queries() -> list[dict[str, Any]]:
    lines = []
    for number in range(32):
        text = f"{TOPICS[number % 4]} in the {PLACES[number // 4]}"
        lines.append({"_id": f"p{number}", "text": text, "frequency": 1 + 200 // (number + 1)})
    return lines


def write_queries(root: Path, lines: list[dict[str, Any]]) -> str:
    path = root / "asked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def judge_pool(root: Path, name: str = "first", grade_of: Any = None) -> None:
    pool = read_pool(root, name)
    log = JudgmentLog(root / "review" / "judgments.jsonl")
    entries = []
    for documents in pool.documents.values():
        for position, each in enumerate(documents):
            if each.is_asked:
                grade = position % 3 == 0 if grade_of is None else grade_of(each)
                entries.append(graded(each.query_id, each.doc_id, "anna", int(grade)))
    log.append(entries)


# -- drawing ----------------------------------------------------------------------------------------


def test_requests_of_the_log_become_distinct_queries_with_their_failures(root: Path) -> None:
    lines = []
    for number in range(12):
        text = "Buffer overflow?" if number % 2 else "buffer  overflow"
        lines.append(request(number, text, ["a"]))
    lines.append(request(20, "nothing here", []))
    lines.append(request(21, "   ", ["a"]))
    folder = root / "traffic"
    folder.mkdir()
    (folder / "2026-01-05.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = from_traffic(workspace(root / "nearer.yaml").project)
    by_text = {each.query.text: each for each in found.asked}
    assert len(by_text) == 2
    assert by_text["buffer  overflow"].requests == 12
    assert by_text["nothing here"].fails
    assert not by_text["buffer  overflow"].fails


def request(number: int, text: str, results: list[str]) -> dict[str, Any]:
    hits = [{"id": each, "score": 1.0, "rank": rank} for rank, each in enumerate(results, 1)]
    time = datetime(2026, 1, 5, 10, number, tzinfo=UTC).isoformat()
    line = {"time": time, "request_id": f"r{number}", "query": text, "filter": None}
    return {**line, "generation": "g", "results": hits, "latency_ms": 1.0}


def test_the_weights_of_a_draw_give_back_the_requests_of_all() -> None:
    counts = [400, 300, 50, 40, *[5] * 40, *[1] * 200]
    asked = [Asked(Query(f"q{row}", "x"), float(count)) for row, count in enumerate(counts)]
    totals = []
    for seed in range(60):
        drawn = draw(Candidates(asked, "x"), 40, 0.2, np.random.default_rng(seed))
        assert len(drawn) == 40
        assert sum(each.whole for each in drawn) == 8
        assert sorted(each.order for each in drawn) == list(range(40))
        totals.append(sum(each.stands_for for each in drawn))
    assert np.mean(totals) == pytest.approx(sum(counts), rel=0.03)


def test_queries_that_repeat_a_split_and_generated_ones_are_left_out(root: Path) -> None:
    lines = asked_queries()
    for name in ("train", "dev", "test"):
        queries = root / "runs" / "default" / "check" / "split" / name / "queries.jsonl"
        known = json.loads(queries.read_text().splitlines()[0])
        lines.append({"_id": f"again-{name}", "text": known["text"].upper() + "!", "frequency": 9})
    lines.append({"_id": "made", "text": "a generated query about memory", "generated": True})
    facts = nearer(root, "pool", "make", write_queries(root, lines), "--queries", "500")
    assert facts["queries"] == 32
    assert facts["excluded"]["repeats a dev or test query"] == 2
    assert facts["excluded"]["repeats a training query"] == 1
    assert facts["excluded"]["generated"] == 1


def test_ids_of_other_queries_are_refused_before_anybody_judges(root: Path) -> None:
    """Judgments go by id: those of a pooled query would be taken for another one's."""
    queries = root / "runs" / "default" / "check" / "split" / "train" / "queries.jsonl"
    known = json.loads(queries.read_text().splitlines()[0])["_id"]
    lines = [*asked_queries(), {"_id": known, "text": "what a pump sounds like when it breaks"}]
    told = nearer(root, "pool", "make", write_queries(root, lines), code=2)
    assert known in told["what"]
    assert "ids of their own" in told["next"]


def test_a_pool_of_a_test_querys_id_does_not_take_its_place(root: Path) -> None:
    queries = root / "runs" / "default" / "check" / "split" / "test" / "queries.jsonl"
    known = json.loads(queries.read_text().splitlines()[0])["_id"]
    pool = root / "review" / "pools" / "first"
    pool.mkdir(parents=True)
    (pool / "test.jsonl").write_text(json.dumps({"_id": known, "text": "another question"}) + "\n")
    assert known in nearer(root, "check", code=2)["what"]


@pytest.mark.parametrize("name", ["", "first\n", "."])
def test_a_name_that_is_none_deletes_nothing(root: Path, name: str) -> None:
    path = write_queries(root, asked_queries())
    nearer(root, "pool", "make", path, "--queries", "4")
    words = ("pool", "make", path, "--queries", "4", "--name", name, "--force")
    assert "cannot be the name" in nearer(root, *words, code=2)["what"]
    assert (root / "review" / "pools" / "first" / "pool.json").is_file()


# -- pooling ----------------------------------------------------------------------------------------


def test_a_pool_holds_what_every_system_finds_and_goes_to_review_blind(root: Path) -> None:
    path = write_queries(root, asked_queries())
    run = root / "other.trec"
    some = workspace(root / "nearer.yaml").project.corpus.ids[:12]
    rows = [f"p3 Q0 {doc} {rank} {1 / rank} x" for rank, doc in enumerate(some, start=1)]
    run.write_text("\n".join(rows) + "\n")
    words = ("--queries", "32", "--share", "0.4", "--system", "bm25", "--system", str(run))
    facts = nearer(root, "pool", "make", path, *words)
    assert facts["systems"] == ["bm25", "other"]
    assert facts["share"] == 0.4
    assert 0.3 < facts["asked"] / facts["documents"] < 0.6  # one of each stratum at least
    pool = read_pool(root, "first")
    assert set(some[:10]) <= {each.doc_id for each in pool.documents["p3"]}
    pairs = choose_pairs(workspace(root / "nearer.yaml").project)
    pooled = [pair for pair in pairs if pair.split == IN_POOL]
    assert len(pooled) == facts["asked"]
    orders = [pool.queries[pair.query_id].order for pair in pooled]
    assert orders == sorted(orders)
    shown = json.dumps([pair.as_dict() for pair in pooled])
    assert "bm25" not in shown
    assert "other" not in shown


def test_what_cannot_be_pooled_is_refused_with_the_next_command(root: Path) -> None:
    path = write_queries(root, asked_queries())
    assert "nearer log import" in nearer(root, "pool", "make", code=2)["next"]
    nearer(root, "pool", "make", "nowhere.jsonl", code=2)
    nearer(root, "pool", "make", path, "--name", "../x", code=2)
    told = nearer(root, "pool", "make", path, "--system", FINE_TUNED, code=2)
    assert told["next"] == "nearer train"
    nearer(root, "pool", "make", path, "--queries", "4")
    assert "already" in nearer(root, "pool", "make", path, code=2)["what"]
    nearer(root, "pool", "make", path, "--queries", "5", "--force")
    told = nearer(root, "pool", "make", path, "--name", "second", "--queries", "100")
    assert told["excluded"]["is in another pool"] == 5
    assert nearer(root, "pool", "score", code=2)["next"] == "nearer review serve"
    assert "first" in nearer(root, "pool", "score", "--name", "third", code=2)["next"]
    nearer(root, "pool", "finish", code=2)
    nearer(root, "pool", "score", "--by", "clicks", code=2)


def write_run_file(path: Path, results: dict[str, list[str]]) -> str:
    path.parent.mkdir(exist_ok=True)
    lines = []
    for query_id, docs in results.items():
        lines += [f"{query_id} Q0 {doc} {n} {1 / n} x\n" for n, doc in enumerate(docs, start=1)]
    path.write_text("".join(lines))
    return str(path)


def test_two_runs_of_one_name_are_refused(root: Path) -> None:
    path = write_queries(root, asked_queries())
    some = {"p3": workspace(root / "nearer.yaml").project.corpus.ids[:3]}
    first = write_run_file(root / "a" / "mine.trec", some)
    for other in (write_run_file(root / "b" / "Mine.run", some), "mine.trec"):
        told = nearer(root, "pool", "make", path, "--system", first, "--system", other, code=2)
        assert first in told["what"]
        assert other in told["what"]
        assert "rename" in told["next"]
    named = write_run_file(root / "a" / "bm25.trec", some)
    nearer(root, "pool", "make", path, "--system", named, "--system", "bm25", code=2)
    assert not (root / "review" / "pools" / "first").exists()


def test_a_run_without_some_queries_and_with_unknown_documents_is_named_and_can_be_finished(
    root: Path,
) -> None:
    """What the corpus does not hold cannot be judged; what a run lacks counts as found nothing."""
    path = write_queries(root, asked_queries())
    ids = workspace(root / "nearer.yaml").project.corpus.ids
    results = {"p3": ["gone-1", *ids[:12], "gone-2"], "p4": ["gone-3"], "elsewhere": ids[:2]}
    run = write_run_file(root / "other.trec", results)
    words = ("pool", "make", path, "--queries", "32", "--system", run)
    people = RUNNER.invoke(app, [*words, "-c", str(root / "nearer.yaml")])
    assert people.exit_code == 0, people.output
    said = " ".join(people.output.split())
    assert "other: 2 results are not in the corpus" in said
    assert "other: no results for 31 drawn queries (" in said
    facts = nearer(root, *words, "--force")
    assert facts["without_results"] == {"other": 31}
    assert facts["outside_corpus"] == {"other": 2}  # the third stands below the depth
    pool = read_pool(root, "first")
    assert [each.doc_id for each in pool.documents["p3"]] == sorted(ids[:10])
    assert set(pool.documents) == {"p3"}
    judge_pool(root, grade_of=lambda each: each.doc_id == ids[0])
    values = nearer(root, "pool", "score")
    assert (values["open"], values["n_queries"]) == (0, 32)
    assert values["systems"][0]["bounds"] == pytest.approx([1.0, 1.0])
    assert nearer(root, "pool", "finish")["test_queries"] == 1


def test_a_run_of_none_of_the_drawn_queries_is_refused(root: Path) -> None:
    path = write_queries(root, asked_queries())
    ids = workspace(root / "nearer.yaml").project.corpus.ids
    run = write_run_file(root / "other.trec", {"elsewhere": ids[:2]})
    told = nearer(root, "pool", "make", path, "--system", run, "--system", "bm25", code=2)
    assert "none of the" in told["what"]
    assert "queries.jsonl" in told["next"]


def test_a_system_that_finds_nothing_does_not_keep_a_pool_from_being_read(root: Path) -> None:
    path = write_queries(root, asked_queries())
    run = write_run_file(root / "other.trec", {f"p{number}": ["gone"] for number in range(32)})
    words = ("--queries", "4", "--system", "bm25", "--system", run)
    nearer(root, "pool", "make", path, *words)
    judge_pool(root)
    scores = {row["name"]: row for row in nearer(root, "pool", "score")["systems"]}
    assert scores["other"]["bounds"] == [0.0, 0.0]


def test_documents_that_left_the_corpus_do_not_keep_a_pool_open(root: Path) -> None:
    path = write_queries(root, asked_queries())
    nearer(root, "pool", "make", path, "--queries", "4", "--system", "bm25")
    pool = read_pool(root, "first")
    gone = {documents[0].doc_id for documents in pool.documents.values()}
    drop_from_corpus(root, gone)
    judge_pool(root, grade_of=lambda each: each.doc_id not in gone and each.stratum == 0)
    log = JudgmentLog(root / "review" / "judgments.jsonl")
    known = [each for each in log.judgments.by_subject if each[1] in gone]
    assert known  # judged while they were here: that counts no more
    values = nearer(root, "pool", "score")
    assert values["open"] == 0
    assert values["judged"] == values["asked"]
    assert values["asked"] < sum(map(len, pool.documents.values()))
    nearer(root, "pool", "finish")


def drop_from_corpus(root: Path, doc_ids: set[str]) -> None:
    """Takes documents out of a copy of the project's data."""
    import yaml

    path = root / "nearer.yaml"
    values = yaml.safe_load(path.read_text())
    folder = Path(shutil.copytree(values["data"]["folder"], root / "data"))
    values["data"]["folder"] = "data"
    path.write_text(yaml.safe_dump(values))
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
    kept = [json.dumps(line) + "\n" for line in lines if line["_id"] not in doc_ids]
    (folder / "corpus.jsonl").write_text("".join(kept))


# -- estimating -------------------------------------------------------------------------------------


def test_a_pool_judged_whole_gives_exact_means_and_a_test_set(root: Path) -> None:
    path = write_queries(root, asked_queries())
    nearer(root, "pool", "make", path, "--queries", "12", "--system", "bm25", "--system", "dense")
    before = nearer(root, "check")["queries"]["test"]
    judge_pool(root)
    values = nearer(root, "pool", "score")
    for row in values["systems"]:
        mean = row["nDCG@10"]["corrected"]["mean"]
        assert row["bounds"] == pytest.approx([mean, mean])
        assert row["nDCG@10"]["n_whole"] == values["n_queries"]
    assert set(values["differences"]) == {"dense"}
    assert nearer(root, "check")["queries"]["test"] == before  # not before `finish`
    finished = nearer(root, "pool", "finish")
    after = nearer(root, "check")
    assert after["queries"]["test"] == before + finished["test_queries"]
    split = root / "runs" / "default" / "check" / "split"
    pooled = {f"p{number}" for number in range(32)}
    for name in ("train", "dev"):
        ids = {json.loads(line)["_id"] for line in (split / name / "queries.jsonl").open()}
        assert not ids & pooled
    lines = [json.loads(line) for line in (split / "test" / "queries.jsonl").open()]
    stands_for = [line["frequency"] for line in lines if line["_id"] in pooled]
    assert len(stands_for) == finished["test_queries"]
    assert all(value > 0 for value in stands_for)


def test_a_pooled_query_is_in_test_alone_whatever_the_data_says_of_it() -> None:
    divided = {"train": {"p": {"d": 1}, "q": {"d": 1}}, "dev": {}, "test": {"r": {"e": 1}}}
    splits = with_pooled_in_test(divided, {"p": {}})
    assert splits == {"train": {"q": {"d": 1}}, "dev": {}, "test": {"r": {"e": 1}, "p": {"d": 1}}}


def test_a_part_of_the_judgments_gives_a_corrected_mean_with_bounds_around_it(root: Path) -> None:
    path = write_queries(root, asked_queries())
    words = ("--queries", "32", "--share", "0.5", "--system", "bm25", "--system", "dense")
    nearer(root, "pool", "make", path, *words)
    judge_pool(root)
    values = nearer(root, "pool", "score", "--by", "queries")
    assert values["open"] == 0
    for row in values["systems"]:
        measured = row["nDCG@10"]
        assert measured["n_whole"] == 8
        low, high = measured["corrected"]["ci"]
        assert low < measured["corrected"]["mean"] < high
        assert row["bounds"][0] < row["bounds"][1]


def test_what_people_cannot_tell_is_left_out_and_open_queries_do_not_count(root: Path) -> None:
    path = write_queries(root, asked_queries())
    nearer(root, "pool", "make", path, "--queries", "6", "--system", "bm25")
    pool = read_pool(root, "first")
    log = JudgmentLog(root / "review" / "judgments.jsonl")
    first, second = list(pool.documents)[:2]
    untold, *others = pool.documents[first]
    entries = [graded(first, untold.doc_id, "anna", 0, action=CANNOT_TELL)]
    entries += [graded(first, each.doc_id, "anna", 1) for each in others]
    entries += [graded(second, each.doc_id, "anna", 1) for each in pool.documents[second][1:]]
    log.append(entries)
    values = nearer(root, "pool", "score")
    assert (values["n_queries"], values["open"]) == (1, 5)
    assert values["systems"][0]["nDCG@10"]["plain"] == pytest.approx(1.0, abs=0.2)
    low, high = values["systems"][0]["bounds"]
    assert low < 0.5  # five of six queries may hold anything
    assert high > 0.95


def test_bounds_hold_whatever_is_open_disputed_or_cannot_be_told(root: Path) -> None:
    path = write_queries(root, asked_queries())
    words = ("--queries", "8", "--system", "bm25", "--system", "dense")
    nearer(root, "pool", "make", path, *words)
    pool = read_pool(root, "first")
    rng = np.random.default_rng(5)
    truth = {}
    for query_id, documents in pool.documents.items():
        for each in documents:
            truth[query_id, each.doc_id] = int(rng.choice([0, 0, 0, 1, 2, 3]))
    whole = Judgments()
    part = Judgments()
    for (query_id, doc_id), grade in truth.items():
        whole.add(graded(query_id, doc_id, "anna", grade))
        said = rng.choice(["same", "same", "same", "nothing", "cannot tell", "disputed"])
        if said == "cannot tell":
            part.add(graded(query_id, doc_id, "anna", 0, action=CANNOT_TELL))
        elif said == "disputed":
            part.add(graded(query_id, doc_id, "anna", 0))
            part.add(graded(query_id, doc_id, "ben", 3))
        elif said == "same":
            part.add(graded(query_id, doc_id, "anna", grade))
    # One query of which everything is known, so that there is something to tell.
    first = next(iter(pool.documents))
    for each in pool.documents[first]:
        part.add(graded(first, each.doc_id, "carol", truth[first, each.doc_id], action=ADJUDICATE))
    exact = score_pool(pool, whole, by_requests=True, alpha=0.05)
    partial = score_pool(pool, part, by_requests=True, alpha=0.05)
    assert partial.open > 0
    for known, bounded in zip(exact.systems, partial.systems, strict=True):
        assert known.low == pytest.approx(known.high)
        assert bounded.low - 1e-9 <= known.low <= bounded.high + 1e-9


def test_people_read_what_was_drawn_what_is_known_and_what_comes_next(root: Path) -> None:
    path = write_queries(root, asked_queries())
    where = ("-c", str(root / "nearer.yaml"))

    def said(*words: str) -> str:
        result = RUNNER.invoke(app, ["pool", *words, *where])
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    made = said("make", path, "--queries", "6", "--system", "bm25", "--system", "dense")
    assert "6 queries (" in made
    assert "nearer review serve, then nearer pool score" in made
    judge_pool(root)
    scored = said("score")
    assert "bm25: nDCG@10 0." in scored
    assert "dense less bm25: " in scored
    assert "whatever is unjudged" in scored
    assert "nearer run" in said("finish")
    asked = read_pool(root, "first").facts["asked"]
    status = RUNNER.invoke(app, ["review", "status", *where]).stdout
    assert f"pool first (of 32 queries of asked.jsonl): {asked} judged, {asked} are asked" in status
    origins = json.loads((root / "review" / "summary.json").read_text())["origins"]
    (pool,) = origins["pools"]
    assert pool["judged"] == asked
    assert pool["test_queries"] > 0
    assert origins["of_no_pool"] == 0
