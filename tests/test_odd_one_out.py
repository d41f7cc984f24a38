"""Odd one out: which questions are drawn, what answers say, how they are kept, and the page's API."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from conftest import WriteProject
from nearer.cli import app
from nearer.errors import DataError
from nearer.report import markdown, page
from nearer.report.data import ReportData, read_reviews
from nearer.report.facts import facts
from nearer.review.asking import Action
from nearer.review.judgments import CANNOT_TELL, PICK, SKIP, JudgmentLog
from nearer.review.odd_one_out import OddOneOut
from nearer.review.reviewers import Reviewer, Reviewers
from nearer.review.session import Review
from nearer.review.web.app import create_app
from nearer.tasks.cluster.odd_one_out import (
    CHANCE,
    LEAST,
    Answer,
    Question,
    Share,
    draw_questions,
    share_of,
)
from nearer.workspace import Workspace
from review_kit import by_kind, graded, grouped_project, regroup
from test_report import decision
from test_review_page import Caller

Pick = Callable[[Question, int], str]


def questions(n: int = 60, seed: int = 7, documents: int = 400) -> list[Question]:
    return draw_questions(by_kind(documents), "project", n, seed)


# -- which questions -------------------------------------------------------------------------------


def test_two_documents_are_of_one_cluster_and_the_odd_one_is_of_another() -> None:
    groups = by_kind(400)
    drawn = questions()
    for grouping, cluster_of in groups.items():
        own = [question for question in drawn if grouping in question.odd]
        assert len(own) == 60
        for question in own:
            odd = question.odd[grouping]
            first, second = (doc_id for doc_id in question.documents if doc_id != odd)
            assert cluster_of[first] == cluster_of[second] != cluster_of[odd]


def test_documents_are_asked_about_once_while_others_are_left() -> None:
    for grouping in ("today", "fine-tuned"):
        asked: Counter[str] = Counter()
        for question in questions():
            if grouping in question.odd:
                asked.update(question.documents)
        assert set(asked.values()) == {1}


def test_the_odd_one_stands_at_each_place_and_the_groupings_take_turns() -> None:
    drawn = questions()
    places = Counter(q.documents.index(next(iter(q.odd.values()))) for q in drawn)
    assert set(places) == {0, 1, 2}
    assert min(places.values()) > len(drawn) / 6
    assert [*drawn[0].odd, *drawn[1].odd] == ["today", "fine-tuned"]


def test_questions_about_todays_model_stay_when_another_is_trained() -> None:
    before = [question for question in questions() if "today" in question.odd]
    groups = by_kind(400)
    groups["fine-tuned"] = {doc_id: 1 - cluster % 2 for doc_id, cluster in groups["today"].items()}
    after = draw_questions(groups, "project", 60, 7)
    assert {q.id for q in before} == {q.id for q in after if "today" in q.odd}
    assert {q.id for q in before} != {q.id for q in questions(seed=8) if "today" in q.odd}
    assert not {q.id for q in before} & {q.id for q in draw_questions(groups, "other", 60, 7)}


def test_documents_of_no_cluster_are_not_asked_about_and_a_few_give_what_they_can() -> None:
    groups = {"today": {"a": 0, "b": 0, "c": 1, "noise": -1, "more": -1}}
    (only,) = draw_questions(groups, "project", 60, 7)
    assert set(only.documents) == {"a", "b", "c"}
    assert only.odd == {"today": "c"}


def test_a_question_that_two_groupings_ask_counts_for_both() -> None:
    groups = {"today": {"a": 0, "b": 0, "c": 1}, "fine-tuned": {"a": 0, "b": 1, "c": 1}}
    (only,) = draw_questions(groups, "project", 60, 7)
    assert only.odd == {"today": "c", "fine-tuned": "a"}
    answers = [Answer(only, "c")] * LEAST
    means = [_mean(share_of(name, [only], answers)) for name in groups]
    assert means == [1.0, 0.0]


@pytest.mark.parametrize(
    ("clusters", "reason"),
    [
        ({"a": 0, "b": 0, "c": 0}, "fine-tuned has one cluster"),
        ({"a": -1, "b": 3, "c": 3}, "fine-tuned has one cluster"),
        ({"a": -1, "b": -1}, "fine-tuned has no cluster"),
        ({}, "fine-tuned has no cluster"),
        ({"a": 0, "b": 1, "c": 2}, "no cluster of fine-tuned has two documents"),
    ],
)
def test_a_grouping_that_tells_nothing_apart_is_refused(
    clusters: dict[str, int], reason: str
) -> None:
    groups = {"today": {"a": 0, "b": 0, "c": 1}, "fine-tuned": clusters}
    with pytest.raises(DataError, match=reason):
        draw_questions(groups, "project", 60, 7)


# -- what answers say ------------------------------------------------------------------------------


def answered(n: int, pick: Pick) -> Share:
    """The share of the fine-tuned grouping where somebody answers its questions this way."""
    asked = [q for q in questions(n=n, documents=3 * n + 60) if "fine-tuned" in q.odd]
    answers = [Answer(question, pick(question, row)) for row, question in enumerate(asked)]
    return share_of("fine-tuned", asked, answers)


def odd_of(question: Question, row: int = 0) -> str:
    return question.odd["fine-tuned"]


def _mean(share: Share) -> float:
    assert share.interval is not None
    return share.interval.mean


def test_people_who_always_see_the_groups_are_above_chance() -> None:
    share = answered(60, odd_of)
    assert share.interval is not None
    assert share.interval.mean == share.interval.high == 1.0
    assert share.interval.low > CHANCE
    assert share.against_chance == "above chance"
    assert "100% of 60 answers" in share.sentence


def test_people_who_guess_are_not_told_from_chance() -> None:
    rng = np.random.default_rng(11)
    share = answered(300, lambda question, _: question.documents[int(rng.integers(3))])
    assert share.interval is not None
    assert share.interval.low < CHANCE < share.interval.high
    assert share.against_chance == "not told from chance"


def test_people_who_never_see_the_groups_are_below_chance() -> None:
    def another(question: Question, _: int) -> str:
        return next(doc_id for doc_id in question.documents if doc_id != odd_of(question))

    share = answered(60, another)
    assert _mean(share) == 0.0
    assert share.against_chance == "below chance"


def test_below_thirty_answers_nothing_is_said_but_how_many_are_missing() -> None:
    share = answered(LEAST - 1, odd_of)
    assert share.interval is None
    assert share.more == 1
    assert share.as_dict()["share"] is share.as_dict()["ci"] is None
    assert share.sentence == (
        "fine-tuned: cannot say yet; 1 more answer needed (its documents give 29 questions)"
    )


def test_those_who_cannot_tell_are_counted_and_take_no_side() -> None:
    asked = [q for q in questions() if "fine-tuned" in q.odd]
    answers = [Answer(question, odd_of(question)) for question in asked[:LEAST]]
    share = share_of("fine-tuned", asked, [*answers, Answer(asked[-1], None)])
    assert (share.answers, share.cannot_tell, _mean(share)) == (LEAST, 1, 1.0)


def test_answers_that_share_a_document_are_no_independent_evidence() -> None:
    asked = [q for q in questions() if "fine-tuned" in q.odd][:40]
    apart = share_of("fine-tuned", asked, [Answer(q, odd_of(q)) for q in asked])
    same = share_of("fine-tuned", asked, [Answer(asked[0], odd_of(asked[0]))] * 40)
    twice = share_of("fine-tuned", asked, [Answer(q, odd_of(q)) for q in (*asked[:20],) * 2])
    lows = [share.interval.low for share in (same, twice, apart) if share.interval is not None]
    assert lows == sorted(lows)
    assert len(set(lows)) == 3
    assert same.against_chance == "not told from chance"


# -- a project -------------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path: Path, write_project: WriteProject) -> Workspace:
    return grouped_project(write_project(tmp_path / "project"))


ANNA = Reviewer("anna", "", None)  # type: ignore[arg-type]


def answer_all(review: OddOneOut) -> None:
    """Anna sees the groups of the fine-tuned model, and picks the first document elsewhere."""
    entries = []
    for number, question in enumerate(review.questions):
        odd = question.odd.get("fine-tuned", question.documents[0])
        action = Action(f"answer-{number}", PICK, picked=question.documents.index(odd) + 1)
        entries.append(review.entry(ANNA, question, PICK, action))
    review.add(entries)


def test_answers_are_kept_with_who_and_when_and_read_back(opened: Workspace) -> None:
    review = OddOneOut(opened.project)
    first, second, third = review.questions[:3]
    review.judge(ANNA, first, Action("answer-1", PICK, picked=2, comment="odd", seconds=3.5))
    review.judge(ANNA, second, Action("answer-2", CANNOT_TELL))
    review.judge(ANNA, third, Action("answer-3", SKIP))
    lines = [json.loads(line) for line in review.log.path.read_text().splitlines()]
    assert lines[0]["reviewer"] == "anna"
    assert lines[0]["time"]
    assert lines[0]["documents"] == list(first.documents)
    assert lines[0]["picked"] == first.documents[1]
    assert (lines[0]["comment"], lines[0]["seconds"]) == ("odd", 3.5)
    again = OddOneOut(opened.project)
    assert [answer.picked for answer in again.answers()] == [first.documents[1], None]
    assert again.log.warnings() == []


def test_an_answer_counts_once_until_it_is_taken_back(opened: Workspace) -> None:
    review = OddOneOut(opened.project)
    question = review.questions[0]
    review.judge(ANNA, question, Action("answer-1", PICK, picked=1))
    review.judge(ANNA, question, Action("answer-1", PICK, picked=1))  # sent again
    with pytest.raises(DataError, match="under this id"):
        review.judge(ANNA, question, Action("answer-1", PICK, picked=2))
    with pytest.raises(DataError, match="undo that first"):
        review.judge(ANNA, question, Action("answer-2", PICK, picked=2))
    assert review.undo(ANNA, "undo-0001") is not None
    assert review.answers() == []
    review.judge(ANNA, question, Action("answer-3", PICK, picked=3))
    again = OddOneOut(opened.project)
    assert [answer.picked for answer in again.answers()] == [question.documents[2]]


def test_lines_that_are_cut_or_no_answer_are_left_out_and_named(opened: Workspace) -> None:
    review = OddOneOut(opened.project)
    answer_all(review)
    count = len(review.answers())
    line = json.loads(review.log.path.read_text().splitlines()[0]) | {"id": "another-1"}
    wrong: list[dict[str, Any]] = [
        line | {"picked": "d-unknown"},
        line | {"documents": ["d1", "d2"]},
        line | {"documents": ["d1", "d1", "d2"]},
        line | {"documents": "d1 d2 d3"},
        line | {"documents": [1, 2, 3]},
        {key: value for key, value in line.items() if key != "documents"},
    ]
    with open(review.log.path, "a", encoding="utf-8") as handle:
        handle.writelines(f"{json.dumps(values)}\n" for values in wrong)
        handle.write('{"id": "answer-9')
    again = OddOneOut(opened.project)
    assert len(again.answers()) == count
    assert len(again.log.faults) == len(wrong)
    assert again.log.cut


def test_the_pairs_of_the_project_know_nothing_of_these_answers(opened: Workspace) -> None:
    answer_all(OddOneOut(opened.project))
    assert Review(opened.project).summary()["judgments"] == 0
    assert not (opened.root / "review" / "qrels.tsv").exists()


def test_a_log_of_another_project_is_refused_by_name(
    opened: Workspace, tmp_path: Path, write_project: WriteProject
) -> None:
    review = OddOneOut(opened.project)
    answer_all(review)
    other = grouped_project(write_project(tmp_path / "other"))
    (other.root / "review").mkdir(exist_ok=True)
    shutil.copy(review.log.path, other.root / "review")
    with pytest.raises(DataError, match="no question of this project"):
        OddOneOut(other.project)
    text = review.log.path.read_text().replace('"d1"', '"elsewhere"')
    review.log.path.write_text(text)
    with pytest.raises(DataError, match="the corpus has no document 'elsewhere'"):
        OddOneOut(opened.project)


def test_judgments_of_pairs_are_no_answers(opened: Workspace) -> None:
    path = opened.root / "review" / "odd_one_out.jsonl"
    JudgmentLog(path).append([graded("q1", "d1", "anna", 1)])
    with pytest.raises(DataError, match="no question of this project"):
        OddOneOut(opened.project)


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ({"today": {"d1": 0, "d2": 0, "gone": 1}}, "document 'gone', grouped by today"),
        ({"today": {f"d{n}": 0 for n in range(60)}}, "today has one cluster"),
        ({"today": {"d1": "0"}}, "do not say the cluster of each document"),
        ({"today": ["d1"]}, "do not say the cluster of each document"),
        (["d1"], "do not say the cluster of each document"),
        ({}, "no groups to ask about yet"),
    ],
)
def test_groups_that_cannot_be_asked_about_are_refused(
    opened: Workspace, groups: Any, reason: str
) -> None:
    regroup(opened.root, groups)
    words = ["review", "serve", "--odd-one-out", "-c", str(opened.root / "nearer.yaml")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert reason in " ".join(result.output.split())


def test_answers_about_earlier_groups_stay_and_do_not_count(opened: Workspace) -> None:
    answer_all(OddOneOut(opened.project))
    groups = by_kind()
    groups["fine-tuned"] = {doc_id: int(doc_id[1:]) // 30 for doc_id in groups["today"]}
    regroup(opened.root, groups)
    values = OddOneOut(opened.project).summary()
    by_name = {row["grouping"]: row for row in values["groupings"]}
    assert values["earlier"] > 0
    assert by_name["today"]["share"] is not None
    assert by_name["fine-tuned"]["against_chance"] == "cannot say yet"
    assert by_name["fine-tuned"]["answers"] < LEAST


# -- what is shown of it ---------------------------------------------------------------------------


def status(opened: Workspace, *words: str) -> str:
    path = str(opened.root / "nearer.yaml")
    result = CliRunner().invoke(app, ["review", "status", "-c", path, *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_status_says_what_people_saw_and_as_json(opened: Workspace) -> None:
    assert "today: cannot say yet; 30 more answers needed" in status(opened)
    review = OddOneOut(opened.project)
    answer_all(review)
    told = json.loads(status(opened, "--json"))["odd_one_out"]
    rows = {row["grouping"]: row for row in told["groupings"]}
    assert told["reviewers"] == {"anna": len(review.questions)}
    assert rows["fine-tuned"]["share"] == 1.0
    assert rows["fine-tuned"]["ci"][0] > CHANCE
    assert rows["today"]["share"] < 1.0
    text = status(opened)
    assert "fine-tuned: the odd one was picked in 100% of" in text
    assert "they are shown and decide nothing" in text
    regroup(opened.root, {"today": {f"d{number}": 0 for number in range(60)}})
    assert "today has one cluster" in status(opened)


def reported(opened: Workspace) -> ReportData:
    folder = opened.root / "runs" / "default" / "decide"
    (folder / "decision.json").write_text(json.dumps(decision()))
    reviews = read_reviews(opened.root / "review", folder / "decision.json")
    task = json.loads((folder / "task.json").read_text())
    return ReportData(run="default", decision=decision(), task=task, reviews=reviews)


def test_the_report_shows_the_answers_in_the_section_of_clusters(opened: Workspace) -> None:
    assert "Odd one out" not in page.render(reported(opened))
    answer_all(OddOneOut(opened.project))
    data = reported(opened)
    html = page.render(data)
    assert "Odd one out: do people see these groups?" in html
    assert "no guardrail rests on it" in html
    rows = {row["grouping"]: row for row in facts(data)["task"]["odd_one_out"]}
    assert rows["fine-tuned"]["share"] == 1.0
    assert rows["fine-tuned"]["against_chance"] == "above chance"
    told = markdown.render(data)
    assert "Odd one out, by people. today: the odd one was picked in" in told
    assert "fine-tuned: the odd one was picked in 100% of" in told


def test_the_report_does_not_show_answers_about_earlier_groups(opened: Workspace) -> None:
    answer_all(OddOneOut(opened.project))
    regroup(opened.root, {"today": by_kind()["fine-tuned"]})
    html = page.render(reported(opened))
    assert "about earlier groups and is not shown" in html
    assert "do people see these groups" not in html


def test_names_of_groupings_stay_text_in_the_report(opened: Workspace) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    regroup(opened.root, {hostile: by_kind()["fine-tuned"]})
    answer_all(OddOneOut(opened.project))
    data = reported(opened)
    assert "<img" not in page.render(data)
    assert "<img" not in markdown.render(data)
    assert "&lt;img" in page.render(data)


# -- the page's API --------------------------------------------------------------------------------


@pytest.fixture
def anna(opened: Workspace) -> Caller:
    client = TestClient(create_app(OddOneOut(opened.project)))
    return Caller(client, Reviewers(opened.root).invite("anna", 30)[1])


def test_the_page_shows_three_documents_and_nothing_of_their_clusters(
    anna: Caller, opened: Workspace
) -> None:
    empty = anna.client.get("/").text
    assert "Which document does not belong with the other two?" in empty
    assert 'data-grade="' not in empty.split("<script>")[0]
    told = []
    for number in range(20):
        value = anna.next()
        assert value["html"].count("<article") == 3
        assert "<script" not in value["html"]
        told.append(json.dumps(value))
        body = {"pair": value["pair"], "action": "pick", "picked": number % 3 + 1}
        assert anna.send("judge", id=f"answer-{number:04}", **body).status_code == 200
    told.append(anna.client.get("/api/outlook", headers=anna.headers).text)
    for text in told:
        for word in ("today", "fine-tuned", "secret-", '"d1', "odd_one", "cluster"):
            assert word not in text
    assert len(OddOneOut(opened.project).answers()) == 20
    assert anna.next()["progress"]["own"] == 20


def test_without_a_token_no_question_is_told(anna: Caller) -> None:
    assert anna.client.get("/api/next").status_code == 401
    assert anna.client.post("/api/judge", json={"id": "12345678"}).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"picked": 0},
        {"picked": 4},
        {"picked": True},
        {"picked": "1"},
        {"picked": 1.0},
        {"picked": None},
        {"action": "grade", "grade": 1},
        {"comment": "x" * 2001},
    ],
)
def test_bodies_that_are_no_answer_are_refused(
    anna: Caller, opened: Workspace, change: dict[str, Any]
) -> None:
    body = {"id": "answer-1", "pair": anna.next()["pair"], "action": "pick", "picked": 1}
    assert anna.send("judge", **{**body, **change}).status_code == 422
    assert not (opened.root / "review" / "odd_one_out.jsonl").exists()
    assert anna.send("judge", **{**body, "comment": "x" * 20_000}).status_code == 413


def test_a_pick_is_no_judgment_of_a_pair(opened: Workspace) -> None:
    client = TestClient(create_app(Review(opened.project)))
    caller = Caller(client, Reviewers(opened.root).invite("anna", 30)[1])
    body = {"id": "answer-1", "pair": "0" * 20, "action": "pick", "picked": 1}
    assert caller.send("judge", **body).status_code in (404, 422)


def test_undo_skip_and_cannot_tell_as_for_pairs(anna: Caller, opened: Workspace) -> None:
    first = anna.next()
    assert first["can_undo"] is False
    anna.send("judge", id="answer-1", pair=first["pair"], action="skip")
    second = anna.next()
    assert second["pair"] != first["pair"]
    anna.send("judge", id="answer-2", pair=second["pair"], action="cannot_tell", comment="same")
    assert anna.next()["progress"]["own"] == 1
    assert anna.send("undo", id="undo-0001").status_code == 200
    assert anna.next()["pair"] == second["pair"]
    assert OddOneOut(opened.project).answers() == []
