"""`nearer monitor`: is it still good, and if not, which condition fired and why?

Files below `monitor/`: `series.db` (see `nearer.live.monitor.series`), `report.json` (the latest report),
`metrics.prom` (for the textfile collector of Prometheus' node exporter) and `canaries.trec` (what
the canary queries found, which a diagnosis starts from).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Config
from nearer.data import items, sources
from nearer.data.corpus import Corpus
from nearer.data.fields import read_queries
from nearer.data.load import load_corpus
from nearer.data.splits import frozen_split, read_split
from nearer.data.times import read_time
from nearer.data.trec import read_qrels, write_run
from nearer.diagnosis.evidence import diagnosed
from nearer.embed.cache import EmbeddingCache
from nearer.embed.encoder import Encoder, load_encoder
from nearer.errors import DataError, FingerprintError, ModelError
from nearer.files import write_json, write_text
from nearer.live.index.build import document_hash
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import Manifest
from nearer.live.index.searcher import Searcher, Served
from nearer.live.monitor.conditions import Asked, Freshness, Labelled, Report, Seen, monitor
from nearer.live.monitor.series import Series
from nearer.live.traffic.log import Request, daily_files, read_traffic
from nearer.measure.metrics import score
from nearer.measure.slices import terms
from nearer.search.systems import Systems
from nearer.types import Judgments, Query, Run, Split, is_blank, typed_query

__all__ = ["Report", "look", "monitor"]

WHOLE = "day"  # in the series: this day was judged when it was over
_SHOWN = 1000  # documents of a kind that are named, and documents whose words are compared
_DIAGNOSED = 50  # failing queries that a diagnosis looks at

#: What fails → what to do about it.
ANSWERS: Mapping[str, str] = {
    "missing documents": "update the index: nearer index sync, then nearer index verify ID",
    "metadata": "fix the data: correct the metadata, or the filters that the application declares, then nearer index sync",
    "vocabulary": "fine-tune again with queries that use these words (nearer run), or search words beside vectors (nearer fix)",
    "semantics": "fine-tune again: add these queries to the training data, then nearer run",
    "search": "a simpler fix repairs it: nearer fix",
    "judgments": "judge the results above the expected ones: they may be as good",
}
_FAMILY = {
    "missing_document": "missing documents",
    "index_loss": "missing documents",
    "ineligible": "metadata",
    "needs_metadata": "metadata",
    "exact_match": "vocabulary",
    "semantic": "semantics",
    "label_suspect": "judgments",
    "unknown": "semantics",
}
_VOCABULARY = ("vocabulary gap", "unknown term")  # kinds of semantic failures


def look(
    generations: Generations, since: date | None = None, *, watching: bool = False
) -> list[Report]:
    """Judge the newest day of the traffic log, or each day from `since` on, and keep what was found.

    `watching` judges a day as a whole once it is over, and before that facts and canary queries
    alone: looking often would give as many chances of a false alarm.  Documents, canary queries and
    the model are looked at as they are now, for the newest day.  Raises DataError without traffic.
    """
    root, now = generations.root, datetime.now(UTC).date()
    folder, series = root / "traffic", Series(root / "monitor" / "series.db")
    days = [day for day, _ in daily_files(folder)]
    if not days or (since and days[-1] < since):
        what = f"no traffic since {since}" if days else "no traffic was logged"
        raise DataError(
            what,
            where=str(folder),
            next_step="nearer serve writes it, nearer log import reads that of another system",
        )
    chosen = [day for day in days if day >= since] if since else days[-1:]
    if watching:
        over = [day for day in days if day < now][-1:]
        chosen = sorted(
            {day for day in over if WHOLE not in series.judged(day.isoformat())} | {days[-1]}
        )
    project, reports = _Project(generations), []
    with progress.task("monitor", len(chosen), "days") as bar:
        for day in chosen:
            bar.note(day.isoformat())
            reports.append(
                _judge(project, day, days, series, over=day < now, whole=not watching or day < now)
            )
            bar.advance()
    write_json(root / "monitor" / "report.json", reports[-1].as_dict())
    write_text(
        root / "monitor" / "metrics.prom", metrics(reports[-1], datetime.now(UTC).timestamp())
    )
    return reports


def _judge(
    project: _Project, day: date, days: Sequence[date], series: Series, *, over: bool, whole: bool
) -> Report:
    generations, name, newest = project.generations, day.isoformat(), day == days[-1]
    settings = generations.config
    today, reference = project.traffic(day, day), project.reference_days(day, days)
    rng = np.random.default_rng([settings.seed, day.toordinal()])
    generation = project.answering(day, today)
    canaries = project.canaries() if newest else None
    before = (
        series.baseline(generation, settings.evaluate.primary, canaries.values) if canaries else {}
    )
    fresh = project.fresh(day) if canaries else None
    measured = Labelled(canaries.queries, *_columns(canaries, before)) if canaries else None
    seen = Seen(
        name,
        today,
        generation,
        reference,
        project.asked(one.query for one in today) if whole else None,
        project.reference(reference, len(today), rng) if whole else None,
        project.known if whole else frozenset(),
        measured,
        Labelled(fresh.queries, _columns(fresh, fresh.values)[0], measured.before)
        if fresh and measured
        else None,
        project.freshness if newest else None,
        project.moves,
        project.broken if newest else None,
        whole,
    )
    report = monitor(
        seen,
        settings.monitor,
        rng,
        earlier=series.firing(name),
        diagnose=lambda ids: project.diagnosis(ids, [one for one in (canaries, fresh) if one]),
        min_slice=settings.evaluate.min_slice,
    )
    series.append(
        name, report.series, report.alerts, [*report.conditions, *([WHOLE] if over else [])]
    )
    return report


@dataclass(frozen=True)
class _Measured:
    """Judged queries, what the active generation finds for them, and the primary measure of each."""

    queries: Sequence[Query]
    values: Mapping[str, float]
    run: Run
    judgments: Judgments


def _columns(measured: _Measured, before: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.array([one[query.id] for query in measured.queries]) for one in (measured.values, before)
    )  # type: ignore[return-value]


class _Project:
    """What the days of one look share, each read at most once."""

    def __init__(self, generations: Generations) -> None:
        self.generations, self._config, self._root = (
            generations,
            generations.config,
            generations.root,
        )
        self.moves = [
            (read_time(line["time"]), str(line["to"]))
            for line in generations.history()
            if line["action"] in ("cutover", "rollback")
        ]
        self._vectors: dict[str, np.ndarray] = {}

    # -- traffic ---------------------------------------------------------------------------------

    def traffic(self, since: date, until: date) -> list[Request]:
        return read_traffic(self._root / "traffic", since, until)

    def answering(self, day: date, today: Sequence[Request]) -> str:
        """The generation that was active when the day ended; without any, what most of its requests name."""
        end = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)
        active = [generation for time, generation in self.moves if time < end]
        named = Counter(one.generation for one in today)
        return active[-1] if active else named.most_common(1)[0][0] if named else ""

    def reference_days(self, day: date, days: Sequence[date]) -> list[list[Request]]:
        """The first days since the last cut-over; until there are any, the last ones before it."""
        count, earlier = self._config.monitor.reference_days, [one for one in days if one < day]
        end = datetime.combine(day, datetime.min.time(), UTC)
        moved = [time.date() for time, _ in self.moves if time < end + timedelta(days=1)]
        since = [one for one in earlier if not moved or one >= moved[-1]]
        return [self.traffic(one, one) for one in (since[:count] or earlier[-count:])]

    def reference(
        self, days: Sequence[Sequence[Request]], n: int, rng: np.random.Generator
    ) -> Asked | None:
        """Training-time queries; or as many requests of the reference days as the day has, because more would hold rarer queries."""
        folder = self._root / "runs" / self._config.run / "check" / "split"
        if self._config.monitor.reference == "data" and (folder / "dev").is_dir():
            return self.asked(
                query.text
                for name in ("train", "dev")
                for query in read_split(folder, name).queries
            )
        texts = [one.query for day in days for one in day]
        return self.asked(texts[place] for place in rng.permutation(len(texts))[:n].tolist())

    def asked(self, texts: Iterable[str]) -> Asked | None:
        """Distinct texts with their vectors; None where no model can be trusted to make them."""
        distinct = [text for text in dict.fromkeys(texts) if not is_blank(text)]
        if missing := [text for text in distinct if text not in self._vectors]:
            if (encoder := self._encoder) is None:
                return None
            cache = EmbeddingCache(self._root / "runs" / ".cache", encoder.fingerprint)
            vectors = cache.through(
                missing, "monitor\0query\0", lambda texts: encoder.encode(texts, "query")
            )
            self._vectors |= dict(zip(missing, vectors, strict=True))
        return (
            Asked(distinct, np.stack([self._vectors[text] for text in distinct]))
            if distinct
            else None
        )

    # -- the active generation -------------------------------------------------------------------

    @cached_property
    def _opened(self) -> tuple[Served | None, str | None]:
        """What answers now, and what is wrong with it; nothing where nothing is active."""
        if self.generations.pointer().id is None:
            return None, None
        try:
            return Searcher(self.generations).current(), ""
        except (FingerprintError, ModelError) as error:
            return None, error.what

    @property
    def broken(self) -> str | None:
        return self._opened[1]

    @cached_property
    def _encoder(self) -> Encoder | None:
        served, broken = self._opened
        if served is not None:
            return served.generation.encoder
        return None if broken else load_encoder(self._config.model, self._root)

    @cached_property
    def _item_to_item(self) -> bool:
        run = self._root / "runs" / self._config.run
        return items.decided(self._config.data.item_to_item, run)

    @cached_property
    def _corpus(self) -> Corpus:
        return load_corpus(self._config.data, self._root)

    @cached_property
    def _manifest(self) -> Manifest | None:
        active = self.generations.pointer().id
        return self.generations.manifest(active) if active else None

    @cached_property
    def _held(self) -> Mapping[str, str]:
        """Document id → content hash of what the active generation holds."""
        return (
            self.generations.store_of(self._manifest).hashes(self._manifest.space)
            if self._manifest
            else {}
        )

    @cached_property
    def _documents(self) -> tuple[Freshness, frozenset[str]]:
        """How the corpus and the active generation differ, and the words of the corpus, in one reading."""
        known: set[str] = set()
        missing: list[str] = []
        changed: list[str] = []
        said: tuple[list[set[str]], list[set[str]]] = ([], [])
        every = max(1, len(self._corpus) // _SHOWN)
        for place, document in enumerate(self._corpus):
            words, held = set(terms(document.content)), self._held.get(document.id)
            known |= words
            stale = held is None or held != document_hash(document)
            if stale:
                (missing if held is None else changed).append(
                    f"{document.id}  {document.title or document.text[:80]}".strip()
                )
            if (stale and len(said[1]) < _SHOWN) or (not stale and place % every == 0):
                said[stale].append(words)
        extra = [doc_id for doc_id in self._held if doc_id not in self._corpus]
        return Freshness(len(self._corpus), missing, changed, extra, said), frozenset(known)

    @property
    def freshness(self) -> Freshness | None:
        return self._documents[0] if self._manifest else None

    @property
    def known(self) -> frozenset[str]:
        return self._documents[1]

    # -- labels ----------------------------------------------------------------------------------

    @cached_property
    def _judgments(self) -> Judgments:
        """Judgments that people made since: `monitor.judgments`, or what was reviewed."""
        chosen, reviewed = self._config.monitor.judgments, self._root / "review" / "qrels.tsv"
        path = sources.named(self._root, chosen, "monitor.judgments") if chosen else reviewed
        return read_qrels(path) if path.is_file() else {}

    def canaries(self) -> _Measured | None:
        """Canary queries (the dev queries, unless `index.canaries` names others) with their judgments."""
        dev, chosen = frozen_split(self._root, self._config.run, "dev"), self._config.index.canaries
        queries = (
            tuple(read_queries(sources.named(self._root, chosen, "index.canaries")).values())
            if chosen
            else dev.queries
        )
        return self._measured(
            Split("canaries", queries, {**dev.judgments, **self._judgments}), as_judged=True
        )

    def fresh(self, day: date) -> _Measured | None:
        """Requests of the last days that were judged, each text once."""
        first = day - timedelta(days=self._config.monitor.reference_days)
        found = {
            one.query: one for one in self.traffic(first, day) if one.request_id in self._judgments
        }
        queries: list[Query] = []
        judgments: dict[str, Mapping[str, int]] = {}
        for number, one in enumerate(found.values()):
            query = typed_query(one.query, one.filter, number)
            queries.append(query)
            judgments[query.id] = self._judgments[one.request_id]
        return self._measured(Split("judged requests", tuple(queries), judgments))

    def _measured(self, split: Split, *, as_judged: bool = False) -> _Measured | None:
        served, primary = self._opened[0], self._config.evaluate.primary
        queries = [
            query
            for query in split.queries
            if any(grade > 0 for grade in split.judgments.get(query.id, {}).values())
        ]
        if served is None or not queries:
            return None
        asked = served.as_judged(queries) if as_judged else queries
        run = served.search(asked, self._config.evaluate.depth)
        scores = score(run, split, [primary], self._item_to_item)
        values = dict(zip(scores.query_ids, scores.column(primary).tolist(), strict=True))
        return _Measured(
            [query for query in queries if query.id in values], values, run, split.judgments
        )

    def diagnosis(self, ids: Sequence[str], measured: Sequence[_Measured]) -> dict[str, Any] | None:
        """Why judged queries no longer find what is relevant: missing documents, metadata, vocabulary or semantics.

        A document that the index lacks is told at once; the others go through the probes of `nearer
        diagnose`, with what the active generation answered as today's results.
        """
        one = next(
            (one for one in measured if any(query.id in set(ids) for query in one.queries)), None
        )
        if one is None or self._manifest is None:
            return None
        grade, k = self._config.data.min_grade, self._config.diagnose.k
        queries = {query.id: query for query in one.queries if query.id in set(ids)}
        top = {query_id: set(one.run.top(query_id, k)) for query_id in queries}
        wanted = {
            q: [d for d, g in one.judgments[q].items() if g >= grade and d not in top[q]]
            for q in queries
        }
        wanted = dict([(q, documents) for q, documents in wanted.items() if documents][:_DIAGNOSED])
        lost = {
            (q, d): "missing_document"
            for q, documents in wanted.items()
            for d in documents
            if d in self._corpus and d not in self._held
        }
        lines = [
            (pair, cause, "", "it is in the corpus, but not in the index")
            for pair, cause in lost.items()
        ]
        left = {
            q: some
            for q, documents in wanted.items()
            if (some := [d for d in documents if (q, d) not in lost])
        }
        if left:
            failing = Split(
                "affected", tuple(queries[q] for q in left), {q: one.judgments[q] for q in left}
            )
            _, found = diagnosed(
                self._systems(self._manifest, one.run, left),
                failing,
                left,
                self._config,
                tried_only=True,
            )
            lines += [(pair, told.cause, told.kind, told.evidence) for pair, told in found.items()]
        return _summary(lines, queries, self._manifest.id) if lines else None

    def _systems(self, manifest: Manifest, run: Run, ids: Iterable[str]) -> Systems:
        """The systems that a diagnosis compares: the generation's own model, and its answers as today's system."""
        path = self._root / "monitor" / "canaries.trec"
        kept = {
            query_id: [hit for hit in run.results[query_id] if hit[0] in self._corpus]
            for query_id in ids
        }
        write_run(path, Run("active", kept))
        own = {
            name: getattr(manifest.fingerprint, name)
            for name in ("query_prompt", "document_prompt", "max_seq_length", "precision")
        }
        model = self._config.model.model_copy(
            update={"name": str(self.generations.path(manifest.id) / "model"), **own}
        )
        search = self._config.search.model_copy(
            update={"system": "run", "run": str(path), "chunker": manifest.chunker}
        )
        settings: Config = self._config.model_copy(update={"model": model, "search": search})
        return Systems(
            settings,
            self._root,
            self._corpus,
            cache=self._root / "runs" / ".cache",
            item_to_item=self._item_to_item,
        )


def _summary(
    lines: Sequence[tuple[tuple[str, str], str, str, str]],
    queries: Mapping[str, Query],
    generation: str,
) -> dict[str, Any]:
    """The answer of a diagnosis: the family of causes that most failures have."""
    kinds = Counter(
        "vocabulary" if kind in _VOCABULARY else _FAMILY.get(cause, "search")
        for _, cause, kind, _ in lines
    )
    answer = min(kinds, key=lambda name: (-kinds[name], list(ANSWERS).index(name)))
    examples = [
        {"query": queries[q].text, "doc_id": d, "cause": cause, "evidence": why}
        for (q, d), cause, _, why in lines[:10]
    ]
    return {
        "answer": answer,
        "do": ANSWERS[answer].replace("ID", generation),
        "families": dict(kinds.most_common()),
        "causes": dict(Counter(cause for _, cause, _, _ in lines).most_common()),
        "n_failures": len(lines),
        "examples": examples,
    }


def metrics(report: Report, now: float) -> str:
    """The latest report as Prometheus reads it."""
    firing = {str(alert["condition"]) for alert in report.alerts}
    lines = [
        "# HELP nearer_monitor_last_run_timestamp_seconds When the monitor last looked.",
        "# TYPE nearer_monitor_last_run_timestamp_seconds gauge",
    ]
    lines += [f"nearer_monitor_last_run_timestamp_seconds {now:.0f}"]
    lines += [
        "# HELP nearer_monitor_alert 1 where a condition fires.",
        "# TYPE nearer_monitor_alert gauge",
    ]
    lines += [
        f'nearer_monitor_alert{{condition="{name}"}} {int(name in firing)}'
        for name in report.conditions
    ]
    lines += [
        "# HELP nearer_monitor_value Latest value of a series.",
        "# TYPE nearer_monitor_value gauge",
    ]
    lines += [
        f'nearer_monitor_value{{name="{row.name}",slice="{_label(row.slice)}"}} {row.value}'
        for row in report.series
    ]
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", " ")
