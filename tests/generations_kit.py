"""A small world for the tests of generations: a quick real model, a corpus that changes, a project over both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Normalize,
    Pooling,
    StaticEmbedding,
    Transformer,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Digits, Whitespace
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from nearer import config
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.live.index.generations import Generations

WORDS = [
    "pump",
    "valve",
    "seal",
    "pressure",
    "leak",
    "motor",
    "bearing",
    "shaft",
    "noise",
    "heat",
    "oil",
    "filter",
    "sensor",
    "reset",
]


def _tokenizer() -> Tokenizer:
    vocabulary = {
        word: i for i, word in enumerate(["[PAD]", "[UNK]", "version", *WORDS, *"0123456789"])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = PreTokenizers([Whitespace(), Digits(individual_digits=True)])
    return tokenizer


def static_model(folder: Path, seed: int = 0, dimension: int = 32) -> Path:
    """A real SentenceTransformer that takes microseconds: a random vector for each of a few words and digits."""
    tokenizer = _tokenizer()
    weights = torch.from_numpy(
        np.random.default_rng(seed)
        .normal(size=(tokenizer.get_vocab_size(), dimension))
        .astype(np.float32)
    )
    model = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu"
    )
    model.save(str(folder), create_model_card=False)
    return folder


def transformer_model(folder: Path, seed: int = 0) -> Path:
    """A real transformer over the same few words: one random layer, mean pooling, normalisation, 64 tokens."""
    torch.manual_seed(seed)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), **special)
    tokenizer.save_pretrained(folder)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(shape).save_pretrained(folder)
    modules = [Transformer(str(folder), max_seq_length=64), Pooling(32), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def documents(numbers: Iterable[int], version: int = 1) -> list[dict[str, Any]]:
    """Lines of a corpus, each its own."""
    made = []
    for i in numbers:
        words = [WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(6)]
        made.append(
            {
                "_id": f"d{i}",
                "title": f"{words[0]} {i}",
                "text": f"{' '.join(words)} {i} version {version}",
                "team": f"t{i % 3}",
            }
        )
    return made


def write_corpus(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class World:
    """One project: `model` and `corpus.jsonl` below `root`, parts of 8 documents, the NumPy store."""

    def __init__(self, root: Path, model: Path, **index: Any) -> None:
        self.root = root
        self.settings: dict[str, dict[str, Any]] = {
            "data": {"corpus": "corpus.jsonl"},
            "model": {"name": str(model), "precision": "fp32", "device": "cpu"},
            "index": {"store": "numpy", "part": 8, **index},
        }
        root.mkdir(parents=True, exist_ok=True)
        (root / "nearer.yaml").write_text(json.dumps(self.settings))  # JSON is YAML

    @classmethod
    def at(cls, root: Path) -> World:
        """The world that is there already."""
        world = cls.__new__(cls)
        world.root = root
        return world

    def write(self, lines: Iterable[Mapping[str, Any]]) -> World:
        write_corpus(self.root / "corpus.jsonl", lines)
        return self

    @property
    def config(self) -> config.Config:
        return config.load(self.root / "nearer.yaml")

    @property
    def generations(self) -> Generations:
        """Opened anew: what another process would see."""
        return Generations(self.root, self.config)

    @property
    def corpus(self) -> Corpus:
        return Corpus.open(self.root / "corpus.jsonl")

    def encoder(self, model: Path | None = None) -> SentenceEncoder:
        return load_encoder(self.config.model, self.root, path=model)

    def texts(self, generation: str) -> dict[str, list[str]]:
        """Document id → texts of its chunks, as the store holds them."""
        generations = self.generations
        manifest = generations.manifest(generation)
        found: dict[str, list[str]] = {}
        for rows in generations.store(manifest.store).scan(manifest.space):
            for doc_id, text in zip(rows.doc_ids, rows.texts, strict=True):
                found.setdefault(doc_id, []).append(text)
        return found

    def expected(self) -> dict[str, list[str]]:
        return {document.id: [document.content] for document in self.corpus}


class Counting:
    """An encoder that counts the documents it embeds, and may fail after some."""

    def __init__(self, encoder: Any, fail_after: int | None = None) -> None:
        self._encoder, self._left = encoder, fail_after
        self.fingerprint, self.similarity = encoder.fingerprint, encoder.similarity
        self.model, self.save = encoder.model, encoder.save
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str], kind: Any) -> np.ndarray:
        if self._left is not None and len(self.texts) + len(texts) > self._left:
            raise KeyboardInterrupt
        self.texts.extend(texts)
        vectors: np.ndarray = self._encoder.encode(texts, kind)
        return vectors
