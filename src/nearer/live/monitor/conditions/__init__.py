"""The conditions of monitoring, judged on one day: what was seen in, alerts and series out.  No I/O, no clock.

A condition fires when its effect is as large as the settings ask *and* chance does not explain it.
The allowed share of days with a false alarm is divided over all conditions that are tested
(Bonferroni), so that it holds for the day as a whole.  Those without a p value state a fact.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from nearer import config
from nearer.live.monitor.series import Row
from nearer.live.traffic.log import Request
from nearer.measure import drift
from nearer.measure.drift import Shift
from nearer.measure.metrics import Scores
from nearer.measure.significance import MIN_QUERIES, compare, mean_interval
from nearer.measure.slices import DESCRIPTIONS, SliceEvidence, automatic_slices, slice_table, terms
from nearer.types import Metadata, Query

#: Condition → what its alert asks somebody to do.
CONDITIONS: Mapping[str, str] = {
    "quality_canary": "see the diagnosis",
    "quality_judged": "see the diagnosis",
    "scores": "the model or index behind this generation changed, or the queries: nearer index verify ID; if it passes, read the examples",
    "low_scores": "read the examples: documents may be missing, or the model does not know the words; judge some for a diagnosis",
    "empty": "see whether filters or documents changed: nearer index verify ID",
    "clicks": "judge some of the examples (monitor.judgments) for a diagnosis; if it began with a cut-over: nearer index rollback",
    "click_success": "results that used to be relevant are gone: nearer index verify ID, and judge some of the examples for a diagnosis",
    "abandonment": "judge some of the examples (monitor.judgments) for a diagnosis",
    "reformulation": "judge some of the examples (monitor.judgments) for a diagnosis",
    "query_distribution": "read the terms: if these queries matter, judge some of them, add them to the data and run nearer run",
    "query_classifier": "read the terms: if these queries matter, judge some of them, add them to the data and run nearer run",
    "new_terms": "index documents that explain the words, search words beside vectors (nearer fix), or fine-tune again with them",
    "new_clusters": "judge some queries of the new topic, add them to the data, then nearer run",
    "documents": "nearer index sync, then nearer index verify ID",
    "document_terms": "after nearer index sync evaluate again (nearer evaluate): the model may not know the new words",
    "latency": "see load and store; if it began with a cut-over: nearer index rollback",
    "errors": "read the service's log; if it began with a cut-over: nearer index rollback",
    "generation": "restart readers that hold an old generation; if somebody changed it by hand: nearer index list, nearer index rollback",
    "fingerprint": "restore the model's folder, or nearer index rollback",
}
FACTS = ("documents", "generation", "fingerprint")
TESTED = tuple(name for name in CONDITIONS if name not in FACTS)
#: Requests or distinct queries on each side below which shares and distributions are not judged.
ENOUGH = 100
FEW = 20  # queries that were never asked before, below which there is nothing to tell apart
_MMD = 0.015  # smallest √MMD² that counts: a tenth of the traffic about something else gives more
_LOW = 0.05  # quantile of the reference's first scores below which a score is low
_SUCCESS = 0.1  # relative drop of corrected clicks that counts
_DWELL = 30.0  # seconds from which reading a result is satisfaction (Fox et al. 2005)
_GRACE = timedelta(seconds=60)  # a query in flight ends on the generation it began with
_EXAMPLES = 10
_LIFT = 1.5  # how much more often than elsewhere a slice is affected before an alert names it


@dataclass(frozen=True, slots=True)
class Asked:
    """Distinct queries and their vectors, float32 (n, dimension)."""

    texts: Sequence[str]
    vectors: np.ndarray

    def without(self, other: Asked) -> Asked:
        """Those that `other` does not have."""
        theirs = set(other.texts)
        places = [place for place, text in enumerate(self.texts) if text not in theirs]
        return Asked([self.texts[place] for place in places], self.vectors[places])


@dataclass(frozen=True, slots=True)
class Labelled:
    """Judged queries: the primary measure now, and what it is compared with (the same queries, or others)."""

    queries: Sequence[Query]
    now: np.ndarray
    before: np.ndarray


@dataclass(frozen=True, slots=True)
class Freshness:
    """Documents against the active generation, by content hash.  `terms`: of some that are in it, and of those to come."""

    documents: int
    missing: Sequence[str] = ()
    changed: Sequence[str] = ()
    extra: Sequence[str] = ()
    terms: tuple[Sequence[Collection[str]], Sequence[Collection[str]]] = ((), ())


@dataclass(frozen=True, slots=True)
class Seen:
    """One day and what it is compared with.  What is None or empty is not judged."""

    day: str
    today: Sequence[Request]
    generation: str = ""
    before: Sequence[Sequence[Request]] = ()  # the reference, a day each
    asked: Asked | None = None
    reference: Asked | None = None
    known: frozenset[str] = frozenset()  # terms of the documents
    canaries: Labelled | None = None
    judged: Labelled | None = None
    documents: Freshness | None = None
    moves: Sequence[tuple[datetime, str]] = ()  # which generation answered from when on
    fingerprint: str | None = None  # what is wrong with the model of the generation; empty: nothing
    whole: bool = True  # is the day over?  Otherwise only facts and canary queries are judged


@dataclass(frozen=True)
class Report:
    """What was found on a day."""

    day: str
    generation: str
    requests: int
    alerts: Sequence[Mapping[str, Any]]
    series: Sequence[Row]
    conditions: Mapping[str, Mapping[str, Any]]  # size, threshold, p and alpha of what was judged
    skipped: Mapping[str, str]  # why the others were not

    def as_dict(self) -> dict[str, Any]:
        """`monitor/report.json`."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {"series": [row._asdict() for row in self.series]}


