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
    own = max_length(model)
    if own is not None:
        model.max_seq_length = min(length, own)
    undo: list[Callable[[], None]] = []
    if settings.attention_dropout is not None:
        undo += [
            _set_dropout(module, settings.attention_dropout)
            for module in _attention_dropouts(model)
        ]
    frozen = (
        [p for p in _word_embeddings(model) if p.requires_grad]
        if settings.freeze_word_embeddings
        else []
    )
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        if own is not None:
            model.max_seq_length = own
        for restore in undo:
            restore()
        for parameter in frozen:
            parameter.requires_grad_(True)


def _attention_dropouts(model: Any) -> list[tuple[Any, str]]:
    """(module, attribute) of each dropout inside self-attention, whatever the architecture calls it.

    PyTorch's fused attention on CPU runs only without dropout (measured: 1.8 times the speed).
    """
    import torch

    places: list[tuple[Any, str]] = []
    for module in model.modules():
        if "Attention" not in type(module).__name__ or not any(
            hasattr(module, part) for part in ("query", "q_proj", "Wqkv", "q_lin", "q")
        ):
            continue
        for name in ("dropout", "attn_dropout", "attention_dropout", "out_drop"):
            value = getattr(module, name, None)
            if isinstance(value, torch.nn.Dropout):
                places.append((value, "p"))
            elif isinstance(value, float):
                places.append((module, name))
    return places


def _set_dropout(place: tuple[Any, str], value: float) -> Callable[[], None]:
    module, name = place
    old = getattr(module, name)
    setattr(module, name, value)
    return lambda: setattr(module, name, old)


def _word_embeddings(model: Any) -> list[Any]:
    """The token table of a transformer; of a static model it is all there is to train."""
    transformer = model.transformers_model
    return list(transformer.get_input_embeddings().parameters()) if transformer is not None else []
