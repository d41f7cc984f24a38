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
from nearer.data.scored import ScoredPair
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ConfigError
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.measure.correlation import CorrelationChange
from nearer.project import Project
from nearer.results import Block, Line, Result
from nearer.search.systems import Systems
from nearer.training.card import CardFacts, write_card
from nearer.training.examples import (
    Duplicates,
    TrainingSet,
    build_training_set,
    known_positives,
    read_examples,
)
from nearer.training.forgetting import general_judge
from nearer.training.learning_curve import draw, worth_drawing
from nearer.training.looks import DevJudge, dev_judge
from nearer.training.methods.candidates import run_candidates, train_method
from nearer.training.methods.job import Job
from nearer.training.methods.naming import OTHERS, folder_name
from nearer.training.methods.references import LINEAR, Learned
from nearer.training.methods.search import refuse_impossible
from nearer.training.methods.shown import candidate_blocks, search_blocks
from nearer.training.parts import planned
from nearer.training.passes import epochs_of
from nearer.training.saving import save_model
from nearer.training.scored import ScoredJudge
from nearer.types import Example, Judgments, Split

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
_CANDIDATES = "candidates.json"


@dataclass(frozen=True)
class FineTuned(Result):
    """A fine-tuned model with how it got there; `encoder` is None where nothing was trained.

    `summary` is `train/summary.json`; `save` adds the fingerprint of the saved model to it.
    `candidates` is `train/candidates.json`: this model beside the others that were tried.
    """

    encoder: TextEncoder | None
    history: Sequence[Mapping[str, Any]]
    summary: dict[str, Any]
    settings: config.Model = field(repr=False)
    root: Path = field(repr=False)
    candidates: Mapping[str, Any] = field(default_factory=dict, repr=False)
    card: CardFacts | None = field(default=None, repr=False)
    #: other models that were trained and that dev did not choose, by method and seed
    others: Mapping[str, TextEncoder] = field(default_factory=dict, repr=False)

    @property
    def model(self) -> Any:
        """The SentenceTransformer; None where there is none: see `encoder`, and `skipped`."""
        return self.encoder.model if isinstance(self.encoder, SentenceEncoder) else None

    @property
    def skipped(self) -> str:
        """Why nothing was trained; empty where something was."""
        return str(self.summary.get("skipped", ""))

    def save(self, folder: Path) -> None:
        """`model/` with its card, `history.jsonl`, `summary.json` and `candidates.json`.

        Models that were not chosen go to `others/NAME/`.  Checkpoints are removed.
        """
        if isinstance(self.encoder, SentenceEncoder):
            saved = save_model(self.encoder, folder / "model", self.settings, self.root)
            self.summary["fingerprint"] = saved
            if self.card is not None:
                write_card(folder / "model", self.card, self.encoder)
        elif self.encoder is not None:
            self.encoder.save(folder / "model")
            self.summary["fingerprint"] = self.encoder.fingerprint.id
        for name, other in self.others.items():
            target = folder / OTHERS / folder_name(name)
            if isinstance(other, SentenceEncoder):
                save_model(other, target, self.settings, self.root)
            else:
                other.save(target)
        curve = self.summary.get("learning_curve")
        if curve is not None:
            write_json(folder / "learning_curve.json", curve)
        write_jsonl(folder / "history.jsonl", self.history)
        write_json(folder / "summary.json", self.summary)
        write_json(folder / _CANDIDATES, self.candidates)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> FineTuned:
        """Read the figures.  The model is a folder of its own: `SentenceTransformer(folder / "model")`."""
        history = list(read_jsonl(folder / "history.jsonl"))
        summary = read_json(folder / "summary.json")
        candidates = folder / _CANDIDATES
        table = read_json(candidates) if candidates.is_file() else {}
        model = config.Model(name=str(folder / "model"))
        return cls(None, history, summary, model, folder, table)

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
        if dev.get("gain"):
            low, high = dev["gain"]["ci"]
            change += f", {low:+.3f} to {high:+.3f} over {dev['pairs']:,} scored pairs"
        best = f"(best at step {summary['best_step']} of {summary['steps']})"
        speed = f"{summary['pairs_per_second']} pairs per second, {summary['precision']}"
        lines: list[Block] = [Line(f"{change} {best}"), Line(speed, "dim")]
        if summary.get("loss_reason"):
            lines.append(Line(summary["loss_reason"], "dim"))
        gap = summary.get("gap")
        if gap:
            known = f"{gap['train']:.3f} on {gap['queries']} training queries"
            lines.append(Line(f"{known}: {gap['gap']:+.3f} against dev", "dim"))
        curve = summary.get("learning_curve")
        if curve:
            lines.append(Line(curve["sentence"]))
        lines += search_blocks(summary.get("search"), dev["measure"])
        return [*lines, *candidate_blocks(self.candidates)]


