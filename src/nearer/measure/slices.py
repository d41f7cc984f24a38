"""Groups of queries that tend to behave alike, found without anybody labelling them.

Slices say *for whom* a system is good.  Their tables are exploratory: they suggest where to look
(p values are Holm-adjusted), they do not decide.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.measure.metrics import Scores
from nearer.measure.significance import RESAMPLES, Clusters, Units, compare, holm, mean_interval
from nearer.text import count_words, folded_words
from nearer.types import Judgments, Query

#: every automatic slice, in the order of tables; tags come first as `tag:NAME`
DESCRIPTIONS: Mapping[str, str] = {
    "short query": "at most 3 words",
    "medium query": "4 to 12 words",
    "long query": "13 words or more",
    "no overlap": "no term of the query stands in a relevant document",
    "low overlap": "fewer than half of the query's terms stand in its best relevant document",
    "high overlap": "at least half of the query's terms stand in a relevant document",
    "rare term": "a term of the query stands in 1 to 3 documents",
    "unknown term": "a term of the query stands in no document",
    "identifier": "a code, version, file name, path or quoted phrase",
    "question": "starts with a question word or ends with a question mark",
    "seen documents": "a relevant document has training queries",
    "unseen documents": "no relevant document has training queries",
    "often asked": "of the third of the queries that users ask most often (frequency)",
    "sometimes asked": "of the third in between",
    "rarely asked": "of the third that users ask least often",
    "high risk": "named as high risk, in the data or in decide.high_risk",
}
#: Slices that divide queries among them: no query is in two of a line.
PARTITIONS: Sequence[tuple[str, ...]] = (
    ("short query", "medium query", "long query"),
    ("no overlap", "low overlap", "high overlap"),
    ("seen documents", "unseen documents"),
    ("often asked", "sometimes asked", "rarely asked"),
)
RARE = 3
_SHORT, _MEDIUM = 3, 12  # words; web queries average about 3, verbose ones start at about 12

# The function words of Lucene's list, and the question words, which carry no topic either.
STOP_WORDS = frozenset(
    folded_words(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with "
        "what who whom whose when where which why how do does did can could should would has have had i you we he she its my your our from "
        "am been being were about"
    )
)
_QUESTION = re.compile(
    r"^\s*(?:who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|can|could|should|would|will|has|have)\b"
    r"|[?\uff1f\u061f]\s*$",
    re.IGNORECASE,
)
_EXTENSIONS = (
    "asp|aspx|bat|bin|c|cc|cfg|class|conf|cpp|cs|css|csv|dat|db|dll|doc|docx|exe|gif|go|gz|h|hpp|htm|html|ini|jar|java|jpg|js|json|jsp|"
    "ko|log|lua|md|msi|pdf|php|pl|plist|png|properties|ps1|py|pyc|rb|rs|sh|so|sql|swf|sys|tar|tcl|tmp|toml|ts|tsx|txt|vbs|xls|xlsx|xml|"
    "yaml|yml|zip"
)
# Alternatives in order of preference; every repetition is bounded, so that no text takes long.
_IDENTIFIER = re.compile(
    rf"""
      (?P<quoted>"[^"\n]{{2,80}}"|`[^`\n]{{2,80}}`|“[^”\n]{{2,80}}”)
    | \b[a-z][a-z0-9+.-]{{1,15}}://[^\s"'<>]{{1,200}}                         # address
    | (?<![\w./\\])(?:[A-Za-z]:\\|~/|\.{{1,2}}/|/(?=[\w.-]{{2}}))[\w./\\~+-]{{1,200}}   # path
    | (?<![\w-])--[a-z][\w-]{{1,40}}                        # command-line option
    | \b[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}\b                 # UUID
    | \b0[xX][0-9a-fA-F]{{1,64}}\b
    | \b(?=[a-f]{{0,64}}[0-9])(?=[0-9]{{0,64}}[a-f])[0-9a-f]{{8,64}}\b        # hash
    | \b[A-Z][A-Z0-9]{{0,15}}(?:-[A-Z0-9]{{1,15}}){{0,3}}-\d[\w.]{{0,20}}(?:-\d{{1,12}})*\b   # CVE-2020-1234
    | \b[A-Z]{{1,12}}\d{{2,12}}\w{{0,12}}\b                                   # E1234
    | \bv\d{{1,6}}(?:\.\d{{1,6}}){{0,4}}(?:[.-]?\w{{1,12}})?\b|\b\d{{1,6}}(?:\.\d{{1,6}}){{2,4}}(?:-\w{{1,12}})?\b   # version, IP
    | \b[\w-]{{1,64}}(?:\.[\w-]{{1,64}}){{0,3}}\.(?:{_EXTENSIONS})\b          # file name
    | \b[A-Za-z0-9]{{1,64}}(?:_[A-Za-z0-9]{{1,64}}){{1,12}}\b|\b__?[A-Za-z]\w{{1,64}}\b       # snake_case
    | \b[a-z]{{2,40}}(?:[A-Z][a-z0-9]{{1,40}}){{1,8}}\b                       # camelCase
    | \b[A-Za-z_]\w{{1,64}}(?:(?:\.|::|->)[A-Za-z_]\w{{0,64}}){{0,4}}\(\)     # call()
    | \b[A-Za-z_]\w{{1,64}}(?:::|->)[A-Za-z_]\w{{0,64}}                       # a::b
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class SliceEvidence:
    """What slicing may look at besides the queries; what is absent makes its slices absent.

    `relevant_texts`: document id → content, for the judged documents at least.
    `document_frequencies`: term → number of documents that it stands in.
    `trained`: ids of documents that are relevant to a training query.
    `frequencies`: query id → how often users ask it, for all queries or for none.
    `high_risk`: ids of queries that somebody named as high risk.
    """

    judgments: Judgments = field(default_factory=dict)
    relevant_texts: Mapping[str, str] | None = None
    document_frequencies: Mapping[str, int] | None = None
    trained: Collection[str] | None = None
    min_grade: int = 1
    frequencies: Mapping[str, float] | None = None
    high_risk: Collection[str] = ()


