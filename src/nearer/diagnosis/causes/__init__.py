"""From what the probes found to the cause of a failure: pure, so that the rule can be argued with.

Every probe executes one repair and reports the rank that the relevant document then has.  The cause
is the cheapest repair that works, with two guards against chance, because a document at rank 11
enters the first ten under almost any change: without direct evidence a repair must at least halve
the rank, and where two repairs work, direct evidence (an identifier that stands in the document,
text that the model never read) goes before the order of cost.

`semantic` is said only where every cheaper repair that applies was tried and none comes near: what
was not tried, or takes the rank down by an order of magnitude, might be the answer.

A cause is one file of this folder and one line of the table in `nearer.plugins` (seam `cause`).
The table is ordered by the cost of the repair.  A cause brings rules; each rule has a turn
(`base.Turn`), and the first rule that explains the failure decides: by turn, then by cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from nearer import plugins
from nearer.diagnosis.causes import label_suspect
from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule
from nearer.diagnosis.values import ByName, Diagnosis, Facts
from nearer.errors import ConfigError

__all__ = ["causes", "classify", "remedies", "rules"]

#: Causes without a repair of their own: they stand last, behind those that packages bring.
_WITHOUT_REPAIR = ("semantic", "label_suspect", "unknown")


@cache
def causes() -> tuple[Cause, ...]:
    """Every cause, ours and those of installed packages, in the order of the cost of their repair.

    Raises ConfigError when a package's cause cannot be loaded or is none.
    """
    names = plugins.names("cause")
    ordered = [name for name in names if name not in _WITHOUT_REPAIR]
    ordered.extend(_WITHOUT_REPAIR)
    return tuple(map(_load, ordered))


def _load(name: str) -> Cause:
    cause = plugins.find("cause", name)
    if not isinstance(cause, Cause) or cause.name != name:
        raise ConfigError(
            f"the plug-in cause.{name} is no Cause with the name {name!r}",
            where=f"{plugins.GROUP} of the package that brings it",
            next_step="see nearer.diagnosis.causes.base, or uninstall the package",
        )
    return cause


@cache
def rules() -> tuple[tuple[str, Rule], ...]:
    """(cause, rule) in the order in which they decide."""
    named: list[tuple[str, Rule]] = []
    for cause in causes():
        named += [(cause.name, rule) for rule in cause.rules]
    named.sort(key=lambda pair: pair[1].turn)
    return tuple(named)


def remedies() -> Mapping[str, str]:
    """Cause → what repairs it."""
    return {cause.name: cause.remedy for cause in causes()}


def classify(probes: ByName, facts: Facts, k: int) -> Diagnosis:
    """The cause of one failure.  `probes` go by name; `today` is the baseline's rank.

    `exact` is exact search with the baseline's model, chunks and filters; where the baseline is
    exact itself it equals `today`.
    """
    case = Case(probes, facts, k)
    cause, explanation = next(_explanations(case))  # `semantic` explains every case
    kind, evidence = explanation.kind, explanation.evidence
    duplicate = label_suspect.duplicate(facts)
    preferred = label_suspect.preferred(facts)
    if duplicate and cause in ("semantic", "unknown"):
        return Diagnosis("label_suspect", "near-duplicate", duplicate)
    if cause == "missing_document" or not (duplicate or preferred):
        return Diagnosis(cause, kind, evidence)
    texts = filter(None, (evidence, duplicate, preferred))
    return Diagnosis(cause, kind, "; ".join(texts), also=("label_suspect",))


def _explanations(case: Case) -> Iterator[tuple[str, Explanation]]:
    """What explains the failure, best first, each with its cause."""
    for name, rule in rules():
        explanation = rule.explain(case)
        if explanation is None:
            continue
        cause = name
        if explanation.of_strongest:
            cause = _strongest(case) or name
        yield cause, explanation


def _strongest(case: Case) -> str | None:
    """The cause whose repair, with evidence for it, comes nearest to the first results."""
    ranks: dict[str, int] = {}
    for cause in causes():
        rank = cause.rank_in_part(case)
        if rank is not None:
            ranks[cause.name] = rank
    return min(ranks, key=ranks.__getitem__, default=None)
