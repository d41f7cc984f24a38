"""The page of review: its API, and the page itself in a real browser."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from markupsafe import escape
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.testclient import TestClient
from typer.testing import CliRunner

from conftest import WriteProject
from nearer.cli import app
from nearer.review.consensus import settled_grades
from nearer.review.judgments import GRADE, JudgmentLog
from nearer.review.pairs import DISAGREEMENT, UNJUDGED
from nearer.review.reviewers import Reviewers
from nearer.review.session import Review
from nearer.review.web.app import address, create_app, listening
from nearer.review.web.page import marked
from nearer.review.web.page import page as page_of
from nearer.workspace import Workspace
from review_kit import HOSTILE, checked, graded, grouped_project, workspace
from test_dashboard import FLAGS


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, write_project: WriteProject, small_data: Path
) -> Path:
    """A project in which every document and every query tries to take over the page."""
    data = Path(shutil.copytree(small_data, tmp_path_factory.mktemp("data") / "hostile"))
    for name in ("corpus.jsonl", "queries.jsonl"):
        lines = [json.loads(line) for line in (data / name).read_text().splitlines()]
        for line in lines:
            line["text"] = f"{line['text'][:300]} {HOSTILE} <img src=x onerror=alert(1)>"
        (data / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    path = write_project(tmp_path_factory.mktemp("page") / "project", data={"folder": str(data)})
    checked(path)
    return path.parent


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture
def opened(root: Path) -> Workspace:
    return workspace(root / "nearer.yaml")


GOOD: dict[str, Any] = {"id": "id-000001", "action": "grade", "grade": 1}


class Caller:
    """One reviewer who talks to the API."""

    def __init__(self, client: Any, token: str) -> None:
        self.client, self.headers = client, {"Authorization": f"Bearer {token}"}

    def next(self) -> dict[str, Any]:
        answer = self.client.get("/api/next", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def send(self, path: str, **body: Any) -> Any:
        return self.client.post(f"/api/{path}", json=body, headers=self.headers)

    def grade(self, pair: str, grade: Any, **more: Any) -> Any:
        values = {"id": f"id-{pair}-{len(more)}", "pair": pair, "action": "grade", "grade": grade}
        return self.send("judge", **{**values, **more})


@pytest.fixture
def client(opened: Workspace) -> Iterator[TestClient]:
    return TestClient(create_app(Review(opened.project, choose=True)))


@pytest.fixture
def anna(root: Path, client: TestClient) -> Caller:
    return Caller(client, Reviewers(root).invite("anna", 30)[1])


# -- the API ---------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_told(client: TestClient, root: Path, anna: Caller) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": anna.headers["Authorization"].replace("Bearer", "Basic")},
        {"Cookie": anna.headers["Authorization"].replace("Bearer ", "token=")},
    ):
        for path in ("/api/next", "/api/outlook"):
            assert client.get(path, headers=headers).status_code == 401
        for path in ("/api/judge", "/api/undo"):
            assert client.post(path, json={"id": "12345678"}, headers=headers).status_code == 401
    assert anna.next()["pair"]
    assert not (root / "review" / "judgments.jsonl").exists()


def test_an_expired_token_is_refused_with_what_to_do(client: TestClient, root: Path) -> None:
    people = Reviewers(root)
    _, token = people.invite("late", 1)
    path = root / "review" / "reviewers.json"
    values = json.loads(path.read_text())
    values["reviewers"][0]["expires"] = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    path.write_text(json.dumps(values))
    answer = client.get("/api/next", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert "expired" in answer.json()["what"]
    assert answer.json()["next"] == "nearer review invite late"


def test_the_api_tells_no_system_no_rank_and_no_reason(
    client: TestClient, opened: Workspace, anna: Caller
) -> None:
    texts = list(page_of(GRADE))
    for number in range(40):
        value = anna.next()
        texts.append(json.dumps(value))
        assert set(value) == {
            "reviewer", "progress", "pair", "html", "adjudicate", "can_undo",
        }  # fmt: skip
        anna.grade(value["pair"], number % 4)
    texts.append(client.get("/api/outlook", headers=anna.headers).text)
    pairs = Review(opened.project).pairs
    told = "\n".join(texts)
    names = ("fine-tuned", "bm25", DISAGREEMENT, UNJUDGED)
    assert not [name for name in names if name in told]
    ids = [pair.doc_id for pair in pairs] + [pair.query_id for pair in pairs]
    quoted = [f'"{name}"' for name in ids]
    assert not [name for name in quoted if name in told]


def test_a_test_query_is_shown_without_training_data(opened: Workspace, anna: Caller) -> None:
    train = {str(escape(query.text)) for query in opened.project.split("train").queries}
    shown = []
    for _ in range(30):
        value = anna.next()
        shown.append(value["html"])
        anna.grade(value["pair"], 0)
    review = Review(opened.project)
    asked = {review.by_subject[s].split for s in review.log.judgments.by_subject}
    assert "decision" in asked
    for html in shown:
        query = html.split('<h1 id="query" dir="auto">')[1].split("</h1>")[0]
        assert query not in train
        assert html.count("<article") == 1  # one document, which is asked about


def test_documents_and_queries_are_escaped(anna: Caller) -> None:
    html = anna.next()["html"]
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html.replace("<mark>", "").replace("</mark>", "")


def test_words_of_the_query_are_marked_and_nothing_else() -> None:
    text = marked("The <b>Buffer</b> overflow & buffers", frozenset({"buffer"}))
    assert str(text) == "The &lt;b&gt;<mark>Buffer</mark>&lt;/b&gt; overflow &amp; buffers"
    assert str(marked("", frozenset({"a"}))) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"grade": 4},
        {"grade": -1},
        {"grade": True},
        {"grade": "2"},
        {"grade": None},
        {"action": "adjudicate"},
        {"action": "undo"},
        {"action": 3},
        {"id": "short"},
        {"id": ["x"]},
        {"id": "../../../../etc/passwd"},
        {"comment": 7},
        {"comment": "x" * 2001},
        {"seconds": "fast"},
        {"seconds": -1},
        {"seconds": 1e300},
    ],
)
def test_bodies_that_are_no_judgment_are_refused(
    anna: Caller, root: Path, change: dict[str, Any]
) -> None:
    pair = anna.next()["pair"]
    answer = anna.send("judge", **{**GOOD, "pair": pair, **change})
    assert answer.status_code == 422
    assert answer.json()["what"]
    assert not (root / "review" / "judgments.jsonl").exists()


def test_bodies_that_are_too_large_or_no_json_are_refused(anna: Caller) -> None:
    post, headers = anna.client.post, anna.headers
    big = json.dumps({"comment": "x" * 20_000})
    kind = {"Content-Type": "application/json"}
    assert post("/api/judge", content=big, headers=headers | kind).status_code == 413
    assert post("/api/judge", content="{", headers=headers | kind).status_code == 400
    assert post("/api/judge", content="[1]", headers=headers | kind).status_code == 422
    # what another site's form can send
    for form in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = post("/api/judge", content="{}", headers=headers | {"Content-Type": form})
        assert answer.status_code == 415
    assert anna.send("judge", id="12345678", pair="0" * 20, action="skip").status_code == 404


def test_a_second_grade_is_refused_and_the_same_one_sent_again_is_not(
    anna: Caller, opened: Workspace
) -> None:
    pair = anna.next()["pair"]
    assert anna.grade(pair, 2).status_code == 200
    assert anna.grade(pair, 2).status_code == 200  # the answer was lost, and it was sent again
    answer = anna.grade(pair, 1, comment="changed my mind")
    assert answer.status_code == 409
    assert "undo" in answer.json()["what"]
    log = JudgmentLog(opened.root / "review" / "judgments.jsonl")
    assert next(iter(log.judgments.by_subject.values()))["anna"].grade == 2
    assert log.judgments.repeated == 0


def test_undo_brings_the_pair_back(anna: Caller, opened: Workspace) -> None:
    first = anna.next()
    assert first["can_undo"] is False
    assert anna.send("undo", id="undo-0000").status_code == 409
    anna.grade(first["pair"], 2)
    assert anna.next()["can_undo"] is True
    assert anna.send("undo", id="undo-0001").status_code == 200
    assert anna.send("undo", id="undo-0001").status_code == 200  # sent again: one undo
    assert anna.next()["pair"] == first["pair"]
    assert anna.grade(first["pair"], 0, comment="x").status_code == 200


def test_what_one_could_not_send_is_not_saved_as_the_next_reviewers(
    anna: Caller, client: TestClient, root: Path
) -> None:
    ben = Caller(client, Reviewers(root).invite("ben", 30)[1])
    pair = anna.next()["pair"]
    answer = ben.grade(pair, 2, by="anna")
    assert answer.status_code == 409
    assert "judgment of anna" in answer.json()["what"]
    assert ben.send("undo", id="undo-0002", by="anna").status_code == 409
    assert anna.grade(pair, 2, by="anna").status_code == 200


def test_what_reviewers_disagree_on_goes_to_the_adjudicator(
    anna: Caller, client: TestClient, opened: Workspace
) -> None:
    chief = Caller(client, Reviewers(opened.root).invite("chief", 30, adjudicates=True)[1])
    review = Review(opened.project)
    pair = review.pairs[5]
    review.add([graded(*pair.subject, "ben", 0), graded(*pair.subject, "eve", 3)])
    value = chief.next()
    assert value["adjudicate"] is True
    assert value["pair"] == review.desk.id_of(pair)
    assert chief.grade(value["pair"], 3).status_code == 200
    assert chief.next()["adjudicate"] is False
    review.log.refresh()
    assert settled_grades(review.log.judgments)[pair.subject] == 3


def test_a_port_that_is_taken_is_named_with_what_to_do(root: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        words = ["review", "serve", "-c", str(root / "nearer.yaml"), "--port", port]
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.output
    assert "--port 0" in result.output


def test_an_address_with_colons_stands_in_brackets() -> None:
    assert address("::1", 8078) == "[::1]:8078"
    with listening("127.0.0.1", 0) as bound:
        assert bound.getsockname()[1] > 0


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    assert path, "this test needs a browser: apt-get install chromium"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=FLAGS) as started,
    ):
        yield started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(root: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [
        "-m",
        "nearer",
        "review",
        "serve",
        "-c",
        str(root / "nearer.yaml"),
        "--port",
        str(port),
        *options,
    ]
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            for _ in range(600):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, (process.stderr or sys.stdin).read()
                    time.sleep(0.1)
            yield process
        finally:
            process.kill()


def press(page: Page, key: str, judged: int) -> None:
    """Press a key, and wait until that many judgments by this reviewer are shown."""
    page.keyboard.press(key)
    expect(page.locator("#count")).to_contain_text(f"{judged} by you", timeout=30_000)


@pytest.mark.long
def test_thirty_pairs_by_keyboard_with_a_reload_and_a_killed_server_between(
    root: Path, browser: Browser
) -> None:
    _, token = Reviewers(root).invite("anna", 30)
    _, other = Reviewers(root).invite("ben", 30)
    port, problems = free_port(), []
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    address = f"http://127.0.0.1:{port}/"
    with serving(root, port) as process:
        page.goto(f"{address}#{token}")
        expect(page.locator("#count")).to_contain_text("0 by you", timeout=30_000)
        assert token not in page.url
        for number in range(10):
            press(page, str(number % 4), number + 1)
        page.reload()
        expect(page.locator("#count")).to_contain_text("10 by you", timeout=30_000)
        before = page.inner_text("#pair")
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.keyboard.press("2")
        expect(page.locator("#note")).to_contain_text("Not saved yet", timeout=30_000)
    with serving(root, port):
        expect(page.locator("#count")).to_contain_text("11 by you", timeout=30_000)
        assert page.inner_text("#pair") != before
        second = browser.new_context().new_page()  # another reviewer, at the same time
        second.goto(f"{address}#{other}")
        for number in range(11, 30):
            press(page, str(number % 4), number + 1)
            press(second, str(number % 4), number - 10)
        page.keyboard.press("u")
        expect(page.locator("#count")).to_contain_text("29 by you", timeout=30_000)
        page.fill("#comment", "0123 tsu")  # no key of the page while somebody writes
        assert "29 by you" in page.inner_text("#count")
        page.keyboard.press("Escape")
        press(page, "3", 30)
        assert page.title() == "Review · nearer"  # no script of a document ran
        second.close()
    log = JudgmentLog(root / "review" / "judgments.jsonl")
    by_anna = [e for names in log.judgments.by_subject.values() for e in names.values()]
    assert sum(entry.reviewer == "anna" for entry in by_anna) == 30
    assert sum(entry.reviewer == "ben" for entry in by_anna) == 19
    assert (log.judgments.repeated, log.faults) == (0, [])
    assert any(entry.comment == "0123 tsu" for entry in by_anna)
    assert all(entry.seconds is not None for entry in by_anna)
    assert problems == []
    context.close()


def test_agreement_is_shown_and_a_phone_is_wide_enough(
    root: Path, opened: Workspace, browser: Browser
) -> None:
    people = Reviewers(root)
    _, token = people.invite("anna", 30)
    review = Review(opened.project, choose=True)
    for number, pair in enumerate(review.pairs[:12]):
        for name in ("ben", "eve"):
            review.add([graded(*pair.subject, name, number % 3)])
    port = free_port()
    context = browser.new_context(viewport={"width": 390, "height": 720}, has_touch=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serving(root, port):
        page.goto(f"http://127.0.0.1:{port}/")
        page.fill("#token", "wrong")
        page.click("#enter button")
        expect(page.locator("#refused")).to_contain_text("no token of a reviewer")
        page.fill("#token", token)
        page.click("#enter button")
        expect(page.locator("#agreement")).to_contain_text("1.00", timeout=60_000)
        expect(page.locator("#outlook")).not_to_be_empty()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for name in ("0", "1", "2", "3"):
            box = page.locator(f"[data-grade='{name}']").bounding_box()
            assert box is not None
            assert box["height"] >= 44  # a finger
        page.tap("[data-grade='2']")
        expect(page.locator("#count")).to_contain_text("1 by you", timeout=30_000)
        assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)
    context.close()


def test_odd_ones_are_picked_by_keyboard_and_by_finger_with_a_killed_server_between(
    tmp_path: Path, write_project: WriteProject, browser: Browser
) -> None:
    root = grouped_project(write_project(tmp_path / "groups")).root
    _, token = Reviewers(root).invite("anna", 30)
    port, problems = free_port(), []
    context = browser.new_context(viewport={"width": 390, "height": 720}, has_touch=True)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    address = f"http://127.0.0.1:{port}/"
    with serving(root, port, "--odd-one-out") as process:
        page.goto(f"{address}#{token}")
        expect(page.locator("#count")).to_contain_text("0 by you", timeout=30_000)
        assert page.locator("article").count() == 3
        for number in range(6):
            press(page, str(number % 3 + 1), number + 1)
        page.keyboard.press("0")  # no key of this page
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        box = page.locator("[data-pick='3']").bounding_box()
        assert box is not None
        assert box["height"] >= 44  # a finger
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.fill("#comment", "123 tsu")  # no key of the page while somebody writes
        page.tap("[data-pick='3']")
        expect(page.locator("#note")).to_contain_text("Not saved yet", timeout=30_000)
    with serving(root, port, "--odd-one-out"):
        expect(page.locator("#count")).to_contain_text("7 by you", timeout=30_000)
        page.keyboard.press("u")
        expect(page.locator("#count")).to_contain_text("6 by you", timeout=30_000)
        press(page, "t", 7)
        assert page.title() == "Review · nearer"  # no script of a document ran
    log = JudgmentLog(root / "review" / "odd_one_out.jsonl")
    standing = [said["anna"] for said in log.judgments.by_subject.values()]
    assert sorted(entry.action for entry in standing) == ["cannot_tell", *["pick"] * 6]
    assert any(entry.comment == "123 tsu" for entry in log.judgments.by_id.values())
    assert (log.judgments.repeated, log.faults) == (0, [])
    assert all(url.startswith(address) for url in requested)
    assert problems == []
    context.close()
