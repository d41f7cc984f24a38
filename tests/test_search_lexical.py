"""BM25: the published figure, canonical order, and an index that is read back instead of rebuilt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError, DataError
from nearer.measure.metrics import score
from nearer.search.base import Retriever
from nearer.search.costs import timed
from nearer.search.lexical import BM25
from nearer.types import Document, Query, Run, Split, rank_hits

CWE = Path(__file__).parent.parent / "examples" / "cwe"
DOCUMENTS = [
    Document("d1", "the cat sat on the mat"),
    Document("d2", "runs with dogs", title="Dogs"),
    Document("d3", "a cat and a dog running"),
    Document("d4", ""),
]


@pytest.fixture
def corpus() -> Corpus:
    return Corpus.from_documents(DOCUMENTS)


def ask(bm25: BM25, text: str, k: int = 10) -> list[tuple[str, float]]:
    return list(bm25.search([Query("q", text)], k).results["q"])


def test_it_reaches_the_published_figure_on_cwe_and_shows_progress() -> None:
    heard: dict[str, float] = {}

    class Counting(progress.Silent):
        def start(self, what: str, total: float | None, unit: str) -> Counting:
            self.what = what
            heard[what] = 0
            return self

        def advance(self, n: float = 1) -> None:
            heard[self.what] += n

    texts = {
        line["_id"]: line["text"]
        for line in map(
            json.loads, (CWE / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        )
    }
    judgments: dict[str, dict[str, int]] = {}
    for line in (CWE / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        judgments.setdefault(query_id, {})[doc_id] = int(grade)
    split = Split(
        "test", tuple(Query(query_id, texts[query_id]) for query_id in judgments), judgments
    )
    weaknesses = Corpus.open(CWE / "corpus.jsonl")
    with progress.listen(Counting()):
        run = BM25(weaknesses).search(split.queries, 100)
    assert score(run, split, ["nDCG@10"]).mean("nDCG@10") == pytest.approx(0.382, abs=0.003)
    assert heard == {"BM25: reading documents": 938, "bm25: searching": len(split)}
    assert all(list(hits) == rank_hits(hits) for hits in run.results.values())


def test_scores_are_those_of_bm25s(corpus: Corpus) -> None:
    import bm25s

    texts = [document.content for document in DOCUMENTS]
    theirs = bm25s.BM25()
    theirs.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    expected = theirs.get_scores(["cat", "dog", "dog"])
    hits = ask(BM25(corpus), "cat dog of dog")
    assert dict(hits) == pytest.approx(
        {f"d{i + 1}": value for i, value in enumerate(expected) if value > 0}
    )


def test_documents_that_share_no_word_are_not_results(corpus: Corpus) -> None:
    assert [doc_id for doc_id, _ in ask(BM25(corpus), "mat")] == ["d1"]


@pytest.mark.parametrize("text", ["", "   ", "the of", "zebra", "!?", "x"])
def test_a_query_without_known_words_has_no_results(corpus: Corpus, text: str) -> None:
    assert ask(BM25(corpus), text) == []
    assert ask(BM25(corpus, stemmer="english"), text) == []


def test_the_title_is_searched_too(corpus: Corpus) -> None:
    assert ask(BM25(corpus), "dogs")[0][0] == "d2"


def test_a_stemmer_joins_forms_of_a_word_also_ones_the_corpus_lacks(corpus: Corpus) -> None:
    assert ask(BM25(corpus), "cats") == []
    stemmed = BM25(corpus, stemmer="english")
    assert {doc_id for doc_id, _ in ask(stemmed, "cats")} == {"d1", "d3"}
    assert {doc_id for doc_id, _ in ask(stemmed, "run")} == {"d2", "d3"}


def test_without_stop_words_every_word_counts(corpus: Corpus) -> None:
    assert ask(BM25(corpus, stopwords=None), "the")[0][0] == "d1"


def test_ties_at_the_cut_go_to_the_higher_ids_whatever_the_order_of_the_corpus() -> None:
    ids = [f"d{i}" for i in range(30)]
    np.random.default_rng(7).shuffle(ids)
    hits = ask(
        BM25(Corpus.from_documents(Document(doc_id, "same words") for doc_id in ids)), "words", k=5
    )
    assert [doc_id for doc_id, _ in hits] == sorted(ids, reverse=True)[:5]


def test_a_smaller_k_is_a_prefix_of_a_larger_one() -> None:
    rng = np.random.default_rng(7)
    words = ["ab", "cd", "ef", "gh"]
    bm25 = BM25(
        Corpus.from_documents(Document(f"d{i}", " ".join(rng.choice(words, 3))) for i in range(60))
    )
    everything = ask(bm25, "ab cd", 60)
    assert everything == rank_hits(everything)
    for k in range(1, 60):
        assert ask(bm25, "ab cd", k) == everything[:k]


@pytest.mark.parametrize("stemmer", [None, "english"])
def test_a_saved_index_answers_the_same_without_reading_the_texts(
    tmp_path: Path, corpus: Corpus, stemmer: str | None
) -> None:
    class OnlyIds:
        ids = corpus.ids

    built = BM25(corpus, stemmer=stemmer)
    queries = [
        Query(str(i), text)
        for i, text in enumerate(["cats run", "dog on the mat", "", "zebra", "running dogs"])
    ]
    expected = built.search(queries, 10).results
    for _ in range(2):  # also over an older one
        built.save(tmp_path / "bm25")
    loaded = BM25.load(tmp_path / "bm25", OnlyIds())  # type: ignore[arg-type]
    assert loaded.search(queries, 10).results == expected
    assert loaded.nbytes == built.nbytes > 0
    assert [path.name for path in tmp_path.iterdir()] == ["bm25"]
    assert {path.suffix for path in (tmp_path / "bm25").iterdir()} == {".npy", ".json"}
    for path in (tmp_path / "bm25").glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object


def test_an_index_of_other_documents_or_none_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(DataError, match="no BM25 index"):
        BM25.load(tmp_path / "bm25", corpus)
    BM25(corpus).save(tmp_path / "bm25")
    with pytest.raises(DataError, match="another corpus"):
        BM25.load(tmp_path / "bm25", Corpus.from_documents(DOCUMENTS[:3]))


def test_unknown_languages_and_corpora_without_words_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="klingon"):
        BM25(corpus, stemmer="klingon")
    with pytest.raises(ConfigError, match="klingon"):
        BM25(corpus, stopwords="klingon")
    with pytest.raises(DataError, match="no document has a word"):
        BM25(Corpus.from_documents([Document("d1", "the of"), Document("d2", "")]))


def test_latencies_are_taken_one_query_at_a_time_after_a_warm_up() -> None:
    asked = []

    class Recorder:
        name = "recorder"

        def search(self, queries: list[Query], k: int) -> Run:
            asked.append([query.id for query in queries])
            return Run(self.name, {})

    recorder = Recorder()
    assert isinstance(recorder, Retriever)
    seconds = timed(recorder, [Query(str(i), "x") for i in range(10)], 5, sample=5)  # type: ignore[arg-type]
    assert asked == [["0"], ["0"], ["2"], ["4"], ["6"], ["8"]]
    assert len(seconds) == 5
    assert all(value >= 0 for value in seconds)
    assert timed(recorder, [], 5) == []  # type: ignore[arg-type]
