"""Judgments divided into train, dev and test, and what the parts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nearer import config
from nearer.data import near, splits
from nearer.data.corpus import Corpus
from nearer.data.fitting import Findings, Splits
from nearer.data.heldout import HeldOut
from nearer.types import SPLITS, Judgments, Query


def report_duplicates(
    what: str,
    pairs: Sequence[near.Pair],
    ids: Sequence[str],
    text: Callable[[int], str],
    findings: Findings,
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
                for p in alike[: findings.examples]
            ]
            findings.add(
                f"{code}_{what}",
                f"{members} {what} {kind}.",
                shown,
                count=members,
                figures={"pairs": len(alike)},
            )


@dataclass(frozen=True, slots=True)
class Rules:
    """How a split is made where the data brings none."""

    data: config.Data
    seed: int
    near_duplicate: float  # similarity from which texts stay together

    def apply(
        self, queries: Mapping[str, Query], judged: Judgments, **shares: float
    ) -> tuple[Splits, tuple[str, ...]]:
        """Judgments by split, and notes on how they came about; `shares` replace those of the settings."""
        settings = self.data.split.model_copy(update=shares)
        timestamp = self.data.columns.timestamp
        ids, notes = splits.make_splits(
            queries, judged, settings, self.seed, self.near_duplicate, timestamp
        )
        divided: Splits = {}
        for name in SPLITS:
            divided[name] = {query_id: judged[query_id] for query_id in ids[name]}
        return divided, notes


def divide(
    queries: Mapping[str, Query], usable: Mapping[str, Judgments], rules: Rules, findings: Findings
) -> tuple[Splits, list[str]]:
    """Judgments by train, dev and test, and how they came about."""
    given = {name: dict(graded) for name, graded in usable.items() if graded}
    if len(given) == 1:
        ((name, judged),) = given.items()
        return _divide_one(queries, name, judged, rules, findings)
    sizes = ", ".join(f"{name} {len(given[name])}" for name in SPLITS if name in given)
    notes = [f"Split as the data brings it: {sizes} queries."]
    divided: Splits = {name: given.get(name, {}) for name in SPLITS}
    for name in ("dev", "test"):
        if divided[name] or not divided["train"]:
            continue
        shares = {"dev": 0.0, "test": 0.0, name: getattr(rules.data.split, name)}
        parts, how = rules.apply(queries, divided["train"], **shares)
        divided |= {"train": parts["train"], name: parts[name]}
        taken = len(divided[name])
        message = f"The data has no {name} split: {taken} queries were taken from train."
        findings.add(f"made_{name}", message, count=taken)
        notes += [message, *how]
    return divided, notes


def _divide_one(
    queries: Mapping[str, Query], name: str, judged: Judgments, rules: Rules, findings: Findings
) -> tuple[Splits, list[str]]:
    """All three splits out of one."""
    divided, how = rules.apply(queries, judged)
    if not divided["test"]:
        findings.add(
            "no_test",
            "data.split leaves no test queries: nothing can be decided.",
            next_step="raise data.split.test",
        )
    notes = list(how)
    if name != "all":
        only = f"The data has judgments of {name} only: train, dev and test were made from them."
        notes.insert(0, only)
    return divided, notes


def report_shared_documents(
    corpus: Corpus, divided: Mapping[str, Judgments], findings: Findings
) -> None:
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
    findings.add(
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


def without_repeats(
    name: str,
    queries: Mapping[str, Query],
    divided: Splits,
    groups: Sequence[Sequence[str]],
    near_duplicate: float,
    findings: Findings,
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
        findings.add(
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
