"""The contract of losses, over every one of the registry and one of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

import nearer
from conftest import QUICK
from nearer import config, plugins
from nearer.config import Train
from nearer.data.inputs import external_inputs
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ConfigError, ModelError, SearchSystemError
from nearer.lifecycle import BY_NAME
from nearer.training.batches import Collator, DocumentBatches
from nearer.training.examples import TextVectors, TrainingSet
from nearer.training.losses import DEFAULT, ChosenLoss, choose_loss
from nearer.types import Example
from test_training import WORDS

#: A loss of somebody's own: the cosine of each pair is pulled to its score, or to 1 where it has none.
OWN = """
import torch
from nearer.training.losses.base import Loss


class CosineLoss(Loss):
    takes = "scored pairs"

    def forward(self, features, labels):
        queries, documents = self.vectors(features, labels)
        cosine = (queries[labels["query"]] * documents[labels["target"]]).sum(1)
        return ((cosine - labels["score"].nan_to_num(1.0)) ** 2).mean()


class Pairs(CosineLoss):
    takes = "pairs"


class Vectors(Loss):
    def of_vectors(self, vectors, labels):
        return (1 - vectors.cosines(labels)).mean()


class Astray(CosineLoss):
    takes = "sonnets"


class Unmakeable(CosineLoss):
    def __init__(self, model, settings):
        raise RuntimeError("no weights here")


def function(model, settings):
    return None
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    """The module of the user's own losses, in tmp_path."""
    name = f"own_loss_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def every_loss(own: str, tmp_path: Path) -> dict[str, ChosenLoss]:
    """All of the registry, and the user's own, with and without `forward`."""
    names = [*plugins.names("loss"), f"{own}:CosineLoss", f"{own}:Vectors"]
    return {name: choose_loss(name, tmp_path) for name in names}


def random_rows(rng: np.random.Generator, n: int = 18) -> TrainingSet:
    """Pairs of random words, several queries per document, with all that any loss takes."""

    def text(kind: str, number: int) -> str:
        return f"{kind} {number} {' '.join(rng.choice(WORDS, rng.integers(1, 12)))}"

    n_documents = n // 2
    rows, blocked, grades = [], [], []
    for query in range(n):
        positive = int(rng.integers(n_documents))
        negative = (positive + 1 + int(rng.integers(n_documents - 1))) % n_documents
        rows.append((query, positive, (negative,)))
        blocked.append(frozenset({positive, int(rng.integers(n_documents))} - {negative}))
        grades.append({positive: 2.0, negative: 1.0})
    return TrainingSet(
        tuple(text("query", number) for number in range(n)),
        tuple(text("document", number) for number in range(n_documents)),
        tuple(rows),
        tuple(blocked),
        tuple(float(score) for score in rng.uniform(0, 1, n)),
        weights=tuple(float(weight) for weight in rng.uniform(0.2, 1, n)),
        grades=tuple(grades),
        teacher_scores=tuple(
            (float(scores[0]), float(scores[1])) for scores in rng.normal(size=(n, 2))
        ),
        teacher=TextVectors(unit(rng, n), unit(rng, n_documents)),
    )


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random vectors of a teacher, as wide as the model."""
    vectors = rng.normal(size=(n, 384)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def batch_of(model: Any, rows: TrainingSet, positions: Sequence[int]) -> tuple[list[Any], Any]:
    """Features and labels, as sentence-transformers' Trainer hands them to a loss."""
    encoder = SentenceEncoder(model)
    batch = Collator(rows, encoder.features)([{"row": position} for position in positions])
    labels = batch.pop("label")
    names = dict.fromkeys(key.split("_")[0] for key in batch)
    features: list[Any] = []
    for name in names:
        prefix = f"{name}_"
        own = {key.removeprefix(prefix): batch[key] for key in batch if key.startswith(prefix)}
        features.append(own)
    return features, labels


