"""Can the model learn them without forgetting the rest?  Judged on dev while it trains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ModelError
from nearer.files import disk_errors, write_json, write_jsonl
from nearer.measure.metrics import drop_self, score
from nearer.search.dense import Dense
from nearer.search.systems import Systems
from nearer.stages.shared import corpus_of, random_of, split_of, systems_of
from nearer.training.examples import Duplicates, TrainingSet, build_training_set, read_examples
from nearer.training.losses import choose_loss
from nearer.training.recipe import DevScore, Recipe
from nearer.training.trainer import Trained, train
from nearer.types import Example, Run, Split
from nearer.workspace import StepContext

_HARD = 10  # results of each first-stage system that join the dev pool


def dev_pool(
    corpus: Corpus, dev: Split, runs: Sequence[Run], size: int, rng: np.random.Generator
) -> Corpus:
    """The documents that checkpoints are judged on: judged, hard and random ones, `size` in all.

    Judged documents are always in; hard ones join by rank, so that the best distractors come first.
    """
    if len(corpus) <= size:
        return corpus
    chosen: dict[str, None] = {}
    for judged in dev.judgments.values():
        chosen.update(dict.fromkeys(doc_id for doc_id in judged if doc_id in corpus))
    random = (corpus.ids[position] for position in rng.permutation(len(corpus)))
    for doc_id in chain(_by_rank(runs, dev), random):
        if len(chosen) >= size:
            break
        chosen.setdefault(doc_id)
    positions = sorted(corpus.position(doc_id) for doc_id in chosen)
    return Corpus.from_documents(corpus[position] for position in positions)


def _by_rank(runs: Sequence[Run], dev: Split) -> Iterator[str]:
    """The first results of all runs and queries, then the second ones, and so on."""
    for rank in range(_HARD):
        for run in runs:
            for query in dev.queries:
                hits = run.results.get(query.id, ())
                if rank < len(hits):
                    yield hits[rank][0]


def dev_judge(pool: Corpus, dev: Split, measure: str, item_to_item: bool) -> DevScore:
    """Scores a model on dev over the pool, under the primary measure."""
    depth = int(measure.split("@")[1]) if "@" in measure else 100
    depth += int(item_to_item)

    def judge(encoder: SentenceEncoder) -> float:
        run = Dense(encoder.without_cache(), pool).search(dev.queries, depth)
        if item_to_item:
            run = drop_self(run)
        return score(run, dev, [measure]).mean(measure)

    return judge


def training_rows(
    systems: Systems, examples: Sequence[Example], training: Split, duplicates: Duplicates
) -> TrainingSet:
    """Examples as the training takes them.

    Raises DataError for one that the loss of `train.loss` would learn something wrong from, or
    whose ids are unknown.
    """
    settings = systems.config
    loss = choose_loss(settings.train.loss, systems.root)
    loss.refuse_unusable(examples, settings.mine.min_score)
    queries = {query.id: query for query in training.queries}
    return build_training_set(examples, systems.corpus, queries, training.judgments, duplicates)


def fine_tune(
    systems: Systems,
    dev: Split,
    rows: TrainingSet,
    checkpoints: Path,
    rng: np.random.Generator,
) -> tuple[SentenceEncoder, Trained]:
    """Fine-tune a fresh copy of the configured model, judged on dev.

    `systems` are those of the baseline; they name the settings and the project's folder.  Returns
    the encoder of the trained model and the result.
    """
    settings, root = systems.config, systems.root
    measure = settings.evaluate.primary
    judge: DevScore | None = None
    documents = 0
    if dev.queries:
        pool = _dev_pool_of(systems, dev, rng)
        judge = dev_judge(pool, dev, measure, systems.item_to_item)
        documents = len(pool)
    in_training = settings.model.model_copy(update={"precision": settings.train.precision})
    encoder = load_encoder(in_training, root)
    base = encoder.fingerprint.id
    recipe = Recipe.of(settings.train, checkpoints, measure=measure, root=root)
    trained = train(encoder, rows, judge, recipe)
    summary = {"base_model": settings.model.name, "base_fingerprint": base, **trained.summary}
    summary["dev"]["documents"] = documents
    return encoder, replace(trained, summary=summary)


def _dev_pool_of(systems: Systems, dev: Split, rng: np.random.Generator) -> Corpus:
    size = systems.config.train.dev_documents
    runs: list[Run] = []
    if len(systems.corpus) > size:
        runs = [systems.search(name, dev) for name in ("bm25", "dense")]
    return dev_pool(systems.corpus, dev, runs, size, rng)


def step(context: StepContext) -> dict[str, Any]:
    """Files: `model/`, `history.jsonl`, `summary.json`.  Goes on from checkpoints after a kill."""
    settings = context.config
    systems = systems_of(context, corpus_of(context))
    rows = training_rows(
        systems,
        read_examples(context.earlier("mine/examples.jsonl")),
        split_of(context, "train"),
        Duplicates.read(context.earlier("check/near_duplicates.json")),
    )
    if (
        len({positive for _, positive, _ in rows.rows}) < 2
    ):  # nothing to tell apart; `decide` can still compare simpler fixes
        reason = (
            "there are no training examples"
            if not rows.rows
            else "all training examples share one positive"
        )
        progress.warn(f"nothing was trained: {reason} (see mine/summary.json)")
        write_json(context.out / "summary.json", {"skipped": reason})
        write_jsonl(context.out / "history.jsonl", [])
        return {"skipped": reason}
    checkpoints = context.out / "checkpoints"
    encoder, trained = fine_tune(
        systems, split_of(context, "dev"), rows, checkpoints, random_of(context)
    )
    fingerprint = save_model(encoder, context.out / "model", settings.model, context.root)
    summary = {**trained.summary, "fingerprint": fingerprint}
    write_jsonl(context.out / "history.jsonl", trained.history)
    write_json(context.out / "summary.json", summary)
    shutil.rmtree(checkpoints, ignore_errors=True)
    shown = (
        "best_step",
        "steps",
        "dev",
        "examples",
        "seconds",
        "pairs_per_second",
        "precision",
        "fingerprint",
    )
    return {key: summary[key] for key in shown}


def save_model(encoder: SentenceEncoder, folder: Path, settings: config.Model, root: Path) -> str:
    """Save so that `SentenceTransformer(folder)` gives the same vectors, and prove it.

    Returns the fingerprint of the saved model.  Raises ModelError when anything got lost on the way
    (weights, tokenizer, pooling, normalisation, prompts, maximum length).
    """
    model = encoder.model
    if settings.query_prompt is not None or settings.document_prompt is not None:
        prompts = {"query": encoder.prompt("query"), "document": encoder.prompt("document")}
        model.prompts = {**(model.prompts or {}), **prompts}
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(temporary):
        model.save(str(temporary), create_model_card=False, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    now = SentenceEncoder(
        model,
        query_prompt=encoder.prompt("query"),
        document_prompt=encoder.prompt("document"),
        precision="fp32",
        name="the model in memory",
    )
    saved = load_encoder(
        config.Model(name=str(folder), precision="fp32", device=settings.device), root, path=folder
    )
    differences = now.fingerprint.differences(saved.fingerprint)
    if differences:
        raise ModelError(
            f"the saved model is not the trained one: {'; '.join(differences)}",
            where=str(folder),
            next_step="please report this",
        )
    return replace(saved.fingerprint, precision=encoder.precision.name).id
