"""Labelled documents as item-to-item data: a document asks for those that share its label.

So every stage that knows how to find documents knows how to judge, mine and train for clusters.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearer.config import Config
from nearer.data import load as search_data
from nearer.data.corpus import Corpus
from nearer.data.load import Loaded
from nearer.data.sources import bad
from nearer.types import SPLITS, Document, Judgments, Query, is_blank

#: Labels of which training, dev and test each need at least so many.
_FEWEST = 2
_NO_LABEL = "documents have no label: nobody judges where they belong"
_ALONE = "documents are alone with their label"

Members = dict[str, list[str]]  # label → document ids


@dataclass(frozen=True)
class Labelled:
    """Labels of documents, of those that share theirs with another; what was left out, by reason."""

    label_of: Mapping[str, str]
    dropped: Mapping[str, int]

    @property
    def members(self) -> Members:
        """Documents by label, both in the order of the corpus."""
        members: Members = {}
        for doc_id, label in self.label_of.items():
            members.setdefault(label, []).append(doc_id)
        return members


def labelled(corpus: Corpus, field: str) -> Labelled:
    """Labels of the documents.  Raises DataError where no document has the field, or all share one label."""
    label_of: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for document in corpus:
        label = _label(document, field, corpus)
        if label is None or is_blank(document.content):
            dropped[_NO_LABEL] += 1
        else:
            label_of[document.id] = label
    if not label_of:
        first = next(iter(corpus))
        known = ", ".join(first.metadata) or "none"
        raise bad(
            f"no document has the field {field!r}; the first one has: {known}",
            corpus.source,
            "set cluster.label to the field that says where documents belong",
        )
    sizes = Counter(label_of.values())
    shared = {doc_id: label for doc_id, label in label_of.items() if sizes[label] > 1}
    dropped[_ALONE] = len(label_of) - len(shared)
    if len(set(shared.values())) < _FEWEST:
        raise bad(
            f"{len(label_of)} of {len(corpus)} documents have a {field!r}, and "
            f"{len(set(shared.values()))} of its values stands on two documents or more",
            corpus.source,
            "label more documents: clusters of one kind tell nothing apart",
        )
    return Labelled(shared, {why: count for why, count in dropped.items() if count})


def _label(document: Document, field: str, corpus: Corpus) -> str | None:
    value = document.metadata.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, list | tuple | dict):
        raise bad(
            f"{field!r} of document {document.id!r} is a {type(value).__name__}, not one label",
            corpus.source,
            "name a field with one value per document in cluster.label",
        )
    return str(value)


def load(settings: Config, root: Path) -> Loaded:
    """Documents as queries for those of their label, by split.  Raises DataError."""
    corpus = search_data.load_corpus(settings.data, root)
    field = settings.cluster.label
    if field is None:
        known = ", ".join(next(iter(corpus)).metadata) or "none"
        raise bad(
            "cluster.label names no field: nothing says which documents belong together",
            corpus.source,
            f"set it (fields here: {known}); nearer clusters groups documents without labels",
        )
    found = labelled(corpus, field)
    if settings.cluster.hold_out == "rows":
        parts = _by_row(found.members, settings)
    else:
        parts = _by_class(found.members, settings, corpus)
    queries: dict[str, Query] = {}
    judgments: dict[str, Judgments] = {}
    for name in SPLITS:
        asked, relevant = parts[name]
        judgments[name] = _judged(asked, relevant)
        for doc_id in judgments[name]:
            queries[doc_id] = Query(doc_id, corpus[corpus.position(doc_id)].content)
    return Loaded(corpus, queries, judgments, found.dropped)


#: Documents that ask, and those that may answer, each by label.
_Part = tuple[Members, Members]


def _by_class(members: Members, settings: Config, corpus: Corpus) -> dict[str, _Part]:
    """Whole labels held out: the question is whether the geometry helps with labels never seen."""
    labels = sorted(members)
    random.Random(settings.seed).shuffle(labels)  # noqa: S311 - a reproducible split, no secret
    shares = settings.data.split
    n_test = max(_FEWEST, round(shares.test * len(labels)))
    n_dev = max(_FEWEST, round(shares.dev * len(labels)))
    if len(labels) - n_test - n_dev < _FEWEST:
        raise bad(
            f"{len(labels)} labels are too few to hold some out for dev and test",
            corpus.source,
            "set cluster.hold_out: rows, or lower data.split.test",
        )
    names = {
        "test": labels[:n_test],
        "dev": labels[n_test : n_test + n_dev],
        "train": labels[n_test + n_dev :],
    }
    parts = {}
    for name, own in names.items():
        inside = {label: members[label] for label in sorted(own)}
        parts[name] = (_sampled(inside, settings), inside)
    return parts


def _by_row(members: Members, settings: Config) -> dict[str, _Part]:
    """Documents held out of every label: training knows neither them nor that they belong together."""
    shares = settings.data.split
    rows: dict[str, Members] = {name: {} for name in SPLITS}
    rng = random.Random(settings.seed)  # noqa: S311 - a reproducible split, no secret
    for label in sorted(members):
        shuffled = list(members[label])
        rng.shuffle(shuffled)
        n_test, n_dev = round(shares.test * len(shuffled)), round(shares.dev * len(shuffled))
        rows["test"][label] = shuffled[:n_test]
        rows["dev"][label] = shuffled[n_test : n_test + n_dev]
        rows["train"][label] = shuffled[n_test + n_dev :]
    answers = {"train": rows["train"], "dev": members, "test": members}
    return {name: (_sampled(rows[name], settings), answers[name]) for name in SPLITS}


def _sampled(members: Members, settings: Config) -> Members:
    """At most `cluster.per_class` documents of each label."""
    rng = random.Random(settings.seed)  # noqa: S311 - a reproducible sample, no secret
    most = settings.cluster.per_class
    sampled = {}
    for label, doc_ids in members.items():
        sampled[label] = doc_ids
        if len(doc_ids) > most:
            sampled[label] = sorted(rng.sample(doc_ids, most))
    return sampled


def _judged(
    asked: Mapping[str, Sequence[str]], relevant: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, int]]:
    """Every other document of the label, for each that asks; none that would find nothing."""
    judged = {}
    for label, doc_ids in asked.items():
        for doc_id in doc_ids:
            others = {other: 1 for other in relevant[label] if other != doc_id}
            if others:
                judged[doc_id] = others
    return judged
