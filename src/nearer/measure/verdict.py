"""The decision itself: pure, so that the rule can be read, tested and argued with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.measure.metrics import Scores
from nearer.measure.significance import Comparison, queries_to_settle
from nearer.types import Run

TUNED = "fine-tuned"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One system judged on test.  `role` is today, baseline (a simpler fix) or candidate (fine-tuned).

    `dev` is its mean of the primary measure on dev: what choices between candidates rest on.
    """

    name: str
    role: str
    system: str
    run: Run
    scores: Scores
    dev: float
    described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        return self.role == "candidate"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`verdict` is ship, use_simpler_fix, do_not_ship or inconclusive; `reasons` say why."""

    verdict: str
    recommended: str
    sentence: str
    reasons: tuple[str, ...]


def best_on_dev(candidates: Sequence[Candidate], role: str) -> Candidate | None:
    """The one of a role with the highest dev score; ties go to the one listed first (the simpler)."""
    return max((c for c in candidates if c.role == role), key=lambda c: c.dev, default=None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a verdict rests on.

    `tuned` and `simple` are the fine-tuned system and the simpler fix that did best on dev;
    `comparisons` holds (baseline, candidate) → result on test; each guardrail has a `name` and a
    `status` (pass, fail, inconclusive).
    """

    today: Candidate
    tuned: Candidate | None
    simple: Candidate | None
    comparisons: Mapping[tuple[str, str], Comparison]
    guardrails: Sequence[Mapping[str, Any]]
    primary: str
    min_gain: float
    alpha: float

    def gain(self, candidate: Candidate, over: Candidate) -> Comparison:
        return self.comparisons[over.name, candidate.name]

    def shown(self, candidate: Candidate | None, over: Candidate) -> bool:
        """Is a gain shown, and is it useful as measured?

        Claimed is that the true gain is above 0 (interval and p agree).  The measured gain must
        reach `min_gain` besides; that the *true* gain reaches it is not claimed.
        """
        if candidate is None:
            return False
        result = self.gain(candidate, over)
        return result.outcome == "better" and result.delta >= self.min_gain

    def queries_needed(self, candidate: Candidate, over: Candidate) -> int | None:
        """Queries that would show the measured gain, or `min_gain` where that is more; None: no number would."""
        column, base = candidate.scores.column(self.primary), over.scores.column(self.primary)
        gain = max(abs(self.gain(candidate, over).delta), self.min_gain)
        return queries_to_settle(column - base, gain, self.alpha / 2)

    def guards(self, status: str) -> list[str]:
        return [str(guard["name"]) for guard in self.guardrails if guard["status"] == status]


def judge(evidence: Evidence) -> Verdict:
    """Ship when a useful gain over today is shown, and over the best simpler fix where that one
    is worth having by itself, and every guardrail passes.  Otherwise the simpler fix, if it is shown
    to help; otherwise nothing, or the number of queries that would settle it.
    """
    tuned, simple, today = evidence.tuned, evidence.simple, evidence.today
    simple_helps = evidence.shown(simple, today)
    if tuned is None:
        why = "no model was fine-tuned"
        return (
            _simpler(evidence, why)
            if simple_helps
            else _nothing(evidence, "no model was fine-tuned and no simpler fix is shown to help")
        )
    gain = evidence.gain(tuned, today)
    failed, open_ = evidence.guards("fail"), evidence.guards("inconclusive")
    if simple_helps and simple is not None and not evidence.shown(tuned, simple):
        return _simpler(
            evidence,
            f"fine-tuning is not shown to add {evidence.min_gain:g} to that ({_span(evidence.gain(tuned, simple))})",
        )
    if failed:
        why = f"the fine-tuned model fails its guardrails ({', '.join(failed)})"
        return _simpler(evidence, why) if simple_helps else _nothing(evidence, why)
    if gain.delta <= 0 or gain.high < evidence.min_gain:
        return _nothing(
            evidence,
            f"fine-tuning changes {evidence.primary} by {_span(gain)}, less than the useful {evidence.min_gain:g}",
        )
    if not evidence.shown(tuned, today):
        needed = evidence.queries_needed(tuned, today)
        enough = "no number of"
        if needed is not None:
            enough = f"about {needed:,}"
        why = f"{evidence.primary} changes by {_span(gain)}; {enough} judged test queries would settle it"
        return Verdict("inconclusive", today.name, f"Inconclusive: {why}.", _reasons(evidence))
    if open_:
        why = f"{_rise(evidence, tuned)}, but {', '.join(open_)} may have lost more than the margin allows"
        return Verdict("inconclusive", today.name, f"Inconclusive: {why}.", _reasons(evidence))
    sentence = f"Ship the {tuned.name} model: {_rise(evidence, tuned)} on {gain.n:,} held-out queries, and every guardrail passes."
    return Verdict("ship", tuned.name, sentence, _reasons(evidence))


def _simpler(evidence: Evidence, why: str) -> Verdict:
    simple = evidence.simple
    if simple is None:
        raise ValueError("a simpler fix can be recommended only where there is one")
    sentence = f"Use {simple.name} instead of fine-tuning: {_rise(evidence, simple)}, and {why}."
    return Verdict("use_simpler_fix", simple.name, sentence, _reasons(evidence))


