"""What becomes of must-pass and high-risk queries from one system to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearer import progress
from nearer.data.named import NamedQuery
from nearer.decision.candidates import Finalists, PlannedCandidate
from nearer.decision.inputs import DecisionInputs
from nearer.guardrails.named import named_rows
from nearer.measure.metrics import score
from nearer.measure.named import NamedOutcome
from nearer.measure.verdict import Candidate
from nearer.types import Split


def with_named_outcomes(
    inputs: DecisionInputs, plan: Sequence[PlannedCandidate], finalists: Finalists
) -> tuple[Finalists, dict[str, tuple[NamedOutcome, ...]]]:
    """The finalists, and what became of each named query, by the system set against today's.

    The simpler fix is the one that did best on dev of those that lose no named query.  Where every
    one of them loses some, the best on dev stays, and fails its guardrail.
    """
    planned = {candidate.name: candidate for candidate in plan}
    outcomes: dict[str, tuple[NamedOutcome, ...]] = {}

    def of(challenger: Candidate) -> tuple[NamedOutcome, ...]:
        before, after = planned[finalists.today.name], planned[challenger.name]
        found = named_outcomes(inputs.named, before, after, inputs.primary)
        outcomes[challenger.name] = found
        return found

    if finalists.tuned is not None:
        of(finalists.tuned)
    if finalists.simple is not None:
        fixes = [one for one in finalists.candidates if one.role == "baseline"]
        fixes.sort(key=lambda fix: -fix.dev)  # stable: of equals the first listed
        passing = (fix for fix in fixes if not _loses_any(of(fix)))
        finalists = replace(finalists, simple=next(passing, finalists.simple))
    kept = [one.name for one in (finalists.tuned, finalists.simple) if one is not None]
    return finalists, {name: outcomes[name] for name in kept}


def _loses_any(outcomes: Sequence[NamedOutcome]) -> bool:
    return any(row.status == "fail" for row in named_rows(outcomes))


def named_outcomes(
    named: Sequence[NamedQuery],
    before: PlannedCandidate,
    after: PlannedCandidate,
    primary: str,
) -> tuple[NamedOutcome, ...]:
    """What became of each named query from one system to another."""
    judged = _judgeable(named, before, after)
    if not judged:
        return ()
    queries = {entry.query.id: entry.query for entry in judged}
    grades = {entry.query.id: entry.grades for entry in judged}
    split = Split("named", tuple(queries.values()), grades)
    first, second = (_values(planned, split, primary) for planned in (before, after))
    outcomes = []
    for entry in judged:
        query = entry.query
        if query.id in first:
            outcomes.append(
                NamedOutcome(
                    group=entry.group,
                    query_id=query.id,
                    text=query.text,
                    split=entry.split,
                    before=first[query.id],
                    after=second[query.id],
                )
            )
    return tuple(outcomes)


def _judgeable(
    named: Sequence[NamedQuery], before: PlannedCandidate, after: PlannedCandidate
) -> list[NamedQuery]:
    """Those that both systems can answer: a file of results holds no training queries."""
    if "run" not in (before.pipeline.system, after.pipeline.system):
        return list(named)
    judged = [entry for entry in named if entry.split != "train"]
    left = len(named) - len(judged)
    if left:
        progress.warn(
            f"{left} named queries are training queries: the file of results (search.run) "
            "does not answer them, and they were not judged"
        )
    return judged


def _values(planned: PlannedCandidate, split: Split, primary: str) -> dict[str, float]:
    systems = planned.systems
    run = systems.run(planned.pipeline, split)
    scores = score(run, split, [primary], systems.item_to_item)
    return dict(zip(scores.query_ids, scores.column(primary).tolist(), strict=True))
