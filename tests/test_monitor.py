"""Monitoring: silent on unchanged traffic, loud on each planted drift, and right about what to do.

Traffic is simulated: real queries about software weaknesses, asked again and again, answered by a
real two-layer model over the real documents, with users who click by position.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from nearer import config
from nearer.cli.monitor import monitor as command
from nearer.data.corpus import Corpus
from nearer.data.fields import read_queries
from nearer.data.general import load_general
from nearer.data.trec import read_qrels
from nearer.embed.encoder import load_encoder
from nearer.live.index.build import build
from nearer.live.index.generations import Generations
from nearer.live.index.searcher import Searcher
from nearer.live.index.verify import verify
from nearer.live.monitor.conditions import (
    CONDITIONS,
    TESTED,
    Asked,
    Freshness,
    Labelled,
    Report,
    Seen,
    monitor,
)
from nearer.live.monitor.series import Row, Series
from nearer.live.monitor.watch import look
from nearer.live.traffic.log import Feedback, Request
from nearer.measure.slices import terms
from nearer.types import Query

DAY = datetime(2026, 3, 1, tzinfo=UTC)
ACTIVE, OTHER = "aaaaaaaa-1", "bbbbbbbb-1"
WEB = {
    "xss",
    "scripting",
    "html",
    "url",
    "http",
    "browser",
    "csrf",
    "cookie",
    "web",
    "javascript",
    "session",
}
REQUESTS = 2000


@dataclass(repr=False)
class Town:
    """Everybody who asks: queries with vectors, and the ten best documents of each with scores."""

    texts: list[str]
    vectors: np.ndarray
    documents: np.ndarray
    ids: list[str]
    known: frozenset[str]
    usual: np.ndarray  # positions of queries about weaknesses
    foreign: np.ndarray  # positions of questions about everyday life
    judged: list[tuple[int, str]]  # dev queries and their document

    @property
    def web(self) -> np.ndarray:
        return np.array([place for place in self.usual if WEB & set(terms(self.texts[place]))])

    def hits(
        self, places: Sequence[int], *, gone: Sequence[int] = (), dimension: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Ten best documents; `gone` are not in the index, `dimension` makes it another model."""
        cut = slice(dimension)
        queries, documents = (
            part / np.linalg.norm(part, axis=1, keepdims=True)
            for part in (self.vectors[places, cut], self.documents[:, cut])
        )
        scores = queries @ documents.T
        scores[:, list(gone)] = -1.0
        return [[(self.ids[d], float(row[d])) for d in np.argsort(-row)[:10]] for row in scores]

    def day(
        self,
        number: int,
        rng: np.random.Generator,
        pool: np.ndarray,
        *,
        topic: np.ndarray | None = None,
        **change: Any,
    ) -> list[Request]:
        """One day's requests.  `topic` takes a tenth of them."""
        places = rng.choice(pool, REQUESTS)
        if topic is not None:
            places[: REQUESTS // 10] = rng.choice(topic, REQUESTS // 10)
            rng.shuffle(places)
        distinct = np.unique(places)
        found = dict(
            zip(
                distinct.tolist(),
                self.hits(distinct, dimension=change.get("dimension"), gone=change.get("gone", ())),
                strict=True,
            )
        )
        seconds = np.sort(rng.uniform(0, 86_400, REQUESTS))
        latencies = rng.lognormal(3.0, 0.4, REQUESTS) * change.get("slower", 1.0)
        return [
            self._request(
                number, n, place, found[place], float(seconds[n]), float(latencies[n]), rng, change
            )
            for n, place in enumerate(places.tolist())
        ]

    def _request(  # noqa: PLR0917 - one line of a log
        self,
        number: int,
        n: int,
        place: int,
        hits: list[tuple[str, float]],
        second: float,
        latency: float,
        rng: np.random.Generator,
        change: Any,
    ) -> Request:
        time = DAY + timedelta(days=number, seconds=second)
        failed, empty = (
            rng.random() < 0.002 + change.get("errors", 0.0),
            rng.random() < 0.01 + change.get("empty", 0.0),
        )
        shown = (
            ()
            if failed or empty
            else tuple((doc_id, score + change.get("shift", 0.0)) for doc_id, score in hits)
        )
        asks = change.get("clicks", 0.4)
        feedback = tuple(
            Feedback("click", doc_id, 1.0, time)
            for rank, (doc_id, _) in enumerate(shown, 1)
            if rng.random() < asks / (rank * np.log2(rank + 1))
        )
        return Request(
            time,
            f"r{number}-{n}",
            self.texts[place],
            change.get("generation", ACTIVE),
            shown,
            latency,
            user=f"u{int(rng.integers(400))}",
            error="store" if failed else None,
            feedback=feedback,
        )

    def asked(self, texts: Sequence[str]) -> Asked:
        place = {text: number for number, text in enumerate(self.texts)}
        distinct = list(dict.fromkeys(texts))
        return Asked(distinct, self.vectors[[place[text] for text in distinct]])

    def seen(
        self,
        today: Sequence[Request],
        before: Sequence[Sequence[Request]],
        rng: np.random.Generator,
        **more: Any,
    ) -> Seen:
        """What the monitor is shown: the reference is as much of the earlier traffic as there is of today's."""
        asked = [one.query for day in before for one in day]
        some = [asked[place] for place in rng.permutation(len(asked))[: len(today)].tolist()]
        values: dict[str, Any] = {
            "reference": self.asked(some),
            "known": self.known,
            "fingerprint": "",
        } | more
        moves = [(DAY - timedelta(days=30), ACTIVE)]
        return Seen(
            today[0].time.date().isoformat(),
            today,
            ACTIVE,
            before,
            self.asked([one.query for one in today]),
            moves=moves,
            **values,
        )

    def canaries(self, gone: Sequence[int] = ()) -> Labelled:
        """Reciprocal ranks of the dev queries' documents, before and after documents went missing."""
        places = [place for place, _ in self.judged]
        columns = [
            np.array(
                [
                    next((1 / rank for rank, (d, _) in enumerate(hits, 1) if d == doc_id), 0.0)
                    for hits, (_, doc_id) in zip(lists, self.judged, strict=True)
                ]
            )
            for lists in (self.hits(places), self.hits(places, gone=gone))
        ]
        return Labelled(
            [Query(f"c{place}", self.texts[place]) for place in places], columns[1], columns[0]
        )


@pytest.fixture(scope="module")
def town(cwe: Path, tiny_model: Path) -> Town:
    encoder = load_encoder(
        config.Model(name=str(tiny_model), precision="fp32", device="cpu"), tiny_model.parent
    )
    queries = read_queries(cwe / "queries.jsonl")
    everyday = load_general()[1].queries[:280]  # as many as a test has time to embed
    foreign = [query.text for query in everyday]
    texts = list(dict.fromkeys([*(query.text for query in queries.values()), *foreign]))
    corpus = Corpus.open(cwe / "corpus.jsonl")
    place = {text: number for number, text in enumerate(texts)}
    qrels = read_qrels(cwe / "qrels" / "dev.tsv")
    judged = [(place[queries[q].text], next(iter(found))) for q, found in qrels.items()]
    judged_ids = {doc_id for _, doc_id in judged}
    kept = [n for n, doc_id in enumerate(corpus.ids) if doc_id in judged_ids or n % 4 == 0]
    contents = list(corpus.contents(kept))
    return Town(
        texts,
        encoder.encode(texts, "query"),
        encoder.encode(contents, "document"),
        [corpus.ids[n] for n in kept],
        frozenset(term for text in contents for term in terms(text)),
        np.array([place[query.text] for query in queries.values()]),
        np.array([place[text] for text in foreign]),
        judged,
    )


@pytest.fixture(scope="module")
def week(town: Town) -> list[list[Request]]:
    """The reference: seven days of usual traffic."""
    rng = np.random.default_rng(1)
    return [town.day(number, rng, town.usual) for number in range(7)]


def judge(seen: Seen, rng: np.random.Generator, **settings: Any) -> Report:
    return monitor(seen, config.Monitor(**settings), rng)


def fired(report: Report) -> dict[str, Mapping[str, Any]]:
    return {alert["condition"]: alert for alert in report.alerts}


# -- silence ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_thirty_days_of_unchanged_traffic_give_at_most_one_day_with_an_alert(
    town: Town, week: list[list[Request]]
) -> None:
    rng = np.random.default_rng(2)
    told: dict[str, list[str]] = {}
    for number in range(7, 37):
        report = judge(
            town.seen(
                town.day(number, rng, town.usual),
                week,
                rng,
                canaries=town.canaries(),
                documents=Freshness(len(town.ids)),
            ),
            rng,
        )
        assert not set(report.skipped) - {"quality_judged", "document_terms"}
        if report.alerts:
            told[report.day] = list(fired(report))
    assert len(told) <= 1, told


