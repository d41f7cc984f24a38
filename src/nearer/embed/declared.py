"""Hashes of what a model declares: weights, tokenizers, modules, configurations.

Hashed is the model in memory, never its files: a model hashes the same after it was saved, moved,
split into shards or loaded in another number format.  What is left out stands in `LEFT_OUT`, with
the reason; everything else that a configuration says is hashed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nearer.files import value_hash

#: Keys of a transformer's configuration, at any depth, on which its vectors do not depend.
LEFT_OUT: Mapping[str, str] = {
    "_name_or_path": "where the model was loaded from",
    "name_or_path": "where the model was loaded from",
    "_commit_hash": "where the model was loaded from",
    "auto_map": "where code was loaded from; remote code is never run",
    "transformers_version": "the library that saved it; the probes tell whether it computes alike",
    "architectures": "a class name that saving rewrites; tensors and model_type say more",
    "tokenizer_class": "a class name that saving rewrites; the tokenizer is hashed on its own",
    "dtype": "the number format of the file; weights carry theirs, and `precision` is declared",
    "torch_dtype": "the number format of the file, under its older name",
    "_attn_implementation": "which kernel computes; the probes tell whether it computes alike",
    "attn_implementation": "which kernel computes; the probes tell whether it computes alike",
    "reference_compile": "which kernel computes; the probes tell whether it computes alike",
    "chunk_size_feed_forward": "computes the same in smaller pieces",
    "use_cache": "keeps keys of generated text; no text is generated",
    "return_dict": "the form of the result",
    "output_attentions": "returns more, and the same vectors",
    "output_hidden_states": "returns more, and the same vectors",
    "gradient_checkpointing": "training only",
    "initializer_range": "training only",
    "initializer_factor": "training only",
    "initializer_cutoff_factor": "training only",
    "id2label": "names of classes of a classifier",
    "label2id": "names of classes of a classifier",
    "problem_type": "the loss of a classifier",
    "task_specific_params": "settings of other tasks",
    "finetuning_task": "the name of a data set",
}

#: Settings of a transformers tokenizer that its JSON does not hold.  Left out are its class, its
#: paths, `clean_up_tokenization_spaces` (decoding only) and the length (declared on its own).
_TOKENIZER_SETTINGS = (
    "truncation_side",
    "padding_side",
    "pad_token_id",
    "pad_token_type_id",
    "model_input_names",
    "special_tokens_map",
    "split_special_tokens",
    "chat_template",
)
_PLAIN = (str, int, float, bool, type(None))


def declared(model: Any) -> dict[str, Any]:
    """Hashes of a model's `weights`, `tokenizer`, `modules` and `configuration`, as it stands in memory.

    `former` holds the hashes of tokenizer and modules as version 1 of fingerprints computed them.
    """
    states = [_tokenizer_state(tokenizer) for tokenizer in tokenizers_of(model)]
    return {
        "weights": _weights_hash(model),
        "tokenizer": value_hash(states)[:32],
        "modules": value_hash(_chain(model))[:32],
        "configuration": value_hash(configurations(model))[:32],
        "former": (_tokenizer_by_version_1(model, states), _modules_by_version_1(model)),
    }


def _tokenizer_by_version_1(model: Any, states: Sequence[Mapping[str, Any]]) -> str:
    """The hash of the model's first tokenizer; `states` are those of all, whose hashes are known."""
    chosen = getattr(model, "tokenizer", None)
    for tokenizer, state in zip(tokenizers_of(model), states, strict=True):
        if tokenizer is chosen:
            return str(state["content"])
    return _content_of_tokenizer(chosen)


def _modules_by_version_1(model: Any) -> str:
    chain = []
    for module in model:
        settings = _settings(module) if hasattr(module, "get_config_dict") else {}
        chain.append({"class": type(module).__name__, "settings": settings})
    return value_hash(chain)[:32]


def tensor_marks(model: Any) -> tuple[tuple[str, int, int], ...]:
    """Where each tensor of a model lies and how often it was written; no values are read.

    Equal marks: no tensor was trained, loaded over or exchanged in between.
    """
    marks = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if hasattr(tensor, "data_ptr"):
            version = 0 if tensor.is_inference() else tensor._version
            marks.append((name, tensor.data_ptr(), version))
    return tuple(marks)


def max_length(model: Any) -> int | None:
    """Tokens after which the model cuts a text; None when it never does (static models say infinity)."""
    return _finite(model.max_seq_length)


def _finite(length: Any) -> int | None:
    return int(length) if length is not None and math.isfinite(length) else None


