"""From what the probes found to the cause of a failure: pure, so that the rule can be read and argued with.

Every probe executes one repair and reports the rank that the relevant document then has.  The cause
is the cheapest repair that works, with two guards against chance, because a document at rank 11
enters the first ten under almost any change: without direct evidence a repair must at least halve
the rank, and where two repairs work, direct evidence (an identifier that stands in the document,
text that the model never read) goes before the order of cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.measure.metrics import score
from nearer.types import Run, Split, rank_hits

#: In order of the cost of their repair; each but the last three names the probe that tries it.
CAUSES = (
    "missing_document",
    "ineligible",
    "needs_metadata",
    "chunking",
    "exact_match",
    "index_loss",
    "ranking",
    "base_model",
    "semantic",
    "label_suspect",
    "unknown",
)
REMEDIES: Mapping[str, str] = {
    "missing_document": "index the document, or correct the judgment",
    "ineligible": "correct the document's metadata, or the filter that the application declares",
    "needs_metadata": "apply the filter that the query declares or names",
    "chunking": "embed smaller pieces of the documents",
    "exact_match": "search words beside vectors (BM25 or a hybrid)",
    "index_loss": "rebuild the approximate index, or search more of it",
    "ranking": "put a reranker behind the first stage",
    "base_model": "use the other embedding model",
    "semantic": "fine-tune: nothing cheaper finds it",
    "label_suspect": "judge the results above it: one may be as relevant",
    "unknown": "run the probes that could not run",
}
CANDIDATES = 100  # results that a reranker gets to see


@dataclass(frozen=True, slots=True)
class Probe:
    """One repair, executed: the exact rank that it gives the document (None: not found).

    `variants` has the rank under each way of doing it; `skipped` says why it could not run;
    `not_needed` that it does not apply (a document that is there cannot be missing).
    """

    rank: int | None = None
    variants: Mapping[str, int | None] = field(default_factory=dict)
    skipped: str | None = None
    at_least: bool = False  # the rank is known to be this or worse, not exactly

    def found(self, k: int) -> bool:
        return self.rank is not None and self.rank <= k and not self.at_least

    def as_dict(self, k: int) -> dict[str, Any]:
        told: dict[str, Any] = {"rank": self.rank, "found": self.found(k)}
        told |= {"at_least": True} if self.at_least else {}
        told |= {"variants": dict(self.variants)} if self.variants else {}
        return told | ({"skipped": self.skipped} if self.skipped else {})


def best(variants: Mapping[str, int | None]) -> Probe:
    """The probe with the best rank of its variants."""
    ranks = [rank for rank in variants.values() if rank is not None]
    return Probe(min(ranks) if ranks else None, variants)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the texts and the metadata of a query and its relevant document say."""

    missing: str = ""  # why the document cannot be found by anybody
    excluded: str = ""  # how the declared filter and the document's metadata disagree
    filters_apply: bool = False  # does today's system honour declared filters?
    declared: bool = False  # does the query declare a filter?
    over_model: bool = True  # does today's system rank by the configured model's vectors?
    identifiers: tuple[
        str, ...
    ] = ()  # codes, names, quoted phrases and rare terms of the query that stand in the document
    identifier_share: float = 0.0  # of the query's terms, rare words not counted
    unread: str = ""  # the answer lies where the model does not read, or across a border of chunks
    mixed: str = ""  # a part of the document is much nearer to the query than the whole
    duplicates: tuple[str, ...] = ()  # unjudged results above it that are near-duplicates of it
    preferred: str = ""  # an unjudged document that every system puts first
    overlap: float = 0.0  # share of the query's terms that stand in the document
    fragments: tuple[str, ...] = ()  # acronyms and terms that the tokenizer breaks up
    distractors: int = 0  # results above it that share most of its words
    words: tuple[int, int] = (0, 0)  # of the query and of the document


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause, what kind of it, the evidence in words, and what else is suspicious."""

    cause: str
    kind: str
    evidence: str
    also: tuple[str, ...] = ()


def classify(probes: Mapping[str, Probe], facts: Facts, k: int) -> Diagnosis:
    """The cause of one failure.  `probes` are named as in `CAUSES`, beside `today` and `exact`.

    `exact` is exact search with today's model, chunks and filters; where today's system is exact
    itself it equals `today`.
    """
    suspect = (
        f"{facts.duplicates[0]} above it is a near-duplicate and unjudged"
        if facts.duplicates
        else ""
    )
    preferred = (
        f"every system puts {facts.preferred} first, which nobody judged" if facts.preferred else ""
    )
    cause, kind, evidence = _cause(probes, facts, k)
    if cause in ("semantic", "unknown") and suspect:
        cause, kind, evidence = "label_suspect", "near-duplicate", suspect
    also = (
        ("label_suspect",)
        if (suspect or preferred) and cause not in ("label_suspect", "missing_document")
        else ()
    )
    told = [evidence, *(text for text in (suspect, preferred) if text and also)]
    return Diagnosis(cause, kind, "; ".join(text for text in told if text), also)


def _cause(  # noqa: PLR0911 - one return a cause, in their order
    probes: Mapping[str, Probe], facts: Facts, k: int
) -> tuple[str, str, str]:
    exact = probes.get("exact", probes["today"])

    def lifts(name: str, sure: bool = False) -> bool:
        probe = probes.get(name, Probe())
        return probe.found(k) and (
            sure or exact.rank is None or 2 * (probe.rank or 0) <= exact.rank
        )

    if facts.missing:
        return "missing_document", facts.missing, facts.missing
    if facts.excluded and (facts.filters_apply or lifts("ineligible")):
        kind = facts.excluded.partition(":")[0]
        return (
            "ineligible",
            kind,
            f"{facts.excluded}{_rank(probes, 'ineligible', '; were it eligible it would stand')}",
        )
    if exact.found(k) and facts.over_model and not probes["today"].found(k):
        return _lost(probes, exact, k)
    if lifts("needs_metadata", sure=facts.declared):
        variant = _which(probes["needs_metadata"])
        return (
            "needs_metadata",
            "declared filter" if variant == "declared" else "filter named in the query",
            f"{variant}: {_to(probes, 'needs_metadata')}",
        )
    chunks = lifts("chunking", sure=bool(facts.unread)) and bool(
        facts.unread or (facts.mixed and facts.overlap > 0)
    )
    words = lifts("exact_match", sure=bool(facts.identifiers))
    if words and facts.identifiers and (not facts.unread or facts.identifier_share >= 0.5):
        chunks = False
    if chunks:
        told = facts.unread or facts.mixed
        return (
            "chunking",
            told.partition(":")[0],
            f"{told}; {_which(probes['chunking'])}: {_to(probes, 'chunking')}",
        )
    if words:
        names = f"{', '.join(facts.identifiers[:4])} stand in it; " if facts.identifiers else ""
        return (
            "exact_match",
            "identifier or rare term" if names else "words",
            f"{names}{_which(probes['exact_match'])}: {_to(probes, 'exact_match')}",
        )
    if lifts("ranking"):
        return (
            "ranking",
            "",
            f"among the candidates at {probes['today'].rank}; the reranker takes it {_to(probes, 'ranking')}",
        )
    if lifts("base_model"):
        return (
            "base_model",
            _which(probes["base_model"]),
            f"{_which(probes['base_model'])}: {_to(probes, 'base_model')}",
        )
    skipped = [f"{name}: {probe.skipped}" for name, probe in probes.items() if probe.skipped]
    if skipped:
        return "unknown", skipped[0].partition(":")[0], f"could not be tried: {'; '.join(skipped)}"
    return "semantic", *_meaning(facts)


def _lost(probes: Mapping[str, Probe], exact: Probe, k: int) -> tuple[str, str, str]:
    today = probes["today"]
    if (
        today.rank is not None
        and today.rank <= CANDIDATES
        and probes.get("ranking", Probe()).found(k)
    ):
        return (
            "ranking",
            "",
            f"among the candidates at {today.rank}; the reranker takes it {_to(probes, 'ranking')}",
        )
    place = (
        f"today's index has it at {today.rank}"
        if today.rank
        else "today's index does not return it"
    )
    return "index_loss", "", f"exact search has it at {exact.rank}; {place}"


def _meaning(facts: Facts) -> tuple[str, str]:
    """What kind of semantic failure, and why we think so."""
    query, document = facts.words
    if facts.overlap == 0:
        return "vocabulary gap", "no term of the query stands in the document"
    if facts.fragments:
        return "unknown term", f"the tokenizer breaks up {', '.join(facts.fragments[:4])}"
    if facts.distractors:
        return (
            "near-identical distractors",
            f"{facts.distractors} results above it share most of its words",
        )
    if query and (document > 40 * query or query > 2 * document):
        return "length mismatch", f"{query} words ask for a document of {document}"
    return (
        "meaning",
        f"{facts.overlap:.0%} of the query's terms stand in it, and no cheaper repair finds it",
    )


def _which(probe: Probe) -> str:
    """The variant that gave the best rank."""
    return min(
        ((rank, name) for name, rank in probe.variants.items() if rank is not None), default=(0, "")
    )[1]


def _to(probes: Mapping[str, Probe], name: str) -> str:
    today = probes["today"].rank
    return f"from {today if today is not None else 'nowhere'} to {probes[name].rank}"


def _rank(probes: Mapping[str, Probe], name: str, told: str) -> str:
    rank = probes.get(name, Probe()).rank
    return f"{told} at {rank}" if rank is not None else ""


# -- what the causes add up to ----------------------------------------------------------------------


def promote(run: Run, found: Mapping[str, Sequence[str]]) -> Run:
    """The run as if the documents of `found` (query id → document ids) had been ranked first."""
    results = {}
    for query_id, hits in run.results.items():
        first = list(dict.fromkeys(found.get(query_id, ())))
        order = [*first, *(doc_id for doc_id, _ in hits if doc_id not in first)]
        made_up = ((doc_id, float(len(order) - place)) for place, doc_id in enumerate(order))
        results[query_id] = rank_hits(made_up) if first else hits
    return Run(run.name, results)


def waterfall(
    run: Run, split: Split, failures: Sequence[Mapping[str, Any]], measure: str
) -> dict[str, Any]:
    """What each repair would give, cause by cause in order of cost, and what semantic failures hold.

    `failures` are lines of `failures.jsonl`.  Returns `steps` (each cause with its failures, the
    queries that still fail after it and the measure then) and `fine_tuning_ceiling`: the measure if
    every semantic failure were found first, as an upper bound, nothing else repaired.
    """
    today = score(run, split, [measure]).mean(measure)
    steps: list[dict[str, Any]] = []
    failing = [line for line in failures if line.get("query_fails", True)]
    left = {line["query_id"] for line in failing}
    found: dict[str, list[str]] = {}
    for cause in CAUSES:
        lines = [line for line in failures if line["cause"] == cause]
        if lines:
            _gather(found, lines)
            left -= {line["query_id"] for line in lines}
            mean = score(promote(run, found), split, [measure]).mean(measure)
            steps.append(
                {
                    "cause": cause,
                    "failures": len(lines),
                    "failing_queries_left": len(left),
                    "measure": mean,
                    "remedy": REMEDIES[cause],
                }
            )

    def ceiling(causes: Iterable[str]) -> float:
        held: dict[str, list[str]] = {}
        _gather(held, [line for line in failures if line["cause"] in causes])
        return score(promote(run, held), split, [measure]).mean(measure)

    semantic, possible = ceiling(("semantic",)), ceiling(("semantic", "unknown"))
    shortfall = max(1.0 - today, 1e-12)
    held = {
        "measure": measure,
        "today": today,
        "if_found": semantic,
        "gain": semantic - today,
        "share_of_shortfall": (semantic - today) / shortfall,
    }
    return {"steps": steps, "fine_tuning_ceiling": held | {"if_unknown_were_semantic": possible}}


def _gather(found: dict[str, list[str]], lines: Iterable[Mapping[str, Any]]) -> None:
    for line in lines:
        found.setdefault(line["query_id"], []).append(line["doc_id"])


def freshness(
    name: str, failed: Sequence[float], fine: Sequence[float], alpha: float = 0.01
) -> dict[str, Any] | None:
    """Do failures concentrate on the newest quarter of the relevant documents?

    `failed` and `fine` are the dates (any increasing number) of relevant documents of failing and
    of other queries, by field `name`.  One-sided Fisher test; None where there is nothing to say.
    """
    import numpy as np
    from scipy.stats import fisher_exact

    values = np.array([*failed, *fine], dtype=np.float64)
    bad = np.arange(len(values)) < len(failed)
    known = np.isfinite(values)
    values, bad = values[known], bad[known]
    if len(values) < 40 or len(np.unique(values)) < 4 or not bad.any() or bad.all():
        return None
    border = float(np.quantile(values, 0.75))
    new = values > border if (values > border).sum() >= 10 else values >= border
    table = [
        [int((bad & new).sum()), int((~bad & new).sum())],
        [int((bad & ~new).sum()), int((~bad & ~new).sum())],
    ]
    rates = [row[0] / max(1, sum(row)) for row in table]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    if p >= alpha or rates[0] < 1.5 * rates[1]:
        return None
    return {
        "field": name,
        "newer_than": border,
        "failure_rate_newest": rates[0],
        "failure_rate_others": rates[1],
        "n_newest": sum(table[0]),
        "p": p,
        "remedy": "failures concentrate on the newest documents: update the index (nearer index sync) before any training",
    }
