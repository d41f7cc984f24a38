"""`rerank.model: auto`: a cross-encoder that is here or can be had, else one trained here in the time given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nearer import config, progress, shortlist
from nearer.embed.base import EncoderSpec
from nearer.errors import DataError, ModelError
from nearer.search.rerank import CachedReranker, Lacking, load_reranker
from nearer.training.material import TrainingMaterial
from nearer.training.reranker import reranker_of
from nearer.types import Run

Found = tuple[CachedReranker | None, Lacking]


def automatic_reranker(
    settings: config.Config,
    root: Path,
    cache: Path | None,
    material: TrainingMaterial,
    runs: Callable[[], Sequence[Run]],
) -> Found:
    """The reranker that `auto` stands for; None with the reason, where there is none.

    `material` are the training examples, and `runs` gives the first stages' results for the
    training queries, as for `reranker_of`.
    """
    reasons: list[str] = []
    for model in shortlist.available(shortlist.rerankers()):
        try:
            return _loaded(model.name, settings, root, cache), Lacking()
        except ModelError as error:
            reasons.append(f"{model.name}: {error.what}")
            progress.info(f"the reranker {model.name} cannot be used: {error.what}")
    if not reasons:
        reasons.append("no cross-encoder is in the hub's cache here")
    if not EncoderSpec.of(settings.model, root).has_weights:
        # Asked before anything is searched: what an endpoint embeds is paid for.
        reasons.append(
            "none can be trained here: the weights of the configured model are elsewhere"
        )
        return None, _lacking(reasons)
    if not material.train.queries:
        reasons.append("there are no training judgments to train one from")
        return None, _lacking(reasons)
    try:
        return reranker_of(settings, root, cache, material, runs), Lacking()
    except (DataError, ModelError) as error:
        reasons.append(f"none can be trained here: {error.what}")
        return None, _lacking(reasons)


def _loaded(name: str, settings: config.Config, root: Path, cache: Path | None) -> CachedReranker:
    return load_reranker(
        name,
        root,
        cache=cache,
        max_length=settings.rerank.max_length,
        device=settings.model.device,
    )


def _lacking(reasons: Sequence[str]) -> Lacking:
    """Why there is none; naming one that can be had would give one."""
    first = shortlist.rerankers()[0].name
    return Lacking(f"{'; '.join(reasons)} (rerank.model)", f"rerank.model={first}")
