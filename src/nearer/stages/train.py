"""Can the model learn them without forgetting the rest?  Judged on dev while it trains."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ConfigError
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.project import Project
from nearer.results import Block, Line, Result
from nearer.search.systems import Systems
from nearer.training.card import CardFacts, write_card
from nearer.training.examples import Duplicates, TrainingSet, build_training_set, read_examples
from nearer.training.learning_curve import draw, worth_drawing
from nearer.training.looks import DevJudge, dev_judge
from nearer.training.losses import choose_loss
from nearer.training.recipe import Recipe
from nearer.training.saving import save_model
from nearer.training.schedule import Budget
from nearer.training.trainer import train
from nearer.types import Example, Split

#: What `step.json` repeats of the summary.
_BRIEF = (
    "skipped",
    "best_step",
    "steps",
    "dev",
    "examples",
    "seconds",
    "pairs_per_second",
    "precision",
    "fingerprint",
)


@dataclass(frozen=True)
class FineTuned(Result):
    """A fine-tuned model with how it got there; `encoder` is None where nothing was trained.

    `summary` is `train/summary.json`; `save` adds the fingerprint of the saved model to it.
    """

    encoder: SentenceEncoder | None
    history: Sequence[Mapping[str, Any]]
    summary: dict[str, Any]
    settings: config.Model = field(repr=False)
    root: Path = field(repr=False)
    card: CardFacts | None = field(default=None, repr=False)

    @property
    def model(self) -> Any:
        """The SentenceTransformer, or None."""
        return None if self.encoder is None else self.encoder.model

    @property
    def skipped(self) -> str:
        """Why nothing was trained; empty where something was."""
        return str(self.summary.get("skipped", ""))

    def save(self, folder: Path) -> None:
        """`model/` with its card, `history.jsonl`, `summary.json`; checkpoints are removed."""
        if self.encoder is not None:
            saved = save_model(self.encoder, folder / "model", self.settings, self.root)
            self.summary["fingerprint"] = saved
            if self.card is not None:
                write_card(folder / "model", self.card, self.encoder)
        curve = self.summary.get("learning_curve")
        if curve is not None:
            write_json(folder / "learning_curve.json", curve)
        write_jsonl(folder / "history.jsonl", self.history)
        write_json(folder / "summary.json", self.summary)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> FineTuned:
        """Read the figures.  The model is a folder of its own: `SentenceTransformer(folder / "model")`."""
        history = list(read_jsonl(folder / "history.jsonl"))
        summary = read_json(folder / "summary.json")
        return cls(None, history, summary, config.Model(name=str(folder / "model")), folder)

    def brief(self) -> dict[str, Any]:
        return {key: self.summary[key] for key in _BRIEF if key in self.summary}

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per line of the training history."""
        return (dict(line) for line in self.history)

    def blocks(self) -> list[Block]:
        if self.skipped:
            return [Line(f"nothing trained: {self.skipped}")]
        summary, dev = self.summary, self.summary["dev"]
        change = "no dev queries"
        if dev["after"] is not None:
            change = f"dev {dev['measure']} {dev['before']:.3f} → {dev['after']:.3f}"
        best = f"(best at step {summary['best_step']} of {summary['steps']})"
        speed = f"{summary['pairs_per_second']} pairs per second, {summary['precision']}"
        lines: list[Block] = [Line(f"{change} {best}"), Line(speed, "dim")]
        gap = summary.get("gap")
        if gap:
            known = f"{gap['train']:.3f} on {gap['queries']} training queries"
            lines.append(Line(f"{known}: {gap['gap']:+.3f} against dev", "dim"))
        curve = summary.get("learning_curve")
        if curve:
            lines.append(Line(curve["sentence"]))
        return lines


def training_rows(
    systems: Systems, examples: Sequence[Example], training: Split, duplicates: Duplicates
) -> TrainingSet:
    """Examples as the training takes them.

    Raises DataError for one that the loss of `train.loss` would learn something wrong from, or
    whose ids are unknown.
    """
    settings = systems.config
    loss = choose_loss(settings.train.loss, systems.root)
    loss.refuse_unusable(examples, settings.mine.min_score)
    queries = {query.id: query for query in training.queries}
    return build_training_set(examples, systems.corpus, queries, training.judgments, duplicates)


