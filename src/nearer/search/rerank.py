"""Reranking: the first hits of a run are read again, each together with its query."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nearer import progress
from nearer.embed.cache import RowCache
from nearer.embed.declared import declared
from nearer.embed.encoder import token_batches
from nearer.embed.fingerprint import PROBES
from nearer.embed.loading import local_folder, on_device, open_model, prove_forward
from nearer.embed.precision import Precision, choose_precision
from nearer.errors import DataError, ModelError, NearerError
from nearer.files import content_hash, value_hash
from nearer.plugins import import_from
from nearer.types import Query, Run, rank_hits

Pair = tuple[str, str]  # (query, document)

#: Correlation (Pearson) of bf16 with fp32 scores of the same pairs, from which bf16 is used.
MIN_FIDELITY = 0.999
#: Where a model folder that was trained here keeps its output layer.
HEAD = "1_PairSimilarity"
_BATCH_TOKENS = 8192
#: Scores of equal pairs should tie, whatever batch they stood in: logits are some tens, float32's last bits at 1e-6.
_DECIMALS = 4


class Reranker(Protocol):
    """Anything that scores a document for a query by reading both.

    `fingerprint` is the identity of what scores, never a name: scores are kept under it.  A class
    of your own comes in as `"my_module:MyClass"`, made without arguments, and needs `score` alone;
    its fingerprint is then the hash of its module's file, so declare one where scores depend on
    more than that file (the weights it loads, say).
    """

    name: str
    fingerprint: str

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 (n_pairs,), higher is better, in the order of `pairs`."""


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
            step = "give a cross-encoder with one output"
            raise ModelError(
                f"this model gives {model.num_labels} scores a pair", where=name, next_step=step
            )
        self.name = name
        self.model = model.eval()
        limits = (
            max_length,
            model.max_seq_length,
            getattr(model.config, "max_position_embeddings", None),
        )
        self.max_length = model.max_seq_length = min(int(limit) for limit in limits if limit)
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
        told = declared(model)
        tokenizer, modules = told["former"]
        former = {"weights": told["weights"], "tokenizer": tokenizer, "modules": modules}
        self.fingerprint = value_hash(told | settings)
        #: The same as an earlier nearer wrote it into decisions, which stay usable.
        self.former_fingerprint = value_hash(former | settings)

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 (n_pairs,), in the order of `pairs`; always computed."""
        scores = np.empty(len(pairs), np.float32)
        # about four bytes a token, in whatever script
        tokens = [
            min(self.max_length, 3 + len("".join(pair).encode("utf-8", "replace")) // 4)
            for pair in pairs
        ]
        for batch in token_batches(np.array(tokens, np.int64), _BATCH_TOKENS):
            scores[batch] = self._forward([pairs[i] for i in batch], self.precision.name)
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
        pairs = [
            (query[: len(query) // 2], " ".join([document] * (1 + i % 4)))
            for i, query in enumerate(PROBES * 4)
            for document in PROBES
        ]
        with np.errstate(
            invalid="ignore", divide="ignore"
        ):  # scores that are all the same correlate with nothing
            return float(
                np.corrcoef(self._forward(pairs, "fp32"), self._forward(pairs, "bf16"))[0, 1]
            )


class CachedReranker:
    """A reranker whose scores are checked, and with a `cache` kept on disk: no pair is scored twice.

    Raises ModelError for scores that cannot rank: the wrong number of them, NaN, infinity.
    """

    def __init__(
        self,
        inner: Any,
        cache: Path | None = None,
        *,
        name: str | None = None,
        fingerprint: str | None = None,
        source: str = "",
    ) -> None:
        self.name = name or inner.name
        self.fingerprint = fingerprint or inner.fingerprint
        self.former_fingerprint = getattr(inner, "former_fingerprint", self.fingerprint)
        self.source = source  # what `load_reranker` made it from
        self._inner = inner
        self._cache = (
            RowCache(cache / "rerank" / value_hash(self.fingerprint)[:16], 1)
            if cache is not None
            else None
        )

    def without_cache(self) -> CachedReranker:
        """The same reranker, always computing: to time queries."""
        twin = copy(self)
        twin._cache = None
        return twin

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 (n_pairs,), in the order of `pairs`; those computed are on disk when this returns."""
        if self._cache is None:
            return self._compute(pairs)
        names = [f"{len(query)}\0{query}{document}" for query, document in pairs]
        return self._cache.rows(names, lambda missing: self._compute([pairs[i] for i in missing]))[
            :, 0
        ]

    def _compute(self, pairs: Sequence[Pair]) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):
                scores = np.asarray(self._inner.score(pairs)).astype(np.float32)
        except NearerError:
            raise
        except Exception as error:
            raise ModelError(
                f"it raised {type(error).__name__}: {error}",
                where=self.name,
                next_step="mend the reranker",
            ) from error
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            got = f"scores of shape {scores.shape}, or not finite ones"
            raise ModelError(
                f"{len(pairs)} pairs got {got}",
                where=self.name,
                next_step="return one finite number a pair",
            )
        return scores


