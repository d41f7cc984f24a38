"""Hard negatives that share a category with an item but no engagement."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nearer import config
from nearer.cli import app
from nearer.config import Mine
from nearer.data.corpus import Corpus
from nearer.data.interactions import Event, Meetings, Session, reversed_relations
from nearer.data.items import MET
from nearer.errors import ConfigError
from nearer.files import read_json, read_jsonl
from nearer.report import page
from nearer.report.data import ReportData
from nearer.tasks import task_of
from nearer.training.examples import Duplicates
from nearer.training.material import TrainingMaterial
from nearer.training.mining import Evidence, Mined, mine
from nearer.training.mining.category import CATEGORY, category_run
from nearer.types import Document, Query, Run, Split
from test_tasks_data import corpus_file, log_file
from test_tasks_run import write as write_project

SECTIONS = ("tools", "tools", "tools", "tools", "tools", "tools", "games", "games", ["Tools", "x"])
CORPUS = Corpus.from_documents(
    Document(f"i{place}", f"text of {place}", metadata={"section": section})
    for place, section in enumerate(SECTIONS)
)
OTHER_TOOLS = {"i1", "i2", "i3", "i4", "i5", "i8"}


def train(**metadata: Any) -> Split:
    return Split("train", (Query("i0", "text of 0", metadata=metadata),), {"i0": {"i1": 1}})


def drawn(seed: int = 0, most: int = 30) -> list[str]:
    run = category_run(CORPUS, train(), "section", most, np.random.default_rng(seed))
    assert run.name == CATEGORY
    return run.top("i0", 30)


def mined_of(
    split: Split, settings: Mine, duplicates: Duplicates | None = None, *, searched: bool = False
) -> Mined:
    """Negatives of i0, to which an item is the nearer the greater its number."""
    material = TrainingMaterial(
        split, CORPUS, duplicates or Duplicates(), collides=lambda text: None, items=True
    )
    runs = [category_run(CORPUS, split, "section", 30, np.random.default_rng(0))]
    if searched:
        runs.insert(0, Run("dense", {"i0": [("i7", 0.9), ("i6", 0.8)]}))

    def similarity(_: str, doc_ids: Any) -> np.ndarray:
        return np.array([0.95 if one == "i1" else int(one[1:]) / 10 for one in doc_ids])

    evidence = Evidence(runs, similarity)
    return mine(material, evidence, settings, np.random.default_rng(0))


def test_items_of_the_same_category_are_drawn_with_the_seed_and_never_the_item_itself() -> None:
    """Values are equal as in filters: without regard to case, one of several is enough."""
    assert set(drawn()) == OTHER_TOOLS
    assert drawn(seed=1) == drawn(seed=1)
    assert drawn(seed=1) != drawn(seed=2)
    assert len(drawn(most=2)) == 2


def test_what_goes_with_the_item_or_met_it_in_the_log_is_no_negative() -> None:
    duplicates = Duplicates.of([["i2", "i3"], ["i0", "i4"]])
    split = train(**{MET: ["i2"]})
    mined = mined_of(split, Mine(negatives=9, category="section", margin=1.0), duplicates)
    (example,) = mined.examples
    assert set(example.negatives) == {"i5", "i8"}  # i3 and i4 only look like what went with i0
    assert mined.dropped["candidate met the item in the log, or is its duplicate"] == 3
    assert mined.dropped["candidate is a known positive or its duplicate"] == 1


def test_the_category_has_a_share_although_searches_find_harder_ones() -> None:
    settings = Mine(negatives=2, pool=1, category="section", margin=1.0)
    (example,) = mined_of(train(), settings, searched=True).examples
    assert {source.partition("#")[0] for source in example.source[1:]} == {"dense", CATEGORY}


@pytest.mark.parametrize("quota", [0, 1, 2])
def test_a_quota_counts_the_category_like_any_source(quota: int) -> None:
    settings = Mine(negatives=4, category="section", margin=1.0, quota={"category": quota})
    mined = mined_of(train(), settings, searched=True)
    (example,) = mined.examples
    sources = Counter(source.partition("#")[0] for source in example.source[1:])
    assert sources[CATEGORY] == quota
    assert mined.summary()["sources"].get(CATEGORY, 0) == quota
    assert mined.dropped["the quota of its source is used up"] >= 1


def test_the_report_says_how_many_negatives_each_source_gave() -> None:
    mined = mined_of(train(), Mine(negatives=4, category="section", margin=1.0), searched=True)
    html = page.render(ReportData(mining=mined.summary()))
    count = mined.summary()["sources"][CATEGORY]
    assert count > 0
    cells = html.partition("sources · category")[2][:200]
    assert f">{count}<" in cells


def test_a_field_that_no_document_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no document has the field 'colour'.*section"):
        category_run(CORPUS, train(), "colour", 30, np.random.default_rng(0))


# -- whole projects --------------------------------------------------------------------------------


ITEMS = [f"item{place:02d}" for place in range(30)]


def log_rows() -> list[tuple[str, str]]:
    """Items go together in threes, one of each kind; each meets one of its own kind once."""
    rows = []
    for place, item in enumerate(ITEMS):
        rows += [(f"three {place // 3}-{number}", item) for number in range(2)]
        rows += [(f"once{place}", item), (f"once{place}", _after(place, 3))]
    return rows


def _after(place: int, steps: int) -> str:
    return ITEMS[(place + steps) % len(ITEMS)]


def _packages(folder: Path) -> Path:
    """Thirty items of three kinds with words of their own, and a log of them."""
    rng = np.random.default_rng(5)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    lines = []
    for place, item in enumerate(ITEMS):
        words = ["".join(rng.choice(letters, 6)) for _ in range(8)]
        lines.append({"_id": item, "text": " ".join(words), "kind": f"k{place % 3}"})
    corpus_file(folder, lines)
    log_file(folder, log_rows(), "session,item")
    return folder


def test_of_held_out_relations_nobody_is_told_that_they_met() -> None:
    events = [Event(item, 1.0, None) for item in ("a", "b", "c")]
    meetings = Meetings.of([Session("s", tuple(events))])
    told = meetings.met({"a", "b"}, reversed_relations({"c": {"a": 1}}))
    assert told == {"a": ["b"], "b": ["a", "c"]}


def test_the_log_tells_mining_what_met_too_seldom_to_be_related(tmp_path: Path) -> None:
    _packages(tmp_path)
    settings = config.build(
        {
            "task": "recommend",
            "data": {"corpus": str(tmp_path / "corpus.jsonl"), "split": {"dev": 0.2, "test": 0.2}},
            "recommend": {"interactions": str(tmp_path / "log.csv"), "time": None},
        }
    )
    loaded = task_of(settings).load(settings, tmp_path)
    assert loaded.judgments["dev"]
    for item in loaded.judgments["train"]:
        place = ITEMS.index(item)
        assert loaded.queries[item].metadata[MET] == sorted({_after(place, 3), _after(place, -3)})
    for item in {**loaded.judgments["dev"], **loaded.judgments["test"]}:
        assert MET not in loaded.queries[item].metadata


@pytest.fixture
def shop(tmp_path: Path, tiny_model: Path) -> Path:
    """A recommendation project, not checked yet."""
    return write_project(
        tmp_path / "shop",
        _packages(tmp_path),
        tiny_model,
        task="recommend",
        recommend={"interactions": str(tmp_path / "log.csv"), "time": None},
        data={"split": {"dev": 0.2, "test": 0.2}},
    )


def call(path: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "-c", str(path)])


def test_mine_draws_negatives_of_the_same_category(shop: Path) -> None:
    assert call(shop, "check").exit_code == 0
    # Of thirty items dense search would find every one first.
    chosen = ("mine.category=kind", "mine.negatives=3", "mine.sources=[]", "mine.margin=1")
    mined = call(shop, "mine", *(word for setting in chosen for word in ("--set", setting)))
    assert mined.exit_code == 0, mined.output
    folder = shop.parent / "runs" / "default"
    place_of = {item: place for place, item in enumerate(ITEMS)}
    of_category = 0
    for line in read_jsonl(folder / "mine" / "examples.jsonl"):
        for negative, source in zip(line["negatives"], line["source"][1:], strict=True):
            if source.startswith(CATEGORY):
                of_category += 1
                assert place_of[negative] % 3 == place_of[line["query_id"]] % 3
            apart = (place_of[negative] - place_of[line["query_id"]]) % len(ITEMS)
            assert apart not in (3, len(ITEMS) - 3)
    assert of_category
    assert read_json(folder / "mine" / "summary.json")["sources"][CATEGORY] == of_category


@pytest.mark.parametrize("field", ["colour", "Kind of thing"])
def test_an_unknown_field_ends_with_exit_code_2_and_the_fields_there_are(
    shop: Path, field: str
) -> None:
    assert call(shop, "check").exit_code == 0
    refused = call(shop, "mine", "--set", f"mine.category={field}")
    assert refused.exit_code == 2
    assert f"no document has the field {field!r}" in refused.output.replace("\n", " ")
    assert "kind" in refused.output
    assert "Traceback" not in refused.output


def test_queries_that_are_no_items_have_no_category(
    small_data: Path, tmp_path: Path, tiny_model: Path
) -> None:
    settings = {"data": {"folder": str(small_data)}, "model": {"name": str(tiny_model)}}
    path = tmp_path / "nearer.yaml"
    path.write_text(json.dumps(settings))
    assert call(path, "check").exit_code == 0
    refused = call(path, "mine", "--set", "mine.category=kind")
    assert refused.exit_code == 2
    assert "no items" in refused.output
