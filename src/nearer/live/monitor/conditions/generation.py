"""Can the active generation be trusted, and did it answer the requests?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta

from nearer.live.monitor.conditions.judging import Evidence, Family, Judge

_ADVICE = {
    "fingerprint": "restore the model's folder, or nearer index rollback",
    "generation": "restart readers that hold an old generation; if somebody changed it by hand: nearer index list, nearer index rollback",
}
_GRACE = timedelta(seconds=60)  # a query in flight ends on the generation it began with


def _judge(judge: Judge) -> None:
    _fingerprint(judge)
    _answering(judge)


def _fingerprint(judge: Judge) -> None:
    problem = judge.seen.fingerprint
    if problem is None:
        judge.skip("no generation is active", "fingerprint")
        return
    evidence = Evidence(f"the active generation cannot be trusted: {problem}")
    judge.fact("fingerprint", float(bool(problem)), 0.0, evidence)


def _answering(judge: Judge) -> None:
    seen = judge.seen
    if not seen.moves:
        judge.skip("no generation was ever active", "generation")
        return
    if not seen.today:
        judge.skip("no requests", "generation")
        return
    times = [time for time, _ in seen.moves]
    wrong = []
    for request in seen.today:
        permitted = _active_around(seen.moves, times, request.time)
        if request.arm == "live" and request.generation not in permitted:
            wrong.append(request)
    named = ", ".join(sorted({request.generation for request in wrong})[:4])
    evidence = Evidence(
        f"{len(wrong)} requests were answered by {named}, which was not active then (active: {seen.generation})",
        examples=[request.query for request in wrong],
    )
    judge.fact("generation", len(wrong) / len(seen.today), 0.0, evidence)


def _active_around(
    moves: Sequence[tuple[datetime, str]], times: Sequence[datetime], time: datetime
) -> set[str]:
    """The generations that may have answered at a time."""
    first = bisect_right(times, time - _GRACE) - 1
    last = bisect_right(times, time + _GRACE) - 1
    return {moves[row][1] for row in range(max(first, 0), last + 1)}


FAMILY = Family(_judge, _ADVICE, facts=tuple(_ADVICE), needs_whole_day=False)
