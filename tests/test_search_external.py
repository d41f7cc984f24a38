"""The user's own system: what it answers is measured as it is, what it answers wrongly is named."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nearer import progress
from nearer.errors import ConfigError, DataError, SearchSystemError
from nearer.search.base import Retriever
from nearer.search.external import Function, Http, RunFile
from nearer.types import Query

QUERIES = [Query("q1", "first"), Query("q2", "second", filter={"product": "tea"})]
KNOWN = frozenset({"a", "b", "c"})

# --- run files ---------------------------------------------------------------------------------


def write_run(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_run_file_answers_in_canonical_order(tmp_path: Path) -> None:
    path = write_run(
        tmp_path / "run.trec",
        "q1 Q0 a 1 0.5 t",
        "q1 Q0 b 2 0.5 t",
        "q1 Q0 c 3 0.9 t",
        "q9 Q0 a 1 1 t",
    )
    retriever = RunFile(path, KNOWN)
    assert isinstance(retriever, Retriever)
    run = retriever.search(QUERIES, 2)
    assert {query_id: list(hits) for query_id, hits in run.results.items()} == {
        "q1": [("c", pytest.approx(0.9)), ("b", 0.5)],
        "q2": [],
    }


def test_several_run_files_are_one_system_unless_they_answer_a_query_twice(tmp_path: Path) -> None:
    one, two = (
        write_run(tmp_path / "1.trec", "q1 Q0 a 1 1 t"),
        write_run(tmp_path / "2.trec", "q2 Q0 b 1 1 t"),
    )
    assert RunFile([one, two]).search(QUERIES, 5).top("q2", 1) == ["b"]
    with pytest.raises(DataError, match="'q1' is in more than one"):
        RunFile([one, two, one])


def test_a_run_of_other_queries_or_documents_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.trec", "q1 Q0 elsewhere 1 1 t")
    with pytest.raises(SearchSystemError, match="none of the 1 queries"):
        RunFile(path).search([Query("other", "x")], 5)
    with pytest.raises(
        SearchSystemError, match=r"query 'q1': document 'elsewhere' is not in the corpus"
    ):
        RunFile(path, KNOWN).search(QUERIES, 5)


# --- functions ---------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Write the source of a module; returns its name, which no other test uses."""
    before = set(sys.modules)

    def write(source: str) -> str:
        name = f"system_{abs(hash(request.node.nodeid))}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("system_"):
            del sys.modules[name]


def answering(answer: str) -> str:
    return f"def search(queries, k):\n    return {answer}\n"


