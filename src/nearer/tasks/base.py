"""The contract of a task: its data, its measures beside those of search, and what guards them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nearer.config import Config, TaskGuard
from nearer.data.clusters import QueryClusters
from nearer.data.load import Loaded
from nearer.measure.metrics import Scores
from nearer.measure.resampled import Status
from nearer.search.systems import Systems
from nearer.types import Judgments, Run, Split


@dataclass(frozen=True, slots=True)
class Model:
    """One model to measure: its name for people, and systems over it."""

    name: str
    systems: Systems


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInputs:
    """What a task measures on: the results of systems, and the models behind them.

    `runs` are by name of the system, today's first; `models` are today's and, where one was
    trained, the fine-tuned one.
    """

    runs: Mapping[str, Run]
    models: Sequence[Model]
    split: Split
    trained: Judgments  # training judgments, of which everybody may know
    seed: int

    @property
    def base(self) -> Systems:
        """Systems over today's model."""
        return self.models[0].systems

    @property
    def settings(self) -> Config:
        return self.base.config


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of the report: a title, what it says in a sentence, and rows of cells."""

    title: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "lead": self.lead,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """What a task found, as JSON values: `measures` by system, then what the report draws.

    `points` are [x, y, group, text] of a map; `groups` say for each model, and by document id, which
    cluster a document is in (-1: in none).
    """

    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sheets: Sequence[Sheet] = ()
    notes: Sequence[str] = ()
    points: Sequence[Sequence[Any]] = ()
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_dict(self, task: str) -> dict[str, Any]:
        """`task.json`."""
        return {
            "task": task,
            "measures": {name: dict(values) for name, values in self.measures.items()},
            "sheets": [sheet.as_dict() for sheet in self.sheets],
            "notes": list(self.notes),
            "points": [list(point) for point in self.points],
            "groups": {name: dict(clusters) for name, clusters in self.groups.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardInputs:
    """What a guard of a task may look at: today's system and the candidate, on the same queries."""

    before: Run
    after: Run
    base: Systems
    tuned: Systems
    split: Split
    alpha: float
    seed: int
    scores: tuple[Scores, Scores] | None = None  # of both, where they were measured before
    clusters: QueryClusters = field(default_factory=QueryClusters)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard found.  `change` is in the direction in which more is better."""

    status: Status
    before: float
    after: float
    change: float
    low: float | None  # of what is compared with the bound
    high: float | None
    n: int
    bound: float
    sentence: str


class Cannot(Exception):  # noqa: N818 - it is an answer, not an error
    """A guard or measure cannot say anything here: `why`, and what would let it."""

    def __init__(self, why: str, next_step: str) -> None:
        super().__init__(why)
        self.why, self.next_step = why, next_step


class Task(ABC):
    """What the vectors are for.  A subclass sets `name` and `question`; made without arguments."""

    name: ClassVar[str]
    question: ClassVar[str]
    #: Systems that every evaluation compares besides (names of the seam `retriever`).
    baselines: ClassVar[tuple[str, ...]] = ()
    #: Whether what real people were shown is judged by which items of the catalogue it holds.
    judges_exposure: ClassVar[bool] = False

    @abstractmethod
    def load(self, settings: Config, root: Path) -> Loaded:
        """Documents, queries and judgments.  Raises DataError, with file and line."""

    def asks_with_items(self, settings: Config) -> bool:
        """Whether `load` makes queries of documents, which are then left out of their own results."""
        return False

    def source(self, settings: Config) -> str:
        """Where the counts of `Loaded.dropped` come from, at the beginning of a sentence."""
        return "Click log"

    def measure(self, inputs: TaskInputs) -> Findings | None:
        """Its own measures of the systems; None where search's measures say it all."""
        return None

    def guards(self, settings: Config) -> Sequence[TaskGuard]:
        """What is guarded in every decision where the settings name nothing."""
        return ()

    @abstractmethod
    def check(self, guard: TaskGuard, inputs: GuardInputs) -> Verdict:
        """Whether the candidate holds a bound.

        Raises Cannot where that cannot be told, ConfigError for a measure that the task lacks.
        """
