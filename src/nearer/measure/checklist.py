"""The questions that a decision must answer, each with its evidence."""

from __future__ import annotations

from nearer.measure.not_tried import NotTried, exceptions, untried, whole_fixes
from nearer.measure.verdict import Evidence, Json, in_words

#: `question`, `answer` (yes, no, unknown, not tried) and `evidence`.
Question = dict[str, str]


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
        text = f"{tuned.name} adds {in_words(evidence.gain(tuned, simple))} to {simple.name}"
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
    return _answer(question, gain.outcome == "better", f"{in_words(gain)}, p = {gain.p:.4f}")


def _answer(question: str, yes: bool | None, evidence: str) -> Question:
    answers = {None: "unknown", True: "yes", False: "no"}
    return {"question": question, "answer": answers[yes], "evidence": evidence}
