"""check: can this data be trusted to train and to judge?

`check(...)` takes values and returns a `CheckResult`; `run` gives it what the settings name.

What becomes of the data: judgments of unknown queries, and an item judged relevant to itself, are
left out; so are queries without text or without a relevant document.  Judgments of documents that
the corpus lacks stay, with a warning: they count as missed.  A split that the data brings is kept,
except that queries which repeat a later split's query (train < dev < test) are dropped.  Missing
splits are made: dev or test from train; all three when there is one split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nearer import config, files
from nearer.data import load, near, sizes, splits
from nearer.data.corpus import Corpus
from nearer.data.division import (
    Rules,
    report_duplicates,
    report_shared_documents,
    without_repeats,
)
from nearer.data.fitting import (
    Findings,
    fitting_judgments,
    notice_item_to_item,
    usable_queries,
)
from nearer.data.generated import (
    GENERATED,
    origin_lines,
    people_first,
    read_generated,
    report_origins,
)
from nearer.data.heldout import HeldOut
from nearer.data.importance import refuse_unreadable
from nearer.data.judged import JudgmentSources, divide_all
from nearer.data.lengths import measure_texts
from nearer.data.named import report_named
from nearer.data.reviewed import (
    POOLED,
    REVIEWED,
    read_pooled,
    read_reviewed,
    refuse_other_texts,
)
from nearer.data.scored import HeldOutPairs, ScoredPair, held_out_pairs, read_pairs, write_pairs
from nearer.data.sources import is_only_training
from nearer.embed.tokens import Tokens, load_tokens
from nearer.project import Project
from nearer.results import Block, Lazy, Line, Result
from nearer.training.losses import learns_from_scores
from nearer.types import SPLITS, Finding, Judgments, Query, Split


@dataclass(frozen=True)
class CheckResult(Result):
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
    pairs: Mapping[str, tuple[ScoredPair, ...]] = field(default_factory=dict)
    reviewed: Mapping[str, Any] = field(default_factory=dict)  # what became of later judgments
    #: queries of people and generated ones, by split
    queries_from: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """`findings.json`."""
        queries = {name: self.counts[f"{name}_queries"] for name in SPLITS}
        reviewed = {"reviewed": self.reviewed} if self.reviewed else {}
        return {
            "counts": self.counts,
            "lengths": self.lengths,
            "power": self.power,
            "item_to_item": self.item_to_item,
            "split": {"notes": self.split_notes, "queries": queries, "dropped": self.dropped},
            "findings": [finding.as_dict() for finding in self.findings],
            "queries_from": self.queries_from,
            **reviewed,
        }

    def report(self) -> str:
        """The findings as Markdown, for people."""
        return report(self)

    def save(self, folder: Path) -> None:
        """`findings.json`, `report.md`, `split/`, `heldout.npz` and `near_duplicates.json`."""
        for split in self.splits.values():
            splits.write_split(folder / "split", split)
        write_pairs(folder / "split", self.pairs)
        self.held_out.save(folder / "heldout.npz")
        files.write_json(
            folder / "near_duplicates.json",
            {"documents": self.duplicate_documents, "queries": self.duplicate_train_queries},
        )
        files.write_json(folder / "findings.json", self.as_dict())
        files.write_text(folder / "report.md", report(self))

    @classmethod
    def load(cls, folder: Path) -> CheckResult:
        """Read what was found.  The test split stays closed: `splits` has train and dev only."""
        found = files.read_json(folder / "findings.json")
        alike = files.read_json(folder / "near_duplicates.json")
        return cls(
            counts=found["counts"],
            lengths=found["lengths"],
            power=found["power"],
            findings=tuple(Finding.from_dict(finding) for finding in found["findings"]),
            split_notes=tuple(found["split"]["notes"]),
            splits=Lazy(("train", "dev"), lambda name: splits.read_split(folder / "split", name)),
            held_out=HeldOut.load(folder / "heldout.npz"),
            duplicate_documents=tuple(map(tuple, alike["documents"])),
            duplicate_train_queries=tuple(map(tuple, alike["queries"])),
            item_to_item=bool(found["item_to_item"]),
            dropped=found["split"]["dropped"],
            pairs={"dev": read_pairs(folder / "split", "dev")},
            reviewed=found.get("reviewed", {}),
            queries_from=found.get("queries_from", {}),
        )

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per finding."""
        return (finding.as_dict() for finding in self.findings)

    def blocks(self) -> list[Block]:
        counts = self.counts
        queries = ", ".join(f"{counts[f'{name}_queries']:,} {name}" for name in SPLITS)
        head = (
            f"{counts['documents']:,} documents; queries: {queries}; warnings: {len(self.findings)}"
        )
        made = sum(row["generated"] for row in self.queries_from.values())
        asked = sum(row["people"] for row in self.queries_from.values())
        origin = f"  · {asked:,} queries are from people, {made:,} are generated"
        findings = [Line(f"  · {finding.message}", "dim") for finding in self.findings]
        return [Line(head), Line(origin, "dim"), *findings]

    def brief(self) -> dict[str, Any]:
        """What `nearer status` shows."""
        return {
            "documents": self.counts["documents"],
            "queries": {name: self.counts[f"{name}_queries"] for name in SPLITS},
            "queries_from": self.queries_from,
            "warnings": len(self.findings),
            "dropped_training_queries": self.dropped.get("train", 0),
            "smallest_difference": self.power["smallest_difference"],
        }


