"""The card of a model, sending it to a hub, and exporting it to other runtimes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sentence_transformers import SentenceTransformer

from conftest import WriteProject
from nearer import config
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ConfigError, ModelError
from nearer.files import write_json
from nearer.training import export as module
from nearer.training.card import CardFacts, card, public_name
from nearer.training.export import Format, export
from nearer.training.looks import Judge
from nearer.training.release import Release
from nearer.training.storage import compressions, losses
from nearer.types import Document, Query, Split

TOKEN = "hf_secret_that_nobody_may_see"  # noqa: S105 - of the stand-in hub
SUMMARY: Mapping[str, Any] = {
    "base_model": "tiny",
    "fingerprint": "0123456789abcdef",
    "base_fingerprint": "fedcba9876543210",
    "loss": "ranking",
    "learning_rate": 5e-5,
    "steps": 40,
    "best_step": 30,
    "max_seq_length": 64,
    "precision": "fp32",
    "seeds": 1,
    "examples": 1693,
    "distinct_queries": 1245,
    "distinct_documents": 700,
    "dev": {
        "measure": "nDCG@10",
        "before": 0.3,
        "after": 0.5,
        "interval": [0.45, 0.55],
        "queries": 201,
        "documents": 938,
    },
    "gap": {"train": 0.7, "dev": 0.5, "gap": 0.2, "queries": 201},
    "merge": {"weight": 0.8, "curve": []},
    "moved": {"moved": True, "mean_cosine": 0.93},
    "settings": {"epochs": 3, "batch_size": 32, "seed": 7},
}
DECISION: Mapping[str, Any] = {
    "verdict": "inconclusive",
    "n_queries": 561,
    "candidates": [
        {
            "role": "today",
            "system": "dense",
            "measures": {"nDCG@10": {"mean": 0.347, "ci": [0.32, 0.37]}},
        },
        {
            "role": "candidate",
            "system": "dense",
            "measures": {"nDCG@10": {"mean": 0.545, "ci": [0.51, 0.58]}},
        },
    ],
    "guardrails": [
        {"name": "general", "status": "inconclusive", "lower_bound": -0.04, "margin": 0.02}
    ],
}


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> SentenceEncoder:
    return load_encoder(config.Model(name=str(tiny_model), precision="fp32"), Path())


def facts(tiny_model: Path, decision: Mapping[str, Any] | None = None) -> CardFacts:
    settings = config.build(
        {"model": {"name": str(tiny_model)}, "data": {"folder": str(tiny_model.parent / "cwe")}}
    )
    return CardFacts(settings, tiny_model.parent, SUMMARY, decision)


def test_a_card_is_complete_and_names_no_path(tiny_model: Path, encoder: SentenceEncoder) -> None:
    text = card(facts(tiny_model), encoder)
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "sentence-transformers"
    assert "base_model" not in front  # a folder's name means nothing to a hub
    for said in (
        "fine-tuned on cwe",
        "1,693 training examples",
        "encode_query",
        "| 0.300 | 0.500 | 0.450 to 0.550 |",
        "a gap of +0.200",
        "80% of the way",
        "What it is not for",
        "0123456789abcdef",
        "| batch size | 32 |",
        "| seed | 7 |",
        "Prompt of queries: none",
        "Test was not opened",
    ):
        assert said in text
    assert str(tiny_model.parent) not in text


def test_what_decide_measured_is_added_to_the_card(
    tiny_model: Path, encoder: SentenceEncoder
) -> None:
    text = card(facts(tiny_model, DECISION), encoder)
    assert "test (561 queries, dense) | nDCG@10 | 0.347 | 0.545 | 0.510 to 0.580" in text
    assert (
        "Guardrail general: inconclusive (lower bound of the change -0.040, margin 0.020)" in text
    )
    assert "the verdict of its run was “inconclusive”" in text
    assert "Test was not opened" not in text


def test_the_licence_of_the_base_model_is_passed_on(tmp_path: Path, tiny_model: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    settings = config.build({"model": {"name": str(base)}})
    encoder = load_encoder(config.Model(name=str(base), precision="fp32"), Path())
    text = card(CardFacts(settings, tmp_path, SUMMARY), encoder)
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"
    assert "Licence of the base model:** apache-2.0" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("/home/somebody/models/minilm", "minilm"),
        ("../models/minilm", "minilm"),
        ("models/deep/minilm", "minilm"),
    ],
)
def test_a_path_becomes_a_name(name: str, said: str, tmp_path: Path) -> None:
    assert public_name(name, tmp_path) == said


# -- the hub -----------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """The endpoints of a hub that sending a model needs; it keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.commits = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": f"bad token {self.headers.get('Authorization')}"}, 401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/me/model", "id": "me/model"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            self._answer({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        elif self.path.endswith("/objects/batch"):
            objects = [self._place(item) for item in json.loads(body)["objects"]]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._answer({"error": self.path}, 404)

    def do_PUT(self) -> None:
        self.server.objects[self.path.rsplit("/", 1)[1]] = self._body()
        self._answer({})

    def _mode(self, file: Mapping[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _place(self, item: Mapping[str, Any]) -> dict[str, Any]:
        href = f"{self.server.url}/objects/{item['oid']}"
        return {**item, "authenticated": True, "actions": {"upload": {"href": href}}}

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        self.server.commits += 1
        self._answer({"commitUrl": f"{self.server.url}/me/model/commit/1", "commitOid": "1" * 40})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def trained(write_project: WriteProject, tiny_model: Path, tmp_path: Path) -> Path:
    """A project whose model is trained, as far as its files say."""
    path = write_project(tmp_path / "project")
    run = path.parent / "runs" / "default"
    shutil.copytree(tiny_model, run / "train" / "model")
    write_json(run / "train" / "summary.json", SUMMARY)
    (run / "decide").mkdir()
    write_json(run / "decide" / "decision.json", DECISION)
    return path


def nearer_push(path: Path, hub: Hub, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, **environment}
    variables["HF_HUB_DISABLE_XET"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "nearer", "push", "me/model", "-c", str(path)],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )


@pytest.mark.long
def test_a_model_goes_to_a_hub_with_its_card_in_one_commit(
    trained: Path, hub: Hub, tmp_path: Path
) -> None:
    done = nearer_push(trained, hub, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert hub.url in done.stdout
    assert hub.commits == 1
    assert hub.created[0]["name"] == "model"
    assert hub.created[0]["visibility"] == "private"
    text = hub.files["README.md"].decode()
    assert "test (561 queries, dense)" in text
    assert str(tmp_path) not in text
    received = tmp_path / "received"
    for name, content in hub.files.items():
        (received / name).parent.mkdir(parents=True, exist_ok=True)
        (received / name).write_bytes(content)
    model = trained.parent / "runs" / "default" / "train" / "model"
    weights = (received / "model.safetensors").read_bytes()
    sent = (model / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).digest() == hashlib.sha256(sent).digest()
    vectors = [
        SentenceTransformer(str(folder), device="cpu").encode(["a text"])
        for folder in (received, model)
    ]
    assert np.array_equal(vectors[0], vectors[1])
    assert not (model / "README.md").exists()  # what train wrote is never changed


@pytest.mark.long
def test_a_hub_that_refuses_is_told_without_the_token(trained: Path, hub: Hub) -> None:
    wrong = "hf_another_secret"
    done = nearer_push(trained, hub, HF_TOKEN=wrong)
    assert done.returncode == 2
    assert wrong not in done.stdout + done.stderr
    assert "HF_TOKEN" in done.stderr
    assert hub.commits == 0


def test_without_a_token_nothing_is_sent(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nearer.training.push import push

    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="no token"):
        push(tiny_model, "me/model", private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="switched off"):  # the tests run offline
        push(tiny_model, "me/model", private=True)
    with pytest.raises(ConfigError, match="not OWNER/NAME"):
        push(tiny_model, "model", private=True)


def test_a_file_that_names_a_path_of_this_machine_is_not_sent(trained: Path) -> None:
    settings = config.load(trained)
    release = Release.of(settings, trained.parent, trained.parent / "runs" / "default")
    path = release.model / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "_name_or_path": f"{trained.parent}/models/base"}))
    with pytest.raises(ModelError, match="names a folder of this machine"), release.staged():
        pass


# -- exports -----------------------------------------------------------------------------------

TEXTS: dict[Any, list[str]] = {
    "query": ["a leak in memory", "path traversal", "weak password", "race condition"],
    "document": [f"document {i} about {'memory ' * i}overflow {i % 7}" for i in range(30)],
}


def stand_in(error: float = 0.0) -> Format:
    """A runtime that runs the graph itself, with vectors that are off by `error`."""

    def write(graph: Any, example: Mapping[str, Any], folder: Path) -> None:
        torch.save((graph.model.state_dict(), list(example)), folder / "graph.pt")
        graphs[folder.name] = graph

    def load(folder: Path) -> Any:
        graph, rng = graphs[folder.name], np.random.default_rng(0)

        def run(features: Mapping[str, np.ndarray]) -> np.ndarray:
            with torch.no_grad():
                tensors = [torch.from_numpy(value) for value in features.values()]
                vectors = graph(*tensors).numpy()
            return vectors + error * rng.normal(size=vectors.shape)

        return run

    graphs: dict[str, Any] = {}
    return Format((), write, load)


def test_an_export_that_is_the_model_is_kept_with_its_parity(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.FORMATS, "stand-in", stand_in())
    parity = export(encoder, "stand-in", tmp_path / "out", TEXTS)
    assert parity.passed
    assert parity.worst_cosine == pytest.approx(1.0, abs=1e-5)
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["overlap"] == 1.0
    assert (tmp_path / "out" / "tokenizer.json").is_file()


@pytest.mark.parametrize("error", [0.02, float("nan")])
def test_an_export_whose_vectors_differ_is_refused_and_leaves_nothing(
    error: float, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.FORMATS, "stand-in", stand_in(error))
    with pytest.raises(ModelError, match="is not the model"):
        export(encoder, "stand-in", tmp_path / "out", TEXTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_runtime_that_is_not_installed_names_what_to_install(
    name: str, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        export(encoder, name, tmp_path / "out", TEXTS)
    assert f"nearer[{name}]" in str(caught.value)


def test_what_smaller_vectors_lose_is_measured(encoder: SentenceEncoder) -> None:
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS["document"])]
    queries = tuple(Query(f"q{i}", text) for i, text in enumerate(TEXTS["document"][:12]))
    dev = Split("dev", queries, {f"q{i}": {f"d{i}": 1} for i in range(12)})
    judge = Judge(Corpus.from_documents(documents), dev, "nDCG@10")
    rows = losses(encoder, judge, compressions(encoder.dimension), np.random.default_rng(0))
    by_name = {row.vectors: row for row in rows}
    assert by_name["float32"].delta == 0
    assert by_name["float32"].bytes_per_document == 4 * 384
    assert by_name["binary"].bytes_per_document == 48
    assert by_name["int8@192"].bytes_per_document == 196
    for row in rows:
        assert row.low <= row.delta <= row.high
        assert row.value == pytest.approx(by_name["float32"].value + row.delta, abs=1e-9)
