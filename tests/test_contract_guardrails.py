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
from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, NotMeasured, NotTried
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


class Empty:
    name = "empty"

    def check(self, evidence):
        return []


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


@pytest.mark.long
def test_identical_systems_never_fail(
    own: str, tmp_path: Path, evidence: Callable[..., GuardrailEvidence]
) -> None:
    for guardrail in every(own, tmp_path):
        rows = check_all([guardrail], evidence())
        assert rows, guardrail.name
        assert {row.status for row in rows} == {"pass"}, guardrail.name


@pytest.mark.long
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


def with_small_slice(
    facts: GuardrailEvidence, name: str, size: int, lost: int, unanswered: int = 0
) -> GuardrailEvidence:
    """The first queries in one slice: so many of them are lost, the last ones nobody answers."""
    before = facts.baseline.scores.column("nDCG@10").copy()
    before[size - unanswered : size] = 0.0
    after = before.copy()
    after[:lost] = 0.0
    return replace(
        facts,
        baseline=candidate("dense", "today", before),
        candidate=candidate(TUNED, "candidate", after),
        slices={name: set(QUERIES[:size])},
        slice_rows=(),
    )


@pytest.mark.parametrize(
    ("name", "size", "lost", "unanswered", "guarded"),
    [
        ("tag:refunds", 4, 4, 0, True),  # everything
        ("tag:refunds", 4, 3, 0, True),  # nearly everything
        ("tag:refunds", 8, 2, 6, True),  # everything that today's system answers
        ("high risk", 3, 2, 1, True),
        ("tag:refunds", 4, 2, 0, False),  # half of it
        ("tag:refunds", 1, 1, 0, False),  # one query: of many tags one loses it by chance
        ("tag:refunds", 4, 0, 0, False),
        ("identifier", 4, 1, 0, True),  # codes are lost first
        ("seen documents", 4, 4, 0, False),  # nobody named them
    ],
)
def test_a_named_slice_that_is_too_small_for_a_test_and_loses_its_answers_does_not_pass(
    evidence: Callable[..., GuardrailEvidence],
    name: str,
    size: int,
    lost: int,
    unanswered: int,
    guarded: bool,
) -> None:
    facts = with_small_slice(evidence(), name, size, lost, unanswered)
    (row,) = check_all([load_guardrails()[0]], facts)
    if not guarded:
        assert (row.name, row.status) == ("small slices", "not measured")
        assert row.more["reason"].endswith(f"evaluate.min_slice (10): {name} ({size})")
        return
    assert row.name == f"slice {name}"
    assert row.status in {"inconclusive", "fail"}
    answered = size - unanswered
    assert f"{lost} of the {answered} queries that today's system answers" in row.more["reason"]
    assert f"{size} queries, fewer than evaluate.min_slice (10)" in row.more["reason"]


def test_a_small_slice_that_finds_as_much_as_it_loses_is_no_loss(
    evidence: Callable[..., GuardrailEvidence],
) -> None:
    facts = with_small_slice(evidence(), "tag:refunds", 4, 2, unanswered=2)
    after = facts.candidate.scores.column("nDCG@10").copy()
    after[2:4] = 0.8
    facts = replace(facts, candidate=candidate(TUNED, "candidate", after))
    (row,) = check_all([load_guardrails()[0]], facts)
    assert (row.name, row.status) == ("small slices", "not measured")


@pytest.fixture
def unmeasured(evidence: Callable[..., GuardrailEvidence]) -> GuardrailEvidence:
    """Neither time nor size nor training examples are known, and nothing is named or set."""
    return replace(
        evidence(),
        general_set=None,
        latencies={"dense": None, TUNED: Latency(1.0, 1.0)},
        index_bytes={"dense": 1000, TUNED: None},
        leakage=None,
        named=(),
        settings=config.Decide(),
    )


def test_what_cannot_be_measured_and_what_does_not_apply_have_a_row_with_the_reason(
    unmeasured: GuardrailEvidence,
) -> None:
    _, general, latency, named, leakage, tasks, memory = load_guardrails()
    for guardrail in (general, latency, leakage, memory):
        assert isinstance(guardrail.check(unmeasured), NotMeasured)
    for guardrail in (named, tasks):
        assert isinstance(guardrail.check(unmeasured), DoesNotApply)
    rows = check_all(load_guardrails()[1:], unmeasured)
    assert {row.name: row.status for row in rows} == {
        "general ability": "not measured",
        "latency": "not measured",
        "named queries": "does not apply",
        "no test query in training": "not measured",
        "tasks": "does not apply",
        "memory": "not measured",
    }
    assert all(row.more["reason"] for row in rows)
    assert set(rows[0].as_dict()) >= KEYS


@pytest.mark.parametrize(
    ("name", "limit"), [("latency", "latency_ratio"), ("memory", "memory_ratio")]
)
def test_a_limit_that_somebody_set_and_nobody_can_measure_is_inconclusive(
    unmeasured: GuardrailEvidence, name: str, limit: str
) -> None:
    asked = replace(unmeasured, settings=config.Decide(guardrails={limit: 1.5}))
    (guardrail,) = [one for one in load_guardrails() if one.name == name]
    assert isinstance(guardrail.check(asked), NotTried)
    (row,) = check_all([guardrail], asked)
    assert row.status == "inconclusive"
    assert f"decide.guardrails.{limit}" in row.more["reason"]


def test_every_guardrail_leaves_a_trace(
    own: str,
    tmp_path: Path,
    evidence: Callable[..., GuardrailEvidence],
    unmeasured: GuardrailEvidence,
) -> None:
    guardrails = [*every(own, tmp_path), *load_guardrails([f"{own}:Elsewhere"], tmp_path)[-1:]]
    for facts in (evidence(), unmeasured, replace(unmeasured, slices={}, slice_rows=())):
        for guardrail in guardrails:
            assert check_all([guardrail], facts), guardrail.name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Raises", "its check raised RuntimeError: no connection"),
        ("Misspelt", "its check raised ValueError: status 'passed'"),
        ("NoRows", "its check raised AttributeError"),
        ("NotANumber", "its check raised ValueError"),
        ("Empty", "its check gave no row"),
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
        ("elsewhere", "does not apply"),
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


@pytest.mark.long
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
