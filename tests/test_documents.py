"""A project from a folder of documents: what is read, what is left out and said."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import yaml

from generated_kit import nearer, write_documents
from nearer.data.documents import html, markdown, read_folder
from nearer.data.documents.page import UnreadableError
from nearer.errors import DataError

#: A PDF of one page with the line “Seal the pump”, uncompressed.
PDF = b"""%PDF-1.4
1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj
2 0 obj << /Type /Pages /Kids [3 0 R] /Count 1 >> endobj
3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents 4 0 R
/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >> endobj
4 0 obj << /Length 48 >> stream
BT /F1 12 Tf 20 200 Td (Seal the pump) Tj ET   \n
endstream endobj
5 0 obj << /Title (Pump manual) >> endobj
trailer << /Root 1 0 R /Info 5 0 R /Size 6 >>
startxref
0
%%EOF
"""


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("# Pumps\n\nThey leak.", "Pumps", "They leak."),
        ("Pumps\n=====\n\nThey leak.", "Pumps", "They leak."),
        ("---\ntitle: Of pumps\n---\n# Pumps\nLeak.", "Of pumps", "# Pumps\nLeak."),
        ("---\n: [broken\n---\nLeak.", "", "Leak."),
        ("```\n# a comment\n```\n\n## The [pump](x.md) `p_1`\nLeak.", "The pump p_1", None),
        ("Before.\n\n# Pumps\n\nAfter.<!-- hidden -->", "Pumps", "Before.\n\n\n\nAfter."),
        ("no heading at all", "", "no heading at all"),
        ("", "", ""),
    ],
)
def test_markdown_has_its_heading_as_title(text: str, title: str, body: str | None) -> None:
    page = markdown.read(text.encode())
    assert page.title == title
    if body is not None:
        assert page.text == body


@pytest.mark.parametrize(
    ("source", "title", "text"),
    [
        ("<title>T</title><h1>A &amp; B</h1><p>one<p>two", "A & B", "one\n\ntwo"),
        ("<title>T</title><p>one</p>", "T", "one"),
        ("<nav>menu</nav><main><h2>Part</h2>one</main><footer>f</footer>", "", "## Part\none"),
        ("<script>var x = '<p>no</p>';</script><style>p {}</style><p>yes</p>", "", "yes"),
        ("<table><tr><td>a<td>b</tr></table>", "", "a b"),
        ("<h1>Open<p>text</p>", "Open", "text"),
        ("<nav>only <b>menu", "", ""),
        ("plain & simple", "", "plain & simple"),
        ("<h1></h1><h1>Second</h1>x", "Second", "x"),
    ],
)
def test_html_is_what_a_reader_reads(source: str, title: str, text: str) -> None:
    page = html.read(source.encode())
    assert (page.title, page.text) == (title, text)


def test_html_is_read_in_the_encoding_that_it_declares() -> None:
    page = html.read("<meta charset='iso-8859-1'><h1>Größe</h1>".encode("latin-1"))
    assert page.title == "Größe"
    with pytest.raises(UnreadableError, match="no UTF-8 text"):
        html.read("<h1>Größe</h1>".encode("latin-1"))
    assert html.read("<h1>Größe</h1>".encode("utf-16")).title == "Größe"


@pytest.mark.parametrize(
    "content",
    [b"<p>see <![ bad ]> x</p>", b"<![0]>", b'<meta charset="undefined"> caf\xe9'],
)
def test_html_that_cannot_be_read_is_left_out_with_its_name(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError):
        html.read(content)
    (tmp_path / "broken.html").write_bytes(content)
    (tmp_path / "whole.html").write_text("<h1>Pumps</h1><p>They leak.</p>")
    folder = read_folder(tmp_path)
    assert [document.title for document in folder.documents] == ["Pumps"]
    assert "broken.html" in str(folder)


def test_a_folder_becomes_documents_and_says_what_it_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "notes.md").write_text("# hidden")
    (tmp_path / "sub" / "a-first_page.txt").write_text("one")
    (tmp_path / "tab\there.md").write_text("# Tab\nx")
    (tmp_path / "empty.md").write_text("  \n")
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02")
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "manual.pdf").write_bytes(PDF)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    read = read_folder(tmp_path)
    assert [document.id for document in read.documents] == [
        "manual.pdf",
        "sub/a-first_page.txt",
        "tab%09here.md",
    ]
    assert read.documents[0].text == "Seal the pump"
    assert read.documents[0].title == "Pump manual"
    assert read.documents[1].title == "a first page"
    assert set(read.left_out) == {
        "no text in them",
        "no text but binary data",
        "no UTF-8 text",
        "nothing reads .png",
        "PDF that is damaged, or needs pypdf[crypto]",
    }
    assert any("image.png" in line for line in read.lines)


def test_a_pdf_without_the_extra_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "manual.pdf").write_bytes(PDF)
    with pytest.raises(DataError, match=r"pip install 'nearer\[documents\]'"):
        read_folder(tmp_path)
    (tmp_path / "note.md").write_text("# Note\ntext")
    assert any("nearer[documents]" in line for line in read_folder(tmp_path).lines)


@pytest.mark.parametrize(
    ("names", "says"),
    [([], "holds no files"), (["a.png", "b.png"], "none of the 2 files"), (None, "no such folder")],
)
def test_a_folder_without_documents_is_refused(
    tmp_path: Path, names: list[str] | None, says: str
) -> None:
    folder = tmp_path / "docs"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"x")
    result = nearer("init", tmp_path / "project", "--documents", folder)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
    assert not (tmp_path / "project" / "nearer.yaml").exists()


def test_init_writes_a_corpus_and_settings_that_say_what_comes_next(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "docs", 12)
    project = tmp_path / "project"
    result = nearer("init", project, "--documents", documents)
    assert result.exit_code == 0, result.output
    assert "nearer generate" in result.output
    settings = yaml.safe_load((project / "nearer.yaml").read_text())
    assert settings["data"]["corpus"] == "corpus.jsonl"
    assert settings["data"]["generated"] == "train,dev,test"
    lines = [json.loads(line) for line in (project / "corpus.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert all(line["title"] and line["text"] for line in lines)
    assert lines[0]["_id"].startswith("a/")
    again = nearer("init", project, "--documents", documents)
    assert again.exit_code == 2
    assert nearer("init", project, "--documents", documents, "--force").exit_code == 0


def test_a_file_of_documents_alone_is_enough_too(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "b"}\n')
    result = nearer("init", tmp_path / "p", "--corpus", tmp_path / "c.jsonl")
    assert result.exit_code == 0, result.output
    assert "no queries yet" in result.output
    settings = yaml.safe_load((tmp_path / "p/nearer.yaml").read_text())
    assert settings["data"]["generated"] == "train,dev,test"


def test_a_second_corpus_is_refused(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "docs", 12)
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "b"}\n')
    result = nearer(
        "init", tmp_path / "p", "--documents", documents, "--corpus", tmp_path / "c.jsonl"
    )
    assert result.exit_code == 2
    assert "another one is named" in result.output


def test_documents_beside_judgments_need_no_generated_queries(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "docs", 12)
    doc_id = sorted(path.relative_to(documents).as_posix() for path in documents.rglob("*.*"))[0]
    (tmp_path / "q.jsonl").write_text('{"_id": "q1", "text": "what"}\n')
    (tmp_path / "j.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\t{doc_id}\t1\n")
    words = ["--queries", tmp_path / "q.jsonl", "--judgments", tmp_path / "j.tsv"]
    result = nearer("init", tmp_path / "p", "--documents", documents, *words)
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "p/nearer.yaml").read_text())["data"]["generated"] == "none"


def test_without_generated_queries_the_next_command_is_named(
    tmp_path: Path, tiny_model: Path
) -> None:
    documents = write_documents(tmp_path / "docs", 12)
    project = tmp_path / "project"
    nearer("init", project, "--documents", documents, "--model", tiny_model)
    for command in ("check", "run", "status"):
        result = nearer(command, "-c", project / "nearer.yaml")
        assert result.exit_code == 2
        assert "nearer generate" in result.output


@pytest.mark.parametrize(
    "content", [b"<p>a</p><![ bad ]>", b'<meta charset="undefined"><p>\xff</p>']
)
def test_a_page_that_cannot_be_read_is_left_out_and_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_bytes(content)
    (tmp_path / "good.md").write_text("# Good\n\nText of a page.")
    found = read_folder(tmp_path)
    assert [document.id for document in found.documents] == ["good.md"]
    assert list(found.left_out.values()) == [("bad.html",)]


def test_file_names_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    for name in (b"a\xff.md", b"a\xfe.md"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("Some text.")
    assert len({document.id for document in read_folder(tmp_path).documents}) == 2


def test_the_title_of_a_drawing_is_not_the_pages() -> None:
    page = html.read(b"<title>Page</title><svg><title>Icon</title></svg><p>Text</p>")
    assert page == ("Page", "Text")


def test_comments_that_never_end_take_no_time() -> None:
    began = time.monotonic()
    assert markdown.read(b"a <!-- b --> c " + b"<!-- x " * 20_000).text.startswith("a  c <!-- x")
    assert time.monotonic() - began < 2.0
