"""Runs and steps on disk: what reruns, what is kept, what a kill leaves behind.

A step reruns when content or settings changed, never because a file exists or does not.
`step.json`, written last, holds a fingerprint of the stage's version, its settings and the content
of its inputs, and a hash of each output.  Work happens in `.work/STAGE-FINGERPRINT/`, which becomes
`STAGE/` by a rename; until then the old result stands whole.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer import files, progress
from nearer.config import Config
from nearer.data import sources
from nearer.data.inputs import external_inputs
from nearer.errors import BusyError, ConfigError, DataError, MissingStepError, NearerError
from nearer.lifecycle import BY_NAME, STAGES, STEP, Stage
from nearer.project import Project
from nearer.results import Block, Result
from nearer.training import processes

#: Stages that need queries: with training files alone there is nothing of theirs to read.
_OF_QUERIES = ("evaluate", "diagnose", "fix")
_OUT_OF_DATE = ("stale", "missing", "waiting")


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended.

    `status` is `done` (computed), `fresh` (nothing changed) or `kept` (files that somebody
    else wrote); `path` is the folder of its outputs.
    """

    stage: str
    status: str
    seconds: float
    path: Path
    summary: Mapping[str, Any]
    stale_inputs: tuple[str, ...] = ()  # earlier stages whose result is out of date
    computed: tuple[Block, ...] | None = None  # what to show, where it was computed just now

    def blocks(self) -> list[Block]:
        """The result as people read it: as computed, else from its files.

        Raises DataError for damaged files.
        """
        if self.computed is not None:
            return list(self.computed)
        kind: type[Result] = importlib.import_module(BY_NAME[self.stage].module).RESULT
        try:
            return kind.load(self.path).blocks()
        except (KeyError, TypeError, AttributeError, NearerError, OSError) as error:
            if self.status == "kept":
                return []  # files that nearer did not write may hold only what later stages read
            raise DataError(
                f"the files are not what {self.stage} writes ({error})",
                where=str(self.path),
                next_step=f"nearer {self.stage} --force",
            ) from error


@dataclass(frozen=True, slots=True)
class _Basis:
    """What the result of a step rests on; a step with another fingerprint must run again."""

    stage: Stage
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]  # content hashes of what the stage reads

    @property
    def fingerprint(self) -> str:
        return files.value_hash(
            {
                "stage": self.stage.name,
                "version": self.stage.version,
                "settings": self.settings,
                "inputs": self.inputs,
            }
        )


