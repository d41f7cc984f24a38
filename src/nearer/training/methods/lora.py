"""LoRA (Hu et al. 2021, arXiv 2106.09685) by PEFT: low-rank changes of a transformer's matrices.

They are added into the weights when training has ended, so that the saved model is a plain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nearer.errors import ConfigError

#: Where train.learning_rate is not set: few new weights, which begin at nothing.
LEARNING_RATE = 1e-3


@contextmanager
def low_rank_changes(model: Any, rank: int) -> Iterator[None]:
    """While it lasts, low-rank changes of all linear layers train, and nothing else does.

    Raises ConfigError without the package `peft`, and for a model without a transformer.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError(
            "LoRA needs the package peft",
            where="train.method",
            next_step="pip install 'nearer[lora]'",
        ) from None
    transformer = model.transformers_model
    if transformer is None:
        raise ConfigError(
            "LoRA needs a transformer, and this model has none",
            where="train.method",
            next_step="set train.method to full",
        )
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Twice the rank as alpha: the change is doubled, as the paper's library has it.
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
    )
    transformer.add_adapter(settings)
    try:
        yield
    finally:
        _merge(transformer)
        for parameter in trainable:
            parameter.requires_grad_(True)


def _merge(transformer: Any) -> None:
    """Add the changes into the weights, and leave the modules that were there before."""
    from peft.tuners.lora import LoraLayer

    changed = [
        (name, module)
        for name, module in transformer.named_modules()
        if isinstance(module, LoraLayer)
    ]
    for name, module in changed:
        module.merge()
        parent, _, own = name.rpartition(".")
        setattr(transformer.get_submodule(parent), own, module.base_layer)
    transformer._hf_peft_config_loaded = False
    del transformer.peft_config
