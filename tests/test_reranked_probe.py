"""The diagnosis reads with the reranker until the outcome is known, and no more than there is time for."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearer.data.corpus import Corpus
from nearer.diagnosis.probes.base import Misses
from nearer.diagnosis.probes.reranker import reranked
from nearer.diagnosis.values import Probe
from nearer.types import Document, Query, Run, Split

K = 2
HITS = [f"d{place:02d}" for place in range(1, 41)]  # of every query, the best first


class Numbered:
    """A reranker that reads a document's score out of its text, a second each, and counts what it reads."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def monotonic(self) -> float:
        return float(len(self.read))

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.read += [query for query, _ in pairs]
        return [float(text.split()[0 if query.startswith("low") else 1]) for query, text in pairs]


def misses(
    wanted: dict[str, list[str]], seconds: float, reranker: Numbered | None, **settings: Any
) -> Misses:
    """Queries `low…`, for which a document's score falls with its rank, and `high…`, for which it grows."""
    documents = [
        Document(doc_id, f"{100 - place} {place}") for place, doc_id in enumerate(HITS, start=1)
    ]
    queries = [Query(query_id, query_id) for query_id in wanted]
    listed = {
        query.id: [(doc_id, -float(place)) for place, doc_id in enumerate(HITS)]
        for query in queries
    }
    rerank = SimpleNamespace(automatic=True, depth=20, budget=seconds)
    rerank.__dict__.update(settings)
    systems = SimpleNamespace(
        reranker=reranker,
        config=SimpleNamespace(rerank=rerank),
        lacking=SimpleNamespace(why="no reranker is at hand", setting="rerank.model=train"),
        seconds_per_pair=lambda split: 1.0,
    )
    split = Split(
        "dev", queries, {query.id: dict.fromkeys(wanted[query.id], 1) for query in queries}
    )
    fields = {
        "systems": systems,
        "corpus": Corpus.from_documents(documents),
        "split": split,
        "wanted": wanted,
        "k": K,
        "baseline_run": Run("dense", listed),
        "first_choice": {},
    }
    return cast(Misses, SimpleNamespace(**fields))


def probes_of(missing: Misses) -> dict[tuple[str, str], Probe]:
    """The probes of a reranker that is the clock too."""
    far = Probe(rank=30)
    results = {
        (query_id, doc_id): {"today": far}
        for query_id, doc_ids in missing.wanted.items()
        for doc_id in doc_ids
    }
    clock = missing.systems.reranker or Numbered()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearer.diagnosis.probes.reranker.time", clock)
        return reranked(missing, results)["ranking"]


def test_a_failed_repair_is_known_after_the_first_hits() -> None:
    reranker = Numbered()
    probes = probes_of(misses({"low": ["d30"]}, seconds=5, reranker=reranker))
    assert probes["low", "d30"] == Probe(rank=5, at_least=True)
    assert len(reranker.read) == 5  # the document, and the first 2k hits


def test_a_deep_document_is_lifted_where_there_is_time_for_all_candidates() -> None:
    reranker = Numbered()
    missing = misses({"high": ["d39"]}, seconds=40, reranker=reranker)
    assert probes_of(missing)["high", "d39"] == Probe(rank=2)
    assert len(reranker.read) == len(HITS)
    assert missing.first_choice == {"high": "d40"}


def test_the_time_goes_to_the_first_hits_of_every_query_before_any_is_read_to_the_end() -> None:
    reranker = Numbered()
    wanted = {"high 1": ["d40"], "high 2": ["d40"], "low": ["d30"]}
    missing = misses(wanted, seconds=3 * 5 + 34, reranker=reranker)
    probes = probes_of(missing)
    assert probes["high 1", "d40"] == Probe(rank=1)
    assert probes["low", "d30"].at_least
    skipped = probes["high 2", "d40"]
    assert skipped.rank is None
    assert "before the candidates of 1 of 3 queries were read" in str(skipped.skipped)
    assert skipped.next_step == "nearer diagnose --set rerank.budget=181s"
    assert set(missing.first_choice) == {"high 1", "low"}
    assert len(reranker.read) == 3 * 5 + 35  # the second part of `high 2` was not begun


@pytest.mark.parametrize("seconds", range(0, 130, 7))
def test_a_budget_ends_after_the_part_at_hand_and_every_document_is_answered(seconds: int) -> None:
    reranker = Numbered()
    wanted = {"high 1": ["d40", "d03"], "high 2": ["d05"], "low": ["d39"]}
    missing = misses(wanted, seconds=seconds, reranker=reranker)
    probes = probes_of(missing)
    assert len(reranker.read) <= seconds + 2 * K + 2  # the longest part
    assert set(probes) == {("high 1", "d40"), ("high 1", "d03"), ("high 2", "d05"), ("low", "d39")}
    for probe in probes.values():
        assert (probe.rank is None) == bool(probe.skipped)


def test_a_named_reranker_reads_to_its_depth_whatever_it_takes() -> None:
    reranker = Numbered()
    wanted = {"high": ["d15", "d30"]}
    missing = misses(wanted, seconds=0, reranker=reranker, automatic=False)
    probes = probes_of(missing)
    assert probes["high", "d15"].rank == 6
    assert "the first 20 results only (rerank.depth)" in str(probes["high", "d30"].skipped)


def test_without_a_reranker_every_candidate_says_so() -> None:
    probes = probes_of(misses({"high": ["d40"]}, seconds=9, reranker=None))
    assert probes["high", "d40"].skipped == "no reranker is at hand"
