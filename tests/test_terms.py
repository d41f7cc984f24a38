"""Domain terms: words with another meaning, acronyms and broken names, planted and found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.data.corpus import Corpus
from nearer.diagnosis import terms as module
from nearer.diagnosis.contexts import Contexts, Nearness, centred
from nearer.diagnosis.terms import (
    ACRONYM,
    FRAGMENTED,
    OTHER_MEANING,
    Asked,
    DomainTerms,
    domain_terms,
)
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.report import markdown, page
from nearer.report.data import ReportData
from nearer.settings.system import Model
from nearer.types import Document

TOPICS = {
    "fruit": "apricot banana cherry orange lemon grape melon plum peach pear mango berry fig lime",
    "garden": "tree garden juice basket ripe harvest farm orchard soil seed leaf flower kitchen cake",
    "computer": "keyboard monitor printer laptop mouse server router disk modem scanner tablet chip",
    "office": "screen cable network install driver software reboot update password login file email",
}
#: Words of one kind that this corpus uses like those of another.
SWAPPED = {"cherry": "printer", "printer": "cherry"}


def words_of(*topics: str) -> set[str]:
    return {word for topic in topics for word in TOPICS[topic].split()}


def sentences(rng: np.random.Generator, count: int) -> list[str]:
    """Texts about fruit or computers, a word of each standing for one of the other."""
    texts = []
    for _ in range(count):
        things, around = ("fruit", "garden") if rng.random() < 0.5 else ("computer", "office")
        chosen = []
        for number in range(9):
            topic = things if number % 3 == 0 else around
            word = str(rng.choice(TOPICS[topic].split()))
            chosen.append(SWAPPED.get(word, word))
        texts.append(" ".join(chosen))
    return texts


def corpus(texts: list[str]) -> Corpus:
    return Corpus.from_documents(Document(f"d{number}", text) for number, text in enumerate(texts))


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> SentenceEncoder:
    """The whole model: two layers of it do not know what a word means."""
    return load_encoder(Model(name=str(minilm), precision="fp32"), minilm.parent)


def asked(**texts: str) -> Asked:
    return Asked(texts, set(texts), [])


# -- contexts --------------------------------------------------------------------------------------


def test_words_that_stand_among_the_same_words_are_neighbours() -> None:
    rng = np.random.default_rng(1)
    documents = []
    for number in range(300):
        low = 0 if number % 2 else 10
        documents.append(rng.integers(low, low + 10, 30))
    near = Contexts.of(documents, 20).nearness
    assert all(set(row) <= set(range(10)) for row in near.neighbours(5)[:10].tolist())
    assert near.standing(near.neighbours(5)).min() > 0.8
    wrong = np.tile(np.arange(10, 15), (10, 1))
    assert Nearness(near.vectors[:20]).standing(np.vstack([wrong, wrong - 10])).max() < 0.6


def test_the_same_counts_give_the_same_vectors() -> None:
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 150, 30) for _ in range(50)]
    first, second = Contexts.of(documents, 150), Contexts.of(documents, 150)
    assert np.array_equal(first.nearness.vectors, second.nearness.vectors)


def test_no_context_crosses_the_border_of_a_document() -> None:
    documents = [np.array([0, 0, 0]), np.array([1, 1, 1])]
    near = Contexts.of(documents, 3).nearness
    assert near.vectors[0] @ near.vectors[1] == pytest.approx(0, abs=1e-6)


def test_random_neighbours_stand_in_the_middle() -> None:
    rng = np.random.default_rng(2)
    near = centred(rng.normal(size=(400, 32)))
    others = np.array([rng.choice(400, 10, replace=False) for _ in range(400)])
    assert abs(near.standing(others).mean() - 0.5) < 0.02


# -- terms -----------------------------------------------------------------------------------------


def test_a_word_that_means_something_else_here_is_found_and_no_other(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of so few words, each has more equals than neighbours that are looked at: halves differ.
    monkeypatch.setattr(module, "_SURE", 0.7)
    texts = sentences(np.random.default_rng(3), 700)
    found = domain_terms(corpus(texts), encoder, asked(q1="where is the cherry"), 2000)
    other = {term.term: term for term in found.terms if term.kind == OTHER_MEANING}
    assert set(other) == set(SWAPPED)
    here = set(other["cherry"].details["near_here"])
    assert here <= words_of("computer", "office")
    assert set(other["cherry"].details["near_to_the_model"]) & words_of("fruit")
    assert other["cherry"].failing == ("q1",)
    assert "“cherry” stands among other words here" in found.evidence("q1")


def test_an_honest_corpus_has_no_such_word(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SURE", 0.7)
    monkeypatch.setattr(f"{__name__}.SWAPPED", {})
    found = domain_terms(corpus(sentences(np.random.default_rng(3), 700)), encoder, asked(), 2000)
    assert [term.term for term in found.terms if term.kind == OTHER_MEANING] == []
    assert found.compared > 40


def test_acronyms_are_told_with_and_without_their_long_form(encoder: SentenceEncoder) -> None:
    texts = ["The Remote Control Unit (RCU) is broken", "An RCU and the QXZ need oil"]
    texts += ["Check the QXZ and the HELP page of the unit", "help the QXZ", "the RCU helps"]
    texts += ["help me", "HELP page", "see the HELP", "help", "more help"]
    found = domain_terms(corpus(texts), encoder, asked(q1="what is a QXZ", q2="RCU price"), 0)
    acronyms = {term.term: term for term in found.terms if term.kind == ACRONYM}
    assert set(acronyms) == {"RCU", "QXZ"}  # HELP is a word that is also shouted
    assert acronyms["RCU"].details["expansions"] == ["Remote Control Unit"]
    assert acronyms["QXZ"].frequency == 3
    assert "no document spells out" in acronyms["QXZ"].in_words()
    assert acronyms["RCU"].failing == ("q2",)


def test_names_that_the_tokenizer_breaks_up_are_told(encoder: SentenceEncoder) -> None:
    texts = ["install zorvexplim on the pump", "zorvexplim leaks", "the zorvexplim is new"]
    found = domain_terms(corpus(texts), encoder, asked(q1="zorvexplim update", q2="quandlebrax"), 0)
    broken = {term.term: term for term in found.terms if term.kind == FRAGMENTED}
    assert broken["zorvexplim"].details["tokens"] >= 3
    assert broken["zorvexplim"].frequency == 3
    assert "pump" not in broken
    assert found.terms[0].failing  # those of failing queries first


def test_repairs_that_reach_a_term_are_counted(encoder: SentenceEncoder) -> None:
    probes = {
        "today": {"found": False},
        "exact_match": {"found": True},
        "ranking": {"found": False},
    }
    failures = [{"query_id": "q1", "probes": probes}, {"query_id": "q2", "probes": probes}]
    texts = ["install zorvexplim", "zorvexplim leaks", "zorvexplim"]
    looked_at = Asked(
        {"q1": "zorvexplim", "q2": "pump", "q3": "zorvexplim"}, {"q1", "q2"}, failures
    )
    found = domain_terms(corpus(texts), encoder, looked_at, 0)
    term = found.terms[0]
    assert (term.queries, term.failing) == (2, ("q1",))
    assert term.reached == {"exact_match": 1}


def test_texts_without_blanks_are_read(encoder: SentenceEncoder) -> None:
    rng = np.random.default_rng(5)
    letters = "苹果香蕉樱桃葡萄柠檬键盘屏幕打印电缆网络更新桌子椅子窗户花园树木河流山峰海洋天空星星"
    pairs = [letters[at : at + 2] for at in range(0, len(letters), 2)]
    texts = ["".join(rng.choice(pairs, 2)) for _ in range(1000)]
    found = domain_terms(corpus(texts), encoder, asked(q1="苹果"), 2000)
    assert found.compared >= len(pairs) == 21
    assert found.read == 1000


def test_a_model_behind_an_endpoint_is_asked_for_no_word() -> None:
    class Outside:
        outside = True

    found = domain_terms(corpus(["a pump leaks"] * 30), Outside(), asked(q1="pump"), 2000)  # type: ignore[arg-type]
    assert "behind an endpoint" in found.not_tried
    assert found.compared == 0


def test_too_few_words_to_compare_are_not_said_to_be_compared(encoder: SentenceEncoder) -> None:
    words = ["apricot", "banana", "cherry", "orange", "lemon", "grape", "melon", "plum"]
    texts = [" ".join(words[number % 8 :] + words[: number % 8]) for number in range(60)]
    texts += ["nothing of that kind"] * 300
    found = domain_terms(corpus(texts), encoder, asked(), 2000)
    assert found.compared == 0
    assert "8 words stand in 24 documents" in found.not_tried


def test_of_a_large_corpus_a_sample_is_read(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DOCUMENTS", 10)
    found = domain_terms(corpus(["zorvexplim leaks"] * 95), encoder, asked(), 0)
    assert found.read == 10
    assert found.terms[0].frequency == 10


def test_an_empty_corpus_has_no_terms(encoder: SentenceEncoder) -> None:
    assert domain_terms(corpus([]), encoder, asked(q1="pump"), 2000) == DomainTerms()


def test_the_report_shows_them_escaped() -> None:
    rows: list[dict[str, Any]] = [
        {
            "term": "<i>case</i>",
            "kind": OTHER_MEANING,
            "near_here": ["claim"],
            "near_to_the_model": ["box"],
        },
        {
            "term": "RCU",
            "kind": ACRONYM,
            "expansions": ["Remote Control Unit"],
            "failing_queries": 2,
        },
        {"term": "odd", "kind": 3, "frequency": "many", "reached_by": []},
    ]
    diagnosis = {"terms": {"documents": 9, "compared": 5, "kinds": {"acronym": 1}, "rows": rows}}
    data = ReportData(diagnosis=diagnosis)
    html = page.render(data)
    assert 'href="#terms"' in html
    assert "<i>case</i>" not in html
    assert "here near claim; to the model near box" in html
    text = markdown.render(data)
    assert "### Domain terms" in text
    assert "Remote Control Unit" in text
    json.dumps(diagnosis)
