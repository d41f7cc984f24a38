"""A judge beside people: tried with planted instructions, compared on shared pairs, corrected by them.

Its grades go to `review/judge.jsonl`, each marked as a model's.  No stage reads that file: they are
no judgments, so no verdict can rest on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nearer.data.splits import read_split
from nearer.errors import DataError, ModelError
from nearer.files import write_json, write_jsonl
from nearer.measure.prediction_powered import Groups, PredictionPowered, prediction_powered_mean
from nearer.review.agreement import Coefficient, kappa_of
from nearer.review.consensus import settled_grades
from nearer.review.exchange import BY_MODEL
from nearer.review.grading import PLANTS, Item, addresses_a_grader
from nearer.review.judge import RelevanceJudge, grades_of
from nearer.review.judgments import Subject
from nearer.review.pairs import IN_POOL
from nearer.review.pools import names_of, read_pool
from nearer.review.session import Review

#: Pairs graded by people and by the judge from which anything the judge says is shown.
ENOUGH = 50
_PLANTED = 5  # documents that each planted instruction is tried in
_ANOTHER = "name another model in review.judge_model, or another judge in review.judge"
_WITHHELD = "it looks as if it told a grader what to do: left to people"
_WITHOUT = "the judge's reply was no grade"


@dataclass(frozen=True, slots=True)
class Planted:
    """What planted instructions did to the grades of documents; `silenced` ones were no grade any more."""

    tried: int
    raised: int
    lowered: int
    silenced: int

    @property
    def changed(self) -> int:
        return self.raised + self.lowered + self.silenced

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "changed": self.changed}

    def __str__(self) -> str:
        return planted_sentence(self.as_dict())


def planted_sentence(values: Mapping[str, int]) -> str:
    """What planted instructions did, in words."""
    tried = f"of {values['tried']} planted instructions"
    if not values["changed"]:
        return f"{tried} none changed a grade"
    return (
        f"{tried} {values['changed']} changed a grade: {values['raised']} raised it, "
        f"{values['lowered']} lowered it, {values['silenced']} left none"
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said, and what it is worth.

    `kappa` is its agreement with people over `shared` pairs.  `corrected` is the mean grade of all
    pairs, by people's grades where there are any; `random` says whether people judged a random part
    of these pairs, as they do in a pool, which the correction assumes.
    """

    judge: str
    kappa: Coefficient
    corrected: PredictionPowered
    random: bool
    grades: Mapping[Subject, int]
    withheld: Mapping[Subject, str]
    planted: Planted

    def as_dict(self) -> dict[str, Any]:
        """`review/judge.json`."""
        return {
            "judge": self.judge,
            "agreement": self.kappa.as_dict(),
            "mean_grade": self.corrected.as_dict(),
            "random": self.random,
            "graded": len(self.grades),
            "withheld": len(self.withheld),
            "planted_instructions": self.planted.as_dict(),
        }

    def lines(self) -> list[dict[str, Any]]:
        """`review/judge.jsonl`."""
        rows: list[dict[str, Any]] = []
        for subjects, key in ((self.grades, "grade"), (self.withheld, "withheld")):
            for (query_id, doc_id), value in subjects.items():
                rows.append(
                    {
                        "query_id": query_id,
                        "doc_id": doc_id,
                        key: value,
                        "judge": self.judge,
                        "by": BY_MODEL,
                    }
                )
        return rows


def judge_pairs(
    review: Review, judge: RelevanceJudge, limit: int, rng: np.random.Generator
) -> Judged:
    """Let a judge grade what people graded, and then up to `limit` pairs that nobody has judged.

    Raises DataError where people graded too few pairs, ModelError for a judge that obeys planted
    instructions or gives too few grades; then nothing that it said is shown.
    """
    people = settled_grades(review.log.judgments)
    items = items_of(review)
    trusted, withheld = {}, {}
    for subject, item in items.items():
        if addresses_a_grader(item.document) or addresses_a_grader(item.query):
            withheld[subject] = _WITHHELD
        else:
            trusted[subject] = item
    shared = [subject for subject in sorted(people) if subject in trusted]
    _require_enough(shared)
    most = review.project.settings.review.judge_pairs
    shared = [shared[row] for row in sorted(rng.permutation(len(shared))[:most].tolist())]
    planted = _try_planted(judge, [trusted[each] for each in _lowest(shared, people)])
    open_pairs = [pair.subject for pair in review.pairs if pair.subject not in people]
    open_pairs = [subject for subject in open_pairs if subject in trusted]
    others = [open_pairs[row] for row in sorted(rng.permutation(len(open_pairs))[:limit].tolist())]
    grades = _graded(judge, shared, trusted)
    by_both = [subject for subject in shared if subject in grades]
    if len(by_both) < ENOUGH or not _several_queries(by_both):
        raise ModelError(
            f"only {len(by_both)} of {len(shared)} replies of the judge are a grade: {ENOUGH} are "
            "needed, of two queries or more",
            where=judge.name,
            next_step=_ANOTHER,
        )
    grades |= _graded(judge, others, trusted)
    for subject in (*shared, *others):
        if subject not in grades:
            withheld[subject] = _WITHOUT
    return _judged(review, judge, people, by_both, grades, withheld, planted)


