"""The contract of the generator seam, held to every generator that can be named, and to one of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from embeddings_kit import serving
from generated_kit import written
from nearer import config, plugins
from nearer.errors import ConfigError, ModelError
from nearer.generated.base import (
    Brief,
    Draft,
    GeneratorSpec,
    QueryGenerator,
    estimate_of,
    load_generator,
    proposals,
)
from nearer.types import Document
from rag_kit import ChatStandIn

OWN_MODULE = "contract_generators"
OWN = f"{OWN_MODULE}:First"
OWN_SOURCE = """
class First:
    name = "first words"

    def generate(self, briefs):
        answers = []
        for brief in briefs:
            words = " ".join(document.text.split()[0] for document in brief.documents if document.text.split())
            answers.append([(kind, words) for kind in brief.kinds if words])
        return answers
"""
DOCUMENTS = (
    Document(
        "pump",
        "A dosing pump is a device that moves a small amount of liquid. The membrane fails when "
        "the suction filter is blocked by crystals.\n\n## Cleaning the suction filter\n\nRinse it.",
        "Dosing pumps",
    ),
    Document("valve", "The relief valve opens when the pressure of the suction filter rises."),
    Document("empty", "…", ""),
    Document("japanese", "東京は日本の首都です。人口は多い。", "東京"),
    Document("code", "```\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |", "Table"),
)
NAMES = [*plugins.names("generator"), OWN]
Load = Callable[[str], QueryGenerator]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{OWN_MODULE}.py").write_text(OWN_SOURCE)
    yield folder
    sys.modules.pop(OWN_MODULE, None)


@pytest.fixture(scope="module")
def load(root: Path) -> Iterator[Load]:
    with serving(ChatStandIn(reply=written)) as endpoint:  # type: ignore[type-var]

        def loaded(name: str) -> QueryGenerator:
            generate = {"generator": name, "url": endpoint.url, "model": "m"}
            return load_generator(GeneratorSpec(config.build({"generate": generate}), root))

        yield loaded


def briefs() -> list[Brief]:
    alone = [Brief((document,), ("keywords", "question"), 2) for document in DOCUMENTS]
    return [*alone, Brief(DOCUMENTS[:2], ("several",), 1)]


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_every_brief_with_what_was_asked_for(load: Load, name: str) -> None:
    generator = load(name)
    answers = proposals(generator, briefs())
    assert isinstance(generator.name, str)
    assert len(answers) == len(briefs())
    assert answers[0]
    for brief, drafts in zip(briefs(), answers, strict=True):
        assert all(draft.kind in brief.kinds for draft in drafts)
        for kind in brief.kinds:
            assert sum(draft.kind == kind for draft in drafts) <= brief.per_kind


@pytest.mark.parametrize("name", NAMES)
def test_the_same_briefs_give_the_same_queries(load: Load, name: str) -> None:
    assert proposals(load(name), briefs()) == proposals(load(name), briefs())


@pytest.mark.parametrize("name", NAMES)
def test_no_briefs_give_no_queries(load: Load, name: str) -> None:
    assert proposals(load(name), []) == []


def test_the_local_one_reads_definitions_headings_and_trouble(load: Load) -> None:
    asked = [Brief((document,), ("keywords", "question", "symptom"), 3) for document in DOCUMENTS]
    first = proposals(load("local"), asked)[0]
    assert Draft("question", "what is dosing pump?") in first
    assert "crystals" in next(draft.text for draft in first if draft.kind == "symptom")
    assert any("suction filter" in draft.text for draft in first if draft.kind == "keywords")
    shared = proposals(load("local"), [Brief(DOCUMENTS[:2], ("several",), 1)])[0]
    assert set(shared[0].text.split()) >= {"suction", "filter"}


def test_an_installed_package_brings_a_generator(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root))
    point = EntryPoint("generator.first", OWN, plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: (point,))
    settings = config.build({"generate": {"generator": "first"}})
    assert load_generator(GeneratorSpec(settings, root)).name == "first words"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="locall") as caught:
        config.build({"generate": {"generator": "locall"}})
    assert "generator" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return []", "0 answers to 6 briefs"),
        ("return [['keywords']] * len(briefs)", "no \\(kind, text\\)"),
        ("return [[('poem', 'x')]] * len(briefs)", "which is no"),
        ("return [[('keywords', 5)]] * len(briefs)", "which is no"),
        ("return 7", "no \\(kind, text\\)"),
        ("return [[('keywords', 'x', 'y')]] * len(briefs)", "no \\(kind, text\\)"),
        ("raise KeyError('out of ideas')", "raised KeyError: 'out of ideas'"),
        ("return (1 / 0 for brief in briefs)", "raised ZeroDivisionError"),
    ],
)
def test_what_a_class_gives_is_checked(tmp_path: Path, body: str, says: str) -> None:
    module = f"bad_generator_{abs(hash(body))}"
    source = f"class Bad:\n    name = 'bad'\n    def generate(self, briefs):\n        {body}\n"
    (tmp_path / f"{module}.py").write_text(source)
    settings = config.build({"generate": {"generator": f"{module}:Bad"}})
    generator = load_generator(GeneratorSpec(settings, tmp_path))
    with pytest.raises(ModelError, match=says) as caught:
        proposals(generator, briefs())
    assert caught.value.where == f"{module}:Bad"


def test_an_estimate_that_raises_names_its_class(tmp_path: Path) -> None:
    source = OWN_SOURCE + "    def estimate(self, briefs):\n        raise ValueError('no prices')\n"
    (tmp_path / "no_estimate.py").write_text(source)
    settings = config.build({"generate": {"generator": "no_estimate:First"}})
    generator = load_generator(GeneratorSpec(settings, tmp_path))
    with pytest.raises(ModelError, match="no prices") as caught:
        estimate_of(generator, briefs())
    assert caught.value.where == "no_estimate:First"


def test_a_class_that_is_no_generator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no_generator.py").write_text("class Nothing: ...\n")
    settings = config.build({"generate": {"generator": "no_generator:Nothing"}})
    with pytest.raises(ModelError, match=r"no generate\(briefs\)"):
        load_generator(GeneratorSpec(settings, tmp_path))


@pytest.mark.parametrize("missing", ["url", "model"])
def test_an_endpoint_without_address_or_model_is_named(missing: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"generator": "openai", "url": "http://localhost:1", "model": "m"}
    del values[missing]
    spec = GeneratorSpec(config.build({"generate": values}), tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_generator(spec)
    assert caught.value.where == f"generate.{missing}"
