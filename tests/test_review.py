"""Judgments by people: the log, what it means, who agrees, and what flows back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import WriteProject
from nearer.cli import app
from nearer.cli.review import _own_name
from nearer.data.reviewed import HEADER, Splits, read_reviewed, with_reviewed
from nearer.data.trec import read_qrels
from nearer.errors import DataError
from nearer.lifecycle import between
from nearer.review import exchange
from nearer.review.agreement import agreement, cohen_kappa, krippendorff_alpha
from nearer.review.asking import Action
from nearer.review.consensus import consensus, disagreements, settled_grades, undo_of
from nearer.review.desk import Desk
from nearer.review.exchange import FORMATS
from nearer.review.judgments import CANNOT_TELL, SKIP, Entry, JudgmentLog
from nearer.review.lists import ListedQuery, Lists
from nearer.review.more import GAIN, how_many_more
from nearer.review.pairs import Pair
from nearer.review.reviewers import Reviewer, Reviewers
from nearer.review.session import Review
from nearer.workspace import Workspace
from review_kit import checked, graded, workspace

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, write_project: WriteProject) -> Path:
    path = write_project(tmp_path_factory.mktemp("review") / "project")
    checked(path)
    return path.parent


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture
def opened(root: Path) -> Workspace:
    return workspace(root / "nearer.yaml")


@pytest.fixture
def log(tmp_path: Path) -> JudgmentLog:
    return JudgmentLog(tmp_path / "log" / "judgments.jsonl")


def said(log: JudgmentLog) -> set[tuple[str, str, str]]:
    found = log.judgments.by_subject.items()
    return {(query, doc, name) for (query, doc), names in found for name in names}


def people(*names: str) -> Iterator[Reviewer]:
    for name in names:
        yield Reviewer(name, "", datetime.now(UTC) + timedelta(days=1))


# -- the log ---------------------------------------------------------------------------------------


def test_what_was_judged_is_read_again(log: JudgmentLog) -> None:
    log.append([graded("q", "d", "anna", 2), graded("q", "e", "anna", 0, comment="äöü \n x")])
    again = JudgmentLog(log.path)
    assert again.judgments.grades(("q", "d")) == {"anna": 2}
    assert again.judgments.by_subject[("q", "e")]["anna"].comment == "äöü \n x"
    assert again.warnings() == []


def test_the_same_action_sent_twice_is_saved_once(log: JudgmentLog) -> None:
    entry = graded("q", "d", "anna", 2)
    assert log.append([entry]) == 1
    assert log.append([entry]) == 0
    assert JudgmentLog(log.path).append([entry]) == 0
    assert len(log.path.read_text().splitlines()) == 1


def test_two_grades_by_one_reviewer_are_refused_until_the_first_is_undone(log: JudgmentLog) -> None:
    first = graded("q", "d", "anna", 2)
    log.append([first])
    with pytest.raises(DataError, match="judged this pair already"):
        log.append([graded("q", "x", "anna", 1), graded("q", "d", "anna", 0)])
    assert said(log) == {("q", "d", "anna")}  # all of it or nothing
    log.append([undo_of(first), graded("q", "d", "anna", 0)])
    assert JudgmentLog(log.path).judgments.grades(("q", "d")) == {"anna": 0}
    with pytest.raises(DataError, match="undone already"):
        log.append([undo_of(first)])


def test_only_its_own_reviewer_undoes_a_judgment(log: JudgmentLog) -> None:
    first = graded("q", "d", "anna", 2)
    log.append([first])
    foreign = Entry.of({**undo_of(first).as_dict(), "reviewer": "ben"})
    with pytest.raises(DataError, match="only its own reviewer"):
        log.append([foreign])


def test_two_processes_cannot_both_judge_the_same(log: JudgmentLog) -> None:
    other = JudgmentLog(log.path)
    log.append([graded("q", "d", "anna", 2)])
    with pytest.raises(DataError, match="judged this pair already"):
        other.append([graded("q", "d", "anna", 1)])
    other.append([graded("q", "e", "anna", 1)])
    log.refresh()
    assert said(log) == {("q", "d", "anna"), ("q", "e", "anna")}


@pytest.mark.parametrize("lost", [1, 5, 40])
def test_a_log_cut_in_the_middle_of_a_line_is_read_up_to_there_and_goes_on(
    log: JudgmentLog, lost: int
) -> None:
    log.append([graded("q", "d", "anna", 2)])
    log.append([graded("q", "e", "anna", 1)])
    log.path.write_bytes(log.path.read_bytes()[:-lost])
    again = JudgmentLog(log.path)
    assert said(again) == {("q", "d", "anna")}
    assert any("ends in the middle of a line" in text for text in again.warnings())
    again.append([graded("q", "f", "anna", 3)])
    last = JudgmentLog(log.path)
    cut = {("q", "e", "anna")} if lost == 1 else set()  # the line was whole but for its end
    assert said(last) == {("q", "d", "anna"), ("q", "f", "anna")} | cut
    assert len(last.faults) == (lost != 1)


def test_lines_that_are_no_judgments_are_counted_and_the_rest_is_read(log: JudgmentLog) -> None:
    log.append([graded("q", "d", "anna", 2)])
    bad = [
        '{"id": "x"}',
        "[]",
        "\\x00",
        json.dumps({**graded("q", "z", "a", 1).as_dict(), "grade": 9}),
    ]
    with log.path.open("a") as out:
        out.write("\n".join(bad) + "\n")
    again = JudgmentLog(log.path)
    again.append([graded("q", "e", "anna", 1)])
    assert said(again) == {("q", "d", "anna"), ("q", "e", "anna")}
    assert len(again.faults) == len(bad)
    assert "judgments.jsonl:2" in again.warnings()[0]


def test_a_kill_loses_nothing_that_was_saved_and_judges_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "judgments.jsonl"
    driver = Path(__file__).with_name("review_driver.py")
    for _ in range(2):
        saved = []
        with subprocess.Popen(
            [sys.executable, str(driver), str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                saved.append(line.strip())
                if len(saved) == 25:
                    process.kill()
                    break
        log = JudgmentLog(path)
        assert len(saved) == 25
        assert set(saved) <= set(log.judgments.by_id)
        assert log.judgments.repeated == 0
        path.unlink()


def test_grades_that_only_equal_whole_numbers_and_texts_for_seconds_are_no_judgments(
    log: JudgmentLog,
) -> None:
    log.append([graded("q", "d", "anna", 2)])
    changes: list[dict[str, Any]] = [
        {"grade": 1.0},
        {"grade": True},
        {"seconds": "long"},
        {"seconds": float("nan")},
        {"comment": 7},
    ]
    with log.path.open("a") as out:
        for change in changes:
            out.write(json.dumps({**graded("q", "e", "ben", 1).as_dict(), **change}) + "\n")
    again = JudgmentLog(log.path)
    assert said(again) == {("q", "d", "anna")}
    assert len(again.faults) == len(changes)


def test_reading_while_another_thread_judges_gives_whole_answers(opened: Workspace) -> None:
    review = Review(opened.project, choose=True)
    anna, ben = people("anna", "ben")
    review.log.append([graded(f"earlier-{number}", "d", anna.name, 1) for number in range(3000)])
    over = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        while not over.is_set():
            try:
                review.turn(anna)
            except BaseException as error:  # noqa: BLE001 - the thread hands it over
                failed.append(error)
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=read)
    try:
        reader.start()
        for number in range(40):
            review.log.append([graded(f"q{number}", "d", ben.name, 1)])
    finally:
        over.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert failed == []


# -- what it means ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grades", "status", "grade"),
    [
        ([2], "agreed", 2),
        ([2, 3], "agreed", 2),
        ([0, 1], "split", None),
        ([1, 3], "split", None),
        ([0, 2, 2], "agreed", 2),
        ([0, 0, 1], "agreed", 0),
        ([0, 0, 2, 3], "split", None),
    ],
)
def test_reviewers_who_disagree_are_not_averaged(
    log: JudgmentLog, grades: list[int], status: str, grade: int | None
) -> None:
    log.append([graded("q", "d", f"r{number}", value) for number, value in enumerate(grades)])
    found = consensus(log.judgments, ("q", "d"))
    assert (found.status, found.grade) == (status, grade)
    log.append([graded("q", "d", "chief", 1, action="adjudicate")])
    assert settled_grades(log.judgments) == {("q", "d"): 1}


def test_what_cannot_be_told_and_what_was_skipped_is_no_judgment(log: JudgmentLog) -> None:
    log.append([graded("q", "d", "anna", 0, action=CANNOT_TELL)])
    log.append([graded("q", "d", "ben", 0, action=SKIP)])
    assert settled_grades(log.judgments) == {}
    log.append([graded("q", "d", "ben", 1)])  # after a skip
    assert settled_grades(log.judgments) == {("q", "d"): 1}


def test_agreement_is_that_of_the_published_example() -> None:
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section A: alpha is .095.
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    both = np.column_stack([first, second])
    assert krippendorff_alpha(both.astype(np.float64)) == pytest.approx(0.095, abs=0.0005)
    assert cohen_kappa(both) == pytest.approx((0.6 - 0.56) / 0.44)  # by hand
    assert cohen_kappa(np.column_stack([first, first])) == 1.0


def test_reviewers_below_chance_are_named_and_kept(log: JudgmentLog) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 40)
    lines = []
    for number, grade in enumerate(truth.tolist()):
        lines.append(graded(f"q{number}", "d", "anna", grade))
        lines.append(graded(f"q{number}", "d", "ben", max(0, grade - (number % 5 == 0))))
        lines.append(graded(f"q{number}", "d", "contrary", 3 - grade))
    log.append(lines)
    found = agreement(log.judgments, rng)
    assert found.below_chance == ("contrary",)
    value = found.kappa["anna", "ben"]
    assert value.low is not None
    assert value.value is not None
    assert value.high is not None
    assert 0.8 < value.low <= value.value <= value.high <= 1.0
    assert found.alpha.n == 40
    assert len(settled_grades(log.judgments)) > 0  # what they said was not dropped


def test_agreement_is_as_uncertain_as_its_queries_are_few(tmp_path: Path) -> None:
    """Two people agree about half of the queries, and not about the others: which ones were drawn counts."""
    widths = {}
    for n_queries in (1, 6, 60):
        log = JudgmentLog(tmp_path / f"{n_queries}.jsonl")
        lines = []
        for number in range(120):
            query, grade = number % n_queries, number // n_queries % 4
            agreed = query % 2 == 0
            lines.append(graded(f"q{query}", f"d{number}", "anna", grade))
            lines.append(graded(f"q{query}", f"d{number}", "ben", grade if agreed else 3 - grade))
        log.append(lines)
        found = agreement(log.judgments, np.random.default_rng(0))
        for name, value in (("kappa", found.kappa["anna", "ben"]), ("alpha", found.alpha)):
            assert value.low is not None
            assert value.high is not None
            widths[name, n_queries] = value.high - value.low
    for name in ("kappa", "alpha"):
        assert widths[name, 60] < 0.7 * widths[name, 6]
        assert widths[name, 1] == 2.0  # nothing is known of other queries


def test_agreement_on_nothing_is_not_defined(log: JudgmentLog) -> None:
    found = agreement(log.judgments, np.random.default_rng(0))
    assert found.alpha.value is None
    log.append([graded("q", "d", "anna", 2), graded("q", "d", "ben", 2)])
    assert agreement(log.judgments, np.random.default_rng(0)).alpha.value is None


# -- who is asked what -----------------------------------------------------------------------------


def pairs(n: int) -> list[Pair]:
    return [
        Pair(query_id=f"q{i // 4}", doc_id=f"d{i}", query="x", split="test", weight=1.0 - i / n)
        for i in range(n)
    ]


def test_every_pair_is_judged_once_and_a_share_of_them_twice(log: JudgmentLog) -> None:
    desk = Desk(pairs(400), b"secret", overlap=0.2, block=20, several=True)
    anna, ben = people("anna", "ben")
    busy = {"anna": True, "ben": True}
    while any(busy.values()):
        for reviewer in (anna, ben):
            pair = desk.next(reviewer, log.judgments)
            busy[reviewer.name] = pair is not None
            if pair is not None:
                log.judgments.add(graded(*pair.subject, reviewer.name, 1))
    counts = [len(names) for names in log.judgments.by_subject.values()]
    assert len(counts) == 400
    assert 50 < counts.count(2) < 110
    assert desk.progress(anna, log.judgments).open == 0


def test_two_reviewers_are_not_given_the_same_pair_unless_both_are_wanted(log: JudgmentLog) -> None:
    desk = Desk(pairs(40), b"secret", overlap=0.0, block=20, several=True)
    anna, ben = people("anna", "ben")
    first, second = desk.next(anna, log.judgments), desk.next(ben, log.judgments)
    assert first != second
    assert desk.next(anna, log.judgments) == first  # after a reload
    assert desk.next(ben, log.judgments) == second


def test_the_overlap_begins_when_a_second_reviewer_is_invited(opened: Workspace) -> None:
    review = Review(opened.project, choose=True)
    first, _ = review.reviewers.invite("anna", 30)
    before = review.turn(first).progress.open
    review.reviewers.invite("ben", 30)
    assert review.turn(first).progress.open > before == len(review.pairs)


def test_an_adjudicator_who_cannot_tell_is_asked_something_else(opened: Workspace) -> None:
    review = Review(opened.project, choose=True)
    chief = Reviewer("chief", "", datetime.now(UTC) + timedelta(days=1), adjudicates=True)
    first, second = review.pairs[:2]
    for pair in (first, second):
        review.add([graded(*pair.subject, "anna", 0), graded(*pair.subject, "ben", 3)])
    review.add([graded(*first.subject, "chief", 3), graded(*first.subject, "eve", 0)])
    asked = set()
    for number, action in enumerate((SKIP, CANNOT_TELL)):
        turn = review.turn(chief)
        assert turn.adjudicates
        assert turn.pair is not None
        asked.add(turn.pair.subject)
        review.judge(chief, turn.pair, Action(f"action-{number}", action))
    assert asked == {first.subject, second.subject}
    assert review.turn(chief).adjudicates is False
    assert review.log.judgments.grades(first.subject)["chief"] == 3  # what was said stands
    assert len(disagreements(review.log.judgments)) == 2


def test_an_id_that_names_another_judgment_is_refused(opened: Workspace) -> None:
    review = Review(opened.project, choose=True)
    (anna,) = people("anna")
    first, second = review.pairs[:2]
    review.judge(anna, first, Action("the-same-id", "grade", 2))
    review.judge(anna, first, Action("the-same-id", "grade", 2))  # sent again
    for pair, grade in ((second, 2), (first, 1)):
        with pytest.raises(DataError, match="under this id"):
            review.judge(anna, pair, Action("the-same-id", "grade", grade))


def test_the_order_within_a_block_tells_nothing_and_weightier_blocks_come_first() -> None:
    asked = pairs(200)
    desk = Desk(asked, b"secret", overlap=0.0, block=20, several=False)
    (anna,) = people("anna")
    log = JudgmentLog(Path("does-not-exist"))
    order = []
    for _ in asked:
        pair = desk.next(anna, log.judgments)
        assert pair is not None
        order.append(asked.index(pair))
        log.judgments.add(graded(*pair.subject, "anna", 0))
    assert [sorted(order[i : i + 20]) for i in range(0, 200, 20)] == [
        list(range(i, i + 20)) for i in range(0, 200, 20)
    ]
    within = [np.corrcoef(order[i : i + 20], range(20))[0, 1] for i in range(0, 200, 20)]
    assert abs(float(np.mean(within))) < 0.4
    ids = {desk.id_of(pair) for pair in asked}
    other = Desk(asked, b"other", overlap=0.0, block=20, several=False)
    assert len(ids) == 200
    assert not ids & {other.id_of(pair) for pair in asked}


# -- how many more ---------------------------------------------------------------------------------


def lists(n: int, gain: float, *, judged: bool) -> Lists:
    """Queries whose candidate finds the relevant document first, for a share of them."""
    rows = []
    for number in range(n):
        found = number < gain * n
        before = ("a", "b", "c")
        after = ("r", "a", "b") if found else before
        grades = {"r": 1, **({"a": 0, "b": 0, "c": 0} if judged else {})}
        rows.append(ListedQuery(f"q{number}", "x", None, before, after, grades))
    return Lists("dense", "fine-tuned", "nDCG@10", tuple(rows))


def test_what_is_judged_completely_is_settled_or_needs_more_queries(opened: Workspace) -> None:
    rng = np.random.default_rng(0)
    clear = how_many_more(lists(60, 0.9, judged=True), {}, opened.config, rng)
    assert clear is not None
    assert clear.settled
    assert (clear.needed, clear.open) == (0, 0)
    assert clear.probability[GAIN] == 1.0
    few = how_many_more(lists(8, 0.2, judged=True), {}, opened.config, rng)
    assert few is not None
    assert not few.settled
    assert few.needed is None
    assert few.queries is not None
    assert few.queries > 8
    assert "will not settle" in few.sentence(blind=True)


def test_open_pairs_leave_a_question_open_until_enough_are_judged(opened: Workspace) -> None:
    rng = np.random.default_rng(0)
    asked = lists(60, 0.13, judged=False)
    before = how_many_more(asked, {}, opened.config, rng)
    assert before is not None
    assert not before.settled
    assert before.open == 60 * 3
    reviewed = {(row.query_id, doc): 0 for row in asked.queries for doc in ("a", "b", "c")}
    after = how_many_more(asked, reviewed, opened.config, rng)
    assert after is not None
    assert after.settled
    assert after.judged == 60 * 3
    assert after.delta == pytest.approx(8 / 60)


def test_what_reviewers_read_does_not_tell_who_leads(opened: Workspace) -> None:
    rng = np.random.default_rng(0)
    for judged in (False, True):
        told = how_many_more(lists(60, 0.35, judged=judged), {}, opened.config, rng)
        assert told is not None
        text = told.sentence(blind=True)
        assert not any(word in text for word in ("fine-tuned", "dense", "gain", "%", "+0"))


# -- flowing back ----------------------------------------------------------------------------------


def split_of(opened: Workspace, name: str) -> dict[str, dict[str, int]]:
    return read_qrels(opened.run_dir / "check" / "split" / name / "qrels.tsv")


def test_judgments_flow_into_the_split_that_has_their_query(opened: Workspace) -> None:
    before = {name: split_of(opened, name) for name in ("train", "dev", "test")}
    chosen = {name: next(iter(before[name])) for name in before}
    review = Review(opened.project)
    documents = opened.project.corpus.ids
    lines = []
    for query_id in chosen.values():
        lines += [graded(query_id, doc, "anna", 3) for doc in documents[:3]]
    review.add(lines)
    assert [row["state"] for row in opened.status()[:1]] == ["stale"]
    opened.run(between("check", "check"))
    for name, query_id in chosen.items():
        after = split_of(opened, name)
        assert set(after) == set(before[name])
        expected = {
            **before[name][query_id],
            **dict.fromkeys(documents[:3], 1),
        }  # on the data's scale
        assert after[query_id] == expected
        others = {other: grades for other, grades in after.items() if other != query_id}
        assert others == {o: g for o, g in before[name].items() if o != query_id}
    findings = json.loads((opened.run_dir / "check" / "findings.json").read_text())
    assert findings["reviewed"]["splits"] == {"train": 3, "dev": 3, "test": 3}


def test_a_made_split_stays_what_it_was_whatever_is_judged(
    tmp_path: Path, write_project: WriteProject, small_data: Path
) -> None:
    rows = []
    for path in sorted((small_data / "qrels").glob("*.tsv")):
        rows += path.read_text().splitlines()[1:]
    one = tmp_path / "all.tsv"
    one.write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n")
    data = {"folder": str(small_data), "judgments": str(one)}
    opened = workspace(write_project(tmp_path / "made", data=data))
    opened.run(between("check", "check"))
    before = {name: set(split_of(opened, name)) for name in ("train", "dev", "test")}
    review = Review(opened.project)
    document = opened.project.corpus.ids[0]
    every = [query for queries in before.values() for query in sorted(queries)]
    review.add([graded(query, document, "anna", 1) for query in every])  # ties all into one group
    opened.run(between("check", "check"))
    after = {name: split_of(opened, name) for name in before}
    assert {name: set(found) for name, found in after.items()} == before
    assert all(document in grades for found in after.values() for grades in found.values())


def test_judgments_of_unknown_queries_take_part_nowhere(opened: Workspace) -> None:
    document = opened.project.corpus.ids[0]
    (opened.root / "review").mkdir(exist_ok=True)
    (opened.root / "review" / "qrels.tsv").write_text(f"request-7\t{document}\t1\n")
    before = {name: split_of(opened, name) for name in ("train", "dev", "test")}
    opened.run(between("check", "check"))
    assert {name: split_of(opened, name) for name in before} == before


def test_judgments_written_by_hand_are_taken_into_the_log_and_never_overwritten(
    opened: Workspace,
) -> None:
    query = next(iter(split_of(opened, "dev")))
    first, second = opened.project.corpus.ids[:2]
    path = opened.root / "review" / "qrels.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"query-id\tcorpus-id\tscore\n{query}\t{first}\t1\n")
    review = Review(opened.project)
    assert review.adopted == 1
    review.add([graded(query, second, "anna", 2)])
    assert read_qrels(path) == {query: {first: 1, second: 2}}
    path.write_text(f"query-id\tcorpus-id\tscore\n{query}\t{first}\t0\n{query}\t{second}\t2\n")
    again = Review(opened.project)
    assert again.adopted == 1
    assert read_qrels(path) == {query: {first: 0, second: 2}}
    assert Review(opened.project).adopted == 0


def test_what_is_written_by_hand_while_people_judge_is_kept(opened: Workspace) -> None:
    query = next(iter(split_of(opened, "dev")))
    first, second, third, fourth = opened.project.corpus.ids[:4]
    path = opened.root / "review" / "qrels.tsv"
    review = Review(opened.project)
    review.add([graded(query, first, "anna", 2)])
    path.write_text(path.read_text() + f"{query}\t{second}\t3\n")
    review.add([graded(query, third, "anna", 1)])
    assert read_qrels(path) == {query: {first: 2, second: 3, third: 1}}
    path.write_text("half a line")
    review.add([graded(query, fourth, "anna", 1)])  # saved, although the file cannot be read
    assert path.read_text() == "half a line"
    assert JudgmentLog(review.log.path).judgments.grades((query, fourth)) == {"anna": 1}
    with pytest.raises(DataError):
        Review(opened.project)


def test_a_single_line_by_hand_without_a_header_is_a_judgment(opened: Workspace) -> None:
    query = next(iter(split_of(opened, "dev")))
    document = opened.project.corpus.ids[0]
    path = opened.root / "review" / "qrels.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{query}\t{document}\t1\n")
    assert read_reviewed(opened.root) == {query: {document: 1}}
    path.write_text(f"\ufeff{HEADER}\n\n")
    assert read_reviewed(opened.root) == {}


def test_a_query_whose_only_relevant_document_is_judged_irrelevant_cannot_be_measured() -> None:
    divided: Splits = {"train": {}, "dev": {"q": {"d": 1, "spam": -1}}, "test": {}}
    found = with_reviewed(divided, {}, {"q": {"d": 0}}, item_to_item=False)
    assert found.splits["dev"] == {}
    assert found.counts["outside"] == 1


def test_a_kill_between_the_log_and_its_judgments_is_made_up_for(opened: Workspace) -> None:
    query = next(iter(split_of(opened, "dev")))
    first, second = opened.project.corpus.ids[:2]
    review = Review(opened.project)
    entry = graded(query, first, "anna", 2)
    review.add([entry])
    review.log.append([graded(query, second, "anna", 1), undo_of(entry)])  # killed here
    again = Review(opened.project)
    assert again.adopted == 0  # what was undone does not come back as written by hand
    assert read_qrels(opened.root / "review" / "qrels.tsv") == {query: {second: 1}}


# -- from and to other tools -----------------------------------------------------------------------


def cli(root: Path, *words: str) -> tuple[int, Any]:
    result = RUNNER.invoke(app, ["review", *words, "-c", str(root / "nearer.yaml"), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("kind", FORMATS)
def test_judgments_go_to_other_tools_and_come_back(
    root: Path, opened: Workspace, tmp_path: Path, kind: str
) -> None:
    review = Review(opened.project, choose=True)
    first, second, third = review.pairs[:3]
    review.add([graded(*first.subject, "anna", 3), graded(*second.subject, "anna", 0)])
    review.add([graded(*first.subject, "ben", 2), graded(*third.subject, "ben", 0, action=SKIP)])
    path = tmp_path / "out.json"
    if kind in ("qrels", "csv"):
        path = tmp_path / f"out.{'tsv' if kind == 'qrels' else 'csv'}"
    assert cli(root, "export", str(path), "--format", kind)[0] == 0
    before = settled_grades(review.log.judgments)
    shutil.move(root / "review" / "judgments.jsonl", tmp_path / "aside.jsonl")
    (root / "review" / "qrels.tsv").unlink()
    code, told = cli(root, "import", str(path), "--format", kind)
    assert code == 0
    assert told["new"] == told["judgments"] > 0
    again = Review(opened.project)
    assert settled_grades(again.log.judgments) == before
    if kind != "qrels":
        assert again.log.judgments.grades(first.subject) == {"anna": 3, "ben": 2}
    assert cli(root, "import", str(path), "--format", kind)[1]["new"] == 0  # once only


@pytest.mark.parametrize("kind", ["csv", "argilla", "label-studio"])
def test_a_file_that_was_judged_further_elsewhere_comes_back(
    root: Path, opened: Workspace, tmp_path: Path, kind: str
) -> None:
    review = Review(opened.project, choose=True)
    first, second, third = (pair.subject for pair in review.pairs[:3])
    review.add([graded(*first, "anna", 3), graded(*second, "anna", 0, action=SKIP)])
    path = tmp_path / ("out.csv" if kind == "csv" else "out.json")
    cli(root, "export", str(path), "--format", kind)
    if kind == "csv":
        with path.open("a") as out:
            out.write(f"{third[0]},{third[1]},anna,grade,2,,,\n")
    else:
        path.write_text(json.dumps(judged_elsewhere(json.loads(path.read_text()), third)))
    review.add([graded(*second, "anna", 1)])  # after the skip
    code, told = cli(root, "import", str(path), "--format", kind)
    assert (code, told["new"]) == (0, 1)
    grades = settled_grades(Review(opened.project).log.judgments)
    assert grades == {first: 3, second: 1, third: 2}


def judged_elsewhere(records: list[dict[str, Any]], subject: tuple[str, str]) -> Any:
    """The records of an export after somebody gave a pair the grade 2."""
    for record in records:
        values = record.get("metadata") or record["data"]
        if (values["query_id"], values["doc_id"]) != subject:
            continue
        if "metadata" in record:
            record["responses"] = {"grade": [{"value": 2, "user_id": str(uuid.uuid4())}]}
        else:
            result = {"from_name": "grade", "value": {"choices": ["2"]}}
            record["annotations"] = [{"result": [result], "completed_by": 7}]
    return records


def test_what_was_undone_can_be_imported_again(
    root: Path, opened: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "in.csv"
    row = good(opened)
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    assert cli(root, "import", str(path), "--reviewer", "anna")[1]["new"] == 1
    review = Review(opened.project)
    (anna,) = people("anna")
    assert review.undo(anna, "undo-number-1") is not None
    assert cli(root, "import", str(path), "--reviewer", "anna")[1]["new"] == 1
    assert said(Review(opened.project).log) == {(row["query_id"], row["doc_id"], "anna")}


@pytest.mark.parametrize("name", ["@anna", "-x", "a,b", "50% sure", "ä@example.org", "'=x"])
@pytest.mark.parametrize("kind", ["csv", "argilla", "label-studio"])
def test_names_of_reviewers_come_back_as_they_were(
    opened: Workspace, tmp_path: Path, kind: str, name: str
) -> None:
    review = Review(opened.project, choose=True)
    subject = review.pairs[0].subject
    entry = graded(*subject, name, 2, comment="=1+1")
    review.log.judgments.add(entry)
    told = exchange.Told("here", exchange.texts_of(review))
    path = tmp_path / ("out.csv" if kind == "csv" else "out.json")
    exchange.export(path, kind, review.log.judgments, review.pairs, told)
    known = exchange.Known("here", lambda _: True, lambda _: True)
    found = [one for one in exchange.read(path, kind, known, "imported") if one.grade is not None]
    assert [(one.subject, one.reviewer, one.grade) for one in found] == [(subject, name, 2)]
    if kind == "csv":
        assert found[0].comment == "=1+1"


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "anna\x1b[31m"])
def test_an_import_without_a_usable_name_is_refused(
    root: Path, opened: Workspace, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "in.csv"
    row = good(opened)
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    code, told = cli(root, "import", str(path), "--reviewer", name)
    assert code == 2
    assert "reviewer" in told["what"]
    assert said(Review(opened.project).log) == set()


def test_exported_records_have_the_documented_shapes(
    root: Path, opened: Workspace, tmp_path: Path
) -> None:
    review = Review(opened.project, choose=True)
    review.add([graded(*review.pairs[0].subject, "anna", 3)])
    cli(root, "export", str(tmp_path / "a.json"), "--format", "argilla")
    cli(root, "export", str(tmp_path / "l.json"), "--format", "label-studio")
    record = json.loads((tmp_path / "a.json").read_text())[0]
    assert set(record) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
    (answer,) = record["responses"]["grade"]
    assert set(answer) == {"value", "user_id"}
    assert answer["value"] == 3
    task = json.loads((tmp_path / "l.json").read_text())[0]
    assert set(task) == {"data", "annotations", "predictions"}
    (annotation,) = task["annotations"]
    assert annotation["was_cancelled"] is False
    (result,) = annotation["result"]
    assert result["type"] == "choices"
    assert result["value"] == {"choices": ["3"]}
    assert (result["from_name"], result["to_name"]) == ("grade", "document")
    for text in ((tmp_path / "a.json").read_text(), (tmp_path / "l.json").read_text()):
        assert "fine-tuned" not in text  # blind there too
        assert "weight" not in text


def good(opened: Workspace) -> dict[str, str]:
    query = next(iter(split_of(opened, "dev")))
    return {"query_id": query, "doc_id": opened.project.corpus.ids[0], "grade": "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doc_id": "nowhere"}, "'nowhere' is not in the corpus"),
        ({"query_id": "nowhere"}, "'nowhere' is not one of this project"),
        ({"grade": "4"}, "4 is no grade from 0 to 3"),
        ({"grade": "1.5"}, "is no grade"),
        ({"grade": ""}, "is no grade"),
        ({"action": "like"}, "unknown action 'like'"),
    ],
)
def test_an_import_with_one_bad_line_adds_nothing(
    root: Path, opened: Workspace, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    fine = good(opened) | {"action": "grade"}
    rows = [fine, fine | {"doc_id": opened.project.corpus.ids[1]} | change]
    text = "\n".join(",".join(row[name] for name in fine) for row in rows)
    path = tmp_path / "in.csv"
    path.write_text(",".join(fine) + "\n" + text + "\n")
    code, told = cli(root, "import", str(path))
    assert code == 2
    assert message in told["what"]
    assert said(Review(opened.project).log) == set()


def test_an_import_that_grades_a_pair_twice_is_refused(
    root: Path, opened: Workspace, tmp_path: Path
) -> None:
    row = good(opened)
    path = tmp_path / "in.csv"
    lines = [",".join(row), ",".join(row.values()), ",".join((row | {"grade": "2"}).values())]
    path.write_text("\n".join(lines) + "\n")
    code, told = cli(root, "import", str(path))
    assert code == 2
    assert "judged this pair already" in told["what"]
    assert said(Review(opened.project).log) == set()


def test_files_of_another_project_are_refused(
    root: Path, opened: Workspace, tmp_path: Path
) -> None:
    Review(opened.project, choose=True)
    path = tmp_path / "out.json"
    for kind in ("argilla", "label-studio"):
        cli(root, "export", str(path), "--format", kind)
        (root / "review" / "project.json").write_text(f'{{"project": "not {kind}"}}')
        code, told = cli(root, "import", str(path), "--format", kind)
        assert code == 2
        assert "is of another project" in told["what"]


@pytest.mark.parametrize("kind", ["argilla", "label-studio"])
@pytest.mark.parametrize("text", ["{}", "[1]", "[{}]", "nonsense", '[{"metadata": 3, "data": []}]'])
def test_files_of_another_shape_are_refused(
    root: Path, tmp_path: Path, kind: str, text: str
) -> None:
    path = tmp_path / "in.json"
    path.write_text(text)
    code, told = cli(root, "import", str(path), "--format", kind)
    assert code == 2
    assert told["next"]


def test_an_imported_test_judgment_does_not_reach_training(
    root: Path, opened: Workspace, tmp_path: Path
) -> None:
    query = next(iter(split_of(opened, "test")))
    before = split_of(opened, "train"), split_of(opened, "dev")
    path = tmp_path / "in.csv"
    document = opened.project.corpus.ids[0]
    path.write_text(f"query_id,doc_id,grade,split\n{query},{document},1,train\n")
    assert cli(root, "import", str(path))[0] == 0
    opened.run(between("check", "check"))
    assert (split_of(opened, "train"), split_of(opened, "dev")) == before
    assert split_of(opened, "test")[query][document] == 1


# -- tokens and commands ---------------------------------------------------------------------------


def test_a_token_is_kept_as_a_hash_that_only_its_user_can_read(tmp_path: Path) -> None:
    people_here = Reviewers(tmp_path)
    reviewer, token = people_here.invite("anna", 30)
    path = tmp_path / "review" / "reviewers.json"
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert people_here.of(token) == reviewer.__class__.of(reviewer.as_dict())
    _, later = people_here.invite("anna", 30)
    assert people_here.of(token) is None
    assert people_here.of(later) is not None
    people_here.secret()
    assert (tmp_path / "review" / "secret").stat().st_mode & 0o077 == 0


def test_reviewers_who_are_invited_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    begin, tokens, secrets = threading.Barrier(6), [], set()

    def invite(name: str) -> None:
        people_here = Reviewers(tmp_path)
        begin.wait()
        tokens.append(people_here.invite(name, 30)[1])
        secrets.add(people_here.secret())

    threads = [threading.Thread(target=invite, args=(f"r{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(Reviewers(tmp_path).of(token) for token in tokens)
    assert sorted(one.name for one in Reviewers(tmp_path).all()) == [f"r{n}" for n in range(6)]
    assert len(secrets) == 1


@pytest.mark.parametrize("text", ["[]", "{}", '{"reviewers": [{"name": "anna"}]}', "null"])
def test_a_damaged_list_of_reviewers_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "review" / "reviewers.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataError, match="does not list reviewers") as caught:
        Reviewers(tmp_path).of("token")
    assert caught.value.where == str(path)


def test_the_commands_say_what_is_there(root: Path, opened: Workspace) -> None:
    code, told = cli(root, "invite", "anna", "--adjudicator")
    assert code == 0
    assert Reviewers(root).of(told["token"])
    assert cli(root, "invite", "two words")[0] == 2
    review = Review(opened.project, choose=True)
    review.add([graded(*pair.subject, "anna", 1) for pair in review.pairs[:3]])
    review.add([graded(*review.pairs[0].subject, "ben", 3)])
    code, told = cli(root, "status")
    assert code == 0
    assert (told["judgments"], told["disagreements"]) == (4, 1)
    assert told["more"]["open"] > 0
    result = RUNNER.invoke(app, ["review", "status", "-c", str(root / "nearer.yaml")])
    assert "wait for adjudication" in result.stdout
    assert json.loads((root / "review" / "history.jsonl").read_text())["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("name", "expected"), [("anna", "anna"), ("OFFICE\\anna b", "OFFICE-anna-b"), (None, "me")]
)
def test_whoever_serves_the_page_has_a_name_that_a_reviewer_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, expected: str
) -> None:
    def getuser() -> str:
        if name is None:
            raise OSError("No username set in the environment")
        return name

    monkeypatch.setattr("getpass.getuser", getuser)
    assert _own_name() == expected
    assert Reviewers(tmp_path).invite(_own_name(), 30)[0].name == expected


@pytest.mark.parametrize("command", ["serve", "invite", "status", "import", "export"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = RUNNER.invoke(app, ["review", command, "--help"])
    assert result.exit_code == 0
    assert "Example: nearer review" in result.output


def test_known_queries_are_those_of_the_project(opened: Workspace) -> None:
    review = Review(opened.project, choose=True)
    knows = review.query_check()
    assert all(knows(pair.query_id) for pair in review.pairs)
    assert not knows("nowhere")
    assert exchange.project_name(review) == exchange.project_name(review)
