"""Batches: who meets whom.  The sampler groups rows; the collator encodes each text once.

A batch is built around distinct documents: every query of a document that fits comes along, so a
long document is encoded once for several short queries.  Inside a batch, texts are sorted by length
and split into sub-batches of similar length, so that little is padded.  What must not be a negative
is masked, never hoped for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from nearer.training.examples import TrainingSet
from nearer.training.work import Work

#: A sub-batch ends where the next text is under this share of its longest, once it has some texts.
_SAME_LENGTH = 0.7
_FEWEST = 8
#: Batches whose documents are sorted by length together; shuffled again afterwards.
_WINDOW = 4


class DocumentBatches:
    """Batch sampler: lists of row positions, `batch_size` distinct positives a batch.

    Deterministic in (`seed`, epoch); the same number of batches in every epoch.
    """

    def __init__(
        self, rows: TrainingSet, batch_size: int, queries_per_document: int, seed: int
    ) -> None:
        self._rows = rows
        self._seed = seed
        self.batch_size = batch_size
        self.drop_last = False
        self.epoch = 0
        self._by_document: dict[int, list[int]] = {}
        for row, (_, positive, _) in enumerate(rows.rows):
            self._by_document.setdefault(positive, []).append(row)
        self._share = queries_per_document
        self._units = sum(
            -(-len(own) // queries_per_document) for own in self._by_document.values()
        )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, -(-self._units // self.batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        units: list[list[int]] = []
        for own in self._by_document.values():
            shuffled = [own[i] for i in rng.permutation(len(own))]
            units.extend(
                shuffled[i : i + self._share] for i in range(0, len(shuffled), self._share)
            )
        order = [units[i] for i in rng.permutation(len(units))]
        window = self.batch_size * _WINDOW
        batches: list[list[list[int]]] = []
        for start in range(0, len(order), window):
            part = sorted(order[start : start + window], key=self._length)
            batches.extend(
                part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)
            )
        if (
            len(batches) > 1 and len(batches[-1]) == 1
        ):  # one document alone has no in-batch negative
            batches[-1].append(batches[-2].pop())
        for i in rng.permutation(len(batches)):
            yield [row for unit in batches[i] for row in unit]

    def _length(self, unit: Sequence[int]) -> int:
        return len(self._rows.documents[self._rows.rows[unit[0]][1]])


class Collator:
    """Rows of a batch → tensors.  `tokenize(texts, kind)` gives a model's features.

    Gives `{name}_{feature}` tensors for each sub-batch, queries first, and under `label` what the
    loss needs: how to put vectors back in order, each row's query and target document, and the mask
    of documents it must not meet.
    """

    #: read by sentence-transformers' Trainer
    valid_label_columns: tuple[str, ...] = ()

    def __init__(
        self, rows: TrainingSet, tokenize: Callable[[list[str], Any], dict[str, Any]]
    ) -> None:
        self._rows = rows
        self._tokenize = tokenize

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Any]:
        rows = [self._rows.rows[item["row"]] for item in items]
        queries = list(dict.fromkeys(query for query, _, _ in rows))
        documents = list(
            dict.fromkeys(
                [positive for _, positive, _ in rows]
                + [n for _, _, negatives in rows for n in negatives]
            )
        )
        column = {document: position for position, document in enumerate(documents)}
        place = {query: position for position, query in enumerate(queries)}
        blocked = torch.zeros(len(rows), len(documents), dtype=torch.bool)
        for position, (query, positive, _) in enumerate(rows):
            for document in self._rows.blocked[query]:
                if document in column and document != positive:
                    blocked[position, column[document]] = True
        tokens = 0
        batch: dict[str, Any] = {}
        label: dict[str, torch.Tensor] = {
            "query": torch.tensor([place[query] for query, _, _ in rows]),
            "target": torch.tensor([column[positive] for _, positive, _ in rows]),
            "blocked": blocked,
        }
        for kind, texts in (
            ("query", [self._rows.queries[q] for q in queries]),
            ("document", [self._rows.documents[d] for d in documents]),
        ):
            parts = by_length([len(text) for text in texts])
            for number, part in enumerate(parts):
                features = self._tokenize([texts[i] for i in part], kind)
                if "attention_mask" in features:
                    tokens += int(features["attention_mask"].sum())
                batch |= {f"{kind}{number}_{name}": value for name, value in features.items()}
            label[f"{kind}_order"] = torch.tensor(np.argsort(np.concatenate(parts)))
            label[f"{kind}_parts"] = torch.tensor(len(parts))
        label["tokens"] = torch.tensor(tokens)
        return batch | {"label": label}


def by_length(lengths: Sequence[int]) -> list[np.ndarray]:
    """Positions in sub-batches of similar length, longest first."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    parts, start = [], 0
    for stop in range(1, len(order) + 1):
        enough = stop - start >= _FEWEST and len(order) - stop >= _FEWEST
        if stop == len(order) or (
            enough and lengths[order[stop]] < _SAME_LENGTH * lengths[order[start]]
        ):
            parts.append(order[start:stop])
            start = stop
    return parts


class RankingLoss(torch.nn.Module):
    """MultipleNegativesRankingLoss over the distinct texts of a batch, with a mask.

    For row (q, d+): cross-entropy of softmax(scale · cos(q, ·)) over d+ and every document of the
    batch that is not blocked for q (Henderson et al. 2017, arXiv 1705.00652, section 4).  Without
    blocked documents, and with each text once, it is sentence-transformers' loss.
    """

    def __init__(self, model: Any, scale: float = 20.0, work: Work | None = None) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.work = work or Work()

    def forward(
        self, features: Sequence[dict[str, Any]], labels: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        vectors = [
            torch.nn.functional.normalize(self.model(part)["sentence_embedding"].float(), dim=-1)
            for part in features
        ]
        parts = int(labels["query_parts"])
        queries = torch.cat(vectors[:parts])[labels["query_order"]]
        documents = torch.cat(vectors[parts:])[labels["document_order"]]
        scores = self.scale * (queries @ documents.T)[labels["query"]]
        loss = torch.nn.functional.cross_entropy(
            scores.masked_fill(labels["blocked"], float("-inf")), labels["target"]
        )
        self.work.add(len(labels["target"]), int(labels["tokens"]), float(loss.detach()))
        return loss
