"""Sections about the data: its files, its columns, its split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from nearer.settings.base import Fraction, Positive, Section
from nearer.types import field_name


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
    training: str | tuple[str, ...] | None = Field(
        None,
        description="plain training files of pairs, triplets or scored pairs: one, or a list; each kind trains with its own loss",
    )
    generated: Literal["none", "train", "train,dev,test"] = Field(
        "none",
        description="queries of `nearer generate`: train uses them for training; train,dev,test also where people asked nothing",
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
    scored: dict[Literal["dev", "test"], str] = Field(
        {},
        description="where scored pairs are all the data: files of held-out ones, {dev: …, test: …} (empty: shares of data.training)",
    )
