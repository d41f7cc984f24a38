"""Reads a folder of documents: one document per file, its id the path below the folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from nearer import progress
from nearer.data.documents import html, markdown, pdf
from nearer.data.documents.page import Page, UnreadableError, decoded
from nearer.data.sources import bad
from nearer.files import files_below
from nearer.types import Document, is_blank

_LARGEST = 64 * 2**20  # bytes of one file
_EXAMPLES = 5  # of the files that were left out, per reason
#: Tabs, line ends and other controls in the name of a file: no file of judgments can hold them.
_CONTROLS = str.maketrans({chr(code): quote(chr(code)) for code in range(32)})

Reader = Callable[[bytes], Page]


def _plain(content: bytes) -> Page:
    """The text as it is; its title is the file's name."""
    return Page("", decoded(content))


#: Ending of a file → what reads it.
READERS: Mapping[str, Reader] = {
    ".md": markdown.read,
    ".markdown": markdown.read,
    ".html": html.read,
    ".htm": html.read,
    ".xhtml": html.read,
    ".txt": _plain,
    ".text": _plain,
    ".rst": _plain,
    ".pdf": pdf.read,
}


@dataclass(frozen=True, slots=True)
class DocumentFolder:
    """The documents in order of their ids, and the files that became none, by reason."""

    documents: tuple[Document, ...]
    left_out: Mapping[str, tuple[str, ...]]

    @property
    def lines(self) -> list[str]:
        """What was left out, as sentences for people."""
        lines = []
        for reason, names in self.left_out.items():
            shown = ", ".join(names[:_EXAMPLES])
            more = len(names) - _EXAMPLES
            if more > 0:
                shown += f" and {more:,} more"
            lines.append(f"{len(names):,} files left out, {reason}: {shown}")
        return lines


def read_folder(folder: Path) -> DocumentFolder:
    """Every document below a folder, hidden files and folders left out.

    Raises DataError where there is no such folder, or no document in it.
    """
    if not folder.is_dir():
        raise bad("no such folder", folder, "nearer init DIR --documents FOLDER")
    documents: dict[str, Document] = {}
    left_out: dict[str, list[str]] = {}
    paths = list(_visible(folder))
    with progress.task("read documents", len(paths), "files") as bar:
        for path in paths:
            name = _id(path, folder)
            try:
                documents[name] = _document(path, name)
            except UnreadableError as error:
                left_out.setdefault(str(error), []).append(name)
            bar.advance()
    if not documents:
        raise bad(_nothing(paths, left_out), folder, f"give it files with {', '.join(READERS)}")
    ordered = tuple(documents[name] for name in sorted(documents))
    return DocumentFolder(ordered, {reason: tuple(names) for reason, names in left_out.items()})


def _visible(folder: Path) -> Iterator[Path]:
    for path in files_below(folder):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _id(path: Path, folder: Path) -> str:
    """The path below the folder, with `/`; what no file of judgments can hold is written as %09."""
    relative = path.relative_to(folder).as_posix()
    readable = os.fsencode(relative).decode("utf-8", "backslashreplace")
    return readable.translate(_CONTROLS)


def _document(path: Path, name: str) -> Document:
    """The document of a file.  Raises UnreadableError with the reason why there is none."""
    ending = path.suffix.lower()
    reader = READERS.get(ending)
    if reader is None:
        raise UnreadableError(f"nothing reads {ending or 'files without an ending'}")
    try:
        if path.stat().st_size > _LARGEST:
            raise UnreadableError(f"larger than {_LARGEST // 2**20} MB")
        page = reader(path.read_bytes())
    except OSError as error:
        raise UnreadableError(f"cannot be opened ({error.strerror})") from None
    title = " ".join(page.title.split()) or path.stem.replace("_", " ").replace("-", " ").strip()
    if is_blank(page.text) and not page.title.strip():
        raise UnreadableError("no text in them")
    return Document(name, page.text.strip(), title)


def _nothing(paths: list[Path], left_out: Mapping[str, list[str]]) -> str:
    if not paths:
        return "the folder holds no files"
    counts = Counter({reason: len(names) for reason, names in left_out.items()})
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(4))
    return f"none of the {len(paths):,} files holds a document: {reasons}"
