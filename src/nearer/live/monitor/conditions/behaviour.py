"""Quality without labels, and health: what people did with the results, failures and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nearer import config
from nearer.live.monitor.conditions.judging import ENOUGH, Evidence, Family, Judge, telling_slice
from nearer.live.traffic.log import Request
from nearer.measure import drift
from nearer.measure.drift import Shift
from nearer.measure.slices import terms
from nearer.types import Query

_JUDGE_SOME = "judge some of the examples (monitor.judgments) for a diagnosis"
_ADVICE = {
    "errors": "read the service's log; if it began with a cut-over: nearer index rollback",
    "empty": "see whether filters or documents changed: nearer index verify ID",
    "clicks": f"{_JUDGE_SOME}; if it began with a cut-over: nearer index rollback",
    "click_success": "results that used to be relevant are gone: nearer index verify ID, and judge some of the examples for a diagnosis",
    "abandonment": _JUDGE_SOME,
    "reformulation": _JUDGE_SOME,
    "latency": "see load and store; if it began with a cut-over: nearer index rollback",
}
_SUCCESS = 0.1  # relative drop of corrected clicks that counts
_DWELL = 30.0  # seconds from which reading a result is satisfaction (Fox et al. 2005)


@dataclass(frozen=True, slots=True)
class _Rate:
    """A mean over requests: which direction is worse, and the sentence about it (now, before)."""

    worse: Literal[1, -1]
    text: str


_RATES = {
    "errors": _Rate(1, "{:.1%} of the requests failed ({:.1%} before)"),
    "empty": _Rate(1, "{:.1%} of the requests found nothing ({:.1%} before)"),
    "clicks": _Rate(-1, "{:.1%} of the requests got a click ({:.1%} before)"),
    "click_success": _Rate(
        -1, "clicks, corrected for position, fell to {:.2f} a request ({:.2f} before)"
    ),
    "abandonment": _Rate(1, "{:.1%} of the requests were abandoned ({:.1%} before)"),
    "reformulation": _Rate(
        1, "{:.1%} of the requests were asked again in other words ({:.1%} before)"
    ),
}


def clicked(request: Request) -> set[str]:
    """Documents that a person was content with: clicked, converted, thumbed up, or read for half a minute."""
    documents = set()
    for feedback in request.feedback:
        read_long = feedback.kind != "dwell" or feedback.value >= _DWELL
        if feedback.value > 0 and read_long:
            documents.add(feedback.doc_id)
    return documents


def _judge(judge: Judge) -> None:
    today, days = judge.seen.today, [day for day in judge.seen.before if day]
    if min(len(today), sum(map(len, days))) < ENOUGH:
        judge.skip(f"fewer than {ENOUGH} requests on the day, or before it", *_ADVICE)
        return
    _skip_what_is_not_logged(judge, days)
    now, before = _measures(today), [_measures(day) for day in days]
    for name, rate in _RATES.items():
        if name in judge.skipped:
            continue
        shift = drift.mean_shift([day[name] for day in before], now[name], rate.worse)
        rows = np.flatnonzero(now[name] if rate.worse > 0 else ~now[name].astype(bool))
        what = rate.text.format(shift.value, shift.before)
        _about_requests(judge, name, shift, _threshold(name, shift, judge.settings), what, rows)
    _latency(judge, now["latency"], [day["latency"] for day in before])


def _skip_what_is_not_logged(judge: Judge, days: Sequence[Sequence[Request]]) -> None:
    feedback = users = False
    for day in days:
        feedback = feedback or any(request.feedback for request in day)
        users = users or any(request.user for request in day)
    if not feedback:
        judge.skip("no feedback was logged before", "clicks", "click_success", "abandonment")
    if not users or not any(request.user for request in judge.seen.today):
        judge.skip("users are not logged", "reformulation")


def _threshold(name: str, shift: Shift, settings: config.Monitor) -> float:
    if name == "errors":
        return settings.errors
    if name == "click_success":
        return _SUCCESS * shift.before
    return settings.rate


def _measures(requests: Sequence[Request]) -> Mapping[str, np.ndarray]:
    """What each request of a day shows, one value per request, shares as bool."""
    ranks = []
    for request in requests:
        content = clicked(request)
        numbered = enumerate(request.results, start=1)
        ranks.append([rank for rank, (doc_id, _) in numbered if doc_id in content])
    clicks = np.array([bool(clicked(request)) for request in requests], bool)
    repeated = drift.reformulated(
        [request.user for request in requests],
        np.array([request.time.timestamp() for request in requests]),
        [terms(request.query) for request in requests],
    )
    errors = np.array([request.error is not None for request in requests], bool)
    results = np.array([bool(request.results) for request in requests], bool)
    return {
        "errors": errors,
        "empty": ~results & ~errors,
        "clicks": clicks,
        "click_success": drift.corrected_clicks(ranks),
        "abandonment": results & ~clicks & ~repeated,
        "reformulation": repeated,
        "latency": np.array([request.latency_ms for request in requests], np.float64),
    }


def _latency(judge: Judge, now: np.ndarray, before: Sequence[np.ndarray]) -> None:
    """How many requests are slower than nineteen of twenty were: that share can be tested, p95 itself is what people know."""
    timed = [day[day > 0] for day in before if (day > 0).any()]  # logs of other systems may not say
    if not timed or not (now > 0).any():
        judge.skip("no latency in the log of the day, or before it", "latency")
        return
    was = float(np.percentile(np.concatenate(timed), 95))
    value = float(np.percentile(now[now > 0], 95))
    slow = drift.mean_shift([day > was for day in timed], now > was)
    shift = Shift(value / max(was, 1e-9), slow.p, value, value, value, was)
    what = f"p95 is {value:.0f} ms ({was:.0f} ms before); {slow.value:.0%} of the requests are slower than that"
    judge.row("latency_p50", float(np.median(now)))
    rows = np.flatnonzero(now > was)
    _about_requests(judge, "latency", shift, judge.settings.latency_ratio, what, rows)


def _about_requests(
    judge: Judge, name: str, shift: Shift, threshold: float, what: str, rows: np.ndarray
) -> None:
    """Judge a condition that the requests in these rows are examples of."""
    today = judge.seen.today
    where = "all"
    if judge.fires(shift, threshold):  # slicing thousands of texts is for alerts only
        queries = [Query(str(row), request.query) for row, request in enumerate(today)]
        where = telling_slice([str(row) for row in rows], queries)
    evidence = Evidence(what, [today[row].query for row in rows], where)
    judge.outcome(name, shift, threshold, evidence)


FAMILY = Family(_judge, _ADVICE)
