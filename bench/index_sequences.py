"""Plays many random sequences of index commands, kills and damage, and counts which invariants held.

    python bench/index_sequences.py --sequences 1000 --seed 1
    python bench/index_sequences.py --first 200 --sequences 100 --record sequences.jsonl   # in pieces
    python bench/index_sequences.py --sequences 0 --record sequences.jsonl                 # their sum

Sequence N of a seed is always the same.  With `--record` each one is written down when it ends, and
those that are written down already are not played again; what is printed is about all of them.
Exit code 1 when an invariant broke; the steps of that sequence are printed, so that they can be
played again as a test (tests/sequences_kit.py says what is checked after each step).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from generations_kit import static_model
from sequences_kit import ACTIONS, Player, Step, prepare


def steps_of(chance: random.Random) -> list[Step]:
    """A sequence; every third command dies at some file operation."""
    steps: list[Step] = [("build", 1, None), ("verify", 1, None), ("cutover", 1, None)]
    for _ in range(chance.randint(3, 10)):
        operation = chance.randint(1, 120) if chance.random() < 1 / 3 else None
        steps.append((chance.choice(ACTIONS), chance.randrange(60), operation))
    return steps


def play(seed: int, number: int, prepared: Path, models: tuple[Path, Path]) -> dict[str, Any]:
    """One sequence: what happened, and which invariant broke if one did."""
    steps = steps_of(random.Random(f"{seed} {number}"))  # noqa: S311 - no secret
    started, error = time.monotonic(), None
    with tempfile.TemporaryDirectory() as scratch:
        player = Player(prepared, Path(scratch), models)
        try:
            player.play(steps)
        except Exception as raised:  # noqa: BLE001 - whatever it is, an invariant broke
            error = repr(raised)[:500]
    return {
        "seed": seed,
        "number": number,
        "steps": len(steps),
        "kills": player.kills,
        "refused": player.refused,
        "seconds": round(time.monotonic() - started, 1),
        "broken": error and {"steps": steps, "error": error},
    }


def report(played: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sum of all sequences."""
    found = list(played)
    summary: dict[str, Any] = {"sequences": len(found)}
    summary["seeds"] = sorted({one["seed"] for one in found})
    for name in ("steps", "kills", "refused", "seconds"):
        summary[name] = round(sum(one[name] for one in found), 1)
    summary["broken"] = [one for one in found if one["broken"]]
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first sequence")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--record", type=Path, help="write each sequence to this file of JSON lines"
    )
    options = parser.parse_args()
    played: dict[tuple[int, int], dict[str, Any]] = {}
    if options.record and options.record.is_file():
        for line in options.record.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            played[one["seed"], one["number"]] = one
    with tempfile.TemporaryDirectory() as folder:
        models = static_model(Path(folder) / "a", seed=1), static_model(Path(folder) / "b", seed=2)
        prepared = prepare(Path(folder), models)
        for number in range(options.first, options.first + options.sequences):
            if (options.seed, number) in played:
                continue
            one = play(options.seed, number, prepared, models)
            played[options.seed, number] = one
            if options.record:
                with open(options.record, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps(one) + "\n")
    summary = report(played.values())
    print(json.dumps(summary, indent=2))
    return 1 if summary["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
