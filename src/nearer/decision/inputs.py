"""Everything that a decision is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.config import Config
from nearer.data.clusters import QueryClusters
from nearer.data.corpus import Corpus
from nearer.data.general import load_general
from nearer.data.generated import GENERATED
from nearer.data.leakage import Leakage
from nearer.data.load import load_general_folder
from nearer.data.named import NamedQuery
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Judgments, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionInputs:
    """The whole evidence is handed in; nothing is looked up.

    `base` are the systems over the base model, which also name the settings; `tuned` those over
    the fine-tuned model (None: nothing was trained).
    """

    base: Systems
    tuned: Systems | None
    dev: Split
    test: Split
    training_judgments: Judgments | None = None  # they tell seen from unseen documents
    general_set: tuple[Corpus, Split] | None = None  # the general-ability set, None: none
    best_fix: Pipeline | None = None  # the best simple system that `fix` found on dev
    not_tried: Sequence[Mapping[str, Any]] | None = None  # by `fix` (None: it did not run)
    mined: Mapping[str, Any] | None = None  # mine/summary.json
    diagnosis: Mapping[str, Any] | None = None  # diagnose/summary.json
    looks: int = 1  # how often test has been opened
    steps: Sequence[Pipeline] = ()  # the kept steps of the ladder, each on top of those before
    variants: Mapping[str, Systems] = field(default_factory=dict)  # other fine-tuned models
    clusters: QueryClusters = field(default_factory=QueryClusters)  # of the test queries
    named: Sequence[NamedQuery] = ()  # must-pass and high-risk queries of every split
    leakage: Leakage | None = None  # None: the training examples are not known
    #: queries of people and generated ones, by split
    queries_from: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def settings(self) -> Config:
        return self.base.config

    @property
    def generated(self) -> int:
        """Test queries that nobody asked."""
        return self.queries_from.get(self.test.name, {}).get(GENERATED, 0)

    @property
    def primary(self) -> str:
        """The measure that decides."""
        return self.settings.evaluate.primary


def kept_steps(ladder: Mapping[str, Any]) -> list[Pipeline]:
    """The steps of `fix/summary.json` that were kept, each with all those below it."""
    kept = [step for step in ladder.get("rungs", ()) if step.get("kept") and step.get("settings")]
    return [Pipeline.from_dict(step["settings"]) for step in kept]


def general_set_of(settings: Config, root: Path) -> tuple[Corpus, Split] | None:
    """The general-ability set that the configuration names."""
    general = settings.decide.guardrails.general
    if general is None:
        return None
    if general == "builtin":
        return load_general()
    return load_general_folder(general, root)
