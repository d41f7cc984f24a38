"""What a cause is: a name, a remedy, and rules that say when it explains a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from nearer.diagnosis.values import ByName, Facts, Probe


class Turn(IntEnum):
    """When a rule is asked.  All rules of a turn are asked before any of the next one."""

    FACTS = 1  # facts or exact search settle it, whatever else a repair does
    REPAIR = 2  # its repair works
    COSTLY_REPAIR = 3  # only a costlier form of its repair works
    TOGETHER = 4  # only several repairs together work
    IN_PART = 5  # a repair comes near
    UNTRIED = 6  # a repair was not tried
    REMAINDER = 7  # nothing else explains it


@dataclass(frozen=True, slots=True)
class Case:
    """One failure: its probes by name, what is known about the texts, and how many results count."""

    probes: ByName
    facts: Facts
    k: int

    @property
    def baseline(self) -> Probe:
        """The rank that users get now."""
        return self.probes["today"]

    @property
    def exact(self) -> Probe:
        """The rank that exact search gives with the baseline's model, chunks and filters."""
        return self.probes.get("exact", self.baseline)

    @property
    def lost(self) -> bool:
        """Does exact search find the document where the baseline, an index over the same model, does not?"""
        missed = not self.baseline.within(self.k)
        return missed and self.facts.over_model and self.exact.within(self.k)

    def probe(self, name: str) -> Probe:
        """A probe; one without a rank where it does not apply."""
        return self.probes.get(name, Probe())

    def works(self, name: str, sure: bool = False) -> bool:
        """Does a repair work?  With direct evidence (`sure`) any rank within k counts."""
        probe = self.probe(name)
        return probe.within(self.k) if sure else probe.repairs(self.exact, self.k)

    def rank_near(self, name: str) -> int | None:
        """The rank that a repair gives, where it takes it down by an order of magnitude."""
        probe = self.probe(name)
        return probe.rank if probe.comes_near(self.exact) else None

    def ranks(self, name: str) -> str:
        """From which rank to which a repair takes the document, in words."""
        rank = self.baseline.rank
        before = "nowhere" if rank is None else str(rank)
        return f"from {before} to {self.probes[name].rank}"

    def route(self, name: str) -> str:
        """The best variant of a repair and the ranks, in words."""
        return f"{self.probes[name].best_variant}: {self.ranks(name)}"

    def route_among(self, name: str) -> str:
        """The same, with the number of documents that competed where it was not the whole corpus."""
        probe = self.probes[name]
        route = f"{probe.best_variant or name}: {self.ranks(name)}"
        return (
            route if probe.among is None else f"{route} among the {probe.among:,} nearest documents"
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a cause explains a failure: which kind of it, and the evidence in words.

    With `of_strongest` the failure is given to the cause whose repair does most (`rank_in_part`),
    and to the cause of the rule only where there is none.
    """

    kind: str
    evidence: str
    of_strongest: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One way for a cause to explain a failure; `explain` gives None where it does not."""

    turn: Turn
    explain: Callable[[Case], Explanation | None]


def _no_rank(case: Case) -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why search misses a document.

    `rules` are asked in the order of their turns.  `rank_in_part` gives the rank that the repair
    reaches where it comes near without arriving (`Case.rank_near`) and evidence speaks for it; of
    several such causes the one with the best rank gets the failure.
    """

    name: str
    remedy: str
    rules: tuple[Rule, ...] = ()
    rank_in_part: Callable[[Case], int | None] = _no_rank
