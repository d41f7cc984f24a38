"""What recommend and cluster read: logs of interactions, labels, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nearer import config
from nearer.cli import app
from nearer.data.corpus import Corpus
from nearer.data.interactions import Meetings, read_interactions, without_reversed
from nearer.data.items import HISTORY
from nearer.data.load import Loaded
from nearer.errors import DataError, NearerError
from nearer.tasks import task_of

Log = Callable[..., Loaded]
WORDS = [
    "pump",
    "valve",
    "motor",
    "heat",
    "noise",
    "oil",
    "filter",
    "belt",
    "wheel",
    "brake",
    "lamp",
    "glass",
]


def corpus_file(folder: Path, lines: Iterable[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corpus.jsonl"
    if lines is None:
        lines = [
            {"_id": word, "text": f"the {word} of machine {place}", "kind": f"k{place % 3}"}
            for place, word in enumerate(WORDS)
        ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def log_file(
    folder: Path, rows: Sequence[Sequence[Any]], header: str = "session,item,time"
) -> Path:
    path = folder / "log.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def sessions(n: int = 60) -> list[tuple[str, str, str]]:
    """Sessions of three neighbouring items each, one per day, in order."""
    rows = []
    for number in range(n):
        start = number % (len(WORDS) - 3)
        day = f"2026-01-01T00:{number:02d}"
        for step in range(3):
            rows.append((f"s{number:03d}", WORDS[start + step], f"{day}:{step:02d}"))
    return rows


def loaded(
    folder: Path, rows: Sequence[Sequence[Any]], header: str = "session,item,time", **recommend: Any
) -> Loaded:
    corpus = corpus_file(folder)
    settings = config.build(
        {
            "task": "recommend",
            "data": {"corpus": str(corpus)},
            "recommend": {"interactions": str(log_file(folder, rows, header)), **recommend},
        }
    )
    return task_of(settings).load(settings, folder)


def test_items_that_meet_often_enough_are_related_in_both_directions(tmp_path: Path) -> None:
    found = loaded(tmp_path, sessions())
    everything = {(q, d) for part in found.judgments.values() for q, g in part.items() for d in g}
    assert ("pump", "valve") in everything or ("valve", "pump") in everything
    assert ("pump", "glass") not in everything
    assert set(found.queries) <= set(WORDS)


def test_no_training_relation_says_a_held_out_one_the_other_way_round(tmp_path: Path) -> None:
    found = loaded(tmp_path, sessions())
    train = {(q, d) for q, graded in found.judgments["train"].items() for d in graded}
    for part in ("dev", "test"):
        for query_id, graded in found.judgments[part].items():
            assert not {(doc_id, query_id) for doc_id in graded} & train
    assert any("other way round" in why for why in found.dropped)
    assert without_reversed({"a": {"b": 1}}, {"b": {"a": 1}}) == ({}, 1)


def test_by_time_test_items_were_first_met_after_training_and_training_is_of_earlier_sessions(
    tmp_path: Path,
) -> None:
    rows = [
        (f"a{n}", item, f"2026-01-{1 + n % 9:02d}")
        for n in range(12)
        for item in ("pump", "valve", "motor")
    ]
    rows += [(f"b{n}", item, "2026-02-01") for n in range(2) for item in ("oil", "filter", "pump")]
    rows += [(f"c{n}", item, "2026-03-01") for n in range(6) for item in ("belt", "wheel", "pump")]
    found = loaded(tmp_path, rows, split="time")
    assert set(found.judgments["train"]) == {"pump", "valve", "motor"}
    assert set(found.judgments["dev"]) == {"oil", "filter"}
    assert set(found.judgments["test"]) == {"belt", "wheel"}
    assert found.judgments["train"]["pump"].keys() == {"valve", "motor"}


def test_histories_ask_for_the_last_item_of_later_sessions(tmp_path: Path) -> None:
    found = loaded(tmp_path, sessions(), split="time", queries="histories")
    (name, relevant), *_ = found.judgments["test"].items()
    session = name.removeprefix("history ")
    items = [item for own, item, _ in sessions() if own == session]
    assert found.queries[name].metadata[HISTORY] == items[:-1]
    assert relevant == {items[-1]: 1}
    assert all(item in found.queries[name].text for item in items[:-1])
    assert set(found.judgments["train"]) <= set(WORDS)


def test_popular_items_count_less_in_training_the_stronger_the_correction(tmp_path: Path) -> None:
    rows = [(f"s{n}", item, "2026-01-01") for n in range(20) for item in ("pump", "oil")]
    rows += [(f"t{n}", item, "2026-01-01") for n in range(60) for item in ("oil", "lamp")]
    rows += [(f"u{n}", item, "2026-01-01") for n in range(20) for item in ("pump", "belt")]
    log = read_interactions(
        log_file(tmp_path, rows), config.Recommend(), Corpus.open(corpus_file(tmp_path))
    )
    meetings = Meetings.of(log.sessions)
    related = meetings.related(2)
    plain, corrected = (meetings.weights(related, c)["pump"] for c in (0.0, 1.0))
    # pump met oil as often as belt, but oil meets everybody
    assert plain["belt"] == corrected["belt"] == 1.0
    assert corrected["oil"] < plain["oil"] < 1.0
    assert corrected["oil"] == pytest.approx(20 / 80)


def test_kinds_of_events_weigh_what_the_settings_say(tmp_path: Path) -> None:
    rows = [
        ("s1", "pump", "view"),
        ("s1", "oil", "view"),
        ("s2", "pump", "buy"),
        ("s2", "belt", "buy"),
    ]
    path = log_file(tmp_path, rows, "session,item,kind")
    settings = config.Recommend(kinds={"buy": 3.0})
    meetings = Meetings.of(
        read_interactions(path, settings, Corpus.open(corpus_file(tmp_path))).sessions
    )
    assert meetings.together["belt", "pump"] == 3.0
    assert meetings.together["oil", "pump"] == 1.0


def test_rules_become_filters_of_the_queries(tmp_path: Path) -> None:
    found = loaded(tmp_path, sessions(), eligible={"in_stock": True}, same=["kind"])
    for item, query in found.queries.items():
        assert query.filter == {"in_stock": True, "kind": f"k{WORDS.index(item) % 3}"}


def test_times_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    rows = [("s1", "pump", "2026-01-03"), ("s1", "oil", "2026-01-01"), ("s1", "belt", "2026-01-02")]
    log = read_interactions(
        log_file(tmp_path, rows), config.Recommend(), Corpus.open(corpus_file(tmp_path))
    )
    assert log.sessions[0].items == ("oil", "belt", "pump")
    assert sum(log.dropped.values()) == 1
    assert "sorted" in next(iter(log.dropped))


BAD_LOGS: dict[str, tuple[list[tuple[Any, ...]], str, str]] = {
    "unknown items": ([("s1", "gold", ""), ("s1", "silver", ""), ("s2", "pump", "")], "items that the corpus lacks", "log.csv:2"),
    "one item": ([("s1", "pump", ""), ("s2", "pump", "")], "about 1 item", "log.csv"),
    "no time at all": ([("s1", "pump", ""), ("s1", "oil", "")], "have no times", "log.csv"),
    "some times": ([("s1", "pump", "2026-01-01"), ("s1", "oil", "")], "has no time, though others do", "log.csv:3"),
    "no such time": ([("s1", "pump", "soon"), ("s1", "oil", "soon")], "soon", "log.csv:2"),
    "empty": ([], "no interactions", "log.csv"),
    "an empty id": ([("s1", "", "2026-01-01")], "item id is empty", "log.csv:2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LOGS)
def test_bad_logs_are_refused_with_what_and_where(name: str, tmp_path: Path) -> None:
    rows, what, where = BAD_LOGS[name]
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, rows, split="time")
    assert what in str(caught.value)
    assert where in str(caught.value)
    assert caught.value.next_step


def together(items: int, n: int = 40, step: str = "minute") -> list[tuple[str, str, str]]:
    """Sessions in each of which the same items meet, one a minute, or all at one moment."""
    rows = []
    for number in range(n):
        minute = number if step == "minute" else 0
        for item in WORDS[:items]:
            rows.append((f"s{number:02d}", item, f"2026-01-01T00:{minute:02d}:00"))
    return rows


@pytest.mark.parametrize(
    ("rows", "recommend", "what", "next_step"),
    [
        ([(f"s{n}", WORDS[n], "2026-01-01") for n in range(9)], {}, "no two items met in 2", "min_together"),
        (together(2), {}, "2 items are related, and no relation", "more items"),
        (together(3), {"split": "time"}, "3 items are related, and no relation", "split: group"),
        (together(3, step="none"), {"split": "time"}, "for the test part", "first met after"),
        (together(2), {"queries": "histories"}, "for the test part", "more than 2 items"),
    ],
    ids=["nothing meets", "two items", "no new item", "all at once", "short histories"],
)  # fmt: skip
def test_a_log_that_leaves_nothing_to_judge_is_refused_with_the_cause(
    rows: list[tuple[str, str, str]],
    recommend: dict[str, Any],
    what: str,
    next_step: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, rows, **recommend)
    assert what in str(caught.value)
    assert "log.csv" in str(caught.value.where)
    assert next_step in str(caught.value.next_step)


def test_histories_without_times_are_said_to_be_divided_by_their_ids(tmp_path: Path) -> None:
    rows = [(session, item) for session, item, _ in sessions()]
    untimed = loaded(tmp_path, rows, "session,item", queries="histories")
    (told,) = [why for why in untimed.dropped if "no times" in why]
    assert untimed.dropped[told] == 60
    timed = loaded(tmp_path, sessions(), queries="histories")
    assert not any("no times" in why for why in timed.dropped)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the columns here: user, item, time") as caught:
        loaded(tmp_path, sessions(), "user,item,time")
    assert caught.value.next_step == "set recommend.session"
    assert loaded(tmp_path, sessions(), "user,item,time", session="user").queries


def test_a_few_unknown_items_are_left_out_counted_and_shown(tmp_path: Path) -> None:
    found = loaded(tmp_path, [*sessions(), ("s000", "gold", "2026-01-01T00:00:09")])
    told = next(why for why in found.dropped if "unknown items" in why)
    assert found.dropped[told] == 1
    assert "first log.csv:182: 'gold'" in told  # a report is shown to others: no path in it


# -- labels ------------------------------------------------------------------------------------------


def labelled(folder: Path, labels: Sequence[str | None], **cluster: Any) -> Loaded:
    lines = []
    for place, label in enumerate(labels):
        line: dict[str, Any] = {"_id": f"d{place}", "text": f"{WORDS[place % 12]} {place}"}
        lines.append(line if label is None else line | {"kind": label})
    path = corpus_file(folder, lines)
    settings = config.build(
        {"task": "cluster", "data": {"corpus": str(path)}, "cluster": {"label": "kind", **cluster}}
    )
    return task_of(settings).load(settings, folder)


def test_whole_labels_are_held_out_and_each_document_asks_for_all_others_of_its_label(
    tmp_path: Path,
) -> None:
    labels = [f"k{place % 10}" for place in range(60)]
    found = labelled(tmp_path, labels, per_class=4)
    classes = {
        name: {labels[int(query_id[1:])] for query_id in judged}
        for name, judged in found.judgments.items()
    }
    assert len(classes["train"]) == 5
    assert len(classes["dev"]) == 2
    assert len(classes["test"]) == 3
    assert not classes["train"] & classes["test"]
    assert len(found.judgments["test"]) == 3 * 4
    assert all(len(graded) == 5 for graded in found.judgments["test"].values())
    assert all(query_id not in graded for query_id, graded in found.judgments["test"].items())


def test_rows_held_out_are_no_answers_in_training(tmp_path: Path) -> None:
    labels = [f"k{place % 3}" for place in range(60)]
    found = labelled(tmp_path, labels, hold_out="rows")
    trained = {doc_id for graded in found.judgments["train"].values() for doc_id in graded}
    assert trained
    assert not trained & {*found.judgments["test"], *found.judgments["dev"]}
    assert {labels[int(query_id[1:])] for query_id in found.judgments["test"]} == {"k0", "k1", "k2"}


def test_labels_for_a_tenth_of_the_rows_are_used_and_the_rest_is_counted(tmp_path: Path) -> None:
    labels = [f"k{place % 6}" if place < 30 else None for place in range(300)]
    found = labelled(tmp_path, labels)
    assert next(n for why, n in found.dropped.items() if "have no label" in why) == 270
    assert sum(map(len, found.judgments.values())) == 30


@pytest.mark.parametrize(
    ("labels", "cluster", "what"),
    [
        (["a"] * 9, {}, "tell nothing apart"),
        ([None] * 9, {}, "no document has the field 'kind'"),
        ([f"k{place}" for place in range(9)], {}, "tell nothing apart"),
        (["a", "b"] * 9, {}, "too few to hold some out"),
        (["a", "b"] * 9, {"label": None}, "names no field"),
    ],
    ids=["one label", "no label", "all alone", "two labels", "no field"],
)
def test_bad_labels_are_refused_with_what_where_and_the_next_step(
    labels: list[str | None], cluster: dict[str, Any], what: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        labelled(tmp_path, labels, **cluster)
    assert what in str(caught.value)
    assert "corpus.jsonl" in str(caught.value.where)
    assert caught.value.next_step


@pytest.mark.parametrize("task", ["recommend", "cluster"])
def test_bad_input_ends_with_exit_code_2_and_not_as_a_bug(task: str, tmp_path: Path) -> None:
    corpus = corpus_file(tmp_path)
    log = log_file(tmp_path, [("s1", "gold", "")])
    (tmp_path / "nearer.yaml").write_text(
        f"task: {task}\ndata: {{corpus: {corpus}}}\nrecommend: {{interactions: {log}}}\n"
        "cluster: {label: colour}\n"
    )
    result = CliRunner().invoke(app, ["check", "-c", str(tmp_path / "nearer.yaml"), "--json"])
    assert result.exit_code == 2


def test_a_guard_names_one_bound_and_a_known_task() -> None:
    for guard in (
        {"task": "cluster", "measure": "ARI"},
        {"task": "cluster", "measure": "ARI", "keep": 0.9, "margin": 0.1},
        {"task": "clusters", "measure": "ARI", "margin": 0.1},
    ):
        with pytest.raises(NearerError):
            config.build({"decide": {"guards": [guard]}})
