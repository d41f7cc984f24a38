"""Models with a route for queries and one for documents, in the form sentence-transformers reads.

Modules that both routes share are saved once, and documents get the very vectors of the base model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearer.embed.adapter import QueryAdapter
from nearer.embed.encoder import SentenceEncoder


def with_query_adapter(encoder: SentenceEncoder, adapter: QueryAdapter) -> SentenceEncoder:
    """The encoder's model with the adapter behind its query route; documents stay as they are."""
    from sentence_transformers.base.modules import Normalize

    queries, documents = routes(encoder.model)
    adapted = list(queries)
    if adapter.cosine and not isinstance(adapted[-1], Normalize):
        adapted.append(Normalize())  # the adapter has learned from vectors of length 1
    adapted.append(_dense(adapter, encoder.model.device))
    if adapter.cosine:
        adapted.append(Normalize())
    return _encoder_of(encoder, adapted, documents)


def with_query_tower(base: SentenceEncoder, tuned: Any) -> SentenceEncoder:
    """The base encoder with another model for queries, `tuned`, a SentenceTransformer."""
    queries, _ = routes(tuned)
    _, documents = routes(base.model)
    return _encoder_of(base, queries, documents)


def routes(model: Any) -> tuple[list[Any], list[Any]]:
    """The modules that a query passes through, and those that a document passes through."""
    first, *rest = model.children()
    if type(first).__name__ != "Router":
        return [first, *rest], [first, *rest]
    queries, documents = (first.sub_modules[_route(first, kind)] for kind in ("query", "document"))
    return [*queries, *rest], [*documents, *rest]


def _route(router: Any, kind: str) -> str:
    """The name of a router's route for a kind of text."""
    if kind in router.sub_modules:
        return kind
    return str(router.default_route or next(iter(router.sub_modules)))


def _encoder_of(
    encoder: SentenceEncoder, queries: list[Any], documents: list[Any]
) -> SentenceEncoder:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    base = encoder.model
    model = SentenceTransformer(
        modules=[Router.for_query_document(queries, documents)],
        prompts=base.prompts,
        default_prompt_name=base.default_prompt_name,
        similarity_fn_name=base.similarity_fn_name,
        truncate_dim=base.truncate_dim,
        device=str(base.device),
    )
    return SentenceEncoder(
        model,
        query_prompt=encoder.prompt("query"),
        document_prompt=encoder.prompt("document"),
        precision=encoder.precision.name,
        batch_tokens=encoder.batch_tokens,
        name=encoder.name,
    )


def _dense(adapter: QueryAdapter, device: Any) -> Any:
    """The adapter as a module of sentence-transformers."""
    import torch
    from sentence_transformers.base.modules import Dense

    n_out, n_in = adapter.weight.shape
    dense = Dense(
        n_in,
        n_out,
        activation_function=torch.nn.Identity(),
        init_weight=torch.from_numpy(np.array(adapter.weight)),
        init_bias=torch.from_numpy(np.array(adapter.bias)),
    )
    return dense.to(device)
