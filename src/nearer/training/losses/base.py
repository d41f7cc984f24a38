"""The contract of a loss: what it is given, what it returns, and which examples it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import torch

from nearer.config import Train
from nearer.training.losses import PAIRS


class Labels(TypedDict):
    """What the collator says about one batch, beside the features of its texts.

    A batch holds `n_rows` examples over `n_queries` distinct queries and `n_documents` distinct
    documents; every text is encoded once, in sub-batches of similar length, queries first.
    """

    query: torch.Tensor  # (n_rows,) int64: the row's query, a position among the queries
    target: torch.Tensor  # (n_rows,) int64: the row's positive, a position among the documents
    negatives: torch.Tensor  # (n_rows, n_documents) bool: the row's own hard negatives
    blocked: torch.Tensor  # (n_rows, n_documents) bool: never a negative of the row; not its target
    score: torch.Tensor  # (n_rows,) float32: the score of the pair, NaN where none is known
    query_parts: torch.Tensor  # () int64: how many of the sub-batches hold queries
    document_parts: torch.Tensor  # () int64: how many hold documents
    query_order: torch.Tensor  # (n_queries,) int64: puts the encoded queries in order
    document_order: torch.Tensor  # (n_documents,) int64: puts the encoded documents in order
    tokens: torch.Tensor  # () int64: tokens of the batch, padding left out


class BatchVectors(NamedTuple):
    """The distinct texts of a batch, encoded: unit length, float32, with gradient."""

    queries: torch.Tensor  # (n_queries, dimension)
    documents: torch.Tensor  # (n_documents, dimension)


class Loss(torch.nn.Module, ABC):
    """Derive from this class, say which examples it `takes`, and write `forward`.

    It is made as `Class(model, settings)`: the SentenceTransformer that is trained, and the section
    `train` of nearer.yaml.  Weights of its own are trained with the model's and kept in checkpoints,
    so that a resumed training goes on with them.
    """

    #: "pairs": a query and its positive; "scored pairs": every example has a score besides.
    takes: ClassVar[str] = PAIRS

    def __init__(self, model: Any, settings: Train | None = None) -> None:
        super().__init__()
        self.model = model
        self.settings = settings or Train()

    @abstractmethod
    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        """The loss of one batch: a scalar tensor with gradient, its mean per row.

        `features` are the model's inputs, one mapping per sub-batch.  What `labels.blocked` names
        must not be pushed away from the row's query.
        """

    def vectors(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> BatchVectors:
        """Encode the sub-batches and put the vectors in the order that `labels` refer to."""
        encoded = [self._encode(part) for part in features]
        parts = int(labels["query_parts"])
        return BatchVectors(
            torch.cat(encoded[:parts])[labels["query_order"]],
            torch.cat(encoded[parts:])[labels["document_order"]],
        )

    def _encode(self, features: Mapping[str, Any]) -> torch.Tensor:
        embedding = self.model(features)["sentence_embedding"].float()
        return torch.nn.functional.normalize(embedding, dim=-1)
