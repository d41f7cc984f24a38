"""A reranker trained here: a cross-encoder out of the embedding model's own transformer."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.data.corpus import Corpus
from nearer.embed.declared import declared
from nearer.embed.loading import load_model
from nearer.embed.precision import hardware_has_bf16
from nearer.errors import DataError, ModelError
from nearer.files import disk_errors, read_json, value_hash, write_json
from nearer.search.rerank import CachedReranker, load_reranker
from nearer.shortlist import AUTO
from nearer.training.borrowed import borrowed
from nearer.training.callbacks import silence, watcher_of
from nearer.training.material import TrainingMaterial, UsableDocuments
from nearer.training.methods.frozen import list_of_layers
from nearer.training.modes import training_mode
from nearer.training.time_limit import TimeLimit, limited_by
from nearer.types import Run

Labelled = tuple[str, str, float]  # (query, document, 1 relevant or 0 not)

_BATCH = 8  # small, for many steps: on a CPU larger ones are no faster
_HEAD_RATE = 100  # learning rate of the output layer, as a multiple: its weights are some tens
_VERSION = 2  # of this training: kept rerankers of another one are not used
_CANDIDATES = 30  # hits of each run that negatives are drawn from


def reranker_examples(
    material: TrainingMaterial,
    runs: Sequence[Run],
    settings: config.Rerank,
    rng: np.random.Generator,
) -> list[Labelled]:
    """Judged pairs with `rerank.negatives` irrelevant documents each.

    Those judged 0 come first, then some from the top of `runs` (the first stages' results for the
    training queries); never a known positive or its near-duplicate.  Queries that collide with
    held-out ones are left out.  Of more than `rerank.pairs` pairs every query gives one positive
    before any gives a second.
    """
    usable = UsableDocuments(material)
    queries = material.train.queries
    groups: list[_Group] = []
    for position in rng.permutation(len(queries)):
        query = queries[position]
        if not query.text.strip() or material.collides(query.text):
            continue
        positives = usable.positives(query)
        judged = usable.judged_negatives(query.id)
        candidates = usable.candidates(query.id, runs, _CANDIDATES)
        pool = [doc_id for doc_id in candidates if doc_id not in judged]
        for turn, chosen in enumerate(rng.permutation(len(positives))):
            negatives = _negatives(judged, pool, settings.negatives, rng)
            groups.append(_Group(turn, query.text, positives[chosen], negatives))
    groups.sort(key=lambda group: group.turn)
    return _labelled(groups, material.corpus, settings.pairs)


@dataclass(frozen=True, slots=True)
class _Group:
    """A positive of a query with its negatives; a query's first positive has turn 0."""

    turn: int
    text: str
    positive: str
    negatives: list[str]


def _negatives(
    judged: Sequence[str], pool: Sequence[str], count: int, rng: np.random.Generator
) -> list[str]:
    """`count` documents in random order: those judged 0 first, then candidates."""
    first = [judged[position] for position in rng.permutation(len(judged))[:count]]
    missing = min(count - len(first), len(pool))
    drawn = [pool[position] for position in rng.choice(len(pool), missing, replace=False)]
    return first + drawn


def _labelled(groups: Sequence[_Group], corpus: Corpus, limit: int) -> list[Labelled]:
    """The first `limit` pairs of the groups, with texts in place of ids."""
    pairs: list[tuple[str, str, float]] = []
    for group in groups:
        pairs.append((group.text, group.positive, 1.0))
        pairs += [(group.text, doc_id, 0.0) for doc_id in group.negatives]
    labelled = []
    for text, doc_id, label in pairs[:limit]:
        document = corpus[corpus.position(doc_id)]
        labelled.append((text, document.content, label))
    return labelled


