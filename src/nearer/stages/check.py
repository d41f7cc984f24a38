"""check: can this data be trusted to train and to judge?

`check(...)` takes values and returns a `CheckResult`; `step` reads files, calls it and writes
`findings.json`, `report.md`, `split/`, `heldout.npz` and `near_duplicates.json`.

What becomes of the data: judgments of unknown queries, and an item judged relevant to itself, are
left out; so are queries without text or without a relevant document.  Judgments of documents that
the corpus lacks stay, with a warning: they count as missed.  A split that the data brings is kept,
except that queries which repeat a later split's query (train < dev < test) are dropped.  Missing
splits are made: dev or test from train; all three when there is one split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nearer import config, files, progress
from nearer.data import load, near, splits
from nearer.data.corpus import Corpus
from nearer.data.fitting import (
    Found,
    Splits,
    fitting_judgments,
    notice_item_to_item,
    usable_queries,
)
from nearer.data.heldout import HeldOut
from nearer.embed.tokens import Tokens, load_tokens
from nearer.measure.significance import queries_needed, smallest_difference
from nearer.text import count_words
from nearer.types import SPLITS, Finding, Judgments, Query, Split, is_blank

if TYPE_CHECKING:
    from nearer.workspace import StepContext

ASSUMED_SD = 0.25  # paired differences of nDCG@10 (FIELD: seen in practice), until scores exist
_TOKENISED = 20_000  # documents, evenly spaced: enough for a share to half a percent point
_BATCH = 256  # texts tokenised at a time


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` found, and the frozen split.  Groups hold ids that are near-duplicates of each other."""

    counts: Mapping[str, Any]
    lengths: Mapping[str, Any]
    power: Mapping[str, Any]
    findings: tuple[Finding, ...]
    split_notes: tuple[str, ...]
    splits: Mapping[str, Split]
    held_out: HeldOut
    duplicate_documents: tuple[tuple[str, ...], ...]
    duplicate_train_queries: tuple[tuple[str, ...], ...]
    item_to_item: bool
    dropped: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """`findings.json`."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        return {
            "counts": self.counts,
            "lengths": self.lengths,
            "power": self.power,
            "item_to_item": self.item_to_item,
            "split": {"notes": self.split_notes, "queries": sizes, "dropped": self.dropped},
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def summary(self) -> dict[str, Any]:
        """What `nearer status` shows."""
        return {
            "documents": self.counts["documents"],
            "queries": {name: len(split) for name, split in self.splits.items()},
            "warnings": len(self.findings),
            "dropped_training_queries": self.dropped.get("train", 0),
            "smallest_difference": self.power["smallest_difference"],
        }


def check(
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Judgments],
    *,
    data: config.Data | None = None,
    settings: config.Check | None = None,
    seed: int = 7,
    tokens: Tokens | None = None,
) -> CheckResult:
    """Judge the data and freeze the split; `judgments` are by split (`all`: a split is made).

    Raises DataError, with a line for each fatal problem.
    """
    data, settings = data or config.Data(), settings or config.Check()
    found, threshold = Found(settings.examples), settings.near_duplicate
    item_to_item = notice_item_to_item(corpus, queries, judgments, data.item_to_item, found)
    usable = fitting_judgments(corpus, queries, judgments, item_to_item, found)
    lengths = _measure_texts(corpus, queries, tokens, found)
    if not any(item.fatal for item in found.items):
        usable = usable_queries(corpus, queries, usable, found)
    found.stop_if_fatal()
    documents = near.near_duplicates(corpus.contents(), threshold, reread=corpus.contents)
    _report_duplicates("documents", documents.pairs, corpus.ids, lambda i: corpus[i].content, found)
    divided, notes = _divide(queries, usable, data, seed, threshold, found)
    judged = sorted({query_id for graded in divided.values() for query_id in graded})
    alike = near.near_duplicates(
        [queries[query_id].text for query_id in judged], threshold, what="queries"
    )
    _report_duplicates("queries", alike.pairs, judged, lambda i: queries[judged[i]].text, found)
    _shared_documents(corpus, divided, found)
    groups = [[judged[i] for i in group] for group in alike.groups]
    kept = divided | {
        name: _without_repeats(name, queries, divided, groups, threshold, found)
        for name in ("dev", "train")
    }
    frozen = {
        name: Split(name, tuple(queries[q] for q in sorted(kept[name])), kept[name])
        for name in SPLITS
    }
    if not len(frozen["train"]):
        found.add(
            "no_train",
            "There are no training queries: the data can be evaluated, but no model can be trained on it.",
        )
    train_groups = (tuple(q for q in group if q in kept["train"]) for group in groups)
    return CheckResult(
        counts=_counts(corpus, queries, judgments, frozen),
        lengths=lengths,
        power=_power(len(frozen["test"]), found),
        findings=tuple(found.items),
        split_notes=tuple(notes),
        splits=frozen,
        held_out=HeldOut.of(
            (queries[q].text for name in ("dev", "test") for q in divided[name]), threshold
        ),
        duplicate_documents=tuple(
            tuple(corpus.ids[i] for i in group) for group in documents.groups
        ),
        duplicate_train_queries=tuple(group for group in train_groups if len(group) > 1),
        item_to_item=item_to_item,
        dropped={name: len(divided[name]) - len(kept[name]) for name in ("dev", "train")},
    )


def _measure_texts(
    corpus: Corpus, queries: Mapping[str, Query], tokens: Tokens | None, found: Found
) -> dict[str, Any]:
    """Lengths in words and tokens, what the model cuts off, and empty documents, in one pass."""
    stride = max(1, math.ceil(len(corpus) / _TOKENISED))
    words: list[int] = []
    counted: list[int] = []
    batch: list[str] = []
    with progress.task("measuring documents", len(corpus), "documents") as task:
        for position, text in enumerate(corpus.contents()):
            words.append(0 if is_blank(text) else count_words(text))
            if tokens and position % stride == 0:
                batch.append(text)
            if tokens and (len(batch) == _BATCH or position == len(corpus) - 1):
                counted.extend(tokens.count(batch) if batch else ())
                batch.clear()
            if position % _BATCH == 0:
                task.reach(position)
    if empty := [doc_id for doc_id, n in zip(corpus.ids, words, strict=True) if not n]:
        if len(empty) == len(corpus):
            found.add(
                "empty_documents",
                "Every document is empty.",
                empty,
                fatal=True,
                next_step="check data.columns.text",
            )
        else:
            found.add(
                "empty_documents",
                f"{len(empty)} documents are empty; nothing can find them.",
                empty,
            )
    asked = [count_words(query.text) for query in queries.values()]
    lengths: dict[str, Any] = {"document_words": _spread(words), "query_words": _spread(asked)}
    if tokens is None or not counted:
        found.add(
            "truncation_unknown",
            "The model's tokenizer or its maximum length is not known: what it cuts off is unknown.",
        )
        return lengths | {"max_seq_length": None, "truncated_share": None}
    lost = [1 - tokens.limit / n for n in counted if n > tokens.limit]
    share, loss = len(lost) / len(counted), float(np.mean(lost or [0.0]))
    if lost:
        message = f"The model reads {tokens.limit} tokens: {share:.1%} of the documents are longer, and lose {loss:.0%} of their text on average."
        mend = (
            "raise model.max_seq_length where the model allows it, or split documents into chunks"
        )
        figures = {"share": round(share, 4), "lost": round(loss, 4)}
        found.add(
            "truncation", message, count=round(share * len(corpus)), figures=figures, next_step=mend
        )
    lengths |= {
        "max_seq_length": tokens.limit,
        "document_tokens": _spread(counted),
        "tokenised_documents": len(counted),
    }
    return lengths | {"truncated_share": round(share, 4), "truncated_loss": round(loss, 4)}


def _spread(values: Sequence[int]) -> dict[str, float]:
    median, p95, longest = np.percentile(values or [0], (50, 95, 100))
    return {"median": float(median), "p95": float(p95), "longest": float(longest)}


def _report_duplicates(
    what: str,
    pairs: Sequence[near.Pair],
    ids: Sequence[str],
    text: Callable[[int], str],
    found: Found,
) -> None:
    kinds = {
        "duplicate": "repeat another but for case, spacing and punctuation",
        "near_duplicate": "are near-duplicates of another",
    }
    for code, kind in kinds.items():
        if alike := [pair for pair in pairs if pair.exact == (code == "duplicate")]:
            members = len({position for pair in alike for position in pair[:2]})
            shown = [
                f"{ids[p.a]} {'=' if p.exact else '≈'} {ids[p.b]} ({p.similarity:.2f}): {text(p.a)}"
                for p in alike[: found.examples]
            ]
            found.add(
                f"{code}_{what}",
                f"{members} {what} {kind}.",
                shown,
                count=members,
                figures={"pairs": len(alike)},
            )


def _divide(
    queries: Mapping[str, Query],
    usable: Mapping[str, Judgments],
    data: config.Data,
    seed: int,
    near_duplicate: float,
    found: Found,
) -> tuple[Splits, list[str]]:
    """Judgments by train, dev and test, and how they came about."""

    def make(judged: Judgments, **shares: float) -> tuple[Splits, tuple[str, ...]]:
        settings = data.split.model_copy(update=shares)
        ids, notes = splits.make_splits(
            queries, judged, settings, seed, near_duplicate, data.columns.timestamp
        )
        return {
            name: {query_id: judged[query_id] for query_id in ids[name]} for name in SPLITS
        }, notes

    given = {name: dict(graded) for name, graded in usable.items() if graded}
    if len(given) == 1:
        ((name, judged),) = given.items()
        divided, made = make(judged)
        if not divided["test"]:
            found.add(
                "no_test",
                "data.split leaves no test queries: nothing can be decided.",
                next_step="raise data.split.test",
            )
        only = (
            []
            if name == "all"
            else [
                f"The data has judgments of {name} only: train, dev and test were made from them."
            ]
        )
        return divided, [*only, *made]
    notes = [
        f"Split as the data brings it: {', '.join(f'{name} {len(given[name])}' for name in SPLITS if name in given)} queries."
    ]
    divided = {name: given.get(name, {}) for name in SPLITS}
    for name in ("dev", "test"):
        if divided[name] or not divided["train"]:
            continue
        parts, made = make(
            divided["train"], **({"dev": 0.0, "test": 0.0} | {name: getattr(data.split, name)})
        )
        divided |= {"train": parts["train"], name: parts[name]}
        message = (
            f"The data has no {name} split: {len(divided[name])} queries were taken from train."
        )
        found.add(f"made_{name}", message, count=len(divided[name]))
        notes += [message, *made]
    return divided, notes


def _shared_documents(corpus: Corpus, divided: Mapping[str, Judgments], found: Found) -> None:
    """Relevant documents of the corpus that stand in two splits."""
    relevant = {
        name: {
            d for docs in graded.values() for d, grade in docs.items() if grade > 0 and d in corpus
        }
        for name, graded in divided.items()
    }
    pairs = (("train", "test"), ("train", "dev"), ("dev", "test"))
    shared = {(a, b): sorted(relevant[a] & relevant[b]) for a, b in pairs}
    if not any(shared.values()):
        return
    asked = divided["test"]
    familiar = sum(
        all(d in relevant["train"] for d, grade in docs.items() if grade > 0)
        for docs in asked.values()
    )
    parts = "; ".join(f"{len(docs)} in both {a} and {b}" for (a, b), docs in shared.items() if docs)
    found.add(
        "shared_documents",
        f"Relevant documents that stand in two splits: {parts}. {familiar} of {len(asked)} test queries ask only for documents that "
        "training queries ask for too. Normal where users keep asking for the same documents (read the slices of seen and unseen "
        "documents apart); a leak where new documents are to be found.",
        [f"{d} ({a} and {b})" for (a, b), docs in shared.items() for d in docs],
        count=len(set().union(*shared.values())),
        figures={f"{a}/{b}": len(docs) for (a, b), docs in shared.items()}
        | {"test_queries_with_seen_documents_only": familiar},
        next_step="to keep documents apart, give all judgments as one file and data.split.by: group",
    )


def _without_repeats(
    name: str,
    queries: Mapping[str, Query],
    divided: Splits,
    groups: Sequence[Sequence[str]],
    near_duplicate: float,
    found: Found,
) -> dict[str, Mapping[str, int]]:
    """A split without the queries that repeat one of a later split, in text or id."""
    split_of = {q: later for later in SPLITS[SPLITS.index(name) + 1 :] for q in divided[later]}
    held = HeldOut.of((queries[q].text for q in split_of), near_duplicate)
    how = {
        q: "exact" if q in split_of else held.collides(queries[q].text)
        for q in sorted(divided[name])
    }
    exact, nearly = (
        [q for q, kind in how.items() if kind == wanted] for wanted in ("exact", "near-duplicate")
    )
    if exact or nearly:
        partners = {
            q: next((p for p in group if p != q and p in split_of), q)
            for group in groups
            for q in group
        }
        twins = {q: partners.get(q, q) for q in sorted(exact + nearly)}
        later = sorted(set(split_of.values()))
        found.add(
            f"repeated_queries_{name}",
            f"{len(twins)} {name} queries repeat a query of {' or '.join(later)} ({len(exact)} but for case and punctuation, "
            f"{len(nearly)} nearly) and were dropped from {name}.",
            [
                f"{q} “{queries[q].text}” ({name}) and {p} “{queries[p].text}” ({split_of.get(p, name)})"
                for q, p in twins.items()
            ],
            figures={"exact": len(exact), "near": len(nearly)}
            | {
                f"{name}/{other}": sum(split_of.get(p) == other for p in twins.values())
                for other in later
            },
        )
    return {q: docs for q, docs in divided[name].items() if not how[q]}


def _queries(difference: float) -> str:
    """Test queries that show a difference, rounded to tens."""
    return f"{round(queries_needed(ASSUMED_SD, difference) or 0, -1):,}"


def _power(n_queries: int, found: Found) -> dict[str, Any]:
    """The smallest difference that the test set can show; None without test queries."""
    smallest = smallest_difference(n_queries, ASSUMED_SD)
    if 0.05 < smallest < math.inf:
        message = f"{n_queries} test queries can show differences of nDCG@10 from {smallest:.3f} on; smaller gains will come out inconclusive."
        found.add(
            "low_power",
            message,
            count=n_queries,
            next_step=f"judge more test queries: about {_queries(0.05)} show .05, about {_queries(0.02)} show .02",
        )
    shown = {
        "measure": "nDCG@10",
        "n_queries": n_queries,
        "smallest_difference": round(smallest, 4) if n_queries else None,
    }
    return shown | {"power": 0.8, "alpha": 0.05, "paired_sd": ASSUMED_SD, "assumed": True}


def _counts(
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Judgments],
    frozen: Mapping[str, Split],
) -> dict[str, Any]:
    judged = [
        (doc_id, grade)
        for split in frozen.values()
        for docs in split.judgments.values()
        for doc_id, grade in docs.items()
    ]
    return {
        "documents": len(corpus),
        "queries": len(queries),
        "judgments": sum(len(docs) for graded in judgments.values() for docs in graded.values()),
        "relevant_documents": len(
            {doc_id for doc_id, grade in judged if grade > 0 and doc_id in corpus}
        ),
        "missing_relevant_documents": len(
            {doc_id for doc_id, grade in judged if grade > 0 and doc_id not in corpus}
        ),
        **{f"{name}_queries": len(split) for name, split in frozen.items()},
        **{
            f"{name}_judgments": sum(map(len, split.judgments.values()))
            for name, split in frozen.items()
        },
    }


def step(context: StepContext) -> dict[str, Any]:
    """Read the data, check it, write the results into `context.out`; nothing is written when a problem is fatal."""
    settings = context.config
    context.uses("data")
    corpus, queries, judgments, dropped = load.load(settings.data, context.root)
    load.load_training(settings.data, context.root, settings.mine.min_score)  # refused early, if so
    tokens = load_tokens(settings.model, context.root)
    result = check(
        corpus,
        queries,
        judgments,
        data=settings.data,
        settings=settings.check,
        seed=settings.seed,
        tokens=tokens,
    )
    result = replace(
        result,
        split_notes=(
            *result.split_notes,
            *(f"Click log: {n} {why}." for why, n in dropped.items()),
        ),
    )
    out = context.out
    for split in result.splits.values():
        splits.write_split(out / "split", split)
    result.held_out.save(out / "heldout.npz")
    files.write_json(
        out / "near_duplicates.json",
        {"documents": result.duplicate_documents, "queries": result.duplicate_train_queries},
    )
    files.write_json(out / "findings.json", result.as_dict())
    files.write_text(out / "report.md", report(result))
    return result.summary()


def report(result: CheckResult) -> str:
    """The findings as Markdown, for people."""
    power, counts = result.power, result.counts
    lines = ["# Can this data be trusted?", "", "| | queries | judgments |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {counts[f'{name}_queries']:,} | {counts[f'{name}_judgments']:,} |"
        for name in SPLITS
    ]
    lines += [
        "",
        f"{counts['documents']:,} documents, {counts['relevant_documents']:,} of them relevant to some query.",
    ]
    lines += ["", "## Split", "", *(f"- {note}" for note in result.split_notes), ""]
    if power["n_queries"]:
        lines += [
            f"The {power['n_queries']} test queries can show a difference of nDCG@10 from **{power['smallest_difference']:.3f}** on "
            f"(80% power, α = .05 two-sided; a paired standard deviation of {ASSUMED_SD} is assumed until there are scores).",
            "",
        ]
    lines += ["## Lengths", ""]
    for name in ("document_words", "query_words", "document_tokens"):
        if spread := result.lengths.get(name):
            what = name.replace("_", ", in ")
            lines.append(
                f"- {what}: median {spread['median']:.0f}, 95% up to {spread['p95']:.0f}, longest {spread['longest']:.0f}"
            )
    lines += ["", f"## Findings: {len(result.findings) or 'none'}", ""]
    for finding in result.findings:
        lines += [
            f"- **{finding.code}**: {finding.message}",
            *(f"  - {example}" for example in finding.examples),
        ]
        lines += [f"  - → {finding.next_step}"] if finding.next_step else []
    return "\n".join(lines) + "\n"
