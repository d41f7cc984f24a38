"""The reranker over a cross-encoder: a model that reads query and document as one text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearer.embed.declared import declared
from nearer.embed.encoder import token_batches
from nearer.embed.fingerprint import PROBES
from nearer.embed.loading import local_folder, on_device, open_model, prove_forward
from nearer.embed.precision import Precision, choose_precision
from nearer.errors import ConfigError, ModelError
from nearer.files import value_hash
from nearer.search.rerank.base import Pair, RerankerSpec

#: Correlation (Pearson) of bf16 with fp32 scores of the same pairs, from which bf16 is used.
MIN_FIDELITY = 0.999
#: Where a model folder that was trained here keeps its output layer.
HEAD = "1_PairSimilarity"
_BATCH_TOKENS = 8192
#: Scores of equal pairs should tie, whatever batch they stood in: logits are some tens, float32's last bits at 1e-6.
_DECIMALS = 4


class CrossEncoderReranker:
    """Reranker over a CrossEncoder with one output; scores are its logits, which do not saturate.

    Pairs are sorted by length and packed into batches of about `_BATCH_TOKENS` tokens, and cut at
    `max_length` tokens, the longer of the two texts first.  bf16 as in `SentenceEncoder`.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_length: int | None = None,
        precision: str = "auto",
        name: str = "reranker",
    ) -> None:
        if model.num_labels != 1:
            raise ModelError(
                f"this model gives {model.num_labels} scores a pair",
                where=name,
                next_step="give a cross-encoder with one output",
            )
        self.name = name
        self.model = model.eval()
        self.max_length = model.max_seq_length = _shortest(model, max_length)
        self._prompt = (model.prompts or {}).get(model.default_prompt_name or "")
        self.precision = Precision("fp32", "asked for")
        prove_forward(
            model, name, lambda texts: self._forward([(text, text) for text in texts], "fp32")
        )
        self.precision = choose_precision(
            precision, model.device.type, self._fidelity, MIN_FIDELITY, "correlation of scores"
        )
        settings = {
            "max_length": self.max_length,
            "prompt": self._prompt,
            "precision": self.precision.name,
        }
        hashes = declared(model)
        tokenizer, modules = hashes["former"]
        former = {"weights": hashes["weights"], "tokenizer": tokenizer, "modules": modules}
        self.fingerprint = value_hash(hashes | settings)
        #: The same as an earlier nearer wrote it into decisions, which stay usable.
        self.former_fingerprint = value_hash(former | settings)

    @classmethod
    def from_spec(cls, spec: RerankerSpec) -> CrossEncoderReranker:
        """The cross-encoder of a folder or name, as CrossEncoder takes it.

        Raises ConfigError where no model is named, and ModelError, also for a model that was never
        trained to score pairs.
        """
        if not spec.argument:
            raise ConfigError(
                "no model is named", where=spec.text, next_step="for example: cross_encoder:FOLDER"
            )
        local = local_folder(spec.argument, spec.root, "rerank.model")
        model = open_cross_encoder(spec.argument, local, device=spec.device)
        architectures = getattr(model.config, "architectures", None) or [""]
        if len(model) == 1 and not architectures[0].endswith("ForSequenceClassification"):
            # CrossEncoder would put an untrained layer on an embedding model
            raise ModelError(
                "this model was not trained to score pairs",
                where=spec.argument,
                next_step="give a cross-encoder, or set rerank.model to train",
            )
        return cls(model, max_length=spec.max_length, name=spec.text)

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 (n_pairs,), in the order of `pairs`; always computed."""
        scores = np.empty(len(pairs), np.float32)
        lengths = [min(self.max_length, _estimated_tokens(pair)) for pair in pairs]
        for batch in token_batches(np.array(lengths, np.int64), _BATCH_TOKENS):
            scores[batch] = self._forward([pairs[row] for row in batch], self.precision.name)
        return np.round(scores, _DECIMALS)

    def _forward(self, pairs: list[Pair], precision: str) -> np.ndarray:
        import torch

        device = self.model.device
        features = on_device(self.model, self.model.preprocess(pairs, prompt=self._prompt))
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            scores: np.ndarray = self.model(features)["scores"].float().reshape(-1).cpu().numpy()
        return scores

    def _fidelity(self) -> float:
        """Correlation of bf16 with fp32 scores over pairs of mixed length and relevance."""
        pairs: list[Pair] = []
        for number, query in enumerate(PROBES * 4):
            half = query[: len(query) // 2]
            for document in PROBES:
                pairs.append((half, " ".join([document] * (1 + number % 4))))
        exact, fast = self._forward(pairs, "fp32"), self._forward(pairs, "bf16")
        # scores that are all the same correlate with nothing
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.corrcoef(exact, fast)[0, 1])


def _shortest(model: Any, max_length: int | None) -> int:
    """Tokens after which pairs are cut: the least of what is asked for and what the model reads."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = (max_length, model.max_seq_length, positions)
    return min(int(limit) for limit in limits if limit)


def _estimated_tokens(pair: Pair) -> int:
    """About four bytes per token, in whatever script, and three special tokens."""
    return 3 + len("".join(pair).encode("utf-8", "replace")) // 4


def open_cross_encoder(name: str, local: Path | None, **more: Any) -> Any:
    """A CrossEncoder, as `open_model` opens models.

    transformers' warning of a layer without weights is silenced: `from_spec` refuses such models.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    trained_here = local is not None and (local / HEAD).is_dir()
    kind = _trained_here if trained_here else "CrossEncoder"
    return open_model(kind, name, local, setting="rerank.model", **more)


def _trained_here(folder: str, *, device: str | None = None, **safely: Any) -> Any:
    """Part by part: a class of ours named in a folder is, to sentence-transformers, remote code."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer

    from nearer.search.joint import PairSimilarity

    return CrossEncoder(
        modules=[Transformer.load(folder, **safely), PairSimilarity.load(folder, subfolder=HEAD)],
        device=device,
    )
