"""The command line as a user meets it: a whole run, then everything that can be wrong."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from conftest import GENERAL
from nearer.cli import app


def nearer(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, write_project: Any) -> Path:
    """nearer.yaml of a project that was run from check to report."""
    path: Path = write_project(tmp_path_factory.mktemp("finished"), **GENERAL)
    result = nearer("run", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.long
def test_a_run_ends_in_a_verdict_and_a_report(finished: Path) -> None:
    run = finished.parent / "runs" / "default"
    decision = json.loads((run / "decide" / "decision.json").read_text())
    assert decision["verdict"] in {"ship", "use_simpler_fix", "do_not_ship", "inconclusive"}
    assert decision["test_looks"] == 1
    assert {"dense", "bm25", "rrf", "convex", "fine-tuned"} <= {
        c["name"] for c in decision["candidates"]
    }
    assert len(decision["checklist"]) == 6
    html = (run / "report" / "report.html").read_text()
    assert len(html) < 3_000_000
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert (run / "report" / "report.md").is_file()
    assert not list((run / ".work").iterdir())


def test_a_second_run_computes_nothing_and_looks_at_no_test_query(finished: Path) -> None:
    result = nearer("run", "-c", finished, "--json")
    assert [step["status"] for step in json.loads(result.stdout)] == ["fresh"] * 8
    assert (
        len((finished.parent / "runs" / "default" / "test_looks.jsonl").read_text().splitlines())
        == 1
    )


def test_json_stands_alone_on_stdout(finished: Path) -> None:
    for words in (["evaluate"], ["status"], ["run", "--to", "mine"]):
        json.loads(nearer(*words, "-c", finished, "--json").stdout)


def test_status_and_results_read_well_on_screen(finished: Path) -> None:
    assert "everything is up to date" in nearer("status", "-c", finished).output
    output = nearer("evaluate", "-c", finished).output
    assert "(today)" in output
    assert "nDCG@10" in output


def test_a_changed_setting_makes_stale_only_what_depends_on_it(finished: Path) -> None:
    rows = json.loads(nearer("status", "-c", finished, "--set", "train.epochs=2", "--json").stdout)
    assert {row["stage"]: row["state"] for row in rows} == {
        "check": "fresh",
        "evaluate": "fresh",
        "diagnose": "fresh",
        "fix": "fresh",
        "mine": "fresh",
        "train": "stale",
        "decide": "stale",
        "report": "stale",
    }


def test_the_trec_run_scores_to_the_same_numbers_under_trec_eval(finished: Path) -> None:
    import pytrec_eval

    run = finished.parent / "runs" / "default"
    qrels: dict[str, dict[str, int]] = {}
    for line in (run / "check/split/dev/qrels.tsv").read_text().splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        qrels.setdefault(query_id, {})[doc_id] = int(grade)
    with (run / "evaluate/run.trec").open() as handle:
        results = pytrec_eval.parse_run(handle)
    scored = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "map"}).evaluate(
        results
    )
    for line in (run / "evaluate/scores.jsonl").read_text().splitlines():
        ours = json.loads(line)
        theirs = scored[ours["query_id"]]
        assert ours["nDCG@10"] == pytest.approx(theirs["ndcg_cut_10"], abs=1e-9)
        assert ours["R@100"] == pytest.approx(theirs["recall_100"], abs=1e-9)
        assert ours["AP"] == pytest.approx(theirs["map"], abs=1e-9)


def test_the_gate_says_no_with_exit_code_1(finished: Path) -> None:
    # An impossible minimum gain: whatever was trained, it is not shipped.
    result = nearer(
        "decide", "--gate", "-c", finished, "--set", "decide.min_gain=1.0", "--run", "default"
    )
    assert result.exit_code == 1, result.output


@pytest.mark.long
def test_held_out_judgments_change_nothing_before_decide(finished: Path, tmp_path: Path) -> None:
    """With the test split replaced by nonsense after `check`, every earlier stage gives the same bytes."""
    here = tmp_path / "again"
    shutil.copytree(finished.parent, here)
    run = here / "runs" / "default"
    before = {
        name: (run / name).read_bytes()
        for name in ("evaluate/run.trec", "mine/examples.jsonl", "train/model/model.safetensors")
    }
    for file in (run / "check" / "split" / "test").iterdir():
        file.write_text("nonsense\n")
    for stage in ("evaluate", "mine", "train"):
        shutil.rmtree(run / stage)
        assert nearer(stage, "-c", here / "nearer.yaml").exit_code == 0
    assert {name: (run / name).read_bytes() for name in before} == before
    assert nearer("decide", "-c", here / "nearer.yaml", "--force").exit_code == 2


def test_init_looks_at_the_data_and_writes_a_configuration_that_runs(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = nearer("init", tmp_path / "mine", "--data", small_data, "--model", tiny_model)
    assert result.exit_code == 0, result.output
    path = tmp_path / "mine" / "nearer.yaml"
    text = path.read_text()
    assert "120 documents" in text
    assert yaml.safe_load(text)["model"]["name"]
    assert nearer("check", "-c", path).exit_code == 0
    again = nearer("init", tmp_path / "mine", "--data", small_data)
    assert again.exit_code == 2
    assert "--force" in again.output


@pytest.mark.long
def test_data_without_training_queries_still_gets_a_decision(
    small_data: Path, write_project: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    (data / "qrels" / "train.tsv").unlink()
    path = write_project(tmp_path / "project", data={"folder": str(data)})
    result = nearer("run", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[5]["skipped"]
    assert json.loads(result.stdout)[6]["verdict"] in {"use_simpler_fix", "do_not_ship"}


# -- what can be wrong ------------------------------------------------------------------------------


def break_line(data: Path) -> None:
    lines = (data / "corpus.jsonl").read_text().splitlines()
    lines[40] = '{"_id": "x", "text": '
    (data / "corpus.jsonl").write_text("\n".join(lines))


def not_utf8(data: Path) -> None:
    (data / "queries.jsonl").write_bytes(
        (data / "queries.jsonl").read_bytes() + b'{"_id": "q", "text": "\xff\xfe"}\n'
    )


def duplicate_id(data: Path) -> None:
    text = (data / "corpus.jsonl").read_text()
    (data / "corpus.jsonl").write_text(text + text.splitlines()[0] + "\n")


def empty_corpus(data: Path) -> None:
    (data / "corpus.jsonl").write_text("")


def wrong_column(data: Path) -> None:
    (data / "corpus.jsonl").write_text('{"_id": "a", "blurb": "words"}\n')


def other_corpus(data: Path) -> None:
    path = data / "qrels" / "train.tsv"
    path.write_text(path.read_text().replace("CWE-", "OTHER-"))
    for name in ("dev", "test"):
        (data / "qrels" / f"{name}.tsv").write_text(
            (data / "qrels" / f"{name}.tsv").read_text().replace("CWE-", "OTHER-")
        )


def torn_gzip(data: Path) -> None:
    whole = gzip.compress((data / "corpus.jsonl").read_bytes())
    (data / "corpus.jsonl").unlink()
    (data / "corpus.jsonl.gz").write_bytes(whole[: len(whole) // 2])


def bad_grade(data: Path) -> None:
    path = data / "qrels" / "dev.tsv"
    path.write_text(path.read_text() + "q9\tCWE-79\tnan\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_line, "corpus.jsonl:41"),
        (not_utf8, "UTF-8"),
        (duplicate_id, "corpus.jsonl:121"),
        (empty_corpus, "holds no documents"),
        (wrong_column, "data.columns.text"),
        (other_corpus, "corpus"),
        (torn_gzip, "corpus.jsonl.gz"),
        (bad_grade, "dev.tsv"),
    ],
)
def test_bad_data_is_named_and_nothing_is_written(
    damage: Any, told: str, small_data: Path, write_project: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    damage(data)
    path = write_project(tmp_path / "project", data={"folder": str(data)})
    result = nearer("run", "-c", path)
    assert result.exit_code == 2, result.output
    assert told in result.output.replace("\n", "")
    assert not (path.parent / "runs" / "default" / "check").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "--set", "train.epoch=1"], "did you mean train.epochs"),
        (["check", "--set", "nonsense"], "is not section.key=value"),
        (["check", "--set", "train.epochs=-1"], "train.epochs"),
        (["check", "--set", "evaluate.primary=nDGC@10"], "unknown measure"),
        (["check", "--set", "data.folder=nowhere"], "nowhere"),
        (["check", "--run", "../outside"], "run"),
        (["run", "--from", "chekc"], "no stage called"),
        (["decide"], "nearer check"),
    ],
)
def test_bad_settings_are_named_with_what_to_do(words: list[str], told: str, project: Path) -> None:
    result = nearer(*words, "-c", project)
    assert result.exit_code == 2, result.output
    assert told in result.output.replace("\n", "")
    assert "→" in result.output


def test_a_model_folder_without_weights_is_named(project: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert nearer("check", "-c", project).exit_code == 0
    result = nearer(
        "evaluate",
        "-c",
        project,
        "--set",
        f"model.name={tmp_path / 'empty'}",
        "--set",
        "search.system=dense",
    )
    assert result.exit_code == 2


def test_no_configuration_says_how_to_get_one(tmp_path: Path) -> None:
    result = nearer("check", "-c", tmp_path / "nearer.yaml")
    assert result.exit_code == 2
    assert "nearer init" in result.output


def test_errors_are_json_when_asked(tmp_path: Path) -> None:
    told = json.loads(nearer("check", "-c", tmp_path / "nearer.yaml", "--json").stdout)
    assert told["error"] == "ConfigError"
    assert set(told) == {"error", "what", "where", "next"}


def test_a_bug_is_called_a_bug(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearer.stages.check.run", lambda project: 1 / 0)
    result = nearer("check", "-c", project)
    assert result.exit_code == 3
    assert "this is a bug in nearer" in result.output


def test_a_stage_alone_does_not_pass_old_results_off_as_fresh(
    small_data: Path, write_project: Any, tmp_path: Path
) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    path = write_project(tmp_path / "project", data={"folder": str(tmp_path / "data")})
    assert nearer("run", "--to", "evaluate", "-c", path).exit_code == 0
    judged = tmp_path / "data" / "qrels" / "dev.tsv"
    header, *lines = judged.read_text().splitlines()
    judged.write_text("\n".join([header, *lines[1:]]) + "\n")
    alone = nearer("evaluate", "-c", path)
    assert alone.exit_code == 0
    assert "nothing changed" not in alone.output
    assert "check changed since it ran" in " ".join(alone.output.split())
    assert json.loads(nearer("evaluate", "-c", path, "--json").stdout)["stale_inputs"] == ["check"]


def test_without_a_dev_split_the_error_says_how_to_get_one(
    small_data: Path, write_project: Any, tmp_path: Path
) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    for name in ("train", "dev"):
        (tmp_path / "data" / "qrels" / f"{name}.tsv").unlink()
    test = tmp_path / "data" / "qrels" / "test.tsv"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[:2]))
    path = write_project(tmp_path / "project", data={"folder": str(tmp_path / "data")})
    for system in ("dense", "rrf"):
        stopped = nearer("run", "-c", path, "--set", f"search.system={system}")
        said = " ".join(stopped.output.split())
        assert stopped.exit_code == 2
        assert "dev split is empty" in said
        assert "data.split.dev" in said
        assert "data.judgments.dev" in said
