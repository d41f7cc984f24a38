"""Builds batches so that no query meets one of its own positives as a negative.

The sampler groups training rows; the collator turns a group into tensors and encodes each text
once.  A batch is built around distinct documents: every query of a document that fits comes along,
so a long document is encoded once for several short queries.  Inside a batch, texts are sorted by
length and split into sub-batches of similar length, so that little is padded.  Documents that must
not be negatives of a query are masked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from nearer.config import Train
from nearer.training.anchor import Anchor
from nearer.training.examples import Guide, TextVectors, TrainingRow, TrainingSet

#: A sub-batch ends where the next text is under this share of its longest, once it has some texts.
_SAME_LENGTH = 0.7
_FEWEST = 8
#: Batches whose documents are sorted by length together; shuffled again afterwards.
_WINDOW = 4

_T = TypeVar("_T")

#: Rows that share one document and come into a batch together.
Group = list[int]


class DocumentBatches:
    """Batch sampler: lists of row positions, with `batch_size` distinct positives per batch.

    Deterministic in (`seed`, epoch); the same number of batches in every epoch.  `only` are the
    rows that are sampled (None: all).
    """

    def __init__(
        self,
        rows: TrainingSet,
        batch_size: int,
        queries_per_document: int,
        seed: int,
        *,
        only: Sequence[int] | None = None,
    ) -> None:
        self._rows = rows
        self._seed = seed
        self._queries_per_document = queries_per_document
        self.batch_size = batch_size
        self.drop_last = False
        self.epoch = 0
        self._by_document: dict[int, Group] = {}
        for row in range(len(rows)) if only is None else only:
            _, positive, _ = rows.rows[row]
            self._by_document.setdefault(positive, []).append(row)
        self._n_groups = 0
        for group in self._by_document.values():
            self._n_groups += math.ceil(len(group) / queries_per_document)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, math.ceil(self._n_groups / self.batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        batches = self._batches(self._shuffled_groups(rng))
        for number in rng.permutation(len(batches)):
            yield [row for group in batches[number] for row in group]

    def _shuffled_groups(self, rng: np.random.Generator) -> list[Group]:
        """The rows of each document in groups of at most `queries_per_document`, in random order."""
        groups: list[Group] = []
        for rows in self._by_document.values():
            shuffled = [rows[position] for position in rng.permutation(len(rows))]
            groups.extend(_slices(shuffled, self._queries_per_document))
        return [groups[position] for position in rng.permutation(len(groups))]

    def _batches(self, groups: list[Group]) -> list[list[Group]]:
        """Groups of documents of similar length together, `batch_size` per batch."""
        batches: list[list[Group]] = []
        for window in _slices(groups, self.batch_size * _WINDOW):
            batches.extend(_slices(sorted(window, key=self._length), self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            # One document alone has no in-batch negative.
            batches[-1].append(batches[-2].pop())
        return batches

    def _length(self, group: Group) -> int:
        _, positive, _ = self._rows.rows[group[0]]
        return len(self._rows.documents[positive])


class PartBatches:
    """Batch sampler over the parts of a training set: batches hold one part each, mixed by share.

    Within a part they are those of `DocumentBatches`.  Each part gets as many of an epoch's batches
    as it fills, in an order that is random and deterministic in (`seed`, epoch).
    """

    def __init__(self, samplers: Sequence[DocumentBatches], seed: int) -> None:
        self._samplers = samplers
        self._seed = seed
        self.batch_size = samplers[0].batch_size
        self.drop_last = False
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        for sampler in self._samplers:
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return sum(map(len, self._samplers))

    def __iter__(self) -> Iterator[list[int]]:
        lengths = list(map(len, self._samplers))
        turns = np.repeat(np.arange(len(lengths)), lengths)
        # A stream of its own: the first part's order is that of (seed, epoch).
        rng = np.random.default_rng([self._seed, self.epoch, len(lengths)])
        batches = list(map(iter, self._samplers))
        for turn in rng.permutation(turns):
            yield next(batches[turn])


def batches_of(rows: TrainingSet, settings: Train) -> DocumentBatches | PartBatches:
    """The batch sampler of a training set: of one part, or of several mixed by their share."""
    size, share = settings.batch_size, settings.queries_per_document
    if len(rows.parts) < 2:
        return DocumentBatches(rows, size, share, settings.seed)
    members: dict[int, list[int]] = {}
    for row in range(len(rows)):
        members.setdefault(rows.part(row), []).append(row)
    samplers = [
        DocumentBatches(rows, size, share, settings.seed, only=members[part])
        for part in sorted(members)
    ]
    return PartBatches(samplers, settings.seed)


def planned_batches(rows: TrainingSet, settings: Train) -> Iterator[list[int]]:
    """The rows of every batch that a training takes from `batches_of`, epoch by epoch."""
    sampler = batches_of(rows, settings)
    for epoch in range(math.ceil(settings.passes)):
        sampler.set_epoch(epoch)
        yield from sampler


def _slices(items: list[_T], size: int) -> Iterator[list[_T]]:
    """Consecutive pieces of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Collator:
    """Turns the rows of a batch into tensors.  `tokenize(texts, kind)` gives a model's features.

    Gives `{name}_{feature}` tensors for each sub-batch, queries first, and under `label` what a
    loss needs: `nearer.training.losses.base.Labels`.
    """

    #: Read by sentence-transformers' Trainer.
    valid_label_columns: tuple[str, ...] = ()

    def __init__(
        self,
        rows: TrainingSet,
        tokenize: Callable[[list[str], Any], dict[str, Any]],
        most_negatives: int | None = None,
    ) -> None:
        """`most_negatives` documents may join a batch of plain pairs as hard negatives (None: all)."""
        self._rows = rows
        self._tokenize = tokenize
        self._most_negatives = most_negatives

    def _limit(self, part: int) -> int | None:
        """Other losses need every document that their rows name."""
        parts = self._rows.parts
        if parts and parts[part].loss != "ranking":
            return None
        return self._most_negatives

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Any]:
        """`items` are the rows of the batch, each as `{"row": position in the training set}`."""
        rows = self._rows
        positions = [item["row"] for item in items]
        part = rows.part(positions[0])
        chosen = [rows.rows[position] for position in positions]
        pairs = _Pairs(chosen, self._limit(part))
        label = pairs.label(rows.blocked)
        label["score"] = torch.tensor([rows.score(position) for position in positions])
        label["weight"] = torch.tensor([rows.weight(position) for position in positions])
        label["grade"] = pairs.values([rows.grade(position) for position in positions])
        known = [rows.teacher_score(position) for position in positions]
        label["teacher_score"] = pairs.values(known)
        label["part"] = torch.tensor(part)
        if rows.guide is not None:
            label["blocked"] |= pairs.guided(rows.guide, label)
        if rows.teacher is not None:
            label |= pairs.taught(rows.teacher)
        queries = [rows.queries[query] for query in pairs.queries]
        documents = [rows.documents[document] for document in pairs.documents]
        encode = self._symmetric_texts if rows.is_symmetric(part) else self._texts
        texts = encode(queries, documents)
        features = texts.pop("features")
        if rows.anchor is not None:
            anchored = self._anchored(rows.anchor, positions)
            features |= anchored.pop("features")
            texts |= anchored
        return {**features, "label": label | texts}

    def _anchored(self, anchor: Anchor, positions: Sequence[int]) -> dict[str, Any]:
        """Sub-batches of general texts, and the base model's vectors in the same order."""
        features: dict[str, Any] = {}
        vectors: list[torch.Tensor] = []
        n_parts = 0
        for texts in anchor.of_batch(positions):
            side = self._encoded(texts.kind, texts.texts, prefix="anchor")
            features |= side.features
            n_parts += side.n_parts
            vectors.append(torch.from_numpy(texts.vectors)[torch.argsort(side.order)])
        return {
            "features": features,
            "anchor_parts": torch.tensor(n_parts),
            "anchor_vectors": torch.cat(vectors),
        }

    def _texts(self, queries: Sequence[str], documents: Sequence[str]) -> dict[str, Any]:
        """Features of the sub-batches, and what the labels say of them."""
        query, document = self._encoded("query", queries), self._encoded("document", documents)
        return {
            "features": query.features | document.features,
            "query_order": query.order,
            "query_parts": torch.tensor(query.n_parts),
            "document_order": document.order,
            "document_parts": torch.tensor(document.n_parts),
            "tokens": torch.tensor(query.tokens + document.tokens),
        }

    def _symmetric_texts(self, queries: Sequence[str], documents: Sequence[str]) -> dict[str, Any]:
        """The same where no text is a query: all are documents, each distinct one encoded once."""
        place: dict[str, int] = {}
        for text in (*documents, *queries):
            place.setdefault(text, len(place))
        side = self._encoded("document", list(place))
        return {
            "features": side.features,
            "query_order": side.order[[place[text] for text in queries]],
            "query_parts": torch.tensor(0),
            "document_order": side.order[[place[text] for text in documents]],
            "document_parts": torch.tensor(side.n_parts),
            "tokens": torch.tensor(side.tokens),
        }

    def _encoded(self, kind: str, texts: Sequence[str], prefix: str = "") -> _Side:
        lengths = [len(text) for text in texts]
        parts = by_length(lengths)
        order = np.argsort(np.concatenate(parts))
        side = _Side(kind, torch.tensor(order), len(parts))
        for number, part in enumerate(parts):
            selected = [texts[position] for position in part]
            features = self._tokenize(selected, kind)
            for name, value in features.items():
                side.features[f"{prefix}{kind}{number}_{name}"] = value
            if "attention_mask" in features:
                side.tokens += int(features["attention_mask"].sum())
        return side


