"""Sections of mine and train."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nearer.settings.base import Count, Fraction, Positive, Section, Seed, named
from nearer.settings.durations import Duration

LossName = Annotated[str, named("loss", "auto")]

_METHOD = re.compile(r"full|query|linear|lora(:[1-9]\d{0,3})?|top:[1-9]\d{0,3}")


def _known_method(name: str) -> str:
    if not _METHOD.fullmatch(name):
        raise ValueError("use full, top:3 (its number of layers), lora, query or linear")
    return name


MethodName = Annotated[str, AfterValidator(_known_method)]


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
        description="scored pairs of data.training are positives from this score on (null: they are no positives, training learns from the scores)",
    )
    absolute_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="a negative also scores at least this much below the positive"
    )
    first_rank: Positive = Field(
        1, description="results before this rank give no negatives (the window ends at candidates)"
    )
    category: str | None = Field(
        None,
        description="items as queries: a metadata field; items of the same value, drawn at random, give negatives as well: section",
    )
    quota: dict[Literal["dense", "bm25", "model", "category"], Count] = Field(
        {}, description="most mined negatives of an example from one source, such as {bm25: 1}"
    )
    model: str | None = Field(
        None, description="second round: a tuned model whose results give negatives as well"
    )
    vet: bool = Field(
        True,
        description="where rerank.model names one, it reads the negatives before they are used",
    )
    grades: Literal["weight", "equal"] = Field(
        "weight", description="weight: a positive counts by its grade over the highest grade"
    )
    passages: Positive = Field(
        3, description="chunks that share the weight of a positive where no single one stands out"
    )
    noise: Literal["downweight", "drop", "keep"] = Field(
        "downweight", description="positives that are probably wrong (mine/suspects.jsonl)"
    )
    review: Count = Field(
        50, description="suspects that go to review/queue.jsonl, the most probable ones first"
    )
    weak: tuple[Literal["titles", "headings", "faq", "docstrings"], ...] = Field(
        (), description="pairs out of the documents' own text: titles, headings, faq, docstrings"
    )
    weak_limit: Positive = Field(1000, description="weak pairs, at most")
    weak_weight: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="how much a weak pair counts beside a judged one"
    )
    strict: bool = Field(
        False, description="refuse to mine when training data collides with dev or test queries"
    )
    positives: Positive | None = Field(
        None,
        description="positives of one query that become examples, drawn at random (null: all); the others are still no negatives",
    )


def _weights(name: str) -> str:
    if name == "linear":
        raise ValueError("linear takes seconds and always runs beside a search: leave it out")
    return name


_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: Settings that `train.search: true` tries, at most.
_ARMS = 8


class TrainSearch(Section):
    """Settings that train.budget is spent on, by successive halving; true for all that is usual."""

    arms: Count = Field(
        0,
        description="settings to try, at most, your own among them: fewer where the budget is short (0: no search)",
    )
    learning_rate: tuple[_Rate, ...] = Field(
        (), description="values to try (empty: half, once, twice and three times your own)"
    )
    epochs: tuple[_Rate, ...] = Field(
        (), description="values to try (empty: your own, and twice as many)"
    )
    batch_size: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="values to try (empty: half, once and twice your own)"
    )
    method: tuple[Annotated[MethodName, AfterValidator(_weights)], ...] = Field(
        (), description="values to try (empty: your own; of full also the upper half of the layers)"
    )
    anchor: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        (), description="values to try (empty: a third, once and three times your own)"
    )
    negatives_per_batch: tuple[Count | None, ...] = Field(
        (), description="values to try (empty: your own, and 0 where examples have hard negatives)"
    )


def _search(value: Any) -> Any:
    """`true`, `false`, null or a number of settings in place of the whole section."""
    if value is None or value is False:
        return {}
    if value is True:
        return {"arms": _ARMS}
    if isinstance(value, int):
        return {"arms": value}
    return value


#: What is usual, where the examples are many enough (nearer.training.passes).
_EPOCHS = 3.0


class Train(Section):
    """Fine-tuning."""

    loss: LossName = Field(
        "auto",
        description="auto: the examples decide; or ranking, triplet, cosent, angle, cosine, listwise, "
        "margin_mse, distill_kl, mse, supcon, batch_hard (both for labels), my_module:MyLoss",
    )
    epochs: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="passes over the examples, at most (null: 3, and up to 6 where they are few)",
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        32, description="distinct positive documents a batch"
    )
    negatives_per_batch: Count | None = Field(
        None,
        description="documents that join a batch as hard negatives alone (null: half of batch_size); positives of the batch cost nothing",
    )
    queries_per_document: Positive = Field(
        8, description="queries of one document that may share a batch"
    )
    max_seq_length: Positive | None = Field(
        None, description="tokens a text while training (null: the model's own)"
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="null: by the kind of model (transformer 1e-4, static model 2e-2)"
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
        0.01,
        description="without a general set: go back towards the base model while dev loses at most this; 0: do not, with or without one",
    )
    anchor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        3.0,
        description="how strongly general texts are held where the base model puts them (0: not at all)",
    )
    anchor_texts: Annotated[int, Field(ge=2)] = Field(
        24, description="general texts per batch that are held"
    )
    general: str | None = Field(
        "builtin",
        description="set on which going back is chosen, not the guardrail's: `builtin`, a BEIR folder, or null for none",
    )
    forget: Fraction = Field(
        0.01, description="go back towards the base model until the general set loses at most this"
    )
    keep: Fraction = Field(
        0.85, description="but keep this share of the gain on dev, whatever is forgotten"
    )
    patience: Positive = Field(2, description="evaluations without gain before stopping")
    seed: Seed = 7
    method: MethodName = Field(
        "full",
        description="what is trained: full, top:3 (upper layers), lora:16, query (a second model, for queries), linear (an adapter of queries)",
    )
    candidates: tuple[MethodName, ...] = Field(
        (),
        description="methods to train one after the other; dev decides (empty: train.method alone)",
    )
    seeds: Positive = Field(
        1,
        description="trainings per method, each with a seed of its own; their average is tried too",
    )
    symmetric: bool = Field(
        False, description="ranking loss: from documents to queries as well as from queries"
    )
    guide_margin: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        None,
        description="documents that the base model scores above a positive by more than this cosine are not its negatives (null: they are)",
    )
    margin: Annotated[float, Field(gt=0, le=2)] = Field(
        0.2, description="triplet loss: cosine by which a positive is to be nearer than a negative"
    )
    mini_batch: Count = Field(
        0,
        description="texts encoded at a time, for large batches in little memory (0: the whole batch)",
    )
    matryoshka: tuple[Positive, ...] = Field(
        (), description="train the first dimensions as vectors of their own too: [256, 128]"
    )
    teacher: str | None = Field(
        None, description="a larger model whose vectors are imitated: folder or name"
    )
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
    search: Annotated[TrainSearch, BeforeValidator(_search)] = TrainSearch()

    @property
    def passes(self) -> float:
        """Epochs; the usual number where none is set."""
        return self.epochs or _EPOCHS
