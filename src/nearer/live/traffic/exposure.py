"""Which items of the catalogue people were shown by `POST /similar`, as the task's measures take it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nearer.data.splits import frozen_split
from nearer.live.traffic.log import Request
from nearer.measure.recommendation import Catalogue, Lists, engagements, shown
from nearer.project import Project
from nearer.types import Hit, Run


@dataclass(frozen=True)
class Exposure:
    """All items, how popular each is in training, and how many of each list are looked at."""

    catalogue: Catalogue
    k: int

    @classmethod
    def of(cls, project: Project) -> Exposure | None:
        """None where the task does not judge which items are shown.  Raises DataError."""
        if not project.task.judges_exposure:
            return None
        settings = project.settings
        trained = frozen_split(project.root, settings.run, "train").judgments
        ids = project.corpus.ids
        return cls(Catalogue(ids, engagements(trained, ids)), settings.recommend.k)

    @property
    def n_items(self) -> int:
        return len(self.catalogue.ids)

    def lists(self, answers: Mapping[str, Sequence[Hit]]) -> Lists:
        """The first items of each answer, in the order of the answers."""
        return Lists.of(Run("answers", answers), list(answers), self.catalogue, self.k)

    def measures(self, lists: Lists) -> dict[str, float]:
        """Coverage, Gini and, where training says what is popular, Popularity."""
        return {name: round(value, 6) for name, value in shown(lists, self.catalogue).items()}


def recommendations(requests: Iterable[Request]) -> list[Request]:
    """The requests that `POST /similar` answered."""
    return [request for request in requests if request.similar is not None and not request.error]


def question_of(request: Request) -> str:
    """The same text for requests that ask the same, whoever asks and when."""
    asked = request.similar.as_dict() if request.similar is not None else request.query
    return json.dumps([asked, request.filter], sort_keys=True, default=str)
