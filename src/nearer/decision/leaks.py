"""Training examples that are held-out queries after all, whoever wrote the file of examples.

Mining leaves them out.  A file that somebody else wrote, or a guard that was made for other splits,
does not: this looks at what training really read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nearer.types import Example

#: Different queries that are looked at; of more, this many spread evenly.
MOST = 20_000
_BY_ID = "a held-out query by its id"
_IN_WORDS = {"exact": "the text of a held-out query", "near-duplicate": "nearly a held-out query"}


@dataclass(frozen=True, slots=True)
class Leaks:
    """How many training examples have a query that is held out, by kind, of how many."""

    examples: int = 0
    found: Mapping[str, int] = field(default_factory=dict)
    queries: int = 0  # different ones
    looked_at: int = 0  # of them

    @property
    def total(self) -> int:
        return sum(self.found.values())

    def in_words(self) -> str:
        """What leaks, by kind; empty where nothing does."""
        kinds = (f"{count:,} have {kind}" for kind, count in self.found.items())
        return ", ".join(kinds)

    def as_dict(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "found": dict(self.found),
            "queries": self.queries,
            "looked_at": self.looked_at,
        }


def leaks(
    examples: Iterable[Example],
    texts: Mapping[str, str],
    held_out: Collection[str],
    collides: Callable[[str], str | None],
) -> Leaks:
    """Compare the queries of training examples with the held-out ones.

    `texts` are those of the training queries by id, `held_out` the ids of dev and test queries, and
    `collides` is the held-out guard.
    """
    counted: Counter[tuple[str, str]] = Counter()  # (kind of name, id or text) → examples
    for example in examples:
        named = example.query_id is not None
        key = ("id", str(example.query_id)) if named else ("text", str(example.query))
        counted[key] += 1
    queries = list(counted)
    step = max(1, -(-len(queries) // MOST))
    looked_at = queries[::step]
    found: Counter[str] = Counter()
    for key in looked_at:
        kind, name = key
        if kind == "id" and name in held_out and name not in texts:
            found[_BY_ID] += counted[key]
            continue
        text = texts.get(name, "") if kind == "id" else name
        collision = collides(text) if text else None
        if collision:
            found[_IN_WORDS.get(collision, collision)] += counted[key]
    return Leaks(counted.total(), dict(sorted(found.items())), len(queries), len(looked_at))
