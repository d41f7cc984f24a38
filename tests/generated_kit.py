"""A folder of small documents in several formats, a project over it, and a model that writes queries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from conftest import EXAMPLE, QUICK
from nearer.cli import app

#: Documents of the folder: enough for a split, few enough for seconds.
COUNT = 36

_DOCUMENT = re.compile(r"\[document \d+ (\w+)\]\n(.*?)\n\[end of document", re.DOTALL)
_FORM = re.compile(r"nothing else: (\{.*\})")


def nearer(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def write_documents(folder: Path, count: int = COUNT) -> Path:
    """Weaknesses of the example as Markdown, HTML and plain text, in folders."""
    lines = (EXAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[:: len(lines) // count][:count]):
        document = json.loads(line)
        title, text = document["title"], document["text"][:500]
        name = f"{'ab'[number % 2]}/{document['_id']}"
        body, ending = f"# {title}\n\n{text}\n", "md"
        if number % 3 == 1:
            body = f"<html><head><title>x</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
            ending = "html"
        elif number % 3 == 2:
            body, ending = f"{title}\n\n{text}\n", "txt"
        path = folder / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
    return folder


def begin(folder: Path, documents: Path, model: Path, **sections: Any) -> Path:
    """nearer.yaml of `nearer init --documents`, with quick settings."""
    result = nearer("init", folder, "--documents", documents, "--model", model)
    assert result.exit_code == 0, result.output
    path = folder / "nearer.yaml"
    settings = yaml.safe_load(path.read_text())
    more: dict[str, Any] = {"train": {"merge_tolerance": 0.0}, **sections}
    for name in {**QUICK, **more}:
        settings[name] |= {**QUICK.get(name, {}), **more.get(name, {})}
    settings["model"] |= {"precision": "fp32"}
    path.write_text(yaml.safe_dump(settings))
    return path


def written(body: dict[str, Any]) -> str:
    """What a model would answer: queries in its own form around a few words of the document."""
    asked = body["messages"][1]["content"]
    found = _DOCUMENT.search(asked)
    form = _FORM.search(asked)
    assert found
    assert form
    words = {"nothing", *re.findall(r"[a-z]{6,}", found[2].lower())}
    rare = sorted(words, key=lambda word: (-len(word), word))
    answer = {}
    for place, kind in enumerate(json.loads(form[1])):
        some = rare[place : place + 2] or rare
        answer[kind] = [f"help with {some[0]} or perhaps {some[-1]}"]
    return f"Here you are:\n```json\n{json.dumps(answer)}\n```"
