"""check: findings, and what it freezes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nearer import config
from nearer.data import items
from nearer.data.corpus import Corpus
from nearer.data.heldout import HeldOut, open_test
from nearer.data.splits import read_split
from nearer.embed.tokens import Tokens
from nearer.errors import DataError
from nearer.lifecycle import BY_NAME
from nearer.project import Project
from nearer.stages.check import CheckResult, check, run
from nearer.types import Document, Finding, Query

EXAMPLE = Path(__file__).parents[1] / "examples" / "cwe"


def words(n: int, start: int = 0) -> str:
    return " ".join(f"word{start + i}" for i in range(n))


def corpus(n: int = 12) -> Corpus:
    return Corpus.from_documents(Document(f"d{i}", words(20, 100 * i)) for i in range(n))


def queries(texts: Mapping[str, str]) -> dict[str, Query]:
    return {query_id: Query(query_id, text) for query_id, text in texts.items()}


def by_code(result: CheckResult) -> dict[str, Finding]:
    return {finding.code: finding for finding in result.findings}


def three_splits(n: int = 4) -> tuple[dict[str, Query], dict[str, dict[str, dict[str, int]]]]:
    names = ("train", "dev", "test")
    texts = {
        f"{name}{i}": words(8, 1000 * (k + 1) + 10 * i)
        for k, name in enumerate(names)
        for i in range(n)
    }
    return queries(texts), {
        name: {f"{name}{i}": {f"d{k * n + i}": 1} for i in range(n)} for k, name in enumerate(names)
    }


def test_clean_data_is_kept_as_it_is() -> None:
    asked, judgments = three_splits()
    result = check(corpus(), asked, judgments)
    assert {name: dict(split.judgments) for name, split in result.splits.items()} == judgments
    assert set(by_code(result)) == {"truncation_unknown", "low_power"}
    assert not result.item_to_item


def test_training_queries_that_repeat_held_out_ones_are_dropped_and_shown() -> None:
    asked, judgments = three_splits()
    asked["train0"] = Query("train0", asked["test1"].text.upper() + "?")
    asked["train1"] = Query("train1", asked["dev1"].text)
    asked["dev2"] = Query("dev2", asked["test3"].text)
    result = check(corpus(), asked, judgments)
    assert [query.id for query in result.splits["train"].queries] == ["train2", "train3"]
    assert [query.id for query in result.splits["dev"].queries] == ["dev0", "dev1", "dev3"]
    assert len(result.splits["test"]) == 4
    assert result.dropped == {"dev": 1, "train": 2}
    finding = by_code(result)["repeated_queries_train"]
    assert finding.figures == {"exact": 2, "near": 0, "train/dev": 1, "train/test": 1}
    assert "train0" in finding.examples[0]
    assert "test1" in finding.examples[0]


def test_near_repeats_are_dropped_at_the_configured_similarity() -> None:
    asked, judgments = three_splits()
    asked["train0"] = Query("train0", asked["test0"].text + " end")
    assert check(corpus(), asked, judgments).dropped["train"] == 0
    result = check(corpus(), asked, judgments, settings=config.Check(near_duplicate=0.8))
    assert result.dropped["train"] == 1
    assert by_code(result)["repeated_queries_train"].figures["near"] == 1


def test_a_query_in_two_splits_stays_in_the_later_one() -> None:
    asked, judgments = three_splits()
    judgments["train"]["test0"] = {"d0": 1}
    result = check(corpus(), asked, judgments)
    assert "test0" not in result.splits["train"].judgments
    assert "test0" in result.splits["test"].judgments


def test_shared_relevant_documents_are_counted_by_pair_of_splits() -> None:
    asked, judgments = three_splits()
    judgments["test"]["test0"] = {"d0": 1}
    judgments["dev"]["dev0"] = {"d0": 1, "d1": 0}
    finding = by_code(check(corpus(), asked, judgments))["shared_documents"]
    assert finding.figures == {
        "train/dev": 1,
        "train/test": 1,
        "dev/test": 1,
        "test_queries_with_seen_documents_only": 1,
    }
    assert "1 in both train and test" in finding.message


def test_judgments_of_unknown_queries_are_left_out_and_those_of_missing_documents_stay() -> None:
    asked, judgments = three_splits()
    judgments["train"]["train0"] |= {"nowhere": 1}
    judgments["train"]["nobody"] = {"d0": 1}
    result = check(corpus(), asked, judgments)
    assert by_code(result)["missing_documents"].examples == ("nowhere",)
    assert by_code(result)["missing_queries"].examples == ("nobody",)
    assert result.splits["train"].judgments["train0"] == {"d0": 1, "nowhere": 1}
    assert result.counts["missing_relevant_documents"] == 1
    assert "queries_without_findable" not in by_code(result)
    assert "nobody" not in result.splits["train"].judgments


def test_queries_that_cannot_be_used_are_left_out_and_counted() -> None:
    asked, judgments = three_splits()
    asked |= queries(
        {"unjudged": "never asked before", "blank": "  ", "barren": "no document for this"}
    )
    judgments["train"] |= {"blank": {"d0": 1}, "barren": {"d0": 0}}
    result = check(corpus(), asked, judgments)
    found = by_code(result)
    assert {
        code: found[code].count
        for code in ("queries_without_judgments", "empty_queries", "queries_without_relevant")
    } == {
        "queries_without_judgments": 1,
        "empty_queries": 1,
        "queries_without_relevant": 1,
    }
    assert {query.id for query in result.splits["train"].queries} == {
        "train0",
        "train1",
        "train2",
        "train3",
    }


def test_a_query_whose_only_document_is_missing_stays_in_its_split_with_a_warning() -> None:
    asked, judgments = three_splits()
    judgments["test"]["test0"] = {"nowhere": 1}
    result = check(corpus(), asked, judgments)
    assert result.splits["test"].judgments["test0"] == {"nowhere": 1}
    assert len(result.splits["test"]) == 4
    assert by_code(result)["queries_without_findable"].count == 1


def test_empty_equal_and_near_documents_are_found() -> None:
    asked, judgments = three_splits()
    more = [
        Document("empty", " "),
        Document("same", words(20, 0).upper()),
        Document("near", words(60, 9000)),
        Document("near2", words(60, 9000) + " x"),
    ]
    result = check(Corpus.from_documents([*corpus(), *more]), asked, judgments)
    found = by_code(result)
    assert found["empty_documents"].examples == ("empty",)
    assert found["duplicate_documents"].figures == {"pairs": 1}
    assert found["near_duplicate_documents"].count == 2
    assert set(result.duplicate_documents) == {("d0", "same"), ("near", "near2")}


def test_near_duplicate_query_groups_hold_training_queries_only() -> None:
    asked, judgments = three_splits()
    asked["train1"] = Query("train1", asked["train0"].text.title())
    asked["test1"] = Query("test1", asked["test0"].text.title())
    result = check(corpus(), asked, judgments)
    assert result.duplicate_train_queries == (("train0", "train1"),)


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_truncation_is_measured_with_the_models_own_tokens() -> None:
    asked, judgments = three_splits()
    documents = Corpus.from_documents(
        Document(f"d{i}", words(40 if i < 3 else 10, 100 * i)) for i in range(12)
    )
    result = check(documents, asked, judgments, tokens=Tokens(count_words, 30))
    assert by_code(result)["truncation"].figures == {"share": 0.25, "lost": 0.25}
    assert result.lengths["max_seq_length"] == 30
    assert result.lengths["document_tokens"]["longest"] == 40


def test_data_without_test_queries_has_no_power() -> None:
    asked, judgments = three_splits()
    assert check(corpus(), asked, judgments).power["smallest_difference"] == pytest.approx(
        0.720,
        abs=0.001,  # four queries
    )
    result = check(
        corpus(),
        asked,
        {name: judgments[name] for name in ("train", "dev")},
        data=config.Data(split=config.SplitSettings(test=0.0)),
    )
    assert result.power["smallest_difference"] is None


# -- item to item ------------------------------------------------------------------------------


def test_item_to_item_data_is_noticed_and_no_item_is_relevant_to_itself() -> None:
    documents = corpus()
    asked = {one.id: Query(one.id, one.text) for one in documents}
    judgments = {"all": {f"d{i}": {f"d{i}": 1, f"d{(i + 1) % 12}": 1} for i in range(12)}}
    result = check(
        documents, asked, judgments, data=config.Data(split=config.SplitSettings(dev=0.2, test=0.3))
    )
    assert result.item_to_item
    assert by_code(result)["self_judgments"].count == 12
    assert all(
        q not in docs for split in result.splits.values() for q, docs in split.judgments.items()
    )
    assert not check(documents, asked, judgments, data=config.Data(item_to_item=False)).item_to_item


def test_numbers_that_are_ids_of_both_by_chance_are_not_item_to_item() -> None:
    documents = Corpus.from_documents(Document(str(i), words(20, 100 * i)) for i in range(12))
    asked = queries({str(i): words(8, 5000 + 10 * i) for i in range(12)})
    result = check(documents, asked, {"all": {str(i): {str(i): 1} for i in range(12)}})
    assert not result.item_to_item


def faq(n: int = 12, *, text: str = "{title}", others: bool = False) -> Any:
    """A FAQ: question n is answered by entry n (and, with `others`, by entry n + 1)."""
    titles = [words(6, 100 * i) for i in range(n)]
    documents = Corpus.from_documents(
        Document(str(i), words(12, 100 * i + 50), title) for i, title in enumerate(titles)
    )
    asked = {str(i): Query(str(i), text.format(title=title)) for i, title in enumerate(titles)}
    judgments = {str(i): {str(i): 2} | ({str((i + 1) % n): 1} if others else {}) for i in range(n)}
    return documents, asked, {"all": judgments}


HALF = config.SplitSettings(dev=0.2, test=0.3)


@pytest.mark.parametrize("text", ["{title}", "please {title} now", "{title} and more of it"])
@pytest.mark.parametrize("others", [False, True])
def test_a_faq_whose_entries_have_the_ids_of_their_questions_keeps_its_judgments(
    text: str, others: bool
) -> None:
    documents, asked, judgments = faq(text=text, others=others)
    result = check(documents, asked, judgments, data=config.Data(split=HALF))
    assert not result.item_to_item
    assert by_code(result)["same_ids"].next_step.startswith("set data.item_to_item: true")
    judged = [(q, d) for split in result.splits.values() for q, docs in split.judgments.items() for d in docs]  # fmt: skip
    assert all((q, q) in judged for q in {q for q, _ in judged})


def test_items_are_noticed_by_their_titles_where_no_item_is_judged_for_itself() -> None:
    documents, asked, _ = faq()
    judgments = {"all": {str(i): {str((i + 1) % 12): 1} for i in range(12)}}
    assert check(documents, asked, judgments, data=config.Data(split=HALF)).item_to_item


def test_what_follows_from_item_to_item_names_the_setting() -> None:
    documents, asked, judgments = faq()
    with pytest.raises(DataError, match=r"data\.item_to_item") as caught:
        check(documents, asked, judgments, data=config.Data(item_to_item=True))
    assert "data.item_to_item: false" in str(caught.value.next_step)


def test_what_check_noticed_holds_until_the_setting_says_otherwise(tmp_path: Path) -> None:
    assert not items.decided(None, tmp_path)
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "findings.json").write_text('{"item_to_item": true}')
    assert items.decided(None, tmp_path)
    assert not items.decided(False, tmp_path)
    (tmp_path / "check" / "findings.json").unlink()
    assert items.decided(True, tmp_path)


def test_queries_and_documents_of_invisible_characters_are_empty() -> None:
    documents = Corpus.from_documents(
        [*(Document(f"d{i}", words(20, 100 * i)) for i in range(12)), Document("zero", "\u200b")]
    )
    asked = queries({f"q{i}": words(8, 100 * i) for i in range(12)} | {"blank": "\u2060 \u00ad"})
    judgments = {"all": {f"q{i}": {f"d{i}": 1} for i in range(12)} | {"blank": {"d1": 1}}}
    found = by_code(check(documents, asked, judgments, data=config.Data(split=HALF)))
    assert found["empty_queries"].examples == ("blank",)
    assert found["empty_documents"].examples == ("zero",)


# -- missing splits ----------------------------------------------------------------------------


def many(n: int = 12) -> tuple[dict[str, Query], dict[str, dict[str, int]]]:
    return queries({f"q{i}": words(8, 5000 + 10 * i) for i in range(n)}), {
        f"q{i}": {f"d{i}": 1} for i in range(n)
    }


@pytest.mark.parametrize("name", ["all", "test"])
def test_a_single_split_is_divided_into_three(name: str) -> None:
    asked, judged = many()
    result = check(
        corpus(),
        asked,
        {name: judged},
        data=config.Data(split=config.SplitSettings(dev=0.25, test=0.25)),
    )
    assert {part: len(split) for part, split in result.splits.items()} == {
        "train": 6,
        "dev": 3,
        "test": 3,
    }
    assert any("Split by group with seed 7" in note for note in result.split_notes)


def test_a_missing_dev_split_is_taken_from_train_and_test_is_left_alone() -> None:
    asked, judged = many()
    given = {
        "train": {f"q{i}": judged[f"q{i}"] for i in range(10)},
        "test": {f"q{i}": judged[f"q{i}"] for i in (10, 11)},
    }
    result = check(corpus(), asked, given, data=config.Data(split=config.SplitSettings(dev=0.2)))
    assert {part: len(split) for part, split in result.splits.items()} == {
        "train": 8,
        "dev": 2,
        "test": 2,
    }
    assert set(result.splits["test"].judgments) == {"q10", "q11"}
    assert by_code(result)["made_dev"].count == 2


def test_data_without_train_can_still_be_evaluated() -> None:
    asked, judgments = three_splits()
    result = check(corpus(), asked, {name: judgments[name] for name in ("dev", "test")})
    assert "no_train" in by_code(result)
    assert len(result.splits["test"]) == 4


# -- fatal -------------------------------------------------------------------------------------


def test_judgments_of_another_corpus_are_fatal() -> None:
    asked, judgments = three_splits()
    foreign = {
        name: {q: {f"x{d}": 1 for d in docs} for q, docs in graded.items()}
        for name, graded in judgments.items()
    }
    with pytest.raises(
        DataError,
        match=r"12 of the 12 judged documents are not in the data, for example 'xd0' \(the data has 'd0'\)",
    ):
        check(corpus(), asked, foreign)


def test_all_fatal_problems_are_told_at_once() -> None:
    _, judgments = three_splits()
    blank = Corpus.from_documents(Document(f"e{i}", "") for i in range(5))
    with pytest.raises(DataError) as caught:
        check(blank, queries({"other": "x"}), judgments)
    assert len(caught.value.what.splitlines()) == 3


def test_data_without_a_usable_query_is_fatal() -> None:
    with pytest.raises(DataError, match="No query has both a text and a relevant document"):
        check(corpus(), queries({"q": "text"}), {"all": {"q": {"d0": 0}}})


# -- files -------------------------------------------------------------------------------------


def run_step(folder: Path, out: Path, **more: Any) -> dict[str, Any]:
    settings = config.build(
        {"data": {"folder": str(folder), **more}, "model": {"name": str(out / "no-model")}}
    )
    out.mkdir(parents=True, exist_ok=True)
    project = Project(settings, out, out, out, BY_NAME["check"], out)
    result = run(project)
    result.save(out)
    return result.brief()


def test_the_example_data_gives_its_known_counts_and_the_same_bytes_twice(tmp_path: Path) -> None:
    summary = run_step(EXAMPLE, tmp_path / "one")
    run_step(EXAMPLE, tmp_path / "two")
    assert summary["documents"] == 938
    assert summary["queries"] == {"train": 1244, "dev": 201, "test": 561}
    assert summary["dropped_training_queries"] == 1
    written = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    assert {path.as_posix() for path in written} == {
        "findings.json",
        "report.md",
        "heldout.npz",
        "near_duplicates.json",
        *(
            f"split/{name}/{file}"
            for name in ("train", "dev", "test")
            for file in ("queries.jsonl", "qrels.tsv")
        ),
    }
    assert all(
        (tmp_path / "two" / path).read_bytes() == content for path, content in written.items()
    )
    findings = json.loads(written[Path("findings.json")])
    assert findings["power"]["smallest_difference"] == 0.0316
    assert findings["lengths"]["max_seq_length"] is None
    duplicates = json.loads(written[Path("near_duplicates.json")])
    train = {query.id for query in read_split(tmp_path / "one" / "split", "train").queries}
    assert ["CWE-25", "CWE-26"] in duplicates["documents"] or any(
        {"CWE-25", "CWE-26"} <= set(group) for group in duplicates["documents"]
    )
    assert {query_id for group in duplicates["queries"] for query_id in group} <= train
    guard = HeldOut.load(tmp_path / "one" / "heldout.npz")
    test = open_test(tmp_path / "one" / "split", tmp_path / "looks.jsonl", "a test of nearer")
    assert all(guard.collides(query.text) == "exact" for query in test.queries)
    assert not any(
        guard.collides(query.text)
        for query in read_split(tmp_path / "one" / "split", "train").queries
    )


def test_nothing_is_written_when_a_problem_is_fatal(tmp_path: Path) -> None:
    qrels = tmp_path / "other.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\nq0001\tMISSING\t1\n")
    with pytest.raises(DataError, match="belong to another corpus"):
        run_step(EXAMPLE, tmp_path / "out", judgments=str(qrels))
    assert list((tmp_path / "out").iterdir()) == []


def test_leaks_in_data_that_brings_its_own_splits_are_reported(tmp_path: Path) -> None:
    """SciFact's situation: no dev, documents that train and test share, and test claims that train repeats in other words."""
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    texts = {f"q{i}": words(30, 1000 * i) for i in range(60)}
    texts |= {"q58": texts["q2"].upper() + "!", "q59": texts["q3"] + " too"}
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": words(20, 100 * i)}) + "\n" for i in range(60))
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": q, "text": text}) + "\n" for q, text in texts.items())
    )
    for name, asked in (("train", range(40)), ("test", range(40, 60))):
        rows = "".join(f"q{i}\td{i if i < 50 else i - 50}\t1\n" for i in asked)
        (folder / "qrels" / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    run_step(folder, tmp_path / "out", split={"dev": 0.1})
    found = {
        finding["code"]: finding
        for finding in json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    }
    figures = found["shared_documents"]["figures"]
    assert figures["train/test"] + figures["dev/test"] == 10
    assert found["made_dev"]["count"] == 4
    repeated = [
        found[code]["figures"]
        for code in ("repeated_queries_train", "repeated_queries_dev")
        if code in found
    ]
    assert (sum(one["exact"] for one in repeated), sum(one["near"] for one in repeated)) == (1, 1)
