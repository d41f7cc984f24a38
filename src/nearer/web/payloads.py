"""What the service takes and gives: its OpenAPI description comes from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

_MAX_NUMBER = 2**53  # integers that JSON readers agree on


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_clean)]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Scalar = (
    Annotated[Text, Field(max_length=512)]
    | bool
    | Annotated[int, Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER)]
    | Annotated[float, Field(allow_inf_nan=False, ge=-_MAX_NUMBER, le=_MAX_NUMBER)]
)
Filter = Annotated[
    dict[
        Annotated[Text, Field(min_length=1, max_length=128)],
        Scalar | Annotated[list[Scalar], Field(max_length=64)],
    ],
    Field(max_length=32),
]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Search(_Payload):
    """One query."""

    query: Annotated[Text, Field(min_length=1, description="what is looked for")]
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
    generation: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[1-9][0-9]{0,6}$")]
    override: Annotated[Text, Field(min_length=1, max_length=500)] | None = Field(
        None, description="why no decision is needed"
    )


class Reason(_Payload):
    why: Annotated[Text, Field(min_length=1, max_length=500)] | None = None


class Moved(BaseModel):
    active: str | None
    previous: str | None
