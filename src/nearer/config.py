"""nearer.yaml: one pydantic model a section; unknown keys are refused with the nearest known one.

The defaults below *are* the documentation of the settings: `nearer init` writes them out with
their descriptions as comments (`template()`), and a test holds the two together.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from nearer import plugins
from nearer.errors import ConfigError
from nearer.types import field_name

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
System = Annotated[str, AfterValidator(partial(plugins.require, "retriever"))]

_MEASURE = re.compile(r"^(AP|RR|(nDCG|R|P|RR|AP|Success|Judged)@[1-9]\d{0,4})$")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(Section):
    """Names of your columns, where they differ from the BEIR ones."""

    id: str = Field("_id", description="document or query id")
    title: str = Field("title", description="title of a document (may be absent)")
    text: str = Field("text", description="text of a document or query")
    query_id: str = Field("query-id", description="judgments: query id")
    doc_id: str = Field("corpus-id", description="judgments: document id")
    score: str = Field("score", description="judgments: grade; 0 is not relevant")
    split: str | None = Field(
        None, description="judgments or queries: column that says train, dev or test"
    )
    timestamp: str | None = Field(
        None, description="queries or clicks: when it was asked, for splits by time"
    )

    @field_validator("*")
    @classmethod
    def _as_compared(cls, name: str | None) -> str | None:
        """Names are compared in one Unicode form, here and in the files."""
        return None if name is None else field_name(name)


class SplitSettings(Section):
    """Used only where the data brings no split of its own."""

    by: Literal["group", "time"] = Field(
        "group", description="group: near-duplicates and shared documents stay together"
    )
    dev: Fraction = Field(0.1, description="share of the queries")
    test: Fraction = Field(0.3, description="share of the queries")


class Data(Section):
    """Where the data lies (paths are relative to this file; nothing is copied)."""

    folder: str | None = Field(
        None, description="BEIR folder: corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv"
    )
    corpus: str | None = Field(
        None,
        description="or single files: .jsonl .csv .tsv .parquet, also .gz, or a `datasets` folder",
    )
    queries: str | None = None
    judgments: str | dict[Literal["train", "dev", "test"], str] | None = Field(
        None, description="one file, or one a split: {train: …, dev: …, test: …}"
    )
    clicks: str | None = Field(
        None, description="click log (JSONL), used when there are no judgments"
    )
    training: str | None = Field(
        None, description="plain training file of pairs, triplets or scored pairs"
    )
    columns: Columns = Columns()
    split: SplitSettings = SplitSettings()
    min_grade: Positive = Field(
        1,
        description="grades from here on are positives in training and in slices; lower ones above 0 are no negatives either",
    )
    item_to_item: bool | None = Field(
        None,
        description="queries are documents, left out of their own results (null: noticed from ids, texts and judgments)",
    )


class Model(Section):
    """The embedding model of today's system, and how to run it."""

    name: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="folder or name, as SentenceTransformer takes it",
    )
    max_seq_length: Positive | None = Field(
        None, description="tokens a text (null: what the model says)"
    )
    query_prompt: str | None = Field(None, description="prefix of queries (null: the model's own)")
    document_prompt: str | None = Field(
        None, description="prefix of documents (null: the model's own)"
    )
    device: str | None = Field(None, description="cpu, cuda, mps (null: the best there is)")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where it is faster and faithful"
    )
    batch_tokens: Annotated[int, Field(ge=256)] = Field(
        8192, description="tokens (padding included) a batch"
    )

    def of_another(self, name: str) -> Model:
        """Settings for a model that is not this one: device and precision as here, its own prompts and length."""
        return self.model_copy(update={"name": name, **_OWN})

    def as_saved(self) -> Model:
        """Settings for a model that `train` saved: prompts and length travel in its folder."""
        return self.model_copy(update=_OWN)


#: What belongs to one model and means nothing to another.
_OWN: dict[str, None] = {"query_prompt": None, "document_prompt": None, "max_seq_length": None}


