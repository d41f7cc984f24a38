"""General texts in every batch: the model stays near its base where nothing was to be learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from nearer import config
from nearer.data.general import load_general, load_general_pairs
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.training.anchor import Anchor
from nearer.training.batches import planned_batches
from nearer.training.losses import choose_loss
from nearer.training.losses.ranking import RankingLoss
from nearer.training.recipe import Recipe
from nearer.training.trainer import train
from test_contract_losses import batch_of
from test_training import quick, toy

#: Rows of the batches that these tests make.
BATCHES = [list(range(6)), [4, 1, 7], [4, 1, 8]]


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> SentenceEncoder:
    return SentenceEncoder(SentenceTransformer(str(tiny_model), device="cpu").eval())


@pytest.fixture(scope="module")
def anchor(encoder: SentenceEncoder) -> Anchor:
    return Anchor.of_base(encoder, per_batch=10, seed=3, batches=BATCHES)


def test_a_model_that_has_not_moved_pays_nothing(encoder: SentenceEncoder, anchor: Anchor) -> None:
    rows = replace(toy(6), anchor=anchor)
    settings = config.Train(anchor=5.0)
    features, labels = batch_of(encoder.model, rows, list(range(6)))
    anchored = choose_loss("ranking").make(encoder.model, settings)(features, labels)
    alone = features[: len(features) - int(labels["anchor_parts"])]
    expected = RankingLoss(encoder.model, settings)(alone, labels)
    assert anchored.item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_term_is_the_mean_distance_from_the_base(
    tiny_model: Path, encoder: SentenceEncoder, anchor: Anchor
) -> None:
    """Against vectors that `encode` gives, for a model that has moved."""
    moved = SentenceTransformer(str(tiny_model), device="cpu").eval()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1.01)
            parameter.add_(0.002 * torch.sign(parameter))
    rows = replace(toy(6), anchor=anchor)
    settings = config.Train(anchor=5.0)
    features, labels = batch_of(moved, rows, list(range(6)))
    alone = features[: len(features) - int(labels["anchor_parts"])]
    term = choose_loss("ranking").make(moved, settings)(features, labels) - RankingLoss(
        moved, settings
    )(alone, labels)
    distances = []
    for texts in anchor.of_batch(list(range(6))):
        before = encoder.model.encode(list(texts.texts), normalize_embeddings=True)
        after = moved.encode(list(texts.texts), normalize_embeddings=True)
        distances += list(1.0 - (before * after).sum(axis=1))
    assert len(distances) == 10
    assert min(distances) > 1e-4
    assert term.item() == pytest.approx(5.0 * float(np.mean(distances)), rel=1e-3)


def test_a_resumed_training_meets_the_same_texts(anchor: Anchor) -> None:
    first, again = (anchor.of_batch([4, 1, 7]) for _ in range(2))
    other = anchor.of_batch([4, 1, 8])
    assert [texts.texts for texts in first] == [texts.texts for texts in again]
    assert [texts.texts for texts in first] != [texts.texts for texts in other]


def test_exactly_the_texts_that_a_training_meets_are_embedded(encoder: SentenceEncoder) -> None:
    rows, settings = toy(), quick(epochs=2, anchor_texts=4)
    batches = list(planned_batches(rows, settings))
    assert len(batches) == 12
    anchor = Anchor.of_base(encoder, 4, settings.seed, batches)
    met: tuple[set[str], set[str]] = (set(), set())
    for batch in batches:
        for texts, known in zip(anchor.of_batch(batch), met, strict=True):
            again = encoder.encode(texts.texts, texts.kind)
            assert np.allclose(texts.vectors, again, atol=1e-5)
            known.update(texts.texts)
    for side, known in zip((anchor.queries, anchor.documents), met, strict=True):
        embedded = np.isfinite(side.vectors).all(axis=1)
        assert {side.texts[position] for position in np.flatnonzero(embedded)} == known
    other = [row for row in range(24) if row not in batches[0]]  # its texts are others, by chance
    with pytest.raises(LookupError, match="not planned"):
        anchor.of_batch(other)


@pytest.mark.long
def test_less_is_forgotten_with_an_anchor(tiny_model: Path, tmp_path: Path) -> None:
    """On texts that neither training nor the anchor has."""
    questions = [query.text for query in load_general("calibration")[1].queries[:60]]
    kept = {}
    for weight in (0.0, 10.0):
        encoder = load_encoder(config.Model(name=str(tiny_model), precision="fp32"), Path())
        before = encoder.encode(questions, "query")
        settings = quick(anchor=weight, learning_rate=1e-3, epochs=6)
        train(encoder, toy(), None, Recipe.of(settings, tmp_path / str(weight)))
        after = encoder.without_cache().encode(questions, "query")
        kept[weight] = float((before * after).sum(axis=1).mean())
    assert kept[10.0] > kept[0.0]


def test_the_anchor_and_the_sets_that_judge_share_no_text() -> None:
    pairs = load_general_pairs()
    trained = {example.query for example in pairs} | {example.positive for example in pairs}
    for name in ("guard", "calibration"):
        corpus, split = load_general(name)  # type: ignore[arg-type]
        judged = {document.content for document in corpus}
        judged |= {query.text for query in split.queries}
        assert not trained & judged
