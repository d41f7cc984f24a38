"""Clean batches, the loss they feed, and a training that survives a kill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from nearer import config, progress
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import DataError
from nearer.training import merging, optimise
from nearer.training import trainer as module
from nearer.training.batches import Collator, DocumentBatches, by_length
from nearer.training.examples import Duplicates, TrainingSet, build_training_set, read_examples
from nearer.training.looks import dev_pool
from nearer.training.losses.ranking import RankingLoss
from nearer.training.recipe import Recipe
from nearer.training.saving import save_model
from nearer.training.trainer import Trained, train
from nearer.types import Document, Example, Query, Run, Split

WORDS = [
    "buffer",
    "overflow",
    "path",
    "traversal",
    "script",
    "injection",
    "memory",
    "leak",
    "race",
    "weak",
    "password",
    "redirect",
    "null",
]


def toy(n: int = 24) -> TrainingSet:
    """Queries and documents that share two words each, so that there is something to learn."""
    rng = np.random.default_rng(0)
    documents = tuple(
        f"{WORDS[i % len(WORDS)]} {WORDS[(3 * i + 1) % len(WORDS)]} weakness {i}" for i in range(n)
    )
    queries = tuple(
        f"report {i} about {WORDS[i % len(WORDS)]} {' '.join(rng.choice(WORDS, 2))}"
        for i in range(n)
    )
    return TrainingSet(
        queries,
        documents,
        tuple((i, i, ()) for i in range(n)),
        tuple(frozenset({i}) for i in range(n)),
    )


@st.composite
def training_sets(draw: st.DrawFn) -> TrainingSet:
    n_queries, n_documents = draw(st.integers(1, 25)), draw(st.integers(2, 20))
    pairs = draw(
        st.sets(
            st.tuples(st.integers(0, n_queries - 1), st.integers(0, n_documents - 1)),
            min_size=1,
            max_size=80,
        )
    )
    extra = draw(
        st.sets(
            st.tuples(st.integers(0, n_queries - 1), st.integers(0, n_documents - 1)), max_size=20
        )
    )
    rows = tuple((q, d, tuple({(d + 1) % n_documents} - {d})) for q, d in sorted(pairs))
    blocked = tuple(
        frozenset(d for q, d in pairs | extra if q == query) for query in range(n_queries)
    )
    return TrainingSet(
        tuple(f"q{i}" for i in range(n_queries)),
        tuple("d" * (1 + i) for i in range(n_documents)),
        rows,
        blocked,
    )


@given(training_sets(), st.integers(2, 8), st.integers(1, 5), st.integers(0, 3))
def test_every_row_comes_once_an_epoch_and_the_order_is_seeded(
    rows: TrainingSet, batch: int, share: int, epoch: int
) -> None:
    sampler, again = (DocumentBatches(rows, batch, share, seed=1) for _ in range(2))
    sampler.set_epoch(epoch)
    again.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(row for one in batches for row in one) == list(range(len(rows)))
    assert len(batches) == len(sampler)
    assert batches == list(again)


@given(training_sets(), st.integers(2, 8))
def test_what_must_not_be_a_negative_is_masked_and_nothing_else(
    rows: TrainingSet, batch: int
) -> None:
    seen: list[list[str]] = []

    def tokenize(texts: list[str], kind: str) -> dict[str, Any]:
        if kind == "document":
            seen[-1].extend(texts)
        return {"input_ids": torch.zeros(len(texts), 1)}

    collate = Collator(rows, tokenize)
    for positions in DocumentBatches(rows, batch, 3, seed=0):
        seen.append([])
        label = collate([{"row": position} for position in positions])["label"]
        encoded = [seen[-1][i] for i in label["document_order"]]
        assert len(set(encoded)) == len(encoded)  # each text once
        for row, position in enumerate(positions):
            query, positive, _ = rows.rows[position]
            assert encoded[label["target"][row]] == rows.documents[positive]
            for column, text in enumerate(encoded):
                document = rows.documents.index(text)
                assert bool(label["blocked"][row, column]) == (
                    document in rows.blocked[query] and document != positive
                )


@given(training_sets(), st.integers(2, 8), st.integers(0, 5))
def test_few_documents_join_a_batch_as_hard_negatives_alone(
    rows: TrainingSet, batch: int, most: int
) -> None:
    def tokenize(texts: list[str], kind: str) -> dict[str, Any]:
        return {"input_ids": torch.zeros(len(texts), 1)}

    collate = Collator(rows, tokenize, most_negatives=most)
    everything = Collator(rows, tokenize)
    for positions in DocumentBatches(rows, batch, 3, seed=0):
        items = [{"row": position} for position in positions]
        positives = {rows.rows[position][1] for position in positions}
        few = collate(items)["label"]["blocked"].shape[1]
        whole = everything(items)["label"]["blocked"].shape[1]
        assert few == min(whole, len(positives) + most)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=100))
def test_parts_of_similar_length_hold_every_text_once(lengths: list[int]) -> None:
    parts = by_length(lengths)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))


def loss_of(model: Any, rows: TrainingSet, positions: list[int]) -> torch.Tensor:
    encoder = SentenceEncoder(model)
    batch = Collator(rows, encoder.features)([{"row": i} for i in positions])
    names = list(dict.fromkeys(key.split("_")[0] for key in batch if key != "label"))
    features = [
        {
            key.removeprefix(f"{name}_"): value
            for key, value in batch.items()
            if key.startswith(f"{name}_")
        }
        for name in names
    ]
    return RankingLoss(model)(features, batch["label"])


def test_the_loss_is_that_of_sentence_transformers_on_a_clean_batch(tiny_model: Path) -> None:
    rows = toy(20)
    ours, theirs = (SentenceTransformer(str(tiny_model), device="cpu").eval() for _ in range(2))
    loss = loss_of(ours, rows, list(range(20)))
    loss.backward()
    reference = MultipleNegativesRankingLoss(theirs)(
        [theirs.preprocess(list(rows.queries)), theirs.preprocess(list(rows.documents))], None
    )
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), abs=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        if a.grad is not None:
            assert torch.allclose(a.grad, b.grad, atol=1e-5)


def test_a_masked_document_does_not_change_the_loss(tiny_model: Path) -> None:
    texts = ("one thing", "another thing", "a third")
    masked = TrainingSet(
        ("q1", "q2"), texts, ((0, 0, (2,)), (1, 1, ())), (frozenset({0, 2}), frozenset({1, 2}))
    )
    without = TrainingSet(
        ("q1", "q2"), texts, ((0, 0, ()), (1, 1, ())), (frozenset({0}), frozenset({1}))
    )
    model = SentenceTransformer(str(tiny_model), device="cpu").eval()
    assert loss_of(model, masked, [0, 1]).item() == pytest.approx(
        loss_of(model, without, [0, 1]).item(), abs=1e-6
    )


def quick(**changes: Any) -> config.Train:
    return config.Train(
        **{
            "epochs": 3,
            "batch_size": 4,
            "learning_rate": 1e-4,
            "patience": 9,
            "merge_tolerance": 0,
            "anchor_texts": 2,
            **changes,
        }
    )


def toy_score(current: SentenceEncoder, rows: TrainingSet) -> float:
    """How well the toy's own queries find their documents."""
    scores = current.encode(rows.queries, "query") @ current.encode(rows.documents, "document").T
    return float(np.mean(np.log(np.exp(5 * np.diag(scores)) / np.exp(5 * scores).sum(axis=1))))


