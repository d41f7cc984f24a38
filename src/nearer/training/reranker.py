"""A reranker trained here: a cross-encoder out of the embedding model's own transformer."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.embed.declared import declared
from nearer.embed.loading import load_model
from nearer.embed.precision import hardware_has_bf16
from nearer.errors import DataError, ModelError
from nearer.files import disk_errors, value_hash, write_json
from nearer.search.rerank import CachedReranker, load_reranker
from nearer.training.borrowed import borrowed
from nearer.training.examples import Duplicates, known_positives
from nearer.training.mining import judged_negatives, pool_of, unusable
from nearer.training.modes import training_mode
from nearer.training.trainer import watcher_of
from nearer.types import Run, Split

Labelled = tuple[str, str, float]  # (query, document, 1 relevant or 0 not)

_BATCH = 8  # small, for many steps: on a CPU larger ones are no faster
_HEAD_RATE = 100  # learning rate of the output layer, as a multiple: its weights are some tens
_VERSION = 2  # of this training: kept rerankers of another one are not used
_CANDIDATES = 30  # hits of each run that negatives are drawn from


def reranker_examples(  # noqa: PLR0913 - what it may look at is listed one by one, as in mining
    train: Split,
    corpus: Any,
    runs: Sequence[Run],
    *,
    negatives: int,
    limit: int,
    rng: np.random.Generator,
    duplicates: Duplicates,
    collides: Callable[[str], str | None],
    min_grade: int = 1,
) -> list[Labelled]:
    """Judged pairs with `negatives` others each: those judged 0, then from the top of `runs` (the first stages' results for `train`).

    Never a known positive or its near-duplicate; queries that collide with held-out ones (the
    guard's `collides`) are left out.  Of more than `limit` pairs every query gives one positive
    before any gives a second.
    """
    known = known_positives(train.judgments, duplicates)
    mining = config.Mine(candidates=_CANDIDATES)
    seen: set[tuple[str, str]] = set()
    groups: list[tuple[int, str, list[tuple[str, float]]]] = []
    for place in rng.permutation(len(train.queries)):
        query = train.queries[place]
        if not query.text.strip() or collides(query.text):
            continue
        positives = [
            doc_id
            for doc_id in train.relevant(query.id, min_grade)
            if not unusable(query.text, doc_id, corpus, seen)
        ]
        never = known.get(query.id, frozenset())
        refused = judged_negatives(train, query.id, never, corpus, Counter())
        found = pool_of(query.id, runs, mining, never, corpus, Counter())
        pool = [doc_id for doc_id in found if doc_id not in refused]
        for turn, chosen in enumerate(rng.permutation(len(positives))):
            judged = [refused[i] for i in rng.permutation(len(refused))[:negatives]]
            more = min(negatives - len(judged), len(pool))
            drawn = [pool[i] for i in rng.choice(len(pool), more, replace=False)]
            labelled = [(positives[chosen], 1.0)]
            labelled += [(doc_id, 0.0) for doc_id in (*judged, *drawn)]
            groups.append((turn, query.text, labelled))
    groups.sort(key=lambda group: group[0])
    pairs = [(text, doc_id, label) for _, text, group in groups for doc_id, label in group][:limit]
    return [(text, corpus.get(doc_id).content, label) for text, doc_id, label in pairs]


def train_reranker(
    base: Any,
    examples: Sequence[Labelled],
    out: Path,
    settings: config.Rerank,
    *,
    name: str,
    seed: int,
) -> dict[str, Any]:
    """Train a cross-encoder on labelled pairs and save it in folder `out`; returns how it went.

    `base` is a SentenceTransformer; what is trained starts from a copy of its transformer.
    The same seed gives the same weights on the same machine.  `out` appears whole or not at all.
    Raises ModelError for a base without a transformer and when the loss is not finite.
    """
    import transformers

    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as scratch:
        made = Path(scratch) / "made"
        transformers.set_seed(seed)
        model = _untrained(base, settings, name)
        loss = _fit(model, examples, settings, Path(scratch) / "trainer", seed)
        if not math.isfinite(loss):
            raise ModelError(
                "the reranker's training loss is not finite",
                where=name,
                next_step="lower rerank.learning_rate",
            )
        with disk_errors(made):
            model.save(str(made), create_model_card=False)
        positives = sum(label > 0 for _, _, label in examples)
        summary = {
            "pairs": len(examples),
            "positives": positives,
            "train_loss": round(loss, 6),
            "max_length": model.max_seq_length,
        }
        summary |= {
            "seed": seed,
            "seconds": round(time.monotonic() - started, 1),
            "settings": settings.model_dump(mode="json"),
        }
        write_json(made / "training.json", summary)
        if not out.exists():  # another process may have been quicker
            os.rename(made, out)
    return summary


def reranker_of(  # noqa: PLR0913 - the same, and where things lie
    settings: config.Config,
    root: Path,
    cache: Path | None,
    *,
    train: Split,
    corpus: Any,
    runs: Callable[[], Sequence[Run]],
    duplicates: Duplicates,
    collides: Callable[[str], str | None],
    rng_seed: int,
) -> CachedReranker | None:
    """The reranker of section `rerank`: none, one to load, or (`model: train`) one trained here.

    A trained one is kept below `cache` under what it was made of, so that every stage and every
    rerun finds it.  `runs` gives the first stages' results for `train` and is called only for that one.
    Raises DataError when the training judgments give no examples, and ModelError.
    """
    chosen = settings.rerank
    if chosen.model is None:
        return None
    shared: dict[str, Any] = {
        "cache": cache,
        "max_length": chosen.max_length,
        "device": settings.model.device,
    }
    if chosen.model != "train":
        return load_reranker(chosen.model, root, **shared)
    examples = reranker_examples(
        train,
        corpus,
        runs(),
        negatives=chosen.negatives,
        limit=chosen.pairs,
        rng=np.random.default_rng(rng_seed),
        duplicates=duplicates,
        collides=collides,
        min_grade=settings.data.min_grade,
    )
    if len({label for _, _, label in examples}) < 2:
        step = "set rerank.model to a cross-encoder's folder, or to null"
        raise DataError(
            "the training judgments give no pairs to train a reranker on",
            where="rerank.model",
            next_step=step,
        )
    base = load_model(settings.model, root)
    with tempfile.TemporaryDirectory() as scratch:
        made_of = chosen.model_dump(mode="json", exclude={"model", "depth"})
        key = value_hash(
            {
                "base": declared(base),
                "examples": examples,
                "settings": made_of,
                "seed": rng_seed,
                "version": _VERSION,
            }
        )
        folder = (cache / "rerankers" if cache is not None else Path(scratch)) / key[:16]
        if not (folder / "training.json").is_file():
            train_reranker(base, examples, folder, chosen, name=settings.model.name, seed=rng_seed)
        return load_reranker(str(folder.resolve()), root, name="trained here", **shared)


def _untrained(base: Any, settings: config.Rerank, name: str) -> Any:
    """A CrossEncoder over a copy of the transformer of a SentenceTransformer, with the output layer of `joint`."""
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
    body.model.config.num_labels = 1
    head = PairSimilarity(body.model.config.hidden_size, separator)
    model = CrossEncoder(modules=[body, head], device=base.device.type)
    model.max_seq_length = min(
        settings.max_length,
        getattr(body.model.config, "max_position_embeddings", settings.max_length),
    )
    return model


def _fit(
    model: Any, examples: Sequence[Labelled], settings: config.Rerank, folder: Path, seed: int
) -> float:
    """Train in place; returns the mean loss."""
    import transformers
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    queries, documents, labels = map(list, zip(*examples, strict=True))
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
        trainer = _trainer_class([len(query) + len(document) for query, document, _ in examples])(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"query": queries, "document": documents, "label": labels}
            ),
            loss=BinaryCrossEntropyLoss(model),
            callbacks=[watcher_of(bar)],
        )
        for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
            trainer.remove_callback(callback)
        with borrowed(model):
            return float(trainer.train().training_loss)


def _trainer_class(lengths: Sequence[int]) -> Any:
    """sentence-transformers' Trainer with batches of pairs of similar length."""
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
            for batch in torch.randperm(
                len(self), generator=self._generator
            ).tolist():  # else long texts always come first
                yield order[batch * _BATCH : (batch + 1) * _BATCH]

    class Trainer(CrossEncoderTrainer):  # type: ignore[misc,unused-ignore]
        def get_batch_sampler(self, *_: Any, generator: Any = None, **__: Any) -> Any:
            return Batches(generator)

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """None: no card is written."""

    return Trainer