def terms(text: str) -> list[str]:
    """The words of a text as `nearer.text` searches them, in order, English stop words dropped."""
    return [word for word in folded_words(text) if word not in STOP_WORDS]


def find_identifiers(text: str) -> list[str]:
    """Codes, versions, addresses, paths, file and code names, and quoted phrases (without quotes), each once, in order."""
    identifiers: dict[str, None] = {}  # ordered and distinct
    for match in _IDENTIFIER.finditer(text):
        identifier = match.group()
        if match["quoted"]:
            identifier = identifier[1:-1]
        identifiers[identifier] = None
    return list(identifiers)


def automatic_slices(queries: Sequence[Query], evidence: SliceEvidence) -> dict[str, set[str]]:
    """Slice name → query ids: `tag:NAME` for tags, then the names of `DESCRIPTIONS`.  Empty slices are left out.

    A query is in as many slices as fit.  The overlap with its *best* relevant document counts;
    queries without terms or without relevant documents are in no overlap slice.
    """
    tags = sorted({tag for query in queries for tag in query.tags})
    names = [f"tag:{tag}" for tag in tags]
    names.extend(DESCRIPTIONS)
    slices: dict[str, set[str]] = {name: set() for name in names}
    vocabularies = _Vocabularies(evidence.relevant_texts or {})
    for query in queries:
        for name in _slices_of(query, evidence, vocabularies):
            slices[name].add(query.id)
    for name, members in _by_frequency(queries, evidence.frequencies or {}).items():
        slices[name] |= members
    return {name: members for name, members in slices.items() if members}


