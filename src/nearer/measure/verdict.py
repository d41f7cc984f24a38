"""The decision itself: pure, so that the rule can be read, tested and argued with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nearer.measure.guarded import guard_reasons, names_with, that_are_open, that_passed
from nearer.measure.metrics import Scores
from nearer.measure.not_tried import NotTried, untold, whole_fixes
from nearer.measure.significance import Clusters, Comparison, queries_to_settle
from nearer.types import Run

TUNED = "fine-tuned"

Json = Mapping[str, Any]  # an object that a stage wrote
Comparisons = Mapping[tuple[str, str], Comparison]  # (baseline, candidate) → result on test


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
    described: Json = field(default_factory=dict)

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
    eligible = [candidate for candidate in candidates if candidate.role == role]
    return max(eligible, key=lambda candidate: candidate.dev, default=None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a verdict rests on.

    `today` is the baseline; `tuned` and `simple` are the fine-tuned system and the simpler fix that
    did best on dev; `comparisons` holds (baseline, candidate) → result on test; each guardrail has a
    `name` and a `status` (`guardrails.base: Status`).  `fix_guardrails` are those of the simpler fix;
    `clusters` says which queries hang together, in the order of the scores.
    """

    today: Candidate
    tuned: Candidate | None
    simple: Candidate | None
    comparisons: Comparisons
    guardrails: Sequence[Json]
    primary: str
    min_gain: float
    alpha: float
    fix_guardrails: Sequence[Json] = ()
    clusters: Clusters = None
    not_tried: NotTried = ()  # simpler fixes that nobody tried and nobody declared an exception
    generated: int = 0  # test queries that nobody asked
    accepted: str = ""  # why a verdict may rest on them

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

    def helpful_fix(self) -> Candidate | None:
        """The best simpler fix, where it is shown to help by itself and fails no guardrail."""
        if self.fix_failures() or not self.shown(self.simple, self.today):
            return None
        return self.simple

    def promising_fix(self) -> Candidate | None:
        """The best simpler fix, where it gains as much as is useful, shown or not, and fails nothing."""
        if self.simple is None or self.fix_failures():
            return None
        useful = self.gain(self.simple, self.today).delta >= self.min_gain
        return self.simple if useful else None

    def fix_failures(self) -> list[str]:
        """Names of the guardrails that the simpler fix fails."""
        return names_with(self.fix_guardrails, "fail")

    def queries_needed(self, candidate: Candidate, over: Candidate) -> int | None:
        """Queries that would show the measured gain, or `min_gain` where that is more; None: no number would."""
        after = candidate.scores.column(self.primary)
        before = over.scores.column(self.primary)
        measured = abs(self.gain(candidate, over).delta)
        return queries_to_settle(
            after - before,
            max(measured, self.min_gain),
            self.alpha / 2,
            clusters=self.clusters,
        )


def judge(evidence: Evidence) -> Verdict:
    """The verdict of `_judged`; one that rests on generated test queries says so.

    Without a declared exception such a verdict lets nothing else answer: it is inconclusive.
    """
    verdict = _judged(evidence)
    if not evidence.generated:
        return verdict
    total = len(evidence.today.scores)
    count = f"{evidence.generated:,} of {total:,} test queries are generated: nobody asked them"
    if evidence.accepted:
        count += f" (accepted: {evidence.accepted})"
    elif verdict.recommended != evidence.today.name:
        why = f"{count}, and such queries decide nothing alone. By them alone: {verdict.sentence}"
        return _inconclusive(evidence, why.rstrip("."))
    reasons = (count, *verdict.reasons)
    return replace(verdict, sentence=f"{verdict.sentence} {count}.", reasons=reasons)


def _judged(evidence: Evidence) -> Verdict:
    """Ship when a useful gain over the baseline is shown, and over the best simpler fix where that
    one gains as much as is useful, every guardrail passes, and every simpler fix that applies was
    tried or is a declared exception.  Otherwise the simpler fix, if it is shown to help; otherwise
    nothing, or the number of queries that would settle it.
    """
    today = evidence.today
    tuned = evidence.tuned
    if tuned is None:
        why = "no model was fine-tuned"
        return _without_model(evidence, why, " and no simpler fix is shown to help")
    useful = f"{evidence.min_gain:g}"
    fix = evidence.helpful_fix()
    if fix is not None and not evidence.shown(tuned, fix):
        span = in_words(evidence.gain(tuned, fix))
        why = f"fine-tuning is not shown to add {useful} to that ({span})"
        return _without_model(evidence, why)
    failed = names_with(evidence.guardrails, "fail")
    if failed:
        names = ", ".join(failed)
        why = f"the fine-tuned model fails its guardrails ({names})"
        return _without_model(evidence, why)
    gain = evidence.gain(tuned, today)
    change = f"{evidence.primary} by {in_words(gain)}"
    if gain.delta <= 0 or gain.high < evidence.min_gain:
        why = f"fine-tuning changes {change}, less than the useful {useful}"
        return _nothing(evidence, why)
    if not evidence.shown(tuned, today):
        why = _unsettled(evidence, tuned)
        return _inconclusive(evidence, why)
    return _ship_unless_open(evidence, tuned)


