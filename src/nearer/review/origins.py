"""What stands behind the judgments of a project: the pools that they are of, and the judge beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nearer.files import read_json, read_jsonl
from nearer.review.judgments import Subject
from nearer.review.pools import folder_of, names_of

#: What `nearer pool finish` writes into the folder of a pool.
TEST = "test.jsonl"


def pools_behind(root: Path, judged: Collection[Subject]) -> dict[str, Any]:
    """Each pool with what is judged of it, and how many judged pairs are of no pool."""
    pools = []
    pooled: set[Subject] = set()
    for name in names_of(root):
        folder = folder_of(root, name)
        facts = read_json(folder / "pool.json")
        own = {(row["query_id"], row["doc_id"]) for row in read_jsonl(folder / "pairs.jsonl")}
        test = folder / TEST
        pools.append(
            {
                "name": name,
                "source": facts["source"],
                "systems": facts["systems"],
                "queries": facts["queries"],
                "asked": facts["asked"],
                "judged": len(own.intersection(judged)),
                "test_queries": sum(1 for _ in read_jsonl(test)) if test.is_file() else 0,
            }
        )
        pooled |= own
    return {"pools": pools, "of_no_pool": len(set(judged) - pooled)}


def judge_beside(folder: Path) -> Mapping[str, Any] | None:
    """What `nearer review judge` found last; None where no judge was compared with people."""
    path = folder / "judge.json"
    if not path.is_file():
        return None
    values: Mapping[str, Any] = read_json(path)
    return values
