"""The report: what it says, what it survives, and that nothing in the data can become markup."""

from __future__ import annotations

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import report_kit
from nearer.config import Config
from nearer.decision.record import DecisionRecord
from nearer.errors import DataError, MissingStepError
from nearer.lifecycle import BY_NAME
from nearer.project import Project
from nearer.report import charts, content, markdown, page, repeat, sections, values
from nearer.report.data import ReportData, load
from nearer.report.facts import facts
from nearer.stages import report

TITLES = {
    "CWE-79": "Improper Neutralization of Input During Web Page Generation ('Cross-site Scripting')",
    "CWE-80": "Improper Neutralization of Script-Related HTML Tags in a Web Page (Basic XSS)",
    "CWE-89": "Improper Neutralization of Special Elements used in an SQL Command ('SQL Injection')",
    "CWE-22": "Improper Limitation of a Pathname to a Restricted Directory ('Path Traversal')",
    "CWE-416": "Use After Free",
    "CWE-415": "Double Free",
    "CWE-787": "Out-of-bounds Write",
    "CWE-190": "Integer Overflow or Wraparound",
    "CWE-158": "Improper Neutralization of Null Byte or NUL Character",
    "CWE-626": "Null Byte Interaction Error (Poison Null Byte)",
    "CWE-116": "Improper Encoding or Escaping of Output",
    "CWE-644": "Improper Neutralization of HTTP Headers for Scripting Syntax",
}
QUESTIONS = (
    '"%00" (encoded null) lets a remote attacker read a script\'s source',
    "Frees a pointer twice when the third handshake message is malformed",
    "Long length field wraps to a small allocation, later memcpy overruns it",
    "Backslash variant of dot dot in an archive member's name",
    "Injected header makes the browser run script from a Refresh field",
    "Image tag with a javascript: source gets past the filter",
)
SYSTEMS = (
    ("today", "today", "dense", 0.347),
    ("bm25", "baseline", "bm25", 0.382),
    ("rrf", "baseline", "hybrid", 0.418),
    ("fine-tuned", "candidate", "dense", 0.572),
    ("fine-tuned rrf", "candidate", "hybrid", 0.523),
)
SLICES = (
    "seen documents",
    "unseen documents",
    "short queries",
    "long queries",
    "identifiers",
    "rare terms",
    "low overlap",
    "high overlap",
    "language: PHP",
    "language: Java",
)


def decision() -> dict[str, Any]:
    rng = random.Random(3)  # noqa: S311 - figures for a picture
    scale = {
        "nDCG@10": 1.0,
        "R@10": 1.25,
        "R@100": 1.6,
        "RR@10": 0.93,
        "P@5": 0.26,
        "AP": 0.88,
        "Success@1": 0.79,
        "Judged@10": 0.2,
    }
    candidates = []
    for name, role, system, base in SYSTEMS:
        measures = {
            m: {
                "mean": round(base * f, 4),
                "ci": [round(base * f - 0.034, 4), round(base * f + 0.035, 4)],
            }
            for m, f in scale.items()
        }
        candidates.append(
            {
                "name": name,
                "role": role,
                "system": system,
                "model": "sentence-transformers/all-MiniLM-L6-v2",
                "measures": measures,
                "latency": {"p50_ms": 9.2, "p95_ms": 14.8},
                "cost": {"index_bytes": 1_440_768, "build_seconds": 17.3},
            }
        )
    deltas = [rng.uniform(-0.05, 0.3) for _ in SLICES]
    deltas[3] = -0.06
    return {
        "verdict": "ship",
        "recommended": "fine-tuned",
        "sentence": "Ship the fine-tuned model: nDCG@10 rises from 0.347 to 0.572 (+0.225, 95% interval +0.194 to +0.256).",
        "reasons": [
            "nDCG@10 rises by 0.225 (0.194 to 0.256) over 561 test queries, well above the 0.010 declared as the minimum useful gain.",
            "The best simpler fix, hybrid search, reaches 0.418; the fine-tuned model is 0.154 above it.",
            "Ordinary language is kept: the general-ability set changes by −0.004, its lower bound is inside the margin.",
        ],
        "primary": "nDCG@10",
        "n_queries": 561,
        "compared": {"baseline": "today", "candidate": "fine-tuned"},
        "min_gain": 0.01,
        "alpha": 0.05,
        "checklist": [
            {
                "question": "Is the failure measured?",
                "answer": "yes",
                "evidence": "nDCG@10 0.347 on 201 development queries, 0.32 to 0.38.",
            },
            {
                "question": "Is it semantic?",
                "answer": "yes",
                "evidence": "71% of the failures share no rare word with the right document.",
            },
            {
                "question": "Are simpler fixes insufficient?",
                "answer": "yes",
                "evidence": "Hybrid search closes a third of the gap.",
            },
            {
                "question": "Is training data available?",
                "answer": "yes",
                "evidence": "1,245 queries with judgments, none of them held out.",
            },
            {
                "question": "Does held-out evaluation improve?",
                "answer": "yes",
                "evidence": "+0.225, p < 0.001.",
            },
            {
                "question": "Does the gain justify re-indexing?",
                "answer": "unknown",
                "evidence": "No price was given for an hour of machine.",
            },
        ],
        "candidates": candidates,
        "comparisons": [
            {
                "baseline": "today",
                "candidate": c,
                "measure": "nDCG@10",
                "delta": d,
                "ci": [d - 0.031, d + 0.031],
                "p": p,
                "n": 561,
                "wins": w,
                "ties": 180,
                "losses": 381 - w,
            }
            for c, d, p, w in (
                ("bm25", 0.035, 0.0412, 201),
                ("rrf", 0.071, 0.0001, 240),
                ("fine-tuned", 0.225, 0.0001, 312),
                ("fine-tuned rrf", 0.176, 0.0001, 290),
            )
        ],
        "slices": [
            {
                "slice": s,
                "n": 30 + 40 * i,
                "baseline": 0.34,
                "candidate": 0.34 + d,
                "delta": d,
                "ci": [d - 0.4 / math.sqrt(30 + 40 * i), d + 0.4 / math.sqrt(30 + 40 * i)],
                "p": 0.01,
                "p_holm": 0.08,
            }
            for i, (s, d) in enumerate(zip(SLICES, deltas, strict=True))
        ],
        "guardrails": [
            {
                "name": "general ability",
                "margin": 0.02,
                "lower_bound": -0.013,
                "status": "pass",
                "queries_needed": None,
                "delta": -0.004,
                "n": 280,
            },
            {
                "name": "slice: long queries",
                "margin": 0.02,
                "lower_bound": -0.071,
                "status": "inconclusive",
                "queries_needed": 1225,
                "delta": -0.01,
                "n": 88,
            },
            {
                "name": "must-pass queries",
                "margin": 0.0,
                "lower_bound": -0.2,
                "status": "fail",
                "queries_needed": 12,
                "delta": -0.1,
                "n": 10,
            },
        ],
        "cost": {
            "documents": 938,
            "tokens": 171_204,
            "seconds": 18.4,
            "bytes": 1_440_768,
            "hours": 0.0051,
            "price": None,
        },
        "negative_flips": [
            {"query_id": "q0031", "text": "Off-by-one in the parser of a font header"}
        ],
        "test_looks": 2,
        "sign_off": None,
        "rag": report_kit.rag(),
    }


