"""Are people still shown as much of the catalogue?  For tasks that judge which items are shown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np

from nearer.live.monitor.conditions.day import Seen
from nearer.live.monitor.conditions.judging import ENOUGH, Evidence, Family, Judge
from nearer.live.traffic.exposure import Exposure, question_of, recommendations
from nearer.live.traffic.log import Request
from nearer.measure import drift
from nearer.measure.recommendation import Lists

_ADVICE = {
    "coverage": "see whether filters or documents changed: nearer index verify ID; if it began with a cut-over: nearer index rollback",
}


def _judge(judge: Judge) -> None:
    """The measures of the day for the series, and coverage against the reference."""
    exposure = judge.seen.exposure
    if exposure is None:
        return
    today = recommendations(judge.seen.today)
    if today:
        whole = exposure.lists({request.request_id: request.results for request in today})
        for name, value in exposure.measures(whole).items():
            judge.row(name, value)
    now = _by_question(exposure, today)
    before = _by_question(exposure, recommendations(chain.from_iterable(judge.seen.before)))
    if min(len(now.items), len(before.items)) < ENOUGH:
        why = f"fewer than {ENOUGH} different questions to /similar on the day, or before it"
        judge.skip(why, *_ADVICE)
        return
    shift = drift.coverage_shift(before, now, exposure.n_items, judge.rng)
    what = (
        f"answers to /similar show {shift.value:.1%} of the items; as many answers of the "
        f"reference show {shift.before:.1%}"
    )
    evidence = Evidence(what, _most_shown(exposure, now))
    judge.outcome("coverage", shift, 1 - judge.settings.coverage_ratio, evidence)


def _by_question(exposure: Exposure, requests: Iterable[Request]) -> Lists:
    """The last answer to each question: whoever asks the same again is shown nothing else."""
    return exposure.lists({question_of(request): request.results for request in requests})


def _most_shown(exposure: Exposure, lists: Lists) -> list[str]:
    """The items that stand in most lists, for somebody to look at."""
    flat = lists.items[lists.items >= 0]
    counts = np.bincount(flat, minlength=exposure.n_items)
    order = np.argsort(-counts, kind="stable")
    return [exposure.catalogue.ids[row] for row in order.tolist() if counts[row]][:10]


def _applies(seen: Seen) -> bool:
    return seen.exposure is not None


FAMILY = Family(_judge, _ADVICE, applies=_applies)
