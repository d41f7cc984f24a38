"""Metadata filters: what they keep, what the corpus' fields look like, and which filters a text names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer import config
from nearer.data.corpus import Corpus
from nearer.data.inputs import external_inputs
from nearer.errors import ConfigError, SearchSystemError
from nearer.search.filters import Fields, Phrases, matches, mismatch, own_extraction
from nearer.search.systems import Systems
from nearer.text import words
from nearer.types import Document, Query

FILLER = (
    "The pump is checked before the first run.",
    "A cable may be replaced at any time.",
    "Keep the manual near the device.",
)


def corpus_of(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Corpus:
    return Corpus.from_documents(
        Document(f"d{i}", text, metadata=metadata) for i, (text, metadata) in enumerate(rows)
    )


def fields_of(*rows: tuple[str, Mapping[str, Any]]) -> Fields:
    return Fields.of(corpus_of(rows))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (2004, "2004"),
        ("2004", 2004),
        (2004, 2004.0),
        ("1.50", 1.5),
        ("Java", "JAVA"),
        ("java", ["C", "Java"]),
        (["perl", "java"], "Java"),
        (["perl", "java"], ["Java", "C"]),
        (True, "true"),
        ({"a": 1}, {"a": 1}),
        ("", ""),
    ],
)
def test_values_that_mean_the_same_match(wanted: Any, found: Any) -> None:
    assert matches({"f": wanted}, {"f": found})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1.10", "1.1"),  # two versions
        ("007", "7"),
        ("Java", "JavaScript"),
        ("Java", "Java "),
        (1, True),
        ("x", None),
        (None, None),
        (None, "x"),
        ([], "x"),
        ("x", []),
        ({"a": 1}, {"a": 2}),
    ],
)
def test_values_that_differ_do_not_match(wanted: Any, found: Any) -> None:
    assert not matches({"f": wanted}, {"f": found})


def test_every_field_of_a_filter_must_match_and_mismatch_says_which_do_not() -> None:
    metadata = {"year": "2004", "language": ["C", "Java"], "note": None}
    assert matches({}, metadata)
    assert matches({"year": 2004, "language": "java"}, metadata)
    wrong = {"year": 2005, "language": "java", "note": "x", "tenant": "acme"}
    assert not matches(wrong, metadata)
    assert mismatch(wrong, metadata) == [
        ("year", 2005, "2004"),
        ("note", "x", None),
        ("tenant", "acme", None),
    ]


plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from(
        [
            2004,
            2004.0,
            0.5,
            "2004",
            "0.5",
            "a",
            "A",
            "b",
            "a, b",
            "b, c, a",
            "",
            "ß",
            "SS",
            "2004-01-02",
            10**20,
            "x" * 300,
        ]
    ),
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 1), max_size=1),
)
values = st.one_of(plain_values, st.lists(plain_values, max_size=3))
metadatas = st.dictionaries(st.sampled_from(["f", "g", "version", "updated"]), values, max_size=3)


OWN = """
def named(text):
    if "windows" in text:
        return {"platform": ["Windows", "WinCE"], "year": 2004}
    if "two" in text:
        return [{"platform": "Linux"}, {"nowhere": 1}]
    if "wrong" in text:
        return "Linux"
    if "deep" in text:
        return {"platform": {"a": 1}}
    if "raise" in text:
        raise KeyError("platform")
    return None
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_extraction_of_filters.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_extraction_of_filters", None)


def test_a_function_of_ones_own_says_which_filters_a_text_names(own: Path) -> None:
    extract = own_extraction("own_extraction_of_filters:named", own)
    rows = [
        ("Linux", {"platform": "Linux", "year": 2004}),
        ("Windows", {"platform": "Windows", "year": 2003}),
        ("Windows too", {"platform": "Windows", "year": 2004}),
        ("Linux too", {"platform": "Linux", "year": 2004}),
    ]
    fields = Fields.of(corpus_of(rows), extract)
    # one filter a field, the most selective first; what the texts themselves name does not count
    assert fields.infer("Linux and windows") == [{"platform": ["Windows", "WinCE"]}, {"year": 2004}]
    assert fields.infer("two") == [{"nowhere": 1}, {"platform": "Linux"}]
    assert fields.infer("Linux") == []