def _weights_hash(model: Any) -> str:
    """Hash of every tensor by name, type, shape and bytes: independent of file format and folder."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


# -- tokenizers -----------------------------------------------------------------------------------


def tokenizers_of(model: Any) -> list[Any]:
    """Every tokenizer of a model: a router has one per route."""
    tokenizers: dict[int, Any] = {}
    for module in model.modules():
        tokenizer = getattr(module, "tokenizer", None)
        if tokenizer is not None:
            tokenizers.setdefault(id(tokenizer), tokenizer)
    return list(tokenizers.values())


def _tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """All that decides which tokens a text becomes.

    A transformers tokenizer sets padding and truncation anew at each call, so that both are left out.
    A plain one (of a static model) keeps them: there they are settings.
    """
    state: dict[str, Any] = {"content": _content_of_tokenizer(tokenizer)}
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None and hasattr(tokenizer, "to_str"):
        return state | {"truncation": tokenizer.truncation, "padding": tokenizer.padding}
    state |= {name: _plain(getattr(tokenizer, name, None)) for name in _TOKENIZER_SETTINGS}
    if backend is None:
        options = {**getattr(tokenizer, "init_kwargs", {}), **vars(tokenizer)}
        own = {name: _plain(value) for name, value in options.items() if not _is_path(name, value)}
        state["options"] = own
    return state


def _content_of_tokenizer(tokenizer: Any) -> str:
    """Hash of vocabulary, normaliser and rules, without the padding and truncation of the last call."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        return value_hash({"class": type(tokenizer).__name__, "vocabulary": vocabulary})[:32]
    state = json.loads(backend.to_str())
    state.pop("padding", None)
    state.pop("truncation", None)
    return value_hash(state)[:32]


def _is_path(name: str, value: Any) -> bool:
    """Whether a setting of a tokenizer says where it lies, or is bookkeeping of the library."""
    private = name.startswith("_") or name in ("init_kwargs", "is_local", "local_files_only")
    return private or name.endswith(("_file", "_path")) or not _known(value)


def _known(value: Any) -> bool:
    return isinstance(value, (*_PLAIN, list, tuple, dict, set, frozenset))


def _plain(value: Any) -> Any:
    """JSON of a setting; what is no JSON counts by its class alone, never by its address in memory."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return type(value).__name__


# -- modules and configurations -------------------------------------------------------------------


def _chain(model: Any) -> list[dict[str, Any]]:
    """Classes and settings of all modules, those inside of others too (a router's routes)."""
    chain = []
    declared_length = max_length(model)
    for module in model.modules():
        if module is model or not hasattr(module, "get_config_dict"):
            continue
        entry = {"class": type(module).__name__, "settings": _plain(_settings(module))}
        own_length = _finite(getattr(module, "max_seq_length", None))
        if own_length not in (None, declared_length):
            entry["max_seq_length"] = own_length
        chain.append(entry)
    return chain


def _settings(module: Any) -> dict[str, Any]:
    # The maximum length is declared on its own; lower-casing is in the tokenizer.
    return {
        name: value
        for name, value in module.get_config_dict().items()
        if name not in ("max_seq_length", "do_lower_case") and value is not None
    }


def configurations(model: Any) -> list[Any]:
    """What each transformer inside is configured with, as far as it differs from the class's defaults.

    Defaults are left out so that a library that adds a setting does not make every model another one.
    """
    return [_meaning(_unlike(config.to_dict(), _defaults(config))) for config in configs_of(model)]


def configs_of(model: Any) -> list[Any]:
    """The configuration of every transformer inside of a model, each once."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            configs.setdefault(id(config), config)
    return list(configs.values())


def _defaults(config: Any) -> dict[str, Any]:
    try:
        values: dict[str, Any] = type(config)().to_dict()
    except Exception:  # noqa: BLE001 - a class that needs arguments has no defaults to leave out
        return {}
    values.pop("model_type", None)
    return values


def _unlike(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `values` that differs from `defaults`."""
    different = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            inside = _unlike(value, default)
            if inside:
                different[name] = inside
        elif value != default:
            different[name] = value
    return different


def _meaning(value: Any) -> Any:
    """A configuration without the keys of LEFT_OUT and without dropout, which is off outside training."""
    if isinstance(value, Mapping):
        return {str(name): _meaning(item) for name, item in _kept(value)}
    if isinstance(value, (list, tuple)):
        return [_meaning(item) for item in value]
    return _plain(value)


def _kept(values: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for name, value in values.items():
        if name not in LEFT_OUT and "dropout" not in str(name) and value is not None:
            yield name, value
