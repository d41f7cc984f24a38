"""Section of a language model that answers from the results of the search."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from nearer.settings.base import Positive, Section


class Rag(Section):
    """A language model that reads the results; with `url`, decide also judges its answers."""

    url: str | None = Field(
        None,
        description="where /chat/completions is, such as http://localhost:8000/v1 (token: NEARER_RAG_TOKEN); null: no answers",
    )
    model: str | None = Field(None, description="the model that answers")
    judge: str | None = Field(
        None, description="the model that grades answers, at the same address (null: rag.model)"
    )
    graded: str | None = Field(
        None,
        description="answers that people graded (JSONL: question, answer, references, correct); without them no judge is asked",
    )
    budget: Positive = Field(2000, description="tokens of context per question")
    queries: Positive = Field(
        500, description="test queries with reference answers that are asked, at most"
    )
    instructions: str | None = Field(
        None, description="what the model is told before the passages (null: see docs/rag.md)"
    )
    parameters: dict[str, int | float | str | bool] = Field(
        {"temperature": 0, "max_tokens": 256}, description="sent with each request"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(60.0, description="seconds per request")
    parallel: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="requests at a time: what a kill can cost"
    )
    price_per_million_tokens: Annotated[float, Field(ge=0)] | None = Field(
        None, description="of tokens sent, for the costs that are shown and capped"
    )
    price_per_million_answered: Annotated[float, Field(ge=0)] | None = Field(
        None, description="of tokens answered (null: as of those sent)"
    )
    max_cost: Annotated[float, Field(ge=0)] | None = Field(
        None, description="the most that one command may spend"
    )

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {
            "timeout",
            "parallel",
            "price_per_million_tokens",
            "price_per_million_answered",
            "max_cost",
        }
    )

    @property
    def most_answered(self) -> int | None:
        """Tokens that are answered to one request at most, as the parameters bound them; None without."""
        bounds = []
        for name in ("max_tokens", "max_completion_tokens"):
            bound = self.parameters.get(name)
            if type(bound) is int and bound > 0:  # servers take -1 for no bound
                bounds.append(bound)
        if not bounds:
            return None
        answers = self.parameters.get("n", 1)
        return max(bounds) * (answers if type(answers) is int and answers > 0 else 1)

    @model_validator(mode="after")
    def _complete(self) -> Rag:
        if self.url is not None and not self.model:
            raise ValueError("url is set and model is not: name the model that answers")
        if self.max_cost is not None and self.price_per_million_tokens is None:
            raise ValueError("a cap on costs needs a price: set price_per_million_tokens too")
        if self.max_cost is not None and self.most_answered is None:
            raise ValueError(
                "a cap on costs needs a bound on answers: set max_tokens in rag.parameters too"
            )
        return self
