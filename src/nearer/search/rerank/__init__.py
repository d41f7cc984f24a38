"""Reranking: the first hits of a run are read again, each together with its query."""

from nearer.search.rerank.base import Lacking, Pair, Reranker, RerankerSpec
from nearer.search.rerank.cached import CachedReranker
from nearer.search.rerank.cross_encoder import CrossEncoderReranker, open_cross_encoder
from nearer.search.rerank.runs import rerank
from nearer.search.rerank.specs import load_reranker

__all__ = [
    "CachedReranker",
    "CrossEncoderReranker",
    "Lacking",
    "Pair",
    "Reranker",
    "RerankerSpec",
    "load_reranker",
    "open_cross_encoder",
    "rerank",
]