class Search(Section):
    """Today's system: what users get now, and what a change is compared with."""

    system: System = "dense"
    run: str | dict[Literal["dev", "test"], str] | None = Field(
        None, description="system: run; a TREC run file, or one a split"
    )
    function: str | None = Field(
        None,
        description="system: function; my_module:search(queries, k) -> [[(doc_id, score), …], …]",
    )
    url: str | None = Field(
        None, description="system: http; POST {query, k, filter} -> {results: [{id, score}, …]}"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(10.0, description="seconds a request")
    stemmer: str | None = Field(
        None, description="BM25: a Snowball language such as english (null: none)"
    )
    stopwords: str | None = Field(
        "english", description="BM25: language of the stop words (null: none)"
    )
    rrf_k: Positive = Field(60, description="constant of reciprocal rank fusion")
    filters: Literal["ignore", "apply"] = Field(
        "ignore", description="apply: today's system honours the queries' declared `filter`"
    )
    chunker: str = Field(
        "document",
        description="today's chunks: document, tokens:SIZE:OVERLAP, sentences:SIZE, recursive:SIZE, each also with +title",
    )


class Rerank(Section):
    """A cross-encoder that reads the first results again."""

    model: str | None = Field(
        None,
        description="null: none; train: one trained here; or a folder, a name, my_module:MyClass",
    )
    depth: Positive = Field(50, description="results that it gets to read")
    max_length: Annotated[int, Field(ge=8)] = Field(
        192, description="tokens of query and document together"
    )
    pairs: Positive = Field(4000, description="train: labelled pairs, at most")
    negatives: Positive = Field(
        3, description="train: negatives a positive, out of the first results of dense and BM25"
    )
    epochs: Annotated[float, Field(gt=0)] = Field(1, description="train: passes over the pairs")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="train: at its highest")


class Check(Section):
    """Data checks and the split."""

    near_duplicate: Annotated[float, Field(ge=0.3, le=1.0)] = Field(
        0.9, description="Jaccard similarity of word 3-grams from which texts are near-duplicates"
    )
    examples: Positive = Field(5, description="examples a finding")


class Evaluate(Section):
    """Measures and slices."""

    measures: tuple[str, ...] = Field(
        ("nDCG@10", "R@10", "R@100", "RR@10", "P@5", "AP", "Success@1", "Judged@10"),
        description="names as in ir-measures",
    )
    primary: str = Field("nDCG@10", description="the measure that decides, and picks checkpoints")
    depth: Annotated[int, Field(ge=10)] = Field(100, description="results a query")
    baselines: tuple[Literal["dense", "bm25", "rrf", "convex"], ...] = Field(
        ("bm25", "dense", "rrf", "convex"), description="measured beside today's system"
    )
    resamples: Annotated[int, Field(ge=1000)] = Field(
        10_000, description="bootstrap and randomisation draws"
    )
    min_slice: Positive = Field(10, description="smallest slice that is reported")

    @field_validator("measures")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _MEASURE.match(name):
                raise ValueError(
                    f"unknown measure {name!r}; known: nDCG@k, R@k, P@k, RR, RR@k, AP, AP@k, Success@k, Judged@k"
                )
        return names

    @field_validator("primary")
    @classmethod
    def _known_primary(cls, name: str) -> str:
        cls._known((name,))
        return name


class Diagnose(Section):
    """Why queries fail, found by trying the repair."""

    k: Positive = Field(
        10, description="a query fails when none of its relevant documents is among the first k"
    )
    depth: Annotated[int, Field(ge=1000)] = Field(
        1000, description="how deep ranked lists are searched"
    )
    splits: tuple[Literal["dev", "train"], ...] = Field(
        ("dev", "train"), description="queries that are looked at"
    )
    limit: Positive = Field(
        1000, description="failing queries diagnosed at most (a seeded sample of them)"
    )
    chunkers: tuple[str, ...] = Field(
        ("document", "tokens:128:32", "sentences:48", "recursive:128", "recursive:128+title"),
        description="other chunkings that are tried",
    )
    pieces: tuple[str, ...] = Field(
        ("paragraphs:256", "tokens:64:16", "tokens:32:8"),
        description="finer pieces, tried on what nothing else finds, against its nearest competitors",
    )
    examples: Positive = Field(10, description="examples a cause in the report")


