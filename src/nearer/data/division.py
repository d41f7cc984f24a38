"""Judgments divided into train, dev and test, and what the parts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nearer import config
from nearer.data import near, splits
from nearer.data.corpus import Corpus
from nearer.data.fitting import Found, Splits
from nearer.data.heldout import HeldOut
from nearer.types import SPLITS, Judgments, Query


def report_duplicates(
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


def divide(
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


def report_shared_documents(corpus: Corpus, divided: Mapping[str, Judgments], found: Found) -> None:
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


def without_repeats(
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
