"""Records as Argilla 2 writes and reads them (`Dataset.records.to_json`, `from_json`).

A record is `{"id", "fields", "metadata", "suggestions", "responses", "vectors"}`; `responses` holds,
by question, a list of `{"value", "user_id"}` whose ids are UUIDs.  The question here is a
`RatingQuestion` named `grade` with the values 0 to 3.  No suggestions are written: they would show
people what is expected of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from nearer.data.sources import bad
from nearer.review.judgments import Judgments, Subject
from nearer.review.pairs import Pair

if TYPE_CHECKING:
    from nearer.review.exchange import Told

QUESTION = "grade"
_USERS = uuid.UUID("a6f1f1b0-53f5-4a8f-8b9e-2b4f5a5f0b77")


def user_id(reviewer: str) -> str:
    """The UUID under which a reviewer stands in a file of Argilla."""
    return str(uuid.uuid5(_USERS, reviewer))


def records(pairs: Sequence[Pair], judgments: Judgments, told: Told) -> list[dict[str, Any]]:
    """One record per pair, with the grades so far; `metadata` says what the pair is."""
    written = []
    for pair in pairs:
        grades = judgments.grades(pair.subject)
        answers = [{"value": grade, "user_id": user_id(name)} for name, grade in grades.items()]
        title, text = told.text(pair.doc_id)
        metadata = {
            "project": told.project,
            "query_id": pair.query_id,
            "doc_id": pair.doc_id,
            # Who stands behind the UUIDs: Argilla keeps metadata as it is.
            "reviewers": ",".join(quote(name, safe="@ ") for name in grades),
        }
        written.append(
            {
                "id": str(uuid.uuid5(_USERS, "\0".join(pair.subject))),
                "fields": {"query": pair.query, "title": title, "document": text},
                "metadata": metadata,
                "suggestions": {},
                "responses": {QUESTION: answers} if answers else {},
                "vectors": {},
            }
        )
    return written


def judgments_of(
    record: Mapping[str, Any], project: str, where: str
) -> Iterator[tuple[Subject, str, Any]]:
    """Pair, reviewer and grade of every response; the grade is None where one was discarded.

    Raises DataError for a record of another project, or without what says which pair it is.
    """
    metadata = record.get("metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    subject = subject_of(metadata, project, where)
    written = str(metadata.get("reviewers", "")).split(",")
    names = {user_id(name): name for name in map(unquote, written) if name}
    responses = record.get("responses") or {}
    answers = responses.get(QUESTION, []) if isinstance(responses, Mapping) else None
    if not isinstance(answers, list):
        raise bad("its responses are not a list by question", where, "export it with to_json")
    for answer in answers:
        if not isinstance(answer, Mapping) or "value" not in answer:
            raise bad("a response has no value", where, "export it with to_json")
        user = str(answer.get("user_id") or "")
        yield subject, names.get(user, user), answer["value"]


def subject_of(values: Mapping[str, Any], project: str, where: str) -> Subject:
    """The pair that a record is about.  Raises DataError."""
    missing = [key for key in ("query_id", "doc_id") if not isinstance(values.get(key), str)]
    if missing:
        what = f"lacks {' and '.join(missing)}, which say what was judged"
        raise bad(what, where, "import files that began as nearer review export")
    if values.get("project") != project:
        raise bad(
            f"is of another project ({values.get('project')!r})",
            where,
            "import it in the project that exported it",
        )
    return str(values["query_id"]), str(values["doc_id"])
