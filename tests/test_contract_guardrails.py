"""The contract of guardrails, over every one of the registry and one of the user's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import nearer
from nearer import config, plugins
from nearer.data.general import load_general
from nearer.data.leakage import Leakage, TrainedOn
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ConfigError
from nearer.guardrails import ALWAYS, check_all, load_guardrails
from nearer.guardrails.base import DoesNotApply, GuardrailEvidence
from nearer.measure.metrics import Scores
from nearer.measure.named import NamedOutcome
from nearer.measure.slices import compare_slices
from nearer.measure.verdict import TUNED, Candidate
from nearer.search.systems import Latency
from nearer.types import Query, Run, Split

#: The keys of `guardrails` in decision.json (DESIGN.md), and those that were added since.
KEYS = {"name", "margin", "lower_bound", "status", "queries_needed"} | {"delta", "n"}

OWN = """
from nearer.guardrails.base import DoesNotApply, NotTried, Row
from nearer.measure.significance import non_inferior


class Everyone:
    name = "everyone"

    def check(self, evidence):
        guard = non_inferior(evidence.change, 0.05, evidence.settings.alpha)
        return [Row.of(self.name, guard, team="search")]


class Raises:
    name = "raises"

    def check(self, evidence):
        raise RuntimeError("no connection")


class Misspelt:
    name = "misspelt"

    def check(self, evidence):
        return [Row(name=self.name, status="passed")]


class NoRows:
    name = "no rows"

    def check(self, evidence):
        return [{"name": "no rows", "status": "pass"}]


class NotANumber:
    name = "not a number"

    def check(self, evidence):
        return [Row(name=self.name, status="pass", delta=float("nan"))]


class Nothing:
    name = "nothing"

    def check(self, evidence):
        return None


class Unable:
    name = "unable"

    def check(self, evidence):
        return NotTried("there is no judge", "set judge.url")


class Elsewhere:
    name = "elsewhere"

    def check(self, evidence):
        return DoesNotApply("no prices in this corpus")


class Unmakeable:
    name = "unmakeable"

    def __init__(self):
        raise RuntimeError("no file")


class Unchecked:
    name = "unchecked"
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    """The module of the user's own guardrails, in tmp_path."""
    name = f"own_guardrail_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So that the general-ability set is embedded once per model."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(tiny_model: Path, cache: Path) -> SentenceEncoder:
    settings = config.Model(name=str(tiny_model), precision="fp32")
    return load_encoder(settings, Path(), cache=cache)


@pytest.fixture(scope="module")
def forgetful(
    tiny_model: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> SentenceEncoder:
    """The same model with random weights."""
    model = SentenceTransformer(str(tiny_model), device="cpu")
    torch.manual_seed(0)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=1.0)
    folder = tmp_path_factory.mktemp("models") / "forgetful"
    model.save(str(folder), create_model_card=False)
    settings = config.Model(name=str(folder), precision="fp32")
    return load_encoder(settings, Path(), cache=cache)


@pytest.fixture(scope="module")
def general_set() -> tuple[Any, Split]:
    return load_general()


TASK_GUARD = config.TaskGuard(measure="nDCG@10", margin=0.05)
QUERIES = tuple(f"q{number}" for number in range(300))
SLICES = {
    "tag:rare": set(QUERIES[:150]),
    "seen documents": set(QUERIES[:200]),
    "long query": set(QUERIES[100:]),
}


def candidate(name: str, role: str, column: np.ndarray) -> Candidate:
    return Candidate(name, role, "dense", Run(name, {}), Scores(QUERIES, {"nDCG@10": column}), 0.5)


