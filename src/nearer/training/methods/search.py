"""Spends `train.budget` on a search for better settings, by successive halving; dev decides.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all arms get a little time, the
better third of them more, and the best one half of the whole budget.  Every trial is a training of
its own whose schedule ends with its time.  Trials are neither merged nor judged on the general set;
the last training is, so that what comes out is a model like any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nearer import progress
from nearer.config import Train
from nearer.errors import ConfigError, ModelError
from nearer.training import processes
from nearer.training.methods.arms import Arm, Surroundings, arms_of
from nearer.training.methods.frozen import layers_of
from nearer.training.methods.job import Candidate, Job, SharedTime
from nearer.training.methods.naming import parse
from nearer.training.methods.trials import Trial, Trials
from nearer.training.methods.weights import judge_base, train_once, train_weights, with_weights
from nearer.training.optimise import default_learning_rate

#: Of so many arms one goes on to the next round.
_ONE_OF = 3
#: Share of the budget that the last training gets.
_LAST = 0.5
#: Seconds that a trial needs beside its looks at dev: loading, a few steps, a checkpoint.
_FEWEST_SECONDS = 4.0
#: Looks at dev that a trial has at least, and scores on all of it.
_LOOKS, _SCORES = 4, 2
#: Share of what a trial needs below which it is not begun.
_TOO_SHORT = 0.5


def refuse_impossible(settings: Train, n_dev: int) -> None:
    """Raises ConfigError where the settings ask for a search that cannot be made.

    `n_dev` is how many dev queries there are.
    """
    if not settings.search.arms:
        return
    if settings.budget is None:
        raise ConfigError(
            "a search spends a budget of time, and none is set",
            where="train.search",
            next_step="nearer train --set train.budget=30m",
        )
    if settings.candidates or settings.method == "linear":
        raise ConfigError(
            "a search chooses among its own methods",
            where="train.search, train.candidates, train.method",
            next_step="name the methods in train.search.method, and leave train.candidates empty",
        )
    if not n_dev:
        raise ConfigError(
            "a search chooses on dev, and there are no dev queries",
            where="train.search",
            next_step="give dev a larger share (data.split.dev), or leave train.search out",
        )
    if processes.count() > 1:
        raise ConfigError(
            "a search runs in one process",
            where="train.search",
            next_step="nearer train, without torchrun",
        )


def search(job: Job) -> Candidate:
    """The model trained with the settings that were best on dev.

    Raises what `train` raises for the user's own settings; other arms may fail.
    """
    halving = _Halving.begun(job)
    arms = halving.arms
    for number, size in enumerate(halving.rounds):
        arms = halving.run_round(number, arms[:size])
    return halving.finished(arms[0])


def sizes(arms: int) -> list[int]:
    """How many arms are tried in each round before the last training, which has one."""
    if arms < 2:
        return []
    rounds = [arms]
    while rounds[-1] > _ONE_OF:
        rounds.append(math.ceil(rounds[-1] / _ONE_OF))
    return rounds


def affordable(arms: int, left: float, fewest: float) -> int:
    """How many arms there is time for: each trial of the first round gets `fewest` seconds or more."""
    while arms > 1 and _first_share(arms, left) < fewest:
        arms -= 1
    return arms


def _first_share(arms: int, left: float) -> float:
    return left * (1.0 - _LAST) / len(sizes(arms)) / arms


@dataclass
class _Halving:
    """A search that is going on."""

    job: Job
    trials: Trials
    arms: Sequence[Arm]
    rounds: Sequence[int]
    wanted: int  # arms that the settings ask for
    fewest: float  # seconds that a trial needs
    earlier: float  # seconds of earlier processes

    @classmethod
    def begun(cls, job: Job) -> _Halving:
        folder = job.checkpoints / "search"
        wanted = arms_of(job.settings, _surroundings(job))
        trials = Trials.of(folder, wanted)
        base = judge_base(replace(job, checkpoints=folder / "base"))
        job = replace(job, base_scores=folder / "base")
        fewest = _FEWEST_SECONDS + _LOOKS * base.look_seconds + _SCORES * base.seconds
        earlier = sum(trial.seconds for trial in trials.ended)
        left = job.time.left() - earlier
        count = trials.planned(affordable(len(wanted), left, fewest))
        if count < len(wanted):
            progress.warn(
                f"the budget has time for {count} of {len(wanted)} settings "
                f"(a trial needs {fewest:.0f} s): raise train.budget to try more"
            )
        arms = wanted[:count]
        return cls(job, trials, arms, sizes(count), len(wanted), fewest, earlier)

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.job.time.left() - self.earlier

    def run_round(self, number: int, arms: Sequence[Arm]) -> list[Arm]:
        """Train the arms for their share of the time, and order them by dev, the best first."""
        for position, arm in enumerate(arms):
            last = self.trials.of_arm(arm)
            if last is not None and (last.round >= number or last.complete):
                continue  # it has ended, or more time would give the same again
            share = self._share(number, len(arms) - position, len(arms))
            if share < _TOO_SHORT * self.fewest and self.trials.best is not None:
                break  # the time is up: what is known of them decides
            self._try(number, arm, share)

        def score(arm: Arm) -> float:
            trial = self.trials.of_arm(arm)
            return -math.inf if trial is None else trial.score

        return sorted(arms, key=score, reverse=True)

    def _share(self, number: int, waiting: int, size: int) -> float:
        """Seconds for the next trial of a round in which so many arms of `size` wait."""
        per_round = (1.0 - _LAST) / len(self.rounds)
        own = per_round * waiting / size
        later = per_round * (len(self.rounds) - number - 1) + _LAST
        return self.left() * own / (own + later) / waiting

    def _try(self, number: int, arm: Arm, share: float) -> None:
        place = self.trials.place(number, arm)
        share = self.trials.share(place, share)
        started = time.monotonic()
        job = self._job(arm, SharedTime(share), place, trial=True)
        progress.info(f"search, round {number + 1}: {arm.label}, {share:.0f} s")
        try:
            candidate = train_once(job, parse(arm.method))
        except ModelError as error:
            if not arm.number:
                raise
            progress.warn(f"{arm.label} failed: {error.what}")
            seconds = time.monotonic() - started
            failed = f"failed: {error.what}"
            trial = Trial(number, arm.number, arm.label, share, seconds, 0, failed, None, True)
        else:
            trial = _trial(number, arm, share, candidate)
        # What an earlier process did of this trial counts as well.
        self.earlier += max(0.0, trial.seconds - (time.monotonic() - started))
        self.trials.add(trial)

    def finished(self, arm: Arm) -> Candidate:
        """The last training, of the best arm; or the best trial, where that remains better."""
        last, best = self.trials.of_arm(arm), self.trials.best
        if best is not None and best is last and best.complete:
            return self._described(self._from(best), arm, "its trial was not cut short")
        if best is not None and self.left() < self.fewest:
            arm = self.arms[best.arm]
            return self._described(
                self._from(best), arm, "the time was up before a longer training"
            )
        place = self.trials.folder / "last"
        seeds = self.job.settings.seeds
        job = self._job(arm, SharedTime(self.left(), seeds), place)
        progress.info(f"search, last training: {arm.label}, {self.left():.0f} s")
        candidate = train_weights(job, parse(arm.method))
        if best is not None and best.score > _before_merging(candidate.summary):
            arm = self.arms[best.arm]
            reason = "its trial was better than the longer training of the best of the last round"
            return self._described(self._from(best), arm, reason)
        return self._described(candidate, arm, "it was trained for the time that was left")

    def _from(self, trial: Trial) -> Candidate:
        """The model of a trial, out of its checkpoints: merged and judged, and not trained again."""
        arm = self.arms[trial.arm]
        seeds = self.job.settings.seeds
        left = max(0.0, self.left())
        if left < self.fewest:
            seeds = 1
        # The trial's own seconds are counted against its share again.
        shared = SharedTime(seeds * trial.seconds + left, seeds)
        job = self._job(arm, shared, self.trials.place(trial.round, arm), seeds=seeds)
        return train_weights(job, parse(arm.method))

    def _job(self, arm: Arm, shared: SharedTime, place: Any, **more: Any) -> Job:
        trial = more.pop("trial", False)
        changes = {**arm.changes, **more}
        return replace(self.job, changes=changes, time=shared, checkpoints=place, trial=trial)

    def _described(self, candidate: Candidate, arm: Arm, reason: str) -> Candidate:
        """The candidate with what was tried in its summary."""
        budget = self.job.settings.budget or math.inf
        seconds = budget - self.left()
        candidate.summary["search"] = {
            "budget": budget,
            "seconds": round(seconds, 1),
            "wanted": self.wanted,
            "arms": len(self.arms),
            "rounds": [*self.rounds, 1],
            "trials": self.trials.lines(),
            "chosen": {"arm": arm.number, "label": arm.label, "changes": dict(arm.changes)},
            "reason": reason,
        }
        entry = replace(candidate.entry, seconds=seconds)
        return replace(candidate, entry=entry)


def _surroundings(job: Job) -> Surroundings:
    model = with_weights(job.systems.encoder).model
    try:
        layers = len(layers_of(model))
    except ConfigError:
        layers = 0
    has_negatives = any(negatives for _, _, negatives in job.rows.rows)
    return Surroundings(default_learning_rate(model), layers, has_negatives)


def _trial(number: int, arm: Arm, share: float, candidate: Candidate) -> Trial:
    summary = candidate.summary
    return Trial(
        round=number,
        arm=arm.number,
        label=arm.label,
        share=round(share, 1),
        seconds=round(candidate.entry.seconds, 1),
        steps=summary["steps"],
        stopped=summary["stopped"],
        dev=summary["dev"]["after"],
        complete=summary["planned_steps"] == summary["budget"]["steps_without"],
    )


def _before_merging(summary: Mapping[str, Any]) -> float:
    """The dev score all of the way from the base: trials are not merged either."""
    measure = summary["dev"]["measure"]
    for point in summary["merge"]["curve"]:
        if point["weight"] == 1.0:
            return float(point[measure])
    return float(summary["dev"]["after"])