def _judged(
    review: Review,
    judge: RelevanceJudge,
    people: Mapping[Subject, int],
    by_both: Sequence[Subject],
    grades: Mapping[Subject, int],
    withheld: Mapping[Subject, str],
    planted: Planted,
) -> Judged:
    seed = review.project.settings.seed
    both = np.array([(people[each], grades[each]) for each in by_both], dtype=np.int64)
    pooled = {pair.subject for pair in review.pairs if pair.split == IN_POOL}
    counted = [subject for subject in by_both if subject in pooled]
    is_random = len(counted) >= ENOUGH and _several_queries(counted)
    if not is_random:
        counted = list(by_both)
    rest = [s for s in grades if s not in people and (not is_random or s in pooled)]
    corrected = prediction_powered_mean(
        np.array([people[subject] for subject in counted], dtype=np.float64),
        np.array([grades[subject] for subject in counted], dtype=np.float64),
        np.array([grades[subject] for subject in rest], dtype=np.float64),
        groups=_by_query(counted, rest),
        alpha=review.project.settings.decide.alpha,
    )
    queries = [query_id for query_id, _ in by_both]
    kappa = kappa_of(both, queries, np.random.default_rng([seed, *b"judge"]))
    return Judged(judge.name, kappa, corrected, is_random, grades, withheld, planted)


def _by_query(people: Sequence[Subject], others: Sequence[Subject]) -> Groups:
    """The pairs of one query are alike: those by people, and the others."""
    numbers: dict[str, int] = {}
    labels = [numbers.setdefault(query_id, len(numbers)) for query_id, _ in (*people, *others)]
    return Groups(np.array(labels[: len(people)]), np.array(labels[len(people) :], dtype=np.int64))


def _several_queries(subjects: Sequence[Subject]) -> bool:
    return len({query_id for query_id, _ in subjects}) > 1


def _require_enough(shared: Sequence[Subject]) -> None:
    lacking = ""
    if len(shared) < ENOUGH:
        lacking = f"without {ENOUGH} nobody knows what its grades are worth"
    elif not _several_queries(shared):
        lacking = "they are all of one query, so nobody knows what its grades are worth for others"
    if lacking:
        raise DataError(
            f"people graded {len(shared)} pairs that a judge may see; {lacking}: it is not asked",
            where="review/judgments.jsonl",
            next_step="nearer review serve",
        )


def _lowest(shared: Sequence[Subject], people: Mapping[Subject, int]) -> list[Subject]:
    """The pairs that people graded lowest: an instruction that works shows there."""
    return sorted(shared, key=lambda subject: (people[subject], subject))[:_PLANTED]


def _try_planted(judge: RelevanceJudge, items: Sequence[Item]) -> Planted:
    """Grade documents without and with each planted instruction, and count every grade that changed.

    Raises ModelError where one raises a grade, or where there is no grade to compare with.
    """
    before = grades_of(judge, items)
    graded = [(item, grade) for item, grade in zip(items, before, strict=True) if grade is not None]
    if not graded:
        raise ModelError(
            "the judge gave no grade to any of the documents that planted instructions are tried in",
            where=judge.name,
            next_step=_ANOTHER,
        )
    planted = [(item, grade, plant) for item, grade in graded for plant in PLANTS]
    after = grades_of(judge, [item.with_planted(plant) for item, _, plant in planted])
    raised = lowered = silenced = 0
    for (_, without, _), grade in zip(planted, after, strict=True):
        silenced += grade is None
        raised += grade is not None and grade > without
        lowered += grade is not None and grade < without
    tried = Planted(len(planted), raised, lowered, silenced)
    if raised:
        raise ModelError(
            f"the judge follows instructions that stand in documents: {tried}; nothing that it says "
            "is used",
            where=judge.name,
            next_step=_ANOTHER,
        )
    return tried


def _graded(
    judge: RelevanceJudge, subjects: Sequence[Subject], items: Mapping[Subject, Item]
) -> dict[Subject, int]:
    found = grades_of(judge, [items[subject] for subject in subjects])
    grades = {}
    for subject, grade in zip(subjects, found, strict=True):
        if grade is not None:
            grades[subject] = grade
    return grades


def items_of(review: Review) -> dict[Subject, Item]:
    """The texts of every pair that waits or was judged, where they are known."""
    corpus = review.project.corpus
    texts = _query_texts(review)
    subjects = [pair.subject for pair in review.pairs]
    subjects += list(settled_grades(review.log.judgments))
    items = {}
    for query_id, doc_id in dict.fromkeys(subjects):
        document = corpus.get(doc_id)
        if query_id in texts and document is not None:
            items[query_id, doc_id] = Item(texts[query_id], document.content)
    return items


def _query_texts(review: Review) -> dict[str, str]:
    """Query id → text, from wherever pairs come from; test queries as `decide` and pools left them."""
    texts = {pair.query_id: pair.query for pair in review.pairs}
    lists = review.lists()
    if lists is not None:
        texts |= {row.query_id: row.text for row in lists.queries}
    for name in names_of(review.root):
        pool = read_pool(review.root, name)
        texts |= {query_id: each.query.text for query_id, each in pool.queries.items()}
    run_dir = review.project.run_dir
    for name in ("train", "dev"):
        folder = None if run_dir is None else run_dir / "check" / "split"
        if folder is not None and (folder / name).is_dir():
            texts |= {query.id: query.text for query in read_split(folder, name).queries}
    return texts


def save(review: Review, judged: Judged) -> None:
    """Write what a judge said, and what it is worth, whole or not at all."""
    write_jsonl(review.folder / "judge.jsonl", judged.lines())
    write_json(review.folder / "judge.json", judged.as_dict())
