"""What the review page is made of: one empty page, and one piece of HTML per pair or question, all escaped."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from nearer.data.corpus import Corpus
from nearer.review.judgments import PICK
from nearer.review.pairs import Pair
from nearer.tasks.cluster.odd_one_out import Question
from nearer.text import fold, search_terms, token_spans
from nearer.types import Document

_LONGEST = 20_000  # characters of a document that are shown


@cache
def page(answer: str) -> tuple[str, str]:
    """The page as one string of HTML, and its content security policy.

    `answer` is the action of the log that answers what is asked: grade, or pick.
    """
    script = _own("nearer.review.web", "review.js")
    style = _own("nearer.report", "style.css") + _own("nearer.review.web", "review.css")
    view = {
        "picks": answer == PICK,
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
    }
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _environment().get_template("page.html.j2").render(view), policy


def html_of(asked: Pair | Question, corpus: Corpus) -> str:
    """What is asked, in HTML."""
    if isinstance(asked, Question):
        return _question_html(asked, corpus)
    return _pair_html(asked, corpus)


def _pair_html(pair: Pair, corpus: Corpus) -> str:
    """The query with its context and the document, words of the query marked in it."""
    view = {
        "query": pair.query,
        "filter": pair.filter or {},
        "tags": pair.tags,
        "document": _view_of(corpus.get(pair.doc_id), _terms(pair.query)),
    }
    return _environment().get_template("pair.html.j2").render(view)


def _question_html(question: Question, corpus: Corpus) -> str:
    """Three documents beside each other, in the order of the question, and nothing of their clusters."""
    documents = [_view_of(corpus.get(doc_id), frozenset()) for doc_id in question.documents]
    return _environment().get_template("question.html.j2").render({"documents": documents})


def _view_of(document: Document | None, terms: frozenset[str]) -> dict[str, Any]:
    """What is shown of a document, with some words marked; None: it left the corpus."""
    title = text = ""
    if document is not None:
        title, text = document.title, document.text
    return {
        "missing": document is None,
        "title": marked(title, terms),
        "text": marked(text[:_LONGEST], terms),
        "cut": len(text) > _LONGEST,
    }


def marked(text: str, terms: frozenset[str]) -> Markup:
    """The escaped text, with `<mark>` around the words that are among the folded `terms`."""
    parts: list[Markup] = []
    position = 0
    for start, end in token_spans(text):
        word = text[start:end]
        if fold(word) in terms:
            parts.append(escape(text[position:start]))
            parts.append(Markup("<mark>{}</mark>").format(word))
            position = end
    parts.append(escape(text[position:]))
    return Markup("").join(parts)


def _terms(query: str) -> frozenset[str]:
    """Words of a query that say something: the shortest ones stand everywhere."""
    terms = search_terms(query)
    long = {term for term in terms if len(term) > 3 or not term.isascii()}
    return frozenset(long or terms)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nearer.review", "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _own(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text("utf-8")
