"""Plants failures of known cause in a real corpus.

Healthy pairs are made first: a sentence of a document as the query, which search answers with that
document among the first three.  Each is then broken in one way, and the cause is known by
construction.  Nothing here knows how diagnosis works.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TENANTS = ("northwind", "fabrikam", "contoso", "tailspin", "litware")
_SYLLABLES = (
    "zor",
    "vex",
    "plim",
    "quan",
    "dle",
    "brax",
    "tuk",
    "mro",
    "ghe",
    "spo",
    "wint",
    "yal",
)

Line = dict[str, Any]


@dataclass
class Planted:
    """A BEIR folder in the making; `truth` is query id → cause, `lost` documents that the index forgot."""

    documents: dict[str, Line]
    rng: np.random.Generator
    sources: tuple[str, ...] = field(init=False)  # texts of the documents before any was broken
    queries: list[Line] = field(default_factory=list)
    judgments: dict[str, str] = field(default_factory=dict)
    truth: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    oracle: dict[str, str] = field(
        default_factory=dict
    )  # query text → beginning of what a reranker should prefer
    _added: int = 0

    def __post_init__(self) -> None:
        self.sources = tuple(line["text"] for line in self.documents.values())

    def ask(self, cause: str, text: str, doc_id: str, **more: Any) -> None:
        query_id = f"p{len(self.queries):04d}"
        self.queries.append({"_id": query_id, "text": text, **more})
        self.judgments[query_id], self.truth[query_id] = doc_id, cause

    def add(self, title: str, text: str, **metadata: Any) -> str:
        self._added += 1
        doc_id = f"added-{self._added:05d}"
        self.documents[doc_id] = {"_id": doc_id, "title": title, "text": text, **metadata}
        return doc_id

    def other_text(self, words: int, apart_from: str) -> str:
        """Sentences of other documents as they were, about so many words."""
        taken: list[str] = []
        own = self.documents[apart_from]["text"]
        while len(taken) < words:
            text = self.sources[int(self.rng.integers(len(self.sources)))]
            if text != own:
                taken += text.split()[:50]
        return " ".join(taken[:words]) + "."

    def write(self, folder: Path) -> Path:
        (folder / "qrels").mkdir(parents=True)
        _lines(folder / "corpus.jsonl", self.documents.values())
        _lines(folder / "queries.jsonl", self.queries)
        rows = "".join(f"{query_id}\t{doc_id}\t1\n" for query_id, doc_id in self.judgments.items())
        (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
        # Nothing is trained here, but a split must have something to train on and to test on.
        for split in ("train", "test"):
            (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n")
        return folder


def missing_document(planted: Planted, doc_id: str, query: str) -> None:
    planted.ask("missing_document", query, doc_id)
    del planted.documents[doc_id]


def ineligible(planted: Planted, doc_id: str, query: str) -> None:
    """The filter is right, the document's metadata is not (or is gone)."""
    document = planted.documents[doc_id]
    right = document["tenant"]
    wrong = [tenant for tenant in (*TENANTS, None) if tenant != right]
    document["tenant"] = wrong[int(planted.rng.integers(len(wrong)))]
    planted.ask("ineligible", query, doc_id, filter={"tenant": right})


def needs_metadata(planted: Planted, doc_id: str, query: str) -> None:
    """The same text for other tenants, a little nearer to the query."""
    document = planted.documents[doc_id]
    others = [tenant for tenant in TENANTS if tenant != document["tenant"]]
    for number in range(12):
        planted.add(
            document["title"], f"{query} {document['text']}", tenant=others[number % len(others)]
        )
    planted.ask("needs_metadata", query, doc_id, filter={"tenant": document["tenant"]})


def chunking(planted: Planted, doc_id: str, query: str) -> None:
    """The answer deep in a long document about many things."""
    document = planted.documents[doc_id]
    before, after = planted.other_text(320, doc_id), planted.other_text(120, doc_id)
    answer = f"{document['title']}: {document['text']} {query}"
    document["title"], document["text"] = "Collected notes", f"{before}\n\n{answer}\n\n{after}"
    planted.ask("chunking", query, doc_id)


def exact_match(planted: Planted, doc_id: str, query: str) -> None:
    """A code that stands in one document, among documents with codes that look like it."""
    planted.ask("exact_match", planted.documents[doc_id]["code"], doc_id)


def index_loss(planted: Planted, doc_id: str, query: str) -> None:
    planted.lost.append(doc_id)
    planted.ask("index_loss", query, doc_id)


def ranking(planted: Planted, doc_id: str, query: str) -> None:
    """Documents that repeat the question without answering it, which only reading closely tells from the right one."""
    document = planted.documents[doc_id]
    for number in range(12):
        planted.add(
            "Open question",
            f"{query} {query} Asked {number + 2} times, no answer yet.",
            tenant=document["tenant"],
        )
    planted.oracle[query] = f"{document['title']} {document['text']}".strip()[:200]
    planted.ask("ranking", query, doc_id)


