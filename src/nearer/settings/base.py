"""What every section of nearer.yaml is, and the ranges that several settings share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A section: frozen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
