"""What listens to a transformers Trainer: our progress bar and the clock, instead of its printing."""

from __future__ import annotations

import time
from typing import Any

from nearer import progress
from nearer.training.work import Work


def watcher_of(bar: progress.Task, measure: str = "", work: Work | None = None) -> Any:
    """Callback that moves the bar and adds the time of each step to `work`."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc,unused-ignore]
        _began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.reach(state.global_step)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if work is not None:
                work.training_seconds += time.monotonic() - self._began
            bar.reach(state.global_step)

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any
        ) -> None:
            bar.note(f"dev {measure} {metrics[f'eval_{measure}']:.3f}")

    return Watcher()


def silence(trainer: Any) -> None:
    """Take away the callbacks that print."""
    import transformers

    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
