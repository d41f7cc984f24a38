"""Judgments to and from other tools: qrels, CSV, Argilla and Label Studio.

Imported judgments pass the same gate as those of the page: unknown queries and documents, a second
grade by the same reviewer, and the files of another project are refused before anything is saved.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.data.records import Row
from nearer.data.records import read as read_rows
from nearer.data.sources import bad
from nearer.data.trec import read_qrels
from nearer.errors import DataError
from nearer.files import read_json, write_json, write_text
from nearer.review import argilla, label_studio
from nearer.review.consensus import settled_grades
from nearer.review.judgments import (
    CANNOT_TELL,
    GRADE,
    SKIP,
    Entry,
    Judgments,
    is_grade,
    now,
)
from nearer.review.pairs import Pair

if TYPE_CHECKING:
    from nearer.review.asking import Asking
    from nearer.review.session import Review

FORMATS = ("qrels", "csv", "argilla", "label-studio")
#: The namespace of ids of imported judgments: the same file imported twice adds nothing.
_IDS = uuid.UUID("6f4b4b1c-7b1d-4c39-9f57-2f7c7b0d8f11")
_NAME = "project"
_LONGEST_NAME = 200  # characters of a reviewer's name; other tools have e-mail addresses there
#: What a spreadsheet takes for the start of a formula; and the sign that is put before one.
_MARKED = ("=", "+", "-", "@", "\t", "\r", "'")
#: Value of `by` in what a judge writes (`judging.py`).
BY_MODEL = "model"
_COLUMNS = ("query_id", "doc_id", "reviewer", "action", "grade", "time", "seconds", "comment")


@dataclass(frozen=True, slots=True)
class Said:
    """One judgment as a file brings it."""

    query_id: str
    doc_id: str
    reviewer: str
    grade: int | None  # None: the reviewer could not tell, or skipped it (see `action`)
    action: str = GRADE
    comment: str = ""
    where: str = ""  # for messages


@dataclass(frozen=True, slots=True)
class Known:
    """What this project can be asked about, and under which name: another project's file does not fit."""

    project: str
    query: Callable[[str], bool]
    document: Callable[[str], bool]


# -- export ----------------------------------------------------------------------------------------


def export(path: Path, kind: str, judgments: Judgments, pairs: Sequence[Pair], told: Told) -> int:
    """Write a file of judgments, or of pairs to judge elsewhere; returns how many records it has.

    qrels holds what was agreed; csv every judgment; argilla and label-studio all pairs with what
    was said of them so far.
    """
    if kind == "qrels":
        grades = settled_grades(judgments)
        rows = [f"{query}\t{doc}\t{grade}\n" for (query, doc), grade in grades.items()]
        write_text(path, "query-id\tcorpus-id\tscore\n" + "".join(rows))
        return len(rows)
    if kind == "csv":
        return _export_csv(path, judgments)
    writer = argilla.records if kind == "argilla" else label_studio.tasks
    records = writer(pairs, judgments, told)
    write_text(path, json.dumps(records, ensure_ascii=False, indent=2) + "\n")
    return len(records)


@dataclass(frozen=True, slots=True)
class Told:
    """What goes into a file besides the judgments: the texts of documents, and whose they are."""

    project: str
    text: Callable[[str], tuple[str, str]]  # document id → title and text


def project_name(review: Asking[Any]) -> str:
    """What files of this project are told by: made once, kept in `review/project.json`."""
    path = review.folder / f"{_NAME}.json"
    if not path.is_file():
        write_json(path, {_NAME: uuid.uuid4().hex[:12]})
    return str(read_json(path)[_NAME])


def texts_of(review: Review) -> Callable[[str], tuple[str, str]]:
    """Title and text of a document, empty for one that the corpus lacks."""

    def text(doc_id: str) -> tuple[str, str]:
        document = review.project.corpus.get(doc_id)
        return ("", "") if document is None else (document.title, document.text)

    return text


def _export_csv(path: Path, judgments: Judgments) -> int:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    entries = [entry for said in judgments.by_subject.values() for entry in said.values()]
    for entry in [*entries, *judgments.final.values()]:
        writer.writerow([_cell(name, getattr(entry, name)) for name in _COLUMNS])
    write_text(path, out.getvalue())
    return len(entries) + len(judgments.final)


def _cell(column: str, value: Any) -> Any:
    """A cell; what people typed is never one that a spreadsheet takes for a formula."""
    typed = column in ("comment", "reviewer") and isinstance(value, str)
    if typed and value.startswith(_MARKED):
        return f"'{value}"
    return "" if value is None else value


def _typed(cell: Any) -> str:
    """What people typed, as `_cell` wrote it."""
    text = "" if cell is None else str(cell)
    return text[1:] if text.startswith("'") and text[1:].startswith(_MARKED) else text


# -- import ----------------------------------------------------------------------------------------


def read(path: Path, kind: str, known: Known, reviewer: str) -> list[Entry]:
    """The entries that a file adds, all of them checked.  Raises DataError, with what and where.

    `reviewer` is whose they are where the file names nobody.
    """
    if not path.is_file():
        raise bad("there is no such file", path, "name the file to import")
    said = list(_READERS[kind](path, known, reviewer))
    if not said:
        raise bad("the file holds no judgments", path, f"see the format {kind} in docs/review.md")
    for judgment in said:
        _check(judgment, known)
    return [_entry(judgment, path.name) for judgment in said]


