"""check: can this data be trusted to train and to judge?

`check(...)` takes values and returns a `CheckResult`; `step` reads files, calls it and writes
`findings.json`, `report.md`, `split/`, `heldout.npz` and `near_duplicates.json`.

What becomes of the data: judgments of unknown documents and queries, and an item judged relevant
to itself, are left out; so are queries without text or without a relevant document.  A split that
the data brings is kept, except that queries which repeat a later split's query (train < dev < test)
are dropped.  Missing splits are made: dev or test from train; all three when there is one split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from nearer import config, files, progress
from nearer.data import load, near, splits
from nearer.data.corpus import Corpus
from nearer.data.fitting import Found, fitting_judgments, notice_item_to_item, usable_queries
from nearer.data.heldout import HeldOut
from nearer.data.tokens import Tokens, load_tokens
from nearer.types import SPLITS, Finding, Judgments, Query, Split

if TYPE_CHECKING:
    from nearer.workspace import StepContext

ASSUMED_SD = 0.25  # paired differences of nDCG@10 (FIELD: seen in practice), until scores exist
_TOKENISED = 20_000  # documents, evenly spaced: enough for a share to half a percent point
_PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))


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
        split = {
            "notes": list(self.split_notes),
            "queries": {name: len(split) for name, split in self.splits.items()},
            "dropped": dict(self.dropped),
        }
        return {
            "counts": dict(self.counts),
            "lengths": dict(self.lengths),
            "power": dict(self.power),
            "item_to_item": self.item_to_item,
            "split": split,
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
    found = Found(settings.examples)
    item_to_item = notice_item_to_item(corpus, queries, judgments, data.item_to_item, found)
    usable = fitting_judgments(corpus, queries, judgments, item_to_item, found)
    lengths = _measure_texts(corpus, queries, tokens, found)
    if not any(item.fatal for item in found.items):
        usable = usable_queries(queries, usable, found)
    found.stop_if_fatal()
    documents = near.near_duplicates(corpus.contents(), settings.near_duplicate, reread=corpus.contents)
    _report_duplicates("documents", documents, corpus.ids, lambda i: corpus[i].content, found)
    divided, notes = _divide(queries, usable, data, seed, settings.near_duplicate, found)
    judged = sorted({query_id for graded in divided.values() for query_id in graded})
    alike = near.near_duplicates([queries[query_id].text for query_id in judged], settings.near_duplicate, what="queries")
    _report_duplicates("queries", alike, judged, lambda i: queries[judged[i]].text, found)
    _shared_documents(divided, found)
    kept, dropped = _drop_collisions(queries, divided, settings.near_duplicate, found, _partners(alike, judged))
    frozen = {name: Split(name, tuple(queries[q] for q in sorted(kept[name])), kept[name]) for name in SPLITS}
    if not len(frozen["train"]):
        found.add("no_train", "There are no training queries: the data can be evaluated, but no model can be trained on it.")
    train = set(kept["train"])
    groups = ([judged[i] for i in group if judged[i] in train] for group in alike.groups)
    return CheckResult(
        counts=_counts(corpus, queries, judgments, frozen),
        lengths=lengths,
        power=_power(len(frozen["test"]), found),
        findings=tuple(found.items),
        split_notes=tuple(notes),
        splits=frozen,
        held_out=HeldOut.of((queries[q].text for name in ("dev", "test") for q in divided[name]), settings.near_duplicate),
        duplicate_documents=tuple(tuple(corpus.ids[i] for i in group) for group in documents.groups),
        duplicate_train_queries=tuple(tuple(group) for group in groups if len(group) > 1),
        item_to_item=item_to_item,
        dropped=dropped,
    )


# -- texts -------------------------------------------------------------------------------------


def _measure_texts(corpus: Corpus, queries: Mapping[str, Query], tokens: Tokens | None, found: Found) -> dict[str, Any]:
    """Lengths in words and tokens, what the model cuts off, and empty documents, in one pass."""
    stride = max(1, math.ceil(len(corpus) / _TOKENISED))
    words = np.zeros(len(corpus), dtype=np.int64)
    counted: list[int] = []
    batch: list[str] = []
    empty: list[str] = []
    with progress.task("measuring documents", len(corpus), "documents") as task:
        for position, text in enumerate(corpus.contents()):
            words[position] = len(text.split())
            if not words[position]:
                empty.append(corpus.ids[position])
            if tokens and position % stride == 0:
                batch.append(text)
            if tokens and len(batch) == 256:
                counted.extend(tokens.count(batch))
                batch.clear()
            if position % 256 == 0:
                task.reach(position)
    if tokens and batch:
        counted.extend(tokens.count(batch))
    if empty:
        fatal = len(empty) == len(corpus)
        message = "Every document is empty." if fatal else f"{len(empty)} documents are empty; nothing can find them."
        found.add("empty_documents", message, empty, fatal=fatal, next_step="check data.columns.text" if fatal else None)
    asked = np.array([len(query.text.split()) for query in queries.values()] or [0])
    lengths: dict[str, Any] = {"document_words": _spread(words), "query_words": _spread(asked)}
    return lengths | _truncation(counted, tokens.limit if tokens else None, len(corpus), found)


def _spread(values: np.ndarray[Any, Any]) -> dict[str, float]:
    if not values.size:
        return {}
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95)), "longest": float(values.max())}


def _truncation(counted: list[int], limit: int | None, n_documents: int, found: Found) -> dict[str, Any]:
    if limit is None or not counted:
        found.add("truncation_unknown", "The model's tokenizer or its maximum length is not known: what it cuts off is unknown.")
        return {"max_seq_length": None, "truncated_share": None}
    counts = np.array(counted)
    cut = counts > limit
    share = float(cut.mean())
    lost = float((1 - limit / counts[cut]).mean()) if cut.any() else 0.0
    if cut.any():
        found.add(
            "truncation",
            f"The model reads {limit} tokens: {share:.1%} of the documents are longer, and lose {lost:.0%} of their text on average.",
            count=round(share * n_documents),
            figures={"share": round(share, 4), "lost": round(lost, 4)},
            next_step="raise model.max_seq_length where the model allows it, or split documents into chunks",
        )
    return {
        "max_seq_length": limit,
        "document_tokens": _spread(counts),
        "truncated_share": round(share, 4),
        "truncated_loss": round(lost, 4),
        "tokenised_documents": len(counted),
    }


def _report_duplicates(what: str, groups: near.Groups, ids: Sequence[str], text: Callable[[int], str], found: Found) -> None:
    kinds = (
        ("duplicate", "repeat another but for case, spacing and punctuation", groups.exact),
        ("near_duplicate", "are near-duplicates of another", groups.near),
    )
    for code, kind, pairs in kinds:
        if not pairs:
            continue
        members = len({position for pair in pairs for position in (pair.a, pair.b)})
        shown = [f"{ids[p.a]} {'=' if p.exact else '≈'} {ids[p.b]} ({p.similarity:.2f}): {text(p.a)}" for p in pairs[: found.examples]]
        found.add(f"{code}_{what}", f"{members} {what} {kind}.", shown, count=members, figures={"pairs": len(pairs)})


# -- splits ------------------------------------------------------------------------------------


def _divide(
    queries: Mapping[str, Query], usable: Mapping[str, Judgments], data: config.Data, seed: int, near_duplicate: float, found: Found
) -> tuple[dict[str, dict[str, Mapping[str, int]]], list[str]]:
    """Judgments by train, dev and test, and how they came about."""

    def make(judgments: Judgments, **shares: float) -> splits.Division:
        settings = data.split.model_copy(update=shares)
        return splits.make_splits(queries, judgments, settings, seed, near_duplicate, data.columns.timestamp)

    given = {name: dict(usable[name]) for name in usable if usable[name]}
    divided: dict[str, dict[str, Mapping[str, int]]] = {name: given.get(name, {}) for name in SPLITS}
    if len(given) == 1:
        name, everything = next(iter(given.items()))
        division = make(everything)
        notes = list(division.notes)
        if name != "all":
            notes.insert(0, f"The data has judgments of {name} only: train, dev and test were made from them.")
        divided = {part: {query_id: everything[query_id] for query_id in ids} for part, ids in division.ids.items()}
        if not divided["test"]:
            found.add("no_test", "data.split leaves no test queries: nothing can be decided.", next_step="raise data.split.test")
        return divided, notes
    notes = [f"Split as the data brings it: {', '.join(f'{name} {len(given[name])}' for name in SPLITS if name in given)} queries."]
    for name, shares in (("dev", {"dev": data.split.dev, "test": 0.0}), ("test", {"dev": 0.0, "test": data.split.test})):
        if divided[name] or not divided["train"]:
            continue
        division = make(divided["train"], **shares)
        everything = divided["train"]
        divided[name] = {query_id: everything[query_id] for query_id in division.ids[name]}
        divided["train"] = {query_id: everything[query_id] for query_id in division.ids["train"]}
        message = f"The data has no {name} split: {len(divided[name])} queries were taken from train."
        found.add(f"made_{name}", message, count=len(divided[name]))
        notes += [message, *division.notes]
    return divided, notes


def _shared_documents(divided: Mapping[str, Judgments], found: Found) -> None:
    """Relevant documents that stand in two splits."""
    relevant = {name: {d for docs in graded.values() for d, grade in docs.items() if grade > 0} for name, graded in divided.items()}
    shared = {pair: sorted(relevant[pair[0]] & relevant[pair[1]]) for pair in _PAIRS}
    if not any(shared.values()):
        return
    seen = relevant["train"]
    asked = divided["test"]
    familiar = sum(all(d in seen for d, grade in docs.items() if grade > 0) for docs in asked.values())
    parts = "; ".join(f"{len(docs)} in both {a} and {b}" for (a, b), docs in shared.items() if docs)
    found.add(
        "shared_documents",
        f"Relevant documents that stand in two splits: {parts}. {familiar} of {len(asked)} test queries ask only for documents that "
        "training queries ask for too. Normal where users keep asking for the same documents (read the slices of seen and unseen "
        "documents apart); a leak where new documents are to be found.",
        [f"{d} ({a} and {b})" for (a, b), docs in sorted(shared.items(), key=lambda item: item[0] != ("train", "test")) for d in docs],
        count=len(set().union(*shared.values())),
        figures={f"{a}/{b}": len(docs) for (a, b), docs in shared.items()} | {"test_queries_with_seen_documents_only": familiar},
        next_step="to keep documents apart, give all judgments as one file and data.split.by: group",
    )


def _partners(alike: near.Groups, judged: Sequence[str]) -> dict[str, list[str]]:
    """Query id → the other queries of its group."""
    named = [[judged[i] for i in group] for group in alike.groups]
    return {query_id: [other for other in group if other != query_id] for group in named for query_id in group}


def _drop_collisions(
    queries: Mapping[str, Query],
    divided: Mapping[str, Judgments],
    near_duplicate: float,
    found: Found,
    partners: Mapping[str, Sequence[str]],
) -> tuple[dict[str, dict[str, Mapping[str, int]]], dict[str, int]]:
    """Splits without the queries that repeat one of a later split, and how many of each went."""
    kept = {name: dict(graded) for name, graded in divided.items()}
    dropped: dict[str, int] = {}
    for name, later in (("dev", ("test",)), ("train", ("dev", "test"))):
        held = HeldOut.of((queries[q].text for other in later for q in divided[other]), near_duplicate)
        ids = {q for other in later for q in divided[other]}  # the same query in two splits, whatever its text
        how = {q: "exact" if q in ids else held.collides(queries[q].text) for q in divided[name]}
        colliding = sorted(q for q, kind in how.items() if kind)
        kept[name] = {q: docs for q, docs in divided[name].items() if not how[q]}
        dropped[name] = len(colliding)
        if not colliding:
            continue
        exact = sum(how[q] == "exact" for q in colliding)
        split_of = {q: other for other in later for q in divided[other]}
        twins = {q: next((p for p in partners.get(q, ()) if p in split_of), q) for q in colliding}
        found.add(
            f"repeated_queries_{name}",
            f"{len(colliding)} {name} queries repeat a query of {' or '.join(later)} ({exact} but for case and punctuation, "
            f"{len(colliding) - exact} nearly) and were dropped from {name}.",
            [f"{q} “{queries[q].text}” ({name}) and {p} “{queries[p].text}” ({split_of.get(p, name)})" for q, p in twins.items()],
            figures={"exact": exact, "near": len(colliding) - exact}
            | {f"{name}/{other}": sum(split_of.get(p) == other for p in twins.values()) for other in later},
        )
    return kept, dropped


# -- figures -----------------------------------------------------------------------------------


def smallest_difference(n_queries: int, sd: float = ASSUMED_SD, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest mean paired difference that a two-sided test of `n_queries` shows; None without queries.

    (z₁₋α/₂ + z_power) · sd / √n, the normal approximation of the paired t test.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * sd / math.sqrt(n_queries) if n_queries else None


def _power(n_queries: int, found: Found) -> dict[str, Any]:
    smallest = smallest_difference(n_queries)
    if smallest is not None and smallest > 0.05:
        found.add(
            "low_power",
            f"{n_queries} test queries can show differences of nDCG@10 from {smallest:.3f} on; smaller gains will come out inconclusive.",
            count=n_queries,
            next_step="judge more test queries: about 200 show .05, about 1,225 show .02",
        )
    rounded = None if smallest is None else round(smallest, 4)
    shown = {"measure": "nDCG@10", "n_queries": n_queries, "smallest_difference": rounded}
    return shown | {"power": 0.8, "alpha": 0.05, "paired_sd": ASSUMED_SD, "assumed": True}


def _counts(
    corpus: Corpus, queries: Mapping[str, Query], judgments: Mapping[str, Judgments], frozen: Mapping[str, Split]
) -> dict[str, Any]:
    used = {doc_id for split in frozen.values() for docs in split.judgments.values() for doc_id, grade in docs.items() if grade > 0}
    return {
        "documents": len(corpus),
        "queries": len(queries),
        "judgments": sum(len(docs) for graded in judgments.values() for docs in graded.values()),
        "relevant_documents": len(used),
        **{f"{name}_queries": len(split) for name, split in frozen.items()},
        **{f"{name}_judgments": sum(map(len, split.judgments.values())) for name, split in frozen.items()},
    }


# -- files -------------------------------------------------------------------------------------


def step(context: StepContext) -> dict[str, Any]:
    """Read the data, check it, write the results into `context.out`; nothing is written when a problem is fatal."""
    settings = context.config
    loaded = load.load(settings.data, context.root)
    tokens = load_tokens(settings.model, context.root)
    result = check(
        loaded.corpus,
        loaded.queries,
        loaded.judgments,
        data=settings.data,
        settings=settings.check,
        seed=settings.seed,
        tokens=tokens,
    )
    if loaded.dropped:
        notes = (*result.split_notes, *(f"Click log: {n} {why}." for why, n in loaded.dropped.items()))
        result = replace(result, split_notes=notes)
    write(result, context.out)
    return result.summary()


def write(result: CheckResult, out: Path) -> None:
    """All files of this stage, below `out`."""
    for split in result.splits.values():
        splits.write_split(out / "split", split)
    result.held_out.save(out / "heldout.npz")
    groups = {"documents": result.duplicate_documents, "queries": result.duplicate_train_queries}
    files.write_json(out / "near_duplicates.json", {what: [list(group) for group in found] for what, found in groups.items()})
    files.write_json(out / "findings.json", result.as_dict())
    files.write_text(out / "report.md", report(result))


def report(result: CheckResult) -> str:
    """The findings as Markdown, for people."""
    power, lengths = result.power, result.lengths
    lines = ["# Can this data be trusted?", "", *_table(result), "", "## Split", "", *(f"- {note}" for note in result.split_notes), ""]
    if power["smallest_difference"] is not None:
        lines += [
            f"The {power['n_queries']} test queries can show a difference of nDCG@10 from **{power['smallest_difference']:.3f}** on "
            f"(80% power, α = .05 two-sided; a paired standard deviation of {ASSUMED_SD} is assumed until there are scores).",
            "",
        ]
    lines += ["## Lengths", ""]
    for name in ("document_words", "query_words", "document_tokens"):
        if spread := lengths.get(name):
            what = name.replace("_", ", in ")
            lines.append(f"- {what}: median {spread['median']:.0f}, 95% up to {spread['p95']:.0f}, longest {spread['longest']:.0f}")
    lines += ["", f"## Findings: {len(result.findings) or 'none'}", ""]
    for finding in result.findings:
        lines.append(f"- **{finding.code}**: {finding.message}")
        lines += [f"  - {example}" for example in finding.examples]
        if finding.next_step:
            lines.append(f"  - → {finding.next_step}")
    return "\n".join(lines) + "\n"


def _table(result: CheckResult) -> Iterable[str]:
    yield "| | queries | judgments |"
    yield "|---|---:|---:|"
    for name in SPLITS:
        yield f"| {name} | {result.counts[f'{name}_queries']:,} | {result.counts[f'{name}_judgments']:,} |"
    yield ""
    yield f"{result.counts['documents']:,} documents, {result.counts['relevant_documents']:,} of them relevant to some query."
