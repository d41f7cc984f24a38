"""`nearer shadow replay`: the questions of the traffic log, asked again of any two generations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nearer import config, progress
from nearer.live.index.generations import Generations
from nearer.live.index.searcher import Searcher, Served
from nearer.live.index.similar import UnknownItemsError, find_similar
from nearer.live.rollout.shadow import write_report
from nearer.live.traffic.exposure import question_of
from nearer.live.traffic.log import Request, ranked, read_traffic
from nearer.live.traffic.similar import SimilarTo
from nearer.measure.rollout import overlap, rank_biased_overlap
from nearer.types import Hit, is_blank, typed_query

_BATCH = 32


def compare(live: Sequence[Hit], candidate: Sequence[Hit], k: int) -> dict[str, Any]:
    """How far two answers to one query agree: {overlap, rbo, top1_changed}, the first two 0..1."""
    a, b = [doc_id for doc_id, _ in live[:k]], [doc_id for doc_id, _ in candidate[:k]]
    return {
        "overlap": round(overlap(a, b, k), 4),
        "rbo": round(rank_biased_overlap(a, b), 4),
        "top1_changed": a[:1] != b[:1],
    }


@dataclass(frozen=True, slots=True)
class _Sides:
    """The two generations of a replay, and how both are asked."""

    live: Served
    candidate: Served
    settings: config.Shadow

    def searched(self, block: Sequence[Request]) -> list[Request]:
        """Searches of the log asked again, all at once."""
        queries = [
            typed_query(request.query, request.filter, number)
            for number, request in enumerate(block)
        ]
        found, milliseconds = [], []
        for served in (self.live, self.candidate):
            started = time.perf_counter()
            found.append(served.search(queries, self.settings.k).results)
            milliseconds.append(1000 * (time.perf_counter() - started) / len(block))
        replayed = []
        for query, request in zip(queries, block, strict=True):
            hits = tuple(found[0][query.id]), tuple(found[1][query.id])
            replayed.append(self._compared(request, hits, milliseconds))
        return replayed

    def recommended(self, request: Request, asked: SimilarTo) -> Request | None:
        """A question of `POST /similar` asked again; None where the live side no longer has its items."""
        found, milliseconds = [], []
        for served in (self.live, self.candidate):
            started = time.perf_counter()
            try:
                hits = find_similar(served, asked, request.filter).hits
            except UnknownItemsError as error:
                if served is self.live:
                    return None
                shadow = {"generation": served.id, "error": str(error)}
                return replace(request, generation=self.live.id, shadow=shadow)
            found.append(hits)
            milliseconds.append(1000 * (time.perf_counter() - started))
        return self._compared(request, (found[0], found[1]), milliseconds)

    def _compared(
        self,
        request: Request,
        hits: tuple[tuple[Hit, ...], tuple[Hit, ...]],
        milliseconds: Sequence[float],
    ) -> Request:
        first, second = hits
        shadow: dict[str, Any] = {
            "generation": self.candidate.id,
            "latency_ms": milliseconds[1],
            **compare(first, second, self.settings.k),
            "results": ranked(second),
        }
        return replace(
            request,
            generation=self.live.id,
            results=first,
            latency_ms=milliseconds[0],
            shadow=shadow,
        )


def replay(
    requests: Sequence[Request],
    live: Served,
    candidate: Served,
    settings: config.Shadow,
) -> list[Request]:
    """Logged questions asked again of two generations: what a shadow would have logged."""
    sides = _Sides(live, candidate, settings)
    replayed: list[Request] = []
    with progress.task("replay", len(requests), "queries") as bar:
        for start in range(0, len(requests), _BATCH):
            block = requests[start : start + _BATCH]
            searches = [request for request in block if request.similar is None]
            if searches:
                replayed += sides.searched(searches)
            for request in block:
                if request.similar is None:
                    continue
                compared = sides.recommended(request, request.similar)
                if compared is not None:
                    replayed.append(compared)
            bar.advance(len(block))
    return replayed


def replay_log(
    generations: Generations, candidate: str, live: str, limit: int | None = None
) -> dict[str, Any]:
    """Ask the log's queries again of two generations, and write the record."""
    latest: dict[str, Request] = {}
    for one in read_traffic(generations.root / "traffic"):
        if one.similar is not None or not is_blank(one.query):
            latest[question_of(one)] = one
    requests = list(latest.values())[-limit:] if limit else list(latest.values())
    sides = [Searcher(generations, name).current() for name in (live, candidate)]
    return write_report(
        generations,
        candidate,
        replay(requests, sides[0], sides[1], generations.config.shadow),
        live,
        timed=True,
    )
