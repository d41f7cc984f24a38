"""The section on a language model: what it reads of the results, and what it answers."""

from __future__ import annotations

from typing import Any

from nearer.report.data import ReportData
from nearer.report.values import (
    Json,
    as_list,
    as_number,
    as_object,
    as_objects,
    as_text,
    fixed,
    p_value,
    signed,
    span,
    whole,
)

_MOST_ROWS, _MOST_CHANGED = 40, 12
_MEANINGS = {
    "ContextRecall": "gold documents or spans inside the budget of tokens",
    "ContextPrecision": "share of the context that is relevant",
    "ContextNovelty": "share of the context that repeats nothing before it",
    "ContextOrder": "relevant text before irrelevant text",
    "ExactMatch": "the answer is a reference answer",
    "TokenF1": "words shared with the nearest reference answer",
    "Grounded": "the answer's words stand in the context",
    "Answered": "there is an answer",
    "Judge": "the judge calls it correct",
}


def reading(data: ReportData) -> Json | None:
    """Comparisons of contexts and answers, the judge with its agreement, and what was not tried."""
    rag = as_object(data.decided.rag)
    if not rag:
        return None
    answers = as_object(rag.get("answers"))
    about = as_text(rag.get("about"), 80), as_text(data.decided.compared.baseline, 80)
    rows: list[Json] = []
    others: list[Json] = []
    for each in [*as_objects(rag.get("contexts")), *as_objects(answers.get("comparisons"))]:
        row = _row(each)
        is_about = (row["candidate"], row["baseline"]) == about
        if is_about:
            rows.append(row)
        else:
            others.append(row)
    return {
        "about": as_text(rag.get("about"), 80),
        "finding": as_text(rag.get("finding"), 800),
        "reaches": rag.get("reaches_answers"),
        "rows": rows[:_MOST_ROWS],
        "others": others[:_MOST_ROWS],
        "model": as_text(answers.get("model"), 120),
        "n": as_number(answers.get("n_queries")),
        "available": as_number(answers.get("queries_with_answers")),
        "budget": as_number(answers.get("budget")),
        "judge": judge_sentence(as_object(answers.get("judge"))),
        "not_tried": [_not_tried(row) for row in as_objects(answers.get("not_tried"))],
        "changed": _changed(data),
    }


def _row(row: Json) -> Json:
    measure = as_text(row.get("measure"), 40)
    return {
        "measure": measure,
        "meaning": _MEANINGS.get(measure.partition("@")[0], ""),
        "candidate": as_text(row.get("candidate"), 80),
        "baseline": as_text(row.get("baseline"), 80),
        "delta": signed(row.get("delta")),
        "interval": span(row.get("ci"), signed),
        "p": p_value(row.get("p")),
        "outcome": as_text(row.get("outcome"), 20),
        "counts": " · ".join(whole(row.get(key)) for key in ("wins", "ties", "losses")),
        "n": whole(row.get("n")),
    }


def judge_sentence(judge: Json) -> str:
    """The judge's agreement with people; it is never shown without."""
    if not judge:
        return ""
    interval = as_object(judge.get("agreement"))
    agreed, total = whole(judge.get("agreed")), whole(judge.get("n"))
    sentence = f"The judge ({as_text(judge.get('model'), 120)}) agrees with people on {agreed} of {total} answers"
    sentence += f" ({_share(interval.get('mean'))}, {span(interval.get('ci'), _share)})"
    if as_number(judge.get("kappa")) is not None:
        sentence += f", Cohen's kappa {fixed(judge.get('kappa'), 2)}"
    without = as_number(judge.get("without_grade"))
    if without:
        sentence += f"; {whole(without)} of its replies held no grade and are left out"
    return f"{sentence}."


def _share(value: Any) -> str:
    return fixed(value, 2)


def _not_tried(row: Json) -> str:
    parts = [as_text(row.get(key), 300) for key in ("what", "why", "next")]
    return f"{parts[0]} ({parts[1]}; {parts[2]})"


def _changed(data: ReportData) -> list[Json]:
    """Questions whose answers changed most from the baseline to the candidate."""
    compared = data.decided.compared
    by_query: dict[str, dict[str, Json]] = {}
    for line in as_objects(data.answers):
        by_query.setdefault(as_text(line.get("query_id"), 80), {})[str(line.get("system"))] = line
    rows: list[tuple[float, Any]] = []
    for query_id, systems in by_query.items():
        before, after = systems.get(str(compared.baseline)), systems.get(str(compared.candidate))
        if before is None or after is None:
            continue
        old, new = as_number(before.get("TokenF1")), as_number(after.get("TokenF1"))
        if old is None or new is None or old == new:
            continue
        row = {
            "query_id": query_id,
            "question": as_text(after.get("question"), 300),
            "references": [as_text(each, 160) for each in as_list(after.get("references"))[:3]],
            "before": as_text(before.get("answer"), 300),
            "after": as_text(after.get("answer"), 300),
            "old": old,
            "new": new,
        }
        rows.append((-abs(new - old), row))
    rows.sort(key=lambda each: each[0])
    return [row for _, row in rows[:_MOST_CHANGED]]
