"""Ways to search: dense, BM25, sparse, fused, filtered, rewritten, reranked, over documents or chunks."""
