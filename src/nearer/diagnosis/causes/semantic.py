"""`semantic`: every cheaper repair was tried and none comes near.  Fine-tuning is what remains."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn
from nearer.diagnosis.values import Facts

_LONGEST, _SHORTEST = (
    40,
    0.5,
)  # words of the document per word of the query, beyond which lengths differ


def _meaning(case: Case) -> Explanation:
    """What kind of semantic failure this is, and why we think so."""
    facts = case.facts
    if facts.overlap == 0:
        return Explanation("vocabulary gap", "no term of the query stands in the document")
    if facts.fragments:
        broken = ", ".join(facts.fragments[:4])
        return Explanation("unknown term", f"the tokenizer breaks up {broken}")
    if facts.distractors:
        evidence = f"{facts.distractors} results above it share most of its words"
        return Explanation("near-identical distractors", evidence)
    if _lengths_differ(facts):
        query, document = facts.words
        evidence = f"{query} words ask for a document of {document}"
        return Explanation("length mismatch", evidence)
    evidence = (
        f"{facts.overlap:.0%} of the query's terms stand in it, and every cheaper repair was tried"
    )
    return Explanation("meaning", evidence)


def _lengths_differ(facts: Facts) -> bool:
    query, document = facts.words
    return query > 0 and (document > _LONGEST * query or document < _SHORTEST * query)


CAUSE = Cause(
    "semantic",
    remedy="fine-tune: every cheaper repair was tried, and none comes near",
    rules=(Rule(Turn.REMAINDER, _meaning),),
)