@dataclass
class _Judge:
    """Collects outcomes and decides which of them fire."""

    seen: Seen
    alpha: float
    earlier: Mapping[str, str]
    diagnose: Callable[[Sequence[str]], Mapping[str, Any] | None] | None
    alerts: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, why: str, *conditions: str) -> None:
        self.skipped |= dict.fromkeys(conditions, why)

    def row(
        self,
        name: str,
        value: float,
        low: float | None = None,
        high: float | None = None,
        slice: str = "all",
    ) -> None:
        self.rows.append(
            Row(self.seen.day, name, float(value), low, high, slice, self.seen.generation)
        )

    def outcome(
        self,
        condition: str,
        shift: Shift | float,
        threshold: float,
        what: str,
        *,
        examples: Iterable[str] = (),
        slice: str = "all",
        affected: Sequence[str] | None = None,
    ) -> None:
        """`affected`: ids of judged queries that became worse, for a diagnosis."""
        if isinstance(shift, Shift):
            size, p = shift.size, shift.p
            self.row(condition, shift.value, shift.low, shift.high)
        else:
            size, p = shift, None
            self.row(condition, shift)
        fires = size > 0 and size >= threshold and (p is None or p <= self.alpha)
        told = {
            "size": size,
            "threshold": threshold,
            "p": p,
            "alpha": None if p is None else self.alpha,
        }
        self.conditions[condition] = {**told, "fires": fires}
        if not fires:
            return
        diagnosis = self.diagnose(affected) if affected and self.diagnose else None
        self.alerts.append(
            {
                "condition": condition,
                "since": self.earlier.get(condition, self.seen.day),
                **told,
                "slice": slice,
                "examples": list(dict.fromkeys(examples))[:_EXAMPLES],
                "what": what,
                "do": (diagnosis or {}).get("do")
                or CONDITIONS[condition].replace("ID", self.seen.generation or "ID"),
                "diagnosis": diagnosis,
            }
        )


def monitor(
    seen: Seen,
    settings: config.Monitor,
    rng: np.random.Generator,
    *,
    earlier: Mapping[str, str] | None = None,
    diagnose: Callable[[Sequence[str]], Mapping[str, Any] | None] | None = None,
    min_slice: int = MIN_QUERIES,
) -> Report:
    """Judge every condition of a day.

    `earlier` is since when conditions have been firing; `diagnose` says why judged queries (ids)
    fail, and is called only for alerts about quality.
    """
    judge = _Judge(seen, settings.false_alarms / len(TESTED), earlier or {}, diagnose)
    judge.row("requests", len(seen.today))
    _facts(judge, seen, settings)
    _quality(judge, seen, settings, rng, min_slice)
    if seen.whole:
        _behaviour(judge, seen, settings)
        _scores(judge, seen, settings)
        _drift(judge, seen, settings, rng)
    else:
        judge.skip("the day is not over", *TESTED[2:])
    skipped = {name: why for name, why in judge.skipped.items() if name not in judge.conditions}
    return Report(
        seen.day,
        seen.generation,
        len(seen.today),
        judge.alerts,
        judge.rows,
        judge.conditions,
        skipped,
    )


