"""Why did each failing query fail, and what is the cheapest thing that repairs it?  Train and dev only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.missing import missing_documents
from nearer.diagnosis.causes import causes
from nearer.diagnosis.evidence import diagnosed
from nearer.diagnosis.story import failure_line, label
from nearer.diagnosis.terms import Asked, DomainTerms, domain_terms
from nearer.diagnosis.totals import freshness, waterfall
from nearer.diagnosis.values import ByName, Failure, Probe
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.project import Project
from nearer.results import Block, Line, Result, Row, Table
from nearer.search.systems import Systems
from nearer.types import Query, Run, Split

#: What `step.json` repeats of the summary.
_BRIEF = (
    "n_failures",
    "n_failing_queries",
    "n_queries",
    "causes",
    "fine_tuning_ceiling",
    "label_suspects",
)

#: Causes for which it matters what the words of a query mean.
_UNDERSTANDING = ("semantic", "base_model", "unknown")


@dataclass(frozen=True)
class Diagnoses(Result):
    """Lines of `failures.jsonl`, `summary.json`, and lines of `terms.jsonl`."""

    failures: Sequence[Failure]
    summary: Mapping[str, Any]
    terms: Sequence[Mapping[str, Any]] = ()

    def save(self, folder: Path) -> None:
        """`failures.jsonl` (one line per failure, with every probe), `terms.jsonl`, `summary.json`."""
        write_jsonl(folder / "failures.jsonl", self.failures)
        write_jsonl(folder / "terms.jsonl", self.terms)
        write_json(folder / "summary.json", self.summary)

    @classmethod
    def load(cls, folder: Path) -> Diagnoses:
        failures = list(read_jsonl(folder / "failures.jsonl"))
        terms = folder / "terms.jsonl"
        found = list(read_jsonl(terms)) if terms.is_file() else []
        return cls(failures, read_json(folder / "summary.json"), found)

    def brief(self) -> dict[str, Any]:
        return {key: self.summary[key] for key in _BRIEF}

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per failure: ids, cause, kind, evidence, and the rank under each probe."""
        for line in self.failures:
            record = {key: value for key, value in line.items() if key != "probes"}
            for name, probe in line["probes"].items():
                record[f"rank: {name}"] = probe["rank"]
            yield record

    def blocks(self) -> list[Block]:
        summary = self.summary
        ceiling = summary["fine_tuning_ceiling"]
        rows = []
        for step in summary["steps"]:
            tone = "bold" if step["cause"] == "semantic" else ""
            measure = f"{step['measure']:.3f}"
            rows.append(
                Row((step["cause"], f"{step['failures']:,}", measure, step["remedy"]), tone)
            )
        columns = ("cause", "missed", f"{ceiling['measure']} then", "what repairs it")
        blocks: list[Block] = [
            Line(
                f"{summary['n_failing_queries']:,} of {summary['n_queries']:,} queries find nothing "
                f"relevant in the first {summary['k']} ({summary['n_failures']:,} documents missed)"
            ),
            Table(columns, rows, prose=("what repairs it",)),
            Line(_ceiling_line(ceiling, summary.get("causes", {}).get("unknown", 0))),
        ]
        blocks += _term_lines(summary.get("terms", {}))
        if fresh := summary["freshness"]:
            blocks.append(Line(f"! {fresh['remedy']} (field {fresh['field']})", "warn"))
        for untried in summary.get("not_tried", []):
            probe = untried["probe"].replace("_", " ")
            what = f"not tried for {untried['failures']:,}: {probe}: {untried['why']}"
            blocks.append(Line(f"  · {what}", "dim"))
            blocks.append(Line(f"    → {untried['next']}", "command"))
        return blocks


