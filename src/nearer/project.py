"""One nearer.yaml: its data, settings, paths and parts, each made once.

Command line, notebook and service all start from a `Project`.  A stage is handed a view of it
(`during`) that lets it read what `lifecycle.py` declares, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nearer import config, files, progress
from nearer.data import items
from nearer.data.corpus import Corpus
from nearer.data.heldout import HeldOut
from nearer.data.load import Loaded, load_corpus
from nearer.data.scored import ScoredPair, read_pairs
from nearer.data.splits import read_split, require_open
from nearer.embed.base import EncoderSpec, TextEncoder
from nearer.embed.opening import open_encoder
from nearer.errors import NO_DEV, DataError, MissingStepError, UndeclaredReadError
from nearer.lifecycle import BY_NAME, STEP, Stage
from nearer.search.pipeline import Pipeline
from nearer.search.rerank import Lacking, Reranker
from nearer.search.systems import Systems
from nearer.tasks import Task, task_of
from nearer.training.examples import Duplicates
from nearer.training.material import TrainingMaterial
from nearer.training.reranker import reranker_of
from nearer.training.reranker_found import automatic_reranker
from nearer.types import Run, Split

T = TypeVar("T")
S = TypeVar("S", bound=Systems)


@dataclass(frozen=True)
class Project:
    """Settings, data and what is computed from them.

    What earlier stages found comes from the files of a run (`run_dir`); in a notebook (`run_dir`
    is None) `check` runs in memory, and the caller hands over the rest.  Relative paths in the
    settings start at `root`.
    """

    settings: config.Config
    root: Path
    run_dir: Path | None = None  # None: a notebook, where results stay in memory
    cache: Path | None = None  # embeddings and scores, shared by all runs
    stage: Stage | None = None  # whose declared reads are enforced
    out: Path | None = None  # folder of the unfinished step: its checkpoints
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False)  # content hashes
    parts: dict[Any, Any] = field(default_factory=dict, repr=False)  # shared by all stages
    own: dict[str, Any] = field(default_factory=dict, repr=False)  # gone when the stage ends

    def during(self, stage: Stage, out: Path, inputs: Mapping[str, Any]) -> Project:
        """The same project for one stage; parts made of the same content are shared."""
        return replace(self, stage=stage, out=out, inputs=inputs, own={})

    # -- what a stage may read -----------------------------------------------------------------

    def earlier(self, relative: str) -> Path:
        """A file or folder that an earlier stage wrote.

        Raises UndeclaredReadError unless the stage declares it in `lifecycle.py`, and
        MissingStepError when it is not there.
        """
        path = self.perhaps(relative)
        if not path.exists():
            stage = relative.split("/", 1)[0]
            raise MissingStepError(
                f"{relative} is missing", where=str(self.run_dir), next_step=f"nearer {stage}"
            )
        return path

    def perhaps(self, relative: str) -> Path:
        """The same for a file that may be missing.  Raises UndeclaredReadError."""
        if self.stage is not None and not _declares(self.stage, relative):
            raise UndeclaredReadError(self.stage.name, relative)
        if self.run_dir is None:
            stage = relative.split("/", 1)[0]
            raise MissingStepError(
                f"there is no result of {stage}",
                where="this project has no run folder",
                next_step=f"pass what nearer.{stage} returned",
            )
        return self.run_dir / relative

    def uses(self, *names: str) -> None:
        """Raise UndeclaredReadError unless the stage declares one of these inputs from outside the run."""
        if self.stage is not None and not set(names) & set(self.stage.reads):
            raise UndeclaredReadError(self.stage.name, " or ".join(names))

    # -- data ----------------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """What the vectors are for: search, recommend, cluster, or a task of the user's own."""
        return task_of(self.settings, self.root)

    @property
    def loaded(self) -> Loaded:
        """Documents, queries and judgments as the settings name them.  Raises DataError."""
        self.uses("data")
        return self._part("loaded", ("data",), lambda: self.task.load(self.settings, self.root))

    @property
    def corpus(self) -> Corpus:
        """The documents.  Raises DataError."""
        self.uses("corpus", "data")
        if self.run_dir is None:
            return self.loaded.corpus
        return self._part(
            "corpus", ("corpus", "data"), lambda: load_corpus(self.settings.data, self.root)
        )

    @property
    def checked(self) -> Any:
        """The result of `check` in a notebook, computed when it is first needed."""
        return self._part("checked", (), lambda: import_module(BY_NAME["check"].module).run(self))

    def split(self, name: str) -> Split:
        """The train or dev split as `check` froze it.  Raises HeldOutError for test."""
        if self.run_dir is None:
            require_open(name, "check")
            split: Split = self.checked.splits[name]
            return split
        return read_split(self.earlier(f"check/split/{name}").parent, name)

    def scored_pairs(self, name: str) -> tuple[ScoredPair, ...]:
        """The held-out scored pairs of dev.  Raises HeldOutError for test."""
        require_open(name, "check")
        if self.run_dir is None:
            pairs: tuple[ScoredPair, ...] = self.checked.pairs.get(name, ())
            return pairs
        return read_pairs(self.earlier(f"check/split/{name}").parent, name)

    @property
    def dev(self) -> Split:
        """The dev split, for a stage that measures on it.  Raises DataError when it is empty."""
        dev = self.split("dev")
        if not dev.queries and self.stage is not None:
            raise DataError(
                f"the dev split is empty: {self.stage.name} has no queries to measure on",
                where=str(self.run_dir / "check" / "split" / "dev") if self.run_dir else "dev",
                next_step=NO_DEV,
            )
        return dev

    @property
    def held_out(self) -> HeldOut:
        """The guard that knows dev and test queries by their hashes only."""
        if self.run_dir is None:
            guard: HeldOut = self.checked.held_out
            return guard
        return HeldOut.load(self.earlier("check/heldout.npz"))

    @property
    def duplicates(self) -> Duplicates:
        """Near-duplicate documents and training queries."""
        if self.run_dir is None:
            checked = self.checked
            return Duplicates.of(checked.duplicate_documents, checked.duplicate_train_queries)
        return Duplicates.read(self.earlier("check/near_duplicates.json"))

    @property
    def item_to_item(self) -> bool:
        """Whether queries are documents: each is left out of its own results."""
        if self.run_dir is None:
            return bool(self.checked.item_to_item)
        self.perhaps(items.FINDINGS)
        return items.decided(self.settings.data.item_to_item, self.run_dir)

    # -- parts ---------------------------------------------------------------------------------

    @property
    def systems(self) -> Systems:
        """Search systems over the configured model: one object per stage, one in a notebook.

        They hold vectors and results, and rest on what `check` found: no stage keeps another's.
        """
        if "systems" not in self.own:
            self.own["systems"] = self.systems_over(None)
        systems: Systems = self.own["systems"]
        return systems

    def systems_over(self, encoder: TextEncoder | None, **shared: Any) -> Systems:
        """Systems over an encoder (None: the configured one); `shared` are parts of others (bm25=, reranker=)."""
        return self.systems_like(Systems, encoder=encoder, **shared)

    def systems_like(self, kind: Callable[..., S], corpus: Corpus | None = None, **parts: Any) -> S:
        """Systems of a kind over the documents (`corpus`: over others); `parts` go to the kind."""
        self.uses("model")
        opens_test = self.stage is None or self.stage.name == "decide"
        parts.setdefault("splits", ("dev", "test") if opens_test else ("dev",))
        systems = kind(
            self.settings,
            self.root,
            self.corpus if corpus is None else corpus,
            cache=self.cache,
            item_to_item=self.item_to_item,
            **parts,
        )
        if self.settings.task == "recommend":
            systems.read_trained = lambda: self.split("train").judgments
        return systems

    @classmethod
    def at(cls, root: Path, settings: config.Config) -> Project:
        """The project of a nearer.yaml with these settings, its parts not made yet."""
        run_dir = root / "runs" / settings.run
        return cls(settings, root, run_dir, root / "runs" / ".cache")

    @property
    def encoder(self) -> TextEncoder:
        """The configured model, its vectors kept.  Raises ModelError."""
        self.uses("model")
        return self._part(
            "encoder",
            ("model",),
            lambda: open_encoder(self.settings.model, self.root, cache=self.cache),
        )

    @property
    def has_weights(self) -> bool:
        """Whether the configured model is here, so that its weights can be trained."""
        return EncoderSpec.of(self.settings.model, self.root).has_weights

    @property
    def systems_with_reranker(self) -> Systems:
        """The systems, with the reranker that the settings name, trained now if they say so."""
        systems = self.systems
        if systems.reranker is None and "reranker" not in self.own:
            reranker, lacking = self._reranker(systems)
            systems = systems.with_reranker(reranker, lacking)
            self.own["reranker"] = self.own["systems"] = systems
        return systems

    def _reranker(self, systems: Systems) -> tuple[Reranker | None, Lacking]:
        """The configured reranker, or one trained on queries that collide with no held-out one."""
        settings = self.settings
        if settings.rerank.model is None:
            return None, Lacking()
        self.uses("other models", "reranker")
        train = self.split("train")
        if settings.rerank.model == "train" and not train.queries:
            why = "there are no training queries to make one from (rerank.model)"
            progress.warn(f"no reranker: {why}")
            return None, Lacking(why)
        if settings.rerank.automatic:
            train = self._enough(train)
        material = TrainingMaterial(
            train,
            systems.corpus,
            self.duplicates,
            self.held_out.collides,
            settings.data.min_grade,
            systems.item_to_item,
        )

        def runs() -> list[Run]:
            return [systems.run(Pipeline(name), train) for name in ("bm25", "dense")]

        if settings.rerank.automatic:
            return automatic_reranker(settings, self.root, self.cache, material, runs)
        return reranker_of(settings, self.root, self.cache, material, runs), Lacking()

    def _enough(self, train: Split) -> Split:
        """As many training queries as an automatic reranker could learn from, twice over: the rest is not searched."""
        rerank = self.settings.rerank
        most = 2 * rerank.pairs // (1 + rerank.negatives) + 1
        if len(train.queries) <= most:
            return train
        chosen = sorted(self.rng("rerank").permutation(len(train.queries))[:most].tolist())
        return replace(train, queries=tuple(train.queries[row] for row in chosen))

    def rng(self, stage: str) -> np.random.Generator:
        """A generator of the stage's own, so that a stage that runs alone gives the same result."""
        return np.random.default_rng([self.settings.seed, *stage.encode()])

    def saved_summary(self, stage: str) -> Mapping[str, Any] | None:
        """`summary.json` of an earlier stage of the run; None in a notebook.

        Raises MissingStepError where the stage has not run.
        """
        if self.run_dir is None:
            return None
        summary: Mapping[str, Any] = files.read_json(self.earlier(f"{stage}/summary.json"))
        return summary

    def _part(self, name: str, inputs: tuple[str, ...], make: Callable[[], T]) -> T:
        """A part, made once for the same content of the inputs that it rests on."""
        content = [self.inputs.get(key) for key in inputs]
        key = (name, files.value_hash(content) if any(content) else "")
        if key not in self.parts:
            self.parts[key] = make()
        part: T = self.parts[key]
        return part


def _declares(stage: Stage, relative: str) -> bool:
    """Whether `relative` is among what a stage reads, or inside it.

    Every stage may read the record of another (`step.json`): it says when and how long, and what a
    stage writes does not hang on it.
    """
    if relative.rpartition("/")[2] == STEP:
        return True
    for name in stage.reads:
        declared = name.partition("#")[0]
        if relative == declared or relative.startswith(f"{declared}/"):
            return True
    return False


def load(
    folder: str | Path | None = None,
    *,
    model: str | None = None,
    cache: str | Path | None = None,
    **sections: Mapping[str, Any],
) -> Project:
    """Read data and settings, for notebooks and programs.

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
    project = Project(settings, Path.cwd(), cache=Path(cache) if cache else None)
    _ = project.loaded  # unreadable data is refused here, not in the first stage
    return project
