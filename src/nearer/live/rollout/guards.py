"""What stops an interleaving or a canary: harm to people, shown by tests that hold however often they are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from nearer import config
from nearer.data.times import read_time
from nearer.live.index.manifest import Rollout
from nearer.live.index.searcher import Served
from nearer.live.traffic.log import Request
from nearer.measure.metrics import score
from nearer.measure.rollout import harm, preference
from nearer.measure.significance import compare
from nearer.types import Split

_REFERENCE = 200  # first live requests that say what slow means
_CLICK_WAIT = 60.0  # seconds that people get to click
_WITHOUT_A_CLICK = "without a click"

#: Whether the canary answered a request, and whether that went badly.
_Outcome = tuple[bool, bool]


def guard(
    requests: Sequence[Request], rollout: Rollout, settings: config.Shadow, now: datetime
) -> dict[str, Any]:
    """Outcomes of an interleaving or a canary so far, and the harm that stops it: {rows, harm}.

    Every p is valid at any time and in any number of looks; the canary's guards share the error rate.
    """
    since = read_time(rollout.since)
    # POST /similar is answered by the live generation alone: there is no other side to compare with.
    searches = [request for request in requests if request.similar is None]
    recent = [request for request in searches if request.time >= since]
    settled = []
    for request in recent:
        if (now - request.time).total_seconds() >= _CLICK_WAIT:
            settled.append(request)
    if rollout.mode == "interleave":
        return _preference(settled, settings)
    return _canary(recent, settled, settings)


def _preference(settled: Sequence[Request], settings: config.Shadow) -> dict[str, Any]:
    """Which side's results people click in interleaved answers."""
    credits = [_clicks(request) for request in settled if request.arm == "interleaved"]
    found = preference(credits)
    decided = found.wins + found.losses
    row = {
        "guard": "clicks",
        "n": decided,
        "candidate": round(found.share, 4),
        "live": round(1 - found.share, 4),
        "p_worse": found.p_worse,
        "p_better": found.p_better,
    }
    worse = None
    if found.p_worse <= settings.harm:
        worse = (
            f"people prefer the live results: they won {found.losses} of {decided} decided requests"
        )
    return {"rows": [row], "harm": worse}


def _clicks(request: Request) -> dict[str, int]:
    """Clicks on the results of each side."""
    teams: Mapping[str, str] = request.teams or {}
    clicks = {"live": 0, "candidate": 0}
    for feedback in request.feedback:
        side = teams.get(feedback.doc_id)
        if feedback.kind == "click" and side in clicks:
            clicks[side] += 1
    return clicks


def _canary(
    recent: Sequence[Request], settled: Sequence[Request], settings: config.Shadow
) -> dict[str, Any]:
    """Is the canary slower, emptier, failing or left without clicks more often than the live generation?"""
    arms = [request for request in recent if request.arm in ("live", "canary")]
    slow = _slow(arms, settings)
    outcomes: dict[str, list[_Outcome]] = {"slow": [], "empty": [], "failed": []}
    for request in arms:
        canary = request.arm == "canary"
        outcomes["slow"].append((canary, request.latency_ms > slow))
        outcomes["empty"].append((canary, not request.results))
        outcomes["failed"].append((canary, request.error is not None))
    unclicked: list[_Outcome] = []
    for request in settled:
        if request.arm in ("live", "canary") and request.error is None:
            clicked = any(feedback.kind == "click" for feedback in request.feedback)
            unclicked.append((request.arm == "canary", not clicked))
    if not all(bad for _, bad in unclicked):  # else nobody reports clicks
        outcomes[_WITHOUT_A_CLICK] = unclicked
    rows = [_row(name, found) for name, found in outcomes.items()]
    sentences = []
    for row in rows:
        if row["p_worse"] <= settings.harm / len(outcomes):
            sentences.append(
                f"{row['candidate']:.1%} of the canary's answers are {row['guard']}, {row['live']:.1%} of the live ones"
            )
    return {"rows": rows, "harm": "; ".join(sentences) or None}


def _slow(arms: Sequence[Request], settings: config.Shadow) -> float:
    """Milliseconds from which an answer is slow, by the first live requests; infinite before there are enough."""
    first = [request.latency_ms for request in arms if request.arm == "live"][:_REFERENCE]
    if len(first) < _REFERENCE:
        return float("inf")
    return settings.latency_ratio * float(np.percentile(first, 95))


def _row(name: str, outcomes: Sequence[_Outcome]) -> dict[str, Any]:
    """A guard with the share of bad outcomes on both sides."""
    candidate = [bad for canary, bad in outcomes if canary]
    live = [bad for canary, bad in outcomes if not canary]
    return {
        "guard": name,
        "n": len(candidate),
        "candidate": _share(candidate),
        "live": _share(live),
        "p_worse": harm(outcomes),
    }


def _share(outcomes: Sequence[bool]) -> float:
    return round(float(np.mean(outcomes)), 4) if outcomes else 0.0


def canary_queries_fall(
    live: Served, candidate: Served, split: Split, measure: str, rng: np.random.Generator
) -> str | None:
    """What is wrong when judged canary queries do worse on the candidate; None when they are not shown to."""
    if not split.queries:
        return None
    columns = []
    for served in (live, candidate):
        run = served.search(served.as_judged(split.queries), config.Shadow().k)
        columns.append(score(run, split, [measure]).column(measure))
    difference = compare(columns[0], columns[1], rng)
    if difference.outcome != "worse":
        return None
    return f"{measure} of {len(columns[0])} canary queries falls by {-difference.delta:.3f}"