@pytest.mark.long
def test_training_queries_as_the_reference_are_silent_too(
    town: Town, week: list[list[Request]], cwe: Path
) -> None:
    rng, queries = np.random.default_rng(3), read_queries(cwe / "queries.jsonl")
    ids = {
        query_id
        for name in ("train", "dev")
        for query_id in read_qrels(cwe / "qrels" / f"{name}.tsv")
    }
    reference = town.asked([queries[query_id].text for query_id in ids])
    reports = [
        judge(town.seen(town.day(number, rng, town.usual), week, rng, reference=reference), rng)
        for number in range(7, 13)
    ]
    assert [list(fired(report)) for report in reports] == [[]] * 6
    topic = judge(
        town.seen(
            town.day(13, rng, town.usual, topic=town.foreign), week, rng, reference=reference
        ),
        rng,
    )
    assert {"new_clusters", "query_classifier"} <= set(fired(topic))


@pytest.mark.long
def test_significance_alone_bounds_false_alarms_over_all_conditions_together() -> None:
    """Two hundred days of small synthetic traffic, no smallest effect asked for."""
    rng, days, alarms = np.random.default_rng(4), 200, 0
    words, centres = [f"w{n}" for n in range(60)], rng.normal(size=(6, 16))
    nothing = {
        "quality": 0.0,
        "scores": 1e-9,
        "rate": 0.0,
        "errors": 0.0,
        "apart": 0.5,
        "latency_ratio": 1.0,
    }

    def text() -> str:
        return " ".join(rng.choice(words, 4)) + (
            f" x{int(rng.integers(10**6))}" if rng.random() < 0.2 else ""
        )

    def traffic(number: int, n: int) -> list[Request]:
        made = []
        for place in range(n):
            time = DAY + timedelta(days=number, seconds=place * 86_400 / n)
            hits = tuple(
                (f"d{rank}", float(score))
                for rank, score in enumerate(-np.sort(-rng.normal(size=3)))
            )
            clicks = tuple(
                Feedback("click", doc_id, 1.0, time) for doc_id, _ in hits if rng.random() < 0.2
            )
            error = "x" if rng.random() < 0.05 else None
            shown = () if error or rng.random() < 0.05 else hits
            made.append(
                Request(
                    time,
                    f"{number}-{place}",
                    text(),
                    ACTIVE,
                    shown,
                    float(rng.lognormal()),
                    None,
                    f"u{place % 40}",
                    error,
                    feedback=clicks,
                )
            )
        return made

    def asked(n: int) -> Asked:
        return Asked(
            [text() + f" {rng.integers(10**9)}" for _ in range(n)],
            (centres[rng.integers(6, size=n)] + rng.normal(size=(n, 16))).astype(np.float32),
        )

    for _ in range(days):  # a reference of its own for every day: days are then independent
        before, canaries = [traffic(0, 120), traffic(1, 120), traffic(2, 120)], rng.random((2, 40))
        seen = Seen(
            "2026-03-04",
            traffic(3, 150),
            ACTIVE,
            before,
            asked(130),
            asked(130),
            moves=[(DAY - timedelta(9), ACTIVE)],
            fingerprint="",
        )
        queries = [Query(f"c{n}", words[n]) for n in range(40)]
        labelled, fresh = (
            Labelled(queries, canaries[0], canaries[1]),
            Labelled(queries, rng.random(40), canaries[1]),
        )
        documents = (
            [set(text().split()) for _ in range(80)],
            [set(text().split()) for _ in range(30)],
        )
        seen = replace(
            seen, canaries=labelled, judged=fresh, documents=Freshness(100, terms=documents)
        )
        report = judge(seen, rng, **nothing)
        # What was shown is judged only for tasks that ask for it (`Task.judges_exposure`).
        assert set(report.conditions) == set(CONDITIONS) - {"coverage"}, "every other is judged"
        alarms += bool(report.alerts)
    assert alarms <= 9, "binomial(200, .02) exceeds 9 once in a hundred times"