CAUSES = (
    (
        "needs_metadata",
        21,
        0.361,
        {"filter named in the query": 13, "declared filter": 8},
        "apply the filter that the query declares or names",
    ),
    (
        "chunking",
        38,
        0.392,
        {"cut off": 26, "across a border of chunks": 9, "mixed": 3},
        "embed smaller pieces of the documents",
    ),
    (
        "exact_match",
        64,
        0.447,
        {"identifier or rare term": 51, "words": 13},
        "search words beside vectors (BM25 or a hybrid)",
    ),
    (
        "base_model",
        17,
        0.461,
        {"paraphrase-multilingual-MiniLM-L12-v2": 17},
        "use the other embedding model",
    ),
    (
        "semantic",
        145,
        0.594,
        {"vocabulary gap": 71, "unknown term": 40, "meaning": 34},
        "fine-tune: nothing cheaper finds it",
    ),
    (
        "label_suspect",
        9,
        0.602,
        {"near-duplicate": 9},
        "judge the results above it: one may be as relevant",
    ),
    ("unknown", 14, 0.617, {"ranking": 14}, "run the probes that could not run"),
)


def diagnosis() -> dict[str, Any]:
    left = 291
    steps = []
    for cause, n, mean, _, remedy in CAUSES:
        left -= n - 3
        steps.append(
            {
                "cause": cause,
                "failures": n,
                "failing_queries_left": max(0, left),
                "measure": mean,
                "remedy": remedy,
            }
        )
    shown = [
        {
            "query_id": f"q{i:04d}",
            "query": question,
            "doc_id": "CWE-158",
            "document": TITLES["CWE-158"],
            "first": TITLES["CWE-22"],
            "evidence": "no term of the query stands in the document",
        }
        for i, question in enumerate(QUESTIONS)
    ]
    return {
        "n_failures": 308,
        "n_failing_queries": 291,
        "n_queries": 762,
        "k": 10,
        "splits": ["dev", "train"],
        "causes": {cause: n for cause, n, *_ in CAUSES},
        "kinds": {cause: kinds for cause, _, _, kinds, _ in CAUSES},
        "label_suspects": 23,
        "steps": steps,
        "fine_tuning_ceiling": {
            "measure": "nDCG@10",
            "today": 0.347,
            "if_found": 0.478,
            "gain": 0.131,
            "share_of_shortfall": 0.2006,
            "if_unknown_were_semantic": 0.493,
        },
        "freshness": {
            "field": "updated",
            "newer_than": 2024.5,
            "failure_rate_newest": 0.61,
            "failure_rate_others": 0.28,
            "n_newest": 190,
            "p": 0.0002,
            "remedy": "failures concentrate on the newest documents: update the index (nearer index sync) before any training",
        },
        "not_run": {
            "ranking: no reranker was given and none was trained": 308,
            "index_loss: today's search is exact": 308,
        },
        "examples": {cause: shown[: 1 + place] for place, (cause, *_) in enumerate(CAUSES)},
    }


