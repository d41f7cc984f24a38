"""From the spec of a chunker, such as `tokens:200:50+title`, to the chunker."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from nearer import plugins
from nearer.errors import ConfigError
from nearer.search.chunkers.base import Chunk, Chunker, Spec, TokenSpans, UnknownSpecError
from nearer.types import Document

_SEAM = "chunker"
_USERS_OWN = re.compile(r"[\w.]+:[^\W\d]\w*")
_CONTRACT = "a class made without arguments; chunk(document) gives a list of Chunk"


def make_chunker(spec: str, spans: TokenSpans, root: Path | None = None) -> Chunker:
    """The chunker of a spec; `spans` gives the tokens of a text, `root` is where the module of a class of your own is.

    With `+title` the title stands before every chunk of the body and is not counted.  Your class is
    made without arguments, or by its `from_spec`.  Raises ConfigError for an unknown spec and a
    missing library, SearchSystemError for a class that cannot be imported.
    """
    parsed = Spec.parse(spec, spans)
    ours = parsed.name in plugins.SEAMS[_SEAM].ours
    if ours or parsed.name in plugins.names(_SEAM):
        implementation = plugins.find(_SEAM, parsed.name)
    elif _USERS_OWN.fullmatch(spec):
        implementation = plugins.find(_SEAM, spec, root)
        parsed = Spec(spec, spec, (), False, spans)
    else:
        raise _unknown(spec)
    if not hasattr(implementation, "from_spec"):
        if parsed.arguments or parsed.with_title:
            raise _unknown(spec)
        return Checked(spec, implementation)
    try:
        chunker: Chunker = implementation.from_spec(parsed)
    except UnknownSpecError:
        raise _unknown(spec) from None
    if ours:
        return chunker
    return Checked(str(getattr(chunker, "name", spec)), lambda: chunker)


def known_forms() -> str:
    """Every spec that can be written, for messages."""
    forms: list[str] = []
    for name in plugins.names(_SEAM):
        forms.extend(getattr(plugins.find(_SEAM, name), "forms", None) or (name,))
    return f"{', '.join(forms)} (each also with +title), or module:Class"


def _unknown(spec: str) -> ConfigError:
    return ConfigError(
        f"no chunker called {spec!r}", where="chunker", next_step=f"use {known_forms()}"
    )


class Checked:
    """A chunker that is not ours, its answers checked: wrong offsets would silently lose relevance by spans.

    It is made when the first document is cut.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self._make = make
        self._chunker = cast(Any, None)

    def chunk(self, document: Document) -> list[Chunk]:
        """Chunks in order, at least one.  Raises ConfigError that names the document and what went wrong."""
        content = document.content
        try:
            self._chunker = self._chunker or self._make()
            chunks = [_within(chunk, len(content)) for chunk in self._chunker.chunk(document)]
        except Exception as error:
            raise ConfigError(
                f"document {document.id!r}: {type(error).__name__}: {error}",
                where=self.name,
                next_step=_CONTRACT,
            ) from error
        return chunks or [Chunk(content, 0, len(content))]


def _within(chunk: Any, length: int) -> Chunk:
    if not 0 <= chunk.start <= chunk.end <= length:
        raise ValueError(f"{chunk.start}:{chunk.end} is outside of document.content")
    return Chunk(str(chunk.text), int(chunk.start), int(chunk.end))
