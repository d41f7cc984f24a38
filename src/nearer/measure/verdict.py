"""The decision itself: pure, so that the rule can be read, tested and argued with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nearer.measure.metrics import Scores
from nearer.measure.not_tried import NotTried, exceptions, untold, untried, whole_fixes
from nearer.measure.significance import Clusters, Comparison, queries_to_settle
from nearer.types import Run

TUNED = "fine-tuned"

Json = Mapping[str, Any]  # an object that a stage wrote
Comparisons = Mapping[tuple[str, str], Comparison]  # (baseline, candidate) → result on test
Question = dict[str, str]  # `question`, `answer` (yes, no, unknown, not tried) and `evidence`


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
    `name` and a `status` (pass, fail, inconclusive).  `fix_guardrails` are those of the simpler fix;
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
        return [str(row["name"]) for row in self.fix_guardrails if row["status"] == "fail"]

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

    def guards(self, status: str) -> list[str]:
        """Names of the guardrails with this status."""
        return [str(guard["name"]) for guard in self.guardrails if guard["status"] == status]


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
        span = _span(evidence.gain(tuned, fix))
        why = f"fine-tuning is not shown to add {useful} to that ({span})"
        return _without_model(evidence, why)
    failed = evidence.guards("fail")
    if failed:
        names = ", ".join(failed)
        why = f"the fine-tuned model fails its guardrails ({names})"
        return _without_model(evidence, why)
    gain = evidence.gain(tuned, today)
    change = f"{evidence.primary} by {_span(gain)}"
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
    unsettled = evidence.guards("inconclusive")
    if unsettled:
        names = ", ".join(unsettled)
        why = f"{rise}, but {names} may have lost more than the margin allows"
        return _inconclusive(evidence, why)
    whole = whole_fixes(evidence.not_tried)
    if whole:
        why = f"{rise}, but simpler fixes were not tried, and may do as well: {untold(whole)}"
        return _inconclusive(evidence, why)
    rival = evidence.promising_fix()
    if rival is not None and not evidence.shown(tuned, rival):
        return _inconclusive(evidence, f"{rise}, but {_as_well(evidence, tuned, rival)}")
    n_queries = evidence.gain(tuned, evidence.today).n
    why = f"{rise} on {n_queries:,} held-out queries, and every guardrail passes"
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
        gain = _span(evidence.gain(fix, evidence.today))
        sentence += f" Meanwhile {fix.name} is shown to help by itself ({gain})."
    return Verdict(
        verdict="inconclusive",
        recommended=evidence.today.name,
        sentence=sentence,
        reasons=_reasons(evidence),
    )


def _as_well(evidence: Evidence, tuned: Candidate, rival: Candidate) -> str:
    """A clause that says that a simpler fix may do as well, and how many queries would settle it."""
    span = _span(evidence.gain(tuned, rival))
    doubt = f"{rival.name} may do as well (fine-tuning adds {span})"
    return f"{doubt}; {_settled_by(evidence, tuned, rival)}"


def _unsettled(evidence: Evidence, tuned: Candidate) -> str:
    """A clause that says how many queries would settle whether fine-tuning helps."""
    span = _span(evidence.gain(tuned, evidence.today))
    return f"{evidence.primary} changes by {span}; {_settled_by(evidence, tuned, evidence.today)}"


def _settled_by(evidence: Evidence, candidate: Candidate, over: Candidate) -> str:
    needed = evidence.queries_needed(candidate, over)
    enough = "no number of" if needed is None else f"about {needed:,}"
    return f"{enough} judged test queries would settle it"


def _reasons(evidence: Evidence) -> tuple[str, ...]:
    reasons: list[str] = []
    for (baseline, candidate), result in evidence.comparisons.items():
        reasons.append(f"{candidate} against {baseline}: {evidence.primary} {result}")
    failed = evidence.guards("fail")
    for name in failed:
        reasons.append(f"guardrail {name} fails")
    if evidence.simple is not None:
        for name in evidence.fix_failures():
            reasons.append(f"{evidence.simple.name} fails the guardrail {name}")
    unsettled = evidence.guards("inconclusive")
    for name in unsettled:
        reasons.append(f"guardrail {name} is open: it may have lost more than its margin")
    if evidence.guardrails and not failed and not unsettled:
        reasons.append(f"all {len(evidence.guardrails)} guardrails pass")
    return tuple(reasons)


def _rise(evidence: Evidence, candidate: Candidate) -> str:
    measure = evidence.primary
    before = evidence.today.scores.mean(measure)
    after = candidate.scores.mean(measure)
    span = _span(evidence.gain(candidate, evidence.today))
    return f"{measure} rises from {before:.3f} to {after:.3f} ({span})"


def _span(result: Comparison) -> str:
    width = f"{100 * (1 - result.alpha):g}% interval"
    text = f"{result.delta:+.3f}, {width} {result.low:+.3f} to {result.high:+.3f}"
    return text.replace("-", "−")


def checklist(
    evidence: Evidence,
    mined: Json,
    diagnosis: Json,
    not_tried: NotTried = (),
    skipped: NotTried = (),
) -> list[Question]:
    """What a decision must answer: `{"question", "answer": yes|no|unknown|not tried, "evidence"}`.

    Whether a re-index pays is left to `nearer.decision.payback`.  `not_tried` are the simpler fixes
    that nobody tried (`fix`, `why`, `next`): while there are some, the others are not shown to be
    insufficient.  `skipped` are those that the settings declare exceptions (`fix`, `reason`).
    `mined` is `mine/summary.json`, `diagnosis` is `diagnose/summary.json` (empty when nothing was
    diagnosed).
    """
    return [
        _measured(evidence),
        _semantic(diagnosis, evidence.min_gain),
        _insufficient(evidence, not_tried, skipped),
        _has_training_data(mined),
        _improves(evidence),
    ]


def _measured(evidence: Evidence) -> Question:
    scores = evidence.today.scores
    mean = f"{scores.mean(evidence.primary):.3f}"
    return _answer(
        "Is the failure measured?",
        True,
        f"today's {evidence.primary} is {mean} on {len(scores):,} held-out queries",
    )


def _semantic(diagnosis: Json, least: float) -> Question:
    """Do semantic failures hold enough of the measure for fine-tuning to be worth trying?"""
    question = "Is it semantic?"
    causes = diagnosis.get("causes")
    ceiling = diagnosis.get("fine_tuning_ceiling")
    if causes is None or ceiling is None:
        return _answer(
            question,
            None,
            "not diagnosed in this run; the gains by slice show where the model was weak",
        )
    counts = f"{causes.get('semantic', 0):,} of {diagnosis['n_failures']:,} failures are semantic"
    gain = f"{ceiling['gain']:.3f} of {ceiling['measure']}"
    text = f"{counts}; found first, all of them would add {gain}"
    if ceiling["gain"] >= least:
        return _answer(question, True, text)
    at_most = ceiling["if_unknown_were_semantic"] - ceiling["today"]
    if at_most < least:
        return _answer(question, False, text)
    untried = [str(probe["probe"]) for probe in diagnosis.get("not_tried", ())]
    if untried:
        text += f"; not tried: {', '.join(untried)}"
    return _answer(question, None, text)


def _insufficient(evidence: Evidence, not_tried: NotTried, skipped: NotTried) -> Question:
    """Are simpler fixes insufficient?  Never yes where one of them was not tried.

    Parts of a fix that was tried, and declared exceptions, are named beside the answer.
    """
    tuned, simple = evidence.tuned, evidence.simple
    enough: bool | None = None
    text = "nothing to compare"
    if tuned and simple:
        enough = evidence.shown(tuned, simple)
        text = f"{tuned.name} adds {_span(evidence.gain(tuned, simple))} to {simple.name}"
    text = "; ".join([text, *untried(not_tried)])
    if skipped:
        text = f"{text}; left out by decision: {exceptions(skipped)}"
    answer = _answer("Are simpler fixes insufficient?", enough, text)
    if enough and whole_fixes(not_tried):
        answer["answer"] = "not tried"
    return answer


def _has_training_data(mined: Json) -> Question:
    counts = {key: mined.get(key, 0) for key in ("examples", "queries", "documents")}
    examples = f"{counts['examples']:,} examples"
    sources = f"{counts['queries']:,} queries and {counts['documents']:,} documents"
    return _answer(
        "Is training data available?",
        counts["examples"] > 0,
        f"{examples} from {sources}",
    )


def _improves(evidence: Evidence) -> Question:
    question = "Does held-out evaluation improve?"
    if evidence.tuned is None:
        return _answer(question, None, "no model was fine-tuned")
    gain = evidence.gain(evidence.tuned, evidence.today)
    return _answer(question, gain.outcome == "better", f"{_span(gain)}, p = {gain.p:.4f}")


def _answer(question: str, yes: bool | None, evidence: str) -> Question:
    answers = {None: "unknown", True: "yes", False: "no"}
    return {"question": question, "answer": answers[yes], "evidence": evidence}