def open_model(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu").eval()


def gradients(model: Any) -> list[torch.Tensor]:
    return [weights.grad for weights in model.parameters() if weights.grad is not None]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_is_a_finite_scalar_with_finite_gradients(
    every_loss: dict[str, ChosenLoss], tiny_model: Path, seed: int
) -> None:
    rows = random_rows(np.random.default_rng(seed))
    for name, chosen in every_loss.items():
        model = open_model(tiny_model)
        for positions in DocumentBatches(rows, 6, 3, seed):
            value = chosen.make(model, Train())(*batch_of(model, rows, positions))
            assert value.shape == (), name
            value.backward()
        assert gradients(model), name
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(model)), name
        assert any(bool(gradient.any()) for gradient in gradients(model)), name


@pytest.mark.long
def test_a_loss_does_not_depend_on_the_order_of_the_rows(
    every_loss: dict[str, ChosenLoss], tiny_model: Path
) -> None:
    rows = random_rows(np.random.default_rng(5))
    model = open_model(tiny_model)
    for name, chosen in every_loss.items():
        loss = chosen.make(model, Train())
        values = [
            loss(*batch_of(model, rows, positions)).item()
            for positions in (list(range(18)), list(range(17, -1, -1)))
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-4), name


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_the_ranking_loss_without_a_mask_is_that_of_sentence_transformers(
    tiny_model: Path, scale: float
) -> None:
    rng = np.random.default_rng(11)
    texts = random_rows(rng)
    n = len(texts.documents)
    rows = TrainingSet(
        texts.queries[:n],
        texts.documents,
        tuple((position, position, ()) for position in range(n)),
        tuple(frozenset({position}) for position in range(n)),
    )
    ours, theirs = open_model(tiny_model), open_model(tiny_model)
    loss = choose_loss("ranking").make(ours, Train(scale=scale))
    value = loss(*batch_of(ours, rows, range(n)))
    value.backward()
    reference = MultipleNegativesRankingLoss(theirs, scale=scale)(
        [theirs.preprocess(list(rows.queries)), theirs.preprocess(list(rows.documents))], None
    )
    reference.backward()
    assert value.item() == pytest.approx(reference.item(), abs=1e-5)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_a_blocked_document_is_not_pushed_away(tiny_model: Path) -> None:
    texts = ("one thing", "another thing", "a third")
    rows = ((0, 0, (2,)), (1, 1, (2,)))
    values = []
    for extra in (set(), {2}):
        blocked = (frozenset({0} | extra), frozenset({1} | extra))
        model = open_model(tiny_model)
        loss = choose_loss(DEFAULT).make(model, Train())
        values.append(
            float(loss(*batch_of(model, TrainingSet(("q", "r"), texts, rows, blocked), [0, 1])))
        )
    assert values[1] < values[0]


def test_the_labels_say_which_negatives_and_scores_belong_to_each_row(tiny_model: Path) -> None:
    rows = TrainingSet(
        ("q", "r"),
        ("one", "two", "three"),
        ((0, 0, (1, 2)), (1, 1, (2,))),
        (frozenset({0, 2}), frozenset({1})),
        (0.25, None),
    )
    _, labels = batch_of(open_model(tiny_model), rows, [0, 1])
    documents = [0, 1, 2]  # positives first
    assert labels["target"].tolist() == [documents.index(0), documents.index(1)]
    assert labels["negatives"].tolist() == [[False, True, False], [False, False, True]]
    assert labels["score"][0] == 0.25
    assert bool(labels["score"][1].isnan())


def test_auto_is_the_default_loss(tmp_path: Path) -> None:
    assert choose_loss("auto") == choose_loss(DEFAULT)
    assert Train().loss == "auto"


