"""Items, and which of them go together: judgments as search has them, or a log of interactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearer.config import Config
from nearer.data import load as search_data
from nearer.data import sources
from nearer.data.clicks import weighted
from nearer.data.corpus import Corpus
from nearer.data.interactions import (
    Interactions,
    Meetings,
    Session,
    in_thirds,
    read_interactions,
    reversed_relations,
    without_reversed,
)
from nearer.data.items import HISTORY, MET
from nearer.data.load import Loaded
from nearer.data.sources import bad
from nearer.data.splits import make_splits
from nearer.errors import DataError
from nearer.types import Judgments, Query

#: Items of a history, before the one to be recommended: one alone would be an item of training.
_SHORTEST = 2

Related = dict[str, dict[str, int]]  # query id → item id → 1


def load(settings: Config, root: Path) -> Loaded:
    """Items as documents and queries, their relations as judgments.

    Raises DataError, with file and line, also where a log leaves nothing to train on or to judge.
    """
    if settings.recommend.interactions is None:
        loaded = search_data.load(settings.data, root)
    else:
        loaded = _from_log(settings, root)
    return _with_rules(loaded, settings)


def _from_log(settings: Config, root: Path) -> Loaded:
    path = sources.named(root, str(settings.recommend.interactions), "recommend.interactions")
    corpus = search_data.load_corpus(settings.data, root)
    log = read_interactions(path, settings.recommend, corpus)
    by_time = settings.recommend.split == "time"
    if by_time and not log.timed:
        raise bad(
            "recommend.split is time, but the interactions have no times",
            path,
            "set recommend.time to their column, or recommend.split: group",
        )
    if settings.recommend.queries == "histories":
        loaded = _histories(log, corpus, settings)
    elif by_time:
        loaded = _new_items(log, corpus, settings)
    else:
        loaded = _item_groups(log, corpus, settings)
    for name in ("train", "test"):
        if not loaded.judgments[name]:
            raise _nothing_in(name, log, settings, path)
    return loaded


def _nothing_in(part: str, log: Interactions, settings: Config, path: Path) -> DataError:
    """The refusal of a log that leaves nothing to train on, or to judge: it says which is the cause."""
    rules = settings.recommend
    related = Meetings.of(log.sessions).related(rules.min_together)
    if not related:
        return bad(
            f"no two items met in {rules.min_together} sessions",
            path,
            "use a longer log, or lower recommend.min_together",
        )
    mend = "use a log of more items, or change data.split"
    if rules.queries == "histories":
        mend = f"use a log with more sessions of more than {_SHORTEST} items, or change data.split"
    elif rules.split == "time":
        mend = (
            "use a longer log (items held out by time are those first met after training), or set "
            "recommend.split: group"
        )
    return bad(
        f"{len(related)} items are related, and no relation of theirs is left for the {part} part",
        path,
        mend,
    )


def _item_groups(log: Interactions, corpus: Corpus, settings: Config) -> Loaded:
    """Items held out at random, near-duplicates together; no relation stands in two splits."""
    meetings = Meetings.of(log.sessions)
    related = meetings.related(settings.recommend.min_together)
    queries = _items(related, corpus)
    division = make_splits(
        queries, related, settings.data.split, settings.seed, settings.check.near_duplicate
    )
    parts = {
        name: {query_id: related[query_id] for query_id in ids}
        for name, ids in division.ids.items()
    }
    return _loaded(log, corpus, settings, meetings, parts)


def _new_items(log: Interactions, corpus: Corpus, settings: Config) -> Loaded:
    """The latest items held out: those first met after all sessions of training."""
    split = settings.data.split
    periods = in_thirds(log.sessions, split.dev, split.test)
    meetings = [Meetings.of(sessions) for sessions in periods]
    known: set[str] = set()
    parts: dict[str, Related] = {}
    for name, counted in zip(("train", "dev", "test"), meetings, strict=True):
        related = counted.related(settings.recommend.min_together)
        parts[name] = {item: others for item, others in related.items() if item not in known}
        known |= set(counted.single)
    return _loaded(log, corpus, settings, meetings[0], parts)


def _histories(log: Interactions, corpus: Corpus, settings: Config) -> Loaded:
    """What follows the history of a session; training sees the relations of earlier sessions.

    Without times, sessions stand in the order of their ids.
    """
    split = settings.data.split
    before, dev, test = in_thirds(log.sessions, split.dev, split.test)
    meetings = Meetings.of(before)
    related = meetings.related(settings.recommend.min_together)
    queries: dict[str, Query] = {}
    parts: dict[str, Related] = {"train": related}
    short = 0
    for name, sessions in (("dev", dev), ("test", test)):
        parts[name] = {}
        for session in sessions:
            if len(session.events) <= _SHORTEST:
                short += 1
                continue
            query, target = _history(session, corpus, settings.recommend.history)
            queries[query.id] = query
            parts[name][query.id] = {target: 1}
    loaded = _loaded(log, corpus, settings, meetings, parts)
    dropped = dict(loaded.dropped)
    if not log.timed:
        dropped["sessions have no times: they were divided in the order of their ids"] = len(
            log.sessions
        )
    if short:
        dropped["sessions of dev and test were too short for a history and what follows it"] = short
    return loaded._replace(queries=loaded.queries | queries, dropped=dropped)


def _history(session: Session, corpus: Corpus, length: int) -> tuple[Query, str]:
    """The query of all items but the last, and the last."""
    *items, target = session.items
    last = items[-max(_SHORTEST, length) :]
    text = " ".join(_content(corpus, item) for item in last)
    query = Query(f"history {session.id}", text, metadata={HISTORY: last})
    return query, target


def _loaded(
    log: Interactions,
    corpus: Corpus,
    settings: Config,
    meetings: Meetings,
    parts: Mapping[str, Related],
) -> Loaded:
    """Judgments by split, the training queries weighted against popularity."""
    train, reversed_pairs = without_reversed(parts["train"], parts["dev"], parts["test"])
    weights = meetings.weights(train, settings.recommend.correction)
    asked = [item for part in parts.values() for item in part if item in corpus]
    queries = _items(asked, corpus)
    for item, own in weights.items():
        queries[item] = weighted(queries[item], own)
    # Mining must know what met an item seldom, and nothing of held-out relations.
    met = meetings.met(train, reversed_relations(parts["dev"], parts["test"]))
    for item, others in met.items():
        seldom = [other for other in others if other not in train[item]]
        if seldom:
            queries[item] = replace(queries[item], metadata={**queries[item].metadata, MET: seldom})
    dropped = dict(log.dropped)
    if reversed_pairs:
        why = "training relations say a held-out one the other way round and were left out"
        dropped[why] = reversed_pairs
    judgments: dict[str, Judgments] = {"train": train, "dev": parts["dev"], "test": parts["test"]}
    return Loaded(corpus, queries, judgments, dropped)


def _items(ids: Iterable[str], corpus: Corpus) -> dict[str, Query]:
    return {item: Query(item, _content(corpus, item)) for item in ids}


def _content(corpus: Corpus, item: str) -> str:
    return corpus[corpus.position(item)].content


# -- rules: what may be recommended at all -----------------------------------------------------------


def _with_rules(loaded: Loaded, settings: Config) -> Loaded:
    """Queries with the filter that `recommend.eligible` and `recommend.same` make."""
    rules = settings.recommend
    if not rules.eligible and not rules.same:
        return loaded
    queries = {}
    for query_id, query in loaded.queries.items():
        own = _own_values(query, loaded.corpus, rules.same)
        declared = {**(query.filter or {}), **own, **rules.eligible}
        queries[query_id] = replace(query, filter=declared or None)
    return loaded._replace(queries=queries)


def _own_values(query: Query, corpus: Corpus, fields: Sequence[str]) -> dict[str, Any]:
    """The values in which results must agree with the query's item: of a history, its last one."""
    history = query.metadata.get(HISTORY)
    item = history[-1] if isinstance(history, list) and history else query.id
    document = corpus.get(item)
    if document is None:
        return {}
    values = {name: document.metadata.get(name) for name in fields}
    return {name: value for name, value in values.items() if value not in (None, "", [], ())}
