"""Rerankers: scores kept, runs in canonical order, one trained here on training judgments alone."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

from generations_kit import WORDS, static_model, transformer_model
from nearer import config
from nearer.data.corpus import Corpus
from nearer.embed.loading import load_model
from nearer.embed.precision import BF16_OVERRIDE
from nearer.errors import ConfigError, DataError, ModelError, SearchSystemError
from nearer.search.rerank import (
    CachedReranker,
    CrossEncoderReranker,
    load_reranker,
    open_cross_encoder,
    rerank,
)
from nearer.search.rerank import cross_encoder as module
from nearer.training.examples import Duplicates
from nearer.training.material import TrainingMaterial
from nearer.training.reranker import (
    _keep_layers,
    reranker_examples,
    reranker_of,
    train_reranker,
)
from nearer.types import Document, Query, Run, Split, rank_hits

COUNTING = """
class Counting:
    scored = []

    def score(self, pairs):
        self.scored += pairs
        return [float(len(document)) for _, document in pairs]
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """`own(source)` writes a module of the user's in tmp_path and gives its name."""
    names: list[str] = []

    def write(source: str) -> str:
        name = f"own_reranker_{abs(hash(str(tmp_path)))}_{len(names)}"
        (tmp_path / f"{name}.py").write_text(source)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


class Fixed:
    """Scores by document text."""

    name = fingerprint = "fixed"

    def __init__(self, scores: dict[str, Any]) -> None:
        self.scores = scores

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([self.scores[document] for _, document in pairs])


def corpus_of(texts: dict[str, str]) -> Corpus:
    return Corpus.from_documents(Document(doc_id, text) for doc_id, text in texts.items())


# -- scores kept ---------------------------------------------------------------------------------------


def test_no_pair_is_ever_scored_twice(tmp_path: Path, own: Callable[[str], str]) -> None:
    name = own(COUNTING)
    spec = f"{name}:Counting"
    pairs = [("q", "one"), ("q", "three"), ("q", "one"), ("qo", "ne")]
    first = load_reranker(spec, tmp_path, cache=tmp_path / "cache")
    assert first.score(pairs).tolist() == [3.0, 5.0, 3.0, 2.0]
    scored = sys.modules[name].Counting.scored
    assert scored == [
        ("q", "one"),
        ("q", "three"),
        ("qo", "ne"),
    ]  # where the query ends tells pairs apart
    again = load_reranker(spec, tmp_path, cache=tmp_path / "cache")
    assert again.score([*pairs[::-1], ("new", "pair")]).tolist() == [2.0, 3.0, 5.0, 3.0, 4.0]
    assert scored[3:] == [("new", "pair")]
    again.without_cache().score(pairs[:1])
    assert scored[4:] == pairs[:1]


def test_a_changed_module_shares_no_scores(tmp_path: Path, own: Callable[[str], str]) -> None:
    name = own(COUNTING)
    load_reranker(f"{name}:Counting", tmp_path, cache=tmp_path / "cache").score([("q", "one")])
    (tmp_path / f"{name}.py").write_text(COUNTING.replace("len(document)", "7.5"))
    del sys.modules[name]
    sys.path_importer_cache.clear()
    for compiled in tmp_path.rglob(
        "*.pyc"
    ):  # a quick edit of the same size looks unchanged to Python
        compiled.unlink()
    changed = load_reranker(f"{name}:Counting", tmp_path, cache=tmp_path / "cache")
    assert changed.score([("q", "one")]).tolist() == [7.5]


def test_a_class_of_the_user_may_declare_name_and_fingerprint(
    tmp_path: Path, own: Callable[[str], str]
) -> None:
    plain, declared, other = (
        own(COUNTING + more)
        for more in ("", "    name, fingerprint = 'mine', 'v1'\n", "    fingerprint = 'v2'\n")
    )
    loaded = [load_reranker(f"{name}:Counting", tmp_path) for name in (plain, declared, other)]
    assert [one.name for one in loaded] == [f"{plain}:Counting", "mine", f"{other}:Counting"]
    assert len({one.fingerprint for one in loaded}) == 3


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("class R:\n    pass\n", r"no score\(pairs\)"),
        ("class R:\n    def __init__(self, folder):\n        pass\n", "making it raised TypeError"),
        (
            "class R:\n    def score(self, pairs):\n        return [1.0]\n",
            r"2 pairs got scores of shape \(1,\)",
        ),
        (
            "class R:\n    def score(self, pairs):\n        return [1.0, float('nan')]\n",
            "not finite",
        ),
        ("class R:\n    def score(self, pairs):\n        return [1.0, 1e300]\n", "not finite"),
        (
            "class R:\n    def score(self, pairs):\n        return ['high', 'low']\n",
            "raised ValueError",
        ),
        (
            "class R:\n    def score(self, pairs):\n        raise KeyError('weights')\n",
            "raised KeyError",
        ),
    ],
)
def test_a_reranker_that_cannot_rank_is_refused(
    tmp_path: Path, own: Callable[[str], str], source: str, problem: str
) -> None:
    name = own(source)
    with pytest.raises(ModelError, match=problem) as caught:
        load_reranker(f"{name}:R", tmp_path, cache=tmp_path / "cache").score(
            [("q", "a"), ("q", "b")]
        )
    assert name in str(caught.value)
    assert not list((tmp_path / "cache").rglob("vectors.f32"))


