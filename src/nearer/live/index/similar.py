"""Items that go with an item, or with what somebody engaged with last, out of one generation.

An item is asked through the pipeline that was judged, by its text; a history lies at the (recency
weighted) mean of its items' stored vectors.  Items of the question are never among the answers.
`recommend.eligible` and `recommend.same` of the settings always hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.config import Recommend
from nearer.embed.fingerprint import Vectors
from nearer.live.index.searcher import Served
from nearer.live.stores.space import Rows
from nearer.live.traffic.similar import SimilarTo
from nearer.search.diversity import DEPTH, mmr
from nearer.search.engagement import pooled
from nearer.search.filters.values import held_keys, scalars, wanted_keys
from nearer.types import Hit, Metadata, Query, rank_hits


class UnknownItemsError(LookupError):
    """The index has none of the items of a question."""


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, the text that was asked with, and the items that the index lacks."""

    hits: tuple[Hit, ...]
    text: str
    unknown: tuple[str, ...]


def find_similar(served: Served, asked: SimilarTo, wished: Metadata | None) -> Found:
    """The best items for a question; `wished` is its filter.

    Raises UnknownItemsError where the index has none of its items.
    """
    rules = served.systems.config.recommend
    items = asked.items[-rules.history :] if asked.history else asked.items
    rows = served.generation.store.fetch(served.manifest.space, list(dict.fromkeys(items)))
    vector_of = _by_item(rows)
    unknown = tuple(item for item in dict.fromkeys(items) if item not in vector_of)
    known = [item for item in items if item in vector_of]
    if not known:
        raise UnknownItemsError(f"the index has no item {items[-1]!r}")
    last = known[-1]
    held = _rules(rows, last, rules)
    text_of = dict(zip(reversed(rows.doc_ids), reversed(rows.texts), strict=True))
    filter = both(wished or {}, held)
    if filter is None:
        return Found((), text_of[last], unknown)
    own = set(asked.items)  # of the whole history, though only its end says what is wanted
    wanted = len(own) + asked.k
    if asked.diversity is not None:
        wanted = len(own) + max(asked.k, DEPTH)
    if asked.history:
        text = " ".join(text_of[item] for item in dict.fromkeys(known))
        mean = pooled(np.stack([vector_of[item] for item in known]), rules.half_life)
        vectors = Vectors(mean[None, :], rows.vectors.fingerprint)
        listed: Sequence[Hit] = served.generation.search(vectors, wanted, filter=filter or None)[0]
    else:
        text = text_of[last]
        listed = served.search([Query(last, text, filter or None)], wanted).results[last]
    hits = [hit for hit in listed if hit[0] not in own]
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


def both(filter: Mapping[str, Any], rules: Mapping[str, Any]) -> dict[str, Any] | None:
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