# -- facts ----------------------------------------------------------------------------------------------


def _facts(judge: _Judge, seen: Seen, settings: config.Monitor) -> None:
    if seen.documents is None:
        judge.skip("no generation is active", "documents", "document_terms")
    else:
        _documents(judge, seen.documents, settings)
    if seen.fingerprint is None:
        judge.skip("no generation is active", "fingerprint")
    else:
        judge.outcome(
            "fingerprint",
            float(bool(seen.fingerprint)),
            0.0,
            f"the active generation cannot be trusted: {seen.fingerprint}",
        )
    if not seen.moves or not seen.today:
        judge.skip(
            "no generation was ever active" if not seen.moves else "no requests", "generation"
        )
        return
    times = [time for time, _ in seen.moves]
    wrong = [
        one
        for one in seen.today
        if one.arm == "live" and one.generation not in _answering(seen.moves, times, one.time)
    ]
    others = ", ".join(sorted({one.generation for one in wrong})[:4])
    what = f"{len(wrong)} requests were answered by {others}, which was not active then (active: {seen.generation})"
    judge.outcome(
        "generation", len(wrong) / len(seen.today), 0.0, what, examples=(one.query for one in wrong)
    )


def _answering(
    moves: Sequence[tuple[datetime, str]], times: Sequence[datetime], time: datetime
) -> set[str]:
    """The generations that may have answered at a time."""
    first, last = (bisect_right(times, time + shift) - 1 for shift in (-_GRACE, _GRACE))
    return {moves[place][1] for place in range(max(first, 0), last + 1)}


def _documents(judge: _Judge, found: Freshness, settings: config.Monitor) -> None:
    parts = {
        "missing": found.missing,
        "outdated": found.changed,
        "deleted but still there": found.extra,
    }
    told = ", ".join(f"{len(ids)} {name}" for name, ids in parts.items())
    share = sum(map(len, parts.values())) / max(1, found.documents)
    for name, ids in parts.items():
        judge.row("documents", len(ids) / max(1, found.documents), slice=name)
    what = f"of {found.documents} documents the active generation has {told}"
    worst = max(parts, key=lambda name: len(parts[name]))
    judge.outcome(
        "documents",
        share,
        settings.stale,
        what,
        examples=(one for ids in parts.values() for one in ids),
        slice=worst,
    )
    indexed, coming = found.terms
    if min(len(indexed), len(coming)) < MIN_QUERIES:
        judge.skip(f"fewer than {MIN_QUERIES} documents wait to be indexed", "document_terms")
        return
    shift, new = drift.new_terms(indexed, coming, ())
    words = drift.telling_terms(indexed, [coming[place] for place in np.flatnonzero(new).tolist()])
    what = f"{shift.value:.0%} of the new documents use words that no indexed one has ({shift.before:.0%} expected): {', '.join(words)}"
    judge.outcome("document_terms", shift, settings.rate, what, examples=words)


# -- quality with labels --------------------------------------------------------------------------------


