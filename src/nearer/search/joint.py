"""The output layer of a reranker trained here: how similar are the two halves of a pair that was read as one text?"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.base.modules import Module


class PairSimilarity(Module):  # type: ignore[misc,unused-ignore]
    """score = Σᵢ wᵢ uᵢ vᵢ + b, with u and v the normalised means of the query's and of the document's token vectors.

    Every token has seen both texts.  The usual layer, on the first token, learns what relevance is
    from nothing; this one starts as the embedding model's own similarity, so that minutes of
    training are enough (measured on CWE: docs/diagnosis.md).  `separator` is the token between the texts.
    """

    config_keys: list[str] = ["dimension", "separator"]  # noqa: RUF012 - as the base class declares it

    def __init__(self, dimension: int, separator: int) -> None:
        super().__init__()
        self.dimension, self.separator = dimension, separator
        self.weight = torch.nn.Parameter(torch.full((dimension,), 10.0))
        self.bias = torch.nn.Parameter(torch.tensor(-5.0))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `scores`, float32 (n_pairs, 1), to features with `token_embeddings`."""
        read = features["attention_mask"].bool()
        ends = ((features["input_ids"] == self.separator) & read).long()
        query = read & (ends.cumsum(1) - ends == 0)
        tokens = features["token_embeddings"].float()
        u, v = _mean(tokens, query), _mean(tokens, read & ~query)
        scores = (u * v) @ self.weight.unsqueeze(1) + self.bias
        return features | {"scores": scores}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> PairSimilarity:
        where: dict[str, Any] = {"subfolder": subfolder, "local_files_only": True}
        layer = cls(**cls.load_config(model_name_or_path, **where))
        cls.load_torch_weights(model_name_or_path, model=layer, **where)
        return layer


def _mean(tokens: Any, chosen: Any) -> Any:
    """The normalised mean of the chosen tokens, (n_pairs, dimension) of (n_pairs, n_tokens, dimension)."""
    total = chosen.float().unsqueeze(1) @ tokens
    return torch.nn.functional.normalize(total, dim=-1).squeeze(1)
