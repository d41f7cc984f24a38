"""From what the probes found to the cause of a failure: pure, so that the rule can be read and argued with.

Every probe executes one repair and reports the rank that the relevant document then has.  The cause
is the cheapest repair that works, with two guards against chance, because a document at rank 11
enters the first ten under almost any change: without direct evidence a repair must at least halve
the rank, and where two repairs work, direct evidence (an identifier that stands in the document,
text that the model never read) goes before the order of cost.

`semantic` is said only where every cheaper repair that applies was tried and none comes near: what
was not tried, or takes the rank down by an order of magnitude, might be the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.measure.metrics import score
from nearer.types import Run, Split, rank_hits

#: In order of the cost of their repair; each but the last three names the probe that tries it.
#: Two more probes try to cut finer (`finer`) and to combine (`combined`), one to rewrite the query.
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
    "semantic": "fine-tune: every cheaper repair was tried, and none comes near",
    "label_suspect": "judge the results above it: one may be as relevant",
    "unknown": "try what was not tried, or combine what helps in part: the evidence says which",
}
CANDIDATES = 100  # results that a reranker gets to see
TENFOLD = 10  # a repair that divides the rank by this much is near the cause, wherever it ends
IN_PART = "repaired in part"  # the kind of a failure whose repair ends outside of the first k

#: Repairs that may come near without arriving, in the order in which equal ranks are settled.
_NEAR = (
    "needs_metadata",
    "chunking",
    "finer",
    "exact_match",
    "rewriting",
    "combined",
    "base_model",
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One repair, executed: the exact rank that it gives the document (None: not found).

    `variants` has the rank under each way of doing it.  `skipped` says why it was not tried, or not
    in every way, and `next_step` which command would; a probe that is absent does not apply.
    `among` is the number of documents that competed, where not the whole corpus did.
    """

    rank: int | None = None
    variants: Mapping[str, int | None] = field(default_factory=dict)
    skipped: str | None = None
    at_least: bool = False  # the rank is known to be this or worse, not exactly
    next_step: str = ""
    among: int | None = None

    def found(self, k: int) -> bool:
        return self.rank is not None and self.rank <= k and not self.at_least

    def repairs(self, exact: Probe, k: int) -> bool:
        """Found, and not by a little: the rank that exact search gives is at least halved."""
        if not self.found(k):
            return False
        return exact.rank is None or 2 * (self.rank or 0) <= exact.rank

    def comes_near(self, exact: Probe) -> bool:
        """Is the rank that exact search gives taken down by an order of magnitude?"""
        return self.rank is not None and not self.at_least and _tenth(self.rank, exact)

    def as_dict(self, k: int) -> dict[str, Any]:
        told: dict[str, Any] = {"rank": self.rank, "found": self.found(k)}
        told |= {"at_least": True} if self.at_least else {}
        told |= {"variants": dict(self.variants)} if self.variants else {}
        if self.among is not None:
            told["among"] = self.among
        if self.skipped:
            told |= {"skipped": self.skipped, "next": self.next_step}
        return told


def _tenth(rank: int, exact: Probe) -> bool:
    """Is a rank at most a tenth of the exact one?  Where that one lies behind the list, of the list."""
    before = TENFOLD * CANDIDATES if exact.rank is None else exact.rank
    return TENFOLD * rank <= before


def best(variants: Mapping[str, int | None], among: int | None = None) -> Probe:
    """The probe with the best rank of its variants."""
    ranks = [rank for rank in variants.values() if rank is not None]
    return Probe(min(ranks) if ranks else None, variants, among=among)


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
        return probe.found(k) if sure else probe.repairs(exact, k)

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
    if lifts("finer", sure=bool(facts.unread)) and _cut_apart(probes["finer"], facts, exact, k):
        kind = (facts.unread or "mixed topics").partition(":")[0]
        told = f"{facts.unread}; " if facts.unread else ""
        return "chunking", kind, f"{told}only finer pieces find it: {_best_way(probes, 'finer')}"
    if lifts("combined"):
        told = f"only together: {_best_way(probes, 'combined')}"
        return _strongest(probes, facts, exact, k) or "unknown", "combination", told
    return _left_over(probes, facts, exact, k)


def _left_over(
    probes: Mapping[str, Probe], facts: Facts, exact: Probe, k: int
) -> tuple[str, str, str]:
    """The cause where no repair clearly works: near misses first, then what was not tried."""
    untried = "; ".join(
        f"not tried: {name} ({probe.skipped}; {probe.next_step})"
        for name, probe in probes.items()
        if probe.skipped
    )
    near = [
        name for name in _NEAR if name in probes and _helps(name, probes[name], facts, exact, k)
    ]
    if near:
        best_name = min(near, key=lambda name: probes[name].rank or 0)
        cause = _strongest(probes, facts, exact, k)
        told = f"{best_name} helps: {_best_way(probes, best_name)}"
        if probes[best_name].found(k):
            told += ", perhaps by chance: nothing else speaks for it"
        else:
            told += f", which is not among the first {k}"
        evidence = "; ".join(text for text in (facts.unread, told, untried) if text)
        return cause or "unknown", IN_PART, evidence
    if untried:
        first = next(name for name, probe in probes.items() if probe.skipped)
        return "unknown", f"not tried: {first}", untried
    return "semantic", *_meaning(facts)


def _helps(name: str, probe: Probe, facts: Facts, exact: Probe, k: int) -> bool:
    """Does a repair come near, or find the document without the evidence that makes it a cause?

    Where no term of the query stands in the document, one lucky way to cut it says nothing.
    """
    if probe.comes_near(exact):
        return True
    alone = name in ("chunking", "finer", "rewriting") and facts.overlap > 0
    return alone and probe.repairs(exact, k)


def _strongest(probes: Mapping[str, Probe], facts: Facts, exact: Probe, k: int) -> str | None:
    """The cause whose repair takes the rank down furthest, by an order of magnitude, with evidence."""
    speaks = {
        "needs_metadata": facts.declared,
        "exact_match": bool(facts.identifiers),
        "base_model": True,
    }
    ranks: dict[str, int] = {}
    for name in _NEAR:
        probe = probes.get(name, Probe())
        if probe.rank is None or not probe.comes_near(exact):
            continue
        if name in ("chunking", "finer") and _cut_apart(probe, facts, exact, k):
            ranks["chunking"] = min(probe.rank, ranks.get("chunking", probe.rank))
        elif speaks.get(name, False):
            ranks[name] = probe.rank
    return min(ranks, key=lambda cause: ranks[cause], default=None)


def _cut_apart(probe: Probe, facts: Facts, exact: Probe, k: int) -> bool:
    """Is there evidence that the document must be cut: text that is not read, or ways that agree?"""
    ways = [Probe(rank) for rank in probe.variants.values()]
    agreed = [way for way in ways if way.comes_near(exact) or way.repairs(exact, k)]
    most = len(agreed) > max(1, len(probe.variants) / 2)
    return bool(facts.unread) or (most and facts.overlap > 0)


def _best_way(probes: Mapping[str, Probe], name: str) -> str:
    """The best variant of a probe, and where it takes the document."""
    among = probes[name].among
    told = f"{_which(probes[name]) or name}: {_to(probes, name)}"
    return told if among is None else f"{told} among the {among:,} nearest documents"


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
        f"{facts.overlap:.0%} of the query's terms stand in it, and every cheaper repair was tried",
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