def _quality(
    judge: _Judge, seen: Seen, settings: config.Monitor, rng: np.random.Generator, min_slice: int
) -> None:
    if seen.canaries is None or len(seen.canaries.now) < MIN_QUERIES:
        judge.skip(
            f"fewer than {MIN_QUERIES} judged canary queries", "quality_canary", "quality_judged"
        )
        return
    canaries = seen.canaries
    change = compare(canaries.before, canaries.now, rng, 2000)
    level = mean_interval(canaries.now)
    shift = Shift(
        -change.delta, change.p, level.mean, level.low, level.high, float(canaries.before.mean())
    )
    worse = np.flatnonzero(canaries.now < canaries.before - 1e-9)
    lost = f"canary queries lost {-change.delta:.3f} ({shift.before:.3f} → {level.mean:.3f}); "
    what = f"{lost}{len(worse)} of {len(canaries.now)} became worse"
    _labelled(judge, "quality_canary", shift, settings, what, canaries, worse)
    slices = automatic_slices(canaries.queries, SliceEvidence())
    scores = Scores(tuple(one.id for one in canaries.queries), {"": canaries.now})
    for line in slice_table(scores, slices, "", min_slice):
        judge.row("quality_canary", line["mean"], line["ci"][0], line["ci"][1], line["slice"])
    if seen.judged is None or len(seen.judged.now) < MIN_QUERIES:
        judge.skip(f"fewer than {MIN_QUERIES} requests of these days were judged", "quality_judged")
        return
    fresh = seen.judged
    shift = drift.mean_shift([fresh.before], fresh.now, -1)
    what = (
        f"judged requests of these days reach {shift.value:.3f}, canary queries {shift.before:.3f}"
    )
    _labelled(
        judge,
        "quality_judged",
        shift,
        settings,
        what,
        fresh,
        np.flatnonzero(fresh.now < shift.before),
    )


def _labelled(
    judge: _Judge,
    name: str,
    shift: Shift,
    settings: config.Monitor,
    what: str,
    labelled: Labelled,
    worse: np.ndarray,
) -> None:
    queries = [labelled.queries[place] for place in worse]
    ids = [one.id for one in queries]
    where = _slice(ids, labelled.queries)
    judge.outcome(
        name,
        shift,
        settings.quality,
        what,
        examples=(one.text for one in queries),
        slice=where,
        affected=ids,
    )


def _slice(affected: Collection[str], queries: Sequence[Query]) -> str:
    """The slice in which queries are affected most, if that is clearly more than elsewhere."""
    affected, best = set(affected), ("all", 0.0)
    share = len(affected) / max(1, len(queries))
    for name, members in automatic_slices(queries, SliceEvidence()).items():
        inside = len(affected & members)
        gain = (inside - share * len(members)) / max(1.0, (share * len(members)) ** 0.5)
        if inside >= MIN_QUERIES // 2 and inside >= _LIFT * share * len(members) and gain > best[1]:
            best = (name, gain)
    return f"{best[0]} ({DESCRIPTIONS[best[0]]})" if best[0] in DESCRIPTIONS else best[0]


# -- quality without labels, and health -----------------------------------------------------------------


def clicked(request: Request) -> set[str]:
    """Documents that a person was content with: clicked, converted, thumbed up, or read for half a minute."""
    return {
        one.doc_id
        for one in request.feedback
        if one.value > 0 and (one.kind != "dwell" or one.value >= _DWELL)
    }


def _measures(requests: Sequence[Request]) -> dict[str, np.ndarray]:
    """What each request of a day shows, one value a request, shares as bool."""
    chosen = [clicked(one) for one in requests]
    clicks = np.array([bool(one) for one in chosen], bool)
    ranks = [
        [rank for rank, (doc_id, _) in enumerate(request.results, start=1) if doc_id in found]
        for request, found in zip(requests, chosen, strict=True)
    ]
    seconds = np.array([one.time.timestamp() for one in requests])
    again = drift.reformulated(
        [one.user for one in requests], seconds, [terms(one.query) for one in requests]
    )
    errors = np.array([one.error is not None for one in requests], bool)
    results = np.array([bool(one.results) for one in requests], bool)
    return {
        "errors": errors,
        "empty": ~results & ~errors,
        "clicks": clicks,
        "click_success": drift.corrected_clicks(ranks),
        "abandonment": results & ~clicks & ~again,
        "reformulation": again,
        "latency": np.array([one.latency_ms for one in requests], np.float64),
    }


_BEHAVIOUR = {
    "errors": (1, "{:.1%} of the requests failed ({:.1%} before)"),
    "empty": (1, "{:.1%} of the requests found nothing ({:.1%} before)"),
    "clicks": (-1, "{:.1%} of the requests got a click ({:.1%} before)"),
    "click_success": (
        -1,
        "clicks, corrected for position, fell to {:.2f} a request ({:.2f} before)",
    ),
    "abandonment": (1, "{:.1%} of the requests were abandoned ({:.1%} before)"),
    "reformulation": (1, "{:.1%} of the requests were asked again in other words ({:.1%} before)"),
}