class Fix(Section):
    """Simpler fixes, each measured on dev, then combined."""

    fixes: tuple[
        Literal["metadata", "rewriting", "hybrid", "reranking", "chunking", "base_model"], ...
    ] = Field(
        ("metadata", "rewriting", "hybrid", "reranking", "chunking", "base_model"),
        description="tried in this order, cheapest first",
    )
    chunkers: tuple[str, ...] = Field(
        ("tokens:128:32", "sentences:48", "recursive:128", "recursive:128+title"),
        description="chunkings that are tried",
    )
    models: tuple[str, ...] = Field((), description="other embedding models: folders or names")
    compressions: tuple[str, ...] = Field(
        ("int8", "binary"),
        description="smaller vectors that are measured: float16, int8, binary, each also cut, as int8@128",
    )
    title_weights: tuple[float, ...] = Field(
        (0.5, 1.0, 2.0), description="BM25 by field: weights of the title"
    )
    rewriters: tuple[str, ...] = Field(
        ("acronyms",),
        description="acronyms (mined from the corpus), a dictionary file, or module:function",
    )


class Mine(Section):
    """Training examples and hard negatives."""

    negatives: Count = Field(1, description="hard negatives an example; 0: in-batch negatives only")
    candidates: Positive = Field(
        30, description="how deep dense and BM25 are searched for negatives"
    )
    margin: Fraction = Field(
        0.95, description="a negative scores below this share of the positive (NV-Retriever)"
    )
    pool: Positive = Field(
        10, description="negatives are drawn from this many of the hardest that remain"
    )
    sources: tuple[Literal["dense", "bm25"], ...] = ("dense", "bm25")
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None,
        description="scored pairs of data.training are positives from this score on (must be set where there are scores)",
    )


class Train(Section):
    """Fine-tuning."""

    epochs: Annotated[float, Field(gt=0)] = Field(
        3, description="passes over the examples, at most"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        32, description="distinct positive documents a batch"
    )
    queries_per_document: Positive = Field(
        8, description="queries of one document that may share a batch"
    )
    max_seq_length: Positive | None = Field(
        None, description="tokens a text while training (null: the model's own)"
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="null: by the kind of model (transformer 5e-5, static model 2e-2)"
    )
    warmup: Fraction = Field(0.1, description="share of the steps")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    scale: Annotated[float, Field(gt=0)] = Field(
        20.0, description="inverse temperature of the loss"
    )
    attention_dropout: Fraction | None = Field(
        0.0, description="0 lets the CPU use its fused attention (null: the model's own)"
    )
    freeze_word_embeddings: bool = Field(
        True, description="leave the token table as it is (less to forget, less to update)"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where it is faster and faithful"
    )
    evaluations: Positive = Field(1, description="dev evaluations an epoch")
    dev_documents: Positive = Field(
        2000, description="documents in the dev evaluation: judged, hard and random ones"
    )
    merge_tolerance: Fraction = Field(
        0.01, description="go back towards the base model while dev loses at most this; 0: do not"
    )
    patience: Positive = Field(2, description="evaluations without gain before stopping")
    seed: Count = 7


class Guardrails(Section):
    """What must not get worse."""

    slice_margin: Fraction = Field(
        0.05, description="largest loss of the primary measure accepted in a slice"
    )
    general_margin: Fraction = Field(
        0.03,
        description="largest loss accepted on the general-ability set (its 280 queries can settle .03, not less)",
    )
    general: str | None = Field("builtin", description="`builtin`, a BEIR folder, or null for none")
    latency_ratio: Annotated[float, Field(ge=1.0)] = Field(
        1.25, description="largest latency accepted, as a ratio to today's (p50 and p95)"
    )


class Decide(Section):
    """Ship or not."""

    min_gain: Fraction = Field(
        0.01,
        description="smallest gain of the primary measure worth a re-index, declared beforehand",
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="error rate: intervals are 1 - alpha wide"
    )
    guardrails: Guardrails = Guardrails()
    bridge: str | None = Field(
        None,
        description="a generation of `nearer index bridge`, judged in place of the fine-tuned model",
    )
    cost_per_hour: Annotated[float, Field(ge=0)] | None = Field(
        None, description="price of the embedding machine, for the cost estimate"
    )