def _check(said: Said, known: Known) -> None:
    unknown = ""
    if not known.query(said.query_id):
        unknown = f"query {said.query_id!r} is not one of this project"
    elif not known.document(said.doc_id):
        unknown = f"document {said.doc_id!r} is not in the corpus"
    elif not said.reviewer.strip():
        unknown = "nobody is named as the reviewer"
    elif len(said.reviewer) > _LONGEST_NAME or not said.reviewer.isprintable():
        unknown = f"{said.reviewer[:40]!r} cannot be the name of a reviewer"
    if unknown:
        raise bad(unknown, said.where, "nothing was imported; correct the file and import it again")
    if said.action == GRADE and not is_grade(said.grade):
        raise bad(
            f"{said.grade!r} is no grade from 0 to 3", said.where, "nothing was imported; mend that"
        )


def not_yet_said(entries: Sequence[Entry], judgments: Judgments) -> list[Entry]:
    """The entries of a file that say something new.

    What its reviewer said already, on the page or by an earlier import, is left out, and so are
    repeated lines and skipped pairs that were judged: a file that was exported here and judged
    further elsewhere comes back whole.  One that was undone here gets an id of its own.
    """
    fresh: dict[str, Entry] = {}
    for entry in entries:
        standing = judgments.by_subject.get(entry.subject, {}).get(entry.reviewer)
        if standing is not None:
            same = (standing.action, standing.grade) == (entry.action, entry.grade)
            if same or entry.action == SKIP:
                continue
        if entry.id in fresh:
            continue
        if entry.id in judgments.taken_back:
            fresh[entry.id] = replace(entry, id=uuid.uuid4().hex)
        else:
            fresh[entry.id] = entry
    return list(fresh.values())


def _entry(said: Said, source: str) -> Entry:
    content = json.dumps([said.reviewer, said.query_id, said.doc_id, said.action, said.grade])
    return Entry(
        id=uuid.uuid5(_IDS, content).hex,
        time=now(),
        reviewer=said.reviewer,
        action=said.action,
        query_id=said.query_id,
        doc_id=said.doc_id,
        grade=said.grade if said.action == GRADE else None,
        comment=said.comment,
        source=f"import of {source}",
    )


def _from_qrels(path: Path, known: Known, reviewer: str) -> Iterable[Said]:
    for query_id, graded in read_qrels(path, require=_refuse_model).items():
        for doc_id, grade in graded.items():
            yield Said(query_id, doc_id, reviewer, grade, where=str(path))


def _refuse_model(row: Row) -> None:
    """Raises DataError for a line that a model wrote (`review/judge.jsonl`)."""
    if row.values.get("by") == BY_MODEL:
        raise row.bad(
            "the grade of a model is no judgment", "import what people judged (docs/pooling.md)"
        )


def _from_csv(path: Path, known: Known, reviewer: str) -> Iterable[Said]:
    for row in read_rows(path):
        values = row.values
        _refuse_model(row)
        action = str(values.get("action") or GRADE)
        if action not in (GRADE, CANNOT_TELL, SKIP):
            if action == "adjudicate":
                continue  # a conclusion of the other side, not a judgment
            raise row.bad(f"unknown action {action!r}", "use grade, cannot_tell or skip")
        missing = [name for name in ("query_id", "doc_id") if not values.get(name)]
        if missing:
            raise row.bad(f"lacks {', '.join(missing)}", f"columns are {', '.join(_COLUMNS)}")
        name = _typed(values.get("reviewer")) or reviewer
        grade = _as_grade(values.get("grade")) if action == GRADE else None
        comment = _typed(values.get("comment"))
        ids = (str(values["query_id"]), str(values["doc_id"]))
        yield Said(*ids, name, grade, action, comment, where=row.where)


def _as_grade(value: Any) -> Any:
    """A whole number as such, anything else as it is, for the message."""
    if isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return int(number) if number.is_integer() else value


def _from_argilla(path: Path, known: Known, reviewer: str) -> Iterable[Said]:
    for position, record in enumerate(_records(path), start=1):
        where = f"{path}: record {position}"
        for ids, name, grade in argilla.judgments_of(record, known.project, where):
            action = SKIP if grade is None else GRADE
            yield Said(*ids, name or reviewer, _as_grade(grade), action, where=where)


def _from_label_studio(path: Path, known: Known, reviewer: str) -> Iterable[Said]:
    for position, record in enumerate(_records(path), start=1):
        where = f"{path}: task {position}"
        for ids, name, choice in label_studio.judgments_of(record, known.project, where):
            action = {None: SKIP, label_studio.CANNOT_TELL: CANNOT_TELL}.get(choice, GRADE)
            grade = _as_grade(choice) if action == GRADE else None
            yield Said(*ids, name or reviewer, grade, action, where=where)


def _records(path: Path) -> list[Mapping[str, Any]]:
    try:
        values = read_json(path)
    except DataError as error:
        raise bad(error.what, error.where, "export it again as JSON") from None
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise bad("must be a JSON list of objects", path, "export it again as JSON")
    return values


_READERS: Mapping[str, Callable[[Path, Known, str], Iterable[Said]]] = {
    "qrels": _from_qrels,
    "csv": _from_csv,
    "argilla": _from_argilla,
    "label-studio": _from_label_studio,
}