def _behaviour(judge: _Judge, seen: Seen, settings: config.Monitor) -> None:
    days = [day for day in seen.before if day]
    if min(len(seen.today), sum(map(len, days))) < ENOUGH:
        judge.skip(f"fewer than {ENOUGH} requests on the day, or before it", *_BEHAVIOUR, "latency")
        return
    now, before = _measures(seen.today), [_measures(day) for day in days]
    reference = [one for day in days for one in day]
    if not any(one.feedback for one in reference):
        judge.skip("no feedback was logged before", "clicks", "click_success", "abandonment")
    if not any(one.user for one in reference) or not any(one.user for one in seen.today):
        judge.skip("users are not logged", "reformulation")
    for name, (worse, text) in _BEHAVIOUR.items():
        if name in judge.skipped:
            continue
        shift = drift.mean_shift([one[name] for one in before], now[name], 1 if worse > 0 else -1)
        threshold = {"errors": settings.errors, "click_success": _SUCCESS * shift.before}.get(
            name, settings.rate
        )
        places = np.flatnonzero(now[name] if worse > 0 else ~now[name].astype(bool))
        _about_requests(
            judge, name, shift, threshold, text.format(shift.value, shift.before), places
        )
    _latency(judge, now["latency"], [one["latency"] for one in before], settings)


def _latency(
    judge: _Judge, now: np.ndarray, before: Sequence[np.ndarray], settings: config.Monitor
) -> None:
    """How many requests are slower than nineteen of twenty were: that share can be tested, p95 itself is what people know."""
    timed = [day[day > 0] for day in before if (day > 0).any()]  # logs of other systems may not say
    if not timed or not (now > 0).any():
        judge.skip("no latency in the log of the day, or before it", "latency")
        return
    before, was, value = (
        timed,
        float(np.percentile(np.concatenate(timed), 95)),
        float(np.percentile(now[now > 0], 95)),
    )
    slow = drift.mean_shift([day > was for day in before], now > was)
    shift = Shift(value / max(was, 1e-9), slow.p, value, value, value, was)
    what = f"p95 is {value:.0f} ms ({was:.0f} ms before); {slow.value:.0%} of the requests are slower than that"
    judge.row("latency_p50", float(np.median(now)))
    _about_requests(
        judge, "latency", shift, settings.latency_ratio, what, np.flatnonzero(now > was)
    )


def _about_requests(
    judge: _Judge, name: str, shift: Shift, threshold: float, what: str, places: np.ndarray
) -> None:
    fires = shift.size >= threshold and shift.p <= judge.alpha
    where = "all"
    if fires:  # slicing thousands of texts is for alerts only
        queries = [Query(str(place), one.query) for place, one in enumerate(judge.seen.today)]
        where = _slice([str(place) for place in places], queries)
    judge.outcome(
        name,
        shift,
        threshold,
        what,
        examples=(judge.seen.today[place].query for place in places),
        slice=where,
    )


def _scores(judge: _Judge, seen: Seen, settings: config.Monitor) -> None:
    """Distinct queries count once: within one generation the same query has the same score."""
    now, before = (
        _first_scores(seen.today, seen.generation),
        _first_scores((r for day in seen.before for r in day), seen.generation),
    )
    if min(len(now), len(before)) < ENOUGH:
        judge.skip(
            f"fewer than {ENOUGH} different queries of this generation on the day, or before it",
            "scores",
            "low_scores",
        )
        return
    a, b = (np.array(list(one.values()), np.float64) for one in (before, now))
    asked = [Query(str(place), text) for place, (text, _) in enumerate(now)]
    border = float(np.quantile(a, _LOW))
    order = np.argsort(b if b.mean() < a.mean() else -b)
    shift = drift.score_shift(a, b)
    judge.row("scores_psi", shift.size)
    where = (
        _slice([str(place) for place in np.flatnonzero(b < border)], asked)
        if shift.size >= settings.scores
        else "all"
    )
    what = f"first scores moved from {shift.before:.3f} to {shift.value:.3f} on average (stability index {shift.size:.2f})"
    judge.outcome(
        "scores",
        shift,
        settings.scores,
        what,
        examples=(asked[place].text for place in order),
        slice=where,
    )
    low = drift.mean_shift([a < border], b < border)
    what = (
        f"{low.value:.1%} of the queries score below {border:.3f} at best ({low.before:.1%} before)"
    )
    judge.outcome(
        "low_scores",
        low,
        settings.rate,
        what,
        examples=(asked[place].text for place in np.argsort(b)),
        slice=where,
    )


