"""The section on the common mistakes: which this project made, which not, and what nobody can say yet."""

from __future__ import annotations

from nearer.report.data import ReportData
from nearer.report.values import Json, as_objects, as_text

_ORDER = {"made": 0, "cannot say": 1}
#: Answer → tone of its badge.
TONES = {"no mistake": "good", "made": "bad", "cannot say": "warn"}


def mistakes(data: ReportData) -> Json | None:
    """A sentence and the rows, those that were made first."""
    rows = []
    for row in as_objects(list(data.mistakes)):
        answer = as_text(row.get("answer"), 20)
        rows.append(
            {
                "mistake": as_text(row.get("mistake"), 80),
                "answer": answer,
                "tone": TONES.get(answer, "none"),
                "evidence": as_text(row.get("evidence"), 400),
                "next": as_text(row.get("next"), 200),
            }
        )
    if not rows:
        return None
    rows.sort(key=lambda row: _ORDER.get(row["answer"], 2))
    return {"lead": _lead([row["answer"] for row in rows]), "rows": rows}


def _lead(answers: list[str]) -> str:
    made, unknown = answers.count("made"), answers.count("cannot say")
    sentence = f"Each of {len(answers)} common mistakes was looked for in this very project. "
    sentence += "None was made" if not made else f"{made} {_was(made)} made"
    if unknown:
        sentence += f", and of {unknown} nobody can say yet"
    return f"{sentence}."


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
