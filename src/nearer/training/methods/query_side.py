"""Trains a model for queries alone, against documents' vectors that are fixed.

Documents are embedded once, by the base model, and never go through the network again: a step costs
what its queries cost.  What is saved holds the tuned model for queries beside the base for documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nearer import progress
from nearer.embed.encoder import SentenceEncoder

_VECTOR = "sentence_embedding"


@contextmanager
def fixed_documents(encoder: SentenceEncoder, base: SentenceEncoder) -> Iterator[None]:
    """While it lasts, the encoder gives `base`'s vectors for documents and computes queries itself.

    Each document is embedded once, when it is first asked for.
    """
    model = encoder.model
    own = vars(model).get("forward")
    model.forward = _passing_on(model.forward)
    encoder.prepare = _Vectors(base).features
    try:
        yield
    finally:
        encoder.prepare = None
        if own is None:
            del model.forward
        else:
            model.forward = own


class _Vectors:
    """The base model's vectors of documents, by their text."""

    def __init__(self, base: SentenceEncoder) -> None:
        self._base = base
        self._known: dict[str, np.ndarray] = {}

    def features(
        self, texts: Sequence[str], kind: Any, inputs: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The vectors themselves in place of inputs, where the texts are documents."""
        import torch

        if kind != "document":
            return inputs()
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            with progress.listen(progress.SILENT):
                vectors = self._base.encode(missing, "document")
            self._known.update(zip(missing, vectors, strict=True))
        rows = np.stack([self._known[text] for text in texts])
        return {_VECTOR: torch.from_numpy(rows)}


def _passing_on(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A model's forward that returns inputs which are vectors already."""

    def forward(features: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        if set(features) == {_VECTOR}:
            return dict(features)
        return compute(features, *arguments, **named)

    return forward