def test_a_function_gets_queries_and_k_and_its_answers_are_ranked(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    name = module(answering("[[('a', 0.5), ['b', k], ('c', len(q.text))] for q in queries]"))
    path_before = list(sys.path)
    run = Function(f"{name}:search", tmp_path, KNOWN).search(QUERIES, 2)
    assert sys.path == path_before
    assert run.results == {"q1": [("c", 5.0), ("b", 2.0)], "q2": [("c", 6.0), ("b", 2.0)]}


def test_numpy_scores_are_numbers_too(tmp_path: Path, module: Callable[[str], str]) -> None:
    name = module(
        "import numpy as np\n"
        + answering("[[('a', np.float32(0.5)), ('b', np.int64(2))] for q in queries]")
    )
    assert Function(f"{name}:search", tmp_path).search(QUERIES, 5).results["q1"] == [
        ("b", 2.0),
        ("a", 0.5),
    ]


def test_many_queries_come_in_blocks_and_none_is_lost(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    name = module(
        "sizes = []\n\n" + answering("sizes.append(len(queries)) or [[(q.id, 1)] for q in queries]")
    )
    queries = [Query(f"q{i}", "x") for i in range(150)]
    run = Function(f"{name}:search", tmp_path).search(queries, 5)
    assert run.results == {query.id: [(query.id, 1.0)] for query in queries}
    assert sys.modules[name].sizes == [64, 64, 22]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("[[('a', 1.0)]]", "2 queries got 1 lists"),
        ("None", "2 queries got NoneType"),
        ("{'q1': [], 'q2': []}", "2 queries got dict"),
        ("[[('a', 1.0)], [('z', 1.0)]]", "query 'q2': document 'z' is not in the corpus"),
        ("[[('a', float('nan'))], []]", "query 'q1': document 'a' has score nan"),
        ("[[('a', float('inf'))], []]", "score inf"),
        ("[[('a', 'high')], []]", "score high"),
        ("[[('a', True)], []]", "score True"),
        ("[[(1, 1.0)], []]", "document id 1 is int, not a string"),
        ("[['a', 'b'], []]", "'a' is not a pair"),
        ("[[('a', 1.0, 2)], []]", "is not a pair"),
        ("[[('a', 1.0), ('a', 0.5)], []]", "'a' is returned twice"),
        ("['ab', []]", "a list of results was expected, not str"),
        ("[7, []]", "a list of results was expected, not int"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_unusable_answers_name_the_query_and_the_fault(
    tmp_path: Path, module: Callable[[str], str], answer: str, problem: str
) -> None:
    name = module(answering(answer))
    with pytest.raises(SearchSystemError, match=problem) as caught:
        Function(f"{name}:search", tmp_path, KNOWN).search(QUERIES, 5)
    assert caught.value.where == f"{name}:search"
    assert caught.value.next_step


def test_a_function_that_is_not_there_is_explained(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    name = module("search = 3\n")
    with pytest.raises(SearchSystemError, match="search is not callable"):
        Function(f"{name}:search", tmp_path)
    with pytest.raises(SearchSystemError, match="has no find"):
        Function(f"{name}:find", tmp_path)
    with pytest.raises(SearchSystemError, match=r"no such module(.|\n)*absent_system\.py"):
        Function("absent_system:search", tmp_path)
    for wrong in ("module", "a.py:search", ":search", "module:", "a b:c"):
        with pytest.raises(ConfigError, match="module:function"):
            Function(wrong, tmp_path)


def test_a_module_that_breaks_on_import_is_told_from_a_missing_one(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    with pytest.raises(
        SearchSystemError,
        match="importing it raised ModuleNotFoundError: No module named 'absent_library'",
    ):
        Function(f"{module('import absent_library')}:search", tmp_path)
    with pytest.raises(SearchSystemError, match="importing it raised SyntaxError"):
        Function(f"{module('def')}:search", tmp_path)


def test_a_module_of_the_same_name_elsewhere_is_not_taken_for_it(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    name = module(answering("[[] for _ in queries]"))
    Function(f"{name}:search", tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / f"{name}.py").write_text(answering("[]"))
    with pytest.raises(SearchSystemError, match="already imported"):
        Function(f"{name}:search", other)


# --- endpoints ---------------------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]


class Endpoint:
    """A real server on localhost; `reply` says what it answers to the nth request for a query."""

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any], int], Answer] = lambda body, n: ok(a=1.0)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    endpoint.requests.append((self.path, dict(self.headers), body))
                    n = sum(seen["id"] == body["id"] for _, _, seen in endpoint.requests)
                status, headers, answer = endpoint.reply(body, n)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                try:
                    if headers.get("X-Drip"):
                        for i in range(len(answer)):
                            self.wfile.write(answer[i : i + 1])
                            self.wfile.flush()
                            time.sleep(0.1)
                    else:
                        self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # the client gave up, as it should

            def log_message(self, format: str, *args: Any) -> None:
                """The test's output stays clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.address}/search"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()


def ok(**scores: Any) -> Answer:
    results = [{"id": doc_id, "score": value} for doc_id, value in scores.items()]
    return 200, {"Content-Type": "application/json"}, json.dumps({"results": results}).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_an_endpoint_is_asked_for_every_query_once(endpoint: Endpoint) -> None:
    steps: list[float] = []

    class Counting(progress.Silent):
        def advance(self, n: float = 1) -> None:
            steps.append(n)

    endpoint.reply = lambda body, n: ok(a=0.5, b=0.5, c=0.7)
    retriever = Http(endpoint.url, known=KNOWN)
    assert isinstance(retriever, Retriever)
    with progress.listen(Counting()):
        run = retriever.search(QUERIES, 2)
    assert list(run.results) == ["q1", "q2"]
    assert run.results["q1"] == [("c", pytest.approx(0.7)), ("b", 0.5)]
    assert sorted((body for _, _, body in endpoint.requests), key=lambda body: body["id"]) == [
        {"id": "q1", "query": "first", "k": 2, "filter": None},
        {"id": "q2", "query": "second", "k": 2, "filter": {"product": "tea"}},
    ]
    assert sum(steps) == 2


def test_answers_are_matched_to_queries_whatever_order_they_arrive_in(endpoint: Endpoint) -> None:
    def reply(body: dict[str, Any], n: int) -> Answer:
        time.sleep(0.005 * (int(body["id"]) % 3))
        return ok(**{f"doc-{body['id']}": 1})

    endpoint.reply = reply
    run = Http(endpoint.url).search([Query(str(i), "x") for i in range(20)], 1)
    assert {query_id: hits[0][0] for query_id, hits in run.results.items()} == {
        str(i): f"doc-{i}" for i in range(20)
    }


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = lambda body, n: (status, {"Retry-After": "0"}, b"busy") if n < 3 else ok(a=1)
    assert Http(endpoint.url).search(QUERIES[:1], 5).results == {"q1": [("a", 1.0)]}
    assert len(endpoint.requests) == 3


def test_patience_has_an_end(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (503, {"Retry-After": "99999"}, b"")
    retriever = Http(endpoint.url)
    retriever.patience = 0.01
    started = time.perf_counter()
    with pytest.raises(
        SearchSystemError, match=r"query 'q1': answered 503 Service Unavailable \(4 attempts\)"
    ):
        retriever.search(QUERIES[:1], 5)
    assert time.perf_counter() - started < 5
    assert len(endpoint.requests) == 4


def test_a_refusal_is_final(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (403, {}, b"no")
    with pytest.raises(SearchSystemError, match="answered 403 Forbidden"):
        Http(endpoint.url).search(QUERIES[:1], 5)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"<html>", "answered '<html>'"),
        (b"[1]", r"answered '\[1\]'"),
        (b'{"results": 3}', "answered"),
        (b'{"results": [{"id": "a"}]}', "answered"),
        (b"\xff\xfe", "answered"),
        (b"[" * 100_000, "answered"),
        (b'{"results": [{"id": "a", "score": NaN}]}', "document 'a' has score nan"),
        (b'{"results": [{"id": "a", "score": 1e999}]}', "document 'a' has score inf"),
        (b'{"results": [{"id": "a", "score": null}]}', "document 'a' has score None"),
        (b'{"results": [{"id": "z", "score": 1}]}', "document 'z' is not in the corpus"),
        (b'{"results": [{"id": 7, "score": 1}]}', "document id 7 is int"),
    ],
)
def test_unusable_endpoint_answers_name_the_query(
    endpoint: Endpoint, answer: bytes, problem: str
) -> None:
    endpoint.reply = lambda body, n: (200, {}, answer)
    with pytest.raises(SearchSystemError, match=f"query 'q1': .*{problem}") as caught:
        Http(endpoint.url, known=KNOWN).search(QUERIES[:1], 5)
    assert caught.value.where == endpoint.url


def test_a_slow_endpoint_is_given_up_after_the_timeout(endpoint: Endpoint) -> None:
    def hang(body: dict[str, Any], n: int) -> Answer:
        time.sleep(0.6)
        return ok(a=1)

    endpoint.reply = hang
    with pytest.raises(SearchSystemError, match=r"did not answer within 0\.2 s"):
        Http(endpoint.url, timeout=0.2).search(QUERIES[:1], 5)
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_drips_is_given_up_too(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (200, {"X-Drip": "1"}, b" " * 50)
    started = time.perf_counter()
    with pytest.raises(SearchSystemError, match=r"did not answer within 0\.3 s"):
        Http(endpoint.url, timeout=0.3).search(QUERIES[:1], 5)
    assert time.perf_counter() - started < 3


def test_an_answer_without_end_is_not_read_to_it(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (200, {}, b" " * 3_000_000)
    retriever = Http(endpoint.url)
    retriever.largest_answer = 1_000_000
    with pytest.raises(SearchSystemError, match="larger than 1 MB"):
        retriever.search(QUERIES[:1], 5)


def test_a_redirect_is_not_followed(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (302, {"Location": endpoint.url}, b"")
    with pytest.raises(SearchSystemError, match="answered 302"):
        Http(endpoint.url).search(QUERIES[:1], 5)
    assert len(endpoint.requests) == 1


def test_nobody_listening_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Http, "patience", 0.0)
    with pytest.raises(SearchSystemError, match=r"ConnectionRefusedError.*4 attempts") as caught:
        Http("http://127.0.0.1:9/search").search(QUERIES[:1], 5)
    assert "is up" in str(caught.value)


def test_credentials_are_sent_and_never_shown(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (401, {}, b"") if body["id"] == "q2" else ok(a=1)
    retriever = Http(f"http://user:s%40cret@{endpoint.address}/search?key=hidden#part")
    assert retriever.search(QUERIES[:1], 5).top("q1", 1) == ["a"]
    path, headers, _ = endpoint.requests[0]
    assert path == "/search?key=hidden"
    assert headers["Authorization"] == "Basic dXNlcjpzQGNyZXQ="
    with pytest.raises(SearchSystemError) as caught:
        retriever.search(QUERIES, 5)
    assert caught.value.where == endpoint.url
    assert not any(secret in str(caught.value) for secret in ("user", "cret", "hidden"))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "localhost:8000",
        "http://",
        "http://host:99999/",
        "",
        "http://[::1",
    ],
)
def test_only_http_addresses_are_accepted(url: str) -> None:
    with pytest.raises(ConfigError, match="http or https"):
        Http(url)


def test_the_first_fault_stops_the_rest(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body, n: (403, {}, b"")
    with pytest.raises(SearchSystemError, match="query '0'"):
        Http(endpoint.url, workers=2).search([Query(str(i), "x") for i in range(500)], 5)
    assert len(endpoint.requests) < 400
