"""What the days of one look share, each read at most once: traffic, the active generation, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

import numpy as np

from nearer.data import sources
from nearer.data.corpus import Corpus
from nearer.data.fields import read_queries
from nearer.data.reviewed import added_to, largest_grade
from nearer.data.splits import frozen_split, read_split
from nearer.data.times import read_time
from nearer.data.trec import read_qrels
from nearer.embed.base import Encoder
from nearer.embed.cache import EmbeddingCache
from nearer.errors import FingerprintError, ModelError
from nearer.live.index.build import document_hash
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import Manifest
from nearer.live.index.searcher import Searcher, Served
from nearer.live.monitor.conditions import Asked, Freshness
from nearer.live.traffic.exposure import Exposure
from nearer.live.traffic.log import Request, read_traffic
from nearer.measure.metrics import score
from nearer.measure.slices import terms
from nearer.project import Project
from nearer.types import Judgments, Query, Run, Split, is_blank, typed_query

_NAMED = 1000  # documents whose words are compared, of those in the index and of those to come
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Measured:
    """Judged queries, what the active generation finds for them, and the primary measure of each."""

    queries: Sequence[Query]
    values: Mapping[str, float]
    run: Run
    judgments: Judgments

    def column(self, values: Mapping[str, float] | None = None) -> np.ndarray:
        """The measure, or other values by query id, in the order of the queries, (n,) float64."""
        chosen = self.values if values is None else values
        return np.array([chosen[query.id] for query in self.queries])


class Observed:
    """A project as the monitor sees it: its parts, its traffic and what answers, as of one look."""

    def __init__(self, generations: Generations) -> None:
        self.generations = generations
        self.config, self.root = generations.config, generations.root
        self._project = Project.at(self.root, self.config)
        #: Which generation answered from when on.
        self.moves = [
            (read_time(line["time"]), str(line["to"]))
            for line in generations.history()
            if line["action"] in ("cutover", "rollback")
        ]
        self._vectors: dict[str, np.ndarray] = {}

    # -- traffic ---------------------------------------------------------------------------------

    def traffic(self, since: date, until: date) -> list[Request]:
        return read_traffic(self.root / "traffic", since, until)

    def answering(self, day: date, today: Sequence[Request]) -> str:
        """The generation that was active when the day ended; without any, what most of its requests name."""
        end = _start(day) + _DAY
        active = [generation for time, generation in self.moves if time < end]
        if active:
            return active[-1]
        named = Counter(request.generation for request in today)
        return named.most_common(1)[0][0] if named else ""

    def reference_days(self, day: date, days: Sequence[date]) -> list[list[Request]]:
        """The first days since the last cut-over; until there are any, the last ones before it."""
        count = self.config.monitor.reference_days
        earlier = [candidate for candidate in days if candidate < day]
        moved = [time.date() for time, _ in self.moves if time < _start(day) + _DAY]
        since = earlier
        if moved:
            since = [candidate for candidate in earlier if candidate >= moved[-1]]
        chosen = since[:count] or earlier[-count:]
        return [self.traffic(candidate, candidate) for candidate in chosen]

    def reference(
        self, days: Sequence[Sequence[Request]], n: int, rng: np.random.Generator
    ) -> Asked | None:
        """Training-time queries; or as many requests of the reference days as the day has, because more would hold rarer queries."""
        folder = self.root / "runs" / self.config.run / "check" / "split"
        texts: list[str] = []
        if self.config.monitor.reference == "data" and (folder / "dev").is_dir():
            for name in ("train", "dev"):
                texts.extend(query.text for query in read_split(folder, name).queries)
            return self.asked(texts)
        for day in days:
            texts.extend(request.query for request in day)
        return self.asked(texts[row] for row in rng.permutation(len(texts))[:n].tolist())

    def asked(self, texts: Iterable[str]) -> Asked | None:
        """Distinct texts with their vectors; None where no model can be trusted to make them."""
        distinct = [text for text in dict.fromkeys(texts) if not is_blank(text)]
        missing = [text for text in distinct if text not in self._vectors]
        if missing:
            encoder = self._encoder
            if encoder is None:
                return None
            cache = EmbeddingCache(self.root / "runs" / ".cache", encoder.fingerprint)
            vectors = cache.through(
                missing, "monitor\0query\0", lambda texts: encoder.encode(texts, "query")
            )
            self._vectors |= dict(zip(missing, vectors, strict=True))
        if not distinct:
            return None
        return Asked(distinct, np.stack([self._vectors[text] for text in distinct]))

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
        """What is wrong with the model of the active generation; None where none is active."""
        return self._opened[1]

    @cached_property
    def _encoder(self) -> Encoder | None:
        served, broken = self._opened
        if served is not None:
            return served.generation.encoder
        return None if broken else self._project.encoder

    @property
    def item_to_item(self) -> bool:
        return self._project.item_to_item

    @property
    def corpus(self) -> Corpus:
        return self._project.corpus

    @cached_property
    def exposure(self) -> Exposure | None:
        """How it is judged which items people are shown; None where the task does not."""
        return Exposure.of(self._project)

    @cached_property
    def manifest(self) -> Manifest | None:
        active = self.generations.pointer().id
        return self.generations.manifest(active) if active else None

    @cached_property
    def held(self) -> Mapping[str, str]:
        """Document id → content hash of what the active generation holds."""
        if self.manifest is None:
            return {}
        return self.generations.store_of(self.manifest).hashes(self.manifest.space)

    @cached_property
    def _documents(self) -> tuple[Freshness, frozenset[str]]:
        """How the corpus and the active generation differ, and the words of the corpus, in one reading."""
        known: set[str] = set()
        missing: list[str] = []
        changed: list[str] = []
        indexed: list[set[str]] = []  # words of documents that are up to date
        coming: list[set[str]] = []  # words of documents that are not
        every = max(1, len(self.corpus) // _NAMED)
        for position, document in enumerate(self.corpus):
            words = set(terms(document.content))
            known |= words
            digest = self.held.get(document.id)
            if digest == document_hash(document):
                if position % every == 0:
                    indexed.append(words)
                continue
            name = f"{document.id}  {document.title or document.text[:80]}".strip()
            (missing if digest is None else changed).append(name)
            if len(coming) < _NAMED:
                coming.append(words)
        extra = [doc_id for doc_id in self.held if doc_id not in self.corpus]
        freshness = Freshness(len(self.corpus), missing, changed, extra, (indexed, coming))
        return freshness, frozenset(known)

    @property
    def freshness(self) -> Freshness | None:
        return self._documents[0] if self.manifest else None

    @property
    def known(self) -> frozenset[str]:
        """Every term of the corpus."""
        return self._documents[1]

    # -- labels ----------------------------------------------------------------------------------

    @cached_property
    def _judgments(self) -> Judgments:
        """Judgments that people made since: `monitor.judgments`, or what was reviewed."""
        chosen, reviewed = self.config.monitor.judgments, self.root / "review" / "qrels.tsv"
        path = sources.named(self.root, chosen, "monitor.judgments") if chosen else reviewed
        return read_qrels(path) if path.is_file() else {}

    def canaries(self) -> Measured | None:
        """Canary queries (the dev queries, unless `index.canaries` names others) with their judgments."""
        dev, chosen = frozen_split(self.root, self.config.run, "dev"), self.config.index.canaries
        queries = dev.queries
        if chosen:
            path = sources.named(self.root, chosen, "index.canaries")
            queries = tuple(read_queries(path).values())
        judgments = dict(dev.judgments)
        largest = largest_grade({"dev": dev.judgments})
        for query_id, reviewed in self._judgments.items():
            judgments[query_id] = added_to(judgments.get(query_id, {}), reviewed, largest)
        return self._measured(Split("canaries", queries, judgments), as_judged=True)

    def fresh(self, day: date) -> Measured | None:
        """Requests of the last days that were judged, each text once."""
        first = day - timedelta(days=self.config.monitor.reference_days)
        latest: dict[str, Request] = {}
        for request in self.traffic(first, day):
            if request.request_id in self._judgments:
                latest[request.query] = request
        queries: list[Query] = []
        judgments: dict[str, Mapping[str, int]] = {}
        for number, request in enumerate(latest.values()):
            query = typed_query(request.query, request.filter, number)
            queries.append(query)
            judgments[query.id] = self._judgments[request.request_id]
        return self._measured(Split("judged requests", tuple(queries), judgments))

    def _measured(self, split: Split, *, as_judged: bool = False) -> Measured | None:
        served, primary = self._opened[0], self.config.evaluate.primary
        queries = []
        for query in split.queries:
            grades = split.judgments.get(query.id, {}).values()
            if any(grade > 0 for grade in grades):
                queries.append(query)
        if served is None or not queries:
            return None
        searched = served.as_judged(queries) if as_judged else queries
        run = served.search(searched, self.config.evaluate.depth)
        scores = score(run, split, [primary], self.item_to_item)
        values = dict(zip(scores.query_ids, scores.column(primary).tolist(), strict=True))
        scored = [query for query in queries if query.id in values]
        return Measured(scored, values, run, split.judgments)


def _start(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)