def train_toy(
    folder: Path, tiny_model: Path, settings: config.Train, judged: list[float] | None = None
) -> tuple[SentenceEncoder, Trained]:
    """Train on the toy set; dev is how well the toy's own queries find their documents."""
    encoder, rows = (
        load_encoder(config.Model(name=str(tiny_model), precision="fp32"), Path()),
        toy(),
    )

    def dev(current: SentenceEncoder) -> float:
        value = toy_score(current, rows)
        if judged is not None:
            judged.append(value)
        return value

    return encoder, train(encoder, rows, dev, Recipe.of(settings, folder))


def weights(encoder: SentenceEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@dataclass(frozen=True)
class Ended:
    """A training that ended, with the weights that it left."""

    weights: dict[str, torch.Tensor]
    trained: Trained

    @classmethod
    def of(cls, encoder: SentenceEncoder, trained: Trained) -> Ended:
        return cls(weights(encoder), trained)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A training that nobody interrupted."""
    return Ended.of(*train_toy(tmp_path_factory.mktemp("whole"), tiny_model, quick()))


@pytest.fixture(scope="module")
def resumed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The same, interrupted at its second checkpoint, and gone on with."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_judge", failing_judge(3))  # before, first checkpoint, the kill
        with pytest.raises(KeyboardInterrupt):
            train_toy(folder, tiny_model, quick())
    (folder / "checkpoint-999").mkdir()  # half-written: must not be trusted
    ended = Ended.of(*train_toy(folder, tiny_model, quick()))
    assert not (folder / "checkpoint-999").exists()
    return ended


def test_training_helps_and_reports_itself(whole: Ended) -> None:
    trained = whole.trained
    dev = trained.summary["dev"]
    assert dev["after"] > dev["before"]
    assert trained.history[0]["step"] == 0
    assert any("loss" in line for line in trained.history)
    assert trained.summary["pairs_per_second"] > 0


def test_a_killed_training_goes_on_to_the_very_same_model(whole: Ended, resumed: Ended) -> None:
    assert resumed.trained.summary["resumed_from"] == "checkpoint-6"
    assert equal(resumed.weights, whole.weights)


def state_of_use(model: Any) -> dict[str, Any]:
    """All that a Trainer may leave behind on a model, but for the weights."""
    tokenizer = model.tokenizer
    return {
        "forwards": [name for name, module in model.named_modules() if "forward" in vars(module)],
        "originals": [n for n, m in model.named_modules() if "_original_forward" in vars(m)],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "training": [module.training for module in model.modules()],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "length": model.max_seq_length,
        "dropouts": [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)],
        "tokenizer": (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token),
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("end", ["finished", "an exception", "an interrupt"])
def test_a_trainer_leaves_nothing_behind_on_the_model(
    tiny_model: Path, tmp_path: Path, precision: Any, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.Model(name=str(tiny_model), precision=precision, device="cpu")
    encoder = load_encoder(settings, Path())
    before = state_of_use(encoder.model)
    if end != "finished":
        error = RuntimeError if end == "an exception" else KeyboardInterrupt
        monkeypatch.setattr(RankingLoss, "forward", failing(error))
        with pytest.raises(error):
            train(encoder, toy(8), None, Recipe.of(quick(epochs=1), tmp_path))
    else:
        train(encoder, toy(8), None, Recipe.of(quick(epochs=1), tmp_path))
    assert state_of_use(encoder.model) == before


def failing(error: type[BaseException]) -> Any:
    """A loss whose second step ends the training."""
    real, calls = RankingLoss.forward, []

    def forward(self: RankingLoss, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return real(self, *arguments)

    return forward


def test_vectors_after_a_bf16_training_are_fp32_where_fp32_is_asked_for(
    tiny_model: Path, tmp_path: Path
) -> None:
    """accelerate left autocast on the model: the saved model then 'was not the trained one'."""
    settings = config.Model(name=str(tiny_model), precision="bf16", device="cpu")
    encoder = load_encoder(settings, Path())
    train(encoder, toy(8), None, Recipe.of(quick(epochs=1), tmp_path / "checkpoints"))
    texts = ["a leak in memory", "path traversal"]
    in_memory = SentenceEncoder(encoder.model, precision="fp32").encode(texts, "document")
    save_model(encoder, tmp_path / "model", settings, Path())
    saved = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert np.allclose(in_memory, saved.encode(texts, normalize_embeddings=True), atol=1e-6)
    again = load_encoder(settings.model_copy(update={"precision": "fp32"}), Path())
    train(again, toy(8), None, Recipe.of(quick(epochs=1), tmp_path / "fp32"))  # no bf16 left over


def test_figures_of_a_resumed_training_are_those_of_the_whole(whole: Ended, resumed: Ended) -> None:
    both = (whole.trained, resumed.trained)
    figures = tuple(trained.summary for trained in both)
    assert len({summary["train_loss"] for summary in figures}) == 1
    assert figures[1]["steps"] == figures[0]["steps"]
    assert figures[1]["training_seconds"] > 0
    assert figures[1]["pairs_per_second"] > 0
    losses = [[line["loss"] for line in trained.history if "loss" in line] for trained in both]
    assert losses[0] == losses[1]


def failing_judge(call: int) -> Any:
    """`_judge`, interrupted at its call of that number."""
    real, calls = module._judge, []

    def judge(encoder: SentenceEncoder, dev_score: Any) -> float:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(encoder, dev_score)

    return judge


@pytest.mark.long
def test_what_follows_a_finished_training_does_not_train_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while merging: the figures and the weights are those of the training that was done."""
    settings = quick(merge_tolerance=0.5)
    whole, expected = train_toy(tmp_path / "whole", tiny_model, settings)
    evaluations = 1 + sum("nDCG@10" in line and line["step"] > 0 for line in expected.history)
    monkeypatch.setattr(module, "_judge", failing_judge(evaluations + 2))
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "killed", tiny_model, settings)
    monkeypatch.undo()
    monkeypatch.setattr(RankingLoss, "forward", lambda *_: pytest.fail("trained again"))
    again, resumed = train_toy(tmp_path / "killed", tiny_model, settings)
    assert equal(weights(again), weights(whole))
    for key in ("train_loss", "steps", "best_step", "dev", "merge"):
        assert resumed.summary[key] == expected.summary[key]
    assert resumed.summary["pairs_per_second"] > 0


