"""From `rerank.model` to the reranker: a model's folder or name, or a class of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nearer import plugins
from nearer.errors import ModelError
from nearer.files import content_hash, value_hash
from nearer.search.rerank.base import RerankerSpec
from nearer.search.rerank.cached import CachedReranker

_SEAM = "reranker"
_OF_MODELS = "cross_encoder"  # what a folder or a name without more stands for


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
    never trained to score pairs, and the errors of `plugins.find`.
    """
    kind, argument = _kind_of(spec, root)
    implementation = plugins.find(_SEAM, kind, root)
    parsed = RerankerSpec(spec, argument, root, max_length, device)
    if kind in plugins.SEAMS[_SEAM].ours:
        inner = implementation.from_spec(parsed)
        return CachedReranker(inner, cache, name=name, source=spec)
    inner = _instance_of(implementation, parsed)
    return CachedReranker(
        inner,
        cache,
        name=name or str(getattr(inner, "name", spec)),
        fingerprint=value_hash([spec, _identity(inner, kind, implementation)]),
        source=spec,
    )


def _kind_of(spec: str, root: Path) -> tuple[str, str]:
    """The name of the implementation, and what it is to load.  A folder of that name goes first."""
    if (root / spec).is_dir():
        return _OF_MODELS, spec
    kind, colon, argument = spec.partition(":")
    if kind in plugins.names(_SEAM):
        return kind, argument
    if colon:
        return spec, ""
    return _OF_MODELS, spec


def _instance_of(implementation: Any, parsed: RerankerSpec) -> Any:
    """An instance of a class that is not ours.  Raises ModelError when it cannot be made or has no `score`."""
    inner = plugins.make(implementation, parsed, parsed.text)
    if not callable(getattr(inner, "score", None)):
        raise ModelError(
            "this class has no score(pairs)",
            where=parsed.text,
            next_step="see nearer.search.rerank.Reranker",
        )
    return inner


def _identity(inner: Any, kind: str, implementation: Any) -> Any:
    """The fingerprint that a reranker declares, else the hash of its module's file."""
    declared = getattr(inner, "fingerprint", None)
    if declared:
        return declared
    module = kind.partition(":")[0] if ":" in kind else implementation.__module__
    source = sys.modules[module].__file__
    return content_hash(Path(source)) if source else ""
