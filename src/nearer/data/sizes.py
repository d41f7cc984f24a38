"""How much data there is, and how small a difference it can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nearer.data.corpus import Corpus
from nearer.data.fitting import Findings
from nearer.measure.significance import queries_needed, smallest_difference
from nearer.types import Judgments, Query, Split

ASSUMED_SD = 0.25  # paired differences of nDCG@10 (FIELD: seen in practice), until scores exist


def _queries(difference: float) -> str:
    """Test queries that show a difference, rounded to tens."""
    return f"{round(queries_needed(ASSUMED_SD, difference) or 0, -1):,}"


def power(n_queries: int, findings: Findings) -> dict[str, Any]:
    """The smallest difference that the test set can show; None without test queries."""
    smallest = smallest_difference(n_queries, ASSUMED_SD)
    if 0.05 < smallest < math.inf:
        message = f"{n_queries} test queries can show differences of nDCG@10 from {smallest:.3f} on; smaller gains will come out inconclusive."
        findings.add(
            "low_power",
            message,
            count=n_queries,
            next_step=f"judge more test queries: about {_queries(0.05)} show .05, about {_queries(0.02)} show .02",
        )
    shown = {
        "measure": "nDCG@10",
        "n_queries": n_queries,
        "smallest_difference": round(smallest, 4) if n_queries else None,
    }
    return shown | {"power": 0.8, "alpha": 0.05, "paired_sd": ASSUMED_SD, "assumed": True}


def counts(
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Judgments],
    frozen: Mapping[str, Split],
) -> dict[str, Any]:
    judged = [
        (doc_id, grade)
        for split in frozen.values()
        for docs in split.judgments.values()
        for doc_id, grade in docs.items()
    ]
    return {
        "documents": len(corpus),
        "queries": len(queries),
        "judgments": sum(len(docs) for graded in judgments.values() for docs in graded.values()),
        "relevant_documents": len(
            {doc_id for doc_id, grade in judged if grade > 0 and doc_id in corpus}
        ),
        "missing_relevant_documents": len(
            {doc_id for doc_id, grade in judged if grade > 0 and doc_id not in corpus}
        ),
        **{f"{name}_queries": len(split) for name, split in frozen.items()},
        **{
            f"{name}_judgments": sum(map(len, split.judgments.values()))
            for name, split in frozen.items()
        },
    }