def fine_tune(
    systems: Systems,
    dev: Split,
    rows: TrainingSet,
    checkpoints: Path,
    rng: np.random.Generator,
) -> FineTuned:
    """Fine-tune a fresh copy of the configured model, judged on dev.

    `systems` are those of the baseline; they name the settings and the project's folder.
    """
    settings, root = systems.config, systems.root
    if settings.train.learning_curve and settings.train.budget is not None:
        raise ConfigError(
            "a learning curve takes more trainings than a budget holds",
            where="train.learning_curve, train.budget",
            next_step="set one of them",
        )
    measure = settings.evaluate.primary
    judge = dev_judge(systems, dev, rows, rng) if dev.queries else None
    encoder = load_encoder(in_training(settings), root)
    base = encoder.fingerprint.id
    recipe = Recipe.of(settings.train, checkpoints, measure=measure, root=root)
    trained = train(encoder, rows, judge, recipe)
    summary = {"base_model": settings.model.name, "base_fingerprint": base, **trained.summary}
    summary["dev"] |= {"documents": 0} if judge is None else judge.facts()
    if settings.train.learning_curve and judge is not None:
        whole = judge.whole.values(encoder)
        summary["learning_curve"] = _learning_curve(systems, rows, judge, recipe, whole)
    facts = CardFacts(settings, root, summary)
    return FineTuned(encoder, trained.history, summary, settings.model, root, facts)


def _learning_curve(
    systems: Systems,
    rows: TrainingSet,
    judge: DevJudge,
    recipe: Recipe,
    whole: np.ndarray,
) -> dict[str, Any] | None:
    """Train on less and less data as `recipe` says; None, with a warning, where there is too little.

    `whole` is dev per query after the training on all of `rows`.
    """
    if not worth_drawing(rows):
        progress.warn("no learning curve: there are too few training queries")
        return None

    def train_on(fewer: TrainingSet, name: str) -> np.ndarray:
        own = replace(recipe, checkpoints=recipe.checkpoints / name, budget=Budget())
        fresh = load_encoder(in_training(systems.config), systems.root)
        train(fresh, fewer, judge, own)
        return judge.whole.values(fresh)

    curve = draw(rows, recipe.settings.seed, train_on, whole, recipe.measure)
    progress.info(curve.sentence)
    return curve.as_dict()


def in_training(settings: config.Config) -> config.Model:
    """The configured model in the precision that it trains in."""
    return settings.model.model_copy(update={"precision": settings.train.precision})


def run(
    project: Project,
    examples: Sequence[Example] | None = None,
    *,
    checkpoints: str | Path | None = None,
) -> FineTuned:
    """Fine-tune on `examples` (None: those that `mine` wrote); `.model` is a SentenceTransformer.

    `checkpoints` is a folder to resume from after an interruption (None: that of the unfinished
    step in a run, a temporary one in a notebook).  Where there is nothing to tell apart, nothing is
    trained and `.skipped` says why; `decide` can still compare simpler fixes.
    """
    if examples is None:
        examples = read_examples(project.earlier("mine/examples.jsonl"))
    systems = project.systems
    rows = training_rows(systems, examples, project.split("train"), project.duplicates)
    if len({positive for _, positive, _ in rows.rows}) < 2:
        reason = "all training examples share one positive"
        if not rows.rows:
            reason = "there are no training examples"
        progress.warn(f"nothing was trained: {reason} (see mine/summary.json)")
        return FineTuned(None, (), {"skipped": reason}, project.settings.model, project.root)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if checkpoints is not None:
            folder = Path(checkpoints)
        elif project.out is not None:
            folder = project.out / "checkpoints"
        return fine_tune(systems, project.split("dev"), rows, folder, project.rng("train"))


RESULT = FineTuned
