"""Sections about the index and live traffic: index, serve, shadow and monitor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nearer.settings.base import Count, Fraction, Positive, Section, named

StoreName = Annotated[str, named("store")]


class Index(Section):
    """Where vectors live in production, and how they are kept."""

    store: StoreName = Field(
        "lancedb",
        description="lancedb, postgres, qdrant, numpy (lancedb and numpy need no server), or my_module:MyStore",
    )
    location: str | None = Field(
        None,
        description="a folder, s3://… (lancedb), a DSN or env:NAME (postgres), a URL or folder (qdrant); null: beside runs",
    )
    namespace: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]{0,39}$",
        description="a schema (postgres), folder or prefix at the location for this project's tables; null: one of its own",
    )
    dtype: Literal["float32", "float16", "int8", "binary"] = Field(
        "float32", description="how vectors are stored"
    )
    dimension: Positive | None = Field(
        None, description="keep the first components only (null: all)"
    )
    chunker: str = Field("document", description="document (whole), or as in diagnose.chunkers")
    part: Positive = Field(
        1024, description="documents embedded and saved together: what a kill can cost"
    )
    keep: Count = Field(
        0,
        description="retired generations that gc leaves, beside the active one and the one to roll back to",
    )
    canaries: str | None = Field(
        None, description="file of canary queries, as queries.jsonl (null: the dev queries)"
    )
    require_shadow: bool = Field(
        False, description="no cut-over without a passing `nearer shadow report`"
    )


class Serve(Section):
    """The search service.  Tokens come from the environment: NEARER_ADMIN_TOKEN, NEARER_SEARCH_TOKEN."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8077, description="0: any free one")
    max_k: Positive = Field(100, description="results a query, at most")
    max_batch: Positive = Field(64, description="queries a request, at most")
    max_query: Positive = Field(4000, description="characters a query, at most")
    max_body: Positive = Field(262_144, description="bytes a request, at most")
    queue: Positive = Field(256, description="queries that may wait; beyond, 503 with Retry-After")
    batch: Positive = Field(32, description="waiting queries that are answered together")
    timeout: Annotated[float, Field(gt=0)] = Field(
        10.0, description="seconds until a request gets 504"
    )
    body_timeout: Annotated[float, Field(gt=0)] = Field(
        5.0, description="seconds within which a request must have arrived; beyond, 408"
    )
    cache: Count = Field(10_000, description="query vectors kept in memory")
    redact: Literal["none", "identifiers", "all"] = Field(
        "none",
        description="in the traffic log: identifiers hides e-mail addresses and long numbers, all the whole query",
    )
    refresh: Annotated[float, Field(gt=0)] = Field(
        1.0, description="seconds between looks at ACTIVE and ROLLOUT"
    )


class Shadow(Section):
    """Trying a generation on live traffic: what its record must show, and what stops it."""

    k: Positive = Field(10, description="results that are compared")
    queue: Positive = Field(
        256, description="shadow queries that may wait; beyond, they are left out"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(
        5.0, description="a shadow query older than these seconds is left out"
    )
    min_queries: Positive = Field(200, description="compared queries before a report can pass")
    latency_ratio: Annotated[float, Field(ge=1.0)] = Field(
        1.5, description="largest p95 accepted, as a ratio to the live one"
    )
    coverage_ratio: Fraction = Field(
        0.95,
        description="recommend: smallest catalogue coverage accepted of answers to /similar, as a share of the live one's",
    )
    review: Positive = Field(
        50, description="biggest disagreements a day that go to review/queue.jsonl"
    )
    harm: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="error rate of the tests that stop a canary or an interleaving"
    )


class Monitor(Section):
    """What is watched, and how far it may move before somebody is told."""

    reference: Literal["data", "traffic"] = Field(
        "data",
        description="queries that today's are compared with: train and dev, or those of the first days of traffic",
    )
    reference_days: Positive = Field(
        7, description="days of traffic that later days are compared with"
    )
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02,
        description="share of daily runs that may give an alert on unchanged traffic, all conditions together",
    )
    judgments: str | None = Field(
        None,
        description="qrels of canary queries and logged requests, by request_id (null: review/qrels.tsv)",
    )
    quality: Fraction = Field(0.01, description="drop of the primary measure that counts")
    scores: Annotated[float, Field(gt=0)] = Field(
        0.1, description="population stability index of the first scores that counts"
    )
    rate: Fraction = Field(
        0.03,
        description="change that counts in a share of the queries: clicks, abandoned, new words, new topics, …",
    )
    errors: Fraction = Field(0.01, description="rise of the share of failed requests that counts")
    apart: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.53, description="AUC from which a classifier tells today's queries from the reference"
    )
    latency_ratio: Annotated[float, Field(ge=1.0)] = Field(
        1.5, description="p95 latency, as a ratio to the reference, that counts"
    )
    coverage_ratio: Fraction = Field(
        0.8,
        description="recommend: share of the reference's catalogue coverage, in as many answers to /similar, below which a day counts",
    )
    stale: Fraction = Field(
        0.01,
        description="share of documents missing or outdated in the active generation that counts",
    )
    webhook: str | None = Field(
        None, description="http(s) address that gets the report as JSON when an alert fires"
    )