class _Vocabularies:
    """The distinct terms of documents, each document read once."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._terms: dict[str, frozenset[str]] = {}

    def of(self, doc_ids: Sequence[str]) -> list[frozenset[str]]:
        """Those of the documents whose text is known."""
        known = [doc_id for doc_id in doc_ids if doc_id in self._texts]
        for doc_id in known:
            if doc_id not in self._terms:
                self._terms[doc_id] = frozenset(terms(self._texts[doc_id]))
        return [self._terms[doc_id] for doc_id in known]


def _slices_of(query: Query, evidence: SliceEvidence, vocabularies: _Vocabularies) -> list[str]:
    """Names of the slices that a query is in."""
    judged = evidence.judgments.get(query.id, {})
    relevant = [doc_id for doc_id, grade in judged.items() if grade >= evidence.min_grade]
    names = [f"tag:{tag}" for tag in query.tags]
    names += _form(query.text)
    names += _overlap(query.text, vocabularies.of(relevant))
    if evidence.document_frequencies is not None:
        names += _rarity(query.text, evidence.document_frequencies)
    if evidence.trained is not None and relevant:
        names += _training(relevant, evidence.trained)
    if query.id in evidence.high_risk:
        names.append("high risk")
    return names


def _by_frequency(
    queries: Sequence[Query], frequencies: Mapping[str, float]
) -> dict[str, set[str]]:
    """Thirds of the queries by how often they are asked; ties go to the rarer third.

    None where all are asked equally often.
    """
    known = [query.id for query in queries if query.id in frequencies]
    values = np.array([frequencies[query_id] for query_id in known], np.float64)
    if not len(values) or values.min() == values.max():
        return {}
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    thirds: dict[str, set[str]] = {}
    for query_id, value in zip(known, values, strict=True):
        name = "sometimes asked"
        if value <= low:
            name = "rarely asked"
        elif value > high:
            name = "often asked"
        thirds.setdefault(name, set()).add(query_id)
    return thirds


def _rarity(text: str, document_frequencies: Mapping[str, int]) -> list[str]:
    names: list[str] = []
    counts = [document_frequencies.get(term, 0) for term in terms(text)]
    if any(0 < count <= RARE for count in counts):
        names.append("rare term")
    if 0 in counts:
        names.append("unknown term")
    return names


def _training(relevant: Sequence[str], trained: Collection[str]) -> list[str]:
    if any(doc_id in trained for doc_id in relevant):
        return ["seen documents"]
    return ["unseen documents"]


def slice_table(
    scores: Scores,
    slices: Mapping[str, Collection[str]],
    measure: str,
    min_size: int,
    alpha: float = 0.05,
) -> list[dict[str, Any]]:
    """One row `{"slice", "n", "mean", "ci"}` for every slice with at least `min_size` scored queries."""
    rows: list[dict[str, Any]] = []
    column = scores.column(measure)
    for name, positions in _large_enough(scores, slices, min_size):
        interval = mean_interval(column[positions], alpha)
        rows.append({"slice": name, "n": len(positions), **interval.as_dict()})
    return rows


def compare_slices(  # noqa: PLR0913 - two scores and what slice_table takes
    baseline: Scores,
    candidate: Scores,
    slices: Mapping[str, Collection[str]],
    measure: str,
    min_size: int,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
    clusters: Clusters = None,
) -> list[dict[str, Any]]:
    """One row per slice: `{"slice", "baseline", "candidate", "delta", "ci", "outcome", "p", "p_holm", "n", "wins", "ties", "losses", "sd"}`.

    `clusters` are those of all scored queries, in their order.  Exploratory: `p_holm` is adjusted
    over the rows of this table.  Raises ValueError when the two do not score the same queries.
    """
    if baseline.query_ids != candidate.query_ids:
        raise ValueError("baseline and candidate score different queries")
    before, after = baseline.column(measure), candidate.column(measure)
    units = Units.of(clusters)
    rows: list[dict[str, Any]] = []
    for name, positions in _large_enough(baseline, slices, min_size):
        first, second = before[positions], after[positions]
        row = {
            "slice": name,
            "baseline": float(first.mean()),
            "candidate": float(second.mean()),
        }
        compared = compare(first, second, rng, resamples, alpha, units.at(positions))
        row |= compared.as_dict()
        rows.append(row)
    adjusted = holm([row["p"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
    return rows


def _large_enough(
    scores: Scores, slices: Mapping[str, Collection[str]], min_size: int
) -> list[tuple[str, np.ndarray]]:
    """Name and positions of each slice with enough scored queries."""
    large: list[tuple[str, np.ndarray]] = []
    for name, members in slices.items():
        positions = scores.positions(members)
        if len(positions) >= max(min_size, 1):
            large.append((name, positions))
    return large


def _form(text: str) -> list[str]:
    """Slices by the length and the form of a query."""
    names = [_length(count_words(text))]
    if _IDENTIFIER.search(text):
        names.append("identifier")
    if _QUESTION.search(text):
        names.append("question")
    return names


def _length(words: int) -> str:
    if words <= _SHORT:
        return "short query"
    if words <= _MEDIUM:
        return "medium query"
    return "long query"


def _overlap(text: str, documents: Sequence[Collection[str]]) -> list[str]:
    query_terms = frozenset(terms(text))
    if not query_terms or not documents:
        return []
    common = [sum(term in document for term in query_terms) for document in documents]
    share = max(common) / len(query_terms)
    if share == 0:
        return ["no overlap"]
    if share < 0.5:
        return ["low overlap"]
    return ["high overlap"]
