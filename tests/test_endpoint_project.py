"""A project whose model is behind an endpoint: every stage that needs vectors alone works, none pays twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from embeddings_kit import StandIn, serving
from nearer import config
from nearer.cli import app
from nearer.data.corpus import Corpus
from nearer.embed.fingerprint import PROBES
from nearer.embed.opening import open_encoder
from nearer.errors import FingerprintError, ModelError
from nearer.live.index.generations import Generations
from nearer.live.index.searcher import Searcher
from nearer.training.reranker import load_model as load_for_reranker

pytestmark = pytest.mark.long


def nearer(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with serving(StandIn(dimension=48)) as running:
        yield running


@pytest.fixture(scope="module")
def finished(
    stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory, write_project: Any
) -> Path:
    """nearer.yaml of a project that was run from check to report over the endpoint."""
    path: Path = write_project(
        tmp_path_factory.mktemp("endpoint"),
        model={"name": "openai:words", "url": stand_in.url, "price_per_million_tokens": 10.0},
        decide={"guardrails": {"general": None}},
        index={"store": "numpy", "part": 50},
    )
    result = nearer("run", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    return path


def paid_again(stand_in: StandIn, before: int) -> set[str]:
    """Texts that the requests since sent, and that had been answered before."""
    known = {text for texts in stand_in.requests[:before] for text in texts}
    sent = {text for texts in stand_in.requests[before:] for text in texts}
    return (known & sent) - set(PROBES)


def test_a_run_ends_in_a_verdict_on_the_simpler_fixes(finished: Path) -> None:
    run = finished.parent / "runs" / "default"
    decision = json.loads((run / "decide" / "decision.json").read_text())
    assert decision["verdict"] in {"use_simpler_fix", "do_not_ship", "inconclusive"}
    assert {row["role"] for row in decision["candidates"]} == {"today", "baseline"}
    dense = decision["candidates"][0]
    assert (dense["model"], dense["identity"]["precision"]) == ("openai:words", "unknown")
    trained = json.loads((run / "train" / "summary.json").read_text())
    assert "weights of openai:words are not here" in trained["skipped"]
    assert (run / "mine" / "examples.jsonl").stat().st_size
    assert (run / "report" / "report.html").is_file()


def test_documents_were_paid_for_once(finished: Path, stand_in: StandIn, small_data: Path) -> None:
    answered = stand_in.texts
    corpus = Corpus.open(small_data / "corpus.jsonl")
    assert [answered[content] for content in corpus.contents()] == [1] * len(corpus)


def test_asked_for_again_a_stage_pays_for_the_probes_alone(
    finished: Path, stand_in: StandIn
) -> None:
    before = len(stand_in.requests)
    result = nearer("evaluate", "-c", finished, "--force", "--json")
    assert result.exit_code == 0, result.output
    assert {text for texts in stand_in.requests[before:] for text in texts} == set(PROBES)


def test_another_limit_or_price_makes_no_stage_run_again(finished: Path) -> None:
    words = ["--set", "model.max_cost=5", "--set", "model.batch_texts=3"]
    result = nearer("run", "--to", "mine", "-c", finished, "--json", *words)
    assert {step["status"] for step in json.loads(result.stdout)} == {"fresh"}


def test_a_cap_ends_a_command_before_anything_is_sent(finished: Path, stand_in: StandIn) -> None:
    before = len(stand_in.requests)
    words = ["--set", "model.max_cost=0", "--run", "capped", "--to", "evaluate"]
    result = nearer("run", "-c", finished, *words)
    assert result.exit_code == 2
    assert "model.max_cost" in result.output
    assert len(stand_in.requests) == before


def test_a_generation_is_built_verified_searched_and_kept_up_to_date(
    finished: Path, stand_in: StandIn
) -> None:
    before = len(stand_in.requests)
    built = json.loads(nearer("index", "build", "-c", finished, "--json").stdout)
    assert built["documents"] == 120
    verified = nearer("index", "verify", built["id"], "-c", finished, "--json")
    assert json.loads(verified.stdout)["passed"], verified.output
    assert nearer("index", "cutover", built["id"], "-c", finished).exit_code == 0
    documents = {text for texts in stand_in.requests[:before] for text in texts}
    paid = [text for texts in stand_in.requests[before:] for text in texts]
    assert not [text for text in paid if text in documents and len(text) > 300]
    root = finished.parent
    description = json.loads(
        (root / "generations" / built["id"] / "model" / "encoder.json").read_text()
    )
    assert (description["name"], description["url"]) == ("openai:words", stand_in.url)
    searcher = Searcher(Generations(root, config.load(finished)))
    hits = searcher.ask("SQL injection in a web application", 5)
    assert len(hits) == 5
    assert nearer("index", "sync", "-c", finished).exit_code == 0

    stand_in.seed = 1  # the provider exchanges the model behind its name
    try:
        with pytest.raises(FingerprintError, match="gives other vectors"):
            Searcher(Generations(root, config.load(finished))).ask("SQL injection", 5)
        assert nearer("evaluate", "-c", finished, "--force").exit_code == 2
    finally:
        stand_in.seed = 0


def test_an_estimate_names_the_price(finished: Path) -> None:
    result = nearer("index", "build", "--dry-run", "-c", finished, "--json")
    figures = json.loads(result.stdout)
    assert figures["price"] == pytest.approx(10 * figures["tokens"] / 1e6, abs=1e-3)
    assert figures["tokens_per_second"] > 0


def test_what_needs_weights_says_that_they_are_not_here(finished: Path) -> None:
    settings = config.load(finished).model
    with pytest.raises(ModelError, match="weights of this model are not here"):
        load_for_reranker(settings, finished.parent)
    result = nearer("fix", "-c", finished, "--set", "rerank.model=train")
    assert result.exit_code == 2
    assert "are not here" in result.output.replace("\n", " ")


def test_an_adapter_over_an_endpoint_is_trained_judged_and_indexed(
    stand_in: StandIn, tmp_path: Path, write_project: Any
) -> None:
    path: Path = write_project(
        tmp_path,
        model={"name": "openai:words", "url": stand_in.url},
        train={"method": "linear"},
        decide={"guardrails": {"general": None}, "min_gain": 0.0},
        index={"store": "numpy", "part": 50},
    )
    result = nearer("run", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "default"
    table = json.loads((run / "train" / "candidates.json").read_text())
    assert [row["name"] for row in table["candidates"]] == ["linear", "nudge"]
    assert table["chosen"] == "linear"
    decision = json.loads((run / "decide" / "decision.json").read_text())
    assert "candidate" in {row["role"] for row in decision["candidates"]}
    settings = config.load(path)
    encoder = open_encoder(settings.model, tmp_path, path=run / "train" / "model")
    base = open_encoder(settings.model, tmp_path)
    texts = ["a buffer that overflows", "a path"]
    assert encoder.fingerprint.differences(base.fingerprint)
    assert (encoder.encode(texts, "document") == base.encode(texts, "document")).all()