def train_reranker(
    base: Any,
    examples: Sequence[Labelled],
    out: Path,
    settings: config.Rerank,
    *,
    name: str,
    seed: int,
    limit: TimeLimit | None = None,
) -> dict[str, Any]:
    """Train a cross-encoder on labelled pairs and save it in folder `out`; returns how it went.

    `base` is a SentenceTransformer; what is trained starts from a copy of its transformer.  What a
    `limit` leaves of the pairs is not read.
    The same seed gives the same weights on the same machine, as long as no `limit` cuts it short.  `out` appears whole or not at all.
    Raises ModelError for a base without a transformer and when the loss is not finite.
    """
    import transformers

    started = time.monotonic()
    limit = limit or TimeLimit(None)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as scratch:
        unfinished = Path(scratch) / "model"
        transformers.set_seed(seed)
        model = _untrained(base, settings, name)
        loss = _fit(model, examples, settings, Path(scratch) / "trainer", seed, limit)
        if not math.isfinite(loss):
            raise ModelError(
                "the reranker's training loss is not finite",
                where=name,
                next_step="lower rerank.learning_rate",
            )
        with disk_errors(unfinished):
            model.save(str(unfinished), create_model_card=False)
        summary = {
            "pairs": len(examples),
            "pairs_read": min(len(examples), limit.done * _BATCH),
            "cut_short": limit.over,
            "positives": sum(label > 0 for _, _, label in examples),
            "train_loss": round(loss, 6),
            "max_length": model.max_seq_length,
            "seed": seed,
            "seconds": round(time.monotonic() - started, 1),
            "settings": settings.model_dump(mode="json"),
        }
        write_json(unfinished / "training.json", summary)
        if not out.exists():  # another process may have been quicker
            os.rename(unfinished, out)
    return summary


def reranker_of(
    settings: config.Config,
    root: Path,
    cache: Path | None,
    material: TrainingMaterial,
    runs: Callable[[], Sequence[Run]],
) -> CachedReranker | None:
    """The reranker of section `rerank`: none, one to load, or (`train` and `auto`) one trained here.

    Under `auto` its training ends when `rerank.budget` is over.

    A trained one is kept below `cache` under what it was made of, so that every stage and every
    rerun finds it.  `runs` gives the first stages' results for the training queries and is called
    only for that one.  Raises DataError when the training judgments give no examples, and
    ModelError.
    """
    chosen = settings.rerank
    if chosen.model is None:
        return None
    load = partial(
        load_reranker, cache=cache, max_length=chosen.max_length, device=settings.model.device
    )
    if chosen.model not in ("train", AUTO):
        return load(chosen.model, root)
    rng = np.random.default_rng(settings.seed)
    examples = reranker_examples(material, runs(), chosen, rng)
    if len({label for _, _, label in examples}) < 2:
        raise DataError(
            "the training judgments give no pairs to train a reranker on",
            where="rerank.model",
            next_step="set rerank.model to a cross-encoder's folder, or to null",
        )
    base = load_model(settings.model, root)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if cache is None else cache / "rerankers"
        folder = home / _key(base, examples, settings)[:16]
        if not (folder / "training.json").is_file():
            train_reranker(
                base,
                examples,
                folder,
                chosen,
                name=settings.model.name,
                seed=settings.seed,
                limit=TimeLimit(chosen.budget if chosen.automatic else None),
            )
        return load(str(folder.resolve()), root, name=_told(folder, chosen))


def _told(folder: Path, settings: config.Rerank) -> str:
    """What a trained reranker is called: it says where its time was over before its pairs were."""
    trained = read_json(folder / "training.json")
    if not trained.get("cut_short"):
        return "trained here"
    read = trained["pairs_read"]
    progress.info(
        f"the reranker read {read:,} of {trained['pairs']:,} pairs: rerank.budget "
        f"({settings.budget:g} s) was over"
    )
    return f"trained here on {read:,} of {trained['pairs']:,} pairs"


def _key(base: Any, examples: Sequence[Labelled], settings: config.Config) -> str:
    """Hash of everything that a trained reranker is made of, the time that it was given included."""
    unused = {"model", "depth"} if settings.rerank.automatic else {"model", "depth", "budget"}
    return value_hash(
        {
            "base": declared(base),
            "examples": examples,
            "settings": settings.rerank.model_dump(mode="json", exclude=unused),
            "seed": settings.seed,
            "version": _VERSION,
        }
    )


