"""Must-pass and high-risk queries: which they are, by the data and by the settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nearer import config
from nearer.data.fitting import Findings
from nearer.data.importance import NAMED, is_named, named_in_data
from nearer.errors import ConfigError
from nearer.types import Query, Split


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A query on a list, with the split where it stands and its judgments."""

    group: str  # must_pass or high_risk
    query: Query
    split: str
    grades: Mapping[str, int]


def ids_in_settings(settings: config.Decide) -> dict[str, str]:
    """Query id → the setting that names it, for messages."""
    named: dict[str, str] = {}
    for group in NAMED:
        for query_id in getattr(settings, group):
            named.setdefault(query_id, f"decide.{group}")
    return named


def refuse_unknown(settings: config.Decide, known: Collection[str]) -> None:
    """Raises ConfigError for ids in the settings that are not among the known ones."""
    unknown = {
        query_id: setting
        for query_id, setting in ids_in_settings(settings).items()
        if query_id not in known
    }
    if unknown:
        raise ConfigError(
            f"no judged query has the id {', '.join(map(repr, unknown))}",
            where=", ".join(dict.fromkeys(unknown.values())),
            next_step="correct the ids; a query counts once it has a text and a relevant document "
            "(nearer check says which have not)",
        )


def named_queries(settings: config.Decide, splits: Sequence[Split]) -> tuple[NamedQuery, ...]:
    """The queries that the data or the settings name, wherever they stand.

    Raises ConfigError for an id that no split has, DataError for a mark that cannot be read.
    """
    refuse_unknown(settings, {query.id for split in splits for query in split.queries})
    named = []
    for group in NAMED:
        listed = set(getattr(settings, group))
        for split in splits:
            for query in split.queries:
                if query.id in listed or is_named(query, group):
                    grades = split.judgments.get(query.id, {})
                    named.append(NamedQuery(group, query, split.name, grades))
    return tuple(named)


def report_named(queries: Mapping[str, Query], splits: Iterable[Split], findings: Findings) -> None:
    """A finding about named queries of the data that no split holds: nothing will be said of them."""
    judged = {query.id for split in splits for query in split.queries}
    named = {query_id for group in NAMED for query_id in named_in_data(queries.values(), group)}
    lacking = sorted(named - judged)
    if lacking:
        findings.add(
            "named_queries_unjudged",
            f"{len(lacking)} must-pass or high-risk queries are in no split, so nobody will know "
            "whether they still work: they have no relevant document, or repeat another query.",
            [f"{query_id}: {queries[query_id].text}" for query_id in lacking],
            next_step="judge a relevant document for each, then nearer check",
        )