def buried(planted: Planted, doc_id: str, query: str) -> None:
    """A short answer in a long document about other things, blank lines between, asked for as people ask."""
    document = planted.documents[doc_id]
    before, after = planted.other_text(420, doc_id), planted.other_text(200, doc_id)
    answer = f"{document['title']} {document['text']}".strip()
    document["title"], document["text"] = "", f"{before}\n\n{answer}\n\n{after}"
    planted.ask("chunking", query, doc_id)


def semantic(planted: Planted, doc_id: str, query: str) -> None:
    """What the team calls it, in words that nobody outside uses."""
    name = ["".join(planted.rng.choice(_SYLLABLES, 3)) for _ in range(3)]
    planted.ask("semantic", " ".join(name), doc_id)


PLANTERS: dict[str, Callable[[Planted, str, str], None]] = {
    planter.__name__: planter
    for planter in (
        missing_document,
        ineligible,
        needs_metadata,
        chunking,
        exact_match,
        index_loss,
        ranking,
        semantic,
    )
}


def read_documents(
    path: Path, rng: np.random.Generator, count: int, longest: int = 50
) -> dict[str, Line]:
    """Real documents, cut to their first words, each with a tenant and a code of its own in its text.

    `path` is a .jsonl file, packed by gzip where it ends in .gz.
    """
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    lines = [json.loads(line) for line in raw.decode().split("\n") if line]
    chosen = sorted(rng.permutation(len(lines))[:count].tolist())
    documents = {}
    for place in chosen:
        line = lines[place]
        letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTVWXZ"), 4))
        code = f"{letters[:2]}-{int(rng.integers(1000, 9999))}-{letters[2:]}"
        text = " ".join(line["text"].split()[:longest])
        tenant = TENANTS[int(rng.integers(len(TENANTS)))]
        documents[line["_id"]] = {
            "_id": line["_id"],
            "title": line.get("title", ""),
            "text": f"{text} Reference {code}.",
            "tenant": tenant,
            "code": code,
        }
    return documents


def sentence_of(document: Line) -> str:
    """The longest of the first sentences: what a person might ask with."""
    sentences = re.split(r"(?<=[.!?])\s+", document["text"].partition(" Reference ")[0])[:2]
    return max(sentences, key=len)


def plant(
    documents: dict[str, Line],
    healthy: Sequence[tuple[str, str]],
    causes: Sequence[str],
    each: int,
    seed: int,
) -> Planted:
    """Break `each` of the healthy (document id, query) pairs for every cause.

    Each cause has pairs and a generator of its own, so that it is planted alike whichever others
    stand beside it, and texts that were embedded for one system are there for the next.
    """
    planted = Planted(documents, np.random.default_rng(seed))
    for number, cause in enumerate(PLANTERS):
        if cause not in causes:
            continue
        planted.rng = np.random.default_rng([seed, number])
        pairs = healthy[number * each : (number + 1) * each]
        assert len(pairs) == each, f"{len(healthy)} healthy pairs are too few"
        for doc_id, query in pairs:
            PLANTERS[cause](planted, doc_id, query)
    for document in planted.documents.values():
        document.pop("code", None)  # it stands in the text alone, as in real life
    return planted


def _lines(path: Path, lines: Any) -> None:
    path.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )


def real_pairs(folder: Path, documents: dict[str, Line]) -> list[tuple[str, str, str]]:
    """(query id, text, document id) of train and dev queries with one relevant document, of `documents`."""
    queries = folder / "queries.jsonl"
    lines = [json.loads(line) for line in queries.read_text(encoding="utf-8").splitlines()]
    texts = {line["_id"]: line["text"] for line in lines}
    relevant: dict[str, list[str]] = {}
    for split in ("train", "dev"):
        rows = (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        for row in rows[1:]:
            query_id, doc_id, grade = row.split("\t")
            if int(grade) > 0:
                relevant.setdefault(query_id, []).append(doc_id)
    return [
        (query_id, texts[query_id], wanted[0])
        for query_id, wanted in sorted(relevant.items())
        if len(wanted) == 1 and wanted[0] in documents and query_id in texts
    ]


def bury(
    documents: dict[str, Line],
    healthy: Sequence[tuple[str, str]],
    most: int,
    rng: np.random.Generator,
) -> Planted:
    """Bury the documents of at most so many (document id, query) pairs, each document once."""
    planted = Planted(documents, rng)
    first: dict[str, str] = {}
    for doc_id, query in healthy:
        first.setdefault(doc_id, query)
    for doc_id, query in list(first.items())[:most]:
        buried(planted, doc_id, query)
    return planted
