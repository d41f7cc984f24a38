"""What training is worth and what it costs, beside sentence-transformers' own Trainer.

    python bench/training.py examples/cwe [FOLDER …] --seeds 7 8 9 --out training.jsonl

For each BEIR folder and seed, each in a process of its own: the base model, nearer with its
defaults (`--set` changes them), and two recipes of sentence-transformers' Trainer on the same pairs,
its defaults and a good plain one.  Test nDCG@10 of dense search, nDCG@10 on the guardrail's general
questions before and after, wall and CPU seconds of everything that training needs.  A row that
stands in `--out` already is not measured again, so that a long run can be stopped and gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from nearer.cli.start import demo_model

MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True)
class PeerRecipe:
    """Settings of sentence-transformers' Trainer with MultipleNegativesRankingLoss."""

    batch_size: int
    learning_rate: float
    max_tokens: int | None  # None: the model's own
    epochs: int
    no_duplicates: bool
    bf16: bool  # where the machine has units for it


@dataclass(frozen=True, slots=True)
class Cell:
    """One row to measure: a way of training, its seed, and settings that are not the defaults."""

    method: str
    seed: int
    settings: tuple[str, ...]


PEERS = {
    "trainer, its defaults": PeerRecipe(8, 5e-5, None, 3, no_duplicates=False, bf16=False),
    "trainer, plain recipe": PeerRecipe(32, 1e-4, 128, 3, no_duplicates=True, bf16=True),
}
BASE, OURS = "base", "nearer"


# -- one measurement, alone in its process ---------------------------------------------------------


def load_project(folder: Path, out: Path, cell: Cell) -> Any:
    """The project of a folder, as `nearer run --set …` would see it."""
    import yaml

    from nearer import config
    from nearer.project import Project

    path = out / "nearer.yaml"
    values = {"data": {"folder": str(folder.resolve())}, "model": {"name": str(demo_model())}}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    settings = config.load(path, [*cell.settings, f"train.seed={cell.seed}"])
    return Project(settings, Path.cwd(), cache=out / "cache")


def measure(project: Any, encoder: Any) -> dict[str, float]:
    """Test nDCG@10 of dense search over the whole corpus, and of the general questions."""
    from nearer.data.general import load_general
    from nearer.measure.metrics import drop_self, score
    from nearer.search.dense import Dense

    test = project.checked.splits["test"]
    run = Dense(encoder, project.corpus).search(test.queries, 11)
    if project.item_to_item:
        run = drop_self(run)
    corpus, general = load_general()
    general_run = Dense(encoder, corpus).search(general.queries, 10)
    return {
        "test": score(run, test, [MEASURE]).mean(MEASURE),
        "general": score(general_run, general, [MEASURE]).mean(MEASURE),
    }


def train_nearer(project: Any, out: Path) -> tuple[Any, dict[str, Any]]:
    """nearer's own way: mining and training, with what it writes down about them."""
    import nearer

    examples = nearer.mine(project).examples
    trained = nearer.train(project, examples, checkpoints=out / "checkpoints")
    summary = trained.summary
    facts = {key: summary.get(key) for key in ("steps", "dev", "merge", "forgetting", "loss")}
    return trained.encoder, facts | {"history": list(trained.history)}


def train_peer(project: Any, out: Path, recipe: PeerRecipe, seed: int) -> Any:
    """sentence-transformers' Trainer on the same pairs; nothing of ours but the texts."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from nearer.embed.precision import hardware_has_bf16

    train = project.split("train")
    pairs = []
    for query in train.queries:
        for doc_id in train.relevant(query.id, 1):
            if doc_id in project.corpus:
                pairs.append((query.text, project.corpus.get(doc_id).content))
    model = SentenceTransformer(str(demo_model()), local_files_only=True)
    if recipe.max_tokens is not None:
        model.max_seq_length = recipe.max_tokens
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(out / "peer"),
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            batch_sampler="no_duplicates" if recipe.no_duplicates else "batch_sampler",
            bf16=recipe.bf16 and hardware_has_bf16(model.device.type),
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {"anchor": [query for query, _ in pairs], "positive": [text for _, text in pairs]}
        ),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    folder = out / "peer-model"
    model.max_seq_length = 256
    model.save(str(folder), create_model_card=False)
    return folder


def work(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train as the cell says, and measure."""
    from nearer.config import Model
    from nearer.embed.encoder import load_encoder

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        project = load_project(folder, out, cell)
        _ = project.checked  # reading and splitting are no part of training
        facts: dict[str, Any] = {}
        started, cpu = time.monotonic(), time.process_time()
        name = str(demo_model())
        encoder = None
        if cell.method == OURS:
            encoder, facts = train_nearer(project, out)
        elif cell.method in PEERS:
            name = str(train_peer(project, out, PEERS[cell.method], cell.seed))
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
        if encoder is None:
            encoder = load_encoder(Model(name=name, precision="fp32"), Path.cwd())
        figures = measure(project, encoder)
    return {
        "data": folder.name,
        "method": cell.method,
        "seed": cell.seed,
        "settings": list(cell.settings),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        **figures,
        **facts,
    }


# -- all of them -----------------------------------------------------------------------------------


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """The base once, and every way of training with every seed."""
    cells = [Cell(BASE, 0, ())]
    for seed in arguments.seeds:
        for method in arguments.methods:
            settings = tuple(arguments.set) if method == OURS else ()
            cells.append(Cell(method, seed, settings))
    return cells


def measured(out: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def run_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """One row, measured in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--worker", cell.method]
    command += ["--seeds", str(cell.seed)]
    for setting in cell.settings:
        command += ["--set", setting]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{cell.method} on {folder} ended with an error:\n{finished.stderr}")
    row: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return row


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table: means over the seeds, with their spread."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("data", "method", "seeds", f"test {MEASURE}", "general", "seconds", "CPU s"):
        table.add_column(column, justify="left" if column in ("data", "method") else "right")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        name = " ".join([row["method"], *row["settings"]])
        groups.setdefault((row["data"], name), []).append(row)
    for (data, name), group in groups.items():
        test = [row["test"] for row in group]
        spread = f" ({min(test):.3f}–{max(test):.3f})" if len(test) > 1 else ""
        table.add_row(
            data,
            name,
            str(len(group)),
            f"{mean(test):.4f}{spread}",
            f"{mean(row['general'] for row in group):.4f}",
            f"{mean(row['seconds'] for row in group):.0f}",
            f"{mean(row['cpu_seconds'] for row in group):.0f}",
        )
    Console(highlight=False).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("examples/cwe")])
    parser.add_argument("--seeds", nargs="+", type=int, default=[7])
    parser.add_argument("--methods", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("training.jsonl"))
    parser.add_argument("--worker", choices=[BASE, OURS, *PEERS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.worker:
        cell = Cell(arguments.worker, arguments.seeds[0], tuple(arguments.set))
        print(json.dumps(work(cell, arguments.folders[0])))
        return
    rows = measured(arguments.out)
    done = {(row["data"], row["method"], row["seed"], tuple(row["settings"])) for row in rows}
    for folder in arguments.folders:
        for cell in cells_of(arguments):
            if (folder.name, cell.method, cell.seed, cell.settings) in done:
                continue
            print(f"{cell.method} on {folder.name}, seed {cell.seed} …", file=sys.stderr)
            row = run_cell(cell, folder)
            rows.append(row)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            show(rows)
    show(rows)


if __name__ == "__main__":
    main()