def _nothing(evidence: Evidence, why: str) -> Verdict:
    return Verdict("do_not_ship", evidence.today.name, f"Do not ship: {why}.", _reasons(evidence))


def _reasons(evidence: Evidence) -> tuple[str, ...]:
    told = [
        f"{candidate} against {baseline}: {evidence.primary} {result}"
        for (baseline, candidate), result in evidence.comparisons.items()
    ]
    told += [f"guardrail {name} fails" for name in evidence.guards("fail")]
    told += [
        f"guardrail {name} is open: it may have lost more than its margin"
        for name in evidence.guards("inconclusive")
    ]
    if evidence.guardrails and not evidence.guards("fail") and not evidence.guards("inconclusive"):
        told.append(f"all {len(evidence.guardrails)} guardrails pass")
    return tuple(told)


def _rise(evidence: Evidence, other: Candidate) -> str:
    before, after = (
        evidence.today.scores.mean(evidence.primary),
        other.scores.mean(evidence.primary),
    )
    return f"{evidence.primary} rises from {before:.3f} to {after:.3f} ({_span(evidence.gain(other, evidence.today))})"


def _span(result: Comparison) -> str:
    return f"{result.delta:+.3f}, {100 * (1 - result.alpha):g}% interval {result.low:+.3f} to {result.high:+.3f}".replace(
        "-", "−"
    )


def checklist(
    evidence: Evidence,
    mined: Mapping[str, Any],
    cost: Mapping[str, Any],
    diagnosis: Mapping[str, Any],
    not_tried: Sequence[Mapping[str, str]] = (),
) -> list[dict[str, str]]:
    """The six questions that a decision must answer: `{"question", "answer": yes|no|unknown|not tried, "evidence"}`.

    `not_tried` are the simpler fixes that nobody tried (`fix`, `why`, `next`): while there are
    some, the others are not shown to be insufficient.  `mined` is `mine/summary.json`; `cost` what
    re-embedding takes (empty when nothing was trained); `diagnosis` is `diagnose/summary.json`
    (empty when nothing was diagnosed).
    """
    today, tuned, simple = evidence.today, evidence.tuned, evidence.simple
    measured = f"today's {evidence.primary} is {today.scores.mean(evidence.primary):.3f} on {len(today.scores):,} held-out queries"
    data = f"{mined.get('examples', 0):,} examples from {mined.get('queries', 0):,} queries and {mined.get('documents', 0):,} documents"
    gain = evidence.gain(tuned, today) if tuned else None
    over = (
        f"{tuned.name} adds {_span(evidence.gain(tuned, simple))} to {simple.name}"
        if tuned and simple
        else "nothing to compare"
    )
    told = f"{_span(gain)}, p = {gain.p:.4f}" if gain else "no model was fine-tuned"
    takes = (
        f"re-embedding {cost['documents']:,} documents takes about {cost['seconds']:,.0f} s here"
        if cost
        else "nothing to re-embed"
    )
    return [
        _answer("Is the failure measured?", True, measured),
        _answer("Is it semantic?", *_semantic(diagnosis, evidence.min_gain)),
        _insufficient(evidence, over, not_tried),
        _answer("Is training data available?", mined.get("examples", 0) > 0, data),
        _answer(
            "Does held-out evaluation improve?", gain.outcome == "better" if gain else None, told
        ),
        _answer(
            "Does the gain justify re-indexing?",
            evidence.shown(tuned, today) if gain else None,
            f"{told}; {takes}",
        ),
    ]


def _insufficient(
    evidence: Evidence, over: str, not_tried: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Are simpler fixes insufficient?  Never yes where one of them was not tried."""
    tuned, simple = evidence.tuned, evidence.simple
    yes = evidence.shown(tuned, simple) if tuned and simple else None
    answer = _answer("Are simpler fixes insufficient?", yes, over)
    if yes and not_tried:
        answer["answer"] = "not tried"
    if not_tried:
        answer["evidence"] = f"{over}; not tried: {untold(not_tried)}"
    return answer


def untold(not_tried: Sequence[Mapping[str, str]]) -> str:
    """What was not tried, why, and the command that would, as one line."""
    return ", ".join(f"{one['fix']} ({one['why']}; {one['next']})" for one in not_tried)


def _semantic(diagnosis: Mapping[str, Any], least: float) -> tuple[bool | None, str]:
    """Do semantic failures hold enough of the measure for fine-tuning to be worth trying?"""
    causes, ceiling = diagnosis.get("causes"), diagnosis.get("fine_tuning_ceiling")
    if causes is None or ceiling is None:
        return None, "not diagnosed in this run; the gains by slice show where the model was weak"
    total, found = diagnosis["n_failures"], causes.get("semantic", 0)
    told = f"{found:,} of {total:,} failures are semantic; found first, all of them would add {ceiling['gain']:.3f} of {ceiling['measure']}"
    if ceiling["gain"] >= least:
        return True, told
    possible = ceiling["if_unknown_were_semantic"] - ceiling["today"] >= least
    untried = diagnosis.get("not_tried", ())
    if possible and untried:
        told += f"; not tried: {', '.join(str(one['probe']) for one in untried)}"
    return (None if possible else False), told


def _answer(question: str, yes: bool | None, evidence: str) -> dict[str, str]:
    return {
        "question": question,
        "answer": "unknown" if yes is None else "yes" if yes else "no",
        "evidence": evidence,
    }
