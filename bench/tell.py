"""What the measurements of `speed.py` come to, in sentences and tables."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

ENCODING_TARGET = 1.7  # on CPUs with bf16 units
_LEVERS = {
    "a": "queries of a document sharing a batch",
    "b": "attention dropout 0",
    "c": "frozen word embeddings",
    "d": "bf16",
}
_REST = "similar lengths together, each text once a batch"


def read(found: dict[str, Any]) -> None:
    """Add one sentence to each result, and a warning when the machine was shared."""
    encoding, training, facts = found["encoding"], found["training"], found["machine"]
    encoding["reading"] = _encoding(encoding, facts)
    for key, below in pairwise(training):
        training[key]["reading"] = (
            f"({key}) {_LEVERS[key]}: {_lever(training[key], training[below])} over ({below})"
        )
    last = list(training)[-1]
    training[last]["reading"] = f"({last}) {_REST}: {training[last]['ratio']:.2f}× the peer"
    others = max(facts["load_before"], facts["load_after"] - facts["threads"])
    loads = f"load {facts['load_before']} before and {facts['load_after']} after, {facts['cores']} cores"
    shared = others > 0.25 * facts["cores"]
    found["contended"] = (
        f"Other work was running ({loads}): do not quote these ratios; measure on an idle machine."
        if shared
        else None
    )


def _encoding(encoding: dict[str, Any], facts: dict[str, Any]) -> str:
    ratio = f"{encoding['ratio']:.2f}×"
    if facts["bf16"]:
        verdict = "reached" if encoding["ratio"] >= ENCODING_TARGET else "missed"
        return f"{ratio} in {encoding['precision']} ({encoding['reason']}): target {ENCODING_TARGET}× {verdict}"
    return f"{ratio}, fp32 on both sides: target {ENCODING_TARGET}× applies to {facts['device'].upper()}s with bf16 units; this one has none"


def _lever(above: dict[str, Any], below: dict[str, Any]) -> str:
    """The gain of one lever; with several repetitions, also whether it stands out from their spread."""
    gain = f"{above['ratio'] / below['ratio']:.2f}×"
    if len(above["ratios"]) == 1:
        return f"{gain} (one run, spread unknown)"
    apart = min(above["ratios"]) > max(below["ratios"]) or max(above["ratios"]) < min(
        below["ratios"]
    )
    return gain if apart else f"{gain} (within the spread)"


def show(found: dict[str, Any]) -> None:
    """What was found, for people."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 118)
    facts, settings, encoding = found["machine"], found["settings"], found["encoding"]
    bf16 = "bf16 units" if facts["bf16"] else "no bf16 units"
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, {bf16}; torch {facts['torch']} on {facts['device']}"
    )
    console.print(
        f"sentence-transformers {facts['sentence-transformers']}; medians of {settings['repeats']}, in turn, a process each\n"
    )
    table = _table(
        "encoding", "tokens/s", "peer", "ratio", "range", "cosine to fp32: mean", "worst"
    )
    cosine = encoding["cosine"]
    table.add_row(
        f"{encoding['documents']} documents, {encoding['precision']}",
        *_speeds(encoding, "tokens"),
        *(f"{cosine[k]:.5f}" for k in cosine),
    )
    console.print(table)
    console.print(encoding["reading"] + "\n")
    table = _table(
        "training", "pairs/s", "peer", "ratio", "range", "tokens to peer's", "steps, peer's"
    )
    for key, one in found["training"].items():
        table.add_row(
            f"({key}) {one['variant']}",
            *_speeds(one, "pairs"),
            f"{one['tokens_share']:.2f}",
            "{} / {}".format(*one["steps"]),
        )
    console.print(table)
    for one in found["training"].values():
        console.print(one["reading"])
    if found["contended"]:
        console.print(f"\n{found['contended']}", style="yellow")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="right" if number else "left", max_width=48 if not number else 12
        )
    return table


def _speeds(one: dict[str, Any], unit: str) -> list[str]:
    mine, theirs = (one[f"{unit}_per_second"][side] for side in ("nearer", "peer"))
    digits = 0 if mine >= 100 else 2
    spread = f"{min(one['ratios']):.2f}–{max(one['ratios']):.2f}"
    return [f"{mine:,.{digits}f}", f"{theirs:,.{digits}f}", f"{one['ratio']:.2f}×", spread]
