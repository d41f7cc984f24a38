"""What smaller vectors of a trained model lose: int8, bits, fewer components, measured on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.embed.compress import Compression, compress
from nearer.embed.encoder import SentenceEncoder
from nearer.measure.metrics import drop_self, score
from nearer.measure.significance import compare
from nearer.search.dense import Contents, Dense
from nearer.training.looks import Judge

#: Shares of the dimension that are tried, as int8 and as float32.
_SHARES = (0.75, 0.5, 0.25)
_PIECE = 32  # kept components are a multiple of it


@dataclass(frozen=True, slots=True)
class Loss:
    """One way to store vectors: its size, its measure, and what it loses against float32."""

    vectors: str  # type@dimension
    bytes_per_document: int
    value: float
    delta: float  # of the measure, against float32 of the full dimension
    low: float
    high: float

    def as_dict(self, measure: str) -> dict[str, Any]:
        return {
            "vectors": self.vectors,
            "bytes_per_document": self.bytes_per_document,
            measure: round(self.value, 6),
            "delta": round(self.delta, 6),
            "ci": [round(self.low, 6), round(self.high, 6)],
        }


def compressions(dimension: int) -> list[Compression]:
    """The ways that are tried for vectors of `dimension`, the full float32 ones first."""
    kept = []
    for share in _SHARES:
        width = int(share * dimension) // _PIECE * _PIECE
        if width:
            kept.append(width)
    ways = [Compression(), Compression("float16"), Compression("int8")]
    ways += [Compression("float32", width) for width in kept]
    ways += [Compression("int8", width) for width in kept]
    if dimension % 8 == 0:
        ways.append(Compression("binary"))
    return ways


def losses(
    encoder: SentenceEncoder,
    judge: Judge,
    ways: Sequence[Compression],
    rng: np.random.Generator,
) -> list[Loss]:
    """Measure each way on the judge's queries; documents are encoded once.

    Queries keep float32, cut like the documents, as in an index.
    """
    documents = encoder.encode(Contents(judge.pool), "document")
    full: np.ndarray | None = None
    rows = []
    for way in ways:
        stored = compress(documents, way, encoder.similarity)
        run = Dense(encoder, judge.pool, vectors=stored).search(judge.dev.queries, judge.depth)
        if judge.item_to_item:
            run = drop_self(run)
        values = score(run, judge.dev, [judge.measure]).column(judge.measure)
        if full is None:
            full = values
        change = compare(full, values, rng)
        rows.append(
            Loss(
                str(way),
                way.row_bytes(encoder.dimension),
                float(np.mean(values)),
                change.delta,
                change.low,
                change.high,
            )
        )
    return rows
