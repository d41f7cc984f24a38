"""What can be trained beside all weights: it saves whole, loads anywhere, and dev chooses fairly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

import nearer
from nearer import config
from nearer.embed.adapter import (
    AdaptedEncoder,
    QueryAdapter,
    save_adapter,
    with_saved_adapter,
)
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ConfigError, FingerprintError, ModelError
from nearer.stages.train import FineTuned, save_model
from nearer.training.examples import TrainingSet
from nearer.training.merging import _load
from nearer.training.methods import candidates as candidates_module
from nearer.training.methods import frozen
from nearer.training.methods.adapters import fit_adapter
from nearer.training.methods.contest import ALL, NONE, Entry, choose
from nearer.training.methods.frozen import LowerOutputs, layers_of, upper_layers
from nearer.training.methods.job import Candidate, Job
from nearer.training.methods.lora import low_rank_changes
from nearer.training.methods.naming import parse
from nearer.training.methods.nudge import nudge
from nearer.training.methods.query_side import fixed_documents
from nearer.training.methods.seeds import WeightAverage
from nearer.training.methods.towers import with_query_adapter, with_query_tower
from nearer.training.methods.vectors import VectorTask, reciprocal_ranks
from nearer.training.recipe import Recipe
from nearer.training.trainer import train

TEXTS = ["a leak in memory", "path traversal " * 30, "weak password", "a race"]


def examples(n: int = 24) -> TrainingSet:
    """Each query names the number of its document, in other words than the document does."""
    documents = tuple(f"weakness {number}: buffer, path or script {number}" for number in range(n))
    queries = tuple(f"report about case {number} of the scanner" for number in range(n))
    rows = tuple((number, number, ()) for number in range(n))
    return TrainingSet(queries, documents, rows, tuple(frozenset({i}) for i in range(n)))


def encoder_of(model: Path) -> SentenceEncoder:
    return load_encoder(config.Model(name=str(model), precision="fp32"), Path())


def quick(**changes: Any) -> config.Train:
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "merge_tolerance": 0,
        "learning_rate": 1e-3,
        "anchor_texts": 2,
    }
    return config.Train(**{**settings, **changes})


def turned(dimension: int = 16, n: int = 60) -> VectorTask:
    """Queries that are their documents turned by one fixed rotation, and a little noise."""
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(n, dimension)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    half = 0.14 * rng.normal(size=(dimension, dimension))
    turn = half - half.T
    rotation = np.linalg.solve(np.eye(dimension) - turn, np.eye(dimension) + turn)
    queries = documents[np.repeat(np.arange(n), 4)] @ rotation.T.astype(np.float32)
    queries = queries + 0.05 * rng.normal(size=queries.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    pairs = np.stack([np.arange(4 * n), np.repeat(np.arange(n), 4)], axis=1)
    blocked = tuple(frozenset({int(document)}) for document in pairs[:, 1])
    return VectorTask(queries.astype(np.float32), documents, pairs, blocked)


# -- over fixed vectors ---------------------------------------------------------------------------


def test_a_linear_adapter_learns_a_rotation_and_documents_stay() -> None:
    task = turned()
    before = task.documents.copy()
    fitted = fit_adapter(task, 20.0, seed=1)
    assert fitted.epochs > 0
    assert fitted.after.seen > fitted.before.seen + 0.2
    assert fitted.after.unseen > fitted.before.unseen + 0.2  # the rotation holds for all documents
    assert np.array_equal(task.documents, before)
    again = fit_adapter(task, 20.0, seed=1)
    assert np.array_equal(again.adapter.weight, fitted.adapter.weight)


def test_an_adapter_of_labels_without_meaning_does_no_harm() -> None:
    task = turned()
    rng = np.random.default_rng(3)
    pairs = np.stack([task.pairs[:, 0], rng.permutation(task.pairs[:, 1])], axis=1)
    blocked = tuple(frozenset({int(document)}) for document in pairs[:, 1])
    shuffled = VectorTask(task.queries, task.documents, pairs, blocked)
    fitted = fit_adapter(shuffled, 20.0, seed=1)
    assert fitted.after.unseen >= fitted.before.unseen - 0.02


def test_too_few_queries_leave_queries_and_documents_as_they_are() -> None:
    task = turned(n=2)
    fitted = fit_adapter(task, 20.0, seed=1)
    assert fitted.epochs == 0
    assert np.allclose(fitted.adapter(task.queries), task.queries, atol=1e-6)
    assert nudge(task, np.random.default_rng(0)).moved == 0


def test_nudge_moves_only_documents_with_queries_by_at_most_the_bound() -> None:
    task = turned()
    untouched = np.random.default_rng(5).normal(size=(7, 16)).astype(np.float32)
    untouched /= np.linalg.norm(untouched, axis=1, keepdims=True)
    wider = VectorTask(
        task.queries, np.concatenate([task.documents, untouched]), task.pairs, task.blocked
    )
    nudged = nudge(wider, np.random.default_rng(0))
    moves = np.linalg.norm(nudged.documents - wider.documents, axis=1)
    assert nudged.bound > 0
    assert moves[:60].max() <= nudged.bound + 1e-5
    assert nudged.moved == 60
    assert not moves[60:].any()
    assert np.allclose(np.linalg.norm(nudged.documents, axis=1), 1.0, atol=1e-5)


def test_dot_products_move_documents_by_the_bound_itself() -> None:
    task = turned()
    longer = VectorTask(task.queries, 3.0 * task.documents, task.pairs, task.blocked, cosine=False)
    nudged = nudge(longer, np.random.default_rng(0))
    moves = np.linalg.norm(nudged.documents - longer.documents, axis=1)
    assert np.allclose(moves[moves > 0], nudged.bound, atol=1e-4)


def test_ranks_leave_out_what_is_never_a_negative() -> None:
    scores = np.array([[0.9, 0.8, 0.7]])
    blocked = np.array([[True, False, False]])
    assert reciprocal_ranks(scores, np.array([2]), blocked).tolist() == [0.5]
    assert reciprocal_ranks(scores, np.array([2]), np.zeros((1, 3), bool))[0] == pytest.approx(
        1 / 3
    )


# -- saved and read back --------------------------------------------------------------------------


def some_adapter(dimension: int, cosine: bool = True) -> QueryAdapter:
    rng = np.random.default_rng(2)
    weight = np.eye(dimension) + 0.1 * rng.normal(size=(dimension, dimension))
    bias = 0.05 * rng.normal(size=dimension)
    return QueryAdapter(weight.astype(np.float32), bias.astype(np.float32), cosine)


def assert_saves_whole(encoder: SentenceEncoder, folder: Path) -> SentenceTransformer:
    """Saved, `SentenceTransformer(folder)` gives the same vectors for both kinds of text."""
    save_model(encoder, folder, config.Model(name="base", precision="fp32"), Path())
    saved = SentenceTransformer(str(folder), device="cpu")
    for kind, encode in (("query", saved.encode_query), ("document", saved.encode_document)):
        ours = encoder.without_cache().encode(TEXTS, kind)  # type: ignore[arg-type]
        assert np.allclose(encode(TEXTS, normalize_embeddings=True), ours, atol=1e-5)
    return saved


def test_a_query_adapter_is_saved_as_a_router_that_loads_anywhere(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = encoder_of(tiny_model)
    adapter = some_adapter(base.dimension)
    adapted = with_query_adapter(base, adapter)
    saved = assert_saves_whole(adapted, tmp_path / "model")
    assert np.allclose(saved.encode_document(TEXTS), base.encode(TEXTS, "document"), atol=1e-6)
    assert np.allclose(saved.encode_query(TEXTS), adapter(base.encode(TEXTS, "query")), atol=1e-5)
    again = encoder_of(tmp_path / "model")
    assert not again.fingerprint.differences(adapted.fingerprint)
    assert again.fingerprint.differences(base.fingerprint)
    weights = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*.safetensors"))
    alone = sum(path.stat().st_size for path in tiny_model.rglob("*.safetensors"))
    assert weights < 1.1 * alone  # what both routes share is saved once


def test_the_fingerprint_sees_the_adapter_alone(tiny_model: Path) -> None:
    base = encoder_of(tiny_model)
    one = with_query_adapter(base, some_adapter(base.dimension)).fingerprint
    adapter = some_adapter(base.dimension)
    other = QueryAdapter(adapter.weight, adapter.bias + np.float32(0.01), True)
    assert one.differences(with_query_adapter(base, other).fingerprint)


def static_folder(minilm: Path, folder: Path) -> Path:
    transformer = SentenceTransformer(str(minilm), device="cpu", local_files_only=True)
    table = transformer.transformers_model.get_input_embeddings().weight.detach().numpy()[:, :64]
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    static = StaticEmbedding(tokenizer, embedding_weights=np.ascontiguousarray(table))
    SentenceTransformer(modules=[static], device="cpu").save(str(folder), create_model_card=False)
    return folder


def test_a_static_model_takes_an_adapter_and_a_query_tower(minilm: Path, tmp_path: Path) -> None:
    base = encoder_of(static_folder(minilm, tmp_path / "static"))
    assert_saves_whole(with_query_adapter(base, some_adapter(64)), tmp_path / "adapted")
    tuned = encoder_of(tmp_path / "static")
    with torch.no_grad():
        tuned.model[0].embedding.weight += 0.5
    assert_saves_whole(with_query_tower(base, tuned.model), tmp_path / "towers")


def test_a_model_in_the_format_of_model2vec_is_read_and_trains(
    minilm: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = static_folder(minilm, tmp_path / "model2vec")
    [weights] = folder.rglob("*.safetensors")
    [table] = load_file(weights).values()
    save_file({"embeddings": table.astype(np.float16)}, weights)
    encoder = encoder_of(folder)
    settings = quick(learning_rate=None)
    trained = train(encoder, examples(), None, Recipe.of(settings, tmp_path / "checkpoints"))
    assert trained.summary["moved"]["moved"]
    assert_saves_whole(encoder, tmp_path / "model")


class OnlyText:
    """An encoder as an API has it: texts in, vectors out.  Behind it stands a real model."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder

    def encode(self, texts: Sequence[str], kind: Literal["query", "document"]) -> np.ndarray:
        return self._encoder.encode(texts, kind)


