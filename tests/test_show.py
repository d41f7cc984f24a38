"""What the command line prints fits its terminal, and never cuts a number or an id."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from nearer.cli import index as cli_index
from nearer.cli import serve as cli_serve
from nearer.cli import show
from nearer.stages.diagnose import Diagnoses
from nearer.tables import Grid, PlainConsole
from nearer.workspace import StepResult
from terminal_driver import CASES

WIDTHS = (60, 80, 100, 120, 200)
MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "Judged@10")
LONG_ID = "doc-2026-11-26-a-rather-long-identifier-0042"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def measures(start: float) -> dict[str, Any]:
    return {
        name: {"mean": start + number / 100, "ci": [start - 0.031, start + 0.032]}
        for number, name in enumerate(MEASURES)
    }


def write(run: Path, name: str, value: Any) -> None:
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def workspace(root: Path) -> None:
    """A run as its stages leave it, as far as it is shown."""
    names = ["dense", "bm25", "rrf", "convex, titles counted apart, acronyms written out"]
    rows = [{"name": name, "measures": measures(0.3)} for name in names]
    evaluation = {
        "system": {"system": "dense"},
        "measures": measures(0.3),
        "systems": rows,
        "n_queries": 1446,
        "split": "dev",
    }
    write(root, "evaluate/summary.json", evaluation)
    step = {"cause": "label_suspect", "failures": 1234, "measure": 0.567}
    step["remedy"] = "look at the judgments of these queries once more, some may be missing"
    ceiling = {"measure": "nDCG@10", "today": 0.347, "gain": 0.123}
    diagnosis = {"n_failing_queries": 400, "n_queries": 1446, "k": 10, "n_failures": 512}
    diagnosis |= {"fine_tuning_ceiling": ceiling, "steps": [step], "freshness": None}
    write(root, "diagnose/summary.json", diagnosis | {"not_run": {"no model to rerank": 12}})
    delta = {"mean": 0.0712, "ci": [0.0512, 0.0912]}
    rung = {"fix": "hybrid:convex+titles+acronyms", "kept": True, "measure": 0.418}
    rung |= {"delta": delta, "repaired": 151, "broken": 31, "label": "words beside vectors"}
    skipped = rung | {"fix": "rerank", "delta": None, "kept": False, "label": "no reranker is set"}
    ladder = {"measure": "nDCG@10", "today": 0.347, "rungs": [rung, skipped], "n_queries": 1446}
    ladder |= {"failures_repaired": {"semantic": [3, 9]}, "label": "convex", "best_measure": 0.435}
    write(root, "fix/summary.json", ladder)
    candidates = [
        {"name": name, "role": "today", "measures": measures(0.345), "latency": {"p50_ms": 12.3}}
        for name in (*names, "fine-tuned, convex, weight tuned on dev")
    ]
    decision = {"candidates": candidates, "primary": "nDCG@10", "recommended": "rrf"}
    decision |= {"verdict": "inconclusive", "sentence": "Not shown.", "reasons": ["+.216"]}
    write(root, "decide/decision.json", decision)
    for name in ("diagnose/failures.jsonl", "fix/trials.jsonl"):
        (root / name).write_text("")


def told(stage: str, root: Path) -> None:
    workspace(root)
    show.print_result(StepResult(stage, "done", 1.0, root / stage, {}))


def status(root: Path) -> None:
    show.print_status(
        [
            {
                "stage": "diagnose",
                "state": "stale",
                "finished": "2026-11-26T22:15:07+00:00",
                "seconds": 4321.0,
                "question": "Why did each failing query fail, and what is the cheapest repair?",
            }
        ]
    )


def story(root: Path) -> None:
    probes = {
        "exact_match": {"rank": 3, "found": True, "variants": {"bm25": 3, "rrf": None}},
        "reranking": {"rank": 1234567, "found": False, "skipped": "no reranker is set"},
    }
    around = [{"rank": 1, "score": 0.812, "id": LONG_ID, "title": "[/b] :bug: x", "relevant": True}]
    query = {"query_id": "q0042", "query": "[bold] how", "doc_id": LONG_ID, "document": "[/x] t"}
    outcome = {"rank": 17, "cause": "ranking", "kind": "", "fails": True, "evidence": "[/y] none"}
    show.print_story({**query, **outcome, "probes": probes, "around": around})


def monitor(root: Path) -> None:
    row = {"name": "low_scores", "slice": "all", "value": 0.1234, "low": 0.1, "high": 0.2}
    found = {"p": 0.0123, "size": 0.0456, "threshold": 0.05, "fires": True}
    alert = {"slice": "all", "condition": "low_scores", "since": "2026-11-20", "what": "12.3%"}
    alert |= {"diagnosis": None, "examples": ["a query"], "do": "nearer index sync"}
    report: Any = SimpleNamespace(
        day="2026-11-26",
        requests=123456,
        generation="1a2b3c4d-1",
        alerts=[alert],
        series=[SimpleNamespace(**row)],
        conditions={"low_scores": found},
        skipped={"clicks": "no feedback"},
    )
    show.print_monitor(report)


def generations(root: Path) -> None:
    model = "runs/default/train/model-with-a-long-name-that-somebody-chose"
    row = {"id": "1a2b3c4d-1234567", "state": "building", "documents": 12345678, "model": model}
    show.print_answer(cli_index._listed([row]))


def shadow(root: Path) -> None:
    agreement = {
        name: {"mean": 0.812, "ci": [0.801, 0.823]} for name in ("overlap", "rbo", "top1_changed")
    }
    latency = {side: {"p50": 12.3, "p95": 45.6} for side in ("live", "candidate")}
    judged = {"measure": "nDCG@10", "live": 0.347, "candidate": 0.412, "ci": [0.041, 0.087]}
    record = {"candidate": "1a2b3c4d-1", "live": "1a2b3c4d-2", "verdict": "pass", "reasons": ["ok"]}
    record |= {"agreement": agreement, "latency_ms": latency, "timed": False}
    record |= {"empty": {"candidate": 1, "live": 2}, "judged": judged | {"queries": 512}}
    show.print_answer(cli_serve._told(record))


TABLES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "evaluate": (lambda root: told("evaluate", root), ["0.300", "0.340", "Judged@10", "(today)"]),
    "diagnose": (lambda root: told("diagnose", root), ["label_suspect", "1,234", "0.567"]),
    "fix": (
        lambda root: told("fix", root),
        ["hybrid:convex+titles+acronyms", "+0.071 (+0.051 to +0.091)", "151", "31"],
    ),
    "decide": (
        lambda root: told("decide", root),
        ["0.345 (0.314–0.377)", "nDCG@10 (interval)", "12.3", "0.385"],
    ),
    "status": (status, ["diagnose", "2026-11-26T22:15:07+00:00", "1 h 12 min", "--from diagnose"]),
    "story": (story, ["q0042", LONG_ID, "1234567", "0.812", ":bug:", "[/b]"]),
    "monitor": (monitor, ["0.123 (0.100–0.200)", "+0.046", "0.0123", "1a2b3c4d-1", "123,456"]),
    "index list": (
        generations,
        [
            "1a2b3c4d-1234567",
            "12,345,678",
            "runs/default/train/model-with-a-long-name-that-somebody-chose",
        ],
    ),
    "shadow": (shadow, ["1a2b3c4d-1", "0.801", "12.3", "+0.041", "512"]),
}


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StringIO]]:
    def console(**options: Any) -> StringIO:
        file = StringIO()
        plain = {"highlight": False, "markup": False, "emoji": False}
        monkeypatch.setattr(show, "out", PlainConsole(file=file, **plain, **options))
        return file

    return console


def check(output: str, wanted: list[str], width: int | None) -> None:
    text = _ANSI.sub("", output).replace("\r\n", "\n")
    for value in wanted:
        assert value in text, f"{value} is missing in\n{text}"
    assert "…" not in text
    for line in text.splitlines():
        fits = width is None or cell_len(line) <= width
        assert fits or max(map(cell_len, line.split())) > width, line


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("table", TABLES)
def test_a_table_fits_and_loses_no_figure(
    table: str, width: int, tmp_path: Path, captured: Any
) -> None:
    prints, wanted = TABLES[table]
    output = captured(force_terminal=True, width=width, height=25, _environ={"TERM": "xterm"})
    prints(tmp_path)
    check(output.getvalue(), wanted, width)


@pytest.mark.parametrize("table", TABLES)
def test_piped_output_has_a_line_per_row_and_no_escapes(
    table: str, tmp_path: Path, captured: Any
) -> None:
    prints, wanted = TABLES[table]
    output = captured(_environ={"COLUMNS": "60"})
    prints(tmp_path)
    check(output.getvalue(), wanted, None)
    assert "\x1b" not in output.getvalue()


def test_what_fits_is_a_table_and_what_does_not_becomes_blocks(captured: Any) -> None:
    grid = Grid("system", "nDCG@10 (interval)", "note")
    grid.add("dense-with-its-name", "0.347 (0.316–0.379)", "")
    output = captured(force_terminal=True, width=60, height=25)
    show.print_answer(grid)
    assert [line.split() for line in _ANSI.sub("", output.getvalue()).splitlines()] == [
        ["system", "nDCG@10", "(interval)", "note"],
        ["dense-with-its-name", "0.347", "(0.316–0.379)"],
    ]
    output = captured(force_terminal=True, width=45, height=25)
    show.print_answer(grid)
    lines = _ANSI.sub("", output.getvalue()).splitlines()
    assert lines == ["  dense-with-its-name", "    nDCG@10 (interval)  0.347 (0.316–0.379)"]


def test_a_word_longer_than_the_terminal_stays_in_one_piece(captured: Any) -> None:
    grid = Grid("generation", "model")
    grid.add("a", "m" * 50)
    output = captured(force_terminal=True, width=40, height=25)
    show.print_answer(grid)
    assert "m" * 50 in output.getvalue()


def test_a_row_needs_a_cell_per_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Grid("a", "b").add("x")


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = StringIO()
    monkeypatch.setattr(show, "err", PlainConsole(file=written, markup=False, emoji=False))
    clock = [0.0]
    monkeypatch.setattr(show.time, "monotonic", lambda: clock[-1])
    with show.Terminal(quiet=False) as terminal:
        bar = terminal.start("embedding", 100, "texts")
        for now, done in ((20.0, 10), (30.0, 20), (40.0, 40)):
            clock.append(now)
            bar.reach(done)
        bar.note("fp32")
        terminal.stop(bar)
    assert written.getvalue().splitlines()[:3] == [
        "  embedding: 10/100 texts, about 0 s left",
        "  embedding: 40/100 texts, about 40 s left",
        "  embedding: 40 texts in 40 s (1.0 per second) fp32",
    ]


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What all tables print in each case of terminal_driver."""
    folder = tmp_path_factory.mktemp("terminals")
    driver = Path(__file__).with_name("terminal_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outputs: list[str] = json.loads((folder / "printed.json").read_text(encoding="utf-8"))
    return outputs


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{environment}-{width}" for width, environment in CASES]
)
def test_real_terminals_and_pipes(case: tuple[int | None, str], terminals: list[str]) -> None:
    width, environment = case
    output = terminals[CASES.index(case)]
    check(output, [value for _, wanted in TABLES.values() for value in wanted], width)
    plain = environment != "colour" or width is None
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-7]m", output)) is not plain  # colours
    if environment == "dumb" or width is None:
        assert "\x1b" not in output


@pytest.mark.parametrize(
    ("gain", "unknown", "said"),
    [
        (0.0, 0, "no failure was shown to be semantic"),
        (
            0.0,
            84,
            "no failure was shown to be semantic, and 84 are unknown: fine-tuning adds 0.200 at most",
        ),
        (0.125, 0, "finding the semantic ones first adds 0.125"),
        (
            0.125,
            3,
            "finding the semantic ones first adds 0.125 (0.200 if the 3 unknown ones were semantic too)",
        ),
    ],
)
def test_the_ceiling_says_what_is_unknown(gain: float, unknown: int, said: str) -> None:
    ceiling = {"measure": "nDCG@10", "today": 0.3, "gain": gain, "if_unknown_were_semantic": 0.5}
    summary = {
        "fine_tuning_ceiling": ceiling,
        "steps": [],
        "causes": {"unknown": unknown} if unknown else {},
        "n_failing_queries": 90,
        "n_queries": 100,
        "n_failures": 90,
        "k": 10,
        "freshness": None,
    }
    assert f"nDCG@10 is 0.300 today; {said}\n" in f"{Diagnoses([], summary)}\n"
