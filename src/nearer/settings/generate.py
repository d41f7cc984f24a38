"""Section of `nearer generate`: queries that documents could answer, where nobody has asked yet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from nearer.settings.base import Count, Fraction, Positive, Section, named

#: Kinds of generated queries.
KINDS = ("keywords", "question", "symptom", "several")
Kind = Literal["keywords", "question", "symptom", "several"]


class Generate(Section):
    """Generated queries: what makes them, of which kinds, and which of them are refused."""

    generator: Annotated[str, named("generator")] = Field(
        "local", description="local (needs no endpoint), openai (an endpoint), or my_module:MyClass"
    )
    url: str | None = Field(
        None,
        description="where the generator's /chat/completions is (null: rag.url); token, prices, cap and parameters are those of rag",
    )
    model: str | None = Field(None, description="the model that writes queries (null: rag.model)")
    kinds: tuple[Kind, ...] = Field(
        ("keywords", "question", "symptom"),
        min_length=1,
        description="keywords, question, symptom (a description without the name), several (answered by two documents together)",
    )
    per_kind: Positive = Field(1, description="queries per document and kind")
    documents: Positive | None = Field(
        None, description="documents that queries are made of, drawn by the seed (null: all)"
    )
    characters: Positive = Field(4000, description="of each document that the generator reads")
    examples: Count = Field(
        6, description="training queries of people that an endpoint is shown for their style"
    )
    instructions: str | None = Field(
        None, description="what the endpoint is told besides, such as who asks and in which words"
    )
    top: Positive = Field(
        20,
        description="round trip: dense and BM25 must both find the document among so many (at most a tenth of the corpus)",
    )
    copied_words: Annotated[int, Field(ge=2)] = Field(
        6, description="words in a row as in the document from which on a query is a copy"
    )
    overlap: Fraction = Field(
        0.8, description="largest share of a longer query's words that stand in the document"
    )

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("a kind stands twice")
        return kinds