# -- planted drifts, each within one day of 2,000 requests ------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_new_topic_is_found_and_named(town: Town, week: list[list[Request]], seed: int) -> None:
    rng = np.random.default_rng([5, seed])
    alerts = fired(
        judge(town.seen(town.day(8, rng, town.usual, topic=town.foreign), week, rng), rng)
    )
    assert {"new_clusters", "query_distribution", "query_classifier"} <= set(alerts)
    foreign = {town.texts[place] for place in town.foreign}
    assert len(alerts["new_clusters"]["examples"]) == 10
    assert sum(text in foreign for text in alerts["new_clusters"]["examples"]) >= 8
    assert alerts["new_clusters"]["slice"].startswith("new topic")
    assert 0.05 <= alerts["new_clusters"]["size"] <= 0.15


@pytest.mark.parametrize("seed", range(3))
def test_a_new_topic_within_the_same_field_is_found_by_its_words(town: Town, seed: int) -> None:
    rng = np.random.default_rng([6, seed])
    pool = np.setdiff1d(town.usual, town.web)
    before = [town.day(number, rng, pool) for number in range(3)]
    alerts = fired(judge(town.seen(town.day(8, rng, pool, topic=town.web), before, rng), rng))
    assert {"query_distribution", "query_classifier"} & set(alerts)
    told = alerts.get("query_classifier") or alerts["query_distribution"]
    assert len(WEB & set(told["slice"].split(", "))) >= 3
    assert any(WEB & set(terms(text)) for text in told["examples"])


