"""What a model is while it trains: its maximum length, its dropout, what stays frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nearer.config import Train
from nearer.embed.declared import max_length


@contextmanager
def training_mode(model: Any, settings: Train, length: int) -> Iterator[None]:
    """Maximum length, attention dropout and frozen tables while training; as before afterwards."""
    longest = max_length(model)
    if longest is not None:
        model.max_seq_length = min(length, longest)
    undo: list[Callable[[], None]] = []
    if settings.attention_dropout is not None:
        for dropout in _attention_dropouts(model):
            undo.append(_set_dropout(dropout, settings.attention_dropout))
    frozen: list[Any] = []
    if settings.freeze_word_embeddings:
        frozen = [weights for weights in _word_embeddings(model) if weights.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        if longest is not None:
            model.max_seq_length = longest
        for restore in undo:
            restore()
        for parameter in frozen:
            parameter.requires_grad_(True)


def _attention_dropouts(model: Any) -> list[tuple[Any, str]]:
    """(module, attribute) of each dropout inside self-attention, whatever the architecture calls it.

    PyTorch's fused attention on CPU runs only without dropout (measured: 1.8 times the speed).
    """
    import torch

    dropouts: list[tuple[Any, str]] = []
    for module in model.modules():
        if not _is_self_attention(module):
            continue
        for name in ("dropout", "attn_dropout", "attention_dropout", "out_drop"):
            value = getattr(module, name, None)
            if isinstance(value, torch.nn.Dropout):
                dropouts.append((value, "p"))
            elif isinstance(value, float):
                dropouts.append((module, name))
    return dropouts


def _is_self_attention(module: Any) -> bool:
    if "Attention" not in type(module).__name__:
        return False
    projections = ("query", "q_proj", "Wqkv", "q_lin", "q")
    return any(hasattr(module, name) for name in projections)


def _set_dropout(dropout: tuple[Any, str], value: float) -> Callable[[], None]:
    module, name = dropout
    old = getattr(module, name)
    setattr(module, name, value)
    return lambda: setattr(module, name, old)


def _word_embeddings(model: Any) -> list[Any]:
    """The token table of a transformer; of a static model it is all there is to train."""
    transformer = model.transformers_model
    if transformer is None:
        return []
    return list(transformer.get_input_embeddings().parameters())
