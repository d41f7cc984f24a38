"""Exports a model to another runtime, and proves that vectors and ranking are the same there.

The whole sentence-transformers model is one graph: token ids in, the finished vector out, so that
pooling and normalisation cannot get lost.  An export that fails its parity check is not kept.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer.embed.encoder import Kind, SentenceEncoder
from nearer.errors import ConfigError, ModelError
from nearer.files import disk_errors, write_json
from nearer.measure.vectors import unit_rows

#: An export is refused below these: ONNX and OpenVINO in fp32 reach cosines of .99998 and more.
LEAST_COSINE = 0.999
LEAST_OVERLAP = 0.98
_DEPTH = 10  # results per query whose documents must be the same
_BATCH = 16  # texts per call of an exported model

Features = Mapping[str, np.ndarray]
#: Features of some texts → their vectors, float32 (n_texts, dimension).
Run = Callable[[Features], np.ndarray]


@dataclass(frozen=True, slots=True)
class Format:
    """A runtime: the modules that it takes, how a graph is written for it, and how it is run."""

    needs: tuple[str, ...]
    write: Callable[[Any, Mapping[str, Any], Path], None]  # graph, example features, folder
    load: Callable[[Path], Run]


@dataclass(frozen=True, slots=True)
class Parity:
    """How an exported model's vectors and rankings compare with those of the model itself."""

    texts: int
    queries: int
    mean_cosine: float
    worst_cosine: float
    overlap: float  # of the ten nearest documents, mean over the queries
    same_first: float  # share of queries with the same nearest document

    @property
    def passed(self) -> bool:
        return self.worst_cosine >= LEAST_COSINE and self.overlap >= LEAST_OVERLAP

    def __str__(self) -> str:
        return (
            f"cosine {self.mean_cosine:.5f} on average and {self.worst_cosine:.5f} at worst over "
            f"{self.texts} texts, {self.overlap:.1%} of the ten nearest documents the same over "
            f"{self.queries} queries"
        )


def export(
    encoder: SentenceEncoder, name: str, folder: Path, texts: Mapping[Kind, Sequence[str]]
) -> Parity:
    """Write the model for the runtime `name` into `folder`, which must not exist yet.

    `texts` are queries and documents to compare on.  Raises ConfigError for a runtime that is
    unknown or not installed, ModelError for a model that cannot be exported and for an export
    whose vectors or rankings differ; nothing is left behind then.
    """
    runtime = _runtime(name)
    if folder.exists():
        raise ConfigError(
            "there is something already", where=str(folder), next_step="remove it, or use --out"
        )
    example = _features(encoder, ["a short text", "a second one that is a little longer"], "query")
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with disk_errors(temporary):
            _write(runtime, encoder, example, temporary)
        run = runtime.load(temporary)
        parity = compare(encoder, lambda kind, batch: run(_arrays(encoder, batch, kind)), texts)
        _require(parity, name)
        encoder.model.tokenizer.save_pretrained(str(temporary))
        write_json(temporary / "parity.json", {"format": name, **asdict(parity)})
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return parity


def _require(parity: Parity, name: str) -> None:
    if not parity.passed:
        raise ModelError(
            f"the {name} export is not the model: {parity}",
            where=f"at least {LEAST_COSINE} and {LEAST_OVERLAP:.0%} are asked for",
            next_step="use the model as it is, or another --format",
        )


def _runtime(name: str) -> Format:
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConfigError(f"no format called {name!r}", next_step=f"use one of {known}")
    runtime = FORMATS[name]
    missing = [module for module in runtime.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not installed",
            where=f"--format {name}",
            next_step=f"pip install 'nearer[{name}]'",
        )
    return runtime


def _write(
    runtime: Format, encoder: SentenceEncoder, example: Mapping[str, Any], folder: Path
) -> None:
    import torch

    try:
        with torch.no_grad():
            runtime.write(_graph(encoder.model, tuple(example)), example, folder)
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"the model cannot be exported: {type(error).__name__}: {first_line[:300]}",
            where=encoder.name,
            next_step="use the model as it is, or another --format",
        ) from error