@dataclass(slots=True)
class _Side:
    """The queries or the documents of a batch as features of sub-batches."""

    kind: str
    order: torch.Tensor  # puts the encoded texts back in their order
    n_parts: int
    features: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0


class _Pairs:
    """The rows of a batch, its distinct queries and documents, and how they belong together."""

    def __init__(self, rows: Sequence[TrainingRow], most_negatives: int | None = None) -> None:
        self._rows = rows
        self._query_column: dict[int, int] = {}
        self._column: dict[int, int] = {}
        for query, positive, _ in rows:
            self._query_column.setdefault(query, len(self._query_column))
            self._column.setdefault(positive, len(self._column))
        for document in self._chosen_negatives(most_negatives):
            self._column.setdefault(document, len(self._column))

    def _chosen_negatives(self, most: int | None) -> list[int]:
        """The hard negatives that are encoded with the batch, those of most rows first where few may.

        Those that are positives of the batch are in it anyway.
        """
        rows_with: Counter[int] = Counter()
        for _, _, negatives in self._rows:
            rows_with.update(document for document in negatives if document not in self._column)
        if most is None:
            return list(rows_with)
        return [document for document, _ in rows_with.most_common(most)]

    @property
    def queries(self) -> list[int]:
        """Positions of the distinct queries, in the order of their vectors."""
        return list(self._query_column)

    @property
    def documents(self) -> list[int]:
        """Positions of the distinct documents: all positives, then all negatives."""
        return list(self._column)

    def label(self, blocked_of: Sequence[frozenset[int]]) -> dict[str, torch.Tensor]:
        """The keys of `Labels` that need no encoded text; `blocked_of` goes by query."""
        shape = (len(self._rows), len(self._column))
        blocked = torch.zeros(shape, dtype=torch.bool)
        mined = torch.zeros(shape, dtype=torch.bool)
        queries, targets = [], []
        for row, (query, positive, negatives) in enumerate(self._rows):
            queries.append(self._query_column[query])
            targets.append(self._column[positive])
            blocked[row] = self._mask(blocked_of[query], positive)
            mined[row] = self._mask(negatives, positive)
        return {
            "query": torch.tensor(queries),
            "target": torch.tensor(targets),
            "negatives": mined & ~blocked,
            "blocked": blocked,
        }

    def values(self, by_row: Sequence[Mapping[int, float]]) -> torch.Tensor:
        """(n_rows, n_documents) float32: one value per row and document, NaN where none is known."""
        table = torch.full((len(self._rows), len(self._column)), math.nan)
        for row, values in enumerate(by_row):
            for document, value in values.items():
                if document in self._column:
                    table[row, self._column[document]] = value
        return table

    def guided(self, guide: Guide, label: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(n_rows, n_documents) bool: documents that the base model finds better than the positive.

        By more than the guide's margin.  Neither the positive nor the row's own negatives are among
        them: those were chosen, or judged.  (Solatorio 2024, GISTEmbed, arXiv 2402.16829.)
        """
        queries = torch.from_numpy(guide.vectors.queries[self.queries])
        documents = torch.from_numpy(guide.vectors.documents[self.documents])
        similarities = (queries @ documents.T)[label["query"]]
        target = label["target"][:, None]
        better = similarities > similarities.gather(1, target) + guide.margin
        return (better & ~label["negatives"]).scatter(1, target, False)

    def taught(self, teacher: TextVectors) -> dict[str, torch.Tensor]:
        """The teacher's vectors of the batch's texts."""
        return {
            "query_teacher": torch.from_numpy(teacher.queries[self.queries]),
            "document_teacher": torch.from_numpy(teacher.documents[self.documents]),
        }

    def _mask(self, documents: Iterable[int], positive: int) -> torch.Tensor:
        """(n_documents,) bool: those of `documents` that are in the batch, the positive left out."""
        mask = torch.zeros(len(self._column), dtype=torch.bool)
        for document in documents:
            if document in self._column and document != positive:
                mask[self._column[document]] = True
        return mask


def by_length(lengths: Sequence[int]) -> list[np.ndarray]:
    """Positions in sub-batches of similar length, longest first."""
    longest_first = -np.asarray(lengths)
    order = np.argsort(longest_first, kind="stable")
    parts: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order)):
        before, after = stop - start, len(order) - stop
        shortest = _SAME_LENGTH * lengths[order[start]]
        if min(before, after) >= _FEWEST and lengths[order[stop]] < shortest:
            parts.append(order[start:stop])
            start = stop
    parts.append(order[start:])
    return parts
