"""What `nearer generate` writes: queries, judgments, refusals and their counts, all at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nearer.data import fields, trec
from nearer.data.generated import MARK
from nearer.errors import DataError
from nearer.files import read_json, recover_folder, swap_folder, write_json, write_jsonl, write_text
from nearer.generated.filters import Candidate, Dropped
from nearer.results import Block, Line, Result, Row, Table
from nearer.types import Judgments, Query

FOLDER = "generated"


@dataclass(frozen=True)
class Generated(Result):
    """Generated queries with the documents that answer them; `summary` is `summary.json`."""

    queries: tuple[Query, ...]
    judgments: Judgments
    summary: Mapping[str, Any]
    dropped: Sequence[Dropped] = ()

    @classmethod
    def of(
        cls, kept: Mapping[str, Candidate], dropped: Sequence[Dropped], summary: Mapping[str, Any]
    ) -> Self:
        """From what was kept, by query id."""
        queries = []
        judgments = {}
        for query_id, candidate in sorted(kept.items()):
            marks = {MARK: True, "kind": candidate.kind, "generator": summary["generator"]}
            tags = (f"generated {candidate.kind}",)
            queries.append(Query(query_id, candidate.text, tags=tags, metadata=marks))
            judgments[query_id] = dict.fromkeys(candidate.doc_ids, 1)
        return cls(tuple(queries), judgments, summary, tuple(dropped))

    def save(self, folder: Path) -> None:
        """`queries.jsonl`, `qrels.tsv`, `dropped.jsonl` and, last, `summary.json`."""
        lines = ["query-id\tcorpus-id\tscore\n"]
        for query_id, grades in self.judgments.items():
            lines += [f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in grades.items()]
        write_jsonl(folder / "queries.jsonl", map(fields.query_line, self.queries))
        write_text(folder / "qrels.tsv", "".join(lines))
        write_jsonl(folder / "dropped.jsonl", map(_dropped_line, self.dropped))
        write_json(folder / "summary.json", self.summary)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The queries and the summary; what was refused stays in its file.  Raises DataError."""
        queries = fields.read_queries(folder / "queries.jsonl")
        judgments = trec.read_qrels(folder / "qrels.tsv")
        summary = read_json(folder / "summary.json")
        return cls(tuple(queries.values()), judgments, summary)

    def brief(self) -> dict[str, Any]:
        return dict(self.summary)

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per query."""
        for query in self.queries:
            documents = list(self.judgments[query.id])
            yield {"query_id": query.id, "text": query.text, "documents": documents}

    def blocks(self) -> list[Block]:
        summary = self.summary
        head = (
            f"{summary['kept']:,} of {summary['proposed']:,} proposed queries kept, for "
            f"{summary['documents_with_queries']:,} of {summary['documents']:,} documents "
            f"({summary['generator']})"
        )
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary["kinds"].items())
        rows = [Row((reason, f"{count:,}")) for reason, count in summary["dropped"].items()]
        blocks: list[Block] = [Line(head), Line(f"kinds: {kinds}", "dim")]
        if rows:
            blocks.append(Table(("left out, because", "queries"), rows, ("left out, because",)))
        shown = [Line(f"  · {query.text}", "dim") for query in self.queries[:5]]
        return [*blocks, *shown]


def _dropped_line(row: Dropped) -> dict[str, Any]:
    candidate = row.candidate
    return {
        "text": candidate.text,
        "kind": candidate.kind,
        "documents": list(candidate.doc_ids),
        "reason": row.reason,
    }


def write(result: Generated, root: Path) -> Path:
    """Put the result at `root/generated`, in place of an earlier one, whole or not at all.

    Raises DataError where something else stands there.
    """
    target, aside = root / FOLDER, root / f".{FOLDER}.old"
    recover_folder(target, aside)
    require_ours(target)
    new = root / f".{FOLDER}.new"
    for path in new.glob("*"):  # what a kill left
        path.unlink()
    result.save(new)
    swap_folder(new, target, aside)
    return target


def require_ours(folder: Path) -> None:
    """Raise DataError where a folder `generated` is not what nearer wrote."""
    if not folder.exists():
        return
    try:
        ours = json.loads((folder / "summary.json").read_text(encoding="utf-8")).get(MARK) is True
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise DataError(
            "there is a folder of that name that `nearer generate` did not write",
            where=str(folder),
            next_step="move it, then run the same command again",
        )
