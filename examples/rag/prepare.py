"""Gives the queries of a BEIR folder reference answers: the titles of their relevant documents.

`python prepare.py ../cwe data` makes a folder that can be searched and answered from: an assistant
is told of a vulnerability and names the weakness behind it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def lines(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as handle:  # line separators inside a text end no line
        return [json.loads(line) for line in handle if line.strip()]


def relevant_documents(folder: Path) -> dict[str, list[str]]:
    """Query id → ids of its relevant documents, over every file of judgments."""
    relevant: dict[str, list[str]] = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            query_id, doc_id, grade = line.split("\t")
            if int(grade) > 0:
                relevant.setdefault(query_id, []).append(doc_id)
    return relevant


def prepare(source: Path, target: Path) -> None:
    titles = {line["_id"]: line["title"] for line in lines(source / "corpus.jsonl")}
    relevant = relevant_documents(source)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "corpus.jsonl", target / "corpus.jsonl")
    shutil.copytree(source / "qrels", target / "qrels", dirs_exist_ok=True)
    with open(target / "queries.jsonl", "w", encoding="utf-8") as out:
        for line in lines(source / "queries.jsonl"):
            answers = [titles[each] for each in relevant.get(line["_id"], []) if each in titles]
            out.write(json.dumps({**line, "answers": answers}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
