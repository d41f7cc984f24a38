"""How long does diagnosis take once embeddings exist?  `python bench/diagnose.py FOLDER [MODEL]`

Diagnoses the dev and train queries of a BEIR folder twice over one cache; the first time embeds,
the second is what is told.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nearer import config
from nearer.cli.start import demo_model
from nearer.data.load import load
from nearer.search.systems import Systems
from nearer.stages.diagnose import diagnose
from nearer.types import Split


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/debian-related")
    model = sys.argv[2] if len(sys.argv) > 2 else str(demo_model())
    settings = config.build(
        {"data": {"folder": str(folder)}, "model": {"name": model, "precision": "fp32"}}
    )
    loaded = load(settings.data, Path.cwd())
    item_to_item = all(query_id in loaded.corpus for query_id in loaded.queries)
    splits = [
        Split(
            name,
            tuple(loaded.queries[q] for q in loaded.judgments[name] if q in loaded.queries),
            loaded.judgments[name],
        )
        for name in ("dev", "train")
    ]
    with tempfile.TemporaryDirectory() as cache:
        for attempt in ("with embedding", "embeddings exist"):
            systems = Systems(
                settings, Path.cwd(), loaded.corpus, cache=Path(cache), item_to_item=item_to_item
            )
            started = time.perf_counter()
            result = diagnose(systems, splits, settings, np.random.default_rng(7))
            seconds = time.perf_counter() - started
            told = {
                "data": folder.name,
                "documents": len(loaded.corpus),
                "failing queries": result.summary["n_failing_queries"],
            }
            told |= {
                "failures": len(result.failures),
                "run": attempt,
                "seconds": round(seconds, 1),
                "causes": result.summary["causes"],
            }
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
