"""What a build costs beyond its encoder, how much memory it takes, and what keeping up with changes costs.

    make bench
    python bench/index.py --data FOLDER --documents 500 --repeats 3 --rows 10000 300000 --json index.json

Every measurement runs in a process of its own.  Times take turns (A B A B), and what counts is the
median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from speed import carried_model, machine

from nearer import config
from nearer.data.corpus import Corpus
from nearer.embed.encoder import load_encoder
from nearer.embed.fingerprint import PROBES, Fingerprint
from nearer.files import write_json, write_jsonl
from nearer.live.index.build import build
from nearer.live.index.generations import Generations
from nearer.live.index.sync import sync

CHANGED = 0.01  # of the documents
WIDTH, RANK = 384, 24  # of the stand-in's vectors, and of the space that they lie near
WORDS = [
    "pump",
    "valve",
    "seal",
    "pressure",
    "leak",
    "motor",
    "bearing",
    "shaft",
    "noise",
    "heat",
    "oil",
    "filter",
    "sensor",
    "reset",
]


# -- measured, each in its own process ---------------------------------------------------------------


def encode(root: Path) -> dict[str, Any]:
    """The bare encoder on the texts of the corpus."""
    encoder, texts = (
        load_encoder(_settings(root).model, root),
        list(Corpus.open(root / "corpus.jsonl").contents()),
    )
    encoder.encode(texts[:8], "document")  # threads and kernels wake up
    started = time.perf_counter()
    encoder.encode(texts, "document")
    return {"seconds": time.perf_counter() - started, "documents": len(texts)}


def build_all(root: Path) -> dict[str, Any]:
    """The same texts embedded, saved in parts, loaded into the store and indexed."""
    settings = _settings(root)
    encoder, corpus = load_encoder(settings.model, root), Corpus.open(root / "corpus.jsonl")
    encoder.encode(list(islice(corpus.contents(), 8)), "document")
    started = time.perf_counter()
    filled = build(
        Generations(root, settings), corpus, encoder, settings.model.name, today=True, force=True
    )
    return {"seconds": time.perf_counter() - started, "embedded": filled.embedded}


def sync_some(root: Path) -> dict[str, Any]:
    """One document in a hundred gets another text, and the generation follows; loading its model counts, importing libraries does not."""
    load_encoder(_settings(root).model, root)
    lines = [
        json.loads(line)
        for line in (root / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for line in lines[:: round(1 / CHANGED)]:
        line["text"] += f" changed at {time.time_ns()}"
    write_jsonl(root / "corpus.jsonl", lines)
    corpus, generations = Corpus.open(root / "corpus.jsonl"), Generations(root, _settings(root))
    started = time.perf_counter()
    (filled,) = sync(generations, corpus)
    seconds = time.perf_counter() - started
    generations.drop(filled.manifest.id)
    return {"seconds": seconds, "embedded": filled.embedded}


def fill(root: Path, store: str, rows: int) -> dict[str, Any]:
    """A build whose vectors cost nothing; what it adds to the peak memory of the process."""
    rng = np.random.default_rng(7)
    lines = (
        {
            "_id": f"d{i}",
            "title": f"unit {i}",
            "text": " ".join(rng.choice(WORDS, 40)),
            "team": f"t{i % 50}",
        }
        for i in range(rows)
    )
    write_jsonl(root / "corpus.jsonl", lines)
    settings = config.build({"data": {"corpus": "corpus.jsonl"}, "index": {"store": store}})
    warm = Corpus.from_documents(islice(Corpus.open(root / "corpus.jsonl"), 2048))
    build(
        Generations(root / "warm", settings), warm, StandIn(), "stand-in", today=True
    )  # libraries, threads and pools are there
    before, started = _peak(), time.perf_counter()
    build(
        Generations(root, settings),
        Corpus.open(root / "corpus.jsonl"),
        StandIn(),
        "stand-in",
        today=True,
    )
    return {
        "seconds": time.perf_counter() - started,
        "rows": rows,
        "before_mb": before,
        "peak_mb": _peak(),
    }


class StandIn:
    """An encoder that costs nothing: vectors near a space of few dimensions, as those of texts are."""

    similarity = "cosine"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        self._basis = self._rng.normal(size=(RANK, WIDTH)).astype(np.float32)
        probes = tuple(tuple(map(float, row)) for row in self._some(len(PROBES)))
        self.fingerprint = replace(_EMPTY, dimension=WIDTH, probes=probes)

    def _some(self, n: int) -> np.ndarray:
        vectors = self._rng.standard_normal(
            (n, RANK), np.float32
        ) @ self._basis + self._rng.standard_normal((n, WIDTH), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def encode(self, texts: Any, kind: str) -> np.ndarray:
        return self._some(len(texts))


_EMPTY = Fingerprint("stand-in", "none", "none", "", "", None, "cosine", 0, "fp32", None, ())


def _settings(root: Path) -> config.Config:
    return config.load(root / "nearer.yaml")


def _peak() -> float:
    return round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1
    )  # Linux counts in KiB


# -- what it comes to --------------------------------------------------------------------------------


def measure(root: Path, *what: str) -> dict[str, Any]:
    """One measurement in a fresh process.  Raises SystemExit with what the process said when it fails."""
    command = [sys.executable, __file__, "--worker", *what, "--root", str(root)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(what)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {' '.join(what):<24} {result['seconds']:7.2f} s", file=sys.stderr, flush=True)
    return result


def run(folder: Path, documents: int, repeats: int, rows: list[int]) -> dict[str, Any]:
    facts, times = machine(), {name: list[dict[str, Any]]() for name in ("encode", "build", "sync")}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with open(folder / "corpus.jsonl", encoding="utf-8") as lines:
            (root / "corpus.jsonl").write_text("".join(islice(lines, documents)), encoding="utf-8")
        write_json(
            root / "nearer.yaml",
            {"data": {"corpus": "corpus.jsonl"}, "model": {"name": str(carried_model())}},
        )  # JSON is YAML
        for repetition in range(repeats):
            print(f"repetition {repetition + 1} of {repeats}", file=sys.stderr, flush=True)
            for name, found in times.items():
                found.append(measure(root, name))
    memory: dict[str, list[dict[str, Any]]] = {}
    for store in ("numpy", "lancedb"):
        for number in rows:
            with tempfile.TemporaryDirectory() as temporary:
                memory.setdefault(store, []).append(
                    measure(Path(temporary), "fill", store, str(number))
                )
    facts["load_after"] = round(os.getloadavg()[0], 2)
    ratios = {
        name: [a["seconds"] / b["seconds"] for a, b in zip(times[above], times[below], strict=True)]
        for name, above, below in (("build", "encode", "build"), ("sync", "sync", "build"))
    }
    documents, medians = (
        times["encode"][0]["documents"],
        {name: median(found) for name, found in ratios.items()},
    )
    return {
        "machine": facts,
        "documents": documents,
        "raw": times,
        "ratios": ratios,
        "medians": medians,
        "memory": memory,
    }


def show(found: dict[str, Any]) -> None:
    facts, medians, ratios = found["machine"], found["medians"], found["ratios"]
    loads = f"load {facts['load_before']} before, {facts['load_after']} after"
    print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; {loads}; {found['documents']} documents"
    )
    spread = {name: f"{min(one):.3f} to {max(one):.3f}" for name, one in ratios.items()}
    print(
        f"build against the bare encoder: {medians['build']:.3f} of its speed ({spread['build']}); target .95"
    )
    print(
        f"sync of {CHANGED:.0%} against build: {medians['sync']:.3f} of its time ({spread['sync']}), loading the model included"
    )
    for store, runs in found["memory"].items():
        grown = ", ".join(
            f"{one['rows']:,} rows {one['peak_mb']:,.0f} MB in {one['seconds']:,.0f} s"
            for one in runs
        )
        print(f"peak memory, {store}: {grown} (before: {runs[0]['before_mb']:,.0f} MB)")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    example = Path(__file__).resolve().parents[1] / "examples" / "cwe"
    parser.add_argument("--data", type=Path, default=example, help="folder with corpus.jsonl")
    parser.add_argument("--documents", type=int, default=1000, help="documents to encode")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[10_000, 300_000],
        help="documents of the memory test",
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        what, *more = options.worker
        work = {"encode": encode, "build": build_all, "sync": sync_some}
        print(
            json.dumps(
                fill(options.root, more[0], int(more[1]))
                if what == "fill"
                else work[what](options.root)
            )
        )
        return 0
    found = run(options.data, options.documents, options.repeats, options.rows)
    show(found)
    if options.json:
        write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
