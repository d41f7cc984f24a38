"""What each system finds for the queries of a pool: searched here, or read from TREC run files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.data.trec import read_run
from nearer.embed.opening import open_encoder
from nearer.errors import ConfigError, DataError
from nearer.project import Project
from nearer.types import Hit, Run, Split

FINE_TUNED = "fine-tuned"
_RUN_FILES = (".trec", ".run", ".txt")
_NAMED = 5  # query ids in a warning


@dataclass(frozen=True, slots=True)
class Found:
    """The first results of one system for the drawn queries.

    `outside` are results that the corpus does not hold, which nobody could judge: left out.
    `without` are drawn queries for which the system has no result; they count as found nothing.
    """

    run: Run
    outside: int
    without: tuple[str, ...]

    def warn(self) -> None:
        """Say what is missing in it."""
        if self.outside:
            progress.warn(
                f"{self.run.name}: {self.outside:,} results are not in the corpus, so nobody can "
                "judge them: left out"
            )
        if self.without:
            more = ", …" if len(self.without) > _NAMED else ""
            progress.warn(
                f"{self.run.name}: no results for {len(self.without):,} drawn queries "
                f"({', '.join(self.without[:_NAMED])}{more}): its scores count them as found nothing"
            )


def found_by(project: Project, systems: Sequence[str], split: Split, depth: int) -> list[Found]:
    """What each system finds: names of plain systems, `fine-tuned`, or TREC run files.

    No names: today's system, the baselines of `evaluate`, and the fine-tuned model where the run
    has one.  Raises ConfigError for two systems of one name, which nobody could tell apart.
    """
    trained = None if project.run_dir is None else project.run_dir / "train" / "model"
    chosen = list(systems)
    if not chosen:
        chosen = [project.systems.today, *project.settings.evaluate.baselines]
        if trained is not None and trained.is_dir():
            chosen.append(FINE_TUNED)
    chosen = list(dict.fromkeys(chosen))
    _refuse_one_name(chosen)
    found = []
    for system in chosen:
        if _is_file(system):
            run = _from_file(Path(system), split)
        elif system == FINE_TUNED:
            run = _fine_tuned(project, trained, split, depth)
        else:
            if system == "convex":
                project.systems.tune(project.dev, project.settings.evaluate.primary)
            run = project.systems.search(system, split, depth)
        found.append(within(replace(run, name=_name_of(system)), split, project.corpus, depth))
    return found


def _is_file(system: str) -> bool:
    return Path(system).suffix in _RUN_FILES


def _name_of(system: str) -> str:
    return Path(system).stem if _is_file(system) else system


def _refuse_one_name(systems: Sequence[str]) -> None:
    by_name: dict[str, str] = {}
    for system in systems:
        name = _name_of(system).casefold()  # some disks do not tell case apart
        if name in by_name:
            raise ConfigError(
                f"{by_name[name]} and {system} would both be called {_name_of(system)!r}",
                where="--system",
                next_step="rename one of the run files: its name is that of the system",
            )
        by_name[name] = system


def _from_file(path: Path, split: Split) -> Run:
    """Raises DataError where the file holds none of the drawn queries."""
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), next_step="name a TREC run file")
    run = read_run(path)
    if not any(query.id in run.results for query in split.queries):
        raise DataError(
            f"it holds results for none of the {len(split):,} drawn queries",
            where=str(path),
            next_step="make the pool without it, search the queries of review/pools/NAME/queries.jsonl "
            "with that system, and make the pool anew (--force): the same queries are drawn",
        )
    return run


def _fine_tuned(project: Project, trained: Path | None, split: Split, depth: int) -> Run:
    if trained is None or not trained.is_dir():
        raise DataError(
            "there is no fine-tuned model", where=str(trained), next_step="nearer train"
        )
    encoder = open_encoder(project.settings.model, project.root, path=trained)
    return project.systems_over(encoder).search("dense", split, depth)


def within(run: Run, split: Split, corpus: Corpus, depth: int) -> Found:
    """The first results for the queries of a split that the corpus holds."""
    results: dict[str, list[Hit]] = {}
    outside = 0
    without = []
    for query in split.queries:
        hits: list[Hit] = []
        for hit in run.results.get(query.id, ()):
            if len(hits) == depth:
                break
            if hit[0] in corpus:
                hits.append(hit)
            else:
                outside += 1
        results[query.id] = hits
        if not hits:
            without.append(query.id)
    return Found(Run(run.name, results), outside, tuple(without))
