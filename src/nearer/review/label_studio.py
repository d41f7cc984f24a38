"""Tasks as Label Studio imports and exports them in its JSON format.

A task is `{"data", "annotations"}`; an annotation `{"result", "was_cancelled", "ground_truth",
"completed_by", …}`, and its results name the control tag (`from_name`), the object tag (`to_name`),
the `type` and the `value`.  The labelling interface is `INTERFACE`.  A cancelled annotation is one
that was skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearer.data.sources import bad
from nearer.review.argilla import subject_of
from nearer.review.judgments import GRADE, SKIP, Entry, Judgments, Subject
from nearer.review.pairs import Pair

if TYPE_CHECKING:
    from nearer.review.exchange import Told

CANNOT_TELL = "cannot tell"
_CONTROL, _OBJECT = "grade", "document"
#: What the labelling interface of the project must be.
INTERFACE = """<View>
  <Header value="$query"/>
  <Text name="document" value="$text"/>
  <Choices name="grade" toName="document" choice="single" showInline="true">
    <Choice value="0"/><Choice value="1"/><Choice value="2"/><Choice value="3"/>
    <Choice value="cannot tell"/>
  </Choices>
</View>"""


def tasks(pairs: Sequence[Pair], judgments: Judgments, told: Told) -> list[dict[str, Any]]:
    """One task per pair, with the judgments so far as annotations; skipped pairs have none."""
    written = []
    for pair in pairs:
        title, text = told.text(pair.doc_id)
        said = judgments.by_subject.get(pair.subject, {}).values()
        given = [entry for entry in said if entry.action != SKIP]
        data = {
            "query": pair.query,
            "text": f"{title}\n\n{text}".strip(),
            "project": told.project,
            "query_id": pair.query_id,
            "doc_id": pair.doc_id,
            # Label Studio numbers its users: who is behind a result that came from here stands here.
            "reviewers": {_result_id(entry): entry.reviewer for entry in given},
        }
        annotations = [_annotation(entry) for entry in given]
        written.append({"data": data, "annotations": annotations, "predictions": []})
    return written


def _result_id(entry: Entry) -> str:
    return entry.id[:16]


def _annotation(entry: Entry) -> dict[str, Any]:
    choice = str(entry.grade) if entry.action == GRADE else CANNOT_TELL
    result = {
        "id": _result_id(entry),
        "from_name": _CONTROL,
        "to_name": _OBJECT,
        "type": "choices",
        "value": {"choices": [choice]},
    }
    return {
        "result": [result],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": entry.time,
        "lead_time": entry.seconds,
    }


def judgments_of(
    task: Mapping[str, Any], project: str, where: str
) -> Iterator[tuple[Subject, str, str | None]]:
    """Pair, reviewer and choice of every annotation; the choice is None where it was cancelled.

    Raises DataError for a task of another project, and for results of another interface.
    """
    data = task.get("data")
    subject = subject_of(data if isinstance(data, Mapping) else {}, project, where)
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list):
        raise bad("its annotations are not a list", where, "export it as JSON, not as JSON-MIN")
    known = data.get("reviewers") if isinstance(data, Mapping) else None
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            raise bad("an annotation is not an object", where, "export it again as JSON")
        name = _reviewer(annotation, known if isinstance(known, Mapping) else {})
        if annotation.get("was_cancelled"):
            yield subject, name, None
            continue
        yield subject, name, _choice(annotation.get("result"), where)


def _choice(results: Any, where: str) -> str:
    for result in results if isinstance(results, list) else ():
        if isinstance(result, Mapping) and result.get("from_name") == _CONTROL:
            value = result.get("value")
            choices = value.get("choices") if isinstance(value, Mapping) else None
            if isinstance(choices, list) and len(choices) == 1:
                return str(choices[0])
    raise bad(
        f"an annotation has no single choice of {_CONTROL!r}",
        where,
        "use the labelling interface of docs/review.md",
    )


def _reviewer(annotation: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A name: that of the export for its own results, else the e-mail or number of the user."""
    results = annotation.get("result")
    for result in results if isinstance(results, list) else ():
        if isinstance(result, Mapping) and result.get("id") in known:
            return str(known[result["id"]])
    completed_by = annotation.get("completed_by")
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("email") or completed_by.get("id")
        return "" if completed_by is None else str(completed_by)
    return "" if completed_by is None else f"label-studio-{completed_by}"
