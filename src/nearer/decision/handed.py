"""What other stages hand to `decide` in a notebook, as far as it matters there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from nearer.embed.base import TextEncoder


class Tuned(Protocol):
    """What `train` returns."""

    @property
    def model(self) -> Any:
        """The fine-tuned SentenceTransformer; None where there is none."""

    @property
    def encoder(self) -> TextEncoder | None:
        """What gives its vectors; None where nothing was trained."""

    @property
    def others(self) -> Mapping[str, TextEncoder]:
        """Models that were trained as well and not chosen, by name."""


class Summarised(Protocol):
    """What `diagnose` returns."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """`diagnose/summary.json`."""


class Laddered(Protocol):
    """What `fix` returns."""

    @property
    def ladder(self) -> Mapping[str, Any]:
        """`fix/summary.json`."""
