"""The main job on machines unlike this one: with and without bf16 units, in each precision, on a GPU.

A CPU without bf16 units emulates bf16 by software, slowly, hence the few and short texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sentence_transformers import SentenceTransformer

from nearer import config
from nearer.data.load import load_corpus
from nearer.data.splits import read_split
from nearer.embed.encoder import load_encoder
from nearer.embed.precision import BF16_OVERRIDE
from nearer.live.index.generations import Generations
from nearer.live.web.service import Service, Tokens, create_app
from test_cli import nearer
from test_serve import wait_for

#: Precision that is computed in, by what is asked for and what the hardware check answers.
EXPECTED: Mapping[tuple[str, str], str] = {
    ("auto", "yes"): "bf16",
    ("auto", "no"): "fp32",
    ("fp32", "yes"): "fp32",
    ("fp32", "no"): "fp32",
    ("bf16", "yes"): "bf16",
    ("bf16", "no"): "bf16",
}
#: (fp32, no) and (bf16, yes) compute what auto chooses there; they are run where a GPU makes it cheap.
ON_CPU = (("auto", "yes"), ("auto", "no"), ("fp32", "yes"), ("bf16", "no"))
MACHINES = [("cpu", *case) for case in ON_CPU]
if torch.cuda.is_available():
    MACHINES += [("cuda", *case) for case in EXPECTED]

COUNTS = {"train": 12, "dev": 6, "test": 6}
WORDS = 20  # of each text; more would only be cut off
TOKENS = 32  # that the model reads


@pytest.fixture(scope="module")
def very_small_data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few queries and documents of the example, each cut to its first words."""
    folder = tmp_path_factory.mktemp("data") / "very-small"
    (folder / "qrels").mkdir(parents=True)
    kept_queries: set[str] = set()
    kept_documents: set[str] = set()
    for name, count in COUNTS.items():
        header, *lines = (small_data / "qrels" / f"{name}.tsv").read_text().splitlines()
        lines = lines[:count]
        (folder / "qrels" / f"{name}.tsv").write_text("\n".join([header, *lines]) + "\n")
        kept_queries |= {line.split("\t")[0] for line in lines}
        kept_documents |= {line.split("\t")[1] for line in lines}
    for name, kept in (("queries", kept_queries), ("corpus", kept_documents)):
        with (folder / f"{name}.jsonl").open("w") as handle:
            for line in (small_data / f"{name}.jsonl").read_text().splitlines():
                row = json.loads(line)
                if row["_id"] in kept:
                    row["text"] = " ".join(row["text"].split()[:WORDS])
                    handle.write(json.dumps(row) + "\n")
    return folder


def told(*words: str | Path) -> Any:
    result = nearer(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(("device", "precision", "hardware"), MACHINES)
def test_train_save_load_decide_index_serve(
    device: str,
    precision: str,
    hardware: str,
    very_small_data: Path,
    write_project: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(BF16_OVERRIDE, hardware)
    expected = EXPECTED[precision, hardware]
    path: Path = write_project(
        tmp_path,
        data={"folder": str(very_small_data)},
        model={"precision": precision, "device": device, "max_seq_length": TOKENS},
        train={"precision": precision, "epochs": 1, "batch_size": 4, "learning_rate": 2e-4},
        diagnose={"splits": ["dev"], "chunkers": [], "pieces": []},
        fix={"fixes": []},
        mine={"negatives": 0},
        decide={"guardrails": {"general": None}},
        index={"store": "numpy"},
    )
    at = ("-c", path)

    told("run", *at)
    run = tmp_path / "runs" / "default"
    trained = json.loads((run / "train" / "summary.json").read_text())
    decision = json.loads((run / "decide" / "decision.json").read_text())
    assert trained["precision"] == expected
    assert trained["pairs_per_second"] > 0
    assert decision["verdict"] in {"ship", "use_simpler_fix", "do_not_ship", "inconclusive"}
    assert_saved_model_is_the_trained_one(run / "train" / "model", path, expected)
    judged = {one["name"]: one for one in decision["candidates"]}["fine-tuned"]

    new = told("index", "build", "--model", run / "train" / "model", *at)["id"]
    assert told("index", "verify", new, *at)["passed"]
    told("index", "cutover", new, "--override", "a test", *at)
    generations = Generations(tmp_path, config.load(path))
    made_by = replace(generations.manifest(new).fingerprint, chunker=None)
    assert made_by.precision == expected
    assert made_by.id == judged["fingerprint"]
    assert_served_as_computed(generations, path, run)


def assert_saved_model_is_the_trained_one(folder: Path, path: Path, precision: str) -> None:
    """sentence-transformers, in fp32, gives the vectors that our encoder gives in its precision."""
    settings = config.load(path).model.as_saved()
    ours = load_encoder(settings, Path(), path=folder)
    assert ours.precision.name == precision
    plain = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    texts = ["a leak in memory", "path traversal in an archive"]
    wanted = plain.encode(texts, normalize_embeddings=True)
    tolerance = 1e-5 if precision == "fp32" and settings.device == "cpu" else 0.02
    assert np.allclose(ours.encode(texts, "document"), wanted, atol=tolerance)


def assert_served_as_computed(generations: Generations, path: Path, run: Path) -> None:
    """The service's results for each dev query are those of plain arithmetic over fp32 vectors."""
    settings = config.load(path)
    corpus = load_corpus(settings.data, path.parent)
    dev = read_split(run / "check" / "split", "dev")
    plain = SentenceTransformer(str(run / "train" / "model"), device="cpu")
    documents = plain.encode_document(list(corpus.contents()), normalize_embeddings=True)
    service = Service(generations, Tokens("secret"))
    with TestClient(create_app(service)) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        for query in dev.queries:
            vector = plain.encode_query([query.text], normalize_embeddings=True)[0]
            scores = dict(zip(corpus.ids, (documents @ vector).tolist(), strict=True))
            hits = client.post("/search", json={"query": query.text, "k": 5}).json()["results"]
            best = sorted(scores.values(), reverse=True)[:5]
            served = [scores[hit["id"]] for hit in hits]
            # bf16 may swap two documents whose scores differ by less than its own rounding.
            assert served == pytest.approx(best, abs=0.02)
