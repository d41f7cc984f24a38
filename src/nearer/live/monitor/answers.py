"""Why judged queries no longer find what is relevant, and what to do about it.

A document that the index lacks is reported at once; the others go through the probes of `nearer
diagnose`, with what the active generation answered as the results of the system in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearer.config import Config
from nearer.data.trec import write_run
from nearer.diagnosis.evidence import diagnosed
from nearer.live.index.manifest import Manifest
from nearer.live.monitor.observed import Measured, Observed
from nearer.project import Project
from nearer.search.systems import Systems
from nearer.shortlist import AUTO
from nearer.types import Query, Run, Split

_DIAGNOSED = 50  # failing queries that a diagnosis looks at
_EXAMPLES = 10

#: What fails → what to do about it.
ANSWERS: Mapping[str, str] = {
    "missing documents": "update the index: nearer index sync, then nearer index verify ID",
    "metadata": "fix the data: correct the metadata, or the filters that the application declares, then nearer index sync",
    "vocabulary": "fine-tune again with queries that use these words (nearer run), or search words beside vectors (nearer fix)",
    "semantics": "fine-tune again: add these queries to the training data, then nearer run",
    "search": "a simpler fix repairs it: nearer fix",
    "judgments": "judge the results above the expected ones: they may be as good",
}
_FAMILY = {
    "missing_document": "missing documents",
    "index_loss": "missing documents",
    "ineligible": "metadata",
    "needs_metadata": "metadata",
    "exact_match": "vocabulary",
    "semantic": "semantics",
    "label_suspect": "judgments",
    "unknown": "semantics",
}
_VOCABULARY = ("vocabulary gap", "unknown term")  # kinds of semantic failures


@dataclass(frozen=True, slots=True)
class _Failure:
    """A query that does not find a relevant document, and why."""

    query_id: str
    doc_id: str
    cause: str
    kind: str
    evidence: str

    @property
    def family(self) -> str:
        if self.kind in _VOCABULARY:
            return "vocabulary"
        return _FAMILY.get(self.cause, "search")


def diagnose(
    project: Observed, ids: Sequence[str], measured: Sequence[Measured]
) -> dict[str, Any] | None:
    """Why judged queries (ids) fail: missing documents, metadata, vocabulary or semantics.

    Looks at the first of `measured` that has some of them; None where none fails.
    """
    affected = set(ids)
    for judged in measured:
        queries = {query.id: query for query in judged.queries if query.id in affected}
        if queries:
            break
    else:
        return None
    manifest = project.manifest
    if manifest is None:
        return None
    wanted = _unfound(project, judged, queries)
    failures = _missing(project, wanted)
    lost = {(failure.query_id, failure.doc_id) for failure in failures}
    left: dict[str, list[str]] = {}
    for query_id, doc_ids in wanted.items():
        there = [doc_id for doc_id in doc_ids if (query_id, doc_id) not in lost]
        if there:
            left[query_id] = there
    if left:
        failures += _probed(project, manifest, judged, queries, left)
    if not failures:
        return None
    return _summary(failures, queries, manifest.id)


def _unfound(
    project: Observed, judged: Measured, queries: Mapping[str, Query]
) -> dict[str, list[str]]:
    """Query → relevant documents that are not among its first results, for some failing queries."""
    grade, k = project.config.data.min_grade, project.config.diagnose.k
    wanted: dict[str, list[str]] = {}
    for query_id in queries:
        top = set(judged.run.top(query_id, k))
        grades = judged.judgments[query_id]
        unfound = [doc_id for doc_id, g in grades.items() if g >= grade and doc_id not in top]
        if unfound and len(wanted) < _DIAGNOSED:
            wanted[query_id] = unfound
    return wanted


def _missing(project: Observed, wanted: Mapping[str, Sequence[str]]) -> list[_Failure]:
    """Failures for want of a document in the index."""
    failures = []
    why = "it is in the corpus, but not in the index"
    for query_id, doc_ids in wanted.items():
        for doc_id in doc_ids:
            if doc_id in project.corpus and doc_id not in project.held:
                failures.append(_Failure(query_id, doc_id, "missing_document", "", why))
    return failures


def _probed(
    project: Observed,
    manifest: Manifest,
    judged: Measured,
    queries: Mapping[str, Query],
    left: Mapping[str, Sequence[str]],
) -> list[_Failure]:
    """Failures whose causes the probes find."""
    failing = Split(
        "affected",
        tuple(queries[query_id] for query_id in left),
        {query_id: judged.judgments[query_id] for query_id in left},
    )
    systems = _systems(project, manifest, judged.run, left)
    _, causes = diagnosed(systems, failing, left, project.config, tried_only=True)
    failures = []
    for (query_id, doc_id), found in causes.items():
        failures.append(_Failure(query_id, doc_id, found.cause, found.kind, found.evidence))
    return failures


def _systems(project: Observed, manifest: Manifest, run: Run, ids: Iterable[str]) -> Systems:
    """The systems that a diagnosis compares: the generation's own model, and its answers as a run file."""
    path = project.root / "monitor" / "canaries.trec"
    kept = {}
    for query_id in ids:
        kept[query_id] = [hit for hit in run.results[query_id] if hit[0] in project.corpus]
    write_run(path, Run("active", kept))
    fingerprint, config = manifest.fingerprint, project.config
    model = config.model.model_copy(
        update={
            "name": str(project.generations.path(manifest.id) / "model"),
            "query_prompt": fingerprint.query_prompt,
            "document_prompt": fingerprint.document_prompt,
            "max_seq_length": fingerprint.max_seq_length,
            "precision": fingerprint.precision,
        }
    )
    search = config.search.model_copy(
        update={"system": "run", "run": str(path), "chunker": manifest.chunker}
    )
    # A watch over production embeds the corpus with no model that nobody asked for.
    named = tuple(name for name in config.fix.models if name != AUTO)
    fix = config.fix.model_copy(update={"models": named})
    settings: Config = config.model_copy(update={"model": model, "search": search, "fix": fix})
    of_generation = Project.at(project.root, settings)
    return of_generation.systems_like(Systems, project.corpus, splits=("dev",))


def _summary(
    failures: Sequence[_Failure], queries: Mapping[str, Query], generation: str
) -> dict[str, Any]:
    """The answer of a diagnosis: the family of causes that most failures have."""
    families = Counter(failure.family for failure in failures)
    order = list(ANSWERS)
    answer = min(families, key=lambda name: (-families[name], order.index(name)))
    examples = []
    for failure in failures[:_EXAMPLES]:
        examples.append(
            {
                "query": queries[failure.query_id].text,
                "doc_id": failure.doc_id,
                "cause": failure.cause,
                "evidence": failure.evidence,
            }
        )
    return {
        "answer": answer,
        "do": ANSWERS[answer].replace("ID", generation),
        "families": dict(families.most_common()),
        "causes": dict(Counter(failure.cause for failure in failures).most_common()),
        "n_failures": len(failures),
        "examples": examples,
    }
