"""Do our numbers agree with everybody else's?  Zero-shot test figures, ours beside a plain script's.

For each BEIR folder: nDCG@10 of BM25, dense and RRF through nearer, and dense again through
`SentenceTransformer.encode` and pytrec_eval alone, in fp32.  The two must agree to four decimals.

    python bench/quality.py examples/cwe [FOLDER …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytrec_eval

from nearer import config, progress
from nearer.cli.show import Terminal
from nearer.cli.start import demo_model
from nearer.data.load import load
from nearer.embed.encoder import load_encoder
from nearer.measure.metrics import score
from nearer.search.systems import Systems
from nearer.types import Split

MEASURE = "nDCG@10"


def ours(folder: Path, settings: config.Config) -> tuple[dict[str, float], Split, Systems]:
    """nDCG@10 of each system on the test queries."""
    loaded = load(settings.data, Path.cwd())
    judgments = {q: grades for q, grades in loaded.judgments["test"].items() if q in loaded.queries}
    test = Split("test", tuple(loaded.queries[q] for q in judgments), judgments)
    item_to_item = all(query.id in loaded.corpus for query in test.queries)
    encoder = load_encoder(settings.model, Path.cwd(), cache=Path("runs/.cache"))
    systems = Systems(
        settings,
        Path.cwd(),
        loaded.corpus,
        cache=Path("runs/.cache"),
        item_to_item=item_to_item,
        encoder=encoder,
    )
    return (
        {
            name: score(systems.search(name, test), test, [MEASURE]).mean(MEASURE)
            for name in ("bm25", "dense", "rrf")
        },
        test,
        systems,
    )


def plain(systems: Systems, test: Split) -> float:
    """The same dense figure without any of our code between the texts and the measure."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(systems.config.model.name, device="cpu")
    documents = model.encode(
        list(systems.corpus.contents()), batch_size=64, normalize_embeddings=True
    )
    queries = model.encode(
        [query.text for query in test.queries], batch_size=64, normalize_embeddings=True
    )
    ids = systems.corpus.ids
    run = {}
    for query, scores in zip(test.queries, queries @ documents.T, strict=True):
        top = np.argsort(-scores)[:101]
        run[query.id] = {
            ids[i]: float(scores[i])
            for i in top
            if not (systems.item_to_item and ids[i] == query.id)
        }
    relevant = {q: {d: int(g) for d, g in grades.items()} for q, grades in test.judgments.items()}
    scored = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10"}).evaluate(run)
    return float(np.mean([scored[query.id]["ndcg_cut_10"] for query in test.queries]))


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:]] or [Path("examples/cwe")]
    model = str(demo_model())
    with Terminal(quiet=False) as terminal, progress.listen(terminal):
        for folder in folders:
            settings = config.build(
                {"data": {"folder": str(folder)}, "model": {"name": model, "precision": "fp32"}}
            )
            measured, test, systems = ours(folder, settings)
            reference = plain(systems, test)
            line = {
                "data": folder.name,
                "queries": len(test),
                **measured,
                "dense by a plain script": reference,
            }
            line["agree to 4 decimals"] = abs(measured["dense"] - reference) < 5e-5
            print(
                json.dumps(
                    {k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
