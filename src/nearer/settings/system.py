"""Sections about the baseline: the search that users get now, and how its model runs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nearer.settings.base import Positive, Section, named
from nearer.settings.durations import Duration
from nearer.shortlist import AUTO

SystemName = Annotated[str, named("retriever")]


class Model(Section):
    """The embedding model of today's system, and how to run it."""

    name: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="folder or name, as SentenceTransformer takes it; openai:MODEL behind model.url, or my_module:MyEncoder",
    )
    max_seq_length: Positive | None = Field(
        None, description="tokens a text (null: what the model says)"
    )
    query_prompt: str | None = Field(None, description="prefix of queries (null: the model's own)")
    document_prompt: str | None = Field(
        None, description="prefix of documents (null: the model's own)"
    )
    device: str | None = Field(None, description="cpu, cuda, mps (null: the best there is)")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where it is faster and faithful"
    )
    batch_tokens: Annotated[int, Field(ge=256)] = Field(
        8192, description="tokens (padding included) a batch"
    )
    url: str | None = Field(
        None,
        description="openai:MODEL: where /embeddings is, such as http://localhost:8000/v1 (token: NEARER_EMBEDDINGS_TOKEN)",
    )
    dimension: Positive | None = Field(
        None, description="numbers per vector to ask an endpoint for (null: the model's own)"
    )
    max_characters: Positive | None = Field(
        None, description="outside models: characters per text, the rest is cut (null: none is)"
    )
    batch_texts: Positive = Field(128, description="outside models: texts per request")
    batch_characters: Positive = Field(
        100_000, description="outside models: characters per request"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(
        60.0, description="openai:MODEL: seconds per request"
    )
    price_per_million_tokens: Annotated[float, Field(ge=0)] | None = Field(
        None, description="outside models: for the costs that are shown and capped"
    )
    max_cost: Annotated[float, Field(ge=0)] | None = Field(
        None, description="outside models: the most that one command may spend"
    )

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {"batch_texts", "batch_characters", "timeout", "price_per_million_tokens", "max_cost"}
    )

    def of_another(self, name: str) -> Model:
        """Settings for a model that is not this one: device and precision as here, its own prompts and length."""
        return self.model_copy(update={"name": name, **_OWN})

    def as_saved(self) -> Model:
        """Settings for a model that `train` saved: prompts and length travel in its folder."""
        return self.model_copy(update=_OWN)


#: What belongs to one model and means nothing to another.
_OWN: dict[str, None] = dict.fromkeys(
    ("query_prompt", "document_prompt", "max_seq_length", "dimension", "max_characters")
)


class Search(Section):
    """Today's system: what users get now, and what a change is compared with."""

    system: SystemName = "dense"
    run: str | dict[Literal["dev", "test"], str] | None = Field(
        None, description="system: run; a TREC run file, or one a split"
    )
    function: str | None = Field(
        None,
        description="system: function; my_module:search(queries, k) -> [[(doc_id, score), …], …]",
    )
    url: str | None = Field(
        None, description="system: http; POST {query, k, filter} -> {results: [{id, score}, …]}"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(10.0, description="seconds a request")
    stemmer: str | None = Field(
        None, description="BM25: a Snowball language such as english (null: none)"
    )
    stopwords: str | None = Field(
        "english", description="BM25: language of the stop words (null: none)"
    )
    rrf_k: Positive = Field(60, description="constant of reciprocal rank fusion")
    filters: Literal["ignore", "apply"] = Field(
        "ignore", description="apply: today's system honours the queries' declared `filter`"
    )
    extract: str | None = Field(
        None,
        description="my_module:function of your own, text -> {field: value}: filters that a text names (null: ours)",
    )
    chunker: str = Field(
        "document",
        description="today's chunks: document, tokens:SIZE:OVERLAP, sentences:SIZE, recursive:SIZE, each also with +title",
    )


class Rerank(Section):
    """A cross-encoder that reads the first results again."""

    model: str | None = Field(
        "auto",
        description="auto: one that is here, else trained in rerank.budget; train: trained here; null: none; a folder, a name, my_module:MyClass",
    )
    depth: Positive = Field(50, description="results that it gets to read")
    max_length: Annotated[int, Field(ge=8)] = Field(
        192, description="tokens of query and document together"
    )
    pairs: Positive = Field(4000, description="train: labelled pairs, at most")
    negatives: Positive = Field(
        3, description="train: negatives a positive, out of the first results of dense and BM25"
    )
    layers: Positive | None = Field(
        None, description="train: first layers of the model that it is made of; fewer are faster"
    )
    epochs: Annotated[float, Field(gt=0)] = Field(1, description="train: passes over the pairs")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="train: at its highest")
    budget: Duration = Field(
        120.0,
        description="auto: time for training one, and again for what it reads in diagnose and in fix, such as 2m",
    )

    @property
    def automatic(self) -> bool:
        """Is it found or trained here because nobody named one?"""
        return self.model == AUTO

    @property
    def named(self) -> bool:
        """Did somebody ask for a reranker, beyond its being tried as a fix?"""
        return self.model is not None and not self.automatic