def _untrained(base: Any, settings: config.Rerank, name: str) -> Any:
    """A CrossEncoder over a copy of a SentenceTransformer's transformer.

    Its output layer is the one of `nearer.search.joint`.
    """
    from sentence_transformers import CrossEncoder

    from nearer.search.joint import PairSimilarity

    step = "set rerank.model to a cross-encoder's folder, or to null"
    if base.transformers_model is None or base.tokenizer is None:
        raise ModelError(
            "a reranker can be trained only out of a transformer, and this model has none",
            where=name,
            next_step=step,
        )
    separator = base.tokenizer.sep_token_id
    if separator not in base.tokenizer("a", "b")["input_ids"][1:-1]:
        raise ModelError(
            "a reranker needs a tokenizer that puts a separator between two texts",
            where=name,
            next_step=step,
        )
    body = copy.deepcopy(base[0])
    if settings.layers is not None:
        _keep_layers(body.model, settings.layers, name)
    body.model.config.num_labels = 1
    head = PairSimilarity(body.model.config.hidden_size, separator)
    model = CrossEncoder(modules=[body, head], device=base.device.type)
    model.max_seq_length = min(
        settings.max_length,
        getattr(body.model.config, "max_position_embeddings", settings.max_length),
    )
    return model


def _keep_layers(transformer: Any, count: int, name: str) -> None:
    """Leave a transformer its first layers.  Raises ModelError where they are not found."""
    layers = list_of_layers(transformer)
    if layers is None:
        raise ModelError(
            "the layers of this model are not found",
            where=name,
            next_step="set rerank.layers to null",
        )
    before = len(layers)
    del layers[count:]
    settings = transformer.config
    settings.num_hidden_layers = len(layers)
    for setting, value in settings.to_dict().items():
        if isinstance(value, list) and len(value) == before:  # one entry a layer
            setattr(settings, setting, value[:count])


def _fit(
    model: Any,
    examples: Sequence[Labelled],
    settings: config.Rerank,
    folder: Path,
    seed: int,
    limit: TimeLimit,
) -> float:
    """Train in place; returns the mean loss."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    queries, documents, labels = map(list, zip(*examples, strict=True))
    lengths = [len(query) + len(document) for query, document, _ in examples]
    steps = max(1, math.ceil(math.ceil(len(examples) / _BATCH) * settings.epochs))
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=_BATCH,
        learning_rate=settings.learning_rate,
        learning_rate_mapping={r"^model\.1\.": _HEAD_RATE * settings.learning_rate},
        warmup_steps=math.ceil(steps * 0.1),
        bf16=hardware_has_bf16(model.device.type),
        use_cpu=model.device.type == "cpu",
        save_strategy="no",
        seed=seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=model.device.type == "cuda",
    )
    what = f"train a reranker on {len(examples)} pairs"
    with (
        training_mode(model, config.Train(), model.max_seq_length),
        progress.task(what, steps, "steps") as bar,
    ):
        trainer = _trainer_class(lengths, limit)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"query": queries, "document": documents, "label": labels}
            ),
            loss=BinaryCrossEntropyLoss(model),
            callbacks=[watcher_of(bar), limited_by(limit)],
        )
        silence(trainer)
        with borrowed(model):
            return float(trainer.train().training_loss)


def _trainer_class(lengths: Sequence[int], limit: TimeLimit) -> Any:
    """sentence-transformers' Trainer with batches of pairs of similar length, and the schedule of a limit."""
    import torch
    from sentence_transformers.cross_encoder import CrossEncoderTrainer
    from transformers.trainer_pt_utils import get_length_grouped_indices

    class Batches:
        batch_size, drop_last = _BATCH, False

        def __init__(self, generator: Any) -> None:
            self._generator = generator

        def __len__(self) -> int:
            return math.ceil(len(lengths) / _BATCH)

        def __iter__(self) -> Iterator[list[int]]:
            order = get_length_grouped_indices(lengths, _BATCH, generator=self._generator)
            # Batches are shuffled: otherwise the longest texts would always come first.
            for batch in torch.randperm(len(self), generator=self._generator).tolist():
                yield order[batch * _BATCH : (batch + 1) * _BATCH]

    class Trainer(CrossEncoderTrainer):  # type: ignore[misc,unused-ignore]
        def get_batch_sampler(self, *_: Any, generator: Any = None, **__: Any) -> Any:
            return Batches(generator)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            """As the Trainer's own without a limit; with one, the rate also falls with the time."""
            if limit.seconds is None:
                return super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: limit.rate(step, num_training_steps)
            )
            return self.lr_scheduler

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """None: no card is written."""

    return Trainer
