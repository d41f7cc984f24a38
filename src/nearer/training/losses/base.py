"""The contract of a loss: what it is given, what it returns, and which examples it takes."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NotRequired, TypedDict

import torch

from nearer.config import Train
from nearer.training.kinds import PAIRS


class Labels(TypedDict):
    """What the collator says about one batch, beside the features of its texts.

    A batch holds `n_rows` examples over `n_queries` distinct queries and `n_documents` distinct
    documents; every text is encoded once, in sub-batches of similar length, queries first.  In a
    batch of symmetric pairs no sub-batch holds queries: both texts of a pair are documents.
    """

    query: torch.Tensor  # (n_rows,) int64: the row's query, a position among the queries
    target: torch.Tensor  # (n_rows,) int64: the row's positive, a position among the documents
    negatives: torch.Tensor  # (n_rows, n_documents) bool: the row's own hard negatives
    blocked: torch.Tensor  # (n_rows, n_documents) bool: never a negative of the row; not its target
    score: torch.Tensor  # (n_rows,) float32: the score of the pair, NaN where none is known
    weight: torch.Tensor  # (n_rows,) float32, above 0: how much the row counts beside the others
    grade: torch.Tensor  # (n_rows, n_documents) float32: the gain of a judged document, else NaN
    teacher_score: torch.Tensor  # (n_rows, n_documents) float32: of a reranker, else NaN
    part: torch.Tensor  # () int64: the part of the training set that the batch comes from
    query_parts: torch.Tensor  # () int64: how many of the sub-batches hold queries
    document_parts: torch.Tensor  # () int64: how many hold documents
    query_order: torch.Tensor  # (n_queries,) int64: puts the encoded queries in order
    document_order: torch.Tensor  # (n_documents,) int64: puts the encoded documents in order
    tokens: torch.Tensor  # () int64: tokens of the batch, padding left out
    # General texts that are held where the base model puts them (`nearer.training.anchor`): how many
    # of the last sub-batches hold them, and the base model's vectors, (n_texts, dimension).
    anchor_parts: NotRequired[torch.Tensor]
    anchor_vectors: NotRequired[torch.Tensor]
    # Vectors of a teacher, where the training set brings them.
    query_teacher: NotRequired[torch.Tensor]  # (n_queries, dimension) float32
    document_teacher: NotRequired[torch.Tensor]  # (n_documents, dimension) float32


class BatchVectors(NamedTuple):
    """The distinct texts of a batch, encoded: unit length, float32, with gradient."""

    queries: torch.Tensor  # (n_queries, dimension)
    documents: torch.Tensor  # (n_documents, dimension)

    def similarities(self, labels: Labels) -> torch.Tensor:
        """(n_rows, n_documents): cosine of each row's query and every document of the batch."""
        similarities = self.queries @ self.documents.T
        return similarities[labels["query"]]

    def cosines(self, labels: Labels) -> torch.Tensor:
        """(n_rows,): cosine of the two texts of each row."""
        left, right = self.pairs(labels)
        return (left * right).sum(dim=1)

    def pairs(self, labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
        """The two texts of each row, (n_rows, dimension) each."""
        return self.queries[labels["query"]], self.documents[labels["target"]]


def weighted_mean(values: torch.Tensor, labels: Labels) -> torch.Tensor:
    """The mean of one value per row, (n_rows,), each row counted by its weight."""
    weight = labels["weight"]
    return (values * weight).sum() / weight.sum()


class Loss(torch.nn.Module, ABC):
    """Derive from this class, say which examples it `takes`, and write `of_vectors`.

    It is made as `Class(model, settings)`: the SentenceTransformer that is trained, and the section
    `train` of nearer.yaml.  Weights of its own are trained with the model's and kept in checkpoints,
    so that a resumed training goes on with them.

    A loss that needs more than the vectors of a batch overrides `forward`; `train.mini_batch`
    cannot be used with it.
    """

    #: What every example must bring, one of `nearer.training.kinds.KINDS`.
    takes: ClassVar[str] = PAIRS
    #: Whether scores are brought to 0 to 1 before the loss sees them, from whatever range they have.
    unit_scores: ClassVar[bool] = False

    def __init__(self, model: Any, settings: Train | None = None) -> None:
        super().__init__()
        self.model = model
        self.settings = settings or Train()

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        """The loss of one batch: a scalar tensor with gradient, its weighted mean per row.

        What `labels["blocked"]` names must not be pushed away from the row's query.
        """
        # Not abstract: a loss that overrides `forward` needs none.  `choose_loss` refuses a class that
        # has neither, so that only a class made by hand comes here.
        raise NotImplementedError(f"{type(self).__name__} has neither of_vectors nor forward")

    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        """The loss of one batch, as `of_vectors`.

        `features` are the model's inputs, one mapping per sub-batch.
        """
        return self.of_vectors(self.vectors(features, labels), labels)

    def vectors(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> BatchVectors:
        """Encode the sub-batches and put the vectors in the order that `labels` refer to."""
        encoded = [self.model(part)["sentence_embedding"] for part in features]
        return arranged(encoded, labels)


def arranged(encoded: Sequence[torch.Tensor], labels: Labels) -> BatchVectors:
    """The vectors of the sub-batches at unit length, in the order that `labels` refer to."""
    unit = [torch.nn.functional.normalize(part.float(), dim=-1) for part in encoded]
    parts = int(labels["query_parts"])
    # Symmetric pairs: both of their texts were encoded as documents, each once.
    queries = unit[:parts] if parts else unit
    return BatchVectors(
        torch.cat(queries)[labels["query_order"]],
        torch.cat(unit[parts:])[labels["document_order"]],
    )
