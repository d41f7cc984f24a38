"""The output layer of a reranker trained here.

It asks how similar the two halves of a pair are that was read as one text.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.base.modules import Module

#: What the layer starts with: a cosine of 0 gives -5 and one of 1 gives 5.
_FIRST_WEIGHT = 10.0
_FIRST_BIAS = -5.0


class PairSimilarity(Module):  # type: ignore[misc,unused-ignore]
    """score = Σᵢ wᵢ qᵢ dᵢ + b, with q and d the unit means of the query's and the document's tokens.

    Every token has seen both texts.  The usual layer, on the first token, learns what relevance is
    from nothing.  This one starts as the embedding model's own similarity, so that minutes of
    training are enough (measured on CWE: docs/diagnosis.md).  `separator` is the id of the token
    between the two texts.
    """

    config_keys: list[str] = ["dimension", "separator"]  # noqa: RUF012 - as the base class declares it

    def __init__(self, dimension: int, separator: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.separator = separator
        self.weight = torch.nn.Parameter(torch.full((dimension,), _FIRST_WEIGHT))
        self.bias = torch.nn.Parameter(torch.tensor(_FIRST_BIAS))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `scores`, float32 (n_pairs, 1), to the features of the pairs.

        Reads `input_ids` and `attention_mask`, both (n_pairs, n_tokens), and `token_embeddings`,
        (n_pairs, n_tokens, dimension).
        """
        is_read = features["attention_mask"].bool()
        in_query = self._in_query(features["input_ids"], is_read)
        in_document = is_read & ~in_query
        tokens = features["token_embeddings"].float()
        products = _unit_mean(tokens, in_query) * _unit_mean(tokens, in_document)
        scores = products @ self.weight.unsqueeze(1) + self.bias
        return features | {"scores": scores}

    def _in_query(self, token_ids: Any, is_read: Any) -> Any:
        """bool (n_pairs, n_tokens): the tokens up to the first separator, which is among them."""
        is_separator = ((token_ids == self.separator) & is_read).long()
        separators_before = is_separator.cumsum(1) - is_separator
        return is_read & (separators_before == 0)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> PairSimilarity:
        options: dict[str, Any] = {"subfolder": subfolder, "local_files_only": True}
        settings = cls.load_config(model_name_or_path, **options)
        layer = cls(**settings)
        cls.load_torch_weights(model_name_or_path, model=layer, **options)
        return layer


def _unit_mean(tokens: Any, is_chosen: Any) -> Any:
    """The mean of the chosen tokens, brought to unit length: float32 (n_pairs, dimension).

    `tokens` is float32 (n_pairs, n_tokens, dimension), `is_chosen` bool (n_pairs, n_tokens).  A sum
    has the direction of the mean, and its length is lost anyway.
    """
    sums = is_chosen.float().unsqueeze(1) @ tokens
    return torch.nn.functional.normalize(sums, dim=-1).squeeze(1)