def _first_scores(requests: Iterable[Request], generation: str) -> dict[tuple[str, str], float]:
    """Score of the first result by query and filter."""
    mine = (
        one
        for one in requests
        if one.generation == generation and one.arm == "live" and one.results
    )
    return {(one.query, _key(one.filter)): one.results[0][1] for one in mine}


def _key(filter: Metadata | None) -> str:
    return json.dumps(filter, sort_keys=True, default=str)


# -- drift ----------------------------------------------------------------------------------------------


def _drift(judge: _Judge, seen: Seen, settings: config.Monitor, rng: np.random.Generator) -> None:
    """Queries that were never asked before against those that were; the size is that of all queries of the day."""
    asked, reference = seen.asked, seen.reference
    names = ("query_distribution", "query_classifier", "new_terms", "new_clusters")
    if asked is None or reference is None or min(len(asked.texts), len(reference.texts)) < ENOUGH:
        judge.skip(
            f"no model, or fewer than {ENOUGH} different queries on the day or in the reference",
            *names,
        )
        return
    fresh, rest = asked.without(reference), reference.without(asked)
    share = len(fresh.texts) / len(asked.texts)
    judge.row("new_queries", share)
    if min(len(fresh.texts), len(rest.texts)) < FEW:
        judge.skip(f"fewer than {FEW} queries of the day were not asked before", *names)
        return
    mine, theirs = (
        [set(terms(text)) for text in fresh.texts],
        [set(terms(text)) for text in reference.texts],
    )
    words = drift.telling_terms(theirs, mine)
    told, where = (
        f"; they say more often: {', '.join(words)}" if words else "",
        ", ".join(words) or "all",
    )
    typical = np.argsort([-len(one & set(words)) for one in mine], kind="stable").tolist()
    examples = [fresh.texts[place] for place in typical[:_EXAMPLES]]
    mmd, auc = drift.two_sample(rest.vectors, fresh.vectors, rng)
    mmd, auc = mmd.within(share), auc.within(share, 0.5)
    what = (
        f"queries come from another distribution than the reference (√MMD² {mmd.value:.3f}){told}"
    )
    judge.outcome("query_distribution", mmd, _MMD, what, examples=examples, slice=where)
    what = f"a classifier tells the queries from the reference (AUC {auc.value:.2f}){told}"
    judge.outcome(
        "query_classifier", auc, settings.apart - 0.5, what, examples=examples, slice=where
    )
    shift, new = drift.new_terms(theirs, mine, seen.known)
    shift, places = shift.within(share), np.flatnonzero(new).tolist()
    where = (
        ", ".join(drift.telling_terms(theirs, [mine[place] - seen.known for place in places]))
        or "all"
    )
    what = f"{shift.value:.1%} of the queries have a word that is neither in the reference nor in a document ({shift.before:.1%} expected)"
    judge.outcome(
        "new_terms",
        shift,
        settings.rate,
        what,
        examples=(fresh.texts[place] for place in places),
        slice=where,
    )
    novel = drift.new_clusters(reference.vectors, fresh.vectors, rng)
    shift = novel.shift.within(share)
    chosen = novel.groups[:5] or (np.flatnonzero(novel.outside),)
    named = [
        (
            ", ".join(drift.telling_terms(theirs, [mine[place] for place in group], 4)) or "mixed",
            group,
        )
        for group in chosen
    ]
    groups = "; ".join(f"{name} ({len(group)})" for name, group in named)
    what = f"{shift.value:.1%} of the queries lie outside every known topic ({shift.before:.1%} expected): {groups}"
    examples = [fresh.texts[place] for place in np.concatenate(chosen).tolist()]
    judge.outcome(
        "new_clusters",
        shift,
        settings.rate,
        what,
        examples=examples,
        slice=f"new topic: {named[0][0]}",
    )