@pytest.fixture
def evidence(
    model: SentenceEncoder, general_set: tuple[Any, Split]
) -> Callable[..., GuardrailEvidence]:
    """`evidence(tuned, loss, slower)`: how the tuned model, its scores and its latency differ."""

    def build(
        tuned: SentenceEncoder | None = None, loss: float = 0.0, slower: float = 1.0
    ) -> GuardrailEvidence:
        before = np.random.default_rng(0).uniform(0.6, 1.0, len(QUERIES))
        today = candidate("dense", "today", before)
        after = candidate(TUNED, "candidate", before - loss)
        rng = np.random.default_rng(1)
        leaked = (TrainedOn("q1", "q1", "exact", 1),) if loss >= 0.5 else ()
        answered = 0.0 if loss >= 0.5 else 0.7
        return GuardrailEvidence(
            baseline=today,
            candidate=after,
            base=SimpleNamespace(encoder=model, config=config.Config(), root=Path()),  # type: ignore[arg-type]
            tuned=SimpleNamespace(encoder=tuned or model),  # type: ignore[arg-type]
            test=Split("test", tuple(Query(name, name) for name in QUERIES), {}),
            slices=SLICES,
            slice_rows=compare_slices(
                today.scores, after.scores, SLICES, "nDCG@10", 10, rng, resamples=1000
            ),
            latencies={"dense": Latency(2.0, 3.0), TUNED: Latency(2.0 * slower, 3.0 * slower)},
            index_bytes={"dense": 1000, TUNED: int(2000 * slower)},
            general_set=general_set,
            settings=config.Decide(guards=(TASK_GUARD,)),
            primary="nDCG@10",
            named=(NamedOutcome("must_pass", "q0", "q0", "test", 0.7, answered),),
            leakage=Leakage(9, leaked),
        )

    return build


def every(own: str, root: Path) -> list[Any]:
    names = [*plugins.names("guardrail"), f"{own}:Everyone"]
    return load_guardrails(names, root)


def test_ours_run_always_and_in_their_order() -> None:
    assert plugins.names("guardrail")[: len(ALWAYS)] == ALWAYS
    names = [guardrail.name for guardrail in load_guardrails()]
    assert names == [
        "slices",
        "general ability",
        "latency",
        "named queries",
        "no test query in training",
        "tasks",
        "memory",
    ]


def test_identical_systems_never_fail(
    own: str, tmp_path: Path, evidence: Callable[..., GuardrailEvidence]
) -> None:
    for guardrail in every(own, tmp_path):
        rows = check_all([guardrail], evidence())
        assert rows, guardrail.name
        assert {row.status for row in rows} == {"pass"}, guardrail.name


def test_a_clearly_worse_candidate_fails_every_guardrail(
    own: str,
    tmp_path: Path,
    evidence: Callable[..., GuardrailEvidence],
    forgetful: SentenceEncoder,
) -> None:
    worse = evidence(forgetful, loss=0.5, slower=10.0)
    for guardrail in every(own, tmp_path):
        rows = check_all([guardrail], worse)
        assert rows, guardrail.name
        assert {row.status for row in rows} == {"fail"}, guardrail.name


@pytest.mark.parametrize("loss", [0.0, 0.04, 0.5])
def test_rows_have_the_keys_of_the_contract(
    own: str, tmp_path: Path, evidence: Callable[..., GuardrailEvidence], loss: float
) -> None:
    for row in check_all(every(own, tmp_path), evidence(loss=loss)):
        line = row.as_dict()
        assert set(line) >= KEYS
        assert line["status"] in {"pass", "fail", "inconclusive"}
        assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_a_slice_that_nobody_declared_is_a_row_only_when_it_collapses(
    evidence: Callable[..., GuardrailEvidence],
) -> None:
    slices = load_guardrails()[0]
    declared = ["slice tag:rare", "slice seen documents"]
    assert [row.name for row in check_all([slices], evidence())] == declared
    rows = check_all([slices], evidence(loss=0.5))
    assert [row.name for row in rows] == [*declared, "slice long query"]
    assert "upper_bound" in rows[0].as_dict()
    assert "upper_bound" not in rows[2].as_dict()


