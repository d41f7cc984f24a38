"""nearer: find out whether fine-tuning an embedding model pays, do it when it does, ship it safely.

    import nearer

    project = nearer.load("my-data", model="models/minilm")
    print(nearer.check(project).report())
    before = nearer.evaluate(project)
    print(nearer.diagnose(project))
    simple = nearer.fix(project)
    examples = nearer.mine(project).examples
    trained = nearer.train(project, examples)
    print(nearer.decide(project, trained, fixes=simple))

The stages return values and write no results; `nearer run` does the same with files.
Names load when first used, so that importing nearer is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearer.api import Project, check, decide, diagnose, evaluate, fix, load, mine, train
    from nearer.errors import NearerError
    from nearer.live.index.searcher import Searcher

__version__ = "0.1.0"
__all__ = [
    "NearerError",
    "Project",
    "Searcher",
    "__version__",
    "check",
    "decide",
    "diagnose",
    "evaluate",
    "fix",
    "load",
    "mine",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "NearerError":
        from nearer.errors import NearerError

        return NearerError
    if name == "Searcher":
        from nearer.live.index.searcher import Searcher

        return Searcher
    if name in __all__:
        from nearer import api

        return getattr(api, name)
    raise AttributeError(f"module 'nearer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