def _graph(model: Any, names: tuple[str, ...]) -> Any:
    """The model as a module of plain tensors: features by position in, vectors out."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *features: Any) -> Any:
            named = dict(zip(names, features, strict=True))
            return self.model(named)["sentence_embedding"]

    return Graph().eval()


def _features(encoder: SentenceEncoder, texts: Sequence[str], kind: Kind) -> dict[str, Any]:
    """The tensors that the model reads, (n_texts, n_tokens) each.

    Raises ModelError for a static model, whose features have no such shape.
    """
    import torch

    features = {}
    for name, value in encoder.features(list(texts), kind).items():
        if isinstance(value, torch.Tensor) and value.ndim == 2:
            features[name] = value.cpu()
    if "attention_mask" not in features:
        raise ModelError(
            "a static model is one table of vectors: there is nothing to export",
            where=encoder.name,
            next_step="use it as it is; it needs no runtime",
        )
    return features


def _arrays(encoder: SentenceEncoder, texts: Sequence[str], kind: Kind) -> Features:
    features = _features(encoder, texts, kind)
    return {name: value.numpy() for name, value in features.items()}


def compare(
    encoder: SentenceEncoder,
    encode: Callable[[Kind, Sequence[str]], np.ndarray],
    texts: Mapping[Kind, Sequence[str]],
) -> Parity:
    """Compare the vectors and rankings of `encode` with the encoder's, over the same texts."""
    ours, theirs = {}, {}
    for kind, those in texts.items():
        ours[kind] = _unit(encoder.without_cache().encode(those, kind))
        batches = []
        for start in range(0, len(those), _BATCH):
            batches.append(encode(kind, those[start : start + _BATCH]))
        theirs[kind] = _unit(np.concatenate(batches))
    cosines = np.concatenate([np.sum(ours[kind] * theirs[kind], axis=1) for kind in ours])
    nearest, exported = _nearest(ours), _nearest(theirs)
    overlaps = []
    for a, b in zip(nearest, exported, strict=True):
        overlaps.append(len(set(a) & set(b)) / len(a))
    return Parity(
        texts=len(cosines),
        queries=len(nearest),
        mean_cosine=float(np.mean(cosines)),
        worst_cosine=float(np.min(cosines)),
        overlap=float(np.mean(overlaps)),
        same_first=float(np.mean(nearest[:, 0] == exported[:, 0])),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = np.asarray(vectors, np.float64)
    if not np.isfinite(wide).all():
        return np.zeros_like(wide)  # nothing is near to it: the check fails
    return unit_rows(wide)


def _nearest(vectors: Mapping[Kind, np.ndarray]) -> np.ndarray:
    """Positions of the nearest documents of each query, (n_queries, at most 10)."""
    scores = np.round(vectors["query"] @ vectors["document"].T, 6)
    order: np.ndarray = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :_DEPTH]


def _write_onnx(graph: Any, example: Mapping[str, Any], folder: Path) -> None:
    import torch

    axes = {name: {0: "texts", 1: "tokens"} for name in example}
    torch.onnx.export(
        graph,
        tuple(example.values()),
        str(folder / "model.onnx"),
        input_names=list(example),
        output_names=["sentence_embedding"],
        dynamic_axes={**axes, "sentence_embedding": {0: "texts"}},
        opset_version=17,
        dynamo=False,
    )


def _load_onnx(folder: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = {node.name for node in session.get_inputs()}

    def run(features: Features) -> np.ndarray:
        used = {name: value for name, value in features.items() if name in names}
        return np.asarray(session.run(None, used)[0], np.float32)

    return run


def _write_openvino(graph: Any, example: Mapping[str, Any], folder: Path) -> None:
    import openvino

    converted = openvino.convert_model(graph, example_input=tuple(example.values()))
    for port, name in zip(converted.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(converted, str(folder / "openvino_model.xml"), compress_to_fp16=False)


def _load_openvino(folder: Path) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(
        str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(features: Features) -> np.ndarray:
        return np.asarray(compiled(dict(features))[0], np.float32)

    return run


FORMATS: dict[str, Format] = {
    "openvino": Format(("openvino",), _write_openvino, _load_openvino),
    "onnx": Format(("onnx", "onnxruntime"), _write_onnx, _load_onnx),
}