_ONLY_TRAINING = (
    "There are training files only: a model can be trained on them (nearer mine, nearer train), "
    "but no search is evaluated and nothing can be decided."
)
_ONLY_PAIRS = (
    "There are scored pairs only: a model can be trained on them and judged by how well its "
    "similarities follow the scores (Spearman), but no search is evaluated."
)
_NO_TRAIN = (
    "There are no training queries: the data can be evaluated, but no model can be trained on it."
)
_JUDGE = "add documents, queries and judgments (data.folder) to judge what was trained"


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

    Those under `generated` come in once it is made, those under `reviewed` are added to the split
    that has their query; queries under `pooled` belong to test.  Raises DataError, with a line for
    each fatal problem.
    """
    # Longer than fifty lines, since the order of these steps is what this function is about.
    data, settings = data or config.Data(), settings or config.Check()
    source = JudgmentSources.of(judgments)
    findings, threshold = Findings(settings.examples), settings.near_duplicate
    item_to_item = notice_item_to_item(corpus, queries, source.own, data.item_to_item, findings)
    only_training = is_only_training(data)
    asked = not only_training and (bool(source.own) or not source.generated)  # by people
    usable: Mapping[str, Judgments] = {"train": {}}
    if only_training:
        findings.add("only_training", _ONLY_TRAINING, next_step=_JUDGE)
    elif asked:
        usable = fitting_judgments(corpus, queries, source.own, item_to_item, findings)
    lengths = measure_texts(corpus, queries, tokens, findings)
    if asked and not any(finding.fatal for finding in findings.items):
        usable = usable_queries(corpus, queries, usable, findings)
    findings.stop_if_fatal()
    documents = _duplicate_documents(corpus, threshold, findings)
    rules = Rules(data, seed, threshold)
    divided, notes, reviewed = divide_all(queries, usable, source, rules, item_to_item, findings)
    groups = _duplicate_queries(queries, divided, threshold, findings)
    report_shared_documents(corpus, divided, findings)
    kept = dict(divided)
    for name in ("dev", "train"):
        kept[name] = without_repeats(name, queries, divided, groups, threshold, findings)
    frozen = {name: _frozen(name, queries, kept[name]) for name in SPLITS}
    if not len(frozen["train"]) and not only_training:
        findings.add("no_train", _NO_TRAIN)
    report_named(queries, frozen.values(), findings)
    queries_from = report_origins(frozen, findings)
    in_train = (tuple(q for q in group if q in kept["train"]) for group in groups)
    held_out = (queries[q].text for name in ("dev", "test") for q in divided[name])
    return CheckResult(
        counts=sizes.counts(corpus, queries, source.own, frozen),
        lengths=lengths,
        power=sizes.power(len(frozen["test"]), findings),
        findings=tuple(findings.items),
        split_notes=notes,
        splits=frozen,
        held_out=HeldOut.of(held_out, threshold),
        duplicate_documents=documents,
        duplicate_train_queries=tuple(group for group in in_train if len(group) > 1),
        item_to_item=item_to_item,
        dropped={name: len(divided[name]) - len(kept[name]) for name in ("dev", "train")},
        reviewed=reviewed,
        queries_from=queries_from,
    )


def _frozen(name: str, queries: Mapping[str, Query], judged: Judgments) -> Split:
    ordered = sorted((queries[query_id] for query_id in judged), key=people_first)
    return Split(name, tuple(ordered), judged)


def _duplicate_documents(
    corpus: Corpus, threshold: float, findings: Findings
) -> tuple[tuple[str, ...], ...]:
    """Groups of ids of documents that are near-duplicates of each other."""
    alike = near.near_duplicates(corpus.contents(), threshold, reread=corpus.contents)
    report_duplicates(
        "documents", alike.pairs, corpus.ids, lambda row: corpus[row].content, findings
    )
    return tuple(tuple(corpus.ids[row] for row in group) for group in alike.groups)


def _duplicate_queries(
    queries: Mapping[str, Query],
    divided: Mapping[str, Judgments],
    threshold: float,
    findings: Findings,
) -> list[list[str]]:
    """Groups of ids of judged queries that are near-duplicates of each other, whatever their split."""
    judged = sorted({query_id for graded in divided.values() for query_id in graded})
    texts = [queries[query_id].text for query_id in judged]
    alike = near.near_duplicates(texts, threshold, what="queries")
    report_duplicates("queries", alike.pairs, judged, lambda row: texts[row], findings)
    return [[judged[row] for row in group] for group in alike.groups]


def run(project: Project) -> CheckResult:
    """Can this data be trusted to train and to judge?  Raises DataError when it cannot be used at all."""
    settings = project.settings
    loaded = project.loaded
    refuse_unreadable(loaded.queries.values())
    # Refused here, before hours of work, where the file cannot be trained on.
    load.load_training(settings.data, project.root)
    if (
        not learns_from_scores(settings.train.loss, project.root)
        and settings.mine.min_score is None
    ):
        load.refuse_undeclared_scores(settings.data, project.root)
    judgments = dict(loaded.judgments)
    queries = loaded.queries
    if project.run_dir is not None:  # a notebook has no folder of its own to review in
        judgments[REVIEWED] = read_reviewed(project.root)
        pooled = read_pooled(project.root)
        judgments[POOLED] = {query_id: {} for query_id in pooled}
        refuse_other_texts(pooled, queries, project.root / "review" / "pools")
        queries = {**pooled, **queries}
    data = settings.data
    if data.item_to_item is None and project.task.asks_with_items(settings):
        data = data.model_copy(update={"item_to_item": True})
    made = read_generated(data, project.root, loaded.corpus, queries)
    judgments[GENERATED] = made.judgments
    result = check(
        loaded.corpus,
        {**made.queries, **queries},
        judgments,
        data=data,
        settings=settings.check,
        seed=settings.seed,
        tokens=load_tokens(settings.model, project.root),
    )
    threshold = settings.check.near_duplicate
    scored = held_out_pairs(settings.data, project.root, settings.seed, threshold)
    result = _with_pairs(result, scored, threshold)
    source = project.task.source(settings)
    dropped = (f"{source}: {count} {why}." for why, count in loaded.dropped.items())
    return replace(result, split_notes=(*result.split_notes, *made.notes, *dropped))


def _with_pairs(result: CheckResult, scored: HeldOutPairs, threshold: float) -> CheckResult:
    """The result with held-out scored pairs, where these are all the data.

    Of a pair the two texts together are held out: each of them may stand in other pairs.
    """
    notes = (*result.split_notes, *scored.notes)
    if not (scored.dev or scored.test):
        return replace(result, split_notes=notes)
    findings = []
    for finding in result.findings:
        is_about = finding.code == "only_training"
        findings.append(replace(finding, message=_ONLY_PAIRS) if is_about else finding)
    counts = {"dev_pairs": len(scored.dev), "test_pairs": len(scored.test)}
    return replace(
        result,
        counts={**result.counts, **counts},
        findings=tuple(findings),
        split_notes=notes,
        held_out=HeldOut.of([pair.identity for pair in (*scored.dev, *scored.test)], threshold),
        pairs=scored.by_split(),
    )


RESULT = CheckResult


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
        "",
        *origin_lines(result.queries_from),
    ]
    lines += ["", "## Split", "", *(f"- {note}" for note in result.split_notes), ""]
    if power["n_queries"]:
        lines += [
            f"The {power['n_queries']} test queries can show a difference of nDCG@10 from **{power['smallest_difference']:.3f}** on "
            f"(80% power, α = .05 two-sided; a paired standard deviation of {sizes.ASSUMED_SD} is assumed until there are scores).",
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