class Workspace:
    """The folder of one nearer.yaml and one run below it."""

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root.resolve()
        self.config = config
        self.run_dir = self.root / "runs" / config.run
        self.cache = self.root / "runs" / ".cache"
        self.project = Project.at(self.root, config)

    # -- running -------------------------------------------------------------------------------

    def run(
        self,
        stages: tuple[Stage, ...],
        force: bool = False,
        before: Callable[[Stage], None] | None = None,
        after: Callable[[StepResult], None] | None = None,
    ) -> list[StepResult]:
        """Run stages in order, skipping what is fresh.

        `before` and `after` are called once per stage.  `force` recomputes the named stages.
        Raises BusyError when another process is working on the run.  Under torchrun only `train`
        runs: the first process as ever, the others beside it.
        """
        if processes.count() > 1:
            _require_train(stages)
        if not processes.first():
            return self._train_beside(stages[0])
        results = []
        with self.locked():
            stale = self._stale_inputs(stages)
            for stage in stages:
                if before:
                    before(stage)
                result = replace(self._run_one(stage, force), stale_inputs=stale)
                results.append(result)
                if after:
                    after(result)
        return results

    def _stale_inputs(self, stages: tuple[Stage, ...]) -> tuple[str, ...]:
        """Earlier stages that `stages` rest on and whose result is out of date; warns of them.

        They are not run, as nobody asked for them.  Only stages that matter are hashed: a run from
        the beginning rests on none.
        """
        needed = _rests_on(stages)
        out_of_date = []
        for stage, state, _ in self._states(stage for stage in STAGES if stage.name in needed):
            if state in _OUT_OF_DATE:
                out_of_date.append(stage.name)
        if out_of_date:
            last = stages[-1].name
            progress.warn(
                f"{', '.join(out_of_date)} changed since it ran: {last} is about the old result "
                f"→ nearer run --to {last}"
            )
        return tuple(out_of_date)

    def _run_one(self, stage: Stage, force: bool) -> StepResult:
        """Run a stage unless its result is fresh or was written by somebody else."""
        started = time.monotonic()
        target = self.run_dir / stage.name
        record = self._record(stage)
        basis = self._basis(stage)
        state = "stale" if force else self._state(basis, record)
        computed = None
        if state in ("fresh", "kept"):
            processes.agreed(lambda: None)  # the others need not train either
            summary = _summary(record)
        else:
            state = "done"
            result = self._compute(basis, force, started)
            summary, computed = result.brief(), tuple(result.blocks())
        if state == "kept":
            progress.warn(
                f"{stage.name}: using {target} as it is (not what nearer wrote); --force replaces it"
            )
        return StepResult(
            stage.name,
            state,
            time.monotonic() - started,
            target,
            summary,
            computed=computed,
        )

    def _compute(self, basis: _Basis, force: bool, started: float) -> Result:
        """Run a stage in its work folder, put the result in place, and return it.

        An unfinished work folder of the same fingerprint is continued, unless with `force`.
        """
        stage = basis.stage
        fingerprint = basis.fingerprint
        work = self.run_dir / ".work"
        out = work / f"{stage.name}-{fingerprint[:16]}"
        if force or not stage.resumable:
            shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        processes.agreed(lambda: (out, basis.inputs))
        project = self.project.during(stage, out, basis.inputs)
        result: Result = importlib.import_module(stage.module).run(project)
        result.save(out)
        record = {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": fingerprint,
            "settings": basis.settings,
            "inputs": basis.inputs,
            "outputs": _hash_outputs(out),
            "summary": result.brief(),
            "seconds": round(time.monotonic() - started, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files.write_json(out / STEP, record)
        files.swap_folder(out, self.run_dir / stage.name, self.aside(stage))
        for unfinished in work.glob(f"{stage.name}-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        return result

    def _train_beside(self, stage: Stage) -> list[StepResult]:
        """What the other processes of torchrun do: they train with the first and write nothing."""
        work: tuple[Path, Mapping[str, Any]] | None = processes.agreed(lambda: None)
        if work is not None:
            project = self.project.during(stage, *work)
            importlib.import_module(stage.module).run(project)
        return []

    def project_for(self, stage: str) -> Project:
        """The project as a stage reads it; nothing may be written."""
        return self.project.during(BY_NAME[stage], self.run_dir / ".work" / "none", {})

    # -- what is fresh -------------------------------------------------------------------------

    def inputs(self, stage: Stage) -> dict[str, Any]:
        """Content hashes of what a stage reads.  Raises MissingStepError, or DataError for a lost file."""
        return {name: self._input_hash(stage, name) for name in stage.reads}

    def _input_hash(self, stage: Stage, name: str) -> Any:
        """Hash of one input, or a mapping of hashes where it consists of several files."""
        external = external_inputs(name, self.config, self.root)
        if external is not None:
            return {key: _external_hash(value) for key, value in external.items()}
        file, _, key = name.partition("#")
        path = self.run_dir / file
        if not path.exists():
            earlier = name.split("/", 1)[0]
            if earlier in _OF_QUERIES and sources.is_only_training(self.config.data):
                return None
            raise MissingStepError(
                f"{stage.name} reads {file}, which is not there yet",
                where=str(self.run_dir),
                next_step=f"nearer {earlier}",
            )
        if key:
            return files.value_hash(files.read_json(path).get(key))
        if path.is_dir():
            return _hash_outputs(path)  # without the record, which holds times
        return files.content_hash(path)

    def _basis(self, stage: Stage) -> _Basis:
        """What the stage would rest on if it ran now.  Raises MissingStepError."""
        settings = {name: self.config.section(name) for name in stage.settings}
        return _Basis(stage, settings, self.inputs(stage))

    def status(self) -> list[dict[str, Any]]:
        """One row per stage: `state` is fresh, stale, kept, missing or waiting (an input is missing)."""
        rows = []
        for stage, state, record in self._states(STAGES):
            row = {
                "stage": stage.name,
                "question": stage.question,
                "state": state,
                "finished": record.get("finished"),
                "seconds": record.get("seconds"),
                "summary": _summary(record),
            }
            rows.append(row)
        return rows

    def _states(self, stages: Iterable[Stage]) -> Iterator[tuple[Stage, str, dict[str, Any]]]:
        """Each stage with its state and its record; after one that is out of date, none is fresh."""
        earlier_will_change = False
        for stage in stages:
            record = self._record(stage)
            try:
                state = self._state(self._basis(stage), record)
            except MissingStepError:
                state = "waiting"
            if state in _OUT_OF_DATE:
                earlier_will_change = True
            elif state == "fresh" and earlier_will_change:
                state = "stale"
            yield stage, state, record

    def _record(self, stage: Stage) -> dict[str, Any]:
        path = self.run_dir / stage.name / STEP
        return files.read_json(path) if path.is_file() else {}

    def _state(self, basis: _Basis, record: Mapping[str, Any]) -> str:
        """Whether the result of a stage is missing, stale, kept or fresh."""
        target = self.run_dir / basis.stage.name
        if not target.is_dir() or not any(target.iterdir()):
            return "missing"
        if not record:
            return "kept"  # written by somebody else, in our format
        recorded = record.get("outputs", {})
        present = _hash_outputs(target)
        if any(name not in present for name in recorded):
            return "stale"
        if any(present[name] != digest for name, digest in recorded.items()):
            return "kept"  # edited or replaced by hand: never overwritten unasked
        if record.get("fingerprint") != basis.fingerprint:
            return "stale"
        return "fresh"

    # -- one writer ----------------------------------------------------------------------------

    def aside(self, stage: Stage) -> Path:
        """Where the old result stands while the new one takes its place."""
        return self.run_dir / ".work" / f"aside.{stage.name}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against other processes; put back what a killed rename left aside.

        Raises BusyError when another process holds the lock.
        """
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with open(self.run_dir / ".lock", "a+", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                raise BusyError(
                    f"another process (pid {holder}) is working on this run",
                    where=str(self.run_dir),
                    next_step="wait for it, or use --run OTHER_NAME",
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            for stage in BY_NAME.values():
                files.recover_folder(self.run_dir / stage.name, self.aside(stage))
            yield


def _require_train(stages: tuple[Stage, ...]) -> None:
    names = [stage.name for stage in stages]
    if names != ["train"]:
        raise ConfigError(
            f"torchrun is for nearer train alone, not for {', '.join(names)}",
            next_step=f"nearer run --from {names[0]} --to {names[-1]}",
        )


def _rests_on(stages: tuple[Stage, ...]) -> set[str]:
    """Names of the other stages whose files these stages read, directly or through one another."""
    own = {stage.name for stage in stages}
    needed: set[str] = set()
    unvisited = list(stages)
    while unvisited:
        stage = unvisited.pop()
        for name in stage.reads:
            earlier = BY_NAME.get(name.split("/", 1)[0])
            if earlier is not None and earlier.name not in needed | own:
                needed.add(earlier.name)
                unvisited.append(earlier)
    return needed


def _external_hash(value: Any) -> Any:
    """Hash of a file or folder outside the run; what is no path stands for itself."""
    return files.content_hash(value) if isinstance(value, Path) else value


def _summary(record: Mapping[str, Any]) -> Mapping[str, Any]:
    summary = record.get("summary", {})
    return summary if isinstance(summary, dict) else {}


def _hash_outputs(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, by relative name, without the record of the step."""
    hashes = {}
    for path in files.files_below(folder):
        if path.name != STEP:
            hashes[path.relative_to(folder).as_posix()] = files.content_hash(path)
    return hashes
