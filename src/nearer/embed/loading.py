"""The one place where a name or a folder becomes a model that works.

Safetensors only, no remote code.  What is loaded is in float32, has a padding token, and has passed
one forward pass over a text as long as it reads and a short one beside it: what would fail in the
middle of a stage fails here, as a ModelError that says what to do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearer import config, progress
from nearer.embed.base import EncoderSpec
from nearer.embed.declared import max_length
from nearer.errors import ModelError

#: Longest text of the trial pass, in tokens.  Longer windows differ in cost, not in kind: position
#: tables, which end at a length, are compared with the window itself.
_LONGEST_TRIAL = 2048


def load_model(
    settings: config.Model, root: Path, path: Path | None = None, *, sparse: bool = False
) -> Any:
    """The SentenceTransformer (a SparseEncoder when `sparse`) of a model section, tried once.

    It comes from the folder `path`, else from the folder that `settings.name` means, else by name.
    Raises ModelError with what to do.
    """
    spec = EncoderSpec.of(settings, root, path)
    if not spec.has_weights:
        raise ModelError(
            "the weights of this model are not here: only its vectors can be used",
            where=spec.text,
            next_step="name a model folder, or a name that SentenceTransformer takes",
        )
    local = path or local_folder(settings.name, root)
    kind = "SparseEncoder" if sparse else "SentenceTransformer"
    where = str(local or settings.name)
    with _lacking_weights() as lacking:
        model = open_model(kind, settings.name, local, device=settings.device)
    if lacking.reported:
        _refuse_chance(model, open_model(kind, settings.name, local, device=settings.device), where)
    if settings.max_seq_length is not None:
        _set_max_length(model, settings.max_seq_length, where)
    _require_length(model, where)
    if sparse:
        # Its pooling layer learns the size of the vocabulary at the first pass.
        model.encode_document(["a"])
    for kind_of_text in ("query", "document"):

        def forward(texts: list[str], task: str = kind_of_text) -> None:
            model(on_device(model, model.preprocess(texts, task=task)))

        prove_forward(model, where, forward)
        if type(model[0]).__name__ != "Router":
            break  # one tower computes both kinds
    return model


class _Lacking(logging.Handler):
    """Hears whether transformers reports weights that a model needs and its files lack."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reported = False

    def emit(self, record: logging.LogRecord) -> None:
        self.reported = self.reported or "MISSING" in record.getMessage()


@contextmanager
def _lacking_weights() -> Iterator[_Lacking]:
    """Hear the reports of transformers while a model loads, also where its messages are turned off."""
    from transformers import modeling_utils

    handler = _Lacking()
    reports = logging.getLogger(modeling_utils.__name__)
    level, spreads = reports.level, reports.propagate
    if not reports.isEnabledFor(logging.WARNING):
        reports.propagate = False  # heard here alone: nobody else has asked for it
    reports.setLevel(logging.WARNING)
    reports.addHandler(handler)
    try:
        yield handler
    finally:
        reports.removeHandler(handler)
        reports.setLevel(level)
        reports.propagate = spreads


def _refuse_chance(model: Any, again: Any, where: str) -> None:
    """Raises ModelError where two loads of a model give different vectors.

    Weights that its files lack are made of random numbers, which does no harm where nothing uses
    them (BERT's pooling layer).
    """
    import torch

    with torch.inference_mode():
        first, second = (one.eval()(_features(one, "document")) for one in (model, again))
    name = "sentence_embedding"
    if not torch.allclose(first[name].float(), second[name].float(), atol=1e-4):
        raise ModelError(
            "its files lack weights, which would be random numbers",
            where=where,
            next_step="save the whole model with model.save(folder), and mind what its config.json says",
        )


def _features(model: Any, task: str) -> dict[str, Any]:
    return on_device(model, model.preprocess(["a text", "pressure valve"], task=task))


def open_model(
    kind: str | Callable[..., Any],
    name: str,
    local: Path | None,
    *,
    setting: str = "model.name",
    **more: Any,
) -> Any:
    """A model of a class of sentence-transformers (or what `kind` makes), in float32, with a padding token.

    It comes from the folder `local` or else by `name`; `more` goes to the class.
    Raises ModelError with what to do.
    """
    if local is not None:
        _require_weights(local)
    source = str(local) if local else name
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    import sentence_transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    safely = {
        "trust_remote_code": False,
        "local_files_only": local is not None,
        "model_kwargs": {"use_safetensors": True},
    }
    make = getattr(sentence_transformers, kind) if isinstance(kind, str) else kind
    try:
        model = make(source, **safely, **more)
    except Exception as error:  # noqa: BLE001 - dozens of kinds come out of the loaders; all mean "cannot load"
        next_step = f"check the name and the network, or give a local folder as {setting}"
        if local is not None:
            next_step = "check the folder"
        raise ModelError(
            f"cannot load this model: {_first_line(error)}", where=source, next_step=next_step
        ) from None
    # Weights saved in half precision would be computed in it, or mixed with float32 (bf16 comes by
    # autocast, where it is faithful).
    model.float()
    _give_padding_token(model, source)
    return model


