"""Why a body is refused, in plain words: the field and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearer.live.web.payloads import FORMS, PATTERNS

_SHOWN = 5  # faults named in one refusal
_LONGEST = 1000  # characters of a refusal

#: What pydantic calls a fault → what a caller is told; `{…}` stand for the limits of the field.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this request",
    "string_type": "must be text",
    "string_too_short": "is empty",
    "string_too_long": "has more than {max_length} characters",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be an object: {{field: value}}",
    "list_type": "must be a list",
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "too_short": "is empty",
    "too_long": "has more than {max_length} entries",
    "literal_error": "must be one of {expected}",
    "json_invalid": "is not valid JSON: {error}",
}


def in_words(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first faults of a body, out of those that pydantic found."""
    faults = [_fault(error) for error in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        faults.append(f"and {len(errors) - _SHOWN} more")
    return "; ".join(faults)[:_LONGEST]


def _fault(error: Mapping[str, Any]) -> str:
    words, context = _WORDS.get(error["type"]), error.get("ctx") or {}
    what = str(error["msg"])
    if words is not None:
        what = words.format(**context)
    elif "pattern" in context:
        what = PATTERNS.get(context["pattern"], what)
    path = list(error["loc"][1:])  # the first part says body, query or header
    if path and path[0] in FORMS:  # pydantic names the form of body before the field
        path = path[1:]
    if "field" in context:
        path.append(context["field"])
    if error["type"] == "json_invalid" or not path:
        return f"the body {what}"
    return f"{_field(path)} {what}"


def _field(path: Sequence[Any]) -> str:
    """`queries[2].filter.lang`."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else str(part)
    return name
