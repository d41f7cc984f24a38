"""Sections of check, evaluate, diagnose and fix."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from nearer.settings.base import Count, Positive, Section, named
from nearer.settings.durations import Duration
from nearer.shortlist import AUTO

FixName = Annotated[str, named("fix")]


def _as_list(value: Any) -> Any:
    """One name stands for a list of one."""
    return (value,) if isinstance(value, str) else value


Models = Annotated[tuple[str, ...], BeforeValidator(_as_list)]

_MEASURE = re.compile(r"^(AP|RR|(nDCG|R|P|RR|AP|Success|Judged)@[1-9]\d{0,4})$")
#: What a language model would read of the results (`nearer.measure.context`).
_CONTEXT = re.compile(r"^Context(Recall|Precision|Novelty|Order)@[1-9]\d{0,6}tok$")


class Check(Section):
    """Data checks and the split."""

    near_duplicate: Annotated[float, Field(ge=0.3, le=1.0)] = Field(
        0.9, description="Jaccard similarity of word 3-grams from which texts are near-duplicates"
    )
    examples: Positive = Field(5, description="examples a finding")


class Evaluate(Section):
    """Measures and slices."""

    measures: tuple[str, ...] = Field(
        ("nDCG@10", "R@10", "R@100", "RR@10", "P@5", "AP", "Success@1", "Judged@10"),
        description="names as in ir-measures; of a language model's context: ContextRecall@2000tok (also Precision, Novelty, Order)",
    )
    primary: str = Field("nDCG@10", description="the measure that decides, and picks checkpoints")
    depth: Annotated[int, Field(ge=10)] = Field(100, description="results a query")
    baselines: tuple[Literal["dense", "bm25", "rrf", "convex"], ...] = Field(
        ("bm25", "dense", "rrf", "convex"), description="measured beside today's system"
    )
    resamples: Annotated[int, Field(ge=1000)] = Field(
        10_000, description="bootstrap and randomisation draws"
    )
    min_slice: Positive = Field(10, description="smallest slice that is reported")
    context_chunks: Positive = Field(
        1, description="chunks of one document that a context holds: those nearest to the query"
    )
    context_neighbours: Annotated[int, Field(ge=0)] = Field(
        0, description="chunks before and after each of these that a context holds too"
    )

    @field_validator("measures")
    @classmethod
    def _known_measures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _CONTEXT.match(name):
                _check_measure(name)
        return names

    @field_validator("primary")
    @classmethod
    def _known_primary(cls, name: str) -> str:
        if _CONTEXT.match(name):
            raise ValueError(
                f"{name} cannot decide: training and tuning rank documents without their texts; "
                "put it into evaluate.measures, where decide compares it query by query"
            )
        _check_measure(name)
        return name


def _check_measure(name: str) -> None:
    if not _MEASURE.match(name):
        known = "nDCG@k, R@k, P@k, RR, RR@k, AP, AP@k, Success@k, Judged@k, ContextRecall@Ntok"
        raise ValueError(f"unknown measure {name!r}; known: {known}")


class Diagnose(Section):
    """Why queries fail, found by trying the repair."""

    k: Positive = Field(
        10, description="a query fails when none of its relevant documents is among the first k"
    )
    depth: Annotated[int, Field(ge=1000)] = Field(
        1000, description="how deep ranked lists are searched"
    )
    splits: tuple[Literal["dev", "train"], ...] = Field(
        ("dev", "train"), description="queries that are looked at"
    )
    limit: Positive = Field(
        1000, description="failing queries diagnosed at most (a seeded sample of them)"
    )
    chunkers: tuple[str, ...] = Field(
        ("document", "tokens:128:32", "sentences:48", "recursive:128", "recursive:128+title"),
        description="other chunkings that are tried",
    )
    pieces: tuple[str, ...] = Field(
        ("paragraphs:256", "tokens:64:16", "tokens:32:8"),
        description="finer pieces, tried on what nothing else finds, against its nearest competitors",
    )
    examples: Positive = Field(10, description="examples a cause in the report")
    terms: Count = Field(
        2000, description="words whose meaning here is compared with the model's (0: none)"
    )


class Fix(Section):
    """Simpler fixes, each measured on dev, then combined."""

    fixes: tuple[FixName, ...] = Field(
        ("metadata", "rewriting", "hybrid", "reranking", "chunking", "base_model"),
        description="tried in this order, cheapest first; module:Class is a fix of your own",
    )
    chunkers: tuple[str, ...] = Field(
        ("tokens:128:32", "sentences:48", "recursive:128", "recursive:128+title"),
        description="chunkings that are tried",
    )
    models: Models = Field(
        (AUTO,),
        description="other models: auto (those of the shortlist that are here), static (today's words), folders, names, openai:MODEL",
    )
    compressions: tuple[str, ...] = Field(
        ("int8", "binary"),
        description="smaller vectors that are measured: float16, int8, binary, each also cut, as int8@128",
    )
    title_weights: tuple[float, ...] = Field(
        (0.5, 1.0, 2.0), description="BM25 by field: weights of the title"
    )
    rewriters: tuple[str, ...] = Field(
        ("acronyms",),
        description="acronyms (mined from the corpus), a dictionary file, or module:function",
    )
    budget: Duration = Field(
        300.0,
        description="models: auto; the longest that one other model may take to embed the corpus, such as 5m",
    )
