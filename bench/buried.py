"""What is said of answers buried in long documents?  `python bench/buried.py FOLDER [MODEL] [DOCUMENTS]`

Real queries of a BEIR folder that the model answers among the first three; then the answer is
wrapped in 420 words of other documents before and 200 after it, and every query that fails is
diagnosed.  Fine-tuning is no remedy for any of them.  The corpus is a sample of so many documents
(400), each cut to its first hundred words.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import planted as plants
from nearer import config
from nearer.cli.start import demo_model
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.search.dense import Dense
from nearer.search.systems import Systems
from nearer.stages.diagnose import diagnose
from nearer.types import Document, Query, Split

PLANTS = 40
WORDS = 100


def healthy_pairs(
    folder: Path, documents: dict[str, plants.Line], encoder: SentenceEncoder
) -> list[tuple[str, str]]:
    """(document id, query) of the real queries whose document is among the first three."""
    pairs = plants.real_pairs(folder, documents)
    corpus = Corpus.from_documents(
        Document(line["_id"], line["text"], line["title"]) for line in documents.values()
    )
    queries = [Query(name, text) for name, text, _ in pairs]
    run = Dense(encoder, corpus).search(queries, 3)
    return [(doc_id, text) for name, text, doc_id in pairs if doc_id in run.top(name, 3)]


def main() -> None:
    source = Path(sys.argv[1])
    model = sys.argv[2] if len(sys.argv) > 2 else str(demo_model())
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 400
    rng = np.random.default_rng(5)
    path = next(source.glob("corpus.jsonl*"))
    documents = plants.read_documents(path, rng, count, longest=WORDS)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        encoder = load_encoder(config.Model(name=model), Path(), cache=cache)
        healthy = healthy_pairs(source, documents, encoder)
        rng.shuffle(healthy)
        planted = plants.bury(documents, healthy, PLANTS, rng)
        folder = planted.write(Path(scratch) / "data")
        settings = config.build({"data": {"folder": str(folder)}, "model": {"name": model}})
        corpus = Corpus.open(folder / "corpus.jsonl")
        systems = Systems(settings, folder, corpus, encoder=encoder, cache=cache)
        split = Split(
            "dev",
            tuple(Query(line["_id"], line["text"]) for line in planted.queries),
            {query_id: {doc_id: 1} for query_id, doc_id in planted.judgments.items()},
        )
        failures = diagnose(systems, [split], settings, np.random.default_rng(1)).failures
    causes = Counter(line["cause"] for line in failures)
    print(f"{source.name}: {len(planted.queries)} plants among {len(documents)} documents,")
    print(f"{len(failures)} fail: {dict(causes)}; {encoder.precision.name}, {encoder.name}")
    for line in failures:
        print(f"  {line['cause']}: {line['evidence']}")


if __name__ == "__main__":
    main()
