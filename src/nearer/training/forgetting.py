"""Whether a model forgets ordinary language while it trains.

The set is not the guardrail's: what is chosen on a set cannot be judged by it.
"""

from __future__ import annotations

from pathlib import Path

from nearer.config import Config
from nearer.data.corpus import Corpus
from nearer.data.general import load_general
from nearer.data.load import load_general_folder
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ConfigError
from nearer.measure.metrics import score
from nearer.search.dense import Dense
from nearer.training.recipe import DevScore
from nearer.types import Split

MEASURE = "nDCG@10"
_DEPTH = 10


def general_judge(settings: Config, root: Path) -> DevScore | None:
    """Scores a model on the general set of training (`train.general`); None where there is none.

    Raises ConfigError when it is also the guardrail's, DataError when it cannot be read.
    """
    general = _general_set(settings, root)
    if general is None:
        return None
    corpus, split = general

    def judge(encoder: SentenceEncoder) -> float:
        run = Dense(encoder.without_cache(), corpus).search(split.queries, _DEPTH)
        return score(run, split, [MEASURE]).mean(MEASURE)

    return judge


def _general_set(settings: Config, root: Path) -> tuple[Corpus, Split] | None:
    name = settings.train.general
    if name is None:
        return None
    if name == "builtin":
        return load_general("calibration")
    guardrail = settings.decide.guardrails.general
    if guardrail is not None and (root / guardrail).resolve() == (root / name).resolve():
        raise ConfigError(
            "the guardrail judges on the same set, so training must not choose on it",
            where="train.general",
            next_step="name another folder, or train.general=builtin",
        )
    return load_general_folder(name, root)
