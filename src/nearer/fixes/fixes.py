"""Simpler fixes than fine-tuning: each says which pipelines to try, and what it needs in production.

A fix of your own needs these three members; `variants` gets the pipeline so far and returns others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nearer.config import Config
from nearer.data import sources
from nearer.search.late import allows_late
from nearer.search.pipeline import HYBRIDS, OWN, Filters, Pipeline
from nearer.search.sparse import is_sparse
from nearer.search.systems import LATE, Systems
from nearer.types import Split

#: What every fix tries, for those that the settings leave out (`fix.fixes`).
FIXES = ("metadata", "rewriting", "hybrid", "reranking", "chunking", "base_model")


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a fix, or a part of it, gave nothing to measure.

    With `next_step` it was not tried, and that command would try it; without, it does not apply.
    """

    fix: str
    why: str
    next_step: str = ""

    @property
    def tried(self) -> bool:
        """There was nothing to try."""
        return not self.next_step

    @property
    def label(self) -> str:
        if self.tried:
            return f"does not apply here: {self.why}"
        return f"not tried: {self.why}; {self.next_step}"

    def as_dict(self) -> dict[str, str]:
        return {"fix": self.fix, "why": self.why, "next": self.next_step}


class Fix(Protocol):
    """One kind of repair."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> str:
        """What it takes in production."""

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> Sequence[Pipeline]:
        """Pipelines to try instead of `base`; none where the fix does not apply."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Declared filters, filters that the query's text names, or a preference for what it names."""

    name: str = "metadata"
    needs: str = "metadata kept right; the application passes its filter on"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.filters not in ("ignore", "declared"):
            return []
        declared = any(query.filter for query in dev.queries)
        named = any(systems.fields.infer(query.text) for query in dev.queries)
        names: list[Filters] = ["declared"] if declared and base.filters == "ignore" else []
        names += ["inferred", "boost"] if named else ["boost"] if declared else []
        return [
            replace(base, filters=name)
            for name in names
            if name == "boost" or base.system not in OWN
        ]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Queries with their acronyms and synonyms written out."""

    specs: tuple[str, ...]
    name: str = "rewriting"
    needs: str = "a dictionary that somebody keeps; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.rewrite or base.system == "run":
            return []
        return [
            replace(base, rewrite=spec)
            for spec in self.specs
            if systems.rewriter(spec)(dev.queries) != list(dev.queries)
        ]


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Words beside vectors: by ranks, or by scores with a weight tuned on dev; the title as a field of its own."""

    title_weights: tuple[float, ...]
    name: str = "hybrid"
    needs: str = "a BM25 index beside the vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        systems_tried = [name for name in HYBRIDS if name != base.system]
        tried = [
            replace(base, system=name, weight=None, title_weight=None) for name in systems_tried
        ]
        if any(
            systems.corpus[place].title
            for place in range(0, len(systems.corpus), max(1, len(systems.corpus) // 200))
        ):
            tried += [
                replace(base, system="convex", weight=None, title_weight=weight)
                for weight in self.title_weights
            ]
        return tried


@dataclass(frozen=True, slots=True)
class Reranking:
    """A cross-encoder over the first results, as deep as pays."""

    depth: int
    name: str = "reranking"
    needs: str = "a cross-encoder at query time; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if systems.reranker is None or base.rerank:
            return []
        return [
            replace(base, rerank=depth)
            for depth in sorted({max(1, self.depth // 5), max(1, self.depth // 2), self.depth})
        ]


@dataclass(frozen=True, slots=True)
class Chunking:
    """Vectors of parts of documents; a document scores as its best part."""

    specs: tuple[str, ...]
    name: str = "chunking"
    needs: str = "the corpus embedded again, more vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        able = [
            spec for spec in self.specs if not spec.startswith(LATE) or allows_late(systems.encoder)
        ]
        return [_again(base, chunker=spec) for spec in able if spec != base.chunker]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Other embedding models, and smaller vectors of today's."""

    models: tuple[str, ...]
    compressions: tuple[str, ...]
    name: str = "base_model"
    needs: str = "the corpus embedded again"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        others = [
            replace(
                base.over(model), chunker="document" if _sparse(systems, model) else base.chunker
            )
            for model in self.models
        ]
        return others + [
            _again(base, compression=spec) for spec in self.compressions if spec != base.compression
        ]


def _again(base: Pipeline, **changes: str) -> Pipeline:
    """The pipeline with other vectors: the weight of a hybrid is tuned again."""
    return replace(base, weight=None, **changes)  # type: ignore[arg-type]


def _sparse(systems: Systems, model: str) -> bool:
    return is_sparse(sources.resolve(systems.root, model))


def fixes_of(settings: Config) -> list[Fix]:
    """The fixes that the configuration asks for, in its order (cheapest first)."""
    fix = settings.fix
    known: dict[str, Fix] = {
        "metadata": Metadata(),
        "rewriting": Rewriting(fix.rewriters),
        "hybrid": Hybrid(fix.title_weights),
        "reranking": Reranking(settings.rerank.depth),
        "chunking": Chunking(fix.chunkers),
        "base_model": BaseModel(fix.models, fix.compressions),
    }
    return [known[name] for name in fix.fixes]


def absence(fix: Fix, base: Pipeline, systems: Systems, dev: Split) -> Absence:
    """Why a fix has no variants here; one of your own may tell it: `absent(base, systems, dev)`."""
    own = getattr(fix, "absent", None)
    if own is not None:
        reason: Absence = own(base, systems, dev)
        return reason
    if fix.name == "rewriting":
        return _no_rewriting(base, systems)
    if fix.name == "reranking" and systems.reranker is None:
        step = "nearer fix --set rerank.model=train"
        return Absence(fix.name, "no reranker is at hand (rerank.model)", step)
    if fix.name in ("chunking", "base_model") and not base.dense:
        return Absence(fix.name, f"{base.system} searches no vectors of ours")
    if fix.name == "chunking":
        step = "nearer fix --set 'fix.chunkers=[tokens:128:32]'"
        return Absence(fix.name, "no other chunks are named (fix.chunkers)", step)
    if fix.name == "base_model":
        return _no_model()
    if fix.name == "metadata":
        return Absence(fix.name, "no dev query declares or names a filter")
    return Absence(fix.name, "it has nothing to change in this system")


def _no_rewriting(base: Pipeline, systems: Systems) -> Absence:
    if base.system == "run":
        return Absence("rewriting", "a file of results cannot be asked anew")
    if systems.config.fix.rewriters:
        return Absence("rewriting", "no rewriter changes a dev query")
    step = "nearer fix --set 'fix.rewriters=[acronyms]'"
    return Absence("rewriting", "no rewriter is named (fix.rewriters)", step)


def untried(settings: Config, fixes: Sequence[Fix], absences: Sequence[Absence]) -> list[Absence]:
    """What simpler fixes, or parts of them, were not tried: absent ones, and those left out."""
    asked = [fix.name for fix in fixes]
    left_out = [
        Absence(name, "fix.fixes leaves it out", f"nearer fix --set 'fix.fixes=[{name}]'")
        for name in FIXES
        if name not in asked
    ]
    parts = [reason for reason in absences if not reason.tried]
    # Smaller vectors of today's model are measured under the same name: they are no other model.
    known = [reason.fix for reason in parts]
    if "base_model" in asked and "base_model" not in known and not settings.fix.models:
        parts.append(_no_model())
    return [*parts, *left_out]


def _no_model() -> Absence:
    step = "nearer fix --set 'fix.models=[FOLDER]'"
    return Absence("base_model", "no other embedding model is named (fix.models)", step)


def untried_pieces(settings: Config, failures: Sequence[Mapping[str, Any]]) -> list[Absence]:
    """Chunks that the diagnosis found to repair failures, which `fix.chunkers` does not name."""
    counts: Counter[str] = Counter()
    for line in failures:
        finer = line.get("probes", {}).get("finer", {})
        if line["cause"] != "chunking" or not finer.get("found"):
            continue
        ranks = {spec: rank for spec, rank in finer["variants"].items() if rank is not None}
        counts[min(ranks, key=lambda spec: ranks[spec])] += 1
    return [
        Absence(
            "chunking",
            f"{spec} finds {count} diagnosed failures and is not among fix.chunkers",
            f"nearer fix --set 'fix.chunkers=[{spec}]'",
        )
        for spec, count in counts.most_common()
        if spec not in settings.fix.chunkers
    ]
