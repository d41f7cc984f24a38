"""Training data that teaches little or nothing: no crash, an honest summary, no model worse than its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nearer
from nearer.training.looks import whole_judge
from nearer.types import Example

#: How much worse than its base a model may come out on dev.
ALLOWED = 0.005

Change = Callable[[Sequence[Example]], list[Example]]


@pytest.fixture(scope="module")
def project(small_data: Path, tiny_model: Path) -> nearer.Project:
    train = {
        "epochs": 2,
        "batch_size": 8,
        "dev_documents": 60,
        "max_seq_length": 64,
        "anchor_texts": 2,
        "general": None,
        "learning_rate": 1e-3,  # high, so that wrong labels do harm
    }
    return nearer.load(
        small_data,
        model=str(tiny_model),
        train=train,
        mine={"negatives": 0},
        evaluate={"resamples": 1000},
    )


@pytest.fixture(scope="module")
def examples(project: nearer.Project) -> Sequence[Example]:
    return nearer.mine(project).examples


def with_wrong_positives(examples: Sequence[Example], share: float) -> list[Example]:
    """A share of the examples with the positives of each other."""
    rng = np.random.default_rng(3)
    rows = rng.permutation(len(examples))[: round(share * len(examples))]
    positives = [examples[row].positive for row in rows.tolist()]
    changed = list(examples)
    for place, row in enumerate(rows.tolist()):
        positive = positives[(place + 1) % len(positives)]
        changed[row] = replace(
            examples[row], positive=positive, positive_passage=None, document=None
        )
    return changed


def of_one_query(examples: Sequence[Example]) -> list[Example]:
    """One query, with positives of several."""
    first = examples[0]
    positives = dict.fromkeys(example.positive for example in examples[:6])
    return [replace(first, positive=positive, positive_passage=None) for positive in positives]


HARD: dict[str, Change] = {
    "shuffled labels": lambda examples: with_wrong_positives(examples, 1.0),
    "half of the positives wrong": lambda examples: with_wrong_positives(examples, 0.5),
    "40 pairs": lambda examples: list(examples[:40]),
    "one query": of_one_query,
}


@pytest.mark.long
@pytest.mark.parametrize("change", HARD.values(), ids=HARD)
def test_nothing_that_is_learned_wrong_makes_a_model_worse_than_its_base(
    project: nearer.Project, examples: Sequence[Example], tmp_path: Path, change: Change
) -> None:
    tuned = nearer.train(project, change(examples), checkpoints=tmp_path)
    summary = tuned.summary
    before, after = summary["dev"]["before"], summary["dev"]["after"]
    assert after >= before - ALLOWED
    judge = whole_judge(project.systems, project.split("dev"), project.rng("train"))
    assert tuned.encoder is not None
    assert judge(tuned.encoder) == pytest.approx(after, abs=1e-6)  # of the model that came out
    assert judge(project.systems.encoder) == pytest.approx(before, abs=1e-6)
    assert f"{before:.3f} → {after:.3f}" in str(tuned)
    assert summary["merge"]["weight"] in dict.fromkeys(
        point["weight"] for point in summary["merge"]["curve"]
    )
    assert summary["gap"]["queries"] <= len({example.query_id for example in change(examples)})


def test_where_there_is_one_document_nothing_is_trained_and_it_is_said(
    project: nearer.Project, examples: Sequence[Example]
) -> None:
    tuned = nearer.train(project, [examples[0]])
    assert tuned.model is None
    assert "share one positive" in str(tuned)
