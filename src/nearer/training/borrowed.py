"""Puts back everything that a Trainer changes on a model, apart from the weights.

Left behind, each of these changes what the model computes afterwards: accelerate replaces `forward`
by one under autocast (so "fp32" vectors are bf16 ones), hooks stay registered, modules stay in
training mode, tokenizers keep the padding and truncation of their last call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Attributes of a module that hold its hooks (torch.nn.Module); all are dictionaries.
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)

#: What wrapping leaves in the instance of a module; a class's own `forward` is not there.
_WRAPPED = ("forward", "_original_forward")

_TOKENIZER_SETTINGS = ("padding_side", "truncation_side", "model_max_length", "pad_token")


@contextmanager
def borrowed(model: Any) -> Iterator[None]:
    """Afterwards everything but the weights of a model is as before, also after an exception.

    Gradients are dropped: they would hold as much memory as the weights.
    """
    undo: list[Callable[[], None]] = []
    for module in model.modules():
        undo.append(_keep_module(module))
    for parameter in model.parameters():
        undo.append(_keep_parameter(parameter))
    undo.append(_keep_tokenizer(getattr(model, "tokenizer", None)))
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _keep_module(module: Any) -> Callable[[], None]:
    own = vars(module)
    wrapped = {name: own[name] for name in _WRAPPED if name in own}
    hooks = {name: dict(own[name]) for name in _HOOKS if own.get(name) is not None}
    training = module.training

    def restore() -> None:
        for name in _WRAPPED:
            own.pop(name, None)
        own.update(wrapped)
        for name, registered in hooks.items():
            own[name].clear()
            own[name].update(registered)
        module.training = training

    return restore


def _keep_parameter(parameter: Any) -> Callable[[], None]:
    trainable = parameter.requires_grad

    def restore() -> None:
        parameter.requires_grad_(trainable)
        parameter.grad = None

    return restore


def _keep_tokenizer(tokenizer: Any) -> Callable[[], None]:
    names = [name for name in _TOKENIZER_SETTINGS if hasattr(tokenizer, name)]
    settings = {name: getattr(tokenizer, name) for name in names}
    backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
    fast = hasattr(backend, "no_truncation")
    truncation = backend.truncation if fast else None
    padding = backend.padding if fast else None

    def restore() -> None:
        for name, value in settings.items():
            setattr(tokenizer, name, value)
        if not fast:
            return
        backend.no_truncation()
        if truncation:
            backend.enable_truncation(**truncation)
        backend.no_padding()
        if padding:
            backend.enable_padding(**padding)

    return restore
