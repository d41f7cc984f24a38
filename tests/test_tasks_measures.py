"""Measures of recommendation and of clusters: by hand, and against scikit-learn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from nearer.config import Cluster
from nearer.errors import DataError
from nearer.measure import downstream
from nearer.measure.clusters import Agreement, kept_share, match, numbered
from nearer.measure.recommendation import (
    Catalogue,
    Lists,
    engagements,
    gini,
    of_all,
    per_list,
)
from nearer.measure.resampled import LEAST, change
from nearer.tasks.cluster import whole
from nearer.tasks.cluster.grouping import Grouping
from nearer.tasks.cluster.measures import Space, _grouping_notes, words
from nearer.tasks.cluster.naming import names_of, suggestions
from nearer.types import Run

IDS = ["a", "b", "c", "d"]


def catalogue() -> Catalogue:
    vectors = np.eye(4, dtype=np.float32)
    return Catalogue(IDS, np.array([6, 2, 0, 0]), vectors)


def lists(**results: list[str]) -> Lists:
    hits = {
        query_id: [(doc_id, 1.0 - rank / 10) for rank, doc_id in enumerate(ids)]
        for query_id, ids in results.items()
    }
    return Lists.of(Run("x", hits), list(results), catalogue(), 2)


def test_engagements_count_both_ends_of_a_relation_and_no_judged_zero() -> None:
    judged = {"a": {"b": 1, "c": 0}, "d": {"a": 2, "elsewhere": 1}}
    assert engagements(judged, IDS).tolist() == [2, 1, 0, 2]


def test_coverage_is_the_share_of_all_items_in_any_list_and_unknown_items_count_for_nothing() -> (
    None
):
    shown = lists(q1=["a", "b"], q2=["a", "elsewhere"])
    assert of_all("Coverage", shown, 4) == 0.5
    assert of_all("Coverage", shown, 4, np.array([0, 3])) == 0.25


def test_gini_is_0_for_equal_exposure_and_grows_to_1_where_one_item_has_it_all() -> None:
    assert gini(np.array([3.0, 3.0, 3.0])) == pytest.approx(0.0)
    assert gini(np.array([0.0, 0.0, 0.0, 8.0])) == pytest.approx(0.75)  # (n - 1) / n
    assert gini(np.zeros(3)) == 0.0
    everywhere = lists(q1=["a", "b"], q2=["c", "d"])
    assert of_all("Gini", everywhere, 4) == pytest.approx(0.0)
    assert of_all("Gini", lists(q1=["a"], q2=["a"]), 4) == pytest.approx(0.75)


def test_popularity_bias_and_novelty_by_hand() -> None:
    shown = lists(q1=["a"], q2=["c"])
    # a is more popular than all others: 3 below it, and half of itself
    assert per_list("Popularity", shown, catalogue(), {}).tolist() == [0.875, 0.25]
    chosen = {"q1": ["b"], "q2": ["c", "d"]}
    assert per_list("Bias", shown, catalogue(), chosen).tolist() == [0.875 - 0.625, 0.0]
    novelty = per_list("Novelty", shown, catalogue(), {})
    total = 12.0  # 8 engagements and one for each item
    assert novelty[0] == pytest.approx(np.log2(total / 7) / np.log2(total))
    assert novelty[1] == pytest.approx(1.0)


def test_diversity_is_half_of_1_minus_the_cosine_and_says_nothing_of_one_item() -> None:
    values = per_list("Diversity", lists(q1=["a", "b"], q2=["a"]), catalogue(), {})
    assert values[0] == 0.5
    assert np.isnan(values[1])


def test_an_empty_list_is_not_one_of_unpopular_items() -> None:
    for name in ("Popularity", "Bias", "Novelty", "Diversity"):
        values = per_list(name, lists(q1=["a", "b"], q2=[]), catalogue(), {})
        assert np.isfinite(values[0])
        assert np.isnan(values[1])


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("V-measure", metrics.v_measure_score),
        ("Homogeneity", metrics.homogeneity_score),
        ("Completeness", metrics.completeness_score),
        ("ARI", metrics.adjusted_rand_score),
        ("AMI", metrics.adjusted_mutual_info_score),
    ],
)
def test_agreement_with_labels_is_that_of_scikit_learn_also_for_draws(name: str, oracle) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = rng.integers(0, 4, 60)
        clusters = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 7, 60))
        _, dense = np.unique(labels, return_inverse=True)
        agreement = Agreement(clusters, dense)
        assert agreement.value(name) == pytest.approx(oracle(labels, clusters), abs=1e-9)
        weights = rng.integers(0, 3, 60)
        repeated = oracle(np.repeat(labels, weights), np.repeat(clusters, weights))
        assert agreement.value(name, weights) == pytest.approx(repeated, abs=1e-9)


def test_purity_and_b_cubed_by_hand() -> None:
    agreement = Agreement(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert agreement.value("Purity") == 0.75
    precision = (2 / 3 + 2 / 3 + 1 / 3 + 1) / 4
    recall = (1 + 1 + 1 / 2 + 1 / 2) / 4
    expected = 2 * precision * recall / (precision + recall)
    assert agreement.value("B-cubed") == pytest.approx(expected)


def test_items_of_no_cluster_are_clusters_of_their_own() -> None:
    assert len(set(numbered(np.array([-1, -1, 2, 2])).tolist())) == 3
    everything_left_out = Agreement(np.full(20, -1), np.arange(20) % 2)
    assert everything_left_out.value("ARI") == pytest.approx(0.0)
    assert everything_left_out.value("B-cubed") < 0.2


def test_clusters_are_kept_split_merged_new_and_gone() -> None:
    before = np.array([0] * 10 + [1] * 10 + [2] * 4 + [3] * 4 + [4] * 6 + [5] * 6 + [6] * 6)
    after = np.array(
        [0] * 9 + [1]  # 0 is kept but for one item
        + [11] * 5 + [12] * 5  # 1 is split
        + [13] * 8  # 2 and 3 are merged
        + [20, 20, 21, 21, 22, 22] * 3  # 4, 5 and 6 are dealt out evenly
    )  # fmt: skip
    matches = match(before, after)
    kinds = {(one.kind, one.before, one.after) for one in matches}
    assert ("kept", (0,), (0,)) in kinds
    assert ("split", (1,), (11, 12)) in kinds
    assert ("merged", (2, 3), (13,)) in kinds
    assert {one.before for one in matches if one.kind == "gone"} == {(4,), (5,), (6,)}
    assert {one.after for one in matches if one.kind == "new"} == {(1,), (20,), (21,), (22,)}
    assert kept_share(matches, len(before)) == pytest.approx(9 / len(before))


def test_the_same_clusters_under_other_numbers_are_all_kept() -> None:
    before = np.array([0, 0, 1, 1, 2, 2])
    matches = match(before, before + 7)
    assert {one.kind for one in matches} == {"kept"}
    assert kept_share(matches, 6) == 1.0


def blobs(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Three groups of 20 vectors of unit length, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    vectors = np.eye(8, dtype=np.float32)[labels] + spread * rng.normal(size=(60, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def test_uses_of_vectors_find_labels_that_are_there_and_none_that_are_not() -> None:
    vectors, labels = blobs(0.1)
    shuffled = np.random.default_rng(1).permutation(labels)
    for told, least, most in ((labels, 0.95, 1.0), (shuffled, 0.0, 0.6)):
        rng = np.random.default_rng(2)
        few = downstream.few_shot_accuracy(vectors, told, 3, rng)
        probe = downstream.probe_correct(vectors, told, 7)
        assert few is not None
        assert probe is not None
        for column in (downstream.knn_correct(vectors, told, 3), probe, few):
            assert least <= float(np.nanmean(column)) <= most


def test_few_documents_per_label_are_not_asked_for_more() -> None:
    vectors, labels = blobs(0.1)
    rng = np.random.default_rng(0)
    assert downstream.few_shot_accuracy(vectors, labels, 20, rng) is None
    alone = np.where(np.arange(60) == 59, 3, labels)
    assert downstream.probe_correct(vectors, alone, 7) is None


def test_retrieval_by_cluster_counts_the_others_and_finds_nothing_alone() -> None:
    clusters = np.array([0, 0, 0, 1, -1])
    labels = np.array([0, 0, 1, 1, 1])
    found = downstream.retrieval_by_cluster(clusters, labels)
    assert found.tolist() == [0.5, 0.5, 0.0, 0.0, 0.0]


def test_a_change_is_shown_only_where_the_draws_say_so() -> None:
    rng = np.random.default_rng(0)
    good, bad = np.full(200, 0.9), np.full(200, 0.2)

    def mean(values: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda weights: float((values * weights).sum() / weights.sum())

    assert change(mean(good), mean(bad), 200, rng).status(-0.05) == "fail"
    assert change(mean(bad), mean(good), 200, rng).status(0.0) == "pass"
    assert change(mean(good), mean(good), 200, rng, share=0.95).status(0.0) == "pass"
    noisy = rng.random(30)
    assert change(mean(noisy), mean(noisy[::-1]), 30, rng).status(-0.01) == "inconclusive"
    few = LEAST - 1
    assert change(mean(good[:few]), mean(bad[:few]), few, rng).status(0.0) == "inconclusive"


def test_doubles_are_to_be_merged_and_what_was_thrown_together_to_be_split() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(8)[[0, 1, 2, 3, 3, 4, 5, 6]], 30, axis=0)
    vectors = centres + 0.1 * rng.normal(size=centres.shape)
    groups = np.repeat(np.arange(8), 30)  # 3 and 4 are one; the last two become one cluster
    groups[groups == 7] = 6
    found = [(one.kind, one.clusters) for one in suggestions(groups, vectors, 7)]
    assert found == [("merge", (3, 4)), ("split", (6,))]
    assert suggestions(np.repeat([0, 1], 120), vectors, 7) == []


def test_clusters_are_named_by_what_sets_them_apart_and_their_most_central_document() -> None:
    texts = ["red apple fruit", "green apple fruit", "fast car machine", "slow car machine"]
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    named = names_of(np.array([0, 0, 1, 1]), vectors, list("abcd"), texts)
    assert [one.size for one in named] == [2, 2]
    assert set(named[0].terms[:2]) == {"apple", "fruit"}
    assert set(named[1].terms[:2]) == {"car", "machine"}
    assert [one.medoid for one in named] == ["a", "c"]


def test_nothing_to_measure_is_no_success_and_no_crash() -> None:
    vector = np.ones((1, 4), np.float32) / 2
    assert downstream.knn_correct(vector, np.array([0]), 3).tolist() == [0.0]
    nothing = np.array([], np.int64)
    assert Agreement(nothing, nothing).value("Purity") == 0.0
    with np.errstate(all="raise"):
        assert Catalogue([], nothing).surprise.tolist() == []


def test_texts_without_words_are_grouped_by_no_words() -> None:
    assert words(["🙂", "!!"], 0) is None
    vectors = words(["red car", "blue car", "red bus"], 0)
    assert vectors is not None
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_stability_asks_for_no_more_clusters_than_a_part_has_documents() -> None:
    doubles = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    grouping = Grouping(Cluster(n_clusters=18), 1)
    assert grouping.stability(doubles, np.repeat(np.arange(4), 5)) == []


def planted_groups() -> np.ndarray:
    """Five groups that two directions tell apart, under noise in sixty others."""
    rng = np.random.default_rng(3)
    angles = np.repeat(np.arange(5) * 2 * np.pi / 5, 24)
    plane = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    noise = rng.normal(0, 0.25, (len(plane), 60))
    return np.concatenate([plane, noise], axis=1).astype(np.float32)


def corpus_of(vectors: np.ndarray) -> Any:
    """Systems as `group_corpus` asks them: documents with these vectors."""
    ids = [f"d{number}" for number in range(len(vectors))]
    texts = [f"text {number}" for number in range(len(vectors))]
    return SimpleNamespace(
        document_vectors=vectors,
        corpus=SimpleNamespace(ids=ids, contents=lambda: texts),
        encoder=SimpleNamespace(fingerprint=SimpleNamespace(id="f" * 16)),
    )


def test_the_number_of_clusters_is_chosen_on_the_vectors_that_are_clustered() -> None:
    settings = Cluster(reduce="pca", dimensions=2)
    grouped = whole.group_corpus(corpus_of(planted_groups()), settings, 7, None)
    assert grouped.figures["n_clusters"] == 5
    assert grouped.figures["chosen_by"] == "silhouette"


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, about equal vectors
@pytest.mark.parametrize(
    ("n", "cluster", "what", "next_step"),
    [
        (1, {}, "fewer than 4 documents cannot be grouped (this one: 1)", "more documents"),
        (3, {}, "(this one: 3)", "more documents"),
        (30, {}, "kmeans finds one cluster", "texts are alike"),
        (30, {"algorithm": "hdbscan", "min_size": 20}, "hdbscan finds", "cluster.min_size"),
        (30, {"n_clusters": 30}, "30 documents make no 30 clusters", "ask for fewer"),
    ],
)
def test_a_corpus_that_makes_no_groups_is_refused_with_the_cause(
    n: int, cluster: dict[str, Any], what: str, next_step: str
) -> None:
    alike = np.ones((n, 8), np.float32)
    with pytest.raises(DataError) as caught:
        whole.group_corpus(corpus_of(alike), Cluster(**cluster), 7, None)
    assert what in str(caught.value)
    assert caught.value.where
    assert next_step in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("clusters", "told"),
    [
        ([0] * 8, "hdbscan finds one cluster. Nothing is told apart"),
        ([-1] * 8, "hdbscan finds no cluster. Nothing is told apart"),
        ([0, 0, 0, 1, 1, 1, -1, -1], "2 of 8 documents are in no cluster"),
        ([0, 0, 0, 0, 1, 1, 1, 1], ""),
    ],
)
def test_a_grouping_that_tells_nothing_apart_says_so(clusters: list[int], told: str) -> None:
    items: Any = SimpleNamespace()
    space = Space("today", items, np.eye(8, dtype=np.float32), Cluster(algorithm="hdbscan"), 7)
    space.__dict__["clusters"] = np.array(clusters)
    notes = _grouping_notes([space])
    assert len(notes) == bool(told)
    assert all(note.startswith("today: ") and told in note for note in notes)


@pytest.mark.parametrize("line", ['{"_id": "a"}', '{"_id": "a", "cluster": "x"}', "[1]"])
def test_damaged_earlier_clusters_are_named_with_their_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "clusters.jsonl"
    path.write_text('{"_id": "b", "cluster": 3}\n' + line)
    with pytest.raises(DataError, match=r"clusters\.jsonl:2"):
        whole._earlier(path)


def test_the_number_of_clusters_is_said_to_be_chosen_by_what_chose_it() -> None:
    assert whole._chosen_by(Cluster(algorithm="hdbscan", n_clusters=3)) == "hdbscan"
    assert whole._chosen_by(Cluster(n_clusters=3)) == "given"
    assert whole._chosen_by(Cluster()) == "silhouette"


def test_bounds_lie_around_what_was_measured_also_of_what_is_no_mean() -> None:
    """Lists that draws repeat cover less: without care 5% are "kept" where fewer were measured."""
    rng = np.random.default_rng(4)
    before = [frozenset(rng.integers(0, 400, 3).tolist()) for _ in range(120)]
    after = [frozenset(rng.integers(0, 400, 2).tolist()) for _ in range(120)]

    def covered(lists: list[frozenset[int]], weights: np.ndarray) -> float:
        chosen = [one for one, weight in zip(lists, weights.tolist(), strict=True) if weight]
        return len(frozenset().union(*chosen)) / 400

    found = change(
        lambda weights: covered(before, weights),
        lambda weights: covered(after, weights),
        120,
        np.random.default_rng(5),
        share=0.9,
    )
    measured = found.after - 0.9 * found.before
    assert found.low < measured < found.high
    assert found.high - found.low < 0.2


def test_units_that_hang_together_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(1).normal(0, 1, 40), 5)  # 40 clusters of five copies
    labels = np.repeat(np.arange(40), 5)

    def mean(weights: np.ndarray) -> float:
        return float(np.average(values, weights=weights))

    def bounds(labels: np.ndarray | None) -> tuple[float, int]:
        found = change(lambda _: 0.0, mean, 200, np.random.default_rng(2), labels=labels)
        return found.high - found.low, found.n

    (alone, n_alone), (together, n_clusters) = bounds(None), bounds(labels)
    assert (n_alone, n_clusters) == (200, 40)
    # five copies of a value carry its information once: the width grows by the root of five
    assert 1.8 < together / alone < 2.7
