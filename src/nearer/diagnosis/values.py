"""The values that probes, evidence and causes hand to each other.  All frozen, none does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]  # query id, document id

#: A line of `failures.jsonl`.
Failure = Mapping[str, Any]

CANDIDATES = 100  # results that a reranker gets to see
TENFOLD = 10  # a repair that divides the rank by this much is near the cause, wherever it ends


@dataclass(frozen=True, slots=True)
class Probe:
    """One repair, executed: the exact rank that it gives the document (None: not found).

    `variants` has the rank per way of doing it.  `skipped` says why it was not tried, or not in
    every way, and `next_step` which command would; a probe that is absent does not apply.
    `among` is the number of documents that competed, where not the whole corpus did.
    """

    rank: int | None = None
    variants: Mapping[str, int | None] = field(default_factory=dict)
    skipped: str | None = None
    at_least: bool = False  # the rank is known to be this or worse, not exactly
    next_step: str = ""
    among: int | None = None

    @property
    def best_variant(self) -> str:
        """The variant with the best rank, the first by name of several; empty where none has one."""
        ranked = {name: rank for name, rank in self.variants.items() if rank is not None}
        return min(sorted(ranked), key=ranked.__getitem__, default="")

    def within(self, k: int) -> bool:
        """Is the document among the first `k`?"""
        if self.rank is None or self.at_least:
            return False
        return self.rank <= k

    def repairs(self, exact: Probe, k: int) -> bool:
        """Within `k`, and not by a little: the rank that exact search gives is at least halved."""
        if self.rank is None or not self.within(k):
            return False
        if exact.rank is None:
            return True
        return 2 * self.rank <= exact.rank

    def comes_near(self, exact: Probe) -> bool:
        """Is the rank that exact search gives taken down by an order of magnitude?

        Where exact search gives none, the rank is compared with the end of the list.
        """
        if self.rank is None or self.at_least:
            return False
        before = exact.rank
        if before is None:
            before = TENFOLD * CANDIDATES
        return TENFOLD * self.rank <= before

    def as_dict(self, k: int) -> dict[str, Any]:
        """The probe as a value of `probes` in `failures.jsonl`."""
        record: dict[str, Any] = {"rank": self.rank, "found": self.within(k)}
        if self.at_least:
            record["at_least"] = True
        if self.variants:
            record["variants"] = dict(self.variants)
        if self.among is not None:
            record["among"] = self.among
        if self.skipped:
            record["skipped"] = self.skipped
            record["next"] = self.next_step
        return record


def best(variants: Mapping[str, int | None], among: int | None = None) -> Probe:
    """The probe with the best rank of its variants."""
    ranks = [rank for rank in variants.values() if rank is not None]
    return Probe(min(ranks, default=None), variants, among=among)


#: One repair's probe, by pair.
Probes = dict[Pair, Probe]
#: One pair's probes, by name.
ByName = Mapping[str, Probe]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the texts and the metadata of a query and its relevant document say."""

    missing: str = ""  # why no system can find the document
    excluded: str = ""  # how the declared filter and the document's metadata disagree
    filters_apply: bool = False  # does the baseline honour declared filters?
    declared: bool = False  # does the query declare a filter?
    over_model: bool = True  # does the baseline rank by the configured model's vectors?
    #: codes, names, quoted phrases and rare terms of the query that stand in the document
    identifiers: tuple[str, ...] = ()
    identifier_share: float = 0.0  # of the query's terms, rare words not counted
    unread: str = ""  # the answer lies where the model does not read, or across a border of chunks
    mixed: str = ""  # a part of the document is much nearer to the query than the whole
    duplicates: tuple[str, ...] = ()  # unjudged results above it that are near-duplicates of it
    preferred: str = ""  # an unjudged document that every system puts first
    overlap: float = 0.0  # share of the query's terms that stand in the document
    fragments: tuple[str, ...] = ()  # acronyms and terms that the tokenizer breaks up
    distractors: int = 0  # results above it that share most of its words
    words: tuple[int, int] = (0, 0)  # of the query and of the document


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause of a failure, its kind, the evidence in words, and what else is suspicious."""

    cause: str
    kind: str
    evidence: str
    also: tuple[str, ...] = ()