def _term_lines(terms: Mapping[str, Any]) -> list[Block]:
    """How many domain terms there are, and those that most failing queries hold."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in terms.get("kinds", {}).items())
    if not kinds:
        return []
    failing = [row["term"] for row in terms["rows"] if row["failing_queries"]]
    line = f"domain terms: {kinds} (terms.jsonl)"
    if failing:
        line += f"; in failing queries most: {', '.join(failing[:5])}"
    return [Line(line, "dim")]


def _ceiling_line(ceiling: Mapping[str, Any], unknown: int) -> str:
    """What fine-tuning can add at most, and how much of it hangs on failures of unknown cause."""
    line = f"{ceiling['measure']} is {ceiling['today']:.3f} today; "
    possible = ceiling.get("if_unknown_were_semantic", ceiling["today"]) - ceiling["today"]
    if ceiling["gain"] > 0:
        line += f"finding the semantic ones first adds {ceiling['gain']:.3f}"
        if unknown:
            line += f" ({possible:.3f} if the {unknown:,} unknown ones were semantic too)"
        return line
    line += "no failure was shown to be semantic"
    if unknown:
        line += f", and {unknown:,} are unknown: fine-tuning adds {possible:.3f} at most"
    return line


def diagnose(
    systems: Systems, splits: Sequence[Split], settings: config.Config, rng: np.random.Generator
) -> Diagnoses:
    """Name the cause of every failure by executing the repairs.

    `splits` are dev and train; a query fails when none of its relevant documents is among the first
    k.  A relevant document that the corpus lacks is diagnosed even where its query does not fail:
    its line has `query_fails` false.  With more than `diagnose.limit` failing queries a random
    sample of all queries is looked at.
    """
    looked_at, failed = _looked_at(systems, splits, settings, rng)
    wanted = _wanted(systems, looked_at, failed, settings.data.min_grade)
    queries = tuple(query for query in looked_at.queries if query.id in wanted)
    failing = Split("failing", queries, looked_at.judgments)
    probes, diagnoses = diagnosed(systems, failing, wanted, settings)
    failures: list[dict[str, Any]] = []
    for pair, diagnosis in diagnoses.items():
        line = failure_line(pair, diagnosis, probes[pair], settings.diagnose.k)
        line["query_fails"] = pair[0] in failed
        failures.append(line)
    texts = {query.id: query.text for query in looked_at.queries}
    asked = Asked(texts, failed, failures)
    terms = domain_terms(systems.corpus, systems.encoder, asked, settings.diagnose.terms)
    failures = [_with_terms(line, terms) for line in failures]
    baseline = systems.base(systems.today)
    run = systems.run(baseline, looked_at, settings.diagnose.depth)
    summary = {
        "n_failures": len(failures),
        "n_failing_queries": len(failed),
        "missing": missing_documents(looked_at, systems.corpus),
        "n_queries": len(looked_at.queries),
        "k": settings.diagnose.k,
        "splits": list(settings.diagnose.splits),
        "causes": _counts(failures),
        "kinds": _kinds(failures),
        "label_suspects": sum(_is_label_suspect(line) for line in failures),
        **waterfall(run, looked_at, failures, settings.evaluate.primary),
        "freshness": _freshness(systems, looked_at, failed, settings.data.min_grade),
        "not_run": _not_run(probes.values()),
        "not_tried": _not_tried(probes.values()),
        "examples": _examples(systems, failures, queries, run, settings.diagnose.examples),
        "terms": terms.summary(),
    }
    return Diagnoses(failures, summary, [term.as_dict() for term in terms.terms])


def _with_terms(line: dict[str, Any], terms: DomainTerms) -> dict[str, Any]:
    """A failure of the model's understanding, with what is special about the words of its query."""
    evidence = terms.evidence(line["query_id"]) if line["cause"] in _UNDERSTANDING else ""
    if not evidence:
        return line
    return {**line, "evidence": "; ".join(filter(None, (line["evidence"], evidence)))}


def _looked_at(
    systems: Systems,
    splits: Sequence[Split],
    settings: config.Config,
    rng: np.random.Generator,
) -> tuple[Split, set[str]]:
    """The queries that are looked at, and the ids of those that fail."""
    k, depth, limit = settings.diagnose.k, settings.diagnose.depth, settings.diagnose.limit
    baseline = systems.base(systems.today)
    queries: list[Query] = []
    judgments: dict[str, Mapping[str, int]] = {}
    failed: set[str] = set()
    for split in splits:
        run = systems.run(baseline, split, depth)
        for query in split.queries:
            relevant = split.relevant(query.id, settings.data.min_grade)
            if not relevant:
                continue
            if systems.today == "run" and query.id not in run.results:
                continue
            queries.append(query)
            judgments[query.id] = split.judgments[query.id]
            top = run.top(query.id, k)
            if relevant.keys().isdisjoint(top):
                failed.add(query.id)
    if len(failed) > limit:
        queries = _sample(queries, failed, limit, rng)
        failed.intersection_update([query.id for query in queries])
    return Split("diagnosed", tuple(queries), judgments), failed


def _sample(
    queries: Sequence[Query], failed: Collection[str], limit: int, rng: np.random.Generator
) -> list[Query]:
    """Queries at random, until `limit` failing ones are among them, in their order."""
    chosen: list[int] = []
    count = 0
    for position in rng.permutation(len(queries)):
        chosen.append(int(position))
        count += queries[position].id in failed
        if count == limit:
            break
    return [queries[position] for position in sorted(chosen)]


