"""Recommend and cluster on real data: what fine-tuning adds, beside what people did and words alone.

    python bench/tasks.py debian [--data examples/debian-related] [--out FOLDER]
    python bench/tasks.py banking --data FOLDER/banking77 [--seeds 3] [--per-intent 40] [--out FOLDER]

`debian`: packages that go together; one table of all systems on test, with coverage and bias.
`banking`: 77 intents of which 20 are held out for test (and 8 for dev); V-measure and 5-shot accuracy
on the held-out intents, before and after, one training per seed over the same split.  The folder has
train.jsonl and test.jsonl with `text` and `category`; it is read, never copied into the repository.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, lifecycle, progress
from nearer.cli.demos import DEMOS
from nearer.cli.show import Terminal
from nearer.cli.start import demo_model
from nearer.data.corpus import Corpus
from nearer.files import read_json, read_jsonl, write_jsonl
from nearer.project import Project
from nearer.search.systems import Systems
from nearer.tasks import find_task
from nearer.tasks.base import GuardInputs
from nearer.types import Run, Split
from nearer.workspace import Workspace

#: Stages that lead to a model, and to its judgment, without the diagnosis of failures.
_TRAINED = ("check", "mine", "train")
_DECIDED = ("check", "evaluate", "mine", "train", "decide")
_TRAIN = {"method": "top:3", "batch_size": 32, "max_seq_length": 64, "dev_documents": 1000}
_HELD_OUT, _DEV = 20, 8
_SHOWN = (
    "nDCG@10",
    "R@10",
    "Success@10",
    "Coverage@10",
    "Gini@10",
    "Bias@10",
    "Novelty@10",
    "Diversity@10",
)


def run_stages(folder: Path, values: Mapping[str, Any], names: Sequence[str]) -> Path:
    """Run some stages in a folder; gives that of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = config.build(values)
    workspace = Workspace(folder, settings)
    stages = tuple(stage for stage in lifecycle.STAGES if stage.name in names)
    workspace.run(stages)
    return workspace.run_dir


def debian(data: Path, out: Path) -> None:
    """One table: today's model, words, what people did, and the fine-tuned model."""
    values = {
        "data": {"folder": str(data.resolve())},
        "model": {"name": str(demo_model())},
        **DEMOS["recommend"].settings,
    }
    done = run_stages(out / "debian", values, _DECIDED)
    found = read_json(done / "decide" / "task.json")
    decision = read_json(done / "decide" / "decision.json")
    print(f"\n{decision['n_queries']:,} test queries; {decision['sentence']}\n")
    print("| system | " + " | ".join(_SHOWN) + " |")
    print("|---|" + "---:|" * len(_SHOWN))
    for name, measures in found["measures"].items():
        cells = " | ".join(f"{measures[measure]:.3f}" for measure in _SHOWN)
        print(f"| {name} | {cells} |")
    for row in decision["guardrails"]:
        print(f"{row['name']}: {row['status']} ({row.get('sentence') or row.get('delta')})")


def banking(data: Path, out: Path, seeds: int, per_intent: int | None) -> None:
    """Held-out intents before and after, per seed, with the bounds of each seed."""
    folder = out / "banking"
    folder.mkdir(parents=True, exist_ok=True)
    n_intents = write_messages(data, folder / "corpus.jsonl", per_intent)
    per_seed = []
    for seed in range(1, seeds + 1):
        values = {
            "run": f"seed{seed}",
            "task": "cluster",
            "data": {
                "corpus": "corpus.jsonl",
                "split": {"test": _HELD_OUT / n_intents, "dev": _DEV / n_intents},
            },
            "model": {"name": str(demo_model())},
            "cluster": {"label": "category", "per_class": 20, "shots": 5, "repeats": 3},
            "evaluate": {"primary": "P@10", "measures": ("P@10", "R@10"), "baselines": ("dense",)},
            "mine": {"positives": 2, "negatives": 0},
            "train": {**_TRAIN, "epochs": 2, "loss": "supcon", "seed": seed, "general": None},
            "decide": {"guardrails": {"general": None}, "guards": ()},
        }
        done = run_stages(folder, values, _TRAINED)
        per_seed.append(whole_intents(folder, values, done))
    print(f"\n{_HELD_OUT} of {n_intents} intents held out, {seeds} seeds")
    for measure in ("V-measure", "Few-shot"):
        before = np.array([row[measure].before for row in per_seed])
        after = np.array([row[measure].after for row in per_seed])
        gains = after - before
        spread = f"gains by seed {', '.join(f'{gain:+.3f}' for gain in gains)}"
        print(f"{measure}: {before.mean():.3f} → {after.mean():.3f} ({spread})")
        for seed, row in enumerate(per_seed, start=1):
            found = row[measure]
            print(
                f"  seed {seed}: 90% interval of the gain {found.low:+.3f} to {found.high:+.3f}, n {found.n:,}"
            )


def write_messages(data: Path, path: Path, per_intent: int | None) -> int:
    """Both official splits as one corpus, the first so many of each intent; gives the number of intents."""
    lines = []
    counts: Counter[str] = Counter()
    for name in ("train", "test"):
        for number, line in enumerate(read_jsonl(data / f"{name}.jsonl")):
            counts[line["category"]] += 1
            if per_intent is None or counts[line["category"]] <= per_intent:
                lines.append({"_id": f"{name}-{number}", **line})
    write_jsonl(path, lines)
    return len(counts)


def whole_intents(folder: Path, values: Mapping[str, Any], done: Path) -> dict[str, Any]:
    """V-measure and few-shot accuracy on every message of the held-out intents, not on a sample."""
    settings = config.build({**values, "cluster": {**values["cluster"], "per_class": 100_000}})
    project = Project(settings, folder, cache=folder / "runs" / ".cache")
    loaded = project.task.load(settings, folder)
    asked = loaded.judgments["test"]
    test = Split("test", tuple(loaded.queries[doc_id] for doc_id in asked), asked)
    models = [
        settings.model,
        settings.model.as_saved().model_copy(update={"name": str(done / "train" / "model")}),
    ]
    base, tuned = (_systems(settings, folder, loaded.corpus, model) for model in models)
    inputs = GuardInputs(
        before=Run("today", {}),
        after=Run("tuned", {}),
        base=base,
        tuned=tuned,
        split=test,
        alpha=0.05,
        seed=7,
    )
    task = find_task("cluster")
    guards = [
        config.TaskGuard(task="cluster", measure=name, margin=0.0)
        for name in ("V-measure", "Few-shot")
    ]
    return {guard.measure: task.check(guard, inputs) for guard in guards}


def _systems(settings: config.Config, folder: Path, corpus: Corpus, model: config.Model) -> Systems:
    own = settings.model_copy(update={"model": model})
    return Systems(own, folder, corpus, cache=folder / "runs" / ".cache", item_to_item=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("debian", "banking"))
    parser.add_argument("--data", type=Path, default=Path("examples/debian-related"))
    parser.add_argument("--out", type=Path, default=Path("bench-tasks"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-intent", type=int, help="messages of each intent (default: all)")
    options = parser.parse_args()
    with progress.listen(Terminal(quiet=True)):
        if options.what == "debian":
            debian(options.data, options.out)
        else:
            banking(options.data, options.out, options.seeds, options.per_intent)


if __name__ == "__main__":
    main()