def test_an_adapter_is_learned_from_anything_that_gives_vectors(tiny_model: Path) -> None:
    encoder = encoder_of(tiny_model)
    task = VectorTask.of(OnlyText(encoder), examples(40))
    same = VectorTask.of(encoder, examples(40))
    adapter = fit_adapter(task, 20.0, seed=1).adapter
    assert np.array_equal(adapter.weight, fit_adapter(same, 20.0, seed=1).adapter.weight)


def test_a_saved_adapter_refuses_another_encoder_and_changed_weights(
    tiny_model: Path, minilm: Path, tmp_path: Path
) -> None:
    base = encoder_of(tiny_model)
    adapter = some_adapter(base.dimension)
    folder = tmp_path / "adapter"
    assert with_saved_adapter(base, folder) is base
    save_adapter(adapter, base.fingerprint, folder)
    adapted = with_saved_adapter(base, folder)
    assert adapted.fingerprint.differences(base.fingerprint)
    assert not adapted.fingerprint.differences(AdaptedEncoder(base, adapter).fingerprint)
    assert np.array_equal(adapted.encode(TEXTS, "query"), adapter(base.encode(TEXTS, "query")))
    assert np.array_equal(adapted.encode(TEXTS, "document"), base.encode(TEXTS, "document"))
    with pytest.raises(FingerprintError):
        with_saved_adapter(encoder_of(minilm), folder)
    identity = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(identity | {"hash": "0" * 32}))
    with pytest.raises(ModelError, match="was changed"):
        with_saved_adapter(base, folder)
    (folder / "adapter.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        with_saved_adapter(base, folder)


# -- parts of a transformer -----------------------------------------------------------------------


def weights_of(encoder: SentenceEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_upper_layers_train_on_remembered_outputs_of_the_lower_ones(
    tiny_model: Path, tmp_path: Path
) -> None:
    encoder = encoder_of(tiny_model)
    before = weights_of(encoder)
    trainable = [parameter.requires_grad for parameter in encoder.model.parameters()]
    with upper_layers(encoder, 1):
        train(encoder, examples(), None, Recipe.of(quick(), tmp_path / "remembered"))
        inside = encoder.without_cache().encode(TEXTS, "document")
    assert [parameter.requires_grad for parameter in encoder.model.parameters()] == trainable
    assert {name.split("layer.")[1][0] for name in changed(before, weights_of(encoder))} == {"1"}
    # What is judged on remembered outputs is what the whole model gives.
    assert np.allclose(inside, encoder.encode(TEXTS, "document"), atol=2e-3)
    assert_saves_whole(encoder, tmp_path / "model")


def test_remembered_outputs_train_as_computed_ones_do(tiny_model: Path, tmp_path: Path) -> None:
    base, remembered, computed = (encoder_of(tiny_model) for _ in range(3))
    for encoder in (remembered, computed):
        for module in encoder.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # frozen layers that are remembered have none to draw
    with upper_layers(remembered, 1):
        train(remembered, examples(), None, Recipe.of(quick(), tmp_path / "remembered"))
    with frozen._frozen(computed.model, layers_of(computed.model)[1:]):
        train(computed, examples(), None, Recipe.of(quick(), tmp_path / "computed"))

    def distance(left: SentenceEncoder, right: SentenceEncoder) -> float:
        products = left.encode(TEXTS, "document") * right.encode(TEXTS, "document")
        return float(1.0 - products.sum(axis=1).mean())

    # Two-byte numbers make a small difference; training made a large one.
    assert distance(remembered, computed) < 0.1 * distance(remembered, base)


def test_each_text_goes_through_the_lower_layers_once_up_to_the_bound(tiny_model: Path) -> None:
    encoder = encoder_of(tiny_model)
    lower = layers_of(encoder.model)[:1]
    plain = encoder.encode(TEXTS, "document")
    remembered = LowerOutputs(encoder, lower)
    with remembered.attached():
        for _ in range(3):
            assert np.allclose(encoder.encode(TEXTS, "document"), plain, atol=2e-3)
        assert remembered.computed == len(TEXTS)
        assert remembered.kept_bytes > 0
    bounded = LowerOutputs(encoder, lower, most_bytes=0)
    with bounded.attached():
        for _ in range(2):
            assert np.allclose(encoder.encode(TEXTS, "document"), plain, atol=2e-3)
        assert bounded.computed == 2 * len(TEXTS)
        assert bounded.kept_bytes == 0
    assert "forward" not in vars(lower[0])
    assert np.array_equal(encoder.encode(TEXTS, "document"), plain)


def test_layers_that_are_not_there_are_refused(
    tiny_model: Path, minilm: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has 2 layers"), upper_layers(encoder_of(tiny_model), 2):
        pass
    static = encoder_of(static_folder(minilm, tmp_path / "static"))
    with pytest.raises(ConfigError, match="one transformer"), upper_layers(static, 1):
        pass
    with pytest.raises(ConfigError, match="needs a transformer"), low_rank_changes(static.model, 4):
        pass


def test_lora_is_merged_into_a_plain_model(tiny_model: Path, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_model)
    before = weights_of(encoder)
    with low_rank_changes(encoder.model, 4):
        trained = train(
            encoder, examples(), lambda current: 0.5, Recipe.of(quick(), tmp_path / "checkpoints")
        )
        inside = encoder.without_cache().encode(TEXTS, "document")
    assert trained.summary["moved"]["moved"]
    after = weights_of(encoder)
    names = changed(before, after)
    assert names
    assert all("layer." in name and name.endswith("weight") for name in names)
    assert np.allclose(inside, encoder.encode(TEXTS, "document"), atol=1e-5)
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())
    assert_saves_whole(encoder, tmp_path / "model")


def test_half_of_the_way_is_half_of_the_change_for_lora_too(tiny_model: Path) -> None:
    """The merged weight is W + w·(B·A): were both factors halved, a quarter would be left."""
    name = "encoder.layer.1.attention.self.query.weight"
    weights: dict[float, torch.Tensor] = {}
    for share in (0.0, 0.5, 1.0):
        model = encoder_of(tiny_model).model
        with low_rank_changes(model, 4):
            base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            _load(model, base, dict(model.state_dict()), share)
        (key,) = [key for key in model.state_dict() if key.endswith(name)]
        weights[share] = model.state_dict()[key]
    own = encoder_of(tiny_model).model.state_dict()[key]
    assert torch.equal(weights[0.0], own)
    change = weights[1.0] - own
    assert float(change.abs().max()) > 1e-2
    assert torch.allclose(weights[0.5], own + 0.5 * change, atol=1e-6)


def test_a_query_tower_trains_against_documents_that_stay(tiny_model: Path, tmp_path: Path) -> None:
    base, encoder = encoder_of(tiny_model), encoder_of(tiny_model)
    rows = examples()
    with fixed_documents(encoder, base):
        train(encoder, rows, None, Recipe.of(quick(), tmp_path / "checkpoints"))
        fixed = encoder.without_cache().encode(rows.documents, "document")
    assert np.allclose(fixed, base.encode(rows.documents, "document"), atol=1e-6)
    assert "forward" not in vars(encoder.model)
    both = with_query_tower(base, encoder.model)
    assert_saves_whole(both, tmp_path / "model")
    assert np.allclose(both.encode(TEXTS, "document"), base.encode(TEXTS, "document"), atol=1e-6)
    assert not np.allclose(both.encode(TEXTS, "query"), base.encode(TEXTS, "query"), atol=1e-2)


def test_the_average_of_seeds_keeps_what_did_not_train_to_the_last_bit(tiny_model: Path) -> None:
    average = WeightAverage()
    before = weights_of(encoder_of(tiny_model))
    name = next(name for name in before if name.endswith("attention.self.query.weight"))
    for step in (0.1, 0.2, 0.6):
        encoder = encoder_of(tiny_model)
        with torch.no_grad():
            encoder.model.get_parameter(name).add_(step)
        average.add(encoder.model)
    averaged = average.applied_to(encoder)
    assert changed(before, weights_of(averaged)) == {name}
    assert torch.allclose(weights_of(averaged)[name], before[name] + 0.3, atol=1e-6)
    assert not torch.equal(weights_of(encoder)[name], weights_of(averaged)[name])


# -- dev chooses ----------------------------------------------------------------------------------


def entry(name: str, scores: Sequence[float], **more: Any) -> Entry:
    return Entry(name, 1.0, ALL, 10, np.array(scores), **more)


def test_the_best_trained_candidate_is_taken_and_the_first_of_equal_ones() -> None:
    low, high = entry("full", [0.4] * 50), entry("top:3", [0.5] * 50)
    assert choose([low, high], [], seed=1).entry is high
    assert choose([low, entry("lora", [0.4] * 50)], [], seed=1).entry is low


def test_the_model_that_is_taken_is_the_one_that_the_table_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Entry("full", 1.0, ALL, 1, np.array([0.1, 0.2, 0.3]))
    equal = Entry("top:3", 1.0, ALL, 1, np.array([0.1, 0.2, 0.3 + 3e-12]))  # but for rounding
    made = {entry.name: Candidate(entry, cast(Any, entry.name), [], {}) for entry in (first, equal)}
    monkeypatch.setattr(candidates_module, "train_weights", lambda _, method: made[method.name])
    methods = [parse(name) for name in made]
    settings = config.build({}).train
    job = cast(Job, SimpleNamespace(settings=settings, methods=methods))
    best, trained, models = candidates_module._trained(job, None)
    assert best.entry is choose(trained, [], seed=1).entry
    assert list(models) == ["full", "top:3"]


def test_a_reference_is_taken_only_for_more_than_chance_and_never_without_a_model() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.6, 200)
    trained = entry("full", scores)
    lucky = entry("linear", scores + rng.normal(0.005, 0.2, 200).clip(-0.2, 0.2), reference=True)
    better = entry("linear", scores + 0.3, reference=True)
    no_model = entry("nudge", scores + 0.4, reference=True, model=False)
    assert choose([trained], [lucky], seed=1).entry is trained
    assert choose([trained], [better, no_model], seed=1).entry is better
    assert choose([trained], [no_model], seed=1).entry is trained


def test_names_of_methods_are_read_and_others_are_refused() -> None:
    assert parse("top:3").size == 3
    assert parse("lora").size == 16
    assert parse("query").reindex == parse("linear").reindex == NONE
    assert parse("top:3").reindex == ALL
    for name in ("top", "top:0", "lora:x", "everything"):
        with pytest.raises(ConfigError, match=r"use full, top:3"):
            config.build({"train": {"candidates": [name]}})


def project_of(data: Path, model: Path, **train: Any) -> nearer.Project:
    settings = {"epochs": 1, "batch_size": 8, "dev_documents": 60, **train}
    settings |= {"general": None, "merge_tolerance": 0, "max_seq_length": 32, "anchor_texts": 2}
    return nearer.load(data, model=str(model), train=settings, evaluate={"resamples": 1000})


@pytest.mark.long
def test_references_run_beside_the_training_and_stand_in_one_table(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    project = project_of(small_data, tiny_model, candidates=["full", "query"], seeds=2)
    mined = nearer.mine(project)
    tuned = nearer.train(project, mined.examples)
    tuned.save(tmp_path)
    table = json.loads((tmp_path / "candidates.json").read_text())
    rows = {row["name"]: row for row in table["candidates"]}
    assert list(rows) == ["full", "query", "linear", "nudge"]
    assert [name for name, row in rows.items() if row["chosen"]] == [table["chosen"]]
    for row in rows.values():
        assert row["dev"]["n"] == table["queries"]["all"]
        assert row["dev"]["gain"] == pytest.approx(row["dev"]["after"] - row["dev"]["before"])
        assert row["seconds"] >= 0
        assert row["size_bytes"] > 0
    assert rows["full"]["reindex"] == ALL
    assert rows["linear"]["reindex"] == rows["query"]["reindex"] == NONE
    assert rows["nudge"]["documents_moved"] > 0
    assert len(rows["full"]["seeds"]["scores"]) == 2
    assert tuned.summary["seeds"] in (1, 2)
    assert "linear (reference)" in str(FineTuned.load(tmp_path))


@pytest.mark.long
def test_an_adapter_can_be_the_model_that_is_asked_for(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    project = project_of(small_data, tiny_model, method="linear")
    tuned = nearer.train(project, nearer.mine(project).examples)
    tuned.save(tmp_path)
    assert tuned.summary["method"] == "linear"
    saved = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert saved.encode_query(TEXTS).shape == (len(TEXTS), 384)
    decision = nearer.decide(project, trained=tuned)
    assert decision.verdict