def test_a_generation_that_nobody_cut_over_to_is_noticed(
    town: Town, week: list[list[Request]]
) -> None:
    rng = np.random.default_rng(7)
    alerts = fired(judge(town.seen(town.day(8, rng, town.usual, generation=OTHER), week, rng), rng))
    assert OTHER in alerts["generation"]["what"]
    assert len(alerts["generation"]["examples"]) == 10
    moved = DAY + timedelta(days=8, hours=12)
    half = [
        replace(one, generation=OTHER if one.time > moved else ACTIVE)
        for one in town.day(8, rng, town.usual)
    ]
    moves = [(DAY - timedelta(days=30), ACTIVE), (moved, OTHER)]
    assert "generation" not in fired(
        judge(replace(town.seen(half, week, rng), moves=moves, generation=OTHER), rng)
    )


@pytest.mark.parametrize(
    ("change", "size"), [({"shift": 0.05}, 0.1), ({"shift": -0.05}, 0.1), ({"dimension": 192}, 0.1)]
)
def test_other_scores_under_the_same_generation_are_noticed(
    town: Town, week: list[list[Request]], change: Mapping[str, Any], size: float
) -> None:
    rng = np.random.default_rng(8)
    alerts = fired(judge(town.seen(town.day(8, rng, town.usual, **change), week, rng), rng))
    assert alerts["scores"]["size"] >= size
    assert set(alerts) <= {"scores", "low_scores"}


