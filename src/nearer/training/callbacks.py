"""What listens to a transformers Trainer: the progress bar, the clock, the plan, the user's own.

Each is a function that makes a callback, so that transformers is imported when a model is trained
and not before.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from nearer import plugins, progress
from nearer.errors import ConfigError
from nearer.training.processes import agreed
from nearer.training.schedule import Planner, Schedule
from nearer.training.work import Work

#: Seconds after which a checkpoint is written, also between dev evaluations.
CHECKPOINT_SECONDS = 600.0
_CURVE = 24  # values of the curve beside the bar


def watcher_of(bar: progress.Task, measure: str = "", work: Work | None = None) -> Any:
    """Callback that moves the bar, shows the last loss and the dev curve, and times each step."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self._began = 0.0
            self._loss = ""
            self._dev: deque[float] = deque(maxlen=_CURVE)

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for line in state.log_history:  # of a training that is resumed
                self._remember(line)
            bar.reach(state.global_step)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if work is not None:
                work.training_seconds += time.monotonic() - self._began
            bar.reach(state.global_step)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any
        ) -> None:
            self._remember(logs)
            self._show()

        def _remember(self, line: dict[str, Any]) -> None:
            if "loss" in line:
                self._loss = f"loss {line['loss']:.3f}"
            if f"eval_{measure}" in line:
                self._dev.append(line[f"eval_{measure}"])

        def _show(self) -> None:
            values = list(self._dev)
            parts = [self._loss]
            if values:
                last = " ".join(f"{value:.3f}" for value in values[-3:])
                parts.insert(0, f"dev {measure} {last}")
            bar.note(", ".join(part for part in parts if part), values)

    return Watcher()


def checkpointer_of(steps: int | None) -> Any:
    """Callback that writes checkpoints between dev evaluations: every `steps`, or by the clock.

    The loss is logged with each, so that a resumed training logs what the whole one would.
    """
    from transformers import TrainerCallback

    class Checkpointer(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self._saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self._due(state.global_step):
                control.should_save = True
            if control.should_save:
                control.should_log = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._saved = time.monotonic()

        def _due(self, step: int) -> bool:
            if steps is not None:
                return step % steps == 0
            return agreed(lambda: time.monotonic() - self._saved >= CHECKPOINT_SECONDS)

    return Checkpointer()


def planner_of(schedule: Schedule, planner: Planner | None, work: Work, bar: progress.Task) -> Any:
    """Callback that keeps the Trainer to the planned steps, and within the budget where there is one.

    The plan is part of the Trainer's state, so that checkpoints hold it.
    """
    from transformers import TrainerCallback

    class Planned(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self._measured = schedule.steps < schedule.most_steps

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._apply(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if planner is None:
                return
            if not self._measured and agreed(lambda: planner.ready(work)):
                self._measured = True
                self._replan(state)
            if agreed(lambda: planner.left() <= 0):
                control.should_training_stop = True
                control.should_log = True
                control.should_save = True
                control.should_evaluate = args.eval_strategy != "no"
                schedule.plan(state.global_step)
                self._apply(state)

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if planner is not None and self._measured and state.global_step < schedule.steps:
                self._replan(state)

        def _replan(self, state: Any) -> None:
            def plan() -> tuple[int, int]:
                if planner is not None:
                    planner.replan(state.global_step, work)
                return schedule.steps, schedule.evaluate_every

            schedule.steps, schedule.evaluate_every = agreed(plan)
            self._apply(state)

        def _apply(self, state: Any) -> None:
            state.max_steps = schedule.steps
            state.eval_steps = state.save_steps = schedule.evaluate_every
            bar.expect(schedule.steps)

    return Planned()


def users_own(names: tuple[str, ...], root: Path | None) -> list[Any]:
    """The callbacks of `train.callbacks`, made; their modules are looked for in `root` first.

    Raises ConfigError for what is no callback of the Trainer or cannot be made, SearchSystemError
    for a module that cannot be imported.
    """
    from transformers import TrainerCallback

    callbacks = []
    for name in names:
        made = plugins.import_from(name, root or Path(), "train.callbacks")
        if not (isinstance(made, type) and issubclass(made, TrainerCallback)):
            raise ConfigError(
                f"{name} is not a class of transformers.TrainerCallback",
                where="train.callbacks",
                next_step="derive it from transformers.TrainerCallback",
            )
        try:
            callbacks.append(made())
        except Exception as error:
            raise ConfigError(
                f"{name} cannot be made: {type(error).__name__}: {error}",
                where="train.callbacks",
                next_step="mend it: a callback is made without arguments",
            ) from error
    return callbacks


def silence(trainer: Any) -> None:
    """Take away the callbacks that print."""
    import transformers

    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
