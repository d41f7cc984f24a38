"""What the service takes and gives: its OpenAPI description comes from here."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from nearer.types import field_name, is_blank

_MAX_NUMBER = 2**53  # integers that JSON readers agree on


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_clean)]
REQUEST_ID = r"^[A-Za-z0-9._:-]{1,128}$"
GENERATION = r"^[0-9a-f]{8}-[1-9][0-9]{0,6}$"
#: Pattern → what a text that does not match it is told.
PATTERNS = {
    REQUEST_ID: "must be 1 to 128 letters, digits and the signs . _ : -",
    GENERATION: "is not the id of a generation, such as 1a2b3c4d-1",
}
RequestId = Annotated[str, StringConstraints(pattern=REQUEST_ID)]
_MAX_TEXT, _MAX_NAME, _MAX_VALUES, _MAX_FIELDS = 512, 128, 64, 32  # of filters


def _scalar(value: Any) -> Any:
    """A value that metadata can hold.  Raises PydanticCustomError in words for callers."""
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise _wrong(f"has more than {_MAX_TEXT} characters")
        return _clean(value)
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float):
        found = "null" if value is None else _JSON_NAMES.get(type(value), "something else")
        raise _wrong(f"must be text, a number, true or false, or a list of these, not {found}")
    if not math.isfinite(value) or abs(value) > _MAX_NUMBER:
        raise _wrong("is not a number between -2^53 and 2^53")
    return value


def _wanted(value: Any) -> Any:
    """One value or a list of them."""
    if not isinstance(value, list):
        return _scalar(value)
    if len(value) > _MAX_VALUES:
        raise _wrong(f"has more than {_MAX_VALUES} values")
    return [_scalar(one) for one in value]


def _filter(value: Any) -> Any:
    """A filter whose fields have the names that the corpus has, in Unicode NFC."""
    if not isinstance(value, dict):
        raise _wrong("must be an object: {field: value}")
    if len(value) > _MAX_FIELDS:
        raise _wrong(f"has more than {_MAX_FIELDS} fields")
    named = {}
    for name, wanted in value.items():
        if not isinstance(name, str) or not name or len(name) > _MAX_NAME:
            raise _wrong(f"has a field whose name is empty or longer than {_MAX_NAME} characters")
        own = field_name(_clean(name))
        if own in named:
            raise _wrong(f"names the field {own!r} twice")
        try:
            named[own] = _wanted(wanted)
        except PydanticCustomError as error:
            raise _wrong(error.message(), field=own) from None
    return named


def _wrong(what: str, **more: str) -> PydanticCustomError:
    """A fault in words for callers; `field` names the field of a filter that has it."""
    return PydanticCustomError("wrong_value", "{what}", {"what": what, **more})


_JSON_NAMES: dict[type, str] = {dict: "an object", list: "a list"}
_SCALAR_SCHEMA: list[dict[str, Any]] = [
    {"type": "string", "maxLength": _MAX_TEXT},
    {"type": "boolean"},
    {"type": "number", "minimum": -_MAX_NUMBER, "maximum": _MAX_NUMBER},
]
_FILTER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "maxProperties": _MAX_FIELDS,
    "propertyNames": {"minLength": 1, "maxLength": _MAX_NAME},
    "additionalProperties": {
        "anyOf": [
            *_SCALAR_SCHEMA,
            {"type": "array", "maxItems": _MAX_VALUES, "items": {"anyOf": _SCALAR_SCHEMA}},
        ]
    },
}
Filter = Annotated[dict[str, Any], PlainValidator(_filter), WithJsonSchema(_FILTER_SCHEMA)]


def _asked(value: str) -> str:
    """The text of a query.  Raises PydanticCustomError where nothing in it can be seen."""
    if is_blank(value):
        raise _wrong("is empty: blanks and invisible characters find nothing")
    return value


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Search(_Payload):
    """One query."""

    query: Annotated[
        Text, AfterValidator(_asked), Field(min_length=1, description="what is looked for")
    ]
    filter: Filter | None = Field(None, description="field → value, or list of values")
    k: Annotated[int, Field(ge=1)] = Field(10, description="results")
    request_id: RequestId | None = Field(
        None, description="yours, to send feedback with (made up otherwise)"
    )
    user: Annotated[Text, Field(max_length=128)] | None = Field(
        None, description="a stable id: who gets a canary hangs on its hash"
    )
    text: bool = Field(False, description="also the text and metadata of each result")


class Batch(_Payload):
    """Several queries, answered by one generation."""

    queries: Annotated[list[Search], Field(min_length=1)]


def _form(body: Any) -> str:
    """Which form of body is meant, so that a refusal speaks of its fields alone."""
    return "batch" if isinstance(body, dict) and "queries" in body else "search"


FORMS = ("search", "batch")
Asked = Annotated[
    Annotated[Search, Tag("search")] | Annotated[Batch, Tag("batch")], Discriminator(_form)
]


class Result(BaseModel):
    id: str
    score: float
    rank: int
    text: str | None = None
    metadata: dict[str, Any] | None = None


class Answer(BaseModel):
    request_id: str
    generation: str
    pipeline: str = Field(description="identity of the model and the pipeline that answered")
    latency_ms: float
    results: list[Result]


class Answers(BaseModel):
    answers: list[Answer]


class Feedback(_Payload):
    """What a person did with a result."""

    request_id: RequestId
    id: Annotated[Text, Field(min_length=1, max_length=512, description="of the document")]
    kind: Literal["click", "dwell", "thumbs", "conversion"] = "click"
    value: Annotated[float, Field(allow_inf_nan=False, ge=-1, le=86_400)] = Field(
        1.0, description="dwell: seconds; thumbs: +1 or -1"
    )


class Accepted(BaseModel):
    accepted: bool = True


class Ready(Accepted):
    """It answers; `problems` names background loops that do not work, and why."""

    problems: dict[str, str] = {}


class Problem(BaseModel):
    """Every refusal."""

    what: str
    next: str | None = None


class Cutover(_Payload):
    generation: Annotated[str, StringConstraints(pattern=GENERATION)]
    override: Annotated[Text, Field(min_length=1, max_length=500)] | None = Field(
        None, description="why no decision is needed"
    )


class Reason(_Payload):
    why: Annotated[Text, Field(min_length=1, max_length=500)] | None = None


class Moved(BaseModel):
    active: str | None
    previous: str | None
