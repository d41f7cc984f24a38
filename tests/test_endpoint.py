"""Encoders behind an endpoint: what goes out, what comes back, what is paid, what a kill costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddings_kit import StandIn, serving, vector
from nearer import config, progress
from nearer.embed import endpoint, posting, spending
from nearer.embed.base import DESCRIPTION, EncoderSpec
from nearer.embed.fingerprint import PROBES
from nearer.embed.loading import load_model
from nearer.embed.opening import open_encoder
from nearer.embed.outside import OutsideEncoder
from nearer.errors import ConfigError, FingerprintError, ModelError, NearerError

ROOT = Path(__file__).parents[1]
TEXTS = [f"text {i} about pump number {i % 5}" for i in range(40)]
SECRET = "sk-very-secret"  # noqa: S105 - of the stand-in


class Heard(progress.Silent):
    """What was announced."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, level: str) -> None:
        self.lines.append(text)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with serving(StandIn()) as running:
        yield running


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the encoder would have waited between tries."""
    waited: list[float] = []
    monkeypatch.setattr(posting.time, "sleep", waited.append)
    return waited


@pytest.fixture(autouse=True)
def unspent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "_sent", {})
    monkeypatch.delenv(endpoint.TOKEN, raising=False)


def opened(stand_in: StandIn, cache: Path | None = None, **changed: Any) -> OutsideEncoder:
    settings = config.Model(**{"name": "openai:words", "url": stand_in.url, **changed})
    encoder = open_encoder(settings, Path(), cache=cache)
    assert isinstance(encoder, OutsideEncoder)
    return encoder


# -- what goes out -----------------------------------------------------------------------------------


def test_requests_keep_to_both_limits_and_ask_for_each_text_once(stand_in: StandIn) -> None:
    encoder = opened(stand_in, batch_texts=8, batch_characters=100)
    stand_in.requests.clear()
    long = "long " * 60
    vectors = encoder.encode([*TEXTS, long, *TEXTS], "document")
    assert max(map(len, stand_in.requests)) <= 8
    assert all(sum(map(len, texts)) <= 100 for texts in stand_in.requests if len(texts) > 1)
    assert stand_in.texts == dict.fromkeys([*TEXTS, long], 1)
    assert np.array_equal(vectors[:40], vectors[41:])
    wanted = np.array([vector(text, 24) for text in TEXTS])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.allclose(vectors[:40], wanted, atol=1e-5)


def test_equal_texts_are_paid_for_once_whether_they_ask_or_answer(stand_in: StandIn) -> None:
    encoder = opened(stand_in)
    assert encoder.encode(TEXTS, "document") == pytest.approx(encoder.encode(TEXTS, "query"))
    assert stand_in.texts == dict.fromkeys([*PROBES, *TEXTS], 1)
    prompted = opened(stand_in, query_prompt="query: ")
    prompted.encode(TEXTS, "query")
    assert stand_in.texts[f"query: {TEXTS[0]}"] == 1


def test_the_dimension_is_asked_for_and_texts_are_cut(stand_in: StandIn) -> None:
    encoder = opened(stand_in, dimension=6, max_characters=10)
    assert encoder.encode(["abcdefghijklmnop"], "document").shape == (1, 6)
    assert stand_in.bodies[-1] == {"model": "words", "dimensions": 6, "input": ["abcdefghij"]}
    assert not encoder.fingerprint.same_space(opened(stand_in, dimension=6).fingerprint)


def test_blank_texts_and_half_characters_can_be_sent(stand_in: StandIn) -> None:
    opened(stand_in).encode(["", "a\ud800b"], "document")
    assert stand_in.requests[-1] == [" ", "a?b"]


def test_a_project_that_is_asked_again_pays_for_the_probes_alone(
    stand_in: StandIn, tmp_path: Path
) -> None:
    first = opened(stand_in, tmp_path).encode(TEXTS, "document")
    stand_in.requests.clear()
    again = opened(stand_in, tmp_path)
    assert np.array_equal(again.encode(TEXTS, "document"), first)
    assert stand_in.requests == [list(PROBES)]


# -- what comes back ---------------------------------------------------------------------------------


def test_the_index_says_which_vector_is_whose(stand_in: StandIn) -> None:
    encoder = opened(stand_in)
    stand_in.script.append(
        lambda body: (200, {}, {"data": stand_in.usual(body)["data"][::-1]}),
    )
    turned = encoder.encode(TEXTS, "document")
    assert np.array_equal(turned, opened(stand_in).encode(TEXTS, "document"))


def _rows(*rows: Any) -> Any:
    return {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>welcome</html>", "holds no embeddings"),
        (b"\xff\xfe", "holds no embeddings"),
        ([1, 2], "holds no embeddings"),
        ({"error": {"message": "busy"}}, "holds no embeddings"),
        ({"data": [{"embedding": [1.0] * 24}] * 2}, "holds no embeddings"),
        (_rows([1.0] * 24), "1 vectors for 2 texts"),
        (_rows(*[[1.0] * 24] * 3), "3 vectors for 2 texts"),
        ({"data": [{"index": 0, "embedding": [1.0] * 24}] * 2}, "not one for each"),
        (_rows([1.0] * 24, None), "no list of numbers"),
        (_rows([1.0] * 24, ["1"] * 24), "no list of numbers"),
        (_rows([1.0] * 24, [1.0] * 23), "different dimensions"),
        (_rows([1.0] * 12, [1.0] * 12), "vectors of 12 numbers, not 24"),
        (_rows([1.0] * 24, [float("nan")] * 24), "not finite"),
        (_rows([1.0] * 24, [10**400] * 24), "no vector holds"),
        (_rows([1.0] * 24, [0.0] * 24), "zeros"),
    ],
)
def test_rubbish_is_refused_and_never_kept(
    stand_in: StandIn, tmp_path: Path, content: Any, says: str
) -> None:
    encoder = opened(stand_in, tmp_path)
    stand_in.script.append((200, {}, content))
    with pytest.raises(ModelError, match=says):
        encoder.encode(TEXTS[:2], "document")
    assert np.isfinite(encoder.encode(TEXTS[:2], "document")).all()
    assert stand_in.texts[TEXTS[0]] == 1


def test_a_throttled_request_waits_as_it_is_told(stand_in: StandIn, waits: list[float]) -> None:
    encoder = opened(stand_in)
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    stand_in.script += [
        (429, {"Retry-After": "3"}, {}),
        (429, {"Retry-After": soon}, {}),
        (503, {}, {}),
        (500, {"Retry-After": "rubbish"}, {}),
    ]
    encoder.encode(TEXTS, "document")
    assert waits[0] == 3
    assert 15 < waits[1] <= 20
    assert waits[2:] == [posting.FIRST_WAIT * 4, posting.FIRST_WAIT * 8]
    assert stand_in.texts == dict.fromkeys([*PROBES, *TEXTS], 1)


def test_tries_are_bounded_and_what_was_paid_for_stays(
    stand_in: StandIn, tmp_path: Path, waits: list[float]
) -> None:
    encoder = opened(stand_in, tmp_path, batch_texts=10)
    stand_in.before = lambda number: stand_in.script.append((502, {}, {})) if number > 3 else None
    with pytest.raises(ModelError, match=rf"answered 502 \({posting.TRIES} tries\)") as caught:
        encoder.encode(TEXTS, "document")
    assert stand_in.url in str(caught.value)
    assert len(waits) == posting.TRIES - 1
    assert waits == sorted(waits)
    stand_in.before = None
    stand_in.script.clear()
    opened(stand_in, tmp_path).encode(TEXTS, "document")
    assert set(stand_in.texts.values()) == {1, 2}  # the probes twice
    assert {text for text, count in stand_in.texts.items() if count == 2} == set(PROBES)


def test_an_endpoint_that_asks_for_an_hour_is_not_waited_for(
    stand_in: StandIn, waits: list[float]
) -> None:
    stand_in.script.append((429, {"Retry-After": "3600"}, {}))
    with pytest.raises(ModelError, match="asks to wait for 3600 s"):
        opened(stand_in)
    assert waits == []


def test_a_slow_answer_is_asked_for_again(stand_in: StandIn, waits: list[float]) -> None:
    released = threading.Event()

    def slow(body: dict[str, Any]) -> Any:
        released.wait(60)
        return 500, {}, {}

    encoder = opened(stand_in, timeout=2.0)
    stand_in.script.append(slow)
    heard = Heard()
    with progress.listen(heard):
        encoder.encode(TEXTS, "document")
    released.set()
    assert waits[0] == posting.FIRST_WAIT
    assert "did not answer within 2 s" in heard.lines[1]


def test_an_endpoint_that_is_down_is_named(waits: list[float]) -> None:
    with pytest.raises(ModelError, match="is not reached") as caught:
        opened(StandIn(url="http://127.0.0.1:9/v1"))
    assert f"{posting.TRIES} tries" in str(caught.value)


@pytest.mark.parametrize(("status", "next_step"), [(400, "max_characters"), (404, "model.url")])
def test_what_no_second_try_mends_is_said_at_once(
    stand_in: StandIn, waits: list[float], status: int, next_step: str
) -> None:
    stand_in.script.append((status, {}, {"error": {"message": "too many tokens"}}))
    with pytest.raises(ModelError, match="too many tokens") as caught:
        opened(stand_in)
    assert next_step in str(caught.value)
    assert (waits, stand_in.asked) == ([], 1)


# -- the token ---------------------------------------------------------------------------------------


def test_the_token_goes_into_the_header_and_nowhere_else(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(endpoint.TOKEN, SECRET)
    stand_in.token = SECRET
    heard = Heard()
    with progress.listen(heard):
        encoder = opened(stand_in, tmp_path)
        encoder.encode(TEXTS, "document")
        encoder.save(tmp_path / "model")
        stand_in.token = "another"  # noqa: S105 - of the stand-in
        with pytest.raises(ModelError, match=endpoint.TOKEN) as caught:
            encoder.encode(["new"], "document")
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(SECRET.encode() in content for content in written)
    assert SECRET not in f"{heard.lines} {caught.value} {caught.value.as_dict()} {vars(encoder)}"
    assert "wrong key" in str(caught.value)


def test_a_token_that_no_header_takes_is_not_shown(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(endpoint.TOKEN, f"{SECRET} \n x")
    with pytest.raises(ConfigError, match=endpoint.TOKEN) as caught:
        opened(stand_in)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", [None, "ftp://host", "host:8000", "http://", "https://me:pw@host/v1", "http://[::"]
)
def test_an_address_that_cannot_be_used_is_refused(url: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        open_encoder(config.Model(name="openai:words", url=url), Path())
    assert caught.value.where == "model.url"
    assert "pw" not in str(caught.value)


# -- costs -------------------------------------------------------------------------------------------


def test_what_will_be_sent_is_announced_before(stand_in: StandIn, tmp_path: Path) -> None:
    opened(stand_in, tmp_path).encode(TEXTS[:10], "document")
    encoder = opened(stand_in, tmp_path, price_per_million_tokens=20.0)
    heard = Heard()
    asked: list[int] = []

    class Counting(Heard):
        def message(self, text: str, level: str) -> None:
            asked.append(stand_in.asked)
            heard.message(text, level)

    before = stand_in.asked
    with progress.listen(Counting()):
        encoder.encode(TEXTS, "document")
    characters = sum(map(len, TEXTS[10:]))
    assert len(heard.lines) == 1
    assert f"30 texts, {characters:,} characters" in heard.lines[0]
    assert "of 40; 10 are kept" in heard.lines[0]
    assert f"about {20 * round(characters / 3) / 1e6:.4g}" in heard.lines[0]
    assert asked == [before]


def test_a_cap_refuses_before_anything_is_sent(stand_in: StandIn, tmp_path: Path) -> None:
    capped = {"price_per_million_tokens": 1000.0, "max_cost": 0.3}
    encoder = opened(stand_in, tmp_path, **capped)
    stand_in.requests.clear()
    with pytest.raises(NearerError, match=r"model\.max_cost"):
        encoder.encode(TEXTS, "document")
    assert stand_in.requests == []
    encoder.encode(TEXTS[:12], "document")
    sent = stand_in.texts
    with pytest.raises(ModelError, match="is spent"):  # a second encoder of the same command
        opened(stand_in, tmp_path, **capped).encode(TEXTS, "document")
    assert sum(stand_in.texts.values()) == sum(sent.values()) + len(PROBES)


def test_a_cap_of_nothing_sends_nothing_and_needs_a_price(stand_in: StandIn) -> None:
    with pytest.raises(ModelError, match="max_cost"):
        opened(stand_in, price_per_million_tokens=1.0, max_cost=0.0)
    with pytest.raises(ConfigError, match="needs a price"):
        opened(stand_in, max_cost=1.0)
    assert stand_in.asked == 0


def test_requests_are_written_down_and_make_later_estimates_better(
    stand_in: StandIn, tmp_path: Path
) -> None:
    encoder = opened(stand_in, tmp_path)
    texts = [f"{text} {'word ' * 60}" for text in TEXTS]
    encoder.encode(texts, "document")
    records = tmp_path / "embeddings" / encoder.fingerprint.id / "requests.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert sum(line["tokens"] for line in lines) == stand_in.tokens
    assert [line["purpose"] for line in lines] == ["probe", "document"]
    with open(records, "a") as handle:
        handle.write('{"tokens": 3, "by')  # a kill
    again = opened(stand_in, tmp_path)
    estimated = int(again.token_counts(texts).sum())
    assert abs(estimated - lines[-1]["tokens"]) < 0.1 * lines[-1]["tokens"]
    assert len(records.read_text().splitlines()) == 4  # two, half of one, and new probes


# -- identity ----------------------------------------------------------------------------------------


def test_a_model_that_was_exchanged_behind_its_name_is_refused(
    stand_in: StandIn, tmp_path: Path
) -> None:
    opened(stand_in, tmp_path).encode(TEXTS, "document")
    stand_in.seed = 1
    with pytest.raises(FingerprintError, match="gives other vectors"):
        opened(stand_in, tmp_path)


def test_host_model_and_dimension_tell_spaces_apart(stand_in: StandIn) -> None:
    own = opened(stand_in).fingerprint
    assert own.same_space(opened(stand_in).fingerprint)
    others = (
        {"name": "openai:letters"},
        {"url": stand_in.url.replace("127.0.0.1", "localhost")},
        {"dimension": 12},
    )
    for changed in others:
        differences = own.differences(opened(stand_in, **changed).fingerprint)
        assert differences, changed
    assert "words" in own.differences(opened(stand_in, name="openai:letters").fingerprint)[0]


def test_the_description_of_a_foreign_folder_is_not_followed(
    stand_in: StandIn, tmp_path: Path
) -> None:
    opened(stand_in).save(tmp_path / "project" / "model")
    assert json.loads((tmp_path / "project" / "model" / DESCRIPTION).read_text())["name"]
    inside = open_encoder(config.Model(name="model"), tmp_path / "project")
    assert inside.dimension == 24
    elsewhere = config.Model(name=str(tmp_path / "project" / "model"))
    with pytest.raises(ModelError, match="where texts would be sent"):
        open_encoder(elsewhere, tmp_path / "other")


def test_weights_that_are_not_here_cannot_be_loaded(stand_in: StandIn) -> None:
    settings = config.Model(name="openai:words", url=stand_in.url)
    assert not EncoderSpec.of(settings, Path()).has_weights
    with pytest.raises(ModelError, match="weights of this model are not here"):
        load_model(settings, Path())


# -- a kill ------------------------------------------------------------------------------------------

_CLIENT = """
import sys
from pathlib import Path
from nearer import config
from nearer.embed.opening import open_encoder

settings = config.Model(name="openai:words", url=sys.argv[1], batch_texts=5)
texts = Path(sys.argv[3]).read_text().splitlines()
encoder = open_encoder(settings, Path(), cache=Path(sys.argv[2]))
print(encoder.encode(texts, "document").sum())
"""


def test_after_a_kill_nothing_is_paid_for_twice(stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    words = [sys.executable, "-c", _CLIENT, stand_in.url, str(tmp_path / "cache")]
    command = [*words, str(tmp_path / "texts")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def run(kill_at: int | None) -> subprocess.CompletedProcess[bytes]:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        first = stand_in.asked

        def before(number: int) -> None:
            if kill_at is not None and number == first + kill_at:
                process.kill()
                process.wait()

        stand_in.before = before
        output, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output)

    assert run(kill_at=5).returncode != 0
    unanswered = stand_in.requests.pop()  # the one in flight
    assert set(unanswered) <= set(TEXTS)
    assert run(kill_at=None).returncode == 0
    assert stand_in.texts == {**dict.fromkeys(TEXTS, 1), **dict.fromkeys(PROBES, 2)}
