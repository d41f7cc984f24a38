"""Can the model learn them without forgetting the rest?  Judged on dev while it trains."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.data.corpus import Corpus
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ModelError
from nearer.files import disk_errors, read_json, read_jsonl, write_json, write_jsonl
from nearer.project import Project
from nearer.results import Block, Line, Result
from nearer.search.systems import Systems
from nearer.training.examples import (
    Duplicates,
    TrainingSet,
    build_training_set,
    known_positives,
    read_examples,
)
from nearer.training.forgetting import general_judge
from nearer.training.losses import choose_loss
from nearer.training.methods.candidates import Job, run_candidates
from nearer.training.methods.dev import DevTask
from nearer.training.methods.references import LINEAR, Learned
from nearer.training.methods.shown import candidate_blocks
from nearer.types import Example, Run, Split

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
_HARD = 10  # results of each first-stage system that join the dev pool


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

    @property
    def model(self) -> Any:
        """The SentenceTransformer; None where there is none: see `encoder`, and `skipped`."""
        return self.encoder.model if isinstance(self.encoder, SentenceEncoder) else None

    @property
    def skipped(self) -> str:
        """Why nothing was trained; empty where something was."""
        return str(self.summary.get("skipped", ""))

    def save(self, folder: Path) -> None:
        """`model/`, `history.jsonl`, `summary.json` and `candidates.json`; checkpoints are removed."""
        if isinstance(self.encoder, SentenceEncoder):
            saved = save_model(self.encoder, folder / "model", self.settings, self.root)
            self.summary["fingerprint"] = saved
        elif self.encoder is not None:
            self.encoder.save(folder / "model")
            self.summary["fingerprint"] = self.encoder.fingerprint.id
        write_jsonl(folder / "history.jsonl", self.history)
        write_json(folder / "summary.json", self.summary)
        if self.candidates:
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
        best = f"(best at step {summary['best_step']} of {summary['steps']})"
        speed = f"{summary['pairs_per_second']} pairs per second, {summary['precision']}"
        return [Line(f"{change} {best}"), Line(speed, "dim"), *candidate_blocks(self.candidates)]


def dev_pool(
    corpus: Corpus, dev: Split, runs: Sequence[Run], size: int, rng: np.random.Generator
) -> Corpus:
    """The documents that checkpoints are judged on: judged, hard and random ones, `size` in all.

    Judged documents are always in; hard ones join by rank, so that the best distractors come first.
    """
    if len(corpus) <= size:
        return corpus
    chosen: dict[str, None] = {}
    for judged in dev.judgments.values():
        chosen.update(dict.fromkeys(doc_id for doc_id in judged if doc_id in corpus))
    random = (corpus.ids[position] for position in rng.permutation(len(corpus)))
    for doc_id in chain(_by_rank(runs, dev), random):
        if len(chosen) >= size:
            break
        chosen.setdefault(doc_id)
    positions = sorted(corpus.position(doc_id) for doc_id in chosen)
    return Corpus.from_documents(corpus[position] for position in positions)


def _by_rank(runs: Sequence[Run], dev: Split) -> Iterator[str]:
    """The first results of all runs and queries, then the second ones, and so on."""
    for rank in range(_HARD):
        for run in runs:
            for query in dev.queries:
                hits = run.results.get(query.id, ())
                if rank < len(hits):
                    yield hits[rank][0]


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
    learned: Learned,
    checkpoints: Path,
    rng: np.random.Generator,
) -> FineTuned:
    """Fine-tune what the settings name, beside the references; dev chooses.

    `systems` are those of the baseline; they name the settings and the project's folder.
    """
    settings, root = systems.config, systems.root
    task: DevTask | None = None
    if dev.queries:
        pool = _dev_pool_of(systems, dev, rng)
        task = DevTask(pool, dev, settings.evaluate.primary, systems.item_to_item)
    general = general_judge(settings, root) if _trains_weights(settings.train) else None
    outcome = run_candidates(Job(systems, learned, task, checkpoints, general))
    chosen, table = outcome.candidate, outcome.table
    chosen.summary["dev"]["documents"] = 0 if task is None else len(task.pool)
    return FineTuned(chosen.encoder, chosen.history, chosen.summary, settings.model, root, table)


def _dev_pool_of(systems: Systems, dev: Split, rng: np.random.Generator) -> Corpus:
    size = systems.config.train.dev_documents
    runs: list[Run] = []
    if len(systems.corpus) > size:
        runs = [systems.search(name, dev) for name in ("bm25", "dense")]
    return dev_pool(systems.corpus, dev, runs, size, rng)


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
        return fine_tune(systems, project.split("dev"), learned, folder, project.rng("train"))


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


def save_model(encoder: SentenceEncoder, folder: Path, settings: config.Model, root: Path) -> str:
    """Save so that `SentenceTransformer(folder)` gives the same vectors, and prove it.

    Returns the fingerprint of the saved model.  Raises ModelError when anything got lost on the way
    (weights, tokenizer, pooling, normalisation, prompts, maximum length).
    """
    model = encoder.model
    if settings.query_prompt is not None or settings.document_prompt is not None:
        prompts = {"query": encoder.prompt("query"), "document": encoder.prompt("document")}
        model.prompts = {**(model.prompts or {}), **prompts}
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(temporary):
        model.save(str(temporary), create_model_card=False, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    now = SentenceEncoder(
        model,
        query_prompt=encoder.prompt("query"),
        document_prompt=encoder.prompt("document"),
        precision="fp32",
        name="the model in memory",
    )
    saved = load_encoder(
        config.Model(name=str(folder), precision="fp32", device=settings.device), root, path=folder
    )
    differences = now.fingerprint.differences(saved.fingerprint)
    if differences:
        raise ModelError(
            f"the saved model is not the trained one: {'; '.join(differences)}",
            where=str(folder),
            next_step="please report this",
        )
    return replace(saved.fingerprint, precision=encoder.precision.name).id