def local_folder(name: str, root: Path, setting: str = "model.name") -> Path | None:
    """The folder that a model's name means, if it means one.  Raises ModelError for a path that is not there."""
    for candidate in (Path(name).expanduser(), root / name):
        if candidate.is_dir():
            return candidate
    if name.startswith((".", "/", "~")) or Path(name).suffix:
        raise ModelError(
            "no such model folder",
            where=name,
            next_step=f"set {setting} to a folder or a model's name",
        )
    return None


def prove_forward(model: Any, where: str, forward: Callable[[list[str]], Any]) -> None:
    """Run one pass over a text as long as the model reads, and a short one beside it.

    `forward` computes a list of texts.  Raises ModelError naming the length that failed.
    """
    import torch

    limit = max_length(model)
    _require_positions(model, limit, where)
    words = min(limit or _LONGEST_TRIAL, _LONGEST_TRIAL)
    # One-letter words are one token each in every common tokenizer, so this fills the window.
    texts = [" ".join(["a"] * words), "a short text"]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            forward(texts)
    except Exception as error:  # noqa: BLE001 - whatever a model raises here, it cannot be used
        raise ModelError(
            f"this model loads, but fails on a text of {words} tokens: {_first_line(error)}",
            where=where,
            next_step="lower its maximum length (model.max_seq_length), or use another model",
        ) from None
    finally:
        model.train(training)


def _require_positions(model: Any, limit: int | None, where: str) -> None:
    """Refuse a maximum length beyond the model's table of positions.

    On a GPU an index beyond a table ends the process, so this is asked and not tried.
    """
    import torch

    if limit is None:
        return
    for name, module in model.named_modules():
        if not name.endswith(("position_embeddings", "embed_positions", "wpe")):
            continue
        if not isinstance(module, torch.nn.Embedding):
            continue
        # RoBERTa and its kin count positions from behind the padding's own.
        reserved = 0 if module.padding_idx is None else module.padding_idx + 1
        positions = module.num_embeddings - reserved
        if limit > positions:
            raise ModelError(
                f"the maximum length is {limit} tokens, but the model knows {positions} positions",
                where=where,
                next_step=f"set model.max_seq_length to {positions} or less",
            )


def _require_length(model: Any, where: str) -> None:
    """Raises ModelError where the maximum length in the model's files is no number of tokens."""
    length = model.max_seq_length
    if length is None:
        return
    if not isinstance(length, int | float) or not length >= 1:
        raise ModelError(
            f"its maximum length is {length!r}, not a number of tokens",
            where=where,
            next_step="set model.max_seq_length, or mend max_seq_length in its sentence_bert_config.json",
        )


def _set_max_length(model: Any, length: int, where: str) -> None:
    if max_length(model) is None and not _cuts_texts(model):
        raise ModelError(
            "this model has no maximum length to set: a static model reads its texts whole",
            where=where,
            next_step="set model.max_seq_length to null",
        )
    try:
        model.max_seq_length = length
    except AttributeError:
        raise ModelError(
            "the maximum length of this model cannot be set",
            where=where,
            next_step="set model.max_seq_length to null",
        ) from None


def _cuts_texts(model: Any) -> bool:
    return getattr(model, "transformers_model", None) is not None


def _give_padding_token(model: Any, where: str) -> None:
    """Texts of unequal length in one batch need a padding token; decoders are often saved without one."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None or not hasattr(tokenizer, "pad_token"):
        return
    if tokenizer.pad_token is not None:
        return
    stand_in = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    if stand_in is None:
        raise ModelError(
            "its tokenizer has no padding token, and no end token that could stand in for one",
            where=where,
            next_step="give the tokenizer a pad_token and save it into the model's folder",
        )
    tokenizer.pad_token = stand_in
    transformer = getattr(model, "transformers_model", None)
    if transformer is not None and getattr(transformer.config, "pad_token_id", None) is None:
        transformer.config.pad_token_id = tokenizer.pad_token_id
    progress.info(f"{where}: no padding token; {stand_in!r} is used as one")


def _require_weights(folder: Path) -> None:
    """Refuse a folder without safetensors.  Module folders may be symbolic links, as in hub caches."""
    unsafe: list[str] = []
    for _, _, names in os.walk(folder, followlinks=True):
        if any(name.endswith(".safetensors") for name in names):
            return
        unsafe += [name for name in names if name.endswith(".bin")]
    hint = f" (only {unsafe[0]}, an unsafe format)" if unsafe else ""
    raise ModelError(
        f"this model folder holds no .safetensors weights{hint}",
        where=str(folder),
        next_step="save the model with model.save(folder), which writes safetensors",
    )


def on_device(model: Any, features: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a model, moved to where it computes."""
    return {
        name: value.to(model.device) if hasattr(value, "to") else value
        for name, value in features.items()
    }


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