@pytest.mark.long
def test_a_resumed_training_stops_as_early_as_an_uninterrupted_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worsening(encoder: SentenceEncoder, dev_score: Any) -> float:
        scores.append(1.0 / (1 + len(scores)))
        if len(scores) == interrupted_at:
            raise KeyboardInterrupt
        return scores[-1]

    monkeypatch.setattr(module, "_judge", worsening)
    settings = quick(patience=2, epochs=9)
    scores, interrupted_at = [], 0
    _, whole = train_toy(tmp_path / "whole", tiny_model, settings)
    scores, interrupted_at = [], 4  # before, first, second without gain, then the kill
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "killed", tiny_model, settings)
    interrupted_at = 0
    _, resumed = train_toy(tmp_path / "killed", tiny_model, settings)
    assert whole.summary["stopped"] == resumed.summary["stopped"] == "early"
    assert resumed.summary["steps"] == whole.summary["steps"]


@pytest.fixture(scope="module")
def static_model(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM's own word embeddings as a static model: real words, quick to train."""
    transformer = SentenceTransformer(str(minilm), device="cpu", local_files_only=True)
    table = transformer.transformers_model.get_input_embeddings().weight.detach().numpy()
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    static = StaticEmbedding(tokenizer, embedding_weights=table)
    folder = tmp_path_factory.mktemp("static") / "model"
    SentenceTransformer(modules=[static], device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.mark.long
def test_a_static_model_learns_with_the_defaults(static_model: Path, tmp_path: Path) -> None:
    encoder, trained = train_toy(tmp_path, static_model, quick(learning_rate=None))
    assert trained.summary["learning_rate"] == optimise.STATIC_LEARNING_RATE
    assert trained.summary["moved"]["moved"]
    assert trained.summary["dev"]["after"] > trained.summary["dev"]["before"]
    base = load_encoder(config.Model(name=str(static_model), precision="fp32"), Path())
    rows = toy()
    found = [
        np.argmax(one.encode(rows.queries, "query") @ one.encode(rows.documents, "document").T, 1)
        for one in (base, encoder)
    ]
    assert (found[0] != found[1]).any()  # the ranking itself changed


def test_a_model_that_did_not_move_is_said_to_have_not_moved(
    static_model: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    class Listener(progress.Silent):
        def message(self, text: str, level: str) -> None:
            said.append(text)

    with progress.listen(Listener()):
        settings = quick(learning_rate=1e-7, merge_tolerance=0.5)
        _, trained = train_toy(tmp_path, static_model, settings)
    assert not trained.summary["moved"]["moved"]
    assert trained.summary["merge"] == {"weight": 1.0, "curve": []}
    assert any("did not move the model" in line and "train.learning_rate" in line for line in said)


def test_the_best_checkpoint_is_restored_whole(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def worse_and_worse(encoder: SentenceEncoder, dev_score: Any) -> float:
        kept.append(weights(encoder))
        return 1.0 / len(kept)

    monkeypatch.setattr(module, "_judge", worse_and_worse)
    encoder, trained = train_toy(tmp_path, tiny_model, quick(patience=1))
    assert trained.summary["stopped"] == "early"
    assert equal(weights(encoder), kept[1])  # after the first epoch; kept[0] is the base model


def test_merging_goes_back_as_far_as_dev_allows(
    tiny_model: Path, whole: Ended, tmp_path: Path
) -> None:
    base = SentenceTransformer(str(tiny_model), device="cpu").state_dict()
    encoder, merged = train_toy(tmp_path, tiny_model, quick(merge_tolerance=1))
    assert merged.summary["merge"]["weight"] == merging.MERGE_WEIGHTS[-1]
    tuned, halfway = whole.weights, weights(encoder)
    name = next(n for n in tuned if n.endswith("attention.self.query.weight"))
    assert torch.allclose(halfway[name], base[name] + 0.5 * (tuned[name] - base[name]), atol=1e-6)


def test_training_leaves_length_dropout_and_gradients_as_they_were(
    tiny_model: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(config.Model(name=str(tiny_model), precision="fp32"), Path())
    dropouts = [
        module.p for module in encoder.model.modules() if isinstance(module, torch.nn.Dropout)
    ]
    train(encoder, toy(), None, Recipe.of(quick(epochs=1, max_seq_length=16), tmp_path))
    assert encoder.model.max_seq_length == 64
    assert [
        module.p for module in encoder.model.modules() if isinstance(module, torch.nn.Dropout)
    ] == dropouts
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())


def test_training_runs_in_bf16_when_asked(tiny_model: Path, tmp_path: Path) -> None:
    encoder = load_encoder(config.Model(name=str(tiny_model), precision="bf16"), Path())
    trained = train(encoder, toy(8), None, Recipe.of(quick(epochs=1), tmp_path))
    assert trained.summary["precision"] == "bf16"
    assert np.isfinite(trained.summary["train_loss"])


def test_the_saved_model_loads_anywhere_with_prompts_pooling_and_length(
    tiny_model: Path, tmp_path: Path
) -> None:
    settings = config.Model(
        name=str(tiny_model),
        query_prompt="query: ",
        document_prompt="passage: ",
        max_seq_length=48,
        precision="fp32",
    )
    encoder = load_encoder(settings, Path())
    train(encoder, toy(8), None, Recipe.of(quick(epochs=1), tmp_path / "checkpoints"))
    save_model(encoder, tmp_path / "model", settings, Path())
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert plain.max_seq_length == 48
    text = ["a leak " * 100]
    assert np.allclose(plain.encode_query(text), encoder.encode(text, "query"), atol=1e-6)
    assert np.allclose(plain.encode_document(text), encoder.encode(text, "document"), atol=1e-6)


def test_the_dev_pool_holds_judged_hard_and_random_documents() -> None:
    corpus = Corpus.from_documents(Document(f"d{i}", f"text {i}") for i in range(100))
    dev = Split("dev", (Query("q", "text"),), {"q": {"d99": 1}})
    pool = dev_pool(
        corpus,
        dev,
        [Run("bm25", {"q": [("d50", 2.0), ("d51", 1.0)]})],
        10,
        np.random.default_rng(0),
    )
    assert {"d99", "d50", "d51"} <= set(pool.ids)
    assert len(pool) == 10
    assert dev_pool(corpus, dev, [], 100, np.random.default_rng(0)) is corpus


def test_examples_by_id_and_by_text_train_together() -> None:
    corpus = Corpus.from_documents(
        [Document("d1", "first"), Document("d2", "second"), Document("d3", "first")]
    )
    examples = [
        Example("d1", query_id="q1", negatives=("d2",)),
        Example("plain positive", query="plain query", negatives=("second",)),
    ]
    rows = build_training_set(
        examples,
        corpus,
        {"q1": Query("q1", "asked")},
        {"q1": {"d1": 1}},
        Duplicates.of([["d1", "d3"]]),
    )
    assert rows.queries == ("asked", "plain query")
    assert rows.documents == ("first", "second", "plain positive")
    assert rows.rows == ((0, 0, (1,)), (1, 2, (1,)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": "q1"}', "needs `positive`"),
        ('{"query_id": "q1", "query": "x", "positive": "d1"}', "one of `query_id` and `query`"),
        ('{"query": "x", "positive": "d1", "negatives": "d2"}', "are lists"),
    ],
)
def test_a_bad_line_of_examples_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"query": "x", "positive": "y"}\n' + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_examples(path)
    assert caught.value.where == f"{path}:2"
