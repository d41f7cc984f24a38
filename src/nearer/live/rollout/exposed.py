"""What a candidate shows of the catalogue beside the live generation, in answers to the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer import config
from nearer.live.traffic.exposure import Exposure, question_of, recommendations
from nearer.live.traffic.log import Request
from nearer.measure.recommendation import of_all
from nearer.measure.resampled import change
from nearer.types import Hit


def exposed(
    done: Sequence[Request],
    hits: Sequence[Sequence[Hit]],
    exposure: Exposure,
    settings: config.Shadow,
    rng: np.random.Generator,
) -> dict[str, Any] | None:
    """What both sides show of the catalogue where they recommend; None where nobody asked for that.

    `lost` says that the candidate's coverage is shown to stay below `shadow.coverage_ratio` of the
    live one's, over draws of whole questions: people who ask the same see the same.
    """
    asked = recommendations(done)
    if not asked:
        return None
    own = dict(zip((request.request_id for request in done), hits, strict=True))
    answers = {request.request_id: request.results for request in asked}
    live = exposure.lists(answers)
    candidate = exposure.lists({request_id: own[request_id] for request_id in answers})
    questions = {request.request_id: question_of(request) for request in asked}
    coverage = change(
        lambda weights: of_all("Coverage", live, exposure.n_items, weights),
        lambda weights: of_all("Coverage", candidate, exposure.n_items, weights),
        len(answers),
        rng,
        share=settings.coverage_ratio,
        labels=np.array(list(questions.values())),
    )
    return {
        "requests": len(answers),
        "items": exposure.n_items,
        "live": exposure.measures(live),
        "candidate": exposure.measures(candidate),
        "lost": coverage.status(0.0) == "fail",
    }