def test_a_twentieth_of_the_documents_missing_is_noticed(
    town: Town, week: list[list[Request]]
) -> None:
    rng = np.random.default_rng(9)
    gone = rng.permutation(len(town.ids))[: len(town.ids) // 20].tolist()
    documents = Freshness(len(town.ids), [town.ids[place] for place in gone])
    alert = fired(
        judge(
            town.seen(town.day(8, rng, town.usual, gone=gone), week, rng, documents=documents), rng
        )
    )["documents"]
    assert alert["size"] == pytest.approx(len(gone) / len(town.ids))
    assert alert["slice"] == "missing"
    assert "nearer index sync" in alert["do"]


def test_canary_queries_that_lose_their_documents_are_noticed_and_diagnosed(
    town: Town, week: list[list[Request]]
) -> None:
    rng, found = np.random.default_rng(9), town.hits([place for place, _ in town.judged])
    lost = {
        doc_id for hits, (_, doc_id) in zip(found, town.judged, strict=True) if hits[0][0] == doc_id
    }
    asked: list[str] = []
    seen = town.seen(
        town.day(8, rng, town.usual),
        week,
        rng,
        canaries=town.canaries([town.ids.index(doc_id) for doc_id in lost]),
    )
    report = monitor(
        seen,
        config.Monitor(),
        rng,
        diagnose=lambda ids: asked.extend(ids) or {"do": "sync", "answer": "missing documents"},
    )
    alert = fired(report)["quality_canary"]
    assert (alert["do"], alert["diagnosis"]["answer"]) == ("sync", "missing documents")
    asks = {
        f"c{place}": (doc_id, {d for d, _ in hits})
        for (place, doc_id), hits in zip(town.judged, found, strict=True)
    }
    assert set(asked) == {
        query_id for query_id, (doc_id, hits) in asks.items() if doc_id in lost & hits
    }
    assert {row.slice for row in report.series if row.name == "quality_canary"} >= {
        "all",
        "long query",
    }


@pytest.mark.parametrize(
    ("change", "condition"),
    [
        ({"clicks": 0.25}, "clicks"),
        ({"clicks": 0.25}, "click_success"),
        ({"clicks": 0.25}, "abandonment"),
        ({"empty": 0.05}, "empty"),
        ({"errors": 0.03}, "errors"),
        ({"slower": 1.8}, "latency"),
    ],
)
def test_what_people_and_machines_do_is_noticed(
    town: Town, week: list[list[Request]], change: Mapping[str, Any], condition: str
) -> None:
    rng = np.random.default_rng(10)
    assert condition in fired(
        judge(town.seen(town.day(8, rng, town.usual, **change), week, rng), rng)
    )


def test_people_who_ask_again_are_noticed(town: Town, week: list[list[Request]]) -> None:
    rng = np.random.default_rng(11)
    today = town.day(8, rng, town.usual)
    for place in range(0, 400, 2):  # the next request is the same user's, with one word less
        text = today[place].query
        shorter = text.rsplit(" ", 1)[0] if " " in text else text
        today[place + 1] = replace(
            today[place],
            query=shorter,
            time=today[place].time + timedelta(seconds=20),
            request_id=f"again{place}",
        )
    texts = dict.fromkeys(one.query for one in week[0])
    seen = replace(town.seen(week[1], week, rng), today=today, asked=town.asked(list(texts)))
    assert fired(judge(seen, rng))["reformulation"]["size"] > 0.03


# -- alerts -----------------------------------------------------------------------------------------------


def test_an_alert_says_everything(town: Town, week: list[list[Request]]) -> None:
    rng = np.random.default_rng(12)
    seen = town.seen(town.day(8, rng, town.usual, topic=town.foreign), week, rng)
    report = monitor(seen, config.Monitor(), rng, earlier={"new_clusters": "2026-03-05"})
    alert = fired(report)["new_clusters"]
    assert set(alert) >= {
        "condition",
        "since",
        "size",
        "threshold",
        "slice",
        "examples",
        "what",
        "do",
        "diagnosis",
    }
    assert alert["since"] == "2026-03-05"
    assert fired(report)["query_distribution"]["since"] == seen.day
    assert json.loads(json.dumps(report.as_dict()))["alerts"] == report.alerts
    assert {row.name for row in report.series} >= {
        "requests",
        "latency",
        "clicks",
        "scores",
        "query_classifier",
        "scores_psi",
    }


def test_a_day_that_is_not_over_is_judged_by_facts_alone(
    town: Town, week: list[list[Request]]
) -> None:
    rng = np.random.default_rng(13)
    seen = replace(
        town.seen(town.day(8, rng, town.usual, topic=town.foreign, generation=OTHER), week, rng),
        whole=False,
    )
    report = judge(seen, rng)
    assert set(fired(report)) == {"generation"}
    assert set(report.skipped) >= set(TESTED[2:]) - {"coverage"}  # of no meaning to a search


def test_series_keep_days_replace_alerts_and_know_since_when(tmp_path: Path) -> None:
    series = Series(tmp_path / "monitor" / "series.db")
    assert series.read() == series.alerts() == []
    alert = {"condition": "clicks", "slice": "all", "since": "2026-03-02"}
    series.append(
        "2026-03-02", [Row("2026-03-02", "clicks", 0.3, 0.2, 0.4)], [alert], ["clicks", "empty"]
    )
    series.append("2026-03-03", [Row("2026-03-03", "clicks", 0.5)], [], ["empty"])
    assert series.firing("2026-03-04") == {"clicks": "2026-03-02"}, (
        "clicks was last judged on the second"
    )
    assert series.firing("2026-03-02") == {}
    series.append("2026-03-02", [Row("2026-03-02", "clicks", 0.6)], [], ["clicks"])
    assert series.alerts() == []
    assert [row.value for row in series.read("clicks", "2026-03-02")] == [0.6, 0.5]
    assert series.baseline(ACTIVE, "nDCG@10", {"a": 0.5}) == {"a": 0.5}
    assert series.baseline(ACTIVE, "nDCG@10", {"a": 0.1, "b": 1.0}) == {"a": 0.5, "b": 1.0}


# -- the whole, on disk -----------------------------------------------------------------------------------

app = typer.Typer()
app.command()(command)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, write_project: Callable[..., Path]) -> Path:
    """A project with an active generation and three days of logged traffic."""
    from nearer.cli import app as nearer

    path = write_project(
        tmp_path_factory.mktemp("served"),
        index={"store": "numpy"},
        diagnose={"chunkers": []},
        search={"filters": "apply"},
        monitor={"reference_days": 2},
    )
    assert CliRunner().invoke(nearer, ["check", "-c", str(path), "-q"]).exit_code == 0
    generations = open_generations(path)
    settings, root = generations.config, path.parent
    corpus = Corpus.open(Path(settings.data.folder or "") / "corpus.jsonl")
    filled = build(
        generations, corpus, load_encoder(settings.model, root), settings.model.name, today=True
    )
    verify(generations, filled.manifest.id, corpus)
    generations.cutover(filled.manifest.id)
    # The cut-over was before the traffic: history says when, and the pointer holds its line too.
    for name in ("history.jsonl", "ACTIVE"):
        file = generations.folder / name
        file.write_text(
            re.sub(r'"time": "20[^"]*"', '"time": "2026-02-20T00:00:00+00:00"', file.read_text())
        )
    queries = list(read_queries(Path(settings.data.folder or "") / "queries.jsonl").values())
    for number in range(3):
        log(path, number, queries, Searcher(generations))
    return path


