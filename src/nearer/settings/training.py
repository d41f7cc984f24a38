"""Sections of mine and train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nearer.settings.base import Count, Fraction, Positive, Section, named
from nearer.settings.durations import Duration

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
    seed: Count = 7
    look_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1,
        description="share of the training time for dev evaluations, which look at a sample of dev (1: at all of it)",
    )
    checkpoint_steps: Positive | None = Field(
        None,
        description="steps between checkpoints (null: at each dev evaluation, and after ten minutes)",
    )
    budget: Duration | None = Field(
        None,
        description="time that training may take, merging and saving included: 10m, 1h30m, or seconds (null: as long as it takes)",
    )
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="where losses and dev scores are logged besides; each needs its package"
    )
    callbacks: tuple[str, ...] = Field(
        (), description="your own callbacks of the Trainer: my_module:MyCallback"
    )
    learning_curve: bool = Field(
        False,
        description="also train on 25, 50 and 75% of the data, to tell what more would add (takes one and a half trainings more)",
    )
