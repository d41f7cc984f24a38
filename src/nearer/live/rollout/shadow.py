"""`nearer shadow`: what would change for real traffic?  A candidate judged by the queries that people really ask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.near import normalise
from nearer.data.splits import frozen_split
from nearer.data.trec import read_qrels
from nearer.files import read_jsonl, write_json
from nearer.live.index.generations import Generations
from nearer.live.rollout.exposed import exposed
from nearer.live.traffic.exposure import Exposure, recommendations
from nearer.live.traffic.log import Request, append_whole, ranked
from nearer.measure.metrics import score
from nearer.measure.significance import compare as compare_paired
from nearer.measure.significance import mean_interval
from nearer.project import Project
from nearer.types import Hit, Judgments, Query, Run, Split

_FAILED = 0.01  # share of failed shadow queries that a passing record may have


@dataclass(frozen=True, slots=True)
class JudgedBy:
    """What both sides are judged by, beside how far they agree.

    `judgments` go by normalised query text; requests that have some estimate nDCG for both sides.
    With `exposure`, answers to `POST /similar` are also judged by the items that they show.
    """

    judgments: Judgments = field(default_factory=dict)
    exposure: Exposure | None = None


def report(
    requests: Iterable[Request],
    live: str,
    candidate: str,
    settings: config.Shadow,
    rng: np.random.Generator,
    by: JudgedBy | None = None,
    *,
    timed: bool = False,
) -> dict[str, Any]:
    """The shadow record of a candidate against the live generation, and whether it passes.

    `timed` says that both were timed alike (a replay): a live shadow waits for everybody else, so
    that its latency says little about the candidate.
    """
    mine = _of_both(requests, live, candidate)
    done = [one for one in mine if one.shadow and "error" not in one.shadow]
    told: dict[str, Any] = {
        "live": live,
        "candidate": candidate,
        "queries": len(done),
        "failed": len(mine) - len(done),
        "k": settings.k,
        "timed": timed,
    }
    if not done:
        return told | {"verdict": "inconclusive", "reasons": ["no compared query yet"]}
    by = by or JudgedBy()
    shadows = [dict(one.shadow or {}) for one in done]
    hits = [_hits(shadow) for shadow in shadows]
    told["agreement"] = {
        name: mean_interval(np.array([float(shadow[name]) for shadow in shadows])).as_dict()
        for name in ("overlap", "rbo", "top1_changed")
    }
    told["latency_ms"] = {
        "live": _percentiles([one.latency_ms for one in done]),
        "candidate": _percentiles([float(shadow["latency_ms"]) for shadow in shadows]),
    }
    told["empty"] = {
        "live": sum(not one.results for one in done),
        "candidate": sum(not one for one in hits),
    }
    told["judged"] = _judged(done, hits, settings, rng, by.judgments)
    if by.exposure is not None:
        told["exposure"] = exposed(done, hits, by.exposure, settings, rng)
    told["verdict"], told["reasons"] = _verdict(told, settings)
    return told


def _of_both(requests: Iterable[Request], live: str, candidate: str) -> list[Request]:
    """The requests that the live generation answered and the candidate was asked as well."""
    chosen = []
    for request in requests:
        shadow = request.shadow or {}
        if request.generation == live and shadow.get("generation") == candidate:
            chosen.append(request)
    return chosen


def _percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    return {
        name: round(float(np.percentile(milliseconds, percent)), 3)
        for name, percent in (("p50", 50), ("p95", 95))
    }


def _judged(
    done: Sequence[Request],
    hits: Sequence[Sequence[Hit]],
    settings: config.Shadow,
    rng: np.random.Generator,
    judgments: Judgments,
) -> dict[str, Any] | None:
    """nDCG of both sides on the queries that somebody judged, each text once."""
    asked = {normalise(one.query): number for number, one in enumerate(done)}
    known = {text: number for text, number in asked.items() if judgments.get(text)}
    if len(known) < 2:
        return None
    split = Split(
        "shadow",
        tuple(Query(text, text) for text in known),
        {text: judgments[text] for text in known},
    )
    measure = f"nDCG@{settings.k}"
    runs = [
        Run(name, {text: list(side[n]) for text, n in known.items()})
        for name, side in (("live", [one.results for one in done]), ("candidate", hits))
    ]
    before, after = (score(run, split, [measure]).column(measure) for run in runs)
    difference = compare_paired(before, after, rng).as_dict()
    return {
        "queries": len(known),
        "measure": measure,
        "live": float(before.mean()),
        "candidate": float(after.mean()),
        **difference,
    }


def _verdict(told: Mapping[str, Any], settings: config.Shadow) -> tuple[str, list[str]]:
    """pass, fail or inconclusive, and why."""
    n, latency, judged = told["queries"], told["latency_ms"], told["judged"]
    ratio = latency["candidate"]["p95"] / max(latency["live"]["p95"], 1e-9)
    wrong = []
    if told["failed"] > _FAILED * (n + told["failed"]):
        wrong.append(f"{told['failed']} of {n + told['failed']} shadow queries failed")
    if told["empty"]["candidate"] > told["empty"]["live"] + max(1, _FAILED * n):
        wrong.append(
            f"{told['empty']['candidate']} queries find nothing, against {told['empty']['live']}"
        )
    if told["timed"] and ratio > settings.latency_ratio:
        wrong.append(f"p95 is {ratio:.2f} times the live one (at most {settings.latency_ratio:g})")
    if judged and judged["outcome"] == "worse":
        wrong.append(
            f"{judged['measure']} falls by {-judged['delta']:.3f} on {judged['queries']} judged queries"
        )
    shown = told.get("exposure")
    if shown and shown["lost"]:
        before, after = (shown[side] for side in ("live", "candidate"))
        name = next(iter(before))
        wrong.append(
            f"{name} goes from {before[name]:.3f} to {after[name]:.3f}, below "
            f"{settings.coverage_ratio:.0%} of the live one, in {shown['requests']} answers to /similar"
        )
    if wrong:
        return "fail", wrong
    if n < settings.min_queries:
        return "inconclusive", [f"{n} compared queries, {settings.min_queries} are asked for"]
    found = f"{n} queries compared" + (
        f", p95 {ratio:.2f} times the live one" if told["timed"] else ""
    )
    return "pass", [
        found,
        f"{judged['measure']} {judged['delta']:+.3f} on {judged['queries']} judged queries"
        if judged
        else "none is judged",
    ]


# -- files ----------------------------------------------------------------------------------------


def known_judgments(root: Path, run: str) -> dict[str, dict[str, int]]:
    """Judgments of dev and of `review/qrels.tsv` (request ids), by normalised query text; a model has learned those of train."""
    dev = frozen_split(root, run, "dev")
    found = {normalise(query.text): dict(dev.judgments.get(query.id, {})) for query in dev.queries}
    reviewed, queued = root / "review" / "qrels.tsv", root / "review" / "queue.jsonl"
    if reviewed.is_file() and queued.is_file():
        texts = {
            line["request_id"]: line["query"]
            for line in read_jsonl(queued)
            if line.get("split") != "train"
        }
        for request_id, grades in read_qrels(reviewed).items():
            if request_id in texts:
                found.setdefault(normalise(texts[request_id]), {}).update(grades)
    return found


def write_report(
    generations: Generations,
    candidate: str,
    requests: Sequence[Request],
    live: str,
    *,
    timed: bool = False,
) -> dict[str, Any]:
    """The record of a candidate in `shadow/ID.json`; its biggest disagreements go to `review/queue.jsonl`."""
    root, settings = generations.root, generations.config.shadow
    rng = np.random.default_rng([generations.config.seed, *b"shadow"])
    exposure = None
    if recommendations(requests):  # else the documents need not be here
        exposure = Exposure.of(Project.at(root, generations.config))
    told = report(
        requests,
        live,
        candidate,
        settings,
        rng,
        JudgedBy(known_judgments(root, generations.config.run), exposure),
        timed=timed,
    )
    told = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **told}
    told["queued"] = _to_review(root, requests, live, candidate, settings)
    write_json(root / "shadow" / f"{candidate}.json", told)
    return told


def _to_review(
    root: Path, requests: Sequence[Request], live: str, candidate: str, settings: config.Shadow
) -> int:
    """Append the queries on which both disagree most to the review queue, each text once; returns how many."""
    path = root / "review" / "queue.jsonl"
    there = set()
    if path.is_file():
        there = {line["query"] for line in read_jsonl(path) if line.get("split") != "train"}
    mine = [
        (one, one.shadow)
        for one in requests
        if one.generation == live and one.query and one.shadow and "rbo" in one.shadow
    ]
    apart: dict[str, tuple[Request, Mapping[str, Any]]] = {}
    for one, shadow in sorted(mine, key=lambda pair: pair[1]["rbo"]):
        if one.query not in there and shadow["rbo"] < 1 and shadow["generation"] == candidate:
            apart.setdefault(one.query, (one, shadow))
    lines = [
        {
            "query": one.query,
            "filter": one.filter,
            "request_id": one.request_id,
            "generation": live,
            "results": ranked(one.results),
            "shadow_generation": candidate,
            "shadow_results": shadow["results"],
            "disagreement": round(1 - shadow["rbo"], 4),
        }
        for one, shadow in list(apart.values())[: settings.review]
    ]
    if lines:
        append_whole(
            path,
            b"".join(
                json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n" for line in lines
            ),
        )
    return len(lines)


def _hits(shadow: Mapping[str, Any]) -> list[Hit]:
    return [(str(hit["id"]), float(hit["score"])) for hit in shadow["results"]]
