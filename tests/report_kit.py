"""Files beside the decision, as `decide` writes them, with figures for pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

_WORDS = [
    "buffer",
    "overflow",
    "handler",
    "archive",
    "script",
    "filter",
    "header",
    "pointer",
    "session",
    "token",
    "upload",
    "path",
    "parser",
    "request",
    "memory",
    "length",
    "null",
    "encoded",
    "injection",
    "cookie",
    "certificate",
    "browser",
    "thread",
    "race",
    "kernel",
]
SLICES = ("short query", "identifier", "unseen documents", "tag:web")
CAUSES = ("semantic", "exact_match", "chunking")


def queries(n: int, documents: int = 300, seed: int = 1) -> dict[str, Any]:
    """`queries.json` with `n` queries, three in four of them of the test split."""
    rng = random.Random(seed)  # noqa: S311 - figures for a picture
    texts = []
    for number in range(documents):
        title = " ".join(rng.sample(_WORDS, 5)).capitalize()
        body = f"{' '.join(rng.choices(_WORDS, k=18))}."
        texts.append([f"CWE-{number}", title, body])
    rows = []
    for number in range(n):
        hits = rng.sample(range(documents), 12)
        right = hits[0]
        before, after = rng.sample(hits, 8), rng.sample(hits, 8)
        values = [
            round(1 / (2 + hits.index(right)), 4) if right in hits else 0.0
            for hits in (before, after)
        ]
        rows.append(
            {
                "id": f"q{number:04d}",
                "text": f"{' '.join(rng.sample(_WORDS, 6))} in {texts[right][1].lower()}",
                "split": "dev" if number % 4 == 3 else "test",
                "before": values[0] if number % 5 else 0.0,
                "after": values[1] if number % 7 else 0.0,
                "slices": [at for at in range(len(SLICES)) if (number + at) % 3 == 0],
                "relevant": [right],
                "before_top": before,
                "after_top": after,
            }
        )
    return {
        "measure": "nDCG@10",
        "baseline": "today",
        "candidate": "fine-tuned",
        "n": n,
        "slices": list(SLICES),
        "documents": texts,
        "queries": rows,
    }


def failures(table: dict[str, Any]) -> list[dict[str, Any]]:
    """`failures.jsonl`: a cause for each dev query that found nothing."""
    rows = [row for row in table["queries"] if row["split"] == "dev" and not row["before"]]
    lines = []
    for number, row in enumerate(rows):
        cause = CAUSES[number % len(CAUSES)]
        lines.append({"query_id": row["id"], "doc_id": "CWE-1", "cause": cause})
    return lines


def neighbours(questions: Sequence[str], titles: Sequence[str]) -> dict[str, Any]:
    """`neighbours.json`: positives come nearer, negatives go away."""
    rng = random.Random(4)  # noqa: S311 - figures for a picture
    rows = []
    for number, text in enumerate(questions):
        centre = (rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6))

        def near(distance: float, centre: tuple[float, float] = centre) -> list[float]:
            return [round(value + rng.gauss(0, distance), 4) for value in centre]

        points = [{"kind": "query", "id": f"q{number:04d}", "text": text}]
        points[0] |= {"before": near(0.05), "after": near(0.05), "similarity": [None, None]}
        for place in range(6):
            kind = "positive" if place < 2 else "negative"
            before, after = (0.3, 0.1) if kind == "positive" else (0.15, 0.35)
            similarity = [0.45, 0.62] if kind == "positive" else [0.55, 0.48]
            point = {
                "kind": kind,
                "id": f"CWE-{place}",
                "text": titles[(number + place) % len(titles)],
            }
            points.append(
                point | {"before": near(before), "after": near(after), "similarity": similarity}
            )
        rows.append({"id": f"q{number:04d}", "before": 0.2, "after": 0.7, "points": points})
    return {"measure": "nDCG@10", "explained": [0.31, 0.38], "queries": rows}


def comparison(measure: str, delta: float, outcome: str) -> dict[str, Any]:
    return {
        "baseline": "today",
        "candidate": "fine-tuned",
        "measure": measure,
        "delta": delta,
        "ci": [delta - 0.03, delta + 0.03],
        "outcome": outcome,
        "p": 0.002 if outcome == "better" else 0.4,
        "n": 200,
        "wins": 80,
        "ties": 90,
        "losses": 30,
        "sd": 0.2,
    }


def rag() -> dict[str, Any]:
    """`rag` of the decision: a gain that reaches the context and not the answers."""
    return {
        "contexts": [comparison("ContextRecall@2000tok", 0.14, "better")],
        "answers": {
            "model": "stand-in at 127.0.0.1",
            "n_queries": 200,
            "queries_with_answers": 240,
            "budget": 2000,
            "systems": {},
            "comparisons": [
                comparison("TokenF1", 0.004, "unclear"),
                comparison("Judge", 0.01, "unclear"),
            ],
            "judge": {
                "model": "grader at 127.0.0.1",
                "agreement": {"mean": 0.9, "ci": [0.78, 0.97]},
                "kappa": 0.79,
                "n": 40,
                "agreed": 36,
                "without_grade": 3,
            },
            "not_tried": [],
        },
        "about": "fine-tuned",
        "finding": "nDCG@10 +0.225; TokenF1 +0.004: the gain is not shown to reach it",
        "reaches_answers": False,
    }


def answers() -> list[dict[str, Any]]:
    """`answers.jsonl`: one question whose answer changed."""
    line = {"query_id": "q0001", "question": "Which weakness is it?", "references": ["Double Free"]}
    return [
        {**line, "system": "today", "answer": "Use After Free", "TokenF1": 0.4},
        {**line, "system": "fine-tuned", "answer": "Double Free", "TokenF1": 1.0},
    ]
