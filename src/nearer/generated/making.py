"""From the documents of a project to generated queries: briefs, proposals, rules, round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nearer import progress
from nearer.data.generated import MARK, is_generated
from nearer.data.splits import frozen_split
from nearer.errors import ConfigError, DataError
from nearer.files import value_hash
from nearer.generated.base import (
    SEVERAL,
    Brief,
    GeneratorSpec,
    QueryGenerator,
    estimate_of,
    load_generator,
    proposals,
)
from nearer.generated.filters import Candidate, Sieve
from nearer.generated.result import Generated
from nearer.project import Project
from nearer.search.systems import Systems
from nearer.types import Document, Query, Split, is_blank

#: Systems that must find the document of a query again.
ROUND_TRIP = ("bm25", "dense")
_SHARE = 10  # a tenth of the corpus is near the top, however small it is
_LEAST = 3  # results


@dataclass(frozen=True)
class Maker:
    """One project's documents, its generator, and the work that it is given."""

    project: Project
    systems: Systems
    generator: QueryGenerator
    briefs: Sequence[Brief]
    people: Sequence[str]  # training queries of people
    examples: Sequence[str]  # those of them that the generator is shown

    @classmethod
    def of(cls, project: Project) -> Maker:
        """Raises DataError, ConfigError and ModelError for what the settings name."""
        settings = project.settings.generate
        people = _asked_by_people(project)
        rng = project.rng("generate")
        shown = min(settings.examples, len(people))
        rows = sorted(rng.choice(len(people), shown, replace=False).tolist()) if shown else []
        examples = tuple(people[row] for row in rows)
        spec = GeneratorSpec(project.settings, project.root, project.cache, examples)
        systems = project.systems
        generator = load_generator(spec)
        return cls(project, systems, generator, _briefs(project, systems), people, examples)

    def estimate(self) -> str:
        """What the generator would send and cost, as a sentence."""
        return estimate_of(self.generator, self.briefs)

    def make(self) -> Generated:
        """The queries that were kept, and everything that was refused.  Raises DataError for none."""
        settings = self.project.settings
        sieve = Sieve(settings.generate)
        proposed = proposals(self.generator, self.briefs)
        candidates: list[Candidate] = []
        for brief, drafts in zip(self.briefs, proposed, strict=True):
            candidates += sieve.own_words(drafts, brief.documents)
        candidates = sieve.different(candidates, self.people, settings.check.near_duplicate)
        by_id = {_query_id(candidate): candidate for candidate in candidates}
        kept = self._found_again(by_id, sieve)
        silent = sum(not drafts for drafts in proposed)
        total = sum(map(len, proposed))
        summary = self._summary(kept, sieve, {"proposed": total, "without_a_query": silent})
        if not kept:
            raise _nothing(self.generator, summary)
        return Generated.of(kept, sieve.dropped, summary)

    @property
    def top(self) -> int:
        """Results that are near the top: `generate.top`, less where the corpus is small."""
        tenth = max(_LEAST, len(self.systems.corpus) // _SHARE)
        return min(self.project.settings.generate.top, tenth)

    def _found_again(
        self, candidates: Mapping[str, Candidate], sieve: Sieve
    ) -> dict[str, Candidate]:
        queries = [Query(query_id, candidate.text) for query_id, candidate in candidates.items()]
        if not queries:
            return {}
        split = Split(MARK, tuple(queries), {})
        runs = []
        for name in ROUND_TRIP:
            run = self.systems.run(self.systems.base(name), split, self.top)
            runs.append(replace(run, name=name))
        return sieve.found_again(candidates, runs, self.top)

    def _summary(
        self, kept: Mapping[str, Candidate], sieve: Sieve, counts: Mapping[str, int]
    ) -> dict[str, Any]:
        """`summary.json`."""
        asked = {document.id for brief in self.briefs for document in brief.documents}
        answered = {doc_id for candidate in kept.values() for doc_id in candidate.doc_ids}
        kinds = Counter(candidate.kind for candidate in kept.values())
        return {
            MARK: True,
            "generator": self.generator.name,
            "documents": len(asked),
            "documents_with_queries": len(answered),
            "briefs": len(self.briefs),
            **counts,
            "kept": len(kept),
            "kinds": dict(sorted(kinds.items())),
            "dropped": sieve.counts,
            "round_trip": {"systems": list(ROUND_TRIP), "top": self.top},
            "queries_of_people": len(self.people),
            "examples": list(self.examples),
            "settings": self.project.settings.section("generate"),
        }


def _asked_by_people(project: Project) -> list[str]:
    """Training queries of people, as the run's check froze them; held-out ones are not looked at."""
    train = frozen_split(project.root, project.settings.run, "train")
    return [query.text for query in train.queries if not is_generated(query)]


def _briefs(project: Project, systems: Systems) -> list[Brief]:
    """What to ask for: each document alone, and where the kinds say so pairs of neighbours."""
    settings = project.settings.generate
    documents = _documents(project, systems)
    alone = tuple(kind for kind in settings.kinds if kind != SEVERAL)
    briefs = []
    if alone:
        briefs = [Brief((document,), alone, settings.per_kind) for document in documents]
    if SEVERAL in settings.kinds:
        for pair in _neighbours(documents, systems):
            briefs.append(Brief(pair, (SEVERAL,), settings.per_kind))
    return briefs


def _documents(project: Project, systems: Systems) -> list[Document]:
    """The documents that have a text, cut to what the generator reads; a sample where that is set."""
    settings = project.settings.generate
    corpus = systems.corpus
    rows: Sequence[int] = range(len(corpus))
    if settings.documents is not None and settings.documents < len(corpus):
        drawn = project.rng("generate documents").permutation(len(corpus))[: settings.documents]
        rows = sorted(drawn.tolist())
    documents = []
    for row in rows:
        document = corpus[row]
        if not is_blank(document.content):
            documents.append(replace(document, text=document.text[: settings.characters]))
    if not documents:
        raise DataError(
            "no document has a text", where=str(corpus.source), next_step="nearer check"
        )
    return documents


def _neighbours(documents: Sequence[Document], systems: Systems) -> list[tuple[Document, Document]]:
    """Pairs of documents of which BM25 finds the second by the first one's title."""
    queries = []
    for row, document in enumerate(documents):
        queries.append(Query(str(row), document.title or document.text[:200]))
    run = systems.run(systems.base("bm25"), Split("titles", tuple(queries), {}), _LEAST)
    by_id = {document.id: document for document in documents}
    pairs: dict[frozenset[str], tuple[Document, Document]] = {}
    for row, document in enumerate(documents):
        others = [i for i in run.top(str(row), _LEAST) if i != document.id and i in by_id]
        for doc_id in others[:1]:
            pairs.setdefault(frozenset((document.id, doc_id)), (document, by_id[doc_id]))
    return list(pairs.values())


def _query_id(candidate: Candidate) -> str:
    return f"generated-{value_hash([candidate.kind, candidate.text])[:16]}"


def _nothing(generator: QueryGenerator, summary: Mapping[str, Any]) -> DataError:
    reasons = [f"{count:,} × {reason}" for reason, count in summary["dropped"].items()]
    if summary["without_a_query"]:
        reasons.append(f"{summary['without_a_query']:,} × no query came back")
    return DataError(
        f"of {summary['proposed']:,} proposed queries none was kept: {'; '.join(reasons)}",
        where=generator.name,
        next_step="look at what comes back, or loosen generate.top, copied_words or overlap",
    )


def generate(project: Project) -> Generated:
    """Make queries of a project's documents.  Raises DataError, ConfigError and ModelError."""
    if project.settings.task != "search":
        raise ConfigError(
            f"queries are generated for search, and the task is {project.settings.task}",
            where="task",
            next_step="nearer generate --set task=search",
        )
    result = Maker.of(project).make()
    silent = result.summary["without_a_query"]
    if silent:
        progress.warn(
            f"no query came back for {silent:,} of {result.summary['briefs']:,} documents"
        )
    return result