class Index(Section):
    """Where vectors live in production, and how they are kept."""

    store: Literal["lancedb", "postgres", "qdrant", "numpy"] = Field(
        "lancedb", description="lancedb and numpy need no server"
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
    stale: Fraction = Field(
        0.01,
        description="share of documents missing or outdated in the active generation that counts",
    )
    webhook: str | None = Field(
        None, description="http(s) address that gets the report as JSON when an alert fires"
    )


class Config(Section):
    """All of nearer.yaml."""

    run: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="results go to runs/<run>/",
    )
    seed: Count = Field(7, description="splits, sampling, resampling; training has its own")
    data: Data = Data()
    model: Model = Model()
    search: Search = Search()
    rerank: Rerank = Rerank()
    check: Check = Check()
    evaluate: Evaluate = Evaluate()
    diagnose: Diagnose = Diagnose()
    fix: Fix = Fix()
    mine: Mine = Mine()
    train: Train = Train()
    decide: Decide = Decide()
    index: Index = Index()
    serve: Serve = Serve()
    shadow: Shadow = Shadow()
    monitor: Monitor = Monitor()

    def section(self, name: str) -> dict[str, Any]:
        """One section (or top-level value) as plain JSON values, for fingerprints."""
        value = getattr(self, name)
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else {"value": value}


def load(path: Path, overrides: Iterable[str] = (), run: str | None = None) -> Config:
    """Read nearer.yaml and apply `section.key=value` overrides.

    Raises ConfigError for a missing file, bad YAML, unknown keys and bad values.
    """
    if not path.is_file():
        raise ConfigError(
            "no configuration here",
            where=str(path),
            next_step="nearer init DIR --data FOLDER, or -c PATH",
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "the file is not UTF-8 text"
        raise ConfigError(
            f"not valid YAML: {problem}", where=where, next_step="mend that line"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            "the top level must be sections such as `data:`",
            where=str(path),
            next_step="see nearer init --help",
        )
    for override in overrides:
        _apply(values, override)
    if run is not None:
        values["run"] = run
    return build(values, where=str(path))


def build(values: Mapping[str, Any], where: str = "configuration") -> Config:
    """Config from plain values; pydantic's errors become one ConfigError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(_readable(e) for e in error.errors()), where=where, next_step="mend that key"
        ) from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {override!r} is not section.key=value",
            next_step="for example: --set train.epochs=1",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *parents, leaf = key.strip().split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(
                f"{parent!r} is not a section", where=f"--set {key}", next_step="see nearer.yaml"
            )
        node = child
    node[leaf] = value


def _readable(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        model: Any = Config
        for part in location[:-1]:
            model = getattr(model, "model_fields", {}).get(part)
            model = getattr(model, "annotation", None)
        known = list(getattr(model, "model_fields", {}))
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = (
            f"; did you mean {'.'.join([*location[:-1], near[0]])}?"
            if near
            else f"; known here: {', '.join(known)}"
        )
        return f"unknown key {key}{hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]} (got {json.dumps(error.get('input'), default=str)[:60]})"


def template(config: Config, notes: Mapping[str, str] | None = None) -> str:
    """nearer.yaml with every setting, its value in `config` and its description as a comment.

    `notes` adds what `init` saw, by section name.
    """
    lines = ["# nearer.yaml: every setting with its value. Delete what you do not change.", ""]
    _write(config, lines, 0, notes or {})
    return "\n".join(lines).rstrip() + "\n"


def _write(section: BaseModel, lines: list[str], depth: int, notes: Mapping[str, str]) -> None:
    pad = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            if depth == 0:
                lines.append("")
            doc = (type(value).__doc__ or "").strip().splitlines()[0]
            lines.append(f"{pad}{name}:  # {doc}")
            lines.extend(f"{pad}  # {note}" for note in notes.get(name, "").splitlines())
            _write(value, lines, depth + 1, notes)
            continue
        text = json.dumps(value, ensure_ascii=False)
        comment = f"  # {field.description}" if field.description else ""
        lines.append(f"{pad}{name}: {text}{comment}")
