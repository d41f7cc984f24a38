"""`unknown`: repairs that help together or in part without evidence, and repairs that were not tried."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn

IN_PART = "repaired in part"  # the kind of a failure whose repair ends outside of the first k

#: Repairs that may come near without arriving, in the order in which equal ranks are settled.
_NEAR = (
    "needs_metadata",
    "chunking",
    "finer",
    "exact_match",
    "rewriting",
    "combined",
    "base_model",
)
#: Of these, the ones that may find the document without the evidence that makes them a cause.
_BY_CHANCE = ("chunking", "finer", "rewriting")


def _together(case: Case) -> Explanation | None:
    """Only several repairs together find it: the one that does most is the cause."""
    if not case.works("combined"):
        return None
    evidence = f"only together: {case.route_among('combined')}"
    return Explanation("combination", evidence, of_strongest=True)


def _in_part(case: Case) -> Explanation | None:
    """A repair comes near: the one that does most is the cause, where evidence speaks for it."""
    helping = [name for name in _NEAR if name in case.probes and _helps(case, name)]
    if not helping:
        return None
    name = min(helping, key=lambda name: case.probes[name].rank or 0)
    outcome = f"{name} helps: {case.route_among(name)}"
    if case.probes[name].within(case.k):
        outcome += ", perhaps by chance: nothing else speaks for it"
    else:
        outcome += f", which is not among the first {case.k}"
    evidence = [text for text in (case.facts.unread, outcome, _left_untried(case)) if text]
    return Explanation(IN_PART, "; ".join(evidence), of_strongest=True)


def _helps(case: Case, name: str) -> bool:
    """Does a repair come near, or find the document without the evidence that makes it a cause?

    Where no term of the query stands in the document, one lucky way to cut it says nothing.
    """
    if case.probes[name].comes_near(case.exact):
        return True
    return name in _BY_CHANCE and case.facts.overlap > 0 and case.works(name)


def _untried(case: Case) -> Explanation | None:
    """A repair that nobody tried might be the answer."""
    for name, probe in case.probes.items():
        if probe.skipped:
            return Explanation(f"not tried: {name}", _left_untried(case))
    return None


def _left_untried(case: Case) -> str:
    """Repairs that were not tried, each with the reason and the command that would try it."""
    return "; ".join(
        f"not tried: {name} ({probe.skipped}; {probe.next_step})"
        for name, probe in case.probes.items()
        if probe.skipped
    )


CAUSE = Cause(
    "unknown",
    remedy="try what was not tried, or combine what helps in part: the evidence says which",
    rules=(
        Rule(Turn.TOGETHER, _together),
        Rule(Turn.IN_PART, _in_part),
        Rule(Turn.UNTRIED, _untried),
    ),
)
