"""The section on domain terms: words that mean something else here, acronyms, and broken names."""

from __future__ import annotations

from nearer.report import content, values
from nearer.report.values import Json, as_list, as_number, as_object, as_objects, as_text

_MOST = 20


def terms(diagnosis: Json) -> Json | None:
    """A sentence and the terms, those of most failing queries first."""
    found = as_object(diagnosis.get("terms"))
    kinds = content.counts_in_words(found.get("kinds"))
    rows = [_row(row) for row in as_objects(found.get("rows"))[:_MOST]]
    if not rows and not found.get("documents"):
        return None
    read, compared = values.whole(found.get("documents")), values.whole(found.get("compared"))
    lead = f"{read} documents were read"
    if as_number(found.get("compared")):
        lead += f", and the meaning of {compared} words was compared with the model's"
    lead += f". Found: {', '.join(kinds)}." if kinds else ". No domain term was found."
    if found.get("not_tried"):
        lead += f" Meanings were not compared: {as_text(found['not_tried'], 200)}."
    return {"lead": lead, "rows": rows}


def _row(row: Json) -> Json:
    reached = as_object(row.get("reached_by"))
    repairs = [f"{values.words(name)} {values.whole(count)}" for name, count in reached.items()]
    return {
        "term": as_text(row.get("term"), 80),
        "kind": as_text(row.get("kind"), 40),
        "evidence": _evidence(row),
        "frequency": as_number(row.get("frequency")),
        "queries": as_number(row.get("queries")),
        "failing": as_number(row.get("failing_queries")),
        "reached": ", ".join(repairs[:4]),
    }


def _evidence(row: Json) -> str:
    """What is special about a term, in words."""
    here, there = as_list(row.get("near_here")), as_list(row.get("near_to_the_model"))
    if here or there:
        names = [", ".join(as_text(word, 40) for word in near[:5]) for near in (here, there)]
        return f"here near {names[0]}; to the model near {names[1]}"
    if "expansions" in row:
        forms = [as_text(form, 80) for form in as_list(row.get("expansions"))[:2]]
        return f"spelled out as {', '.join(forms)}" if forms else "spelled out nowhere"
    return f"{values.whole(row.get('tokens'))} pieces of the tokenizer"
