"""Measures of answers in words, each in [0, 1], larger is better.

- `ExactMatch`: the answer is one of the references, case, punctuation and articles left aside.
- `TokenF1`: harmonic mean of precision and recall of its words against the nearest reference.
- `Grounded`: share of the answer's words, without function words, that stand in the context.
- `Answered`: whether there is an answer at all.

ExactMatch and TokenF1 are those of SQuAD (Rajpurkar et al., EMNLP 2016, §6.1), over words of every
script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nearer.measure.slices import STOP_WORDS
from nearer.text import folded_words

MEASURES = ("ExactMatch", "TokenF1", "Grounded", "Answered")
#: What a model says where its context does not hold the answer.
DECLINED = "NO ANSWER"
_ARTICLES = frozenset({"a", "an", "the"})


def words_of(text: str) -> list[str]:
    """Words as answers are compared: folded, without articles."""
    return [word for word in folded_words(text) if word not in _ARTICLES]


def is_declined(answer: str) -> bool:
    """Whether an answer says that there is none."""
    words = words_of(answer)
    return not words or words == words_of(DECLINED)


def exact_match(answer: str, references: Sequence[str]) -> float:
    words = words_of(answer)
    return float(any(words == words_of(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    words = Counter(words_of(answer))
    return max((_f1(words, Counter(words_of(reference))) for reference in references), default=0.0)


def _f1(answer: Counter[str], reference: Counter[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    common = (answer & reference).total()
    if not common:
        return 0.0
    precision = common / answer.total()
    recall = common / reference.total()
    return 2 * precision * recall / (precision + recall)


def grounded(answer: str, context: Sequence[str]) -> float:
    """Nothing is claimed by an answer without words of its own: it is grounded."""
    claimed = {word for word in words_of(answer) if word not in STOP_WORDS}
    if not claimed:
        return 1.0
    read: set[str] = set()
    for text in context:
        read.update(folded_words(text))
    return len(claimed & read) / len(claimed)


def values_of(answer: str, references: Sequence[str], context: Sequence[str]) -> dict[str, float]:
    """Every measure of one answer; one that declines is neither right nor wrong about its context."""
    if is_declined(answer):
        return {"ExactMatch": 0.0, "TokenF1": 0.0, "Grounded": 1.0, "Answered": 0.0}
    return {
        "ExactMatch": exact_match(answer, references),
        "TokenF1": token_f1(answer, references),
        "Grounded": grounded(answer, context),
        "Answered": 1.0,
    }


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a judge and people say the same of an answer.

    `kappa` is Cohen's (1960): what remains of the agreement without that of chance; None where
    people or the judge gave one grade alone.
    """

    n: int
    agreed: int
    judge_correct: int
    people_correct: int
    kappa: float | None

    @property
    def share(self) -> float:
        return self.agreed / self.n if self.n else 0.0


def agreement(judge: Sequence[bool], people: Sequence[bool]) -> Agreement:
    """The agreement over the same answers in the same order."""
    pairs = list(zip(judge, people, strict=True))
    n = len(pairs)
    agreed = sum(first == second for first, second in pairs)
    by_judge = sum(judge)
    by_people = sum(people)
    kappa = None
    if n and 0 < by_people < n and 0 < by_judge < n:
        same = by_judge * by_people + (n - by_judge) * (n - by_people)
        chance = same / n**2
        kappa = (agreed / n - chance) / (1 - chance)
    return Agreement(n, agreed, by_judge, by_people, kappa)
