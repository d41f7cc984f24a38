"""The names of what can be trained, as `train.method` and `train.candidates` have them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from nearer.training.methods.contest import ALL, NONE

Kind = Literal["full", "top", "lora", "query", "linear"]

#: Below `train/`: the models that were trained and that dev did not choose.
OTHERS = "others"

_RANK = 16  # of lora, where the name says none
_SIZED = re.compile(r"(top|lora):([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Method:
    """What is trained; `size` is the number of layers of `top`, or the rank of `lora`."""

    name: str
    kind: Kind
    size: int = 0

    @property
    def reindex(self) -> str:
        """What of an index must be embedded again."""
        return NONE if self.kind in ("query", "linear") else ALL


def folder_name(name: str) -> str:
    """A name of a trained model as a folder has it: `top:3 seed 8` is `top-3-seed-8`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)


def parse(name: str) -> Method:
    """The method that a setting names; it has been checked there."""
    sized = _SIZED.fullmatch(name)
    if sized is not None:
        kind: Kind = "top" if sized[1] == "top" else "lora"
        return Method(name, kind, int(sized[2]))
    if name == "lora":
        return Method(name, "lora", _RANK)
    if name == "query":
        return Method(name, "query")
    if name == "linear":
        return Method(name, "linear")
    return Method(name, "full")
