"""How many tokens a model makes of a text, and how many of them it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearer import config, files
from nearer.data import sources


@dataclass(frozen=True, slots=True)
class Tokens:
    """The model's tokenizer: `count(texts)` gives tokens per text, special ones included; `limit` is what it reads."""

    count: Callable[[Sequence[str]], list[int]]
    limit: int


def load_tokens(settings: config.Model, root: Path) -> Tokens | None:
    """The tokenizer and maximum length of a model folder, or of a hub model that is already on this machine; None when unknown."""
    from transformers import AutoTokenizer

    source = sources.model_source(settings.name, root)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    except Exception:  # noqa: BLE001 - dozens of kinds come out of the loaders; a broken model is `evaluate`'s to report
        return None
    limit = settings.max_seq_length or _own_limit(source) or tokenizer.model_max_length
    if not isinstance(limit, int) or limit > 1_000_000:  # transformers' way to say "not known"
        return None

    def count(texts: Sequence[str]) -> list[int]:
        tokens = tokenizer(
            list(texts), truncation=False, verbose=False, return_attention_mask=False
        )
        return [len(ids) for ids in tokens["input_ids"]]

    return Tokens(count, limit)


def _own_limit(source: Path | str) -> int | None:
    """`max_seq_length` as sentence-transformers stores it."""
    from huggingface_hub import try_to_load_from_cache

    name = "sentence_bert_config.json"
    path = try_to_load_from_cache(source, name) if isinstance(source, str) else source / name
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    limit = files.read_json(Path(path)).get("max_seq_length")
    return limit if isinstance(limit, int) else None