def training_rows(
    systems: Systems, examples: Sequence[Example], training: Split, duplicates: Duplicates
) -> TrainingSet:
    """Examples as the training takes them.

    Raises DataError for one that the loss of `train.loss` would learn something wrong from, or
    whose ids are unknown.
    """
    settings = systems.config
    queries = {query.id: query for query in training.queries}
    judgments = training.judgments
    if systems.item_to_item:
        judgments = _with_themselves(judgments)
    rows = build_training_set(examples, systems.corpus, queries, judgments, duplicates)
    by_grade = settings.mine.grades == "weight"
    return planned(
        rows, settings.train, settings.mine.min_score, systems.root, weighted_by_grade=by_grade
    )


def _with_themselves(judgments: Judgments) -> Judgments:
    """Judgments that hold every item relevant to itself: it never meets itself as a negative."""
    return {query_id: {query_id: 1, **graded} for query_id, graded in judgments.items()}


def fine_tune(
    systems: Systems,
    dev: Split | Sequence[ScoredPair],
    learned: Learned,
    checkpoints: Path,
    rng: np.random.Generator,
) -> FineTuned:
    """Fine-tune what the settings name, beside the references; dev chooses.

    `systems` are those of the baseline; they name the settings and the project's folder.  `dev` are
    held-out scored pairs where there are no dev queries.
    """
    settings, root = systems.config, systems.root
    if settings.train.learning_curve and settings.train.budget is not None:
        raise ConfigError(
            "a learning curve takes more trainings than a budget holds",
            where="train.learning_curve, train.budget",
            next_step="set one of them",
        )
    refuse_impossible(settings.train, len(dev))
    judge = _judge_of(systems, dev, learned, rng)
    general = general_judge(settings, root) if _trains_weights(settings.train) else None
    epochs = epochs_of(settings.train, learned.rows)
    job = Job(systems, learned, judge, checkpoints, general, epochs=epochs)
    outcome = run_candidates(job)
    chosen, table = outcome.candidate, outcome.table
    summary = chosen.summary
    summary["dev"] |= {"documents": 0} if judge is None else judge.facts()
    if isinstance(judge, ScoredJudge):
        _describe_gain(summary["dev"], judge.compared(systems.encoder, chosen.encoder, rng))
        if settings.train.learning_curve:
            progress.warn(
                "no learning curve: it is drawn of dev queries, and there are pairs alone"
            )
    elif settings.train.learning_curve and judge is not None:
        summary["learning_curve"] = _learning_curve(job, judge.whole.values(chosen.encoder))
    facts = CardFacts(settings, root, summary)
    return FineTuned(
        encoder=chosen.encoder,
        history=chosen.history,
        summary=summary,
        settings=settings.model,
        root=root,
        candidates=table,
        card=facts,
        others=outcome.others,
    )


def _judge_of(
    systems: Systems,
    dev: Split | Sequence[ScoredPair],
    learned: Learned,
    rng: np.random.Generator,
) -> DevJudge | ScoredJudge | None:
    """What judges models on dev: its queries, or its scored pairs; None where there are neither."""
    if not len(dev):
        return None
    if isinstance(dev, Split):
        return dev_judge(systems, dev, learned.rows, rng)
    return ScoredJudge.of(dev, rng)


def _describe_gain(dev: dict[str, Any], change: CorrelationChange) -> None:
    """Add to `dev` of the summary what another draw of pairs may change."""
    dev["interval"] = [change.after.low, change.after.high]
    dev["gain"] = change.as_dict()


def _learning_curve(job: Job, whole: np.ndarray) -> dict[str, Any] | None:
    """Train on less and less data; None, with a warning, where there is too little.

    `whole` is dev per query after the training on all of the rows.
    """
    if not worth_drawing(job.rows):
        progress.warn("no learning curve: there are too few training queries")
        return None
    judge = job.search_judge
    assert judge is not None  # noqa: S101 - it was asked before

    def train_on(fewer: TrainingSet, name: str) -> np.ndarray:
        part = replace(
            job,
            learned=replace(job.learned, rows=fewer),
            checkpoints=job.checkpoints / name,
        )
        return judge.values(train_method(part, job.methods[0]).encoder)

    curve = draw(job.rows, job.settings.seed, train_on, whole, judge.measure)
    progress.info(curve.sentence)
    return curve.as_dict()


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
    if not project.has_weights and _trains_weights(project.settings.train):
        return _without_weights(project)
    systems, training, duplicates = project.systems, project.split("train"), project.duplicates
    rows = training_rows(systems, examples, training, duplicates)
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
        positives = known_positives(training.judgments, duplicates).values()
        learned = Learned(rows, systems.corpus, frozenset().union(*positives))
        dev = project.split("dev")
        judged = dev if dev.queries else project.scored_pairs("dev")
        return fine_tune(systems, judged, learned, folder, project.rng("train"))


RESULT = FineTuned


def _trains_weights(settings: config.Train) -> bool:
    """Whether any method that the settings name needs the model's weights."""
    return any(name != LINEAR for name in settings.candidates or (settings.method,))


def _without_weights(project: Project) -> FineTuned:
    """Nothing trained: of a model that is computed elsewhere only vectors are known."""
    name = project.settings.model.name
    reason = f"the weights of {name} are not here (adapters work on vectors: train.method=linear)"
    progress.warn(f"nothing was trained: {reason}")
    return FineTuned(None, (), {"skipped": reason}, project.settings.model, project.root)
