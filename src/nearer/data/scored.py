"""Scored pairs that are held out: pairs of texts, each with the score of their similarity.

Where plain training files of scored pairs are all the data, there are no queries to judge.  Models
are then judged by how well the similarities of pairs follow their scores, on pairs of dev and test
that training does not see.  They lie beside the split: `check/split/{dev,test}/pairs.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nearer import files
from nearer.config import Data
from nearer.data import pairs, sources
from nearer.data.splits import make_splits
from nearer.text import folded_line
from nearer.types import Example, Query

FILE = "pairs.jsonl"
#: With fewer pairs in dev nothing can be told: none are held out then.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and the score of their similarity; `symmetric` where the first one is no query."""

    first: str
    second: str
    score: float
    symmetric: bool = True

    @property
    def identity(self) -> str:
        """One text for the pair, the same for a symmetric one in either order."""
        return pair_text(self.first, self.second, self.symmetric)

    def as_dict(self) -> dict[str, object]:
        """The line of `pairs.jsonl`."""
        return {
            "first": self.first,
            "second": self.second,
            "score": self.score,
            "symmetric": self.symmetric,
        }


def pair_text(first: str, second: str, symmetric: bool) -> str:
    """Both texts as one, to compare pairs by."""
    texts = [folded_line(first), folded_line(second)]
    if symmetric:
        texts.sort()
    return "\n".join(texts)


@dataclass(frozen=True, slots=True)
class HeldOutPairs:
    """Pairs of dev and of test, and how they came about, in sentences for people."""

    dev: tuple[ScoredPair, ...] = ()
    test: tuple[ScoredPair, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def by_split(self) -> dict[str, tuple[ScoredPair, ...]]:
        return {"dev": self.dev, "test": self.test}


def held_out_pairs(data: Data, root: Path, seed: int, near_duplicate: float) -> HeldOutPairs:
    """The files of `data.scored`; what it does not name is taken from the training files.

    Nothing is held out unless scored pairs are all the data.  Raises DataError for a file with
    pairs that have no score, and for shares that leave nothing.
    """
    examples: list[Example] = []
    if sources.is_only_training(data):
        for path in sources.training_files(data, root):
            examples.extend(pairs.read_training(path))
    if not examples or any(example.score is None for example in examples):
        if data.scored:
            raise sources.bad(
                "held-out scored pairs are used where scored pairs are all the data",
                "data.scored",
                "name only training files with scores, or leave data.scored out",
            )
        return HeldOutPairs()
    given = {name: _read(path) for name, path in sources.scored_files(data, root).items()}
    missing = [name for name in ("dev", "test") if name not in given]
    notes = [
        f"{len(given[name]):,} scored pairs of {name} as the data brings them." for name in given
    ]
    if missing:
        taken, how = _taken(examples, missing, data, seed, near_duplicate)
        given |= taken
        notes += how
    return HeldOutPairs(given.get("dev", ()), given.get("test", ()), tuple(notes))


def _read(path: Path) -> tuple[ScoredPair, ...]:
    examples = pairs.read_training(path)
    if any(example.score is None for example in examples):
        raise sources.bad("held-out pairs need a score", path, "add a column `score`")
    return tuple(map(_pair, examples))


def _pair(example: Example) -> ScoredPair:
    score = float("nan") if example.score is None else example.score
    return ScoredPair(str(example.query), example.positive, score, example.symmetric)


def _taken(
    examples: Sequence[Example],
    missing: Sequence[str],
    data: Data,
    seed: int,
    near_duplicate: float,
) -> tuple[dict[str, tuple[ScoredPair, ...]], list[str]]:
    """Pairs of the training files for the splits that have no file; texts in common stay together."""
    named: dict[str, ScoredPair] = {}
    queries: dict[str, Query] = {}
    shared: dict[str, dict[str, int]] = {}
    for pair in dict.fromkeys(map(_pair, examples)):
        name = f"pair-{len(named):07d}"
        named[name] = pair
        queries[name] = Query(name, pair.identity)
        shared[name] = {folded_line(pair.first): 1, folded_line(pair.second): 1}
    shares = {"dev": 0.0, "test": 0.0} | {name: getattr(data.split, name) for name in missing}
    fewest = min((share for share in shares.values() if share), default=0.0)
    if fewest * len(named) < FEWEST:
        return {}, [f"{len(named):,} scored pairs are too few to hold any out (data.scored)."]
    settings = data.split.model_copy(update={**shares, "by": "group"})
    divided = make_splits(queries, shared, settings, seed, near_duplicate)
    taken = {}
    for name in missing:
        taken[name] = tuple(named[pair] for pair in divided.ids[name])
    sizes = ", ".join(f"{len(taken[name]):,} of {name}" for name in missing)
    together = "pairs with a text in common stay together"
    if len(divided.notes) > 1:
        together = "texts stand in many pairs, so only pairs that are nearly the same stay together"
    return taken, [f"Scored pairs held out from training: {sizes}; {together}."]


def write_pairs(folder: Path, held_out: Mapping[str, Iterable[ScoredPair]]) -> None:
    """Beside the splits in `folder`; nothing for a split without pairs."""
    for name, members in held_out.items():
        lines = [pair.as_dict() for pair in members]
        if lines:
            files.write_jsonl(folder / name / FILE, lines)


def read_pairs(folder: Path, name: str) -> tuple[ScoredPair, ...]:
    """What `write_pairs` wrote, unguarded; empty where it wrote nothing."""
    path = folder / name / FILE
    if not path.is_file():
        return ()
    found = []
    for line in files.read_jsonl(path):
        found.append(
            ScoredPair(line["first"], line["second"], float(line["score"]), line["symmetric"])
        )
    return tuple(found)
