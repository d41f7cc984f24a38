"""The contract of simpler fixes, over every one of them and one of the user's own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer import config, plugins
from nearer.data.corpus import Corpus
from nearer.data.inputs import external_inputs
from nearer.data.load import load as load_data
from nearer.errors import ConfigError, SearchSystemError
from nearer.fixes.base import FIXES, OF_ONE_TASK, Absence, Fix, fixes_of
from nearer.report.content import fix_steps
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.stages.fix import try_fixes
from nearer.types import Split

#: A fix of the user's own: words instead of vectors.
OWN = """
from dataclasses import replace
from nearer.fixes.base import Fix

class Words(Fix):
    name = "words alone"
    needs = "a BM25 index instead of vectors"

    def variants(self, base, systems, dev):
        return [] if base.system == "bm25" else [replace(base, system="bm25")]

class Nameless(Fix):
    needs = "nothing"

class Stranger:
    name, needs = "stranger", "nothing"
"""

_NUMBERS = itertools.count()


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, Path]:
    """The module of the user's own fixes, imported by no test before, and its folder."""
    module = f"users_fixes_{next(_NUMBERS)}"
    (tmp_path / f"{module}.py").write_text(OWN)
    return module, tmp_path


@pytest.fixture(scope="module")
def systems(small_data: Path, tiny_model: Path) -> Systems:
    settings = config.build(
        {
            "data": {"folder": str(small_data)},
            "model": {"name": str(tiny_model)},
            "evaluate": {"resamples": 1000},
            "fix": {"models": ["static"]},
        }
    )
    return Systems(settings, small_data, Corpus.open(small_data / "corpus.jsonl"))


@pytest.fixture(scope="module")
def dev(systems: Systems, small_data: Path) -> Split:
    loaded = load_data(systems.config.data, small_data)
    judgments = loaded.judgments["dev"]
    queries = tuple(query for query in loaded.queries.values() if query.id in judgments)
    return Split("dev", queries, judgments)


@pytest.fixture(params=[*plugins.names("fix"), "own:Words"])
def fix(request: pytest.FixtureRequest, own: tuple[str, Path]) -> Fix:
    module, root = own
    name = request.param.replace("own:", f"{module}:")
    return fixes_of(config.build({"fix": {"fixes": [name]}}), root)[0]


BASES = [Pipeline(), Pipeline("bm25"), Pipeline("rrf", filters="declared"), Pipeline("run")]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.label)
def test_variants_differ_from_the_base_and_are_the_same_each_time(
    fix: Fix, base: Pipeline, systems: Systems, dev: Split
) -> None:
    variants = list(fix.variants(base, systems, dev))
    assert all(isinstance(variant, Pipeline) for variant in variants)
    assert base not in variants
    assert len(set(variants)) == len(variants)
    assert variants == list(fix.variants(base, systems, dev))
    for variant in variants:
        assert Pipeline.from_dict(variant.as_dict()) == variant


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.label)
def test_a_fix_says_under_its_own_name_why_it_gave_nothing(
    fix: Fix, base: Pipeline, systems: Systems, dev: Split
) -> None:
    reasons = [fix.absent(base, systems, dev), *fix.unnamed(), *fix.suggested([])]
    for reason in reasons:
        assert isinstance(reason, Absence)
        assert reason.fix == fix.name
        assert reason.why
        assert reason.next_step == "" or reason.next_step.startswith("nearer fix --set")


def test_a_fix_says_what_it_needs_in_production(fix: Fix) -> None:
    assert fix.name
    assert len(fix.needs.split()) >= 3


def test_ours_are_registered_under_their_names_and_all_tried_by_default(tmp_path: Path) -> None:
    settings = config.build({})
    assert settings.fix.fixes == FIXES
    assert tuple(fix.name for fix in fixes_of(settings, tmp_path)) == FIXES


def test_a_fix_of_the_users_own_stands_in_trials_ladder_and_report(
    systems: Systems, dev: Split, own: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, root = own
    settings = config.build(
        {
            "fix": {"fixes": ["hybrid", f"{module}:Words"], "title_weights": []},
            "evaluate": {"resamples": 1000},
        }
    )
    monkeypatch.setattr(systems, "root", root)
    fixes = try_fixes(systems, dev, settings, np.random.default_rng(1))
    lines = list(fixes.trials)
    (line,) = [line for line in lines if line["fix"] == "words alone"]
    assert line["label"] == "bm25"
    assert {"p50_ms", "index_bytes", "build_seconds"} <= set(line["cost"])
    assert [step["fix"] for step in fixes.ladder["rungs"]] == ["hybrid", "words alone"]
    assert "words alone" in str(fixes)
    assert "words alone" in str(fix_steps(fixes.ladder))
    assert {absence["fix"] for absence in fixes.ladder["not_tried"]} == {*FIXES} - {"hybrid"}


def test_an_unknown_fix_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="no fix called 'hybird'") as refused:
        config.build({"fix": {"fixes": ["hybird"]}})
    assert refused.value.where == "fix.fixes"
    assert "did you mean hybrid?" in str(refused.value.next_step)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("Stranger", "is no subclass"), ("Nameless", "lacks variants, name")],
)
def test_a_class_that_is_no_fix_is_refused(own: tuple[str, Path], name: str, problem: str) -> None:
    module, root = own
    settings = config.build({"fix": {"fixes": [f"{module}:{name}"]}})
    with pytest.raises(ConfigError, match=problem):
        fixes_of(settings, root)


def test_a_module_that_is_not_there_says_where_it_belongs(tmp_path: Path) -> None:
    settings = config.build({"fix": {"fixes": ["no_such_module:Fix"]}})
    with pytest.raises(SearchSystemError, match="no such module"):
        fixes_of(settings, tmp_path)


def test_the_stage_runs_again_when_the_users_module_changes(own: tuple[str, Path]) -> None:
    module, root = own
    name = f"{module}:Words"
    settings = config.build({"fix": {"fixes": [name]}})
    inputs: Any = external_inputs("other models", settings, root)
    assert inputs[name] == root / f"{module}.py"


def test_an_installed_fix_goes_by_its_name_and_is_not_tried_where_it_is_left_out(
    systems: Systems, dev: Split, own: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, root = own
    monkeypatch.syspath_prepend(str(root))
    point = EntryPoint("fix.words", f"{module}:Words", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert plugins.names("fix") == (*FIXES, *OF_ONE_TASK, "words")
    (fix,) = fixes_of(config.build({"fix": {"fixes": ["words"]}}), root)
    assert fix.variants(Pipeline(), systems, dev) == [replace(Pipeline(), system="bm25")]
    settings = config.build({"fix": {"fixes": ["metadata"]}, "evaluate": {"resamples": 1000}})
    ladder = try_fixes(systems, dev, settings, np.random.default_rng(1)).ladder
    absent = {absence["fix"]: absence["next"] for absence in ladder["not_tried"]}
    assert absent["words"] == "nearer fix --set 'fix.fixes=[words]'"
