"""The text layer of PDF files, read by pypdf; scanned pages hold none."""

from __future__ import annotations

import io
import logging

from nearer.data.documents.page import Page, UnreadableError
from nearer.types import is_blank


def read(content: bytes) -> Page:
    """The title that the file declares, and the text of its pages.  Raises UnreadableError."""
    try:
        from pypdf import PdfReader
    except ImportError:
        raise UnreadableError("PDF needs an extra (pip install 'nearer[documents]')") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns about every oddity of a file
    text = declared = None
    try:
        reader = PdfReader(io.BytesIO(content))
        readable = not reader.is_encrypted or bool(reader.decrypt(""))
        if readable:
            text = "\n\n".join(page.extract_text() for page in reader.pages)
            declared = reader.metadata.title if reader.metadata else None
    except Exception:  # noqa: BLE001 - a damaged file makes the library fail in any way
        raise UnreadableError("PDF that is damaged, or needs pypdf[crypto]") from None
    if text is None:
        raise UnreadableError("PDF with a password")
    if is_blank(text):
        raise UnreadableError("PDF without a text layer (scanned pages)")
    # A text layer may hold half of a surrogate pair, or zeros, which no file of texts can.
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    return Page(declared if isinstance(declared, str) else "", text)
