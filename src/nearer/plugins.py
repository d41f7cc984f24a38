"""What can be replaced: one table per seam, of ours, of installed packages, and of your own.

A seam is a small protocol (`Seam.contract` says where it stands).  An implementation is found by
name, in this order:

1. ours, from the table below;
2. one that an installed package brings: an entry point of the group `nearer.plugins` whose name is
   `SEAM.NAME`, for example `loss.focal = "my_package.focal:FocalLoss"`;
3. `"my_module:MyClass"`, from the project's folder or from anywhere that Python imports from.

Adding one of ours means one new file and one line here.  Nothing is imported until it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from nearer.errors import ConfigError, ModelError, NearerError, SearchSystemError

#: The entry-point group that packages use; each name is `SEAM.NAME`.
GROUP = "nearer.plugins"


@dataclass(frozen=True, slots=True)
class Seam:
    """One thing that can be replaced."""

    name: str
    contract: str  # "module:Protocol" that every implementation satisfies
    setting: str  # the setting in nearer.yaml that names an implementation
    ours: Mapping[str, str] = field(default_factory=dict)  # name → "module:attribute"


SEAMS: Mapping[str, Seam] = {
    seam.name: seam
    for seam in (
        Seam(
            "store",
            contract="nearer.live.stores.base:VectorStore",
            setting="index.store",
            ours={
                "lancedb": "nearer.live.stores.lance:LanceStore",
                "postgres": "nearer.live.stores.postgres:PostgresStore",
                "qdrant": "nearer.live.stores.qdrant:QdrantStore",
                "numpy": "nearer.live.stores.numpy_store:NumpyStore",
            },
        ),
        Seam(
            "fix",
            contract="nearer.fixes.base:Fix",
            setting="fix.fixes",
            ours={  # cheapest first: the order in which they are climbed
                "metadata": "nearer.fixes.metadata:Metadata",
                "rewriting": "nearer.fixes.rewriting:Rewriting",
                "hybrid": "nearer.fixes.hybrid:Hybrid",
                "reranking": "nearer.fixes.reranking:Reranking",
                "chunking": "nearer.fixes.chunking:Chunking",
                "base_model": "nearer.fixes.base_model:BaseModel",
                "diversity": "nearer.fixes.diversity:Diversity",
            },
        ),
        Seam(
            "cause",
            contract="nearer.diagnosis.causes.base:Cause",
            setting="installed packages",  # no setting names causes: all of them are asked
            ours={  # by the cost of their repair; the last three have none of their own
                "missing_document": "nearer.diagnosis.causes.missing_document:CAUSE",
                "ineligible": "nearer.diagnosis.causes.ineligible:CAUSE",
                "needs_metadata": "nearer.diagnosis.causes.needs_metadata:CAUSE",
                "chunking": "nearer.diagnosis.causes.chunking:CAUSE",
                "exact_match": "nearer.diagnosis.causes.exact_match:CAUSE",
                "index_loss": "nearer.diagnosis.causes.index_loss:CAUSE",
                "ranking": "nearer.diagnosis.causes.ranking:CAUSE",
                "base_model": "nearer.diagnosis.causes.base_model:CAUSE",
                "semantic": "nearer.diagnosis.causes.semantic:CAUSE",
                "label_suspect": "nearer.diagnosis.causes.label_suspect:CAUSE",
                "unknown": "nearer.diagnosis.causes.unknown:CAUSE",
            },
        ),
        Seam(
            "loss",
            contract="nearer.training.losses.base:Loss",
            setting="train.loss",
            ours={
                "ranking": "nearer.training.losses.ranking:RankingLoss",
                "triplet": "nearer.training.losses.triplet:TripletLoss",
                "cosent": "nearer.training.losses.cosent:CoSentLoss",
                "angle": "nearer.training.losses.angle:AngleLoss",
                "cosine": "nearer.training.losses.cosine:CosineLoss",
                "listwise": "nearer.training.losses.listwise:ListwiseLoss",
                "margin_mse": "nearer.training.losses.margin_mse:MarginMseLoss",
                "distill_kl": "nearer.training.losses.distill_kl:DistillKlLoss",
                "mse": "nearer.training.losses.mse:MseLoss",
                "supcon": "nearer.training.losses.supcon:SupConLoss",
                "batch_hard": "nearer.training.losses.batch_hard:BatchHardLoss",
            },
        ),
        Seam(
            "guardrail",
            contract="nearer.guardrails.base:Guardrail",
            setting="decide.guardrails.more",
            ours={
                "slices": "nearer.guardrails.slices:SliceGuardrail",
                "general": "nearer.guardrails.general:GeneralGuardrail",
                "latency": "nearer.guardrails.latency:LatencyGuardrail",
                "named": "nearer.guardrails.named:NamedGuardrail",
                "leakage": "nearer.guardrails.leakage:LeakageGuardrail",
                "tasks": "nearer.guardrails.tasks:TaskGuardrail",
                "memory": "nearer.guardrails.memory:MemoryGuardrail",
            },
        ),
        Seam(
            "chunker",
            contract="nearer.search.chunkers.base:Chunker",
            setting="chunker",
            ours={
                "document": "nearer.search.chunkers.windows:WholeDocument",
                "tokens": "nearer.search.chunkers.windows:TokenWindows",
                "sentences": "nearer.search.chunkers.structure:Sentences",
                "paragraphs": "nearer.search.chunkers.structure:Paragraphs",
                "recursive": "nearer.search.chunkers.structure:Recursive",
                "semchunk": "nearer.search.chunkers.libraries:Semchunk",
                "chonkie": "nearer.search.chunkers.libraries:Chonkie",
            },
        ),
        Seam(
            "retriever",
            contract="nearer.search.base:Retriever",
            setting="search.system",
            ours={
                "dense": "nearer.search.retrievers:dense",
                "bm25": "nearer.search.retrievers:bm25",
                "rrf": "nearer.search.retrievers:hybrid",
                "convex": "nearer.search.retrievers:hybrid",
                "run": "nearer.search.retrievers:run_file",
                "function": "nearer.search.retrievers:function",
                "http": "nearer.search.retrievers:http",
                "popularity": "nearer.search.engagement:popularity",
                "item_knn": "nearer.search.engagement:item_knn",
                "item_hybrid": "nearer.search.engagement:item_hybrid",
            },
        ),
        Seam(
            "encoder",
            contract="nearer.embed.base:Embedder",
            setting="model.name",
            ours={
                "sentence_transformers": "nearer.embed.encoder:SentenceEncoder",
                "openai": "nearer.embed.endpoint:EndpointEmbedder",
            },
        ),
        Seam(
            "task",
            contract="nearer.tasks.base:Task",
            setting="task",
            ours={
                "search": "nearer.tasks.search:SearchTask",
                "recommend": "nearer.tasks.recommend:RecommendTask",
                "cluster": "nearer.tasks.cluster:ClusterTask",
            },
        ),
        Seam(
            "reranker",
            contract="nearer.search.rerank.base:Reranker",
            setting="rerank.model",
            ours={
                "cross_encoder": "nearer.search.rerank.cross_encoder:CrossEncoderReranker",
            },
        ),
        Seam(
            "generator",
            contract="nearer.generated.base:QueryGenerator",
            setting="generate.generator",
            ours={
                "local": "nearer.generated.local:LocalGenerator",
                "openai": "nearer.generated.chat:ChatGenerator",
            },
        ),
        Seam(
            "judge",
            contract="nearer.review.judge:RelevanceJudge",
            setting="review.judge",
            ours={
                "chat": "nearer.review.judge:ChatJudge",
            },
        ),
    )
}


def names(seam: str) -> tuple[str, ...]:
    """Names of all implementations of a seam that are there: ours first, then installed ones."""
    installed = sorted(_installed(seam))
    return tuple(dict.fromkeys([*SEAMS[seam].ours, *installed]))


def require(seam: str, name: str) -> str:
    """The name itself, where something stands behind it or it has the form of `"module:Name"`.

    Nothing is imported.  Raises ConfigError for an unknown name, with the nearest known one.
    """
    if name in SEAMS[seam].ours or ":" in name or name in names(seam):
        return name
    raise _unknown(seam, name)


def find(seam: str, name: str, root: Path | None = None) -> Any:
    """The class or function that `name` stands for.

    `root` is where the module of `"module:Name"` is looked for first.  Raises ConfigError for an
    unknown name, SearchSystemError when a module of the user's cannot be imported.
    """
    ours = SEAMS[seam].ours.get(name)
    if ours is not None:
        module, _, attribute = ours.partition(":")
        return getattr(importlib.import_module(module), attribute)
    installed = _installed(seam).get(name)
    if installed is not None:
        return _load(installed, SEAMS[seam])
    if ":" in name:
        return import_from(name, root or Path(), SEAMS[seam].setting)
    raise _unknown(seam, name)


def make(implementation: Any, spec: Any, where: str) -> Any:
    """An instance of a class: of its `from_spec(spec)` where it has one, else made without arguments.

    `where` is what the settings say.  Raises ModelError when it cannot be made; nearer's own errors
    pass as they are.
    """
    try:
        if hasattr(implementation, "from_spec"):
            return implementation.from_spec(spec)
        return implementation()
    except NearerError:
        raise
    except Exception as error:
        raise ModelError(
            f"making it raised {type(error).__name__}: {error}",
            where=where,
            next_step="mend the class",
        ) from error


def answerer(seam: str, name: str, spec: Any, contract: type[Any], method: str) -> Any:
    """The instance of a seam whose answers carry its `name`, made and held to its protocol.

    `method` is what it is asked with, for people.  Raises ConfigError for an unknown name, ModelError
    for one that cannot be made or has no name or method.
    """
    implementation = find(seam, name, spec.root)
    where = f"{SEAMS[seam].setting}: {name}"
    instance: Any = make(implementation, spec, where)
    with answering(instance, "name"):
        usable = isinstance(instance, contract) and isinstance(getattr(instance, "name", None), str)
    if not usable:
        raise ModelError(
            f"it has no name, or no {method}",
            where=where,
            next_step=f"see {contract.__name__} in {contract.__module__.replace('.', '/')}.py",
        )
    return instance


def named(instance: Any) -> str:
    """`module:Class` of a plug-in, as the settings name it."""
    kind = type(instance)
    return f"{kind.__module__}:{kind.__qualname__}"


@contextmanager
def answering(instance: Any, doing: str) -> Iterator[None]:
    """Around a call of a plug-in: whatever it raises becomes a ModelError that names it.

    `doing` is the call, as in "grade(items)".  nearer's own errors pass as they are, and so does
    what nearer's own implementations raise: that is a bug.
    """
    try:
        yield
    except NearerError:
        raise
    except Exception as error:
        if type(instance).__module__.partition(".")[0] == "nearer":
            raise
        raise ModelError(
            f"its {doing} raised {type(error).__name__}: {error}"[:500],
            where=named(instance),
            next_step=f"mend {doing} of the class",
        ) from error


def _unknown(seam: str, name: str) -> ConfigError:
    """What to raise for a name that nothing has, with the nearest known one."""
    there = names(seam)
    nearest = difflib.get_close_matches(name, there, n=1)
    advice = f"use one of {', '.join(there)}." if there else f"nearer has no {seam} of its own."
    if nearest:
        advice = f"did you mean {nearest[0]}?"
    return ConfigError(
        f"no {seam} called {name!r}",
        where=SEAMS[seam].setting,
        next_step=f'{advice} Your own is named "module:Name"',
    )


def _installed(seam: str) -> dict[str, EntryPoint]:
    """Entry points of a seam, by the name behind `SEAM.`."""
    prefix = f"{seam}."
    points = entry_points(group=GROUP)
    return {
        point.name.removeprefix(prefix): point for point in points if point.name.startswith(prefix)
    }


def _load(point: EntryPoint, seam: Seam) -> Any:
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else point.value
        raise ConfigError(
            f"the plug-in {point.name} cannot be loaded: {type(error).__name__}: {error}",
            where=f"package {package}, {seam.setting}",
            next_step=f"repair or uninstall {package}",
        ) from error


def import_from(name: str, root: Path, setting: str, what: str = "Class") -> Any:
    """The user's own function or class `"module:name"`, its module looked for in `root` and then as usual.

    Raises ConfigError (of `setting`) for another form of name, SearchSystemError when there is no
    such thing or its module cannot be imported.
    """
    module_name, colon, attribute = name.partition(":")
    top = module_name.partition(".")[0]
    names = [*module_name.split("."), attribute]
    if not (colon and all(part.isidentifier() for part in names)) or module_name.endswith(".py"):
        raise ConfigError(
            f"{name!r} is not module:{what}",
            where=setting,
            next_step="give the module's name, without .py, and a name in it",
        )
    module = _imported(module_name, name, root)
    mine = next(
        (path for path in (root / f"{top}.py", root / top / "__init__.py") if path.is_file()), None
    )
    loaded = getattr(sys.modules[top], "__file__", None)
    if mine is not None and (loaded is None or not mine.samefile(loaded)):
        raise SearchSystemError(
            f"{top} was already imported, from {loaded or 'Python itself'}",
            where=name,
            next_step=f"rename {mine}",
        )
    function = getattr(module, attribute, None)
    if not callable(function):
        problem = (
            f"{attribute} is not callable"
            if hasattr(module, attribute)
            else f"{module.__file__} has no {attribute}"
        )
        raise SearchSystemError(
            problem, where=name, next_step=f"define the {what.lower()} {attribute} there"
        )
    return function


def _imported(module_name: str, name: str, root: Path) -> ModuleType:
    """The module, looked for in `root` first.  Raises SearchSystemError; `name` is as written."""
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    sys.path.insert(0, folder := str(root.resolve()))
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        ):
            place = root / f"{module_name.replace('.', '/')}.py"
            raise SearchSystemError(
                "no such module", where=name, next_step=f"put it at {place}, or install it"
            ) from None
        raise SearchSystemError(
            f"importing it raised {type(error).__name__}: {error}",
            where=name,
            next_step="mend the module",
        ) from error
    finally:
        sys.path.remove(folder)
