"""Folders of documents as people keep them, read into a corpus: Markdown, HTML, PDF and plain text.

`folder.py` finds the files and says what was left out; every other file reads one format.
"""

from nearer.data.documents.folder import DocumentFolder, read_folder

__all__ = ["DocumentFolder", "read_folder"]
