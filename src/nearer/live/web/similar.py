"""`POST /similar`: items that go with an item, or with what somebody engaged with last.

`nearer.live.index.similar` finds them; this file is the endpoint, its limits and its line in the log.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from nearer.live.index.searcher import Served
from nearer.live.index.similar import Found, UnknownItemsError, find_similar
from nearer.live.traffic import log as traffic
from nearer.live.traffic.similar import SimilarTo
from nearer.live.web import payloads
from nearer.live.web.access import needs_token
from nearer.live.web.batching import QueueFullError

if TYPE_CHECKING:
    from nearer.live.web.service import Service

ItemId = Annotated[payloads.Text, Field(min_length=1, max_length=512)]
_LONGEST = 200  # items of a history


class Similar(BaseModel):
    """What to find similar items for: one item, or a history with the last item last."""

    model_config = ConfigDict(extra="forbid")

    id: ItemId | None = Field(None, description="an item")
    history: Annotated[list[ItemId], Field(min_length=1, max_length=_LONGEST)] | None = Field(
        None, description="items that somebody engaged with, the last one last"
    )
    filter: payloads.Filter | None = Field(None, description="field → value, or list of values")
    k: Annotated[int, Field(ge=1)] = Field(10, description="results")
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="weight of relevance where results are to differ (null: 1, not reordered)"
    )
    request_id: payloads.RequestId | None = Field(None, description="yours, for feedback")
    text: bool = Field(False, description="also the text and metadata of each result")

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.id is None) == (self.history is None):
            raise ValueError("give either id or history")
        return self

    @property
    def question(self) -> SimilarTo:
        """What is asked, as the log keeps it."""
        items = tuple(self.history or ()) if self.id is None else (self.id,)
        return SimilarTo(items, self.k, self.id is None, self.diversity)


class SimilarAnswer(payloads.Answer):
    unknown: list[str] = Field([], description="items of the history that the index lacks")


def routes(service: Service) -> APIRouter:
    """The endpoint; requests beyond `serve.queue` are refused, as those of /search are."""
    router = APIRouter()
    allowed = needs_token(service.tokens.search, open_without=True)
    refusals: dict[int | str, Any] = {
        code: {"model": payloads.Problem} for code in (400, 401, 404, 409, 413, 503, 504)
    }
    under_way = 0

    @router.post(
        "/similar", dependencies=[allowed], responses=refusals, response_model_exclude_none=True
    )
    async def similar(asked: Similar) -> SimilarAnswer:
        """Items that go with an item or a history."""
        nonlocal under_way
        limits = service.settings
        if asked.k > limits.max_k:
            raise HTTPException(413, f"at most {limits.max_k} results (k), got {asked.k}")
        if under_way >= limits.queue:
            raise QueueFullError("too many queries are waiting", next_step="try again in a second")
        started = time.perf_counter()
        served = service.live()
        under_way += 1
        try:
            search = asyncio.to_thread(find_similar, served, asked.question, asked.filter)
            found = await asyncio.wait_for(search, limits.timeout)
        except UnknownItemsError as error:
            raise HTTPException(404, str(error)) from None
        finally:
            under_way -= 1
        return _answered(service, served, asked, found, started)

    return router


def _answered(
    service: Service, served: Served, asked: Similar, found: Found, started: float
) -> SimilarAnswer:
    """The answer, logged as the question of its items' text, so that monitoring sees it."""
    line = traffic.Request(
        time=datetime.now(UTC),
        request_id=asked.request_id or uuid.uuid4().hex,
        query=service.redacted(found.text),
        generation=served.id,
        results=found.hits,
        latency_ms=1000 * (time.perf_counter() - started),
        filter=asked.filter,
        similar=asked.question,
    )
    service.log.append(line.as_dict() | {"pipeline": served.identity})
    service.metrics.answered(not found.hits)
    service.rollouts.after(line, found.text)
    answer = service.payload(asked.text, line, served)
    return SimilarAnswer(**answer.model_dump(), unknown=list(found.unknown))
