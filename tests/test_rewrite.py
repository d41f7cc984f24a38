"""Query rewriting: acronyms mined from texts, dictionaries, additions to queries, the user's own function."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearer.data.corpus import Corpus
from nearer.errors import ConfigError, DataError, SearchSystemError
from nearer.search.rewrite import Expander, mine_acronyms, query_rewriter, read_synonyms
from nearer.types import Query


def asked(text: str) -> Query:
    return Query("q", text, filter={"a": 1}, tags=("t",))


@pytest.mark.parametrize(
    ("text", "short", "long"),
    [
        (
            "We used magnetic resonance imaging (MRI) of the knee.",
            "MRI",
            "magnetic resonance imaging",
        ),
        (
            "See the MMU. A memory management unit (MMU) maps pages.",
            "MMU",
            "memory management unit",
        ),
        (
            "These software bills of materials (SBOMs, for short) help.",
            "SBOM",
            "software bills of materials",
        ),
        ("The CRLF (carriage return line feed) ends a line.", "CRLF", "carriage return line feed"),
        ("A DMA (direct memory access) engine.", "DMA", "direct memory access"),
        ('called "System-on-Chip" (SoC)', "SoC", "System-on-Chip"),
        (
            "Er leidet an chronisch obstruktiver Lungenerkrankung (COL).",
            "COL",
            "chronisch obstruktiver Lungenerkrankung",
        ),
    ],
)
def test_a_definition_in_brackets_is_an_acronym(text: str, short: str, long: str) -> None:
    assert mine_acronyms([text]) == {short: (long,)}


def test_letters_inside_words_count_where_texts_agree() -> None:
    text = "Deoxyribonucleic acid (DNA) is found in cells."
    assert mine_acronyms([text]) == {}
    assert mine_acronyms([text, "It is deoxyribonucleic acid (DNA)."]) == {
        "DNA": ("Deoxyribonucleic acid",)
    }


@pytest.mark.parametrize(
    "text",
    [
        "as shown (Figure) before",
        "in all of them (n = 12)",
        "an animal (ZQX) of prey",
        "the API (API)",
        "(MRI)",
        "()",
        "see above (1999)",
        "he said. (MRI)",
    ],
)
def test_other_brackets_are_no_acronyms(text: str) -> None:
    assert mine_acronyms([text, f"{text} "]) == {}


def test_rare_meanings_of_an_acronym_are_dropped_and_spellings_counted_as_one() -> None:
    texts = (
        ["the emergency room (ER)"] * 5
        + ["the Emergency Rooms (ERs)"] * 2
        + ["an estrogen receptor (ER)"] * 4
        + ["an equal right (ER)"]
    )
    assert mine_acronyms(texts) == {"ER": ("emergency room", "estrogen receptor")}


def test_real_texts_define_what_they_abbreviate(cwe: Path) -> None:
    found = mine_acronyms(Corpus.open(cwe / "corpus.jsonl").contents())
    assert len(found) > 60
    assert found["RBAC"] == ("role-based access control",)
    assert found["PRNG"][0].casefold().startswith("pseudo")
    assert found["CSRF"][0].casefold() == "cross-site request forgery"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", '{"MRI": ["magnetic resonance imaging"], "car": ["automobile", "auto"]}'),
        ("s.json", '{"MRI": "magnetic resonance imaging", "car": ["automobile", "auto"]}'),
        ("s.csv", "# mine\nMRI,magnetic resonance imaging\n\ncar => automobile, auto\n"),
        ("s.tsv", '\ufeffMRI\tmagnetic resonance imaging\ncar => automobile\ncar => "auto"\n'),
    ],
)
def test_dictionaries_are_read_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_synonyms(tmp_path / name)
    assert found["MRI"] == ("magnetic resonance imaging",)
    assert found["car"] == ("automobile", "auto")


def test_a_line_of_terms_makes_each_a_synonym_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("car, automobile, auto\n")
    assert read_synonyms(path) == {
        "car": ("automobile", "auto"),
        "automobile": ("car", "auto"),
        "auto": ("car", "automobile"),
    }


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("s.csv", "a,b\nalone\n", ":2"),
        ("s.csv", "a,\n", ":1"),
        ("s.txt", "a => b => c\n", ":1"),
        ("s.txt", "=> c\n", ":1"),
        ("s.txt", "a =>\n", ":1"),
        ("s.json", '{"a": [1]}', "('a')"),
        ("s.json", '{"a": []}', "('a')"),
        ("s.json", '["a"]', "s.json"),
        ("s.json", '{"a":\n', "s.json:2"),
    ],
)
def test_a_dictionary_that_cannot_be_used_names_the_place(
    tmp_path: Path, name: str, text: str, where: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_synonyms(tmp_path / name)
    assert str(caught.value.where).endswith(where)


MEDICINE = {
    "MRI": ("magnetic resonance imaging",),
    "IT": ("information technology",),
    "car": ("automobile", "motor car"),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cost of an MRI scan", "cost of an MRI scan magnetic resonance imaging"),
        ("two MRIs", "two MRIs magnetic resonance imaging"),
        ("Magnetic-resonance imaging of knees", "Magnetic-resonance imaging of knees MRI"),
        ("does it hurt? information technology", "does it hurt? information technology IT"),
        ("my CAR", "my CAR automobile motor car"),
    ],
)
def test_what_terms_are_also_called_is_added_both_ways(text: str, expected: str) -> None:
    rewritten = Expander(MEDICINE).rewrite(asked(text))
    assert rewritten.text == expected
    assert (rewritten.id, rewritten.filter, rewritten.tags) == ("q", {"a": 1}, ("t",))


@pytest.mark.parametrize(
    "text",
    [
        "does it hurt",
        "mri",
        "MRIX",
        "motor car automobile",
        "MRI (magnetic resonance imaging)",
        "carpet",
        "",
    ],
)
def test_a_query_with_nothing_to_add_is_returned_as_it_is(text: str) -> None:
    query = asked(text)
    assert Expander(MEDICINE).rewrite(query) is query
    assert Expander({}).rewrite(query) is query


def test_additions_are_few_and_each_made_once() -> None:
    many = Expander({"car": tuple(f"word{i}" for i in range(9))})
    assert many.rewrite(asked("car car")).text == "car car word0 word1 word2 word3"
    assert [query.text for query in many([asked("car"), asked("bus")])] == [
        "car word0 word1 word2 word3",
        "bus",
    ]


def test_a_dictionary_has_a_fingerprint_of_its_content() -> None:
    assert Expander(MEDICINE).fingerprint == Expander(dict(reversed(MEDICINE.items()))).fingerprint
    assert Expander(MEDICINE).fingerprint != Expander({**MEDICINE, "car": ("auto",)}).fingerprint


def test_a_users_function_rewrites_queries(tmp_path: Path) -> None:
    (tmp_path / "my_rewriting.py").write_text(
        "def louder(queries):\n    return [q.text.upper() for q in queries]\n"
    )
    quiet, loud = query_rewriter("my_rewriting:louder", tmp_path)([asked("why"), asked("WHY")])
    assert quiet == asked("WHY")
    assert loud == asked("WHY")


@pytest.mark.parametrize(
    "body",
    [
        "return ['one']",
        "return 'ab'",
        "return [1, 2]",
        "return ['a', ' ']",
        "raise ValueError('no')",
        "return None",
    ],
)
def test_a_function_that_fails_or_answers_wrongly_is_named(tmp_path: Path, body: str) -> None:
    module = f"rewriting_{abs(hash(body))}"
    (tmp_path / f"{module}.py").write_text(f"def f(queries):\n    {body}\n")
    with pytest.raises(SearchSystemError, match=rf"{module}:f"):
        query_rewriter(f"{module}:f", tmp_path)([asked("a"), asked("b")])


def test_a_function_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rewrite"):
        query_rewriter("not a name", tmp_path)
    with pytest.raises(SearchSystemError, match="no such module"):
        query_rewriter("nowhere_to_be_found:f", tmp_path)
