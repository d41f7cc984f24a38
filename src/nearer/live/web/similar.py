"""`POST /similar`: items that go with an item, or with what somebody engaged with last.

An item is asked through the pipeline that was judged, by its text; a history lies at the (recency
weighted) mean of its items' stored vectors.  Items of the question are never among the answers.
`recommend.eligible` and `recommend.same` of the settings always hold.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from nearer.config import Recommend
from nearer.embed.fingerprint import Vectors
from nearer.live.index.searcher import Served
from nearer.live.stores.space import Rows
from nearer.live.traffic import log as traffic
from nearer.live.web import payloads
from nearer.live.web.access import needs_token
from nearer.live.web.batching import QueueFullError
from nearer.search.diversity import DEPTH, mmr
from nearer.search.engagement import pooled
from nearer.search.filters.values import held_keys, scalars, wanted_keys
from nearer.types import Hit, Query, rank_hits

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
    def items(self) -> list[str]:
        return [self.id] if self.id is not None else list(self.history or ())


class SimilarAnswer(payloads.Answer):
    unknown: list[str] = Field([], description="items of the history that the index lacks")


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, the text that was asked with, and the items that the index lacks."""

    hits: tuple[Hit, ...]
    text: str
    unknown: tuple[str, ...]


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
        rules = service.generations.config.recommend
        under_way += 1
        try:
            search = asyncio.to_thread(find_similar, served, asked, rules)
            found = await asyncio.wait_for(search, limits.timeout)
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
    )
    service.log.append(line.as_dict() | {"pipeline": served.identity, "similar_to": asked.items})
    service.metrics.answered(not found.hits)
    answer = service.payload(asked.text, line, served)
    return SimilarAnswer(**answer.model_dump(), unknown=list(found.unknown))


def find_similar(served: Served, asked: Similar, rules: Recommend) -> Found:
    """The best items for a question.  Raises HTTPException (404) where the index has none of its items."""
    items = asked.items if asked.id is not None else asked.items[-rules.history :]
    rows = served.generation.store.fetch(served.manifest.space, list(dict.fromkeys(items)))
    vector_of = _by_item(rows)
    unknown = tuple(item for item in dict.fromkeys(items) if item not in vector_of)
    known = [item for item in items if item in vector_of]
    if not known:
        raise HTTPException(404, f"the index has no item {items[-1]!r}")
    last = known[-1]
    held = _rules(rows, last, rules)
    text_of = dict(zip(reversed(rows.doc_ids), reversed(rows.texts), strict=True))
    filter = _both(asked.filter or {}, held)
    if filter is None:
        return Found((), text_of[last], unknown)
    own = set(asked.items)  # of the whole history, though only its end says what is wanted
    wanted = len(own) + asked.k
    if asked.diversity is not None:
        wanted = len(own) + max(asked.k, DEPTH)
    if asked.id is not None:
        text = text_of[last]
        query = Query(last, text, filter or None)
        hits = list(served.search([query], wanted).results[last])
    else:
        text = " ".join(text_of[item] for item in dict.fromkeys(known))
        mean = pooled(np.stack([vector_of[item] for item in known]), rules.half_life)
        vectors = Vectors(mean[None, :], rows.vectors.fingerprint)
        hits = served.generation.search(vectors, wanted, filter=filter or None)[0]
    hits = [hit for hit in hits if hit[0] not in own]
    if asked.diversity is not None:
        hits = _diverse(served, hits, asked.diversity, asked.k)
    return Found(tuple(hits[: asked.k]), text, unknown)


def _by_item(rows: Rows) -> dict[str, np.ndarray]:
    """The vector of each item: the mean of its chunks', of unit length."""
    chunks: dict[str, list[np.ndarray]] = {}
    for doc_id, vector in zip(rows.doc_ids, rows.vectors.array, strict=True):
        chunks.setdefault(doc_id, []).append(vector)
    return {doc_id: pooled(np.stack(vectors)) for doc_id, vectors in chunks.items()}


def _rules(rows: Rows, last: str, rules: Recommend) -> dict[str, Any]:
    """What is eligible at all, and where results must agree with the last item."""
    metadata = dict(zip(rows.doc_ids, rows.metadata, strict=True))[last]
    same = {name: metadata.get(name) for name in rules.same}
    own = {name: value for name, value in same.items() if held_keys(value) and value != ""}
    return {**own, **rules.eligible}


def _both(filter: Mapping[str, Any], rules: Mapping[str, Any]) -> dict[str, Any] | None:
    """A filter that also keeps to the rules; None where no value satisfies both.

    An item may have several values of a field: those that the filter asks for remain.
    """
    joined = dict(filter)
    for name, admitted in rules.items():
        joined[name] = admitted
        if name in filter:
            wanted = wanted_keys(filter[name])
            remaining = [each for each in scalars(admitted) if wanted & held_keys(each)]
            if not remaining:
                return None
            joined[name] = remaining
    return joined


def _diverse(served: Served, hits: Sequence[Hit], weight: float, k: int) -> list[Hit]:
    """Hits reordered by MMR over the stored vectors; their scores then say the order alone."""
    rows = served.generation.store.fetch(served.manifest.space, [doc_id for doc_id, _ in hits])
    vector_of = _by_item(rows)
    known = [hit for hit in hits if hit[0] in vector_of]

    def vectors(ids: Sequence[str]) -> np.ndarray:
        return np.stack([vector_of[doc_id] for doc_id in ids])

    order = mmr(known, weight, vectors, k)
    return rank_hits((doc_id, 1 - rank / (len(order) + 1)) for rank, doc_id in enumerate(order))