@pytest.mark.parametrize(
    ("text", "says"), [("wrong", "is no filter"), ("deep", "is no filter"), ("raise", "KeyError")]
)
def test_what_is_no_filter_is_refused_with_its_name(own: Path, text: str, says: str) -> None:
    extract = own_extraction("own_extraction_of_filters:named", own)
    with pytest.raises(SearchSystemError, match=says) as refused:
        extract(text)
    assert refused.value.where == "search.extract: own_extraction_of_filters:named"


def test_no_such_function_is_a_clear_error(own: Path) -> None:
    with pytest.raises(SearchSystemError, match="no lost"):
        own_extraction("own_extraction_of_filters:lost", own)
    with pytest.raises(ConfigError, match="is not module:function"):
        own_extraction("named", own)


def test_the_pipeline_filters_by_it_and_a_change_of_it_is_an_input(own: Path) -> None:
    mine = {"extract": "own_extraction_of_filters:named"}
    built = config.build({"model": {"name": "none"}, "search": mine})
    corpus = corpus_of([("a", {"platform": "Linux"}), ("b", {"platform": "Windows"})])
    systems = Systems(built, own, corpus)
    eligible = systems.eligible("inferred")
    assert eligible is not None
    kept = {text: eligible(Query("q", text)) for text in ("windows", "two", "no more")}
    assert kept["windows"] is not None
    assert kept["windows"].tolist() == [False, True]
    assert kept["two"] is not None
    assert kept["two"].tolist() == [True, False]  # a filter that nothing satisfies is left out
    assert kept["no more"] is None
    inputs = external_inputs("system", built, own)
    assert inputs == {"extract": own / "own_extraction_of_filters.py"}


