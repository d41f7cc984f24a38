"""What the tests of review share: a project with results that people can judge."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nearer import config
from nearer.lifecycle import between
from nearer.review.judgments import GRADE, Entry, now
from nearer.workspace import Workspace

HOSTILE = "<script>document.title = 'taken'</script>"


def workspace(path: Path, **settings: Any) -> Workspace:
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    return Workspace(path.parent, config.load(path, overrides))


def checked(path: Path) -> Workspace:
    """A project whose data was checked, with a decision between two invented systems on its test queries."""
    opened = workspace(path)
    opened.run(between("check", "check"))
    invent_lists(opened)
    return opened


def invent_lists(opened: Workspace, depth: int = 6) -> None:
    """`decide/lists.json` and `decision.json` as if two systems had been compared."""
    split = opened.run_dir / "check" / "split" / "test"
    queries = [json.loads(line) for line in (split / "queries.jsonl").read_text().splitlines()]
    judged: dict[str, dict[str, int]] = {}
    for line in (split / "qrels.tsv").read_text().splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        judged.setdefault(query_id, {})[doc_id] = int(grade)
    ids = opened.project.corpus.ids
    rows = []
    for number, query in enumerate(queries):
        some = [ids[(7 * number + step) % len(ids)] for step in range(depth + 2)]
        relevant = list(judged[query["_id"]])[:1]
        before = list(dict.fromkeys([*some[:depth], *relevant]))[:depth]
        after = list(dict.fromkeys([*relevant, *some[2:]]))[:depth]
        rows.append(
            {
                "query_id": query["_id"],
                "text": query["text"],
                "filter": None,
                "baseline": before,
                "candidate": after,
                "grades": judged[query["_id"]],
            }
        )
    folder = opened.run_dir / "decide"
    folder.mkdir(parents=True, exist_ok=True)
    values = {"baseline": "dense", "candidate": "fine-tuned", "measure": "nDCG@10"}
    (folder / "lists.json").write_text(json.dumps({**values, "queries": rows}))
    decision = {"verdict": "inconclusive", "recommended": "dense", "sentence": "Inconclusive: x."}
    (folder / "decision.json").write_text(json.dumps(decision))


def graded(query_id: str, doc_id: str, reviewer: str, grade: int, **more: Any) -> Entry:
    """A judgment, with an id of its own."""
    values: Mapping[str, Any] = {"action": GRADE, "grade": grade, **more}
    return Entry(
        id=uuid.uuid4().hex,
        time=now(),
        reviewer=reviewer,
        query_id=query_id,
        doc_id=doc_id,
        **values,
    )


def grouped_project(path: Path, groups: Mapping[str, Mapping[str, int]] | None = None) -> Workspace:
    """A cluster project of 60 hostile documents, as if `decide` had measured these groupings of them."""
    root = path.parent
    values = yaml.safe_load(path.read_text())
    values |= {"task": "cluster", "data": {"corpus": "corpus.jsonl"}, "cluster": {"label": "kind"}}
    path.write_text(yaml.safe_dump(values))
    lines = [
        {
            "_id": f"d{number}",
            "title": f"title {number}",
            "text": f"About kind-{number % 5}, number {number}. {HOSTILE}",
            "kind": f"secret-{number % 5}",
        }
        for number in range(60)
    ]
    (root / "corpus.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    regroup(root, by_kind() if groups is None else groups)
    return workspace(path)


def by_kind(n: int = 60) -> dict[str, dict[str, int]]:
    """A grouping by kind, and one that has nothing to do with it."""
    kinds = {f"d{number}": number % 5 for number in range(n)}
    arbitrary = {f"d{number}": number // 5 % 4 for number in range(n)}
    return {"today": arbitrary, "fine-tuned": kinds}


def regroup(root: Path, groups: Any) -> None:
    """`decide/task.json` with these groupings."""
    folder = root / "runs" / "default" / "decide"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps({"task": "cluster", "groups": groups}))
