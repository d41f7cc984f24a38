"""The lifecycle of an embedding model, stage by stage.  Start reading here.

Data flows one way, downwards.  A stage never imports another stage: it reads the files that the
earlier ones wrote under `runs/NAME/`, so each can be run alone, resumed, or replaced by a file
that somebody else wrote in the same format.

`reads` names inputs whose *content* decides whether a stage must run again:
`data` (the files named in the config's data section, what was generated and what was reviewed), `review` (what the
reviews say of themselves), `model` (the model folder), `other models`
(those that `fix` tries, the reranker, dictionaries), `reranker` (that one alone), `second model`
(mine.model), `system` (the user's own run files), `guard`
(the general-ability set), `production` (which generation answers, its shadow record, and whether
it is monitored), `bridge` (the generation that decide.bridge names), `graded` (the answers that
rag.graded names), `loss` and `guardrails`
(the modules of the user's own that train.loss and decide.guardrails.more name; `loss` also the
model that train.teacher names), or a path below
`runs/NAME/`.
A path may go on with `#KEY`: of that JSON file the key alone counts.
`settings` names the config sections that matter to it.  Raise `version` when a change of code
changes results.

Only `decide` reads `check/split/test`; tests/test_heldout.py proves it.

`BEFORE` makes data where there is too little; `STAGES` is what `nearer run` does; `LIVE` is what
follows in production.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Record of a finished step, written last into its folder.
STEP = "step.json"


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    question: str
    reads: tuple[str, ...]
    settings: tuple[str, ...]
    version: int = 1
    resumable: bool = False  # keeps its unfinished work folder, to go on after a kill
    writes: str = ""  # below the project's folder, in words
    home: str = ""  # module or package, where it is not nearer.stages.NAME

    @property
    def module(self) -> str:
        """Module with `run(project)` and its `Result`, imported only when the stage runs."""
        return self.home or f"nearer.stages.{self.name}"


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

#: Settings of what the vectors are for: a task brings data, measures and guards.
_TASK = ("task", "recommend", "cluster")

#: What comes before the runs, where documents are all there is: a command that somebody types.
BEFORE: tuple[Stage, ...] = (
    Stage(
        "generate",
        "Which queries could the documents answer, where nobody has asked yet?",
        writes="generated/: queries, judgments, what was refused and why",
        reads=("corpus", "model", "check/split/train"),
        settings=("seed", "data", "model", "search", "check", "rag", "generate"),
        home="nearer.generated",
    ),
)

STAGES: tuple[Stage, ...] = (
    Stage(
        "check",
        "Can this data be trusted to train and to judge?",
        writes="runs/NAME/check/: findings, the frozen split, the held-out guard",
        reads=("data", "model"),
        settings=("seed", "data", "model", "check", *_TASK),
        version=8,  # splits of generated queries share no document; what met seldom in a log is kept
    ),
    Stage(
        "evaluate",
        "How well does today's search do, and for whom?",
        writes="runs/NAME/evaluate/: ranked results, scores per query, summary",
        reads=("corpus", "check/split/train", "check/split/dev", _ITEMS, "model", "system"),
        settings=("seed", "data", "model", "search", "evaluate", *_TASK),
        version=5,  # which document is in which cluster
    ),
    Stage(
        "diagnose",
        "Why did each failing query fail, and what is the cheapest thing that repairs it?",
        writes="runs/NAME/diagnose/: one line per failure, with every probe",
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
            *_TASK,
        ),
        version=5,  # the reranker reads until an outcome is known
    ),
    Stage(
        "fix",
        "How far do simpler fixes go: metadata, rewriting, hybrid, reranking, chunking, a better base model?",
        writes="runs/NAME/fix/: one trial per fix and setting, the best combination",
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
            *_TASK,
        ),
        version=4,  # rerankers and other models are found by themselves; the shallowest depth
    ),
    Stage(
        "mine",
        "Which examples teach the distinctions that failed?",
        writes="runs/NAME/mine/: examples with their sources, what was dropped and why",
        reads=(
            "corpus",
            "training",
            "check/split/train",
            "check/heldout.npz",
            "check/near_duplicates.json",
            _ITEMS,
            "model",
            "reranker",
            "second model",
        ),
        settings=("seed", "data", "model", "search", "rerank", "check", "mine", *_TASK),
        version=7,  # what met an item in the log, and its near-duplicates, are no negatives
    ),
    Stage(
        "train",
        "Can the model learn them without forgetting the rest?",
        writes="runs/NAME/train/: the model with its card, its history, checkpoints while it trains",
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
        settings=("seed", "data", "model", "search", "evaluate", "mine", "train", *_TASK),
        version=7,  # few examples are passed over more often
        resumable=True,
    ),
    Stage(
        "decide",
        "Ship it, take a simpler fix, or stop?",
        writes="runs/NAME/decide/: the decision record; a line per look at test",
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
            "mine/examples.jsonl",  # whether a test query is among them
            "train",
            "model",
            "other models",
            "system",
            "guard",
            "guardrails",
            "bridge",
            "graded",
        ),
        settings=(
            "seed",
            "data",
            "model",
            "search",
            "rerank",
            "check",
            "evaluate",
            "decide",
            "rag",
            *_TASK,
        ),
        version=8,  # which document is in which cluster
    ),
    Stage(
        "report",
        "What do we show the people who must agree?",
        writes="runs/NAME/report/: report.html and report.md",
        reads=(
            "check/findings.json",
            "evaluate",
            "diagnose/summary.json",
            "diagnose/failures.jsonl",
            "fix",
            "mine/summary.json",
            "mine/sample.jsonl",
            "train/candidates.json",
            "train/history.jsonl",
            "train/summary.json",
            "decide",
            "review",
            "production",
        ),
        settings=(),
        version=7,  # what people picked as the odd one out
    ),
)

#: What runs in production, beside the runs: commands that start when somebody types them or a clock
#: does, not because an input changed.  `reads` names what they rest on.
LIVE: tuple[Stage, ...] = (
    Stage(
        "index",
        "Which generation of vectors answers, and can the next one take over safely?",
        writes="generations/ID/: manifest, model, parts; the ACTIVE pointer; the vector store",
        reads=("corpus", "model", "decide/decision.json"),
        settings=("data", "model", "search", "rerank", "index"),
        home="nearer.live.index",
    ),
    Stage(
        "serve",
        "What answers users: the pipeline that was judged, over the active generation?",
        writes="the traffic log: one file per day",
        reads=("corpus", "decide/decision.json"),
        settings=("index", "serve"),
        home="nearer.live.web",
    ),
    Stage(
        "shadow",
        "What would change for real traffic?",
        writes="generations/ROLLOUT; the shadow record",
        reads=("check/split/dev",),
        settings=("index", "serve", "shadow"),
        home="nearer.live.rollout",
    ),
    Stage(
        "monitor",
        "Is it still good, and if not, which condition fired?",
        writes="monitor/: the series, one report per day, alerts",
        reads=("corpus", "model", "check/split/dev"),
        settings=("data", "model", "index", "serve", "monitor"),
        home="nearer.live.monitor",
    ),
    Stage(
        "pool",
        "Which queries make a fair test set, and what do the judgments so far say of each system?",
        writes="review/pools/NAME/: queries, pooled results, what is judged of them",
        reads=("corpus", "check/split/train", "check/split/dev", "check/heldout.npz", "model"),
        settings=("data", "model", "search", "evaluate", "decide", "review"),
        home="nearer.review",
    ),
    Stage(
        "review",
        "What do people say is relevant, and how many more judgments would settle the verdict?",
        writes="review/: the log of judgments, the pairs to judge, qrels.tsv for the next check",
        reads=("corpus", "check/split/train", "check/split/dev", "evaluate", "decide"),
        settings=("data", "decide", "evaluate", "review"),
        home="nearer.review",
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}


def between(first: str | None, last: str | None) -> tuple[Stage, ...]:
    """Stages from `first` to `last`, both included.  Raises KeyError for an unknown name."""
    names = [stage.name for stage in STAGES]
    start = names.index(BY_NAME[first].name) if first else 0
    stop = names.index(BY_NAME[last].name) if last else len(names) - 1
    return STAGES[start : stop + 1]
