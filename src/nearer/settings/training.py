"""Sections of mine and train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nearer.settings.base import Count, Fraction, Positive, Section, Seed, named

LossName = Annotated[str, named("loss", "auto")]


class Mine(Section):
    """Training examples and hard negatives."""

    negatives: Count = Field(1, description="hard negatives an example; 0: in-batch negatives only")
    candidates: Positive = Field(
        30, description="how deep dense and BM25 are searched for negatives"
    )
    margin: Fraction = Field(
        0.95, description="a negative scores below this share of the positive (NV-Retriever)"
    )
    pool: Positive = Field(
        10, description="negatives are drawn from this many of the hardest that remain"
    )
    sources: tuple[Literal["dense", "bm25"], ...] = ("dense", "bm25")
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None,
        description="scored pairs of data.training are positives from this score on (must be set where there are scores)",
    )


class Train(Section):
    """Fine-tuning."""

    loss: LossName = Field("auto", description="auto, ranking, or your own: my_module:MyLoss")
    epochs: Annotated[float, Field(gt=0)] = Field(
        3, description="passes over the examples, at most"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        32, description="distinct positive documents a batch"
    )
    queries_per_document: Positive = Field(
        8, description="queries of one document that may share a batch"
    )
    max_seq_length: Positive | None = Field(
        None, description="tokens a text while training (null: the model's own)"
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="null: by the kind of model (transformer 5e-5, static model 2e-2)"
    )
    warmup: Fraction = Field(0.1, description="share of the steps")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    scale: Annotated[float, Field(gt=0)] = Field(
        20.0, description="inverse temperature of the loss"
    )
    attention_dropout: Fraction | None = Field(
        0.0, description="0 lets the CPU use its fused attention (null: the model's own)"
    )
    freeze_word_embeddings: bool = Field(
        True, description="leave the token table as it is (less to forget, less to update)"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where it is faster and faithful"
    )
    evaluations: Positive = Field(1, description="dev evaluations an epoch")
    dev_documents: Positive = Field(
        2000, description="documents in the dev evaluation: judged, hard and random ones"
    )
    merge_tolerance: Fraction = Field(
        0.01, description="go back towards the base model while dev loses at most this; 0: do not"
    )
    patience: Positive = Field(2, description="evaluations without gain before stopping")
    seed: Seed = 7
