"""Ranks after reranking: the reranker over the baseline's candidates."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nearer import progress
from nearer.diagnosis.probes.base import Misses, Named, Results
from nearer.diagnosis.values import CANDIDATES, Probe, Probes
from nearer.search.rerank import Reranker
from nearer.types import Query


class Reading:
    """What a reranker has read for one query: scores of the documents wanted and of its hits.

    `hits` are the baseline's candidates, the best first; `wanted` are among them.
    """

    def __init__(self, query: Query, hits: Sequence[str], wanted: Sequence[str], k: int) -> None:
        self.query = query
        self.hits = hits
        self.wanted = wanted
        self._k = k
        self._scores: dict[str, float] = {}
        self._place = 0  # hits before it were read

    @property
    def complete(self) -> bool:
        """Was every hit read?"""
        return self._place >= len(self.hits)

    @property
    def settled(self) -> bool:
        """Is it known whether a wanted document comes within k?

        Once k hits stand above every one of them the repair has failed, whatever the rest is.
        """
        if not self._scores:
            return False
        best_wanted = max(self._scores[doc_id] for doc_id in self.wanted)
        above = sum(score > best_wanted for score in self._scores.values())
        return self.complete or above >= self._k

    def next_part(self) -> list[str]:
        """The documents to read next: those wanted first, then hits by rank, 2k at a time."""
        part = [*self.wanted, *self.hits[self._place : self._place + 2 * self._k]]
        return [doc_id for doc_id in dict.fromkeys(part) if doc_id not in self._scores]

    def add(self, scores: dict[str, float]) -> None:
        """The scores of the next part."""
        self._scores |= scores
        self._place += 2 * self._k

    def order(self) -> list[str]:
        """The documents read, the best first.

        Where the reranker sees no difference the first stage's order stands: a tie is no repair.
        """
        return sorted(
            self._scores, key=lambda doc_id: (-self._scores[doc_id], self.hits.index(doc_id))
        )

    def probes(self) -> Probes:
        """The rank of each document wanted: it or worse, where hits are left that nobody read."""
        order = self.order()
        probes: Probes = {}
        for doc_id in self.wanted:
            rank = order.index(doc_id) + 1
            probes[self.query.id, doc_id] = Probe(rank, at_least=not self.complete)
        return probes


def reranked(misses: Misses, results: Results) -> Named:
    """Ranks of the documents that are among the candidates; keeps the first choice of each query."""
    systems = misses.systems
    readings, probes = _readings(misses, results)
    if systems.reranker is None or not readings:
        return {"ranking": probes}
    ends = float("inf")
    if systems.config.rerank.automatic:
        ends = time.monotonic() + systems.config.rerank.budget
    with progress.task("reranking candidates", len(readings), "queries") as bar:
        # The first hits of every query come first: they settle most, and no query waits for another.
        for reading in readings:
            if time.monotonic() < ends:
                _read_part(misses, reading, systems.reranker)
            bar.advance(int(reading.settled))
        for reading in [reading for reading in readings if not reading.settled]:
            while not reading.settled and time.monotonic() < ends:
                _read_part(misses, reading, systems.reranker)
            bar.advance()
    unsettled = [reading for reading in readings if not reading.settled]
    if unsettled:
        untried = _no_time(misses, readings, len(unsettled))
        for reading in unsettled:
            probes |= {(reading.query.id, doc_id): untried for doc_id in reading.wanted}
    for reading in readings:
        if reading.settled:
            misses.first_choice[reading.query.id] = reading.order()[0]
            probes |= reading.probes()
    return {"ranking": probes}


def _readings(misses: Misses, results: Results) -> tuple[list[Reading], Probes]:
    """What is to be read for each query, and the probes of documents that will not be."""
    settings = misses.systems.config.rerank
    depth = CANDIDATES
    if not settings.automatic:
        depth = min(CANDIDATES, settings.depth)
    readings: list[Reading] = []
    probes: Probes = {}
    for query in misses.split.queries:
        listed = misses.baseline_run.top(query.id, CANDIDATES)
        candidates = [doc_id for doc_id in listed if doc_id in misses.corpus]
        read: list[str] = []
        for doc_id in misses.wanted[query.id]:
            pair = (query.id, doc_id)
            if doc_id not in candidates or results[pair]["today"].within(misses.k):
                continue
            if misses.systems.reranker is None:
                lacking = misses.systems.lacking
                probes[pair] = _not_tried(lacking.why, lacking.setting)
            elif doc_id in candidates[:depth]:
                read.append(doc_id)
            else:
                why = f"the reranker reads the first {depth} results only (rerank.depth)"
                probes[pair] = _not_tried(why, f"rerank.depth={CANDIDATES}")
        if read:
            readings.append(Reading(query, candidates[:depth], read, misses.k))
    return readings, probes


def _read_part(misses: Misses, reading: Reading, reranker: Reranker) -> None:
    """Read the next part of a query's documents."""
    doc_ids = reading.next_part()
    texts = [
        (reading.query.text, misses.corpus[misses.corpus.position(doc_id)].content)
        for doc_id in doc_ids
    ]
    scores: list[float] = []
    if texts:  # all of a part may have been read with the documents wanted
        scores = [float(score) for score in reranker.score(texts)]
    reading.add(dict(zip(doc_ids, scores, strict=True)))


def _no_time(misses: Misses, readings: Sequence[Reading], unsettled: int) -> Probe:
    """Why a query was not read to where its outcome is known, and the command that would do it."""
    why = (
        f"rerank.budget was over before the candidates of {unsettled} of "
        f"{len(readings)} queries were read"
    )
    pairs = sum(len(reading.hits) for reading in readings)
    needed = int(1.5 * pairs * misses.systems.seconds_per_pair(misses.split)) + 1
    return _not_tried(why, f"rerank.budget={needed}s")


def _not_tried(why: str, setting: str) -> Probe:
    return Probe(skipped=why, next_step=f"nearer diagnose --set {setting}")
