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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearer.errors import NearerError
    from nearer.live.index.searcher import Searcher
    from nearer.project import Project, load
    from nearer.stages.check import run as check
    from nearer.stages.decide import run as decide
    from nearer.stages.diagnose import run as diagnose
    from nearer.stages.evaluate import run as evaluate
    from nearer.stages.fix import run as fix
    from nearer.stages.mine import run as mine
    from nearer.stages.train import run as train

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


#: Exported names that are not stages → where they are.
_HOMES = {
    "NearerError": "nearer.errors",
    "Project": "nearer.project",
    "Searcher": "nearer.live.index.searcher",
    "load": "nearer.project",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"nearer.stages.{name}").run
    raise AttributeError(f"module 'nearer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