def rerank(run: Run, queries: Sequence[Query], corpus: Any, reranker: Reranker, depth: int) -> Run:
    """The first `depth` hits of each query in the order of the reranker's scores; the rest follows as it was.

    The head carries the reranker's scores, the rest made-up ones below them, so that the whole is
    in canonical order.  Queries of the run that are not among `queries` stay as they are.  Raises
    DataError for a hit that is not in the corpus.
    """
    scorer = reranker if isinstance(reranker, CachedReranker) else CachedReranker(reranker)
    results = dict(run.results)
    asked = [query for query in queries if results.get(query.id)]
    started = time.perf_counter()
    with progress.task(
        "rerank", sum(len(results[query.id][:depth]) for query in asked), "pairs"
    ) as bar:
        for query in asked:
            head = [doc_id for doc_id, _ in results[query.id][:depth]]
            if missing := [doc_id for doc_id in head if doc_id not in corpus]:
                step = "rerank results over the same documents"
                raise DataError(
                    f"document {missing[0]!r} is not in the corpus",
                    where=f"{run.name}, query {query.id}",
                    next_step=step,
                )
            scores = scorer.score([(query.text, corpus.get(doc_id).content) for doc_id in head])
            best = rank_hits(zip(head, scores.tolist(), strict=True))
            floor = best[-1][1]
            step_down = max(
                1.0, 4 * float(np.spacing(np.float32(abs(floor))))
            )  # seen by float32 at any height
            tail = enumerate(results[query.id][depth:], start=1)
            results[query.id] = best + [
                (doc_id, float(np.float32(floor - step_down * rank))) for rank, (doc_id, _) in tail
            ]
            bar.advance(len(head))
    return replace(
        run,
        name=f"{run.name}+rerank",
        results=results,
        seconds=run.seconds + time.perf_counter() - started,
        latencies=(),
    )


def open_cross_encoder(name: str, local: Path | None, **more: Any) -> Any:
    """A CrossEncoder, as `open_model` opens models; a layer without weights is no news here (see `load_reranker`)."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    ours = local is not None and (local / HEAD).is_dir()
    return open_model(
        _trained_here if ours else "CrossEncoder", name, local, setting="rerank.model", **more
    )


def _trained_here(folder: str, *, device: str | None = None, **safely: Any) -> Any:
    """Part by part: a class of ours named in a folder is, to sentence-transformers, remote code."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer

    from nearer.search.joint import PairSimilarity

    return CrossEncoder(
        modules=[Transformer.load(folder, **safely), PairSimilarity.load(folder, subfolder=HEAD)],
        device=device,
    )


def load_reranker(
    spec: str,
    root: Path,
    *,
    cache: Path | None = None,
    max_length: int | None = None,
    device: str | None = None,
    name: str | None = None,
) -> CachedReranker:
    """A reranker from a folder or by a name, as CrossEncoder takes it, or the user's own `"module:Class"`.

    Safetensors only, no remote code.  Raises ModelError with what to do, also for a model that was
    never trained to score pairs, and the errors of `import_from`.
    """
    if ":" in spec and not (root / spec).is_dir():
        made = import_from(spec, root, "rerank.model")
        try:
            inner = made()
        except Exception as error:
            raise ModelError(
                f"making it raised {type(error).__name__}: {error}",
                where=spec,
                next_step="mend the class",
            ) from error
        if not callable(getattr(inner, "score", None)):
            raise ModelError(
                "this class has no score(pairs)",
                where=spec,
                next_step="see nearer.search.rerank.Reranker",
            )
        source = sys.modules[spec.partition(":")[0]].__file__
        own = getattr(inner, "fingerprint", None) or (content_hash(Path(source)) if source else "")
        return CachedReranker(
            inner,
            cache,
            name=name or str(getattr(inner, "name", spec)),
            fingerprint=value_hash([spec, own]),
            source=spec,
        )
    local = local_folder(spec, root, "rerank.model")
    model = open_cross_encoder(spec, local, device=device)
    kinds = getattr(model.config, "architectures", None) or [""]
    if len(model) == 1 and not kinds[0].endswith("ForSequenceClassification"):
        # CrossEncoder would put an untrained layer on an embedding model
        problem, step = (
            "this model was not trained to score pairs",
            "give a cross-encoder, or set rerank.model to train",
        )
        raise ModelError(problem, where=spec, next_step=step)
    reranker = CrossEncoderReranker(model, max_length=max_length, name=name or spec)
    return CachedReranker(reranker, cache, source=spec)