def _ship_unless_open(evidence: Evidence, tuned: Candidate) -> Verdict:
    """Ship a model with a shown gain, unless a guardrail or a simpler fix leaves a question open."""
    rise = _rise(evidence, tuned)
    unsettled = that_are_open(evidence.guardrails)
    if unsettled:
        return _inconclusive(evidence, f"{rise}, but {unsettled}")
    whole = whole_fixes(evidence.not_tried)
    if whole:
        why = f"{rise}, but simpler fixes were not tried, and may do as well: {untold(whole)}"
        return _inconclusive(evidence, why)
    rival = evidence.promising_fix()
    if rival is not None and not evidence.shown(tuned, rival):
        return _inconclusive(evidence, f"{rise}, but {_as_well(evidence, tuned, rival)}")
    n_queries = evidence.gain(tuned, evidence.today).n
    why = f"{rise} on {n_queries:,} held-out queries, and {that_passed(evidence.guardrails)}"
    return Verdict(
        verdict="ship",
        recommended=tuned.name,
        sentence=f"Ship the {tuned.name} model: {why}.",
        reasons=_reasons(evidence),
    )


def _without_model(evidence: Evidence, why: str, no_fix: str = "") -> Verdict:
    """The simpler fix where one is shown to help; else nothing, and `no_fix` ends the sentence."""
    fix = evidence.helpful_fix()
    if fix is None:
        return _nothing(evidence, f"{why}{no_fix}")
    rise = _rise(evidence, fix)
    return Verdict(
        verdict="use_simpler_fix",
        recommended=fix.name,
        sentence=f"Use {fix.name} instead of fine-tuning: {rise}, and {why}.",
        reasons=_reasons(evidence),
    )


def _nothing(evidence: Evidence, why: str) -> Verdict:
    return Verdict(
        verdict="do_not_ship",
        recommended=evidence.today.name,
        sentence=f"Do not ship: {why}.",
        reasons=_reasons(evidence),
    )


def _inconclusive(evidence: Evidence, why: str) -> Verdict:
    sentence = f"Inconclusive: {why}."
    fix = evidence.helpful_fix()
    if fix is not None and not evidence.generated:
        gain = in_words(evidence.gain(fix, evidence.today))
        sentence += f" Meanwhile {fix.name} is shown to help by itself ({gain})."
    return Verdict(
        verdict="inconclusive",
        recommended=evidence.today.name,
        sentence=sentence,
        reasons=_reasons(evidence),
    )


def _as_well(evidence: Evidence, tuned: Candidate, rival: Candidate) -> str:
    """A clause that says that a simpler fix may do as well, and how many queries would settle it."""
    span = in_words(evidence.gain(tuned, rival))
    doubt = f"{rival.name} may do as well (fine-tuning adds {span})"
    return f"{doubt}; {_settled_by(evidence, tuned, rival)}"


def _unsettled(evidence: Evidence, tuned: Candidate) -> str:
    """A clause that says how many queries would settle whether fine-tuning helps."""
    span = in_words(evidence.gain(tuned, evidence.today))
    return f"{evidence.primary} changes by {span}; {_settled_by(evidence, tuned, evidence.today)}"


def _settled_by(evidence: Evidence, candidate: Candidate, over: Candidate) -> str:
    needed = evidence.queries_needed(candidate, over)
    enough = "no number of" if needed is None else f"about {needed:,}"
    return f"{enough} judged test queries would settle it"


def _reasons(evidence: Evidence) -> tuple[str, ...]:
    reasons: list[str] = []
    for (baseline, candidate), result in evidence.comparisons.items():
        reasons.append(f"{candidate} against {baseline}: {evidence.primary} {result}")
    reasons += guard_reasons(evidence.guardrails)
    if evidence.simple is not None:
        for name in evidence.fix_failures():
            reasons.append(f"{evidence.simple.name} fails the guardrail {name}")
    return tuple(reasons)


def _rise(evidence: Evidence, candidate: Candidate) -> str:
    measure = evidence.primary
    before = evidence.today.scores.mean(measure)
    after = candidate.scores.mean(measure)
    span = in_words(evidence.gain(candidate, evidence.today))
    return f"{measure} rises from {before:.3f} to {after:.3f} ({span})"


def in_words(result: Comparison) -> str:
    """A change with its interval, such as `+0.031, 95% interval +0.010 to +0.052`."""
    width = f"{100 * (1 - result.alpha):g}% interval"
    text = f"{result.delta:+.3f}, {width} {result.low:+.3f} to {result.high:+.3f}"
    return text.replace("-", "−")