def test_what_is_no_loss_is_refused(own: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean ranking"):
        choose_loss("rankin", tmp_path)
    with pytest.raises(ConfigError, match=r"not a class of torch\.nn\.Module"):
        choose_loss(f"{own}:function", tmp_path)
    with pytest.raises(ConfigError, match="takes is 'sonnets', not one of 'pairs', 'triplets'"):
        choose_loss(f"{own}:Astray", tmp_path)
    with pytest.raises(SearchSystemError, match="no such module"):
        choose_loss("nowhere_at_all:Loss", tmp_path)


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradient_caching_and_widths_change_what_is_computed_at_once_and_nothing_else(
    tiny_model: Path, symmetric: bool
) -> None:
    """Against sentence-transformers' cached loss, in two widths: values and gradients."""
    texts = random_rows(np.random.default_rng(12))
    n = len(texts.documents)
    rows = TrainingSet(
        texts.queries[:n],
        texts.documents,
        tuple((position, position, ()) for position in range(n)),
        tuple(frozenset({position}) for position in range(n)),
    )
    settings = Train(symmetric=symmetric, mini_batch=4, matryoshka=(64,))
    ours, theirs, plain = (open_model(tiny_model) for _ in range(3))
    value = choose_loss("ranking").make(ours, settings)(*batch_of(ours, rows, range(n)))
    value.backward()
    directions = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    inner = CachedMultipleNegativesRankingLoss(
        theirs, mini_batch_size=4, **(directions if symmetric else {})
    )
    other = MatryoshkaLoss(theirs, inner, [384, 64])(
        [theirs.preprocess(list(rows.queries)), theirs.preprocess(list(rows.documents))], None
    )
    other.backward()
    uncached = settings.model_copy(update={"mini_batch": 0})
    whole = choose_loss("ranking").make(plain, uncached)(*batch_of(plain, rows, range(n)))
    whole.backward()
    assert value.item() == pytest.approx(other.item(), abs=1e-4)
    assert value.item() == pytest.approx(whole.item(), abs=1e-4)
    for mine, cached, once in zip(
        gradients(ours), gradients(theirs), gradients(plain), strict=True
    ):
        assert torch.allclose(mine, cached, atol=1e-4)
        assert torch.allclose(mine, once, atol=1e-4)


def test_settings_that_do_not_fit_a_loss_or_a_model_are_refused(
    own: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = open_model(tiny_model)
    with pytest.raises(ConfigError, match=r"train\.matryoshka: 384 dimensions are not fewer"):
        choose_loss("ranking").make(model, Train(matryoshka=(384,)))
    with pytest.raises(
        ConfigError, match=r"train\.mini_batch: CosineLoss has a forward of its own"
    ):
        choose_loss(f"{own}:CosineLoss", tmp_path).make(model, Train(mini_batch=8))


@pytest.fixture
def project_with(
    small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], nearer.Project]:
    """`project_with(loss)` is a project in tmp_path that trains with this loss."""
    monkeypatch.chdir(tmp_path)

    def load(loss: str) -> nearer.Project:
        return nearer.load(
            small_data,
            model=str(tiny_model),
            train={**QUICK["train"], "loss": loss, "merge_tolerance": 0, "dev_documents": 40},
            mine={"negatives": 0},
        )

    return load


@pytest.mark.long
def test_a_loss_of_ones_own_trains_and_the_record_names_it(
    own: str, project_with: Callable[[str], nearer.Project]
) -> None:
    project = project_with(f"{own}:Pairs")
    examples = nearer.mine(project).examples[:40]
    trained = nearer.train(project, examples)
    assert trained.summary["loss"] == f"{own}:Pairs"
    assert trained.summary["settings"]["loss"] == f"{own}:Pairs"
    assert trained.summary["steps"] > 0
    assert trained.summary["pairs_per_second"] > 0
    losses = [line["loss"] for line in trained.history if "loss" in line]
    assert 0 < losses[-1] < 1  # a squared difference of cosines, not a cross-entropy
    usual = nearer.train(project_with("auto"), examples)
    assert usual.summary["loss"] == DEFAULT
    text = ["an attacker overflows a buffer"]
    assert not np.allclose(trained.model.encode(text), usual.model.encode(text), atol=1e-4)


def test_training_runs_again_when_the_users_loss_changes(own: str, tmp_path: Path) -> None:
    name = f"{own}:Pairs"
    settings = config.build({"train": {"loss": name}})
    assert "loss" in BY_NAME["train"].reads
    assert external_inputs("loss", settings, tmp_path) == {name: tmp_path / f"{own}.py"}
    assert external_inputs("loss", config.Config(), tmp_path) == {}


@pytest.mark.long
def test_a_loss_that_cannot_be_made_is_said_to_be_the_reason(
    own: str, project_with: Callable[[str], nearer.Project]
) -> None:
    project = project_with(f"{own}:Unmakeable")
    scored = [Example(f"text {word}", query=word, score=len(word)) for word in WORDS]
    with pytest.raises(ModelError, match=r"train\.loss: .*RuntimeError: no weights here"):
        nearer.train(project, scored)
