"""Section about judgments by people: the page, its reviewers, and when there are enough of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nearer.settings.base import Fraction, Positive, Section, named


class Review(Section):
    """Judgments by people: what they are asked, who sees what, and when it is enough."""

    host: str = Field(
        "127.0.0.1",
        description="address of the page; anything else than loopback lets others reach it",
    )
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8078, description="0: any free one")
    depth: Positive = Field(10, description="results of each system that people judge")
    overlap: Fraction = Field(
        0.2, description="share of the pairs that two people judge, to measure their agreement"
    )
    block: Positive = Field(
        20,
        description="pairs of about the same weight that are shown in random order, so that the order tells nothing",
    )
    questions: Positive = Field(
        60, description="odd-one-out questions about each grouping of a cluster project, at most"
    )
    token_days: Positive = Field(30, description="days until a reviewer's token expires")
    certainty: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.95,
        description="probability that further judgments leave the verdict as it is, from which on it is settled",
    )
    max_body: Positive = Field(16_384, description="bytes a request to the page, at most")
    judge: Annotated[str, named("judge")] = Field(
        "chat", description="what grades pairs in nearer review judge; its grades decide nothing"
    )
    judge_url: str | None = Field(
        None,
        description="where the judge's /chat/completions is (null: rag.url); token, prices, cap and parameters are those of rag",
    )
    judge_model: str | None = Field(
        None, description="the model that judges (null: rag.judge, else rag.model)"
    )
    judge_pairs: Annotated[int, Field(ge=50)] = Field(
        200, description="pairs graded by people that the judge is compared on, at most"
    )
