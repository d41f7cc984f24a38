"""Which examples teach the distinctions that failed?  Training queries only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Config
from nearer.data.heldout import HeldOut
from nearer.data.load import load_training
from nearer.errors import ConfigError, DataError
from nearer.files import read_jsonl
from nearer.live.traffic.log import append_whole
from nearer.project import Project
from nearer.search.systems import Systems
from nearer.training.examples import Duplicates
from nearer.training.material import TrainingMaterial
from nearer.training.mining import Mined, mine
from nearer.training.mining.doubtful import Doubtful, Space, doubtful
from nearer.training.mining.files import usable_examples
from nearer.training.mining.queue import queue_lines
from nearer.training.mining.result import NO_HARD_NEGATIVES
from nearer.training.mining.suspects import DONE, Suspect, treated
from nearer.training.mining.views import evidence_of, space_of_judged, space_of_texts
from nearer.training.mining.weak import weak_pairs
from nearer.types import Example, Split

#: From this share of probably wrong positives on, something is wrong with all of them.
_MOSTLY_WRONG = 0.5


@dataclass(frozen=True, slots=True)
class _Material:
    """Everything that mining starts from."""

    systems: Systems
    train: Split
    held_out: HeldOut
    duplicates: Duplicates
    rng: np.random.Generator

    @property
    def settings(self) -> Config:
        return self.systems.config

    @property
    def training(self) -> TrainingMaterial:
        """What `mine` may look at."""
        return TrainingMaterial(
            self.train,
            self.systems.corpus,
            self.duplicates,
            self.held_out.collides,
            self.settings.data.min_grade,
            self.systems.item_to_item,
        )


def mine_examples(material: _Material) -> Mined:
    """Examples from training judgments, plain training files, and the documents' own text."""
    settings = material.settings
    judged = Mined((), {}, {})
    if material.train.queries:
        judged = _judged(material)
    min_score = settings.mine.min_score
    training_file = load_training(settings.data, material.systems.root)
    from_file, dropped, leakage = usable_examples(
        training_file, material.held_out.collides, min_score
    )
    weak = weak_pairs(
        material.systems.corpus, settings.mine, material.held_out.collides, material.rng
    )
    leaked = Counter(judged.leakage) + Counter(leakage) + Counter(weak.leakage)
    if settings.mine.strict:
        _refuse_leakage(leaked)
    judged_doubts, file_doubts = _doubts(material, judged.examples, from_file)
    suspects = (*judged_doubts.suspects, *file_doubts.suspects)
    examples = treated([*judged.examples, *from_file], suspects, settings.mine.noise)
    counts = Counter(judged.dropped) + Counter(dropped) + Counter(weak.dropped)
    counts["positive is probably wrong"] = len(judged.examples) + len(from_file) - len(examples)
    everything = (*examples, *weak.examples)
    noise = {
        "action": DONE[settings.mine.noise],
        "judged": dict(judged_doubts.noise),
        "training_file": dict(file_doubts.noise),
    }
    account = replace(
        judged.account,
        noise=noise,
        warnings=tuple(_warnings(everything, noise)),
    )
    return Mined(everything, +counts, leaked, suspects, account)


def _judged(material: _Material) -> Mined:
    systems, train = material.systems, material.train
    reader = systems.reranker.score if systems.reranker is not None else None
    evidence = evidence_of(systems, train, reader)
    return mine(material.training, evidence, material.settings.mine, material.rng)


def _refuse_leakage(leakage: Mapping[str, int]) -> None:
    """Raises DataError where training data collides with held-out queries."""
    total = sum(leakage.values())
    if not total:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(leakage.items()))
    raise DataError(
        f"{total} texts of the training data are also dev or test queries ({kinds}), "
        "and mine.strict refuses to leave them out silently",
        where="training data",
        next_step="remove them from the training data, or run without --strict: "
        "they are then left out and counted",
    )


def _doubts(
    material: _Material, judged: Sequence[Example], from_file: Sequence[Example]
) -> tuple[Doubtful, Doubtful]:
    """The suspects of both sources; pairs with scores of their own are not doubted."""
    systems = material.systems
    of_judged = Doubtful((), {"not_tried": "no judged pairs"})
    if judged:
        space = space_of_judged(systems, material.train, material.duplicates, judged)
        of_judged = _announced(judged, space, material.rng)
    unscored = [example for example in from_file if example.score is None]
    of_file = Doubtful((), {"not_tried": "no training file with pairs that have no scores"})
    if unscored:
        of_file = _announced(unscored, space_of_texts(systems, unscored), material.rng)
    return of_judged, of_file


def _announced(examples: Sequence[Example], space: Space, rng: np.random.Generator) -> Doubtful:
    with progress.task("look for wrong positives", len(examples), "pairs") as bar:
        found = doubtful(examples, space, rng)
        bar.advance(len(examples))
    return found


def _warnings(examples: Sequence[Example], noise: Mapping[str, Any]) -> list[str]:
    """What the terminal and the report must not leave unsaid."""
    warnings = []
    if examples and not any(example.negatives for example in examples):
        warnings.append(
            f"{NO_HARD_NEGATIVES}: the model learns only to tell documents apart that happen to "
            "share a batch (mine.negatives)"
        )
    for source in ("judged", "training_file"):
        share = noise[source].get("share", 0.0)
        if share >= _MOSTLY_WRONG:
            warnings.append(
                f"about {share:.0%} of the positives ({source.replace('_', ' ')}) look no better "
                "than random ones: are queries and documents matched? (mine/suspects.jsonl)"
            )
    return warnings


def _checked(project: Project) -> Config:
    """The settings.  Raises ConfigError for a window without ranks, or a category of no item."""
    settings = project.settings
    mining = settings.mine
    if mining.category is not None and not project.item_to_item:
        raise ConfigError(
            "the queries are no items, so that they have no category",
            where="mine.category",
            next_step="set it to null, or use it where queries are items (task: recommend)",
        )
    if mining.first_rank > mining.candidates:
        raise ConfigError(
            f"negatives from rank {mining.first_rank} on, but results end at {mining.candidates}",
            where="mine.first_rank",
            next_step="lower mine.first_rank, or raise mine.candidates",
        )
    return settings


def run(project: Project) -> Mined:
    """Training examples with hard negatives that are really negative, and what was dropped."""
    settings = _checked(project)
    reads = settings.mine.vet and settings.mine.negatives > 0
    systems = project.systems
    if reads and settings.rerank.named:
        systems = project.systems_with_reranker
    mined = mine_examples(
        _Material(
            systems,
            project.split("train"),
            project.held_out,
            project.duplicates,
            project.rng("mine"),
        )
    )
    for warning in mined.account.warnings:
        progress.warn(warning)
    if project.run_dir is not None:
        _to_review(project, mined.suspects)
    return mined


def _to_review(project: Project, suspects: Sequence[Suspect]) -> None:
    """The most probable suspects go to people, beside the disagreements of `nearer shadow`."""
    path = project.root / "review" / "queue.jsonl"
    waiting: set[object] = set()
    if path.is_file():
        waiting = {line.get("request_id") for line in read_jsonl(path)}
    lines = queue_lines(suspects[: project.settings.mine.review], waiting)
    if lines:
        append_whole(path, b"".join(lines))
        progress.info(f"{len(lines)} suspects wait in review/queue.jsonl")


RESULT = Mined
