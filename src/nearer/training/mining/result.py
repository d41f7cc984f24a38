"""What `mine` returns: the examples, and an account of everything left out or weighted down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.results import Block, Line, Result
from nearer.training.examples import read_examples
from nearer.training.mining.suspects import Suspect
from nearer.types import Example

#: Said where no example has a hard negative.
NO_HARD_NEGATIVES = "no hard negatives"
_SAMPLE = "sample.jsonl"
_SUSPECTS = "suspects.jsonl"


@dataclass(frozen=True, slots=True)
class Account:
    """How the examples came about.

    `considered` counts (example, candidate) pairs, `rejected` those that each rule turned down;
    `similarities` is a histogram of positives and negatives (`bins`, `positives`, `negatives`);
    `noise` says how the suspects were found; `sample` are some examples with their texts.
    """

    considered: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    similarities: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Any] = field(default_factory=dict)
    sample: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Its part of `summary.json`."""
        rejections = {}
        for rule, count in sorted(self.rejected.items(), key=lambda entry: (-entry[1], entry[0])):
            share = round(count / self.considered, 4) if self.considered else 0.0
            rejections[rule] = {"count": count, "share": share}
        return {
            "candidates": {"considered": self.considered, "rejected": rejections},
            "similarities": dict(self.similarities),
            "noise": dict(self.noise),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, summary: Mapping[str, Any], sample: Iterable[Mapping[str, Any]]) -> Account:
        """What `as_dict` put into a summary; a summary of before that is an empty account."""
        candidates = summary.get("candidates", {})
        rejected = candidates.get("rejected", {})
        return cls(
            considered=candidates.get("considered", 0),
            rejected={rule: counted["count"] for rule, counted in rejected.items()},
            similarities=summary.get("similarities", {}),
            noise=summary.get("noise", {}),
            sample=tuple(sample),
            warnings=tuple(summary.get("warnings", ())),
        )


@dataclass(frozen=True)
class Mined(Result):
    """Examples kept, and what was dropped, by reason."""

    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    #: of the held-out guard: training queries that collide with dev or test, by kind
    leakage: Mapping[str, int]
    suspects: tuple[Suspect, ...] = ()
    account: Account = field(default_factory=Account)

    def save(self, folder: Path) -> None:
        """`examples.jsonl`, `suspects.jsonl`, `sample.jsonl` and `summary.json`."""
        write_jsonl(folder / "examples.jsonl", (example.as_dict() for example in self.examples))
        write_jsonl(folder / _SUSPECTS, (suspect.as_dict() for suspect in self.suspects))
        write_jsonl(folder / _SAMPLE, self.account.sample)
        write_json(folder / "summary.json", self.summary())

    @classmethod
    def load(cls, folder: Path) -> Mined:
        """Read what `save` wrote.  Raises DataError for a damaged file."""
        summary = read_json(folder / "summary.json")
        examples = tuple(read_examples(folder / "examples.jsonl"))
        suspects = tuple(map(Suspect.from_dict, _lines(folder / _SUSPECTS)))
        account = Account.from_dict(summary, _lines(folder / _SAMPLE))
        dropped, leakage = summary.get("dropped", {}), summary.get("leakage", {})
        return cls(examples, dropped, leakage, suspects, account)

    def brief(self) -> dict[str, Any]:
        """The summary without what only the report draws."""
        summary = self.summary()
        del summary["similarities"]
        return summary

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per example."""
        return (example.as_dict() for example in self.examples)

    def blocks(self) -> list[Block]:
        summary = self.summary()
        mean = summary["negatives"]["mean"]
        lines = [Line(f"{summary['examples']:,} examples, {mean:.2f} hard negatives each")]
        lines += [Line(warning, "warn") for warning in self.account.warnings]
        if self.suspects:
            lines.append(Line(self._suspects_in_words(), "dim"))
        for reason, count in summary["dropped"].items():
            lines.append(Line(f"  · dropped {count:,}: {reason}", "dim"))
        return [*lines]

    def _suspects_in_words(self) -> str:
        action = self.account.noise.get("action", "listed")
        return f"  · {len(self.suspects):,} positives are probably wrong: {action} (suspects.jsonl)"

    def summary(self) -> dict[str, Any]:
        """What was kept, dropped by reason, and found to leak: `summary.json`."""
        counts = [len(example.negatives) for example in self.examples]
        weights = [example.weight for example in self.examples]
        sources: Counter[str] = Counter()
        for example in self.examples:
            sources.update(part.split("#")[0] for part in example.source)
        return {
            "examples": len(self.examples),
            "kept": len(self.examples),
            "queries": len({example.query_id or example.query for example in self.examples}),
            "documents": len({example.positive for example in self.examples}),
            "passages": sum(example.positive_passage is not None for example in self.examples),
            "negatives": {
                "total": sum(counts),
                "mean": round(float(np.mean(counts)), 3) if counts else 0.0,
                "without": counts.count(0),
            },
            "weights": {
                "total": round(sum(weights), 3),
                "below_1": sum(weight < 1 for weight in weights),
            },
            "sources": dict(sources),
            "suspects": len(self.suspects),
            "dropped": dict(sorted(self.dropped.items())),
            "leakage": dict(sorted(self.leakage.items())),
            **self.account.as_dict(),
        }


def _lines(path: Path) -> Iterable[Any]:
    """The lines of a file that older runs and files of others may lack."""
    return read_jsonl(path) if path.is_file() else ()
