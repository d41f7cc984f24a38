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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer import files, progress
from nearer.config import Config
from nearer.data import sources
from nearer.errors import BusyError, DataError, MissingStepError, NearerError
from nearer.lifecycle import BY_NAME, STAGES, STEP, Stage
from nearer.project import Project
from nearer.results import Block, Result


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended: `done` (computed), `fresh` (nothing changed) or `kept` (somebody's own files)."""

    stage: str
    status: str
    seconds: float
    path: Path
    summary: Mapping[str, Any]
    stale_inputs: tuple[str, ...] = ()  # earlier stages that would give something else by now

    def blocks(self) -> list[Block]:
        """What people should see of it, from its files.  Raises DataError for damaged ones."""
        kind: type[Result] = importlib.import_module(BY_NAME[self.stage].module).RESULT
        try:
            return kind.load(self.path).blocks()
        except (KeyError, TypeError, AttributeError, NearerError, OSError) as error:
            if self.status == "kept":
                return []  # somebody else's files may hold only what later stages read
            raise DataError(
                f"the files are not what {self.stage} writes ({error})",
                where=str(self.path),
                next_step=f"nearer {self.stage} --force",
            ) from error


class Workspace:
    """The folder of one nearer.yaml and one run below it."""

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root.resolve()
        self.config = config
        self.run_dir = self.root / "runs" / config.run
        self.cache = self.root / "runs" / ".cache"
        self.project = Project(config, self.root, self.run_dir, self.cache)

    # -- running -------------------------------------------------------------------------------

    def run(
        self,
        stages: tuple[Stage, ...],
        force: bool = False,
        before: Callable[[Stage], None] | None = None,
        after: Callable[[StepResult], None] | None = None,
    ) -> list[StepResult]:
        """Run stages in order, skipping what is fresh; `before` and `after` hear of every one.

        `force` recomputes the named stages.  Raises BusyError when another process has the run.
        """
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
        """Stages before the first of `stages` that these rest on, and that are not fresh any more.

        They are not run unasked, but what rests on them is told to be old.
        """
        needed = _rests_on(stages)
        if not needed:
            return ()  # a run from the beginning: nothing to hash
        stale = tuple(
            row["stage"]
            for row in self.status()
            if row["stage"] in needed and row["state"] in ("stale", "missing", "waiting")
        )
        if stale:
            progress.warn(
                f"{', '.join(stale)} changed since it ran: {stages[-1].name} is about the old "
                f"result → nearer run --to {stages[-1].name}"
            )
        return stale

    def _run_one(self, stage: Stage, force: bool) -> StepResult:
        target = self.run_dir / stage.name
        started = time.monotonic()
        record = self._record(stage)
        inputs = self.inputs(stage)
        settings = {name: self.config.section(name) for name in stage.settings}
        fingerprint = files.value_hash(
            {"stage": stage.name, "version": stage.version, "settings": settings, "inputs": inputs}
        )
        if not force:
            state = self._state(stage, fingerprint, record)
            if state in ("fresh", "kept"):
                if state == "kept":
                    progress.warn(
                        f"{stage.name}: using {target} as it is (not what nearer wrote); --force replaces it"
                    )
                return StepResult(
                    stage.name, state, time.monotonic() - started, target, _summary(record)
                )
        out = self.run_dir / ".work" / f"{stage.name}-{fingerprint[:16]}"
        if force or not stage.resumable:
            shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        project = self.project.during(stage, out, inputs)
        result = importlib.import_module(stage.module).run(project)
        result.save(out)
        summary = result.brief()
        record = {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": fingerprint,
            "settings": settings,
            "inputs": inputs,
            "outputs": _hash_outputs(out),
            "summary": summary,
            "seconds": round(time.monotonic() - started, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files.write_json(out / STEP, record)
        files.swap_folder(out, target, self._aside(stage))
        for stale in (self.run_dir / ".work").glob(f"{stage.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        return StepResult(stage.name, "done", time.monotonic() - started, target, summary)

    def project_for(self, stage: str) -> Project:
        """The project as a stage sees it, for looking only: nothing may be written."""
        return self.project.during(BY_NAME[stage], self.run_dir / ".work" / "none", {})

    # -- what is fresh -------------------------------------------------------------------------

    def inputs(self, stage: Stage) -> dict[str, Any]:
        """Content hashes of what a stage reads.  Raises MissingStepError, or DataError for a lost file."""
        hashes: dict[str, Any] = {}
        for name in stage.reads:
            external = sources.external_inputs(name, self.config, self.root)
            if external is not None:
                hashes[name] = {
                    key: files.content_hash(path) if isinstance(path, Path) else path
                    for key, path in external.items()
                }
                continue
            file, _, key = name.partition("#")
            path = self.run_dir / file
            if not path.exists():
                earlier = name.split("/", 1)[0]
                raise MissingStepError(
                    f"{stage.name} reads {file}, which is not there yet",
                    where=str(self.run_dir),
                    next_step=f"nearer {earlier}",
                )
            if key:
                hashes[name] = files.value_hash(files.read_json(path).get(key))
                continue
            # The record of an earlier step holds times; only what it made counts.
            hashes[name] = _hash_outputs(path) if path.is_dir() else files.content_hash(path)
        return hashes

    def status(self) -> list[dict[str, Any]]:
        """One row a stage: `state` is fresh, stale, kept, missing or waiting (an input is missing)."""
        rows = []
        stale = False
        for stage in STAGES:
            record = self._record(stage)
            try:
                settings = {name: self.config.section(name) for name in stage.settings}
                inputs = self.inputs(stage)
                fingerprint = files.value_hash(
                    {
                        "stage": stage.name,
                        "version": stage.version,
                        "settings": settings,
                        "inputs": inputs,
                    }
                )
                state = self._state(stage, fingerprint, record)
            except MissingStepError:
                state = "waiting"
            stale = stale or state in ("stale", "missing", "waiting")
            if stale and state == "fresh":
                state = "stale"  # something above it will change
            rows.append(
                {
                    "stage": stage.name,
                    "question": stage.question,
                    "state": state,
                    "finished": record.get("finished"),
                    "seconds": record.get("seconds"),
                    "summary": _summary(record),
                }
            )
        return rows

    def _record(self, stage: Stage) -> dict[str, Any]:
        path = self.run_dir / stage.name / STEP
        return files.read_json(path) if path.is_file() else {}

    def _state(self, stage: Stage, fingerprint: str, record: Mapping[str, Any]) -> str:
        target = self.run_dir / stage.name
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
        return "fresh" if record.get("fingerprint") == fingerprint else "stale"

    # -- one writer ----------------------------------------------------------------------------

    def _aside(self, stage: Stage) -> Path:
        return self.run_dir / ".work" / f"aside.{stage.name}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run against other processes; put back what a killed rename left aside."""
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
                files.recover_folder(self.run_dir / stage.name, self._aside(stage))
            yield


def _rests_on(stages: tuple[Stage, ...]) -> set[str]:
    """Names of the other stages whose files these stages read, directly or through one another."""
    own = {stage.name for stage in stages}
    found: set[str] = set()
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        for name in stage.reads:
            earlier = BY_NAME.get(name.split("/", 1)[0])
            if earlier is not None and earlier.name not in found | own:
                found.add(earlier.name)
                waiting.append(earlier)
    return found


def _summary(record: Mapping[str, Any]) -> Mapping[str, Any]:
    summary = record.get("summary", {})
    return summary if isinstance(summary, dict) else {}


def _hash_outputs(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, by relative name, the step record itself left out."""
    return {
        path.relative_to(folder).as_posix(): files.content_hash(path)
        for path in files.files_below(folder)
        if path.name != STEP
    }
