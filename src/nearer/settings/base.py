"""What every section of nearer.yaml is, and the ranges that several settings share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nearer import plugins

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # what every library's generator takes


class Section(BaseModel):
    """A section: frozen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Settings on which no result depends: a stage does not run again because one changed.
    without_effect: ClassVar[frozenset[str]] = frozenset()


def named(seam: str, *others: str) -> AfterValidator:
    """For a setting that names an implementation of a seam, or is one of `others`.

    An unknown name is refused with the nearest known one; nothing is imported.
    """

    def known(name: str) -> str:
        return name if name in others else plugins.require(seam, name)

    return AfterValidator(known)