def open_generations(path: Path) -> Generations:
    return Generations(path.parent, config.load(path))


def log(
    path: Path, number: int, queries: Sequence[Query], searcher: Searcher, times: int = 2
) -> None:
    lines = []
    for n, query in enumerate([*queries] * times):
        time = DAY + timedelta(days=number, seconds=60 * n)
        hits = tuple(searcher.search([query], 10).results[query.id])
        feedback = (Feedback("click", hits[0][0], 1.0, time),) if n % 3 == 0 else ()
        one = Request(
            time,
            f"r{number}-{n}",
            query.text,
            searcher.generation,
            hits,
            5.0 + n % 7,
            query.filter,
            feedback=feedback,
        )
        lines.append(
            one.as_dict()
            | {"feedback": [{"kind": "click", "id": hit.doc_id, "value": 1} for hit in feedback]}
        )
    folder = path.parent / "traffic"
    folder.mkdir(exist_ok=True)
    day = (DAY + timedelta(days=number)).date()
    (folder / f"{day}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def call(path: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["-c", str(path), *words])


@pytest.fixture
def copy(served: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(served.parent, tmp_path / "copy")
    return tmp_path / "copy" / "nearer.yaml"


def test_a_healthy_project_is_told_so(copy: Path) -> None:
    result = call(copy, "--since", "2026-03-01", "--gate")
    assert result.exit_code == 0, result.output
    assert "nothing to do" in result.output
    assert "quality canary" in result.output
    folder = copy.parent / "monitor"
    report = json.loads((folder / "report.json").read_text())
    assert report["day"] == "2026-03-03"
    assert not report["alerts"]
    assert {"documents", "fingerprint", "generation", "quality_canary", "scores", "clicks"} <= set(
        report["conditions"]
    )
    days = {row.time for row in Series(folder / "series.db").read("requests")}
    assert days == {"2026-03-01", "2026-03-02", "2026-03-03"}
    assert 'nearer_monitor_alert{condition="scores"} 0' in (folder / "metrics.prom").read_text()


def lose(path: Path, count: int) -> set[str]:
    """Take documents that dev queries find out of the store, behind the generation's back."""
    generations = open_generations(path)
    manifest = generations.manifest(str(generations.pointer().id))
    split = path.parent / "runs" / "default" / "check" / "split" / "dev"
    wanted: dict[str, int] = {}
    for query_id, found in read_qrels(split / "qrels.tsv").items():
        query = read_queries(split / "queries.jsonl")[query_id]
        top = Searcher(generations).search([replace(query, filter=None)], 10).top(query_id, 10)
        for doc_id in set(found) & set(top):
            wanted[doc_id] = wanted.get(doc_id, 0) + 1
    chosen = sorted(wanted, key=lambda doc_id: (-wanted[doc_id], doc_id))[:count]
    generations.store(manifest.store).delete(manifest.space, chosen)
    return set(chosen)


@pytest.mark.long
def test_lost_documents_are_found_diagnosed_and_posted(copy: Path) -> None:
    assert call(copy).exit_code == 0
    lost = lose(copy, 12)
    received: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = call(
            copy, "--json", "--gate", "--webhook", f"http://127.0.0.1:{server.server_port}/hook"
        )
        server.shutdown()
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert json.loads(received[0]) == report
    alerts = {alert["condition"]: alert for alert in report["alerts"]}
    assert "missing" in alerts["documents"]["what"]
    diagnosis = alerts["quality_canary"]["diagnosis"]
    assert diagnosis["answer"] == "missing documents"
    assert "nearer index sync" in alerts["quality_canary"]["do"]
    assert {example["doc_id"] for example in diagnosis["examples"]} <= lost
    assert "missing documents" in call(copy).stdout


@pytest.mark.long
@pytest.mark.parametrize("answer", ["vocabulary", "metadata", "semantics"])
def test_judged_requests_that_fail_are_diagnosed(copy: Path, answer: str) -> None:
    generations = open_generations(copy)
    corpus = Corpus.open(Path(generations.config.data.folder or "") / "corpus.jsonl")
    rng, queries, rows = np.random.default_rng(14), [], []
    counts = Counter(term for text in corpus.contents() for term in set(terms(text)))
    for n, document in enumerate(corpus[place] for place in range(0, 120, 2)):
        words = [
            "".join(rng.choice(list("bdfgklmnprstvz"), 2))
            + "u"
            + "".join(rng.choice(list("xqwz"), 2))
            for _ in range(3)
        ]
        wrong = {"abstraction": "Class" if document.metadata["abstraction"] != "Class" else "Base"}
        other = corpus[
            (2 * n + 61) % len(corpus)
        ].title  # what it says elsewhere, and a word that it shares with everything
        common = max(set(terms(document.content)), key=lambda term: (counts[term], term))
        asks = {
            "vocabulary": " ".join(words),
            "metadata": document.title,
            "semantics": f"{other} {common}",
        }
        queries.append(Query(f"n{n}", asks[answer], filter=wrong if answer == "metadata" else None))
        rows.append(f"r3-{n}\t{document.id}\t1\n")
    log(copy, 3, queries, Searcher(generations), times=1)
    (copy.parent / "review").mkdir()
    (copy.parent / "review" / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(rows)
    )
    result = call(copy, "--json")
    assert result.exit_code == 0, result.output
    alert = next(
        one for one in json.loads(result.stdout)["alerts"] if one["condition"] == "quality_judged"
    )
    assert alert["diagnosis"]["answer"] == answer, alert["diagnosis"]
    assert ("fine-tune again" in alert["do"]) == (answer != "metadata")
    assert alert["since"] == "2026-03-04"


def test_another_model_in_the_generations_folder_is_noticed(copy: Path, minilm: Path) -> None:
    generations = open_generations(copy)
    weights = next(
        (generations.path(str(generations.pointer().id)) / "model").rglob("*.safetensors")
    )
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    save_file(
        {name: tensor * 1.01 for name, tensor in tensors.items()},
        weights,
        metadata={"format": "pt"},
    )
    alerts = {alert["condition"] for alert in json.loads(call(copy, "--json").stdout)["alerts"]}
    assert "fingerprint" in alerts


def test_what_cannot_be_watched_says_what_to_do(copy: Path) -> None:
    result = call(copy, "--webhook", "file:///etc/passwd")
    assert result.exit_code == 2
    assert "http" in result.output
    for path in (copy.parent / "traffic").iterdir():
        path.unlink()
    assert "nearer serve" in call(copy).output


def test_watching_judges_a_day_as_a_whole_once_it_is_over(copy: Path) -> None:
    generations = open_generations(copy)
    queries = list(
        read_queries(Path(generations.config.data.folder or "") / "queries.jsonl").values()
    )
    now = (datetime.now(UTC) - DAY).days
    log(copy, now, queries[:20], Searcher(generations), times=1)
    over, begun = look(generations, watching=True)
    assert (over.day, "clicks" in over.conditions) == ("2026-03-03", True)
    assert begun.skipped["clicks"] == "the day is not over"
    assert {"documents", "fingerprint", "generation", "quality_canary"} == set(begun.conditions)
    assert [report.day for report in look(generations, watching=True)] == [begun.day]


@pytest.mark.long
def test_a_webhook_that_fails_is_a_warning_without_its_secret(copy: Path) -> None:
    lose(copy, 12)
    result = call(copy, "--webhook", "http://127.0.0.1:9/services/SECRET")
    assert result.exit_code == 0, result.output
    assert "did not take the report" in result.output
    assert "SECRET" not in result.output


# -- files for others -------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[1] / "docs"


def test_every_metric_in_the_rules_and_the_dashboard_exists(copy: Path) -> None:
    from nearer.live.web.metrics import Metrics

    assert call(copy).exit_code == 0
    exposed = Metrics().text() + (copy.parent / "monitor" / "metrics.prom").read_text()
    known = set(re.findall(r"^# TYPE (nearer_\w+)", exposed, re.MULTILINE))
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "count", "sum")}
    rules, board = (DOCS / "monitoring" / name for name in ("alerts.yml", "grafana.json"))
    used = {
        name for path in (rules, board) for name in re.findall(r"\bnearer_\w+", path.read_text())
    }
    assert used - known == set()
    assert len(used) >= 8
    told = re.findall(
        r'condition="(\w+)"|name="(\w+)"', rules.read_text() + board.read_text().replace('\\"', '"')
    )
    assert {one for pair in told for one in pair if one} <= set(CONDITIONS) | {
        "latency_p50",
        "scores_psi",
        "new_queries",
        "requests",
    }
    assert json.loads(board.read_text())["panels"]
    assert all(
        rule["expr"] and rule["annotations"]["summary"]
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
    )


def test_every_condition_is_documented() -> None:
    page = (DOCS / "monitoring.md").read_text()
    assert [name for name in CONDITIONS if f"`{name}`" not in page] == []
