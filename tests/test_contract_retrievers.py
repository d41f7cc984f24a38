"""The contract of the retriever seam, held to every search system that can be named, and to one of the user's own."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from generations_kit import static_model
from nearer import config, plugins
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError, SearchSystemError
from nearer.search.base import Retriever
from nearer.search.pipeline import OWN, Pipeline
from nearer.search.systems import Systems
from nearer.types import Document, Query, rank_hits

OWN_MODULE = "contract_retrievers"
OWN_CLASS = f"{OWN_MODULE}:Longest"
OWN_SOURCE = """
from nearer.types import Run, rank_hits

WORDS = {"d0": "pump leak", "d1": "pump valve", "d2": "motor noise heat", "d3": "oil"}

def scores(text):
    wanted = text.split()
    counted = [(doc_id, float(sum(word in wanted for word in words.split()))) for doc_id, words in WORDS.items()]
    return [(doc_id, score) for doc_id, score in counted if score]

class Longest:
    def search(self, queries, k):
        return Run("longest", {query.id: rank_hits(scores(query.text), k) for query in queries})

def search(queries, k):
    return [scores(query.text) for query in queries]

class Unknown:
    def search(self, queries, k):
        return Run("unknown", {query.id: [("elsewhere", 1.0)] for query in queries})

class NoRun:
    def search(self, queries, k):
        return [[("d0", 1.0)] for query in queries]

class Silent:
    pass

class Broken:
    def __init__(self, folder):
        pass
"""
TEXTS = {"d0": "pump leak", "d1": "pump valve", "d2": "motor noise heat", "d3": "oil"}
#: What people chose in training, for the systems that recommend by it.
TRAINED = {"q0": {"d0": 1, "d1": 1}, "q1": {"d2": 1}, "other": {"d1": 1, "d3": 1}}
QUERIES = [
    Query("q0", "pump"),
    Query("q1", "motor heat leak"),
    Query("q2", "nothing of the kind"),
    Query("q3", "oil"),
]
NAMES = [*plugins.names("retriever"), OWN_CLASS]


@dataclass(frozen=True)
class World:
    """A project's folder, with everything that the systems of all kinds answer from."""

    root: Path
    url: str

    def systems(self, **search: Any) -> Systems:
        where = {"run": "run.trec", "function": f"{OWN_MODULE}:search", "url": self.url}
        settings = config.build({"model": {"name": "model"}, "search": where | search})
        corpus = Corpus.from_documents(Document(doc_id, text) for doc_id, text in TEXTS.items())
        systems = Systems(settings, self.root, corpus)
        systems.weight = 0.5
        systems.read_trained = lambda: TRAINED
        return systems

    def retriever(self, name: str) -> Retriever:
        systems = self.systems(system=name)
        return systems.retriever(systems.base(systems.today))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    static_model(root / "model")
    (root / f"{OWN_MODULE}.py").write_text(OWN_SOURCE)
    lines = ["q0 Q0 d1 1 2.0 t", "q0 Q0 d0 2 2.0 t", "q1 Q0 d2 1 1.5 t", "q3 Q0 d3 1 1.0 t"]
    (root / "run.trec").write_text("".join(f"{line}\n" for line in lines))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield World(root, f"http://127.0.0.1:{server.server_port}/search")
    server.shutdown()
    server.server_close()
    sys.modules.pop(OWN_MODULE, None)


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the documents that share a word with the query."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wanted = set(body["query"].split())
        results = [
            {"id": doc_id, "score": len(wanted.intersection(text.split()))}
            for doc_id, text in TEXTS.items()
            if wanted.intersection(text.split())
        ]
        results.sort(key=lambda hit: (hit["score"], hit["id"]), reverse=True)
        answer = json.dumps({"results": results[: body["k"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays clean."""


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_answered_in_canonical_order(world: World, name: str) -> None:
    retriever = world.retriever(name)
    assert isinstance(retriever, Retriever)
    run = retriever.search(QUERIES, 3)
    assert list(run.results) == [query.id for query in QUERIES]
    assert any(run.results.values())
    for hits in run.results.values():
        assert len(hits) <= 3
        assert list(hits) == rank_hits(hits)
        assert {doc_id for doc_id, _ in hits} <= set(TEXTS)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_queries_give_the_same_run(world: World, name: str) -> None:
    retriever = world.retriever(name)
    first, again = retriever.search(QUERIES, 3), retriever.search(QUERIES, 3)
    assert first.results == again.results
    assert world.retriever(name).search(QUERIES, 3).results == first.results


@pytest.mark.parametrize("name", NAMES)
def test_a_query_is_answered_alike_alone_and_among_others(world: World, name: str) -> None:
    retriever = world.retriever(name)
    together = retriever.search(QUERIES, 3).results
    for query in (QUERIES[0], QUERIES[1], QUERIES[3]):
        assert retriever.search([query], 3).results == {query.id: together[query.id]}


@pytest.mark.parametrize("name", NAMES)
def test_fewer_hits_are_the_beginning_of_more(world: World, name: str) -> None:
    retriever = world.retriever(name)
    more, fewer = retriever.search(QUERIES, 3), retriever.search(QUERIES, 1)
    for query in QUERIES:
        assert fewer.top(query.id, 1) == more.top(query.id, 1)
        assert len(fewer.results[query.id]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_no_queries_are_no_error(world: World, name: str) -> None:
    assert world.retriever(name).search([], 3).results == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_system_is_searched_by_its_name(world: World, name: str) -> None:
    systems = world.systems(system=name)
    assert systems.today == name
    assert Pipeline(name).label == name
    assert (name in OWN) == (systems.index_bytes(systems.base(name)) is None)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Unknown", "query 'q0': document 'elsewhere' is not in the corpus"),
        ("NoRun", "'list' object has no attribute 'results'"),
        ("Silent", r"no search\(queries, k\)"),
        ("Broken", "making it raised TypeError"),
        ("Absent", "has no Absent"),
    ],
)
def test_what_a_class_does_wrong_is_said(world: World, name: str, problem: str) -> None:
    with pytest.raises(SearchSystemError, match=problem) as caught:
        world.retriever(f"{OWN_MODULE}:{name}").search(QUERIES, 3)
    assert OWN_MODULE in str(caught.value)


def test_an_unknown_system_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="no retriever called 'dens'") as caught:
        config.build({"search": {"system": "dens"}})
    assert caught.value.where == "search.system"
    assert "did you mean dense?" in str(caught.value.next_step)


def test_an_installed_package_brings_a_system(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(world.root))
    point = EntryPoint("retriever.longest", OWN_CLASS, plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: (point,))
    assert world.retriever("longest").search(QUERIES, 3).top("q0", 3) == ["d1", "d0"]