@settings(max_examples=150, deadline=None)
@given(st.lists(metadatas, min_size=1, max_size=14), st.lists(metadatas, min_size=1, max_size=4))
def test_eligible_is_what_matches_says_document_by_document(
    metadata: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    corpus = corpus_of(("text", one) for one in metadata)
    fields = Fields.of(corpus)
    for chosen in (*filters, *metadata):
        expected = [matches(chosen, fields.read(document.metadata)) for document in corpus]
        assert fields.eligible(chosen).tolist() == expected
        assert fields.selectivity(chosen) == pytest.approx(np.mean(expected))


def test_eligible_is_computed_once_and_cannot_be_changed() -> None:
    fields = fields_of(("x", {"a": 1, "b": 2}), ("y", {"a": 2, "b": 2}))
    mask = fields.eligible({"a": 1, "b": 2})
    assert mask is fields.eligible({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="read-only"):
        mask[1] = True


def test_a_filter_on_an_unknown_field_keeps_nothing_and_no_filter_everything() -> None:
    fields = fields_of(("x", {"a": 1}), ("y", {}))
    assert not fields.eligible({"nowhere": 1}).any()
    assert fields.eligible({}).all()


def test_fields_say_what_kind_of_values_they_hold() -> None:
    fields = fields_of(
        *(
            (
                "text",
                {
                    "source": ("wiki", "blog")[i % 2],
                    "pages": str(i % 9),
                    "published": f"20{i % 7 + 10}-03-0{i % 9 + 1}",
                    "year": 2000 + i % 4,
                    "url": f"https://example.org/{i}",
                    "editor": f"name {i // 2 * 2 if i < 10 else i}",
                    "labels": ["new"] if i % 3 else ["new", "old"],
                },
            )
            for i in range(60)
        )
    ).fields
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds == {
        "source": "category",
        "pages": "number",
        "published": "date",
        "year": "date",
        "url": "unique",
        "editor": "text",
        "labels": "category",
    }
    assert fields["source"].values == {"wiki": 30, "blog": 30}
    assert fields["labels"].values == {"new": 60, "old": 20}
    assert not fields["url"].values


def test_strings_of_tags_are_split_and_texts_with_commas_are_not() -> None:
    tags = ("role::program", "interface::web", "use::editing", "made-in::c")
    places = ("Paris, France", "Washington, DC", "Lima, Peru")
    rows = [
        (
            f"text {i}",
            {
                "tags": ", ".join(t for b, t in enumerate(tags) if i >> b & 1),
                "place": places[i % 3],
            },
        )
        for i in range(16)
    ]
    fields = fields_of(*rows)
    assert fields.fields["tags"].tags
    assert fields.fields["tags"].values == dict.fromkeys(tags, 8)
    assert fields.eligible({"tags": "use::editing"}).sum() == 8
    assert (
        fields.eligible({"tags": "role::program, interface::web"}).sum() == 1
    )  # the string as it stands
    assert not fields.fields["place"].tags
    assert not fields.eligible({"place": "DC"}).any()


def test_values_beyond_a_category_are_counted_by_hash_only() -> None:
    fields = fields_of(
        *((f"text {i}", {"code": f"c{i}", "body": "word " * 80}) for i in range(200))
    )
    assert not fields.fields["code"].values
    assert not fields.fields["body"].values  # too long for a value of a category
    assert fields.eligible({"code": "C7"}).nonzero()[0].tolist() == [7]


def languages() -> list[tuple[str, dict[str, Any]]]:
    """120 documents: texts that say Java are about it; drafts, and the everyday word base, are anywhere."""
    rows = []
    for i in range(120):
        language = ("Java", "C++", "C", "Visual Basic")[i % 4]
        said = f"In {language} this is common." if i % 3 else "This is common."
        everyday = "The base of a draft is stable." if i % 5 < 2 else "Nothing else is known."
        metadata = {
            "language": language,
            "status": ("Draft", "Stable")[i // 4 % 2],
            "level": ("Base", "Top", "Low")[i // 2 % 3],
        }
        rows.append((f"{FILLER[i % 3]} {said} {everyday}", metadata))
    return rows


def test_a_value_is_named_where_documents_that_say_it_carry_it() -> None:
    fields = fields_of(*languages())
    assert fields.infer("how do I close a file in java?") == [{"language": "Java"}]
    assert fields.infer("a visual-basic macro") == [{"language": "Visual Basic"}]
    assert fields.infer("javascript") == []
    assert fields.infer("") == []


def test_an_everyday_word_names_nothing() -> None:
    fields = fields_of(*languages())
    assert fields.infer("the base of a stable draft") == []
    # `Top` and `Low` are in no text; what their field does with `Base` speaks against them
    assert fields.infer("top of a low wall") == []


def test_short_values_are_named_in_their_own_case_only() -> None:
    fields = fields_of(*languages())
    assert fields.infer("strings in C") == [{"language": "C"}]
    assert fields.infer("option c") == []
    assert fields.infer("templates of c++") == [{"language": "C++"}]


def test_a_name_that_no_text_says_is_named_by_the_field_that_no_text_says() -> None:
    rows = [
        (f"{FILLER[i % 3]} Part {i}.", {"tenant": ("globex", "initech")[i % 2]}) for i in range(120)
    ]
    assert fields_of(*rows).infer("returns at Globex") == [{"tenant": "globex"}]
    assert (
        fields_of(*rows[:60]).infer("returns at Globex") == []
    )  # too few texts to know that none says it


def test_the_longest_of_nested_values_is_named_and_spellings_are_one_filter() -> None:
    topics = ("Cancer", "Breast Cancer", "Lung-Cancer", "lung cancer")
    rows = [
        (f"About {topics[i % 4]}. {FILLER[i % 3]}", {"topic": topics[i % 4]}) for i in range(80)
    ]
    fields = fields_of(*rows)
    assert fields.infer("what is breast cancer?") == [{"topic": "Breast Cancer"}]
    assert fields.infer("what is lung cancer?") == [{"topic": ["Lung-Cancer", "lung cancer"]}]


def test_a_year_names_the_documents_of_that_year() -> None:
    rows = [
        (
            f"Minutes of {2001 + i % 5}. {FILLER[i % 3]}",
            {"year": str(2001 + i % 5), "on": f"{2001 + i % 5}-0{i % 2 + 1}-01"},
        )
        for i in range(60)
    ]
    rows += [("Undated.", {"year": "2001", "on": "spring"})]
    found = fields_of(*rows).infer("what was decided in 2003?")
    assert sorted(found, key=str) == [{"on": ["2003-01-01", "2003-02-01"]}, {"year": "2003"}]


def test_the_most_selective_filter_stands_first() -> None:
    rows = []
    for i in range(90):
        kind, brand = (
            ("router", "camera")[i % 3 == 0],
            ("Umbra", "Volta", "Wessex", "Xylo", "Yonder")[i % 5],
        )
        rows.append((f"The {brand} {kind}. {FILLER[i % 3]}", {"kind": kind, "brand": brand}))
    fields = fields_of(*rows)
    found = fields.infer("my camera from Volta")
    assert found == [{"brand": "Volta"}, {"kind": "camera"}]
    assert [fields.selectivity(one) for one in found] == sorted(
        fields.selectivity(one) for one in found
    )


def test_on_real_data_words_of_the_trade_name_no_status_or_abstraction(cwe: Path) -> None:
    fields = Fields.of(Corpus.open(cwe / "corpus.jsonl"))
    assert fields.fields["status"].values.keys() == {"Draft", "Incomplete", "Stable"}
    assert (
        fields.infer(
            "draft of a base class variant that is incomplete, stable, see CWE-863, go other"
        )
        == []
    )
    assert fields.infer("C++ templates") == [{"languages": "C++"}]
    assert (
        fields.eligible({"languages": "java"}).sum()
        == fields.fields["languages"].values["Java"]
        > 50
    )


def test_recency_is_a_date_that_most_documents_have() -> None:
    fields = fields_of(
        ("a", {"published": "2020-01-01", "year": 2021, "version": "1.2.3"}),
        ("b", {"published": "2021-07-02T12:00:00Z", "year": 1999, "version": "1.10"}),
        ("c", {"year": "2001", "version": "v2"}),
    )
    name, years = fields.recency() or ("", np.zeros(0))
    assert name == "year"
    assert years.tolist() == [2021, 1999, 2001]
    published = fields.fields["published"].years
    assert published is not None
    assert published[0] == 2020
    assert published[1] == pytest.approx(2021.5, abs=0.01)
    assert np.isnan(published[2])


@pytest.mark.parametrize(
    ("name", "values", "order"),
    [
        ("created_at", [1_700_000_000, 1_600_000_000, 1_650_000_000], [1, 2, 0]),
        ("timestamp", ["1700000000000", "1600000000000", "1650000000000"], [1, 2, 0]),
        ("version", ["1.10.0", "1.9.3", "1.10.1"], [1, 0, 2]),
        ("month", ["2024-05", "2023-12", "2024-01"], [1, 2, 0]),
        (
            "issued",
            ["2024-01-01T00:30:00+02:00", "2023-12-31T23:00:00+00:00", "2024-01-01"],
            [0, 1, 2],
        ),
    ],
)
def test_epochs_versions_and_dates_are_put_in_order(
    name: str, values: list[Any], order: list[int]
) -> None:
    found = fields_of(*(("x", {name: value}) for value in values)).recency()
    assert found is not None
    assert found[0] == name
    assert np.argsort(found[1]).tolist() == order


@pytest.mark.parametrize(
    "metadata",
    [
        {"size": 1_700_000_000},
        {"year": 2001},
        {"release": "1.2"},
        {"date": "soon"},
        {"date": "2024-99-99"},
        {},
    ],
)
def test_no_recency_where_no_field_tells_it(metadata: dict[str, Any]) -> None:
    other = {
        name: value + 1 if isinstance(value, int) and name != "year" else value
        for name, value in metadata.items()
    }
    assert fields_of(("a", metadata), ("b", other)).recency() is None


def test_of_two_dates_the_one_about_changes_tells_recency() -> None:
    fields = fields_of(
        *(
            ("x", {"created": f"2020-01-0{i}", "last_modified": f"2022-01-0{i % 2 + 1}"})
            for i in range(1, 6)
        )
    )
    assert (fields.recency() or ("",))[0] == "last_modified"


def test_phrases_are_whole_words_longest_first_and_never_overlap() -> None:
    phrases = Phrases(
        [
            ("new york", False),
            ("york times", False),
            ("New", True),
            ("new york city hall", False),
            ("", False),
        ]
    )
    assert phrases.find(words("In New-York City they read the york times.")) == [
        "new york",
        "york times",
    ]
    assert phrases.find(words("new york times")) == ["new york"]
    assert phrases.find(words("New, newer, new")) == ["New"]
    assert phrases.find(words("café")) == []
    assert Phrases([("café", False)]).find(words("le cafe\u0301")) == ["café"]
