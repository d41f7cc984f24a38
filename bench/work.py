"""One measurement, alone in its process: `speed.py --worker NAME` ends up here.

Names are `encode:nearer`, `encode:peer`, `train:VARIANT` and `train_peer:SAMPLE`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config

BATCH_SIZE, MAX_TOKENS, SCALE = 32, 256, 20.0


@dataclass(frozen=True, slots=True)
class Variant:
    """Training settings of nearer, in words too, and the sample of pairs they are compared on."""

    words: str
    sample: str
    settings: dict[str, Any] = field(default_factory=dict)


_PLAIN: dict[str, Any] = {"queries_per_document": 1}
_OWN_DROPOUT = _PLAIN | {"attention_dropout": None}
_WHOLE_MODEL = _OWN_DROPOUT | {"freeze_word_embeddings": False}
#: Each takes one lever away from the one before, so that neighbours tell what a lever brings.
VARIANTS = {
    "a": Variant("defaults: queries of a document share a batch", "whole"),
    "b": Variant("32 pairs a batch, as the peer", "spread", _PLAIN),
    "c": Variant("… and the model's own attention dropout", "spread", _OWN_DROPOUT),
    "d": Variant("… and word embeddings trained too", "spread", _WHOLE_MODEL),
    "e": Variant("… and no bf16", "spread", _WHOLE_MODEL | {"precision": "fp32"}),
}


def work(name: str, plan_path: Path, seed: int) -> dict[str, Any]:
    """Do what `name` says with the texts of the plan.  Vectors and checkpoints go beside the plan."""
    plan, out = json.loads(plan_path.read_text(encoding="utf-8")), plan_path.parent
    what, _, which = name.partition(":")
    if what == "train":
        return train_nearer(plan, out, VARIANTS[which], seed)
    if what == "train_peer":
        return train_peer(plan, out, which, seed)
    return (encode_nearer if which == "nearer" else encode_peer)(plan, out)


def encode_nearer(plan: dict[str, Any], out: Path) -> dict[str, Any]:
    from nearer.embed.encoder import load_encoder

    encoder = load_encoder(config.Model(name=plan["model"]), Path.cwd())
    texts = plan["documents"]
    tokens = int(np.minimum(encoder.token_counts(texts), encoder.model.max_seq_length).sum())
    encoder.encode(texts[:8], "document")  # threads and kernels wake up
    started = time.perf_counter()
    vectors = encoder.encode(texts, "document")
    seconds = time.perf_counter() - started
    np.save(out / "encode_nearer.npy", vectors)
    return {
        "seconds": seconds,
        "tokens": tokens,
        "precision": encoder.precision.name,
        "reason": encoder.precision.reason,
    }


def encode_peer(plan: dict[str, Any], out: Path) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(plan["model"], local_files_only=True)
    texts = plan["documents"]
    model.encode(texts[:8], show_progress_bar=False)
    started = time.perf_counter()
    vectors = model.encode(texts, batch_size=32, show_progress_bar=False)
    seconds = time.perf_counter() - started
    np.save(out / "encode_peer.npy", vectors)
    return {"seconds": seconds}


def train_nearer(plan: dict[str, Any], out: Path, variant: Variant, seed: int) -> dict[str, Any]:
    from nearer.embed.encoder import load_encoder
    from nearer.training.examples import Duplicates, build_training_set
    from nearer.training.recipe import Recipe
    from nearer.training.trainer import train
    from nearer.types import Example

    pairs = plan["pairs"][variant.sample]
    rows = build_training_set(
        [Example(query=query, positive=document) for query, document in pairs],
        {},
        {},
        {},
        Duplicates(),
    )
    fixed: dict[str, Any] = {
        "epochs": 1,
        "batch_size": BATCH_SIZE,
        "max_seq_length": MAX_TOKENS,
        "scale": SCALE,
        "seed": seed,
    }
    settings = config.Train(**(fixed | variant.settings))
    encoder = load_encoder(
        config.Model(name=plan["model"], precision=settings.precision), Path.cwd()
    )
    encoder.encode([document for _, document in pairs[:8]], "document")
    recipe = Recipe.of(settings, out / f"checkpoints-{os.getpid()}")
    summary = train(encoder, rows, None, recipe).summary
    # seconds are rounded in the summary; its rates come from the exact ones
    seconds = len(rows) / summary["pairs_per_second"]
    tokens = round(summary["tokens_per_second"] * seconds)
    return {
        "seconds": seconds,
        "pairs": len(rows),
        "steps": summary["steps"],
        "tokens": tokens,
        "precision": summary["precision"],
    }


def train_peer(plan: dict[str, Any], out: Path, sample: str, seed: int) -> dict[str, Any]:
    """sentence-transformers' Trainer as it comes, timed where nearer times itself: from step begin to step end."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        seconds = began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds += time.monotonic() - self.began

    pairs = plan["pairs"][sample]
    model = SentenceTransformer(plan["model"], local_files_only=True)
    model.max_seq_length = MAX_TOKENS
    model.encode([document for _, document in pairs[:8]], show_progress_bar=False)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out / f"peer-{os.getpid()}"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH_SIZE,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    watch = Watch()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(
            {
                "anchor": [query for query, _ in pairs],
                "positive": [document for _, document in pairs],
            }
        ),
        loss=MultipleNegativesRankingLoss(model, scale=SCALE),
        callbacks=[watch],
    )
    trainer.train()
    encoded = model.tokenizer(
        [text for pair in pairs for text in pair], truncation=True, max_length=MAX_TOKENS
    )["input_ids"]
    tokens = sum(len(ids) for ids in encoded)
    facts = {
        "pairs": len(pairs),
        "steps": trainer.state.global_step,
        "tokens": tokens,
        "optimizer": str(arguments.optim.value),
    }
    return {"seconds": watch.seconds, "precision": "bf16" if arguments.bf16 else "fp32", **facts}