def _wanted(
    systems: Systems, split: Split, failed: Collection[str], grade: int
) -> dict[str, list[str]]:
    """The documents to diagnose: all relevant ones of failing queries, of others those that are missing."""
    wanted: dict[str, list[str]] = {}
    for query in split.queries:
        relevant = list(split.relevant(query.id, grade))
        if query.id not in failed:
            relevant = [doc_id for doc_id in relevant if doc_id not in systems.corpus]
        if relevant:
            wanted[query.id] = relevant
    return wanted


def _is_label_suspect(line: Failure) -> bool:
    named = (line["cause"], *line["also"])
    return "label_suspect" in named


def _counts(failures: Iterable[Failure]) -> dict[str, int]:
    """Failures per cause, in the order of the cost of their repair."""
    counts = Counter(line["cause"] for line in failures)
    names = [cause.name for cause in causes()]
    return {name: counts[name] for name in names if counts[name]}


def _kinds(failures: Iterable[Failure]) -> dict[str, dict[str, int]]:
    """Failures per cause and kind, the most frequent kind first."""
    counts: dict[str, Counter[str]] = {}
    for line in failures:
        if line["kind"]:
            of_cause = counts.setdefault(line["cause"], Counter())
            of_cause[line["kind"]] += 1
    return {cause: dict(kinds.most_common()) for cause, kinds in counts.items()}


def _skipped(results: Iterable[ByName]) -> list[tuple[str, Probe]]:
    """Every probe that was not tried, or not in every way, with its name."""
    skipped: list[tuple[str, Probe]] = []
    for probes in results:
        skipped += [(name, probe) for name, probe in probes.items() if probe.skipped]
    return skipped


def _not_run(results: Iterable[ByName]) -> dict[str, int]:
    """How many failures each probe left out, by name and reason."""
    counts: Counter[str] = Counter()
    for name, probe in _skipped(results):
        counts[f"{name}: {probe.skipped}"] += 1
    return dict(counts)


def _not_tried(results: Iterable[ByName]) -> list[dict[str, Any]]:
    """Probes that could have settled a failure and did not run: why, for how many, and what would run them."""
    counts: Counter[tuple[str, str | None, str]] = Counter()
    for name, probe in _skipped(results):
        counts[name, probe.skipped, probe.next_step] += 1
    return [
        {"probe": name, "why": why, "next": next_step, "failures": count}
        for (name, why, next_step), count in counts.most_common()
    ]


def _freshness(
    systems: Systems, split: Split, failed: Collection[str], grade: int
) -> dict[str, Any] | None:
    """Do failures concentrate on recent documents?"""
    recency = systems.fields.recency()
    if recency is None:
        return None
    name, dates = recency
    missed: list[float] = []
    fine: list[float] = []
    for query in split.queries:
        side = missed if query.id in failed else fine
        for doc_id in split.relevant(query.id, grade):
            if doc_id in systems.corpus:
                position = systems.corpus.position(doc_id)
                side.append(float(dates[position]))
    return freshness(name, missed, fine)


def _examples(
    systems: Systems,
    failures: Iterable[Failure],
    queries: Iterable[Query],
    run: Run,
    limit: int,
) -> dict[str, list[dict[str, Any]]]:
    """Readable examples per cause, at most `limit`, one per query."""
    texts = {query.id: query.text for query in queries}
    examples: dict[str, list[dict[str, Any]]] = {}
    for line in failures:
        query_id = line["query_id"]
        of_cause = examples.setdefault(line["cause"], [])
        named = {example["query_id"] for example in of_cause}
        if len(of_cause) >= limit or query_id in named:
            continue
        first = ""
        for doc_id in run.top(query_id, 1):
            first = label(systems, doc_id)
        of_cause.append(
            {
                "query_id": query_id,
                "query": texts[query_id][:200],
                "doc_id": line["doc_id"],
                "document": label(systems, line["doc_id"]),
                "first": first,
                "evidence": line["evidence"],
            }
        )
    return examples


def run(project: Project) -> Diagnoses:
    """Name the cause of every failing dev and train query by executing the repairs."""
    systems, splits = prepared(project)
    return diagnose(systems, splits, project.settings, project.rng("diagnose"))


RESULT = Diagnoses


def prepared(project: Project) -> tuple[Systems, list[Split]]:
    """Systems with their reranker and the tuned hybrid, and the splits that are diagnosed."""
    systems, settings = project.systems, project.settings
    splits = []
    for name in settings.diagnose.splits:
        if name == "train" and systems.today == "run":
            continue  # a run file holds dev (and test) results only
        split = project.split(name)
        if split.queries:
            splits.append(split)
    if systems.today == "convex":
        systems.tune(project.split("dev"), settings.evaluate.primary)
    return project.systems_with_reranker, splits
