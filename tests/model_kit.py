"""Makes the small real model of the tests out of MiniLM."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

_SPECIAL = 104  # the special tokens of BERT stand before this row, and keep their numbers
_TABLE = "word_embeddings.weight"


def two_layers(minilm: Path, folder: Path, length: int | None = None) -> Path:
    """Save the first two layers of MiniLM, which reads `length` tokens (None: as many as before)."""
    model = SentenceTransformer(str(minilm), device="cpu", local_files_only=True)
    transformer = model.transformers_model
    transformer.encoder.layer = transformer.encoder.layer[:2]
    transformer.config.num_hidden_layers = 2
    if length is not None:
        model.max_seq_length = length
    model.save(str(folder), create_model_card=False, safe_serialization=True)
    return folder


def drop_unused_words(folder: Path, texts: Iterable[str]) -> None:
    """Take the words that `texts` do not use out of a saved BERT; the vectors of `texts` stay.

    Three quarters of the two-layer model are vectors of words, and every test that loads, hashes,
    saves or trains it would pay for them.  Single characters are kept, so that every text can
    still be read.
    """
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    used: set[int] = set()
    for encoding in tokenizer.encode_batch(list(texts)):
        used.update(encoding.ids)
    content = json.loads(path.read_text(encoding="utf-8"))
    rows: dict[str, int] = content["model"]["vocab"]
    kept: list[str] = []
    for word, row in sorted(rows.items(), key=lambda item: item[1]):
        if row < _SPECIAL or row in used or len(word.removeprefix("##")) == 1:
            kept.append(word)
    content["model"]["vocab"] = {word: row for row, word in enumerate(kept)}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    _keep_rows(folder, [rows[word] for word in kept])


def _keep_rows(folder: Path, kept: list[int]) -> None:
    """Cut the table of word vectors down to some rows, in this order."""
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if name.endswith(_TABLE)]
    weights[name] = weights[name][kept].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"vocab_size": len(kept)}))
