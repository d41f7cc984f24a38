"""The stages for notebooks and programs: values in, values out.  `nearer.load` starts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.load import Loaded
from nearer.data.load import load as load_data
from nearer.decision.inputs import DecisionInputs
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.embed.tokens import load_tokens
from nearer.measure.verdict import TUNED
from nearer.search.systems import Systems
from nearer.stages import check as check_stage
from nearer.stages import decide as decide_stage
from nearer.stages import diagnose as diagnose_stage
from nearer.stages import evaluate as evaluate_stage
from nearer.stages import fix as fix_stage
from nearer.stages import mine as mine_stage
from nearer.stages import shared
from nearer.stages import train as train_stage
from nearer.training.examples import Duplicates
from nearer.training.mining import Mined
from nearer.training.trainer import Trained
from nearer.types import Example


@dataclass(frozen=True)
class Project:
    """Data, settings and what was computed from them, each at most once."""

    settings: config.Config
    root: Path
    loaded: Loaded
    cache: Path | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def checked(self) -> check_stage.CheckResult:
        """The data checks and the split."""
        loaded, settings = self.loaded, self.settings
        return check_stage.check(
            loaded.corpus,
            loaded.queries,
            loaded.judgments,
            data=settings.data,
            settings=settings.check,
            seed=settings.seed,
            tokens=load_tokens(settings.model, self.root),
        )

    @cached_property
    def systems(self) -> Systems:
        """Search systems over today's model."""
        return Systems(
            self.settings,
            self.root,
            self.loaded.corpus,
            cache=self.cache,
            item_to_item=self.checked.item_to_item,
            splits=("dev", "test"),
        )

    @cached_property
    def reranking(self) -> Systems:
        """The same systems with the reranker that the settings name, trained now if they say so."""
        systems, checked = self.systems, self.checked
        systems.reranker = shared.reranker_over(
            systems, checked.splits["train"], self.duplicates, checked.held_out
        )
        return systems

    @property
    def duplicates(self) -> Duplicates:
        return Duplicates.of(self.checked.duplicate_documents, self.checked.duplicate_train_queries)

    def rng(self, stage: str) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *stage.encode()])


def load(
    folder: str | Path | None = None,
    *,
    model: str | None = None,
    cache: str | Path | None = None,
    **sections: Mapping[str, Any],
) -> Project:
    """Read data and settings.

    `folder` has the BEIR layout; other layouts go into `data={"corpus": …, "queries": …}`.  Further
    keywords are sections of nearer.yaml (`train={"epochs": 1}`).  `cache` keeps embeddings between
    sessions.  Raises DataError and ConfigError.
    """
    values: dict[str, Any] = {name: dict(section) for name, section in sections.items()}
    if folder is not None:
        values.setdefault("data", {})["folder"] = str(folder)
    if model is not None:
        values.setdefault("model", {})["name"] = model
    settings = config.build(values, where="nearer.load")
    return Project(
        settings, Path.cwd(), load_data(settings.data, Path.cwd()), Path(cache) if cache else None
    )


def check(project: Project) -> check_stage.CheckResult:
    """Can this data be trusted to train and to judge?  Raises DataError when it cannot be used at all."""
    return project.checked


def evaluate(project: Project) -> evaluate_stage.Evaluation:
    """How well does today's search do on dev, and for whom?"""
    splits = project.checked.splits
    return evaluate_stage.evaluate(
        project.systems,
        splits["dev"],
        project.settings.evaluate,
        trained=splits["train"].judgments,
        min_grade=project.settings.data.min_grade,
    )


def diagnose(project: Project) -> diagnose_stage.Diagnoses:
    """Why did each failing dev and train query fail, and what is the cheapest thing that repairs it?"""
    splits = project.checked.splits
    if project.systems.today == "convex":  # its weight is chosen on dev, as in a run
        project.systems.tune(splits["dev"], project.settings.evaluate.primary)
    wanted = [
        splits[name]
        for name in project.settings.diagnose.splits
        if splits[name].queries and (name == "dev" or project.systems.today != "run")
    ]
    return diagnose_stage.diagnose(
        project.reranking, wanted, project.settings, project.rng("diagnose")
    )


def fix(project: Project, diagnoses: diagnose_stage.Diagnoses | None = None) -> fix_stage.Fixes:
    """How far do simpler fixes go?  Each measured on dev, then combined; `.best` is the pipeline at the end."""
    failures = diagnoses.failures if diagnoses else ()
    return fix_stage.try_fixes(
        project.reranking,
        project.checked.splits["dev"],
        project.settings,
        project.rng("fix"),
        failures,
    )


def mine(project: Project) -> Mined:
    """Training examples with hard negatives that are really negative, and what was dropped."""
    checked = project.checked
    return mine_stage.mine_examples(
        project.systems,
        checked.splits["train"],
        checked.held_out,
        project.duplicates,
        project.rng("mine"),
    )


def train(
    project: Project, examples: Sequence[Example], *, checkpoints: str | Path | None = None
) -> Trained:
    """Fine-tune on `examples`; `.model` of the result is a SentenceTransformer.

    `checkpoints` is a folder to resume from after an interruption (None: a temporary one).
    """
    splits = project.checked.splits
    rows = train_stage.training_rows(project.systems, examples, splits["train"], project.duplicates)
    with tempfile.TemporaryDirectory() as temporary:
        return train_stage.fine_tune(
            project.systems,
            splits["dev"],
            rows,
            Path(checkpoints or temporary),
            project.rng("train"),
        )[1]


def decide(
    project: Project,
    trained: Trained | str | Path | None,
    mined: Mined | None = None,
    *,
    diagnoses: diagnose_stage.Diagnoses | None = None,
    fixes: fix_stage.Fixes | None = None,
) -> decide_stage.Decision:
    """Ship, take a simpler fix, or stop?  Opens the test queries.

    `trained` is what `train` returned, or a model folder; None judges the simpler fixes alone.
    `fixes` brings the best simple system among the candidates.
    """
    settings, checked = project.settings, project.checked
    tuned = None
    if trained is not None:
        if isinstance(trained, Trained):
            model = settings.model
            encoder = SentenceEncoder(
                trained.model,
                query_prompt=model.query_prompt,
                document_prompt=model.document_prompt,
                precision=model.precision,
                batch_tokens=model.batch_tokens,
                cache=project.cache,
                name=TUNED,
            )
        else:
            encoder = load_encoder(
                settings.model.as_saved(),
                project.root,
                cache=project.cache,
                path=Path(trained),
                name=TUNED,
            )
        tuned = Systems(
            settings,
            project.root,
            project.loaded.corpus,
            item_to_item=checked.item_to_item,
            encoder=encoder,
            bm25=project.systems.bm25,
        )
    if tuned is not None:
        tuned.reranker = project.systems.reranker
    inputs = DecisionInputs(
        base=project.systems,
        tuned=tuned,
        dev=checked.splits["dev"],
        test=checked.splits["test"],
        training_judgments=checked.splits["train"].judgments,
        general_set=decide_stage.general_set_of(settings, project.root),
        best_fix=fixes.best if fixes else None,
        not_tried=fixes.ladder["not_tried"] if fixes else None,
        mined=mined.summary() if mined else None,
        diagnosis=diagnoses.summary if diagnoses else None,
    )
    return decide_stage.decide(inputs, project.rng("decide"))