def test_what_is_no_class_or_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rerank\.model.*not module:Class"):
        load_reranker("own.py:Class", tmp_path)
    with pytest.raises(SearchSystemError, match="no such module"):
        load_reranker("nowhere_at_all:Class", tmp_path)
    with pytest.raises(ModelError, match="no such model folder") as caught:
        load_reranker("./missing", tmp_path)
    assert "rerank.model" in str(caught.value)


# -- runs ----------------------------------------------------------------------------------------------

TEXTS = {f"d{i}": f"text {i}" for i in range(8)}


@given(
    st.lists(
        st.sampled_from([0.0, 1.0, -2.5, 1e9, -1e9, -1e30, 1e-9, 0.3, 0.1 + 0.2]),
        min_size=8,
        max_size=8,
    ),
    st.integers(1, 10),
    st.integers(0, 8),
)
def test_the_result_is_canonical_at_any_depth(scores: list[float], depth: int, found: int) -> None:
    run = Run(
        "first",
        {
            "q": rank_hits((doc_id, 1.0 + i // 2) for i, doc_id in enumerate(TEXTS))[:found],
            "silent": [],
        },
    )
    by_text = dict(zip(TEXTS.values(), scores, strict=True))
    out = rerank(
        run, [Query("q", "question"), Query("silent", "?")], corpus_of(TEXTS), Fixed(by_text), depth
    )
    hits = list(out.results["q"])
    assert hits == rank_hits(hits)
    before = run.top("q", found)
    expected = rank_hits((doc_id, by_text[TEXTS[doc_id]]) for doc_id in before[:depth])
    assert hits[:depth] == expected
    assert [doc_id for doc_id, _ in hits[depth:]] == before[depth:]
    assert all(a[1] > b[1] for a, b in zip(hits[depth - 1 :], hits[depth:], strict=False))
    assert out.results["silent"] == []


def test_other_queries_of_the_run_stay_as_they_are_and_nothing_is_changed_in_place() -> None:
    given_results = {"q": [("d1", 2.0), ("d0", 1.0)], "other": [("d2", 1.0)]}
    run = Run("first", given_results, seconds=1.0, latencies=(0.1, 0.2))
    out = rerank(
        run,
        [Query("q", "question"), Query("unknown", "?")],
        corpus_of(TEXTS),
        Fixed({"text 0": 5, "text 1": 4}),
        10,
    )
    assert out.results == {"q": [("d0", 5.0), ("d1", 4.0)], "other": [("d2", 1.0)]}
    assert run.results == {"q": [("d1", 2.0), ("d0", 1.0)], "other": [("d2", 1.0)]}
    assert (out.name, out.latencies) == ("first+rerank", ())
    assert out.seconds > 1.0


def test_scores_that_are_not_finite_and_unknown_documents_are_refused() -> None:
    run = Run("first", {"q": [("d1", 2.0), ("d0", 1.0)]})
    with pytest.raises(ModelError, match="not finite"):
        rerank(
            run, [Query("q", "?")], corpus_of(TEXTS), Fixed({"text 0": np.nan, "text 1": 1.0}), 2
        )
    with pytest.raises(DataError, match="'d1' is not in the corpus"):
        rerank(run, [Query("q", "?")], corpus_of({"d0": "text 0"}), Fixed({"text 0": 1.0}), 2)


# -- cross-encoders ------------------------------------------------------------------------------------

#: What a reranker can learn here: documents about a leak are relevant.
EXAMPLES = [
    (
        f"{WORDS[i % 14]} {WORDS[i % 5]}",
        f"{WORDS[i % 13]} {'leak' if i % 2 else 'heat'} {WORDS[i % 11]} " * (1 + i % 3),
        float(i % 2),
    )
    for i in range(96)
]
WEAKNESSES = [
    (
        "memory is written behind its end",
        "A heap overflow writes behind the end of allocated memory.",
    ),
    ("a path leaves its folder", "A path traversal leaves the folder that files should stay in."),
    ("a script in the browser", "A cross-site script runs in the browser of another user."),
    ("an endless loop", "A loop without end keeps the processor busy."),
]
SETTINGS = config.Rerank(max_length=32, learning_rate=5e-3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's transformer, with a tokenizer that tells two texts apart."""
    folder = transformer_model(tmp_path_factory.mktemp("models") / "small")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"cls_token": "[UNK]", "sep_token": "reset"})
    ends = [("[UNK]", tokenizer.cls_token_id), ("reset", tokenizer.sep_token_id)]
    template = TemplateProcessing(
        single="[UNK] $A reset", pair="[UNK] $A reset $B:1 reset:1", special_tokens=ends
    )
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(small: Path) -> Any:
    return load_model(config.Model(name=str(small), device="cpu"), small)


@pytest.fixture(scope="module")
def trained(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rerankers") / "trained"
    summary = train_reranker(
        base, EXAMPLES, out, SETTINGS.model_copy(update={"epochs": 10}), name="small", seed=3
    )
    assert (summary["pairs"], summary["positives"], summary["max_length"]) == (96, 48, 32)
    return out


def test_training_teaches_and_saves_safely(trained: Path, tmp_path: Path) -> None:
    reranker = load_reranker(str(trained), tmp_path, max_length=32)
    scores = reranker.score([(query, document) for query, document, _ in EXAMPLES])
    labels = np.array([label for _, _, label in EXAMPLES])
    assert scores[labels == 1].mean() > scores[labels == 0].mean() + 1.0
    assert (trained / "model.safetensors").is_file()
    assert not [path for path in trained.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    assert [path.name for path in trained.parent.iterdir()] == [
        "trained"
    ]  # nothing half-written beside it


def test_saved_and_loaded_it_scores_the_same_and_has_the_same_fingerprint(
    trained: Path, tmp_path: Path
) -> None:
    pairs = [(query, document) for query, document, _ in EXAMPLES]
    first = CrossEncoderReranker(open_cross_encoder("small", trained), max_length=32)
    first.model.save(str(tmp_path / "copy"), create_model_card=False)
    second = load_reranker("copy", tmp_path, max_length=32)
    assert np.array_equal(first.score(pairs), second.score(pairs))
    assert first.fingerprint == second.fingerprint
    assert load_reranker("copy", tmp_path, max_length=16).fingerprint != first.fingerprint


def test_the_order_of_pairs_and_their_batches_do_not_matter(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = CrossEncoderReranker(open_cross_encoder("small", trained), max_length=32)
    pairs = [(query, document * (1 + i % 5)) for i, (query, document, _) in enumerate(EXAMPLES)]
    together = reranker.score(pairs)
    monkeypatch.setattr(module, "_BATCH_TOKENS", 64)
    assert np.allclose(reranker.score(pairs[::-1])[::-1], together, atol=2e-4)
    assert reranker.score([]).shape == (0,)


def test_bf16_is_used_only_where_the_scores_stay_faithful(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BF16_OVERRIDE, "yes")
    monkeypatch.setattr(
        module,
        "PROBES",
        ("pump leak noise", "heat oil filter", "leak", "sensor reset of the motor"),
    )  # its words
    model = open_cross_encoder("small", trained)
    faithful = CrossEncoderReranker(model, max_length=32)
    assert faithful.precision.name == "bf16"
    assert (faithful.precision.fidelity or 0) >= module.MIN_FIDELITY
    monkeypatch.setattr(module, "MIN_FIDELITY", 1.1)
    exact = CrossEncoderReranker(model, max_length=32)
    assert exact.precision.name == "fp32"
    assert exact.fingerprint != faithful.fingerprint
    pairs = [(query, document) for query, document, _ in EXAMPLES]
    assert np.corrcoef(faithful.score(pairs), exact.score(pairs))[0, 1] > 0.999


def test_an_embedding_model_is_no_reranker(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not trained to score pairs") as caught:
        load_reranker(str(tiny_model), tmp_path)
    assert "train" in str(caught.value)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="unsafe format"):
        load_reranker("old", tmp_path)


def test_the_same_seed_trains_the_same_reranker(base: Any, tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_reranker(base, EXAMPLES, tmp_path / name, SETTINGS, name="small", seed=seed)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def test_a_model_without_a_transformer_cannot_become_a_reranker(tmp_path: Path) -> None:
    static = load_model(
        config.Model(name=str(static_model(tmp_path / "static")), device="cpu"), tmp_path
    )
    with pytest.raises(ModelError, match="only out of a transformer"):
        train_reranker(static, EXAMPLES, tmp_path / "out", SETTINGS, name="static", seed=0)
    unseparated = load_model(
        config.Model(name=str(transformer_model(tmp_path / "unseparated")), device="cpu"), tmp_path
    )
    with pytest.raises(ModelError, match="separator between two texts"):
        train_reranker(
            unseparated, EXAMPLES, tmp_path / "out", SETTINGS, name="unseparated", seed=0
        )
    assert not (tmp_path / "out").exists()


def test_an_untrained_one_ranks_like_the_embedding_model_and_is_loaded_back(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = load_model(config.Model(name=str(tiny_model), device="cpu"), tmp_path)
    documents = [text for _, text in WEAKNESSES]
    pairs = [(query, document) for query, _ in WEAKNESSES for document in documents]
    settings = SETTINGS.model_copy(update={"max_length": 24, "learning_rate": 1e-9})
    train_reranker(
        base, [(*pairs[0], 1.0), (*pairs[1], 0.0)], tmp_path / "out", settings, name="tiny", seed=0
    )
    scores = load_reranker("out", tmp_path).score(pairs).reshape(len(WEAKNESSES), -1)
    assert scores.argmax(1).tolist() == list(range(len(WEAKNESSES)))
    model = open_cross_encoder("tiny", tmp_path / "out")
    assert model.max_seq_length == 24
    assert model.preprocess([pairs[0]])["input_ids"].shape[1] <= 24
    assert base.transformers_model.config.num_labels == 2  # the embedding model stays as it was


@pytest.mark.parametrize(("asked", "left"), [(1, 1), (2, 2), (9, 2)])
def test_it_can_be_made_of_the_first_layers_alone(
    tiny_model: Path, tmp_path: Path, asked: int, left: int
) -> None:
    base = load_model(config.Model(name=str(tiny_model), device="cpu"), tmp_path)
    settings = SETTINGS.model_copy(update={"max_length": 24, "layers": asked})
    train_reranker(base, EXAMPLES[:16], tmp_path / "out", settings, name="tiny", seed=0)
    model = open_cross_encoder("tiny", tmp_path / "out")
    assert model[0].model.config.num_hidden_layers == left
    assert len(model[0].model.encoder.layer) == left
    assert base.transformers_model.config.num_hidden_layers == 2  # the embedding model keeps both
    assert len(base.transformers_model.encoder.layer) == 2
    assert np.isfinite(load_reranker("out", tmp_path).score([EXAMPLES[0][:2]])).all()


def test_settings_with_an_entry_a_layer_follow_the_layers_that_are_kept(tmp_path: Path) -> None:
    """ModernBERT says of each layer how far its attention reaches."""
    shape = ModernBertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, pad_token_id=0
    )
    transformer = ModernBertModel(shape)
    kinds = list(transformer.config.layer_types)
    _keep_layers(transformer, 2, "modern")
    assert transformer.config.layer_types == kinds[:2]
    transformer.save_pretrained(tmp_path)
    assert ModernBertModel.from_pretrained(tmp_path).config.num_hidden_layers == 2


# -- examples ------------------------------------------------------------------------------------------

DOCUMENTS = {
    "good": "the answer",
    "better": "another answer",
    "twin": "the answer!",
    "empty": " ",
} | {f"n{i}": f"noise {i}" for i in range(40)}
JUDGED = {
    "q0": {"good": 2, "better": 1, "n0": 0},
    "q1": {"good": 1},
    "q2": {"n5": 1, "gone": 1},
    "held": {"n6": 1},
}
TRAIN = Split(
    "train", tuple(Query(query_id, f"question {query_id}") for query_id in JUDGED), JUDGED
)
RUN = Run(
    "dense",
    {query_id: [(doc_id, -float(i)) for i, doc_id in enumerate(DOCUMENTS)] for query_id in JUDGED},
)


def examples(**more: Any) -> list[tuple[str, str, float]]:
    rng = more.pop("rng", np.random.default_rng(0))
    settings = config.Rerank(negatives=more.pop("negatives", 3), pairs=more.pop("limit", 1000))
    material = TrainingMaterial(
        TRAIN,
        corpus_of(DOCUMENTS),
        Duplicates.of([["good", "twin"]]),
        collides=lambda text: "exact" if text == "question held" else None,
        **more,
    )
    return reranker_examples(material, [RUN], settings, rng)


def test_a_known_positive_or_its_duplicate_is_never_a_negative() -> None:
    found = examples(negatives=100)
    negatives = {
        query: {d for q, d, label in found if q == query and label == 0} for query, _, _ in found
    }
    assert set(negatives) == {"question q0", "question q1", "question q2"}
    for query_id, known in (
        ("q0", {"good", "better", "twin"}),
        ("q1", {"good", "twin"}),
        ("q2", {"n5"}),
    ):
        asked = negatives[f"question {query_id}"]
        assert not asked & {DOCUMENTS[doc_id] for doc_id in {*known, "empty"}}
        assert len(asked) >= 25
    assert "noise 0" in negatives["question q0"]  # judged not relevant
    assert not any(
        "noise 3" + str(i) in asked for asked in negatives.values() for i in range(10)
    )  # below rank 30


def test_positives_are_the_judged_ones_of_queries_that_are_not_held_out() -> None:
    positives = {(query, document) for query, document, label in examples() if label == 1}
    answers = {
        ("question q0", "the answer"),
        ("question q0", "another answer"),
        ("question q1", "the answer"),
    }
    assert positives == answers | {("question q2", "noise 5")}
    graded = {(query, document) for query, document, label in examples(min_grade=2) if label == 1}
    assert graded == {("question q0", "the answer")}


def test_the_limit_is_spread_over_queries_and_seeded() -> None:
    few = examples(limit=12)
    assert len(few) == 12
    assert {query for query, _, _ in few} == {"question q0", "question q1", "question q2"}
    assert sum(label for _, _, label in few) == 3
    assert few == examples(limit=12)
    assert few != examples(limit=12, rng=np.random.default_rng(1))


def test_it_can_see_the_training_split_alone() -> None:
    splits = [field.name for field in fields(TrainingMaterial) if "Split" in str(field.type)]
    assert splits == ["train"]
    for function in (reranker_examples, reranker_of):
        parameters = inspect.signature(function).parameters.values()
        assert not [one for one in parameters if "Split" in str(one.annotation)]


# -- the one of the configuration ----------------------------------------------------------------------


def material_of(train: Split) -> TrainingMaterial:
    return TrainingMaterial(train, corpus_of(DOCUMENTS), Duplicates(), collides=lambda text: None)


def configured(small: Path, **rerank: Any) -> config.Config:
    return config.build({"model": {"name": str(small)}, "rerank": {"max_length": 32, **rerank}})


def test_a_trained_one_is_found_again_and_made_anew_when_its_examples_change(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings: list[Path] = []

    def counted(*given: Any, **more: Any) -> dict[str, Any]:
        trainings.append(given[2])
        return train_reranker(*given, **more)

    monkeypatch.setattr("nearer.training.reranker.train_reranker", counted)

    def ask(settings: config.Config, seed: int = 0) -> CachedReranker:
        made = reranker_of(
            settings.model_copy(update={"seed": seed}),
            tmp_path,
            tmp_path / "cache",
            material_of(TRAIN),
            runs=lambda: [RUN],
        )
        assert made is not None
        return made

    settings = configured(small, model="train", depth=10)
    first = ask(settings)
    assert ask(configured(small, model="train", depth=20)).fingerprint == first.fingerprint
    assert len(trainings) == 1
    assert ask(settings, seed=1).fingerprint != first.fingerprint
    assert len(trainings) == 2
    assert {path.name for path in (tmp_path / "cache" / "rerankers").iterdir()} == {
        path.name for path in trainings
    }


def test_without_one_nothing_is_searched_and_without_judgments_it_says_so(
    small: Path, tmp_path: Path
) -> None:
    none = configured(small, model=None)
    material = material_of(TRAIN)
    assert reranker_of(none, tmp_path, None, material, runs=lambda: pytest.fail("searched")) is None
    with pytest.raises(DataError, match=r"rerank\.model.*no pairs"):
        reranker_of(
            configured(small, model="train"),
            tmp_path,
            None,
            material_of(Split("train", (), {})),
            runs=list,
        )


def test_without_a_cache_it_is_trained_and_used_all_the_same(small: Path, tmp_path: Path) -> None:
    settings = configured(small, model="train")
    made = reranker_of(settings, tmp_path, None, material_of(TRAIN), runs=lambda: [RUN])
    assert made is not None
    out = rerank(RUN, TRAIN.queries, corpus_of(DOCUMENTS), made, 5)
    assert set(out.top("q0", 5)) == set(RUN.top("q0", 5))
