"""What a search has tried so far: one folder per trial, whose file `trial.json` is written last.

A trial that has ended is never trained again, also after a kill.  The checkpoints of the best one
are kept, so that there is always a model; those of the others are removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nearer.files import read_json, write_json
from nearer.training.methods.arms import Arm

_RECORD = "trial.json"
_SHARE = "share.json"
_PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of an arm in one round; times in seconds, `dev` None where it failed.

    `complete` says that more time would have changed nothing: it was not cut short.
    """

    round: int
    arm: int
    label: str
    share: float
    seconds: float
    steps: int
    stopped: str
    dev: float | None
    complete: bool

    @property
    def score(self) -> float:
        return float("-inf") if self.dev is None else self.dev


class Trials:
    """The trials of one search, in a folder."""

    def __init__(self, folder: Path, arms: Sequence[Arm]) -> None:
        self.folder = folder
        self.ended: list[Trial] = []
        self._arms = arms

    @classmethod
    def of(cls, folder: Path, arms: Sequence[Arm]) -> Trials:
        """The trials that an earlier process left, where it tried the same arms; else none."""
        plan = [{"method": arm.method, "changes": dict(arm.changes)} for arm in arms]
        path = folder / _PLAN
        if path.is_file() and read_json(path)["tried_from"] != plan:
            shutil.rmtree(folder)
        trials = cls(folder, arms)
        if not path.is_file():
            write_json(path, {"tried_from": plan, "arms": None})
        for record in sorted(folder.glob(f"round-*/arm-*/{_RECORD}")):
            trials.ended.append(Trial(**read_json(record)))
        return trials

    def planned(self, arms: int) -> int:
        """How many arms an earlier process had time for; `arms`, kept from now on, where none did."""
        plan = read_json(self.folder / _PLAN)
        if plan["arms"] is None:
            plan["arms"] = arms
            write_json(self.folder / _PLAN, plan)
        return int(plan["arms"])

    def place(self, number: int, arm: Arm) -> Path:
        """The folder of an arm's trial in a round."""
        return self.folder / f"round-{number}" / f"arm-{arm.number}"

    def share(self, place: Path, seconds: float) -> float:
        """The seconds that an earlier process gave this trial; `seconds` where none began it."""
        path = place / _SHARE
        if not path.is_file():
            write_json(path, {"seconds": seconds})
        return float(read_json(path)["seconds"])

    def of_arm(self, arm: Arm) -> Trial | None:
        """The last trial of an arm."""
        own = [trial for trial in self.ended if trial.arm == arm.number]
        return max(own, key=lambda trial: trial.round, default=None)

    def add(self, trial: Trial) -> None:
        """Write down a trial that has ended, and keep the checkpoints of the best one alone."""
        write_json(self.place(trial.round, self._arms[trial.arm]) / _RECORD, asdict(trial))
        self.ended.append(trial)
        best = self.best
        for other in self.ended:
            if other is not best:
                self._forget(other)

    @property
    def best(self) -> Trial | None:
        """The best on dev; of equal ones the first.  None where all have failed, or none ended."""
        judged = [trial for trial in self.ended if trial.dev is not None]
        return max(judged, key=lambda trial: trial.score, default=None)

    def _forget(self, trial: Trial) -> None:
        place = self.place(trial.round, self._arms[trial.arm])
        for checkpoint in place.rglob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def lines(self) -> list[Mapping[str, Any]]:
        """What `train/summary.json` says of each."""
        lines: list[Mapping[str, Any]] = []
        for trial in sorted(self.ended, key=lambda trial: (trial.round, trial.arm)):
            line = asdict(trial)
            line["changes"] = dict(self._arms[trial.arm].changes)
            lines.append(line)
        return lines
