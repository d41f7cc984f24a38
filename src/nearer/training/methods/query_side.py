"""Trains a model for queries alone, against documents' vectors that are fixed.

Documents are embedded once, by the base model, and never go through the network again: a step costs
what its queries cost.  What is saved holds the tuned model for queries beside the base for documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nearer.embed.encoder import SentenceEncoder

_VECTOR = "sentence_embedding"


@contextmanager
def fixed_documents(
    encoder: SentenceEncoder, base: SentenceEncoder, texts: Sequence[str]
) -> Iterator[None]:
    """While it lasts, the encoder gives `base`'s vectors for these documents, without computing.

    Queries, and documents that are not among `texts`, are computed by the encoder's own model.
    """
    distinct = list(dict.fromkeys(texts))
    rows = {text: row for row, text in enumerate(distinct)}
    vectors = base.encode(distinct, "document")
    model = encoder.model
    own = vars(model).get("forward")
    model.forward = _passing_on(model.forward)
    encoder.prepare = _Vectors(rows, vectors).features
    try:
        yield
    finally:
        encoder.prepare = None
        if own is None:
            del model.forward
        else:
            model.forward = own


class _Vectors:
    """Vectors of documents, found by their text."""

    def __init__(self, rows: dict[str, int], vectors: np.ndarray) -> None:
        self._rows, self._vectors = rows, vectors

    def features(
        self, texts: Sequence[str], kind: Any, inputs: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The vectors themselves, where all texts are documents that have one."""
        import torch

        if kind != "document" or not all(text in self._rows for text in texts):
            return inputs()
        rows = [self._rows[text] for text in texts]
        return {_VECTOR: torch.from_numpy(np.array(self._vectors[rows]))}


def _passing_on(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A model's forward that returns inputs which are vectors already."""

    def forward(features: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        if set(features) == {_VECTOR}:
            return dict(features)
        return compute(features, *arguments, **named)

    return forward
