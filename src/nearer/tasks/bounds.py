"""What a guard says once its measure is known: one rule for means per query and for resampled ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearer.config import TaskGuard
from nearer.errors import ConfigError
from nearer.measure.resampled import Statistic, Status, change
from nearer.measure.significance import DIFFERENCE, mean_interval
from nearer.tasks.base import GuardInputs, Verdict


def least(guard: TaskGuard) -> tuple[float, float]:
    """(share, least): after - share * before must reach least."""
    if guard.keep is not None:
        return guard.keep, 0.0
    if guard.gain is not None:
        return 1.0, guard.gain
    return 1.0, -(guard.margin or 0.0)


def of_columns(
    guard: TaskGuard,
    before: np.ndarray,
    after: np.ndarray,
    inputs: GuardInputs,
    sign: int = 1,
    labels: np.ndarray | None = None,
) -> Verdict:
    """The verdict on a mean over (n,) values per query whose changes lie in [-1, 1].

    `sign` -1: less is better.  `labels` (n,) say which values hang together.  Bounds hold for every
    number of queries (`nearer.measure.bounded`).
    A goal passes only where its gain is shown.
    """
    share, bound = least(guard)
    _refuse_share_of_less(guard, sign)
    values = sign * (after - share * before)
    # Each end of a two-sided interval at 2 alpha is a one-sided bound at alpha.
    interval = mean_interval(values, 2 * inputs.alpha, labels, DIFFERENCE)
    status: Status = "inconclusive"
    if interval.low >= bound:
        status = "pass"
    elif interval.high < bound:
        status = "fail"
    means = float(before.mean()), float(after.mean())
    return _verdict(guard, status, means, (interval.low, interval.high), len(values), sign)


def of_draws(
    guard: TaskGuard,
    before: Statistic,
    after: Statistic,
    n_units: int,
    inputs: GuardInputs,
    sign: int = 1,
    labels: np.ndarray | None = None,
) -> Verdict:
    """The verdict on a measure of all units together, by a bootstrap of the units.

    `labels` (n_units,) say which units hang together.
    """
    share, bound = least(guard)
    _refuse_share_of_less(guard, sign)
    rng = np.random.default_rng(inputs.seed)
    result = change(
        lambda weights: sign * before(weights),
        lambda weights: sign * after(weights),
        n_units,
        rng,
        share=share,
        alpha=inputs.alpha,
        labels=labels,
    )
    means = sign * result.before, sign * result.after
    return _verdict(guard, result.status(bound), means, (result.low, result.high), n_units, sign)


def unknown(guard: TaskGuard, names: Sequence[str]) -> ConfigError:
    """The error for a measure that a task lacks."""
    return ConfigError(
        f"{guard.task} has no measure {guard.measure!r}",
        where="decide.guards",
        next_step=f"use one of {', '.join(names)}",
    )


def _refuse_share_of_less(guard: TaskGuard, sign: int) -> None:
    if sign < 0 and guard.keep is not None:
        raise ConfigError(
            f"of {guard.measure} less is better: a share of it to keep means nothing",
            where="decide.guards",
            next_step="give margin, the largest rise accepted",
        )


def _verdict(
    guard: TaskGuard,
    status: Status,
    means: tuple[float, float],
    interval: tuple[float, float],
    n: int,
    sign: int,
) -> Verdict:
    _, bound = least(guard)
    before, after = means
    told = {"pass": "holds", "fail": "is broken", "inconclusive": "is open"}[status]
    change = f"{guard.measure} goes from {before:.3f} to {after:.3f}"
    sentence = f"{change}: {_wanted(guard)} {told}"
    low, high = interval
    better = sign * (after - before)
    return Verdict(status, before, after, better, low, high, n, bound, sentence)


def _wanted(guard: TaskGuard) -> str:
    if guard.keep is not None:
        return f"“not below {guard.keep:.0%} of today's”"
    if guard.gain is not None:
        return f"the goal “at least {guard.gain:+g}”"
    return f"“at most {guard.margin:g} worse”"