def test_what_does_not_apply_leaves_no_row(evidence: Callable[..., GuardrailEvidence]) -> None:
    untimed = replace(
        evidence(), general_set=None, latencies={"dense": None, TUNED: Latency(1.0, 1.0)}
    )
    untimed = replace(untimed, index_bytes={"dense": 1000, TUNED: None})
    _, general, latency, _, _, tasks, memory = load_guardrails()
    assert isinstance(general.check(untimed), DoesNotApply)
    assert isinstance(latency.check(untimed), DoesNotApply)
    assert isinstance(memory.check(untimed), DoesNotApply)
    unguarded = replace(untimed, settings=config.Decide())
    assert isinstance(tasks.check(unguarded), DoesNotApply)
    assert check_all([general, latency, tasks], unguarded) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Raises", "its check raised RuntimeError: no connection"),
        ("Misspelt", "its check raised ValueError: status 'passed'"),
        ("NoRows", "its check raised AttributeError"),
        ("NotANumber", "its check raised ValueError"),
        ("Nothing", "its check raised TypeError"),
        ("Unable", "not tried: there is no judge; set judge.url"),
    ],
)
def test_what_could_not_be_checked_is_inconclusive_with_the_reason(
    own: str,
    tmp_path: Path,
    evidence: Callable[..., GuardrailEvidence],
    name: str,
    reason: str,
) -> None:
    guardrail = load_guardrails([f"{own}:{name}"], tmp_path)[-1]
    (row,) = check_all([guardrail], evidence())
    assert row.status == "inconclusive"
    assert row.name == guardrail.name
    assert row.as_dict()["reason"].startswith(reason)
    assert set(row.as_dict()) >= KEYS


def test_what_nothing_is_known_of_leaves_no_row(
    evidence: Callable[..., GuardrailEvidence],
) -> None:
    unknown = replace(evidence(), named=(), leakage=None, index_bytes={}, settings=config.Decide())
    assert check_all(load_guardrails()[3:], unknown) == []


def test_a_guardrail_that_raises_does_not_stop_the_others(
    own: str, tmp_path: Path, evidence: Callable[..., GuardrailEvidence]
) -> None:
    more = [f"{own}:Raises", f"{own}:Elsewhere", f"{own}:Everyone"]
    rows = check_all([load_guardrails()[2], *load_guardrails(more, tmp_path)[5:]], evidence())
    assert [(row.name, row.status) for row in rows] == [
        ("latency", "pass"),
        ("search: nDCG@10", "pass"),
        ("memory", "pass"),
        ("raises", "inconclusive"),
        ("everyone", "pass"),
    ]


def test_what_is_no_guardrail_is_refused(own: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean latency"):
        load_guardrails(["latencies"], tmp_path)
    with pytest.raises(ConfigError, match="cannot be made: RuntimeError: no file"):
        load_guardrails([f"{own}:Unmakeable"], tmp_path)
    with pytest.raises(ConfigError, match="is not a guardrail"):
        load_guardrails([f"{own}:Unchecked"], tmp_path)


def test_one_that_is_named_twice_runs_once(own: str, tmp_path: Path) -> None:
    names = [f"{own}:Everyone", "latency", f"{own}:Everyone"]
    assert len(load_guardrails(names, tmp_path)) == len(ALWAYS) + 1


def test_rows_of_the_users_own_are_in_the_record_and_hold_a_release_back(
    own: str,
    small_data: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    more = (f"{own}:Everyone", f"{own}:Raises")
    project = nearer.load(
        small_data,
        model=str(tiny_model),
        evaluate={"resamples": 1000, "baselines": ["bm25"]},
        decide={"guardrails": {"more": more, "general": None}},
    )
    record = nearer.decide(project, tiny_model).record
    rows = {row["name"]: row for row in record["guardrails"]}
    assert rows["everyone"]["team"] == "search"
    assert rows["raises"]["status"] == "inconclusive"
    assert "guardrail raises: its check raised RuntimeError: no connection" in record["reasons"]
    assert record["verdict"] != "ship"


def test_a_task_guard_that_cannot_be_checked_leaves_the_others(
    evidence: Callable[..., GuardrailEvidence],
) -> None:
    unknown = config.TaskGuard(measure="Cuteness", margin=0.05)
    both = replace(evidence(), settings=config.Decide(guards=(unknown, TASK_GUARD)))
    rows = check_all([load_guardrails()[5]], both)
    assert [(row.name, row.status) for row in rows] == [
        ("search: Cuteness", "inconclusive"),
        ("search: nDCG@10", "pass"),
    ]
