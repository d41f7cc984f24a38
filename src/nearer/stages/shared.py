"""What several stages read in the same way.  Stages themselves never import each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.data.load import load_corpus
from nearer.data.splits import read_split
from nearer.files import read_json
from nearer.retrieve.systems import Systems
from nearer.types import Split
from nearer.workspace import StepContext


def corpus_of(context: StepContext) -> Corpus:
    return load_corpus(context.config.data, context.root)


def split_of(context: StepContext, name: str) -> Split:
    """A frozen split of `check`; test is refused (see `nearer.data.heldout`)."""
    return read_split(context.earlier("check/split"), name)


def is_item_to_item(context: StepContext) -> bool:
    return bool(read_json(context.earlier("check/findings.json")).get("item_to_item", False))


def systems_of(context: StepContext, corpus: Corpus, **more: Any) -> Systems:
    return Systems(context.config, context.root, corpus, cache=context.cache, item_to_item=is_item_to_item(context), **more)


def random_of(context: StepContext) -> np.random.Generator:
    """A generator of the stage's own, so that stages can be rerun alone with the same result."""
    return np.random.default_rng([context.config.seed, *context.stage.name.encode()])
