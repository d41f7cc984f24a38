"""Plays many random sequences of index commands, kills and damage, and counts which invariants held.

    python bench/index_sequences.py --sequences 1000 --seed 1

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
from pathlib import Path

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started, broken, kills, refused, steps_played = time.monotonic(), [], 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        models = static_model(Path(folder) / "a", seed=1), static_model(Path(folder) / "b", seed=2)
        prepared = prepare(Path(folder), models)
        for number in range(options.sequences):
            steps = steps_of(random.Random(f"{options.seed} {number}"))  # noqa: S311 - no secret
            with tempfile.TemporaryDirectory() as scratch:
                player = Player(prepared, Path(scratch), models)
                try:
                    player.play(steps)
                except Exception as error:  # noqa: BLE001 - whatever it is, an invariant broke
                    broken.append({"number": number, "steps": steps, "error": repr(error)[:500]})
                kills, refused = kills + player.kills, refused + player.refused
                steps_played += len(steps)
    report = {
        "sequences": options.sequences,
        "seed": options.seed,
        "steps": steps_played,
        "kills": kills,
        "refused": refused,
        "broken": broken,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(report, indent=2))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
