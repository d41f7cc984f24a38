"""The lifecycle of an embedding model, stage by stage.  Start reading here.

Data flows one way, downwards.  A stage never imports another stage: it reads the files that the
earlier ones wrote under `runs/NAME/`, so each can be run alone, resumed, or replaced by a file
that somebody else wrote in the same format.

`reads` names inputs whose *content* decides whether a stage must run again:
`data` (the files named in the config's data section), `model` (the model folder), `other models`
(those that `fix` tries, the reranker, dictionaries), `system` (the user's own run files), `guard`
(the general-ability set), `bridge` (the generation that decide.bridge names), `loss` and `guardrails`
(the modules of the user's own that train.loss and decide.guardrails.more name), or a path below
`runs/NAME/`.
A path may go on with `#KEY`: of that JSON file the key alone counts.
`settings` names the config sections that matter to it.  Raise `version` when a change of code
changes results.

Only `decide` reads `check/split/test`; tests/test_heldout.py proves it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    question: str
    reads: tuple[str, ...]
    settings: tuple[str, ...]
    version: int = 1
    resumable: bool = False  # keeps its unfinished work folder, to go on after a kill

    @property
    def module(self) -> str:
        """Module with `step(context)`, imported only when the stage runs."""
        return f"nearer.stages.{self.name}"


#: What `check` noticed about queries and documents (see `nearer.data.items`).
_ITEMS = "check/findings.json#item_to_item"

#: What searching train and dev queries takes, the reranker that is trained on the way included.
_SEARCHED = (
    "corpus",
    "check/split/train",
    "check/split/dev",
    "check/heldout.npz",
    "check/near_duplicates.json",
    _ITEMS,
    "model",
    "system",
)

STAGES: tuple[Stage, ...] = (
    Stage(
        "check",
        "Can this data be trusted to train and to judge?",
        reads=("data", "model"),
        settings=("seed", "data", "model", "check"),
        version=2,  # which data is item to item, and which texts are blank
    ),
    Stage(
        "evaluate",
        "How well does today's search do, and for whom?",
        reads=("corpus", "check/split/train", "check/split/dev", _ITEMS, "model", "system"),
        settings=("seed", "data", "model", "search", "evaluate"),
        version=2,
    ),
    Stage(
        "diagnose",
        "Why did each failing query fail, and what is the cheapest thing that repairs it?",
        reads=(*_SEARCHED, "other models"),
        settings=(
            "seed",
            "data",
            "model",
            "search",
            "rerank",
            "check",
            "evaluate",
            "diagnose",
            "fix",
        ),
        version=2,
    ),
    Stage(
        "fix",
        "How far do simpler fixes go: metadata, rewriting, hybrid, reranking, chunking, a better base model?",
        reads=(*_SEARCHED, "other models", "diagnose/failures.jsonl"),
        settings=(
            "seed",
            "data",
            "model",
            "search",
            "rerank",
            "check",
            "evaluate",
            "diagnose",
            "fix",
            "decide",
        ),
        version=2,
    ),
    Stage(
        "mine",
        "Which examples teach the distinctions that failed?",
        reads=(
            "corpus",
            "training",
            "check/split/train",
            "check/heldout.npz",
            "check/near_duplicates.json",
            _ITEMS,
            "model",
        ),
        settings=("seed", "data", "model", "search", "check", "mine"),
        version=2,
    ),
    Stage(
        "train",
        "Can the model learn them without forgetting the rest?",
        reads=(
            "corpus",
            "check/split/train",
            "check/split/dev",
            "check/near_duplicates.json",
            _ITEMS,
            "mine/examples.jsonl",
            "model",
            "loss",
        ),
        settings=("seed", "data", "model", "search", "evaluate", "train"),
        version=2,
        resumable=True,
    ),
    Stage(
        "decide",
        "Ship it, take a simpler fix, or stop?",
        reads=(
            "corpus",
            "check/split",
            # For a reranker that is trained on the way.
            "check/heldout.npz",
            "check/near_duplicates.json",
            _ITEMS,
            "evaluate/summary.json",
            "diagnose/summary.json",
            "fix/summary.json",
            "mine/summary.json",
            "train",
            "model",
            "other models",
            "system",
            "guard",
            "guardrails",
            "bridge",
        ),
        settings=("seed", "data", "model", "search", "rerank", "evaluate", "decide"),
        version=2,
    ),
    Stage(
        "report",
        "What do we show the people who must agree?",
        reads=(
            "check/findings.json",
            "evaluate",
            "diagnose/summary.json",
            "fix",
            "mine/summary.json",
            "train/history.jsonl",
            "train/summary.json",
            "decide",
        ),
        settings=(),
        version=2,
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}


def between(first: str | None, last: str | None) -> tuple[Stage, ...]:
    """Stages from `first` to `last`, both included.  Raises KeyError for an unknown name."""
    names = [stage.name for stage in STAGES]
    start = names.index(BY_NAME[first].name) if first else 0
    stop = names.index(BY_NAME[last].name) if last else len(names) - 1
    return STAGES[start : stop + 1]
