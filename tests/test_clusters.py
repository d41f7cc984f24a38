"""Queries that hang together are noticed, and the record says how many clusters there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearer.data.clusters import ClusterRules, query_clusters, template_of
from nearer.errors import ConfigError
from nearer.types import Query, Split


def split(*queries: tuple[str, str, list[str]], **fields: list[Any]) -> Split:
    """Queries as (id, text, relevant documents); `fields` are further values, one per query."""
    made, judgments = [], {}
    for position, (query_id, text, documents) in enumerate(queries):
        more = {name: values[position] for name, values in fields.items()}
        made.append(Query(query_id, text, metadata=more))
        judgments[query_id] = dict.fromkeys(documents, 1)
    return Split("test", tuple(made), judgments)


FRESH = ("one apple tree", "two river boats", "old castle wall", "green mountain path")


def plain(*documents: list[str], **fields: list[Any]) -> Split:
    rows = [(f"q{n}", FRESH[n], ids) for n, ids in enumerate(documents)]
    return split(*rows, **fields)


def test_independent_queries_stand_for_themselves() -> None:
    clusters = query_clusters(plain(["a"], ["b"], ["c"]), ClusterRules())
    assert clusters.labels(["q0", "q1"]) is None
    record = clusters.as_dict(["q0", "q1", "q2"])
    assert record == {"unit": "query", "n": 3, "queries": 3, "largest": 1, "noticed": []}


def test_queries_that_share_a_document_are_a_cluster() -> None:
    clusters = query_clusters(plain(["a"], ["a", "b"], ["c"]), ClusterRules())
    labels = clusters.labels(["q0", "q1", "q2"])
    assert labels is not None
    assert labels[0] == labels[1] != labels[2]
    record = clusters.as_dict(["q0", "q1", "q2"])
    assert (record["unit"], record["n"], record["largest"]) == ("shared document", 2, 2)
    assert record["noticed"] == [
        {"kind": "shared document", "clusters": 1, "queries": 2, "largest": 2}
    ]


def test_a_chain_of_shared_documents_is_not_one_cluster() -> None:
    """q0 and q3 have nothing in common, although q1 and q2 lead from one to the other."""
    chain = plain(["a"], ["a", "b"], ["b", "c"], ["c"])
    labels = query_clusters(chain, ClusterRules()).labels(["q0", "q1", "q2", "q3"])
    assert labels is not None
    assert labels[0] != labels[3]


def test_documents_judged_below_the_least_grade_hold_nothing_together() -> None:
    judged = plain(["a"], ["b"])
    shared = Split("test", judged.queries, {"q0": {"a": 2, "x": 1}, "q1": {"b": 2, "x": 1}})
    assert query_clusters(shared, ClusterRules(min_grade=2)).by_query is None
    assert query_clusters(shared, ClusterRules(min_grade=1)).by_query is not None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("status of order 1234", "Status of order 99", True),
        ("crash after CVE-2020-1234 in the parser", "crash after CVE-2021-9 in the parser", True),
        ('who wrote "Emma"', 'who wrote "Persuasion"', True),
        ("status of order 1234", "status of invoice 1234", False),
        ("CVE-2020-1234", "CVE-2021-99999", False),  # nothing but identifiers
        ("status of orders", "status of orders", False),  # no slot: a duplicate, not a template
    ],
)
def test_texts_that_differ_in_a_slot_alone_are_one_template(
    first: str, second: str, same: bool
) -> None:
    templates = template_of(first), template_of(second)
    assert (templates[0] is not None and templates[0] == templates[1]) is same


def test_templates_and_near_duplicates_are_noticed_without_anybody_declaring_them() -> None:
    queries = split(
        ("a", "status of order 1234", ["1"]),
        ("b", "status of order 77", ["2"]),
        ("c", "how does the login form of the shop keep its users logged in", ["3"]),
        ("d", "How does the login form of the shop keep its users logged in?", ["4"]),
        ("e", "something else", ["5"]),
    )
    clusters = query_clusters(queries, ClusterRules())
    assert [reason.kind for reason in clusters.noticed] == ["near-duplicate", "template"]
    assert clusters.as_dict(list("abcde"))["n"] == 3


def test_items_that_are_relevant_to_each_other_hang_together() -> None:
    """A pair shares no document, as neither is among its own results."""
    items = ["a", "b", "c", "d", "e"]
    judged = {"a": {"b": 1}, "b": {"a": 1}, "c": {"d": 1, "e": 1}, "d": {"c": 1, "e": 1}}
    queries = tuple(Query(item, f"text {item} of its own") for item in items[:4])
    pairs = Split("test", queries, judged)
    apart = query_clusters(pairs, ClusterRules()).labels(items[:4])
    assert apart is not None
    assert len(set(apart)) == 3  # c and d share e, a and b nothing
    together = query_clusters(pairs, ClusterRules(item_to_item=True)).labels(items[:4])
    assert together is not None
    assert len(set(together)) == 2


def test_declared_templates_count_too() -> None:
    queries = plain(["a"], ["b"], ["c"], template=["t", "t", ""])
    assert query_clusters(queries, ClusterRules()).as_dict(["q0", "q1", "q2"])["n"] == 2


def test_of_users_and_contents_the_coarser_clusters_are_taken_and_both_are_told() -> None:
    queries = plain(["a"], ["a"], ["c"], ["d"], user=["u", "v", "v", "v"])
    clusters = query_clusters(queries, ClusterRules())
    assert clusters.kind == "user"
    assert [reason.kind for reason in clusters.noticed] == ["shared document", "user"]
    assert clusters.as_dict(["q0", "q1", "q2", "q3"])["n"] == 2


def test_the_settings_can_name_a_field_or_refuse_clusters() -> None:
    queries = plain(["a"], ["a"], ["c"], team=["x", "y", "y"])
    assert query_clusters(queries, ClusterRules("none")).by_query is None
    labels = query_clusters(queries, ClusterRules("team")).labels(["q0", "q1", "q2"])
    assert labels is not None
    assert list(labels) == ["q0", "q1", "q1"]
    with pytest.raises(ConfigError, match="no test query has the field 'shop'"):
        query_clusters(queries, ClusterRules("shop"))


def test_labels_follow_the_order_that_is_asked_for() -> None:
    clusters = query_clusters(plain(["a"], ["a"], ["c"]), ClusterRules())
    labels = clusters.labels(["q2", "q0", "q1"])
    assert labels is not None
    assert np.array_equal(labels, ["q2", "q0", "q0"])


def test_a_gap_in_a_table_is_no_value_that_queries_share() -> None:
    gaps = [float("nan"), float("nan"), float("nan")]
    queries = plain(["a"], ["b"], ["c"], user=gaps, template=gaps)
    assert query_clusters(queries, ClusterRules()).by_query is None
    with pytest.raises(ConfigError, match="no test query has the field 'user'"):
        query_clusters(queries, ClusterRules("user"))
