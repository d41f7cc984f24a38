"""The data decides the loss: each kind of example gets its own, and batches hold one kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nearer
from nearer import progress
from nearer.config import Data, Train
from nearer.data.corpus import Corpus
from nearer.data.inputs import external_inputs
from nearer.data.load import load_training
from nearer.errors import ConfigError, DataError
from nearer.stages.train import training_rows
from nearer.training import engine
from nearer.training.batches import Collator, DocumentBatches, batches_of
from nearer.training.examples import (
    Duplicates,
    Guide,
    Part,
    TextVectors,
    TrainingSet,
    build_training_set,
    read_examples,
)
from nearer.training.losses import choose_loss, losses_of
from nearer.training.methods import candidates
from nearer.training.parts import MOST_GRADED, planned
from nearer.training.teacher import fitted
from nearer.types import Document, Example, Query
from test_contract_losses import batch_of, open_model
from test_training import toy

PAIRS = [Example(f"answer {i}", query=f"question {i}") for i in range(6)]
TRIPLETS = [Example(f"good {i}", query=f"which {i}", negatives=(f"bad {i}",)) for i in range(4)]
SCORED = [Example(f"left {i}", query=f"right {i}", score=1.0 + i, symmetric=True) for i in range(5)]
TAUGHT = [
    Example(f"fine {i}", query=f"what {i}", negatives=(f"poor {i}",), teacher_scores=(2.0, -1.0))
    for i in range(3)
]


def plan(examples: list[Example], min_score: float | None = None, **settings: Any) -> TrainingSet:
    """The training set of examples that carry texts, with its losses."""
    rows = build_training_set(examples, None, {}, {}, Duplicates())
    return planned(rows, Train(**settings), min_score, Path())


GRADES = {"q": {"best": 3, "good": 2, "fair": 1}, "r": {"good": 1}}


def graded(**settings: Any) -> TrainingSet:
    """Judged examples of two queries over four documents."""
    corpus = Corpus.from_documents(
        Document(name, f"a {name} answer") for name in ("best", "good", "fair", "bad")
    )
    queries = {name: Query(name, f"query {name}") for name in GRADES}
    examples = [
        Example("fair", query_id="q", negatives=("bad",)),
        Example("best", query_id="q"),
        Example("good", query_id="q", weight=0.5),
        Example("good", query_id="r"),
    ]
    rows = build_training_set(examples, corpus, queries, GRADES, Duplicates())
    return planned(rows, Train(**settings), None, Path())


def test_a_grade_that_the_weights_hold_already_counts_once() -> None:
    corpus = Corpus.from_documents(Document(name, f"a {name} answer") for name in GRADES["q"])
    examples = [
        Example(name, query_id="q", weight=grade / 3) for name, grade in GRADES["q"].items()
    ]
    judged = {"q": GRADES["q"]}
    rows = build_training_set(examples, corpus, {"q": Query("q", "query")}, judged, Duplicates())
    once = planned(rows, Train(), None, Path(), weighted_by_grade=True)
    assert sorted(once.grade(0).values()) == pytest.approx([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("examples", "loss", "reason"),
    [
        (PAIRS, "ranking", "ranking, for 6 pairs of a query and its positive"),
        (TRIPLETS, "ranking", "ranking, for 4 pairs of a query and its positive with negatives"),
        (SCORED, "cosent", "cosent, for 5 pairs with scores from 1 to 5"),
        (TAUGHT, "distill_kl", "distill_kl, for 3 examples with a reranker's scores"),
    ],
)
def test_the_examples_decide_the_loss_and_the_reason_is_a_sentence(
    examples: list[Example], loss: str, reason: str
) -> None:
    rows = plan(examples)
    assert [part.loss for part in rows.parts] == [loss]
    assert rows.reason.startswith(f"The loss is {reason}")
    assert rows.reason.endswith(".")
    assert losses_of(rows, "auto").name == loss


def test_a_teacher_makes_pairs_imitate_it_and_a_named_loss_goes_before() -> None:
    assert plan(PAIRS, teacher="large").parts == (Part("mse"),)
    rows = plan(TRIPLETS, loss="triplet")
    assert rows.parts == (Part("triplet"),)
    assert rows.reason == "The loss is triplet, which train.loss names."


def test_judgments_of_several_grades_become_one_list_per_query() -> None:
    rows = graded()
    assert rows.parts == (Part("listwise"),)
    assert "4 judgments with grades from 1 to 3" in rows.reason
    texts = [rows.documents[document] for _, document, _ in rows.rows]
    assert texts == ["a best answer", "a good answer"]
    gains = {rows.documents[document]: gain for document, gain in rows.grade(0).items()}
    assert gains == {"a best answer": 3.0, "a good answer": 1.0, "a fair answer": 1.0}
    _, _, others = rows.rows[0]
    assert sorted(rows.documents[document] for document in others) == [
        "a bad answer",
        "a fair answer",
        "a good answer",
    ]
    assert rows.weight(0) == 1.0


def test_a_list_keeps_the_best_grades_where_there_are_very_many() -> None:
    n = MOST_GRADED + 9
    corpus = Corpus.from_documents(Document(f"d{i:02}", f"text {i}") for i in range(n))
    examples = [Example(f"d{i:02}", query_id="q") for i in range(n)]
    judgments = {"q": {f"d{i:02}": 1 + i for i in range(n)}}
    rows = build_training_set(examples, corpus, {"q": Query("q", "which")}, judgments, Duplicates())
    (row,) = planned(rows, Train(), None, Path()).rows
    assert rows.documents[row[1]] == f"text {n - 1}"
    assert len(row[2]) == MOST_GRADED - 1


def mixed() -> TrainingSet:
    return plan([*PAIRS, *SCORED, *TRIPLETS, *TAUGHT], batch_size=2)


def test_mixed_examples_train_each_with_its_own_loss() -> None:
    rows = mixed()
    assert rows.parts == (Part("ranking"), Part("cosent", symmetric=True), Part("distill_kl"))
    assert losses_of(rows, "auto").name == "ranking + cosent + distill_kl"
    assert rows.reason.startswith("Each part of the examples trains with its own loss: ranking for")


def test_batches_hold_one_part_each_in_proportion_and_in_an_order_that_the_seed_decides() -> None:
    rows, settings = mixed(), Train(batch_size=2)
    samplers = [batches_of(rows, settings) for _ in range(2)]
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        batches = list(samplers[0])
        assert batches == list(samplers[1])
        assert len(batches) == len(samplers[0])
        assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
        parts = [{rows.part(row) for row in batch} for batch in batches]
        assert all(len(part) == 1 for part in parts)
        assert [parts.count({part}) for part in range(3)] == [5, 3, 2]
    first = batches_of(rows, settings)
    other = batches_of(rows, settings.model_copy(update={"seed": 8}))
    assert list(first) != list(other)


def test_one_part_is_sampled_as_before() -> None:
    rows, settings = plan(PAIRS), Train(batch_size=2)
    plain = DocumentBatches(rows, 2, settings.queries_per_document, settings.seed)
    assert list(batches_of(rows, settings)) == list(plain)


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2))
def test_positives_of_one_query_are_never_each_others_negatives(
    pairs: set[tuple[int, int]],
) -> None:
    rows = plan([Example(f"document {d}", query=f"query {q}") for q, d in sorted(pairs)])

    def tokenize(texts: list[str], kind: str) -> dict[str, Any]:
        return {"input_ids": torch.zeros(len(texts), 1)}

    collate = Collator(rows, tokenize)
    for positions in batches_of(rows, Train(batch_size=4)):
        label = collate([{"row": position} for position in positions])["label"]
        for row, position in enumerate(positions):
            query, positive, _ = rows.rows[position]
            for other_row, other in enumerate(positions):
                other_query, other_positive, _ = rows.rows[other]
                if other_query == query and other_positive != positive:
                    assert label["blocked"][row, label["target"][other_row]]


def test_texts_of_symmetric_pairs_are_documents_and_encoded_once(tiny_model: Path) -> None:
    examples = [
        Example("a cat sleeps", query="a dog runs", score=1.0, symmetric=True),
        Example("a dog runs", query="a bird sings", score=4.0, symmetric=True),
    ]
    rows = plan(examples)
    kinds: list[tuple[str, list[str]]] = []
    model = open_model(tiny_model)

    def features(texts: list[str], kind: str) -> dict[str, Any]:
        kinds.append((kind, texts))
        return dict(model.preprocess(texts))

    batch = Collator(rows, features)([{"row": 0}, {"row": 1}])
    assert [kind for kind, _ in kinds] == ["document"]
    assert sorted(kinds[0][1]) == ["a bird sings", "a cat sleeps", "a dog runs"]
    label = batch["label"]
    encoded = [model(part)["sentence_embedding"] for part in batch_of(model, rows, [0, 1])[0]]
    vectors = torch.nn.functional.normalize(torch.cat(encoded), dim=-1)
    expected = torch.tensor(model.encode(["a dog runs", "a bird sings"], normalize_embeddings=True))
    queries = vectors[label["query_order"]][label["query"]]
    assert torch.allclose(queries, expected, atol=1e-5)
    documents = vectors[label["document_order"]][label["target"]]
    assert torch.allclose(documents[1], queries[0], atol=1e-6)


def test_what_the_base_model_finds_better_than_the_positive_is_no_negative() -> None:
    queries = np.eye(2, 3, dtype=np.float32)
    documents = np.array([[0.5, 0, 0.866], [0.9, 0.3, 0.3], [0.55, 0.4, 0.7]], np.float32)
    rows = TrainingSet(
        ("q", "r"),
        ("one", "two", "three"),
        ((0, 0, (2,)), (1, 1, ())),
        (frozenset({0}), frozenset({1})),
        guide=Guide(TextVectors(queries, documents), margin=0.0),
    )

    def tokenize(texts: list[str], kind: str) -> dict[str, Any]:
        return {"input_ids": torch.zeros(len(texts), 1)}

    label = Collator(rows, tokenize)([{"row": 0}, {"row": 1}])["label"]
    # Of q: `two` is above its positive; so is `three`, which was chosen as a hard negative.
    assert label["blocked"].tolist() == [[False, True, False], [False, False, True]]
    assert label["negatives"][0].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("examples", "settings", "message"),
    [
        (
            [Example(f"b {i}", query=f"a {i}", score=2.0) for i in range(3)],
            {},
            "all 3 scored pairs have the score 2: nothing says which",
        ),
        ([*SCORED, *PAIRS], {"loss": "cosent"}, r"jsonl:6: the loss cosent learns from scores"),
        ([*TRIPLETS, *PAIRS], {"loss": "triplet"}, "jsonl:5: .* and 6 of 10 examples have none"),
        (
            [*TAUGHT, *TRIPLETS],
            {"loss": "margin_mse"},
            "jsonl:4: .* reranker's scores .* and 4 of 7 examples have none",
        ),
        (PAIRS, {"loss": "mse"}, "imitates a teacher's vectors, and no teacher is named"),
        (PAIRS, {"loss": "listwise"}, "learns from grades, and 6 of 6 examples are not judged"),
        (SCORED, {"loss": "ranking"}, "jsonl:1: the example has the score 1, and mine.min_score"),
    ],
)
def test_examples_that_a_loss_cannot_learn_from_are_refused(
    examples: list[Example], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        plan(examples, **settings)


def test_a_single_grade_has_no_order_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRADES, "q", {"best": 1, "good": 1, "fair": 1})
    assert graded().parts == (Part("ranking"),)
    with pytest.raises(DataError, match="all 4 judgments have the grade 1: there is no order"):
        graded(loss="listwise")


def test_a_negative_that_is_the_positive_is_left_out_and_said() -> None:
    heard: list[str] = []

    class Ear(progress.Silent):
        def message(self, text: str, level: str) -> None:
            heard.append(text)

    odd = Example("same", query="q", negatives=("same", "other"), teacher_scores=(3.0, 2.0, 1.0))
    with progress.listen(Ear()):
        rows = plan([odd])
    (row,) = rows.rows
    assert [rows.documents[document] for document in row[2]] == ["other"]
    assert {rows.documents[d]: score for d, score in rows.teacher_score(0).items()} == {
        "same": 3.0,
        "other": 1.0,
    }
    assert heard == ["left out 1 negatives that are the positive of their own example"]
    with pytest.raises(DataError, match="1 of 1 examples have none"):
        plan([Example("same", query="q", negatives=("same",))], loss="triplet")


def test_cosine_gets_scores_from_0_to_1_and_order_losses_get_them_as_they_are() -> None:
    assert plan(SCORED, loss="cosine").scores == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert plan(SCORED, loss="angle").scores == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_weights_and_teacher_scores_come_from_files_and_go_into_the_batch(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"query": "q", "positive": "p", "negative": ["a", "b"]},
        {"query": "r", "positive": "s", "negative": ["a"], "weight": 0.25},
    ]
    lines[0] |= {"teacher_scores": [3, 2, 1], "weight": None}
    (tmp_path / "taught.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "pairs.csv").write_text("query,positive\nx,y\n")
    examples = load_training(Data(training=("taught.jsonl", "pairs.csv")), tmp_path)
    assert [example.weight for example in examples] == [1.0, 0.25, 1.0]
    assert examples[0].teacher_scores == (3.0, 2.0, 1.0)
    (tmp_path / "examples.jsonl").write_text(
        "\n".join(json.dumps(example.as_dict()) for example in [*examples, SCORED[0]])
    )
    assert read_examples(tmp_path / "examples.jsonl") == [*examples, SCORED[0]]
    rows = plan(examples)
    assert [part.loss for part in rows.parts] == ["distill_kl", "ranking"]

    def tokenize(texts: list[str], kind: str) -> dict[str, Any]:
        return {"input_ids": torch.zeros(len(texts), 1)}

    label = Collator(rows, tokenize)([{"row": 1}, {"row": 2}])["label"]
    assert label["weight"].tolist() == [0.25, 1.0]
    assert label["part"] == 1
    label = Collator(rows, tokenize)([{"row": 0}])["label"]
    assert label["teacher_score"].tolist() == [[3.0, 2.0, 1.0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"teacher_scores": [1.0]}, "teacher_scores is not a list of 2 numbers"),
        ({"teacher_scores": [1.0, None]}, "teacher_scores None is not a finite number"),
        ({"weight": 0}, "weight 0 is not above 0 and at most 1"),
        ({"weight": 3}, "weight 3 is not above 0 and at most 1"),
    ],
)
def test_a_bad_teacher_score_or_weight_is_named_with_its_line(
    tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    row = {"query": "q", "positive": "p", "negative": "n", **line}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: {message}"):
        load_training(Data(training="rows.jsonl"), tmp_path)


@pytest.mark.parametrize("scores", ["[1.0]", "[1.0, null]", "3"])
def test_bad_teacher_scores_of_an_example_are_refused(tmp_path: Path, scores: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(
        '{"query": "q", "positive": "p", "negatives": ["n"], "teacher_scores": ' + scores + "}\n"
    )
    with pytest.raises(DataError, match=r"examples\.jsonl:1: "):
        read_examples(path)


def test_a_teacher_of_another_width_keeps_its_similarities() -> None:
    rng = np.random.default_rng(0)

    def unit(n: int, width: int, rank: int) -> np.ndarray:
        vectors = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, width))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    for teacher_width in (4, 8, 20):
        teacher = TextVectors(unit(5, teacher_width, 4), unit(9, teacher_width, 4))
        teacher = TextVectors(teacher.documents[:5], teacher.documents)
        base = TextVectors(unit(5, 8, 8), unit(9, 8, 8))
        vectors = fitted(teacher, base, 8, "large")
        assert vectors.queries.shape == (5, 8)
        similar = vectors.queries @ vectors.documents.T
        assert np.allclose(similar, teacher.queries @ teacher.documents.T, atol=1e-4)


def test_a_teacher_is_among_what_training_reads(tmp_path: Path) -> None:
    settings = nearer.config.build({"train": {"teacher": "large"}})
    assert external_inputs("loss", settings, tmp_path) == {"teacher": "large"}


def test_the_general_set_of_training_is_among_what_training_reads(
    small_data: Path, tmp_path: Path
) -> None:
    settings = nearer.config.build({"train": {"general": str(small_data)}})
    inputs = external_inputs("loss", settings, tmp_path)
    assert inputs is not None
    assert small_data / "corpus.jsonl" in inputs.values()
    assert external_inputs("loss", nearer.config.build({}), tmp_path) == {}


def test_a_setting_that_does_not_fit_the_loss_is_named_as_it_is(tiny_model: Path) -> None:
    settings = Train(matryoshka=(9999,))
    with pytest.raises(ConfigError, match="not fewer than the model's"):
        engine._loss(losses_of(plan(PAIRS), "auto"), open_model(tiny_model), settings)


def test_a_loss_that_computes_nothing_is_refused_before_it_trains(tmp_path: Path) -> None:
    source = "from nearer.training.losses.base import Loss\n\n\nclass Empty(Loss):\n    pass\n"
    (tmp_path / "empty_loss.py").write_text(source)
    with pytest.raises(ConfigError, match="neither of_vectors nor forward"):
        choose_loss("empty_loss:Empty", tmp_path)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"margin": 0}, {"mini_batch": -1}, {"matryoshka": [0]}, {"guide_margin": 3}):
        with pytest.raises(ConfigError, match="train"):
            nearer.config.build({"train": settings})


@pytest.fixture
def project(
    small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> nearer.Project:
    """Judgments together with a file of scored pairs and one of triplets, and every option on."""
    # What is trained is the point here: no adapter may take its place.
    monkeypatch.setattr(candidates, "_references", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    lines = [
        {"sentence1": f"text {i} on maps", "sentence2": f"line {i} on maps", "score": i % 5}
        for i in range(12)
    ]
    (tmp_path / "scored.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return nearer.load(
        small_data,
        model=str(tiny_model),
        data={"training": ["scored.jsonl"]},
        train={
            "epochs": 1,
            "batch_size": 8,
            "merge_tolerance": 0,
            "symmetric": True,
            "guide_margin": 0.0,
            "matryoshka": [64],
            "mini_batch": 16,
        },
        mine={"negatives": 1},
    )


@pytest.mark.long
def test_judgments_and_scored_pairs_train_together_and_the_record_says_how(
    project: nearer.Project,
) -> None:
    trained = nearer.train(project, nearer.mine(project).examples)
    assert trained.summary["loss"] == "ranking + cosent"
    assert "cosent for 12 pairs with scores from 0 to 4" in trained.summary["loss_reason"]
    assert trained.summary["loss_reason"] in " ".join(str(trained).split())
    assert trained.summary["moved"]["moved"]


def test_the_stage_plans_the_losses(project: nearer.Project) -> None:
    rows = training_rows(project.systems, [*SCORED], project.split("train"), project.duplicates)
    assert rows.parts == (Part("cosent", symmetric=True),)
    assert toy(4).parts == ()  # a set made by hand trains with one loss
