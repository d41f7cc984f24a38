"""What several reviewers say together about one pair, and the judgments that flow back.

Two who differ about relevance, or by two grades or more, are not averaged: their pair goes to
adjudication, and until then it is as if nobody had judged it.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nearer import files
from nearer.data.reviewed import HEADER, read_reviewed, reviewed_file
from nearer.review.judgments import ADJUDICATE, Entry, JudgmentLog, Judgments, Subject, now

AGREED = "agreed"
SPLIT = "split"  # waits for adjudication
ADJUDICATED = "adjudicated"
NONE = "none"  # nobody gave a grade
_FAR = 2  # grades apart from which two reviewers disagree
#: Who is named for judgments that somebody wrote into qrels.tsv by hand.
BY_HAND = "by-hand"


@dataclass(frozen=True, slots=True)
class Consensus:
    """`grade` is None where reviewers disagree or nobody gave one."""

    status: str
    grade: int | None
    n: int  # grades


def consensus(judgments: Judgments, subject: Subject) -> Consensus:
    """One grade for a pair, where there is one."""
    grades = sorted(judgments.grades(subject).values())
    final = judgments.final.get(subject)
    if final is not None:
        return Consensus(ADJUDICATED, final.grade, len(grades))
    if not grades:
        return Consensus(NONE, None, 0)
    relevant = sum(grade > 0 for grade in grades)
    apart = grades[-1] - grades[0] >= _FAR or 0 < relevant < len(grades)
    if apart and (len(grades) < 3 or 2 * relevant == len(grades)):
        return Consensus(SPLIT, None, len(grades))
    return Consensus(AGREED, statistics.median_low(grades), len(grades))


def subjects(judgments: Judgments) -> list[Subject]:
    """Every pair that somebody judged, in order."""
    return sorted({*judgments.by_subject, *judgments.final})


def settled_grades(judgments: Judgments) -> dict[Subject, int]:
    """The grade of every pair that has one."""
    grades = {}
    for subject in subjects(judgments):
        grade = consensus(judgments, subject).grade
        if grade is not None:
            grades[subject] = grade
    return grades


def disagreements(judgments: Judgments) -> list[Subject]:
    """Pairs that wait for adjudication, in order."""
    return [s for s in subjects(judgments) if consensus(judgments, s).status == SPLIT]


# -- review/qrels.tsv ------------------------------------------------------------------------------


def write_qrels(root: Path, judgments: Judgments) -> bool:
    """Write `review/qrels.tsv`, whole or not at all; False where it says the same already.

    The hash of what is written stands in `review/written.json` before the file does, so that a
    change by hand can be told from a kill.
    """
    path = reviewed_file(root)
    grades = settled_grades(judgments)
    if not grades and not path.exists():
        return False
    lines = [f"{query_id}\t{doc_id}\t{grade}\n" for (query_id, doc_id), grade in grades.items()]
    text = f"{HEADER}\n{''.join(lines)}"
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return False
    known = _written(root)
    digest = hashlib.sha256(text.encode()).hexdigest()
    files.write_json(_record(root), {"hashes": [*known[-1:], digest]})
    files.write_text(path, text)
    return True


def adopt_by_hand(root: Path, log: JudgmentLog) -> int:
    """Take judgments into the log that somebody wrote into `review/qrels.tsv`; returns how many.

    A line there settles its pair, as an adjudication does.
    """
    path = reviewed_file(root)
    if not path.is_file() or files.content_hash(path) in _written(root):
        return 0
    grades = settled_grades(log.judgments)
    entries = []
    for query_id, graded in read_reviewed(root).items():
        for doc_id, grade in graded.items():
            cut = min(max(grade, 0), 3)
            if grades.get((query_id, doc_id)) != cut:
                entries.append(_by_hand(query_id, doc_id, cut))
    _replace_finals(log, entries)
    return len(entries)


def _replace_finals(log: JudgmentLog, entries: Iterable[Entry]) -> None:
    """Append adjudications, each after taking back the one that stands."""
    lines: list[Entry] = []
    for entry in entries:
        standing = log.judgments.final.get(entry.subject)
        if standing is not None:
            log.append([undo_of(standing)])
        lines.append(entry)
    log.append(lines)


def undo_of(entry: Entry) -> Entry:
    """The entry that takes another back."""
    return Entry(
        id=uuid.uuid4().hex,
        time=now(),
        reviewer=entry.reviewer,
        action="undo",
        query_id=entry.query_id,
        doc_id=entry.doc_id,
        documents=entry.documents,
        undone=entry.id,
    )


def _by_hand(query_id: str, doc_id: str, grade: int) -> Entry:
    return Entry(
        id=uuid.uuid4().hex,
        time=now(),
        reviewer=BY_HAND,
        action=ADJUDICATE,
        query_id=query_id,
        doc_id=doc_id,
        grade=grade,
        source="review/qrels.tsv",
    )


def _record(root: Path) -> Path:
    return root / "review" / "written.json"


def _written(root: Path) -> list[str]:
    """Hashes of the last versions of the file that nearer wrote."""
    path = _record(root)
    if not path.is_file():
        return []
    try:
        return [str(digest) for digest in json.loads(path.read_text())["hashes"]]
    except (ValueError, KeyError, TypeError):
        return []  # then the file is read like one written by hand, and nothing is lost