def rung(
    fix: str, label: str, kept: bool, gain: float, counts: tuple[int, int], needs: str
) -> dict[str, Any]:
    delta = {"mean": gain, "ci": [gain - 0.021, gain + 0.022], "p": 0.0004 if kept else 0.31}
    told = {
        "measure": 0.347 + gain,
        "variants": 3,
        "repaired": counts[0],
        "broken": counts[1],
        "needs": needs,
        "settings": {},
    }
    found = {"exact_match": [counts[0] // 2, 20], "chunking": [3, 11], "semantic": [counts[1], 44]}
    return {
        "fix": fix,
        "label": label,
        "kept": kept,
        "delta": delta,
        "failures_repaired": found,
        **told,
    }


def ladder() -> dict[str, Any]:
    again = "the corpus embedded again, more vectors"
    rungs = [
        rung(
            "metadata",
            "dense + inferred filters",
            True,
            0.026,
            (9, 1),
            "metadata kept right; the application passes its filter on",
        ),
        {
            "fix": "rewriting",
            "kept": False,
            "label": "does not apply here",
            "delta": None,
            "needs": "a dictionary that somebody keeps",
        },
        rung(
            "hybrid",
            "convex + inferred filters + title ×0.5",
            True,
            0.071,
            (28, 6),
            "a BM25 index beside the vectors",
        ),
        rung(
            "chunking",
            "convex + recursive:128+title + inferred filters + title ×0.5",
            False,
            0.007,
            (8, 7),
            again,
        ),
        rung(
            "base_model",
            "convex + multi-qa-mpnet-base-dot-v1 + int8 + inferred filters",
            False,
            -0.034,
            (5, 14),
            "the corpus embedded again",
        ),
    ]
    return {
        "measure": "nDCG@10",
        "today": 0.347,
        "today_label": "dense",
        "rungs": rungs,
        "best": {"system": "convex"},
        "label": "convex + inferred filters + title ×0.5",
        "best_measure": 0.444,
        "delta": {"mean": 0.097, "ci": [0.068, 0.127], "p": 0.0001},
        "failures_repaired": {
            "needs_metadata": [6, 7],
            "exact_match": [14, 20],
            "chunking": [3, 11],
            "semantic": [7, 44],
        },
        "n_queries": 201,
    }


def trials() -> list[dict[str, Any]]:
    cost = {"p50_ms": 11.2, "p95_ms": 19.75, "index_bytes": 2_881_536, "build_seconds": 48.1}
    rows = [row for row in ladder()["rungs"] if row["delta"]]
    return [
        {**row, "measures": {"nDCG@10": row["measure"], "R@100": 0.7}, "cost": cost}
        for row in rows
        for _ in range(3)
    ]


def example(index: int, before: float, after: float) -> dict[str, Any]:
    ids = list(TITLES)
    right = ids[index % len(ids)]
    others = [d for d in ids[index + 1 :] + ids[:index] if d != right]

    def top(order: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "id": d,
                "title": TITLES[d],
                "relevant": d == right,
                "score": round(0.62 - 0.03 * i, 3),
            }
            for i, d in enumerate(order)
        ]

    low, high = [*others[:3], right, others[3]], [right, others[1], others[0], others[5], others[2]]
    return {
        "query_id": f"q{index:04d}",
        "text": QUESTIONS[index % len(QUESTIONS)],
        "before": before,
        "after": after,
        "relevant": [{"id": right, "title": TITLES[right]}],
        "before_top": top(low if after > before else high),
        "after_top": top(high if after > before else others[:5]),
    }


def margin_counts(mean: float, edges: list[float]) -> list[int]:
    return [
        round(
            560
            * 0.05
            / (0.11 * math.sqrt(2 * math.pi))
            * math.exp(-0.5 * ((a + 0.025 - mean) / 0.11) ** 2)
        )
        for a in edges[:-1]
    ]


def write_run(run_dir: Path) -> Path:
    """A whole run such as the stages leave behind, with the figures of the CWE data."""
    edges = [round(-0.5 + 0.05 * i, 2) for i in range(21)]
    history: list[dict[str, Any]] = [{"step": 0, "epoch": 0.0, "nDCG@10": 0.338}]
    for step in range(2, 117, 2):
        wobble = 0.25 * math.sin(step * 1.7) * math.exp(-step / 90)
        history.append(
            {
                "step": step,
                "epoch": step / 39,
                "loss": 0.55 + 1.9 * math.exp(-step / 30) + wobble,
                "learning_rate": 1e-4 * (1 - step / 117),
            }
        )
    history += [
        {"step": s, "epoch": s / 39, "nDCG@10": v}
        for s, v in ((20, 0.43), (39, 0.502), (58, 0.541), (78, 0.566), (97, 0.571), (117, 0.568))
    ]
    files: dict[str, Any] = {
        "decide/decision.json": decision(),
        "decide/examples.json": {
            "wins": [example(i, 0.0 if i % 2 else 0.43, 1.0) for i in range(6)],
            "losses": [example(i, 1.0, 0.0) for i in (3, 5)],
        },
        "decide/queries.json": report_kit.queries(60),
        "decide/neighbours.json": report_kit.neighbours(QUESTIONS, list(TITLES.values())),
        "decide/margins.json": {
            "bins": edges,
            "before": margin_counts(-0.06, edges),
            "after": margin_counts(0.09, edges),
            "before_mean": -0.061,
            "after_mean": 0.089,
            "share_positive_before": 0.29,
            "share_positive_after": 0.63,
        },
        "train/summary.json": {
            "base_model": "sentence-transformers/all-MiniLM-L6-v2",
            "seed": 13,
            "best_step": 97,
            "steps": 117,
            "stopped": "all epochs done",
            "dev": {"measure": "nDCG@10", "before": 0.338, "after": 0.571},
            "merge": {
                "weight": 0.8,
                "curve": [
                    {"weight": 1.0, "nDCG@10": 0.578, "general": 0.912},
                    {"weight": 0.9, "nDCG@10": 0.575, "general": 0.924},
                    {"weight": 0.8, "nDCG@10": 0.571, "general": 0.931},
                ],
            },
            "forgetting": {"measure": "nDCG@10", "before": 0.934, "after": 0.931},
            "examples": 1245,
            "seconds": 214.6,
            "tokens_per_second": 6120.4,
            "pairs_per_second": 17.4,
            "precision": "bf16",
            "max_seq_length": 128,
            "settings": {"epochs": 3},
        },
        "mine/summary.json": {
            "examples": 1245,
            "kept": 1245,
            "dropped": {
                "near_duplicate_of_positive": 212,
                "above_margin": 3120,
                "known_positive": 871,
            },
            "negatives": {"mean": 1.0},
            "leakage": {"queries": 0},
        },
        "diagnose/summary.json": diagnosis(),
        "fix/summary.json": ladder(),
        "check/findings.json": {
            "counts": {"documents": 938, "queries": 2007, "judgments": 2007},
            "lengths": {"documents": {"p50": 131, "p95": 412, "share_cut": 0.21}},
            "power": {"smallest_difference": 0.041, "n": 561},
            "split": {"by": "group", "train": 1245, "dev": 201, "test": 561},
            "item_to_item": False,
            "findings": [
                {
                    "code": "truncated",
                    "message": "21% of the documents are longer than the model's 256 tokens; a median of 31% of them is cut off.",
                    "count": 197,
                    "fatal": False,
                    "examples": ["CWE-79: 1,204 tokens", "CWE-89: 988 tokens"],
                    "where": None,
                    "next": "see model.max_seq_length",
                    "figures": {},
                },
                {
                    "code": "near_duplicates",
                    "message": "14 pairs of queries are near-duplicates; none straddles two splits.",
                    "count": 14,
                    "fatal": False,
                    "examples": ["q0101 ~ q0102"],
                    "where": "queries.jsonl:101",
                    "next": None,
                    "figures": {},
                },
            ],
        },
        "evaluate/summary.json": {
            "system": {"system": "dense"},
            "split": "dev",
            "n_queries": 201,
            "measures": {"nDCG@10": {"mean": 0.338, "ci": [0.3, 0.38]}},
            "systems": [
                {"name": n, "measures": {"nDCG@10": {"mean": m}}} for n, _, _, m in SYSTEMS[:3]
            ],
        },
    }
    settings = {
        "train": {"epochs": 3, "seed": 13},
        "search": {"url": "https://joe:hunter2@search.example/q?api_key=s3cr3t&k=10"},
    }
    for position, stage in enumerate(("check", "evaluate", "mine", "train", "decide")):
        files[f"{stage}/step.json"] = {
            "stage": stage,
            "version": 1,
            "fingerprint": f"{position}a" * 32,
            "settings": {"seed": {"value": 7}, **settings},
            "inputs": {"data": {"corpus": "9f" * 32, "queries": "1c" * 32}, "model": "77" * 32},
            "outputs": {},
            "summary": {},
            "seconds": [3.1, 9.4, 21.7, 214.6, 41.2][position],
            "finished": f"2026-11-24T10:0{position}:12+00:00",
        }
    for name, value in files.items():
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text(json.dumps(value), encoding="utf-8")
    (run_dir / "fix/trials.jsonl").write_text(
        "\n".join(map(json.dumps, trials())) + "\n", encoding="utf-8"
    )
    lines = {
        "train/history.jsonl": history,
        "decide/answers.jsonl": report_kit.answers(),
        "diagnose/failures.jsonl": report_kit.failures(files["decide/queries.json"]),
    }
    for name, rows in lines.items():
        text = "\n".join(map(json.dumps, rows)) + "\n"
        (run_dir / name).write_text(text, encoding="utf-8")
    return run_dir


class Outline(HTMLParser):
    """What a browser would build: tags, their nesting, every attribute, and the text."""

    VOID = frozenset({"meta", "wbr", "link", "img", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.of_script = ""  # data inside the page
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["script"]:
            self.words.append(data)
        elif self.tags[-1][1].get("type") == "application/json":
            self.of_script += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def sections(self) -> list[str]:
        return [attrs["id"] or "" for tag, attrs in self.tags if tag == "section" and "id" in attrs]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "default")


@pytest.fixture
def data(run_dir: Path) -> ReportData:
    return load(run_dir.name, lambda name: run_dir / name)


def project(run_dir: Path) -> Project:
    out = run_dir / ".work" / "report"
    out.mkdir(parents=True, exist_ok=True)
    return Project(
        Config(), run_dir.parent.parent, run_dir, run_dir.parent / ".cache", BY_NAME["report"], out
    )


def written(run_dir: Path) -> Path:
    """The folder of a report that was written for a run."""
    of_run = project(run_dir)
    assert of_run.out is not None
    report.run(of_run).save(of_run.out)
    return of_run.out


def test_step_writes_both_files_and_says_where(run_dir: Path) -> None:
    summary = report.run(project(run_dir)).brief()
    out = written(run_dir)
    html = (out / "report.html").read_bytes()
    assert summary == {"html": str(run_dir / "report" / "report.html"), "bytes": len(html)}
    assert len(html) < 3_000_000
    assert (out / "report.md").read_text(encoding="utf-8").startswith("## ✅ Ship it")


def test_the_verdict_comes_first_and_sections_follow_in_order(data: ReportData) -> None:
    outline = Outline(page.render(data))
    assert outline.sections() == [
        "verdict",
        "checklist",
        "failures",
        "fixes",
        "candidates",
        "slices",
        "rag",
        "frontiers",
        "margins",
        "neighbours",
        "training",
        "guardrails",
        "examples",
        "every-query",
        "data",
        "cost",
        "repeat",
        "reading",
    ]
    assert outline.open == []
    assert "0.347 → 0.572" in outline.text
    assert "+0.225" in outline.text
    assert "guardrails passed 1 of 3" in outline.text
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    ids = {attrs.get("id") for _, attrs in outline.tags}
    assert all(link and link[1:] in ids for link in links)


def test_the_page_asks_nothing_of_the_network(data: ReportData) -> None:
    html = page.render(data)
    outline = Outline(html)
    assert not {"link", "img", "iframe", "object", "embed", "form", "base"} & {
        tag for tag, _ in outline.tags
    }
    assert not [
        name
        for _, attrs in outline.tags
        for name in attrs
        if name in ("src", "srcset", "xlink:href") or name.startswith("on")
    ]
    assert not re.search(
        r"url\(|@import|http://|https://", html.replace("https://…@search.example", "")
    )
    policy = next(
        attrs["content"]
        for tag, attrs in outline.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy
    assert policy.startswith("default-src 'none'")


def test_charts_are_named_for_those_who_do_not_see_them(data: ReportData) -> None:
    html = page.render(data)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 20  # nine charts in two widths, two curves
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title>.+?</title><desc>.+?</desc>", drawing)
    assert "#" not in "".join(
        re.findall(r'(?:fill|stroke|style)="[^"]*"', "".join(drawings))
    )  # colours come from the style sheet


@pytest.mark.parametrize(
    "missing",
    [
        "decide/examples.json",
        "decide/margins.json",
        "decide/queries.json",
        "decide/neighbours.json",
        "decide/answers.jsonl",
        "diagnose/failures.jsonl",
        "train/history.jsonl",
        "train/summary.json",
        "mine/summary.json",
        "diagnose/summary.json",
        "fix/summary.json",
        "fix/trials.jsonl",
        "check/findings.json",
        "evaluate/summary.json",
        "train/step.json",
    ],
)
def test_any_one_file_may_be_missing(run_dir: Path, missing: str) -> None:
    (run_dir / missing).unlink()
    summary = report.run(project(run_dir)).brief()
    assert summary["bytes"] > 10_000


def test_a_decision_alone_is_a_report(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "alone"
    (run_dir / "decide").mkdir(parents=True)
    (run_dir / "decide/decision.json").write_text(
        '{"verdict": "do_not_ship", "sentence": "Keep what you have."}'
    )
    out = written(run_dir)
    html = (out / "report.html").read_text(encoding="utf-8")
    outline = Outline(html)
    assert outline.sections() == ["verdict", "repeat", "reading"]
    assert "Keep what you have." in outline.text
    assert "nearer run --run alone" in outline.text
    assert "Keep what you have." in (out / "report.md").read_text(encoding="utf-8")


def test_without_a_decision_the_earlier_step_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    with pytest.raises(MissingStepError, match="nearer decide"):
        report.run(project(tmp_path / "runs" / "x"))


def test_a_damaged_file_is_named_and_nothing_is_written(run_dir: Path) -> None:
    (run_dir / "decide/margins.json").write_text('{"bins": [')
    with pytest.raises(DataError, match=r"margins\.json"):
        written(run_dir)
    assert list((run_dir / ".work" / "report").iterdir()) == []


@pytest.mark.long
def test_every_key_of_the_decision_may_be_missing_or_nonsense(data: ReportData) -> None:
    for key in data.decision:
        for value in (
            "absent",
            None,
            7,
            "text",
            [],
            [None, 3, "x"],
            [{}],
            [{"delta": float("nan")}],
            {},
            {"x": [1, {"y": None}]},
        ):
            changed = {k: v for k, v in data.decision.items() if k != key} | (
                {} if value == "absent" else {key: value}
            )
            assert "</html>" in page.render(ReportData(decision=changed))
            assert json.dumps(facts(ReportData(decision=changed)))
            assert markdown.render(ReportData(decision=changed)).startswith("## ")


def test_every_other_file_may_hold_nonsense() -> None:
    nonsense: list[dict[str, Any]] = [
        {"wins": [{}], "losses": [7]},
        {"wins": [{"before_top": [{}], "relevant": [{}]}]},
        {"bins": [0, 1], "before": [1], "after": ["x"]},
        {"bins": [1, 0], "before": [1], "after": [1]},
        {"bins": [0, 1], "before": [0], "after": [0]},
        {"findings": [{"examples": 3}, 4]},
        {"dropped": 3},
        {"dropped": {"a": "b"}},
        {"dev": {"before": "x"}},
        {"a": {"b": {"c": [1, 2, float("inf")]}}},
        {"train": {"settings": {"seed": 3}, "inputs": [1]}},
        {
            "n_failing_queries": "x",
            "splits": 3,
            "steps": [{}, 7, {"failures": -2}, {"failures": float("inf")}, {"failures": True}],
        },
        {
            "steps": [
                {"failures": 3},
                {"cause": ["a"], "failures": 1e308},
                {"cause": "b", "failures": 1e308},
            ],
            "kinds": [],
            "examples": [3],
        },
        {
            "steps": [{"cause": "a", "failures": 2}],
            "kinds": {"a": 7},
            "examples": {"a": [{}, 3]},
            "freshness": 3,
            "not_run": ["x"],
        },
        {
            "n_failing_queries": 0,
            "fine_tuning_ceiling": {"today": "x", "if_found": None},
            "freshness": {"remedy": []},
            "not_run": {"a": None},
        },
        {
            "rungs": [
                {},
                3,
                {"fix": ["x"], "delta": 3},
                {
                    "fix": None,
                    "delta": {"mean": "x", "ci": [1]},
                    "kept": 1,
                    "failures_repaired": [1],
                },
            ]
        },
        {
            "rungs": [
                {"kept": True, "delta": {"mean": 0.1}, "failures_repaired": {"a": [0, 0], "b": 3}}
            ],
            "delta": [],
            "measure": {},
        },
        {"skipped": {"x": 1}, "rungs": 3, "failures_repaired": {"a": [1]}},
        {"queries": [3, {}, {"points": 7}, {"points": [{}, {"kind": "query"}]}], "explained": "x"},
        {
            "queries": [
                {"points": [{"kind": "positive", "before": [0, 1], "after": [1, 2]}]},
                {"points": [{"kind": "query", "before": [0, 0], "after": [float("nan"), 0]}]},
                {"before": 1, "after": 0, "relevant": [99, "x", True], "slices": [5]},
                {"before": 0, "after": float("inf")},
            ],
            "documents": [3, [1], None],
            "slices": {"a": 1},
            "n": "many",
        },
        {"merge": {"curve": [3, {"weight": 1, "nDCG@10": "x", "general": 1}]}, "forgetting": 3},
    ]
    for value in nonsense:
        for key in (
            "examples",
            "margins",
            "neighbours",
            "queries",
            "training",
            "candidates",
            "mining",
            "check",
            "evaluation",
            "diagnosis",
            "fixes",
            "steps",
            "versions",
        ):
            data = ReportData(**{key: value})
            assert "</html>" in page.render(data)
            assert markdown.render(data)
            assert json.dumps(facts(data))
    trials = [
        {},
        {"delta": 3, "cost": 7, "measures": []},
        {"fix": [], "delta": {"ci": "x"}, "cost": {"index_bytes": "many"}},
    ]
    assert "All 3 trials" in page.render(ReportData(trials=trials))
    history = [
        {"step": 1},
        {"step": None, "loss": 1},
        {"loss": 3},
        {"step": 5, "nDCG@10": float("nan")},
    ]
    assert "</html>" in page.render(ReportData(history=history))


def _tried_in_place_of_the_training() -> dict[str, Any]:
    change = {"n": 200, "before": 0.3, "after": 0.525, "gain": 0.225}
    full = {
        "name": "full",
        "chosen": True,
        "seconds": 278.0,
        "dev": change,
        "seen": change,
        "unseen": None,
        "reindex": "all documents",
        "size_bytes": 90_000_000,
        "seeds": {"scores": [0.51, 0.525]},
    }
    nudge = {**full, "name": "nudge", "chosen": False, "reference": True, "documents_moved": 480}
    return {
        "measure": "nDCG@10",
        "queries": {"all": 200, "seen": 194, "unseen": 6},
        "reason": "the only trained candidate",
        "candidates": [full, nudge | {"reindex": "moved documents"}],
        "not_tried": [{"name": "linear", "reason": "for want of queries"}],
    }


def test_what_was_tried_in_place_of_the_training_stands_in_one_table() -> None:
    data = ReportData(decision=decision(), candidates=_tried_in_place_of_the_training())
    text = Outline(page.render(data)).text
    for words in ("2 seeds: 0.510 to 0.525", "moved documents (480)", "90.0 MB", "0.525", "+0.225"):
        assert words in text
    assert "linear was not tried: for want of queries" in text
    assert "tried in its place" not in page.render(ReportData(decision=decision()))


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></svg><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "x" * 5000,
    "nul\x00 bell\x07 lone \ud800 surrogate",
)


WORDS = ("verdict", "role", "primary", "status", "answer", "cause", "kind")


def _replace_strings(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {k: v if k in WORDS else _replace_strings(v, text) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_strings(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize(
    "text", HOSTILE, ids=["script", "attribute", "svg", "template", "rtl", "long", "control"]
)
def test_no_text_of_the_data_becomes_markup(data: ReportData, text: str) -> None:
    clean = Outline(page.render(data))
    values = {
        f: getattr(data, f)
        for f in (
            "decision",
            "examples",
            "margins",
            "neighbours",
            "queries",
            "answers",
            "failures",
            "history",
            "training",
            "candidates",
            "mining",
            "check",
            "evaluation",
            "steps",
            "versions",
            "diagnosis",
        )
    } | {"fixes": data.fixes, "trials": data.trials}
    hostile = _replace_strings(values, text)
    hostile["run"] = text
    hostile["training"]["dev"]["measure"] = "nDCG@10"  # a key of the merge curve
    hostile["diagnosis"] = {
        **hostile["diagnosis"],
        "kinds": {"semantic": {text: 3}},
        "not_run": {text: 4},
    }
    hostile["mining"] = {**hostile["mining"], "dropped": {text: 3}, text: 4}
    html = page.render(ReportData(**hostile))
    html.encode("utf-8")  # no lone surrogate is left
    outline = Outline(html)
    assert outline.open == []
    assert outline.count("script") == clean.count("script") == 2  # the page's own, and its data
    assert "<" not in outline.of_script
    assert json.loads(outline.of_script)["queries"]
    assert outline.count("img") == 0
    assert outline.count("svg") == clean.count("svg")
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]
    assert "49{%" not in html  # template code in data is text
    assert len(html) < 1_000_000
    assert "\x00" not in html


def test_long_words_may_break_anywhere() -> None:
    style = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
    body = re.search(r"body \{([^}]*)\}", style)
    assert body
    assert "overflow-wrap: anywhere" in body[1]


def test_dark_mode_redefines_every_colour_and_print_too() -> None:
    style = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    light, dark, printed = (set(re.findall(r"(--[\w-]+): #", block)) for block in blocks)
    assert light == dark == printed
    rules = re.sub(r":root \{.*?\}", "", style, flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", rules)


def test_ranked_lists_show_what_moved(data: ReportData) -> None:
    groups = sections.examples(data.examples, data.decided)
    assert groups
    win = groups["groups"][0]["rows"][0]
    before, after = (docs for _, docs in win["columns"])
    assert [doc["relevant"] for doc in before] == [False, False, False, True, False]
    assert after[0]["change"] == "▲ 3"
    assert {doc["change"] for doc in after} >= {"new", "▼ 2"}
    assert win["relevant"][0]["before"] == "4"
    loss = groups["groups"][1]["rows"][0]
    assert loss["relevant"][0]["after"] == "beyond 5"
    assert loss["columns"][0][1][0]["change"] == "gone"


def test_no_gain_is_claimed_from_another_system() -> None:
    value = decision()
    value["comparisons"] = [row for row in value["comparisons"] if row["candidate"] == "bm25"]
    decided = DecisionRecord.of(value)
    assert content.headline(decided) is None
    assert all("gain" not in label for _, label, _ in sections.verdict(decided)["figures"])


def test_the_headline_is_the_recommended_system_against_today() -> None:
    value = decision()
    value["comparisons"].insert(
        0, {"baseline": "rrf", "candidate": "fine-tuned", "measure": "nDCG@10", "delta": 0.154}
    )
    value["comparisons"].insert(
        0, {"baseline": "today", "candidate": "fine-tuned", "measure": "R@10", "delta": 0.3}
    )
    head = content.headline(DecisionRecord.of(value))
    assert head is not None
    assert head.delta == 0.225


def test_where_today_stays_the_figures_are_those_of_the_candidate_turned_down() -> None:
    value = decision() | {"verdict": "do_not_ship", "recommended": "today"}
    assert sections.verdict(DecisionRecord.of(value))["figures"][0][:2] == (
        "0.347 → 0.572",
        "nDCG@10, today → fine-tuned",
    )


def test_slices_are_about_the_fine_tuned_system_whatever_is_recommended() -> None:
    value = decision() | {"verdict": "use_simpler_fix", "recommended": "rrf"}
    decided = DecisionRecord.of(value)
    assert sections.verdict(decided)["figures"][0][0] == "0.347 → 0.418"
    assert sections.slices(decided)["candidate"] == "fine-tuned"


def test_where_nothing_is_semantic_no_repair_is_said_to_have_been_tried_on_it(
    data: ReportData,
) -> None:
    steps = [step for step in data.diagnosis["steps"] if step["cause"] != "semantic"]
    sentence = content.failures_sentence({**data.diagnosis, "steps": steps})
    assert "None of these failures was shown to be semantic" in sentence
    assert "every cheaper repair was tried" not in sentence


def test_the_lead_of_why_queries_fail_tells_the_ceiling_of_fine_tuning(data: ReportData) -> None:
    told = content.failures_sentence(data.diagnosis)
    assert told.startswith(
        "291 of 762 dev and train queries find no relevant document among the first 10, which leaves 308 relevant"
    )
    assert (
        "47% of these failures are semantic: every cheaper repair was tried on them, and none comes near."
        in told
    )
    assert (
        "first adds +0.131 of nDCG@10 (0.347 → 0.478), the ceiling of fine-tuning; +0.146 if the unknown ones"
        in told
    )
    for shown in (Outline(page.render(data)).text, markdown.render(data)):
        assert told in shown
        assert "search words beside vectors (BM25 or a hybrid)" in shown


def test_the_waterfall_takes_each_cause_off_what_is_left() -> None:
    marks = [
        charts.Mark("All", 10.0),
        charts.Mark("a", 4.0),
        charts.Mark("b", 0.0),
        charts.Mark("c", 6.0, tone="accent"),
    ]
    drawing = str(charts.waterfall(marks, width=charts.WIDE, title="t"))
    whole, first, none, last = (
        (float(a), float(b))
        for a, b in re.findall(
            r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" class="bar"', drawing
        )
    )
    assert first[1] == whole[1]
    assert first[1] - first[0] == pytest.approx(0.4 * (whole[1] - whole[0]), abs=0.2)
    assert none[1] == last[1] == first[0]
    assert none[1] - none[0] == 1.5  # still seen
    assert last[0] == whole[0]
    assert charts.waterfall(marks[:1], width=charts.WIDE, title="t") is None
    assert (
        charts.waterfall([charts.Mark("All", 0.0), marks[2]], width=charts.WIDE, title="t") is None
    )


def test_what_only_fine_tuning_repairs_stands_out_and_what_is_unknown_is_no_cause(
    data: ReportData,
) -> None:
    shown = sections.failures(data.diagnosis)
    assert shown
    assert (
        str(shown["chart"]).count('class="mark accent"')
        == str(shown["chart"]).count('class="mark unknown"')
        == 2
    )  # wide and narrow
    assert re.search(r'class="mark accent"><title>semantic: 145; 0\.594', str(shown["chart"]))


def test_at_most_ten_examples_a_cause_are_shown_with_what_should_be_found(data: ReportData) -> None:
    why = diagnosis()
    why["examples"] = {
        "semantic": [{**why["examples"]["unknown"][0], "query": f"question {i}"} for i in range(30)]
    }
    outline = Outline(page.render(ReportData(diagnosis=why)))
    assert "Semantic: 10" in outline.text
    assert "question 9" in outline.text
    assert "question 10" not in outline.text
    assert f"should find {TITLES['CWE-158']} CWE-158 finds first {TITLES['CWE-22']}" in outline.text
    assert "Chunking: " not in outline.text


def test_a_run_without_failures_says_so_and_draws_nothing() -> None:
    why = {
        "n_failures": 0,
        "n_failing_queries": 0,
        "n_queries": 90,
        "k": 10,
        "splits": ["dev"],
        "steps": [],
    }
    why["fine_tuning_ceiling"] = {"measure": "nDCG@10", "today": 0.9, "if_found": 0.9}
    html = page.render(ReportData(diagnosis=why))
    assert "0 of 90 dev queries find no relevant document among the first 10.</p>" in html
    assert "<svg" not in html


def test_the_ladder_names_what_is_kept_and_where_it_leads(data: ReportData) -> None:
    told = content.fixes_sentence(data.fixes, 95)
    assert (
        "has nDCG@10 0.347 on the 201 development queries; with metadata + hybrid it reaches 0.444 (+0.097, 95% interval"
        in told
    )
    assert told.endswith("and repairs 37% of the failures diagnosed there.")
    outline = Outline(page.render(data))
    assert (
        "hybrid convex + inferred filters + title ×0.5 kept +0.071 +0.050 to +0.093 28 / 6"
        in outline.text
    )
    assert "rewriting does not apply here – – – / – –" in outline.text
    assert "All 12 trials" in outline.text
    assert "11.2 / 19.8 2.9 MB 48.1 s" in outline.text
    assert (
        "| hybrid | convex + inferred filters + title ×0.5 | +0.071 | +0.050 to +0.093 | 28 / 6 |"
        in markdown.render(data)
    )


def test_a_ladder_that_keeps_nothing_says_so() -> None:
    fixes = ladder()
    fixes["rungs"] = [{**row, "kept": False} for row in fixes["rungs"]]
    shown = sections.fixes(ReportData(fixes=fixes))
    assert shown
    assert "None of the 4 simpler fixes that were tried brings a real gain" in shown["lead"]
    assert "All that were kept" not in shown["chart"]
    assert (
        sections.fixes(ReportData(fixes={"skipped": "there are no dev queries"}))["lead"]
        == "Not measured: there are no dev queries."
    )  # type: ignore[index]


def test_latency_is_shown_as_a_ratio_not_as_a_drop(data: ReportData) -> None:
    value = {
        "decision": {
            "guardrails": [
                {
                    "name": "latency",
                    "status": "pass",
                    "margin": 1.5,
                    "delta": 1.04,
                    "lower_bound": None,
                }
            ]
        }
    }
    for shown in (
        Outline(page.render(ReportData(**value))).text,
        markdown.render(ReportData(**value)),
    ):
        assert "× 1.04" in shown
        assert "× 1.50 at most" in shown
        assert "+1.04" not in shown


def test_passwords_in_settings_are_not_printed(data: ReportData) -> None:
    for rendered in (page.render(data), markdown.render(data)):
        assert "hunter2" not in rendered
        assert "s3cr3t" not in rendered
    assert "search.example" in page.render(data)
    assert (
        repeat.settings({"a": {"settings": {"search": {"token": "abc", "k": 3}}}})
        == "search:\n  token: …\n  k: 3"
    )


def test_markdown_is_short_and_holds_the_decision(data: ReportData) -> None:
    shown = markdown.render(data)
    assert len(shown.splitlines()) < 150
    assert "**fine-tuned** (recommended)" in shown
    assert "+0.225" in shown
    assert (
        shown.index("❌ must-pass queries")
        < shown.index("⚠️ slice: long queries")
        < shown.index("✅ general ability")
    )
    assert "`nearer run`" in shown
    widths = {
        line.count("|")
        for line in shown.splitlines()
        if line.startswith("| ") and "recommended" in line
    }
    assert widths == {
        next(line for line in shown.splitlines() if line.startswith("| System")).count("|")
    }


def test_markdown_stays_short_whatever_the_run_holds() -> None:
    value = decision()
    for key in ("candidates", "comparisons", "slices", "guardrails", "reasons"):
        value[key] = value[key] * 200
    why, fixes = diagnosis(), ladder()
    why["steps"], fixes["rungs"] = why["steps"] * 200, fixes["rungs"] * 200
    assert (
        len(
            markdown.render(
                ReportData(decision=value, diagnosis=why, fixes=fixes, trials=trials() * 200)
            ).splitlines()
        )
        < 150
    )


@pytest.mark.parametrize(
    ("untrusted", "expected"),
    [
        ("a|b", "a\\|b"),
        ("<b>hi</b>", "&lt;b&gt;hi&lt;/b&gt;"),
        ("two\nlines", "two lines"),
        ("nDCG@10", "nDCG@10"),
        ("@team fixes #12", "@\u2060team fixes \\#12"),
        ("[x](http://e.vil)", "\\[x\\](http://\u2060e.vil)"),
    ],
)
def test_markdown_text_stays_text(untrusted: str, expected: str) -> None:
    assert markdown.plain(untrusted) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.13, 0.32, [-0.1, 0.0, 0.1, 0.2, 0.3]),
        (3.0, 3.0, [3.0]),
        (0.0, 117.0, [0.0, 50.0, 100.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_whiskers_place_values_in_proportion() -> None:
    marks = [
        charts.Mark("a", 0.2, 0.1, 0.3),
        charts.Mark("b", 0.4, 0.3, 0.5),
        charts.Mark("c", 0.6, 0.5, 0.7),
    ]
    drawing = charts.whiskers(marks, width=charts.WIDE, title="t")
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', str(drawing))]
    assert xs[2] - xs[1] == pytest.approx(xs[1] - xs[0], abs=0.2)
    assert 0 < xs[0] < xs[2] < charts.WIDE


def test_nothing_to_draw_is_no_chart() -> None:
    assert charts.whiskers([], width=charts.WIDE, title="t") is None
    assert charts.curve([], title="t") is None
    assert charts.margins([0, 1], [1], [1, 2], (None, None), width=charts.WIDE) is None


def test_one_value_is_drawn_without_dividing_by_zero() -> None:
    assert "<circle" in str(
        charts.whiskers(
            [charts.Mark("a", 0.0)], width=charts.NARROW, title="t", reference=charts.Reference(0.0)
        )
    )
    assert "<circle" in str(charts.curve([(0.0, 0.3)], title="t", best=0, base=True))
    assert "area" in str(charts.margins([0.0, 1.0], [4], [4], (0.5, 0.5), width=charts.NARROW))


def test_long_histories_are_thinned_but_keep_their_end() -> None:
    drawing = str(
        charts.curve([(float(i), 1 / (i + 1)) for i in range(50_000)], title="loss", smooth=True)
    )
    assert len(drawing) < 20_000
    assert "step 49,999" in drawing


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (values.signed(-0.0004), "0.000"),
        (values.signed(0.0314), "+0.031"),
        (values.fixed(-0.25), "−0.250"),
        (values.fixed(float("nan")), "–"),
        (values.fixed(True), "–"),
        (values.p_value(0.0001), "< 0.001"),
        (values.duration(214.6), "3 min 34 s"),
        (values.duration(7200), "2 h 00 min"),
        (values.size(1_440_768), "1.4 MB"),
        (values.figure("share_cut", 0.213), "21.3%"),
        (values.figure("documents", 10**400), "1" + "0" * 158 + "…"),
        (values.figure("ok", False), "no"),
    ],
)
def test_figures_are_readable(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_fix_with_several_gaps_is_named_once(data: ReportData) -> None:
    gaps = [{"fix": "chunking", "why": why, "next": "nearer fix"} for why in ("a", "b")]
    sentence = content.fixes_sentence({**data.fixes, "not_tried": gaps}, 95)
    assert sentence.endswith(" Not tried: chunking (a; nearer fix | b; nearer fix).")
