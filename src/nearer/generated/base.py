"""The seam of query generators: documents in, proposed queries out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nearer import plugins
from nearer.config import Config
from nearer.errors import ModelError
from nearer.settings.generate import KINDS
from nearer.types import Document

#: Kind of a query that two documents answer together.
SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class Brief:
    """One piece of work: documents, and how many queries of which kinds they should answer.

    There is one document, or two where the kind is `several`.
    """

    documents: tuple[Document, ...]
    kinds: tuple[str, ...]
    per_kind: int


class Draft(NamedTuple):
    """A proposed query."""

    kind: str
    text: str


@runtime_checkable
class QueryGenerator(Protocol):
    """Proposes queries.  The same briefs give the same queries wherever that can be had."""

    @property
    def name(self) -> str:
        """What stands in `generated/summary.json`."""

    def generate(self, briefs: Sequence[Brief]) -> Sequence[Sequence[Draft]]:
        """The queries of each brief, in order; none where it finds none.  Raises ModelError."""


@dataclass(frozen=True, slots=True)
class GeneratorSpec:
    """What a class of the seam is made from, in its `from_spec` where it has one.

    `examples` are training queries of people, for their style.
    """

    settings: Config
    root: Path
    cache: Path | None = None
    examples: tuple[str, ...] = ()


def load_generator(spec: GeneratorSpec) -> QueryGenerator:
    """The generator that `generate.generator` names.  Raises ConfigError and ModelError."""
    name = spec.settings.generate.generator
    generator: QueryGenerator = plugins.answerer(
        "generator", name, spec, QueryGenerator, "generate(briefs)"
    )
    return generator


def proposals(generator: QueryGenerator, briefs: Sequence[Brief]) -> list[list[Draft]]:
    """What a generator proposes for each brief, of the kinds that were asked for.

    Raises ModelError for anything that is no list of drafts per brief.
    """
    with plugins.answering(generator, "generate(briefs)"):
        given: Any = generator.generate(briefs)
        if isinstance(given, Iterable):  # whatever is lazy runs here, so that its errors are named
            given = [list(drafts) if isinstance(drafts, Iterable) else drafts for drafts in given]
    try:
        answers = [[Draft(*draft) for draft in drafts] for drafts in given]
    except (TypeError, ValueError) as error:
        raise _wrong(generator, f"gave no (kind, text) per query: {error}") from None
    if len(answers) != len(briefs):
        raise _wrong(generator, f"gave {len(answers)} answers to {len(briefs)} briefs")
    for drafts in answers:
        for draft in drafts:
            if draft.kind not in KINDS or not isinstance(draft.text, str):
                raise _wrong(generator, f"gave {tuple(draft)!r}, which is no (kind, text)")
    wanted = []
    for brief, drafts in zip(briefs, answers, strict=True):
        wanted.append([draft for draft in drafts if draft.kind in brief.kinds])
    return wanted


def estimate_of(generator: QueryGenerator, briefs: Sequence[Brief]) -> str:
    """What a generator would send and cost, as a sentence.  Raises ModelError."""
    estimate = getattr(generator, "estimate", None)
    if estimate is None:
        return f"{generator.name}: {len(briefs):,} documents, nothing is sent"
    with plugins.answering(generator, "estimate(briefs)"):
        return str(estimate(briefs))


def _wrong(generator: QueryGenerator, problem: str) -> ModelError:
    return ModelError(
        f"the generator {problem}"[:500],
        where=plugins.named(generator),
        next_step="mend its generate(briefs)",
    )
