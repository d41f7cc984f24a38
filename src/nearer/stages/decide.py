"""Ship it, take a simpler fix, or stop?  The only stage that opens the test split.

Which fine-tuned variant and which simpler fix stand for their kind is chosen on dev; test only
judges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.corpus import Corpus
from nearer.data.general import load_general
from nearer.data.heldout import open_test
from nearer.data.load import load
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import DataError
from nearer.files import read_json, read_jsonl, write_json
from nearer.live.index.generations import Generations, for_chunks
from nearer.measure.margins import margin_histogram
from nearer.measure.metrics import Scores, score
from nearer.measure.significance import compare, mean_interval, non_inferior
from nearer.measure.slices import compare_slices
from nearer.measure.verdict import (
    TUNED,
    Candidate,
    Evidence,
    Verdict,
    best_on_dev,
    checklist,
    judge,
    untold,
)
from nearer.search.costs import Latency, embedding_cost
from nearer.search.dense import Contents, Dense
from nearer.search.pipeline import HYBRIDS, Pipeline
from nearer.search.slices import slices_of
from nearer.search.systems import Systems
from nearer.stages.shared import (
    corpus_of,
    missing_of,
    random_of,
    reranker_of_run,
    split_of,
    systems_of,
)
from nearer.types import Judgments, Run, Split
from nearer.workspace import StepContext

_GUARDED = (
    "seen documents",
    "unseen documents",
)  # beside the slices that the data declares as tags
_SHOWN = 8  # wins and losses in the report


# -- measuring the candidates ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Planned:
    """A candidate before it is measured: whose systems, which pipeline, and what it stands for."""

    systems: Systems
    pipeline: Pipeline
    role: str
    name: str


def plan_candidates(
    base: Systems,
    tuned: Systems | None,
    dev: Split,
    settings: config.Evaluate,
    ladder: Pipeline | None,
) -> list[_Planned]:
    """Today's system, the plain baselines, the best simple system of `fix`, and the same over the fine-tuned model."""
    base.tune(dev, settings.primary)
    names = dict.fromkeys([base.today, *settings.baselines])
    plan = [
        _Planned(base, base.base(name), "today" if name == base.today else "baseline", name)
        for name in names
    ]
    extra = ladder is not None and all(ladder != planned.pipeline for planned in plan)
    if ladder is not None and extra:
        plan.append(_Planned(base, ladder, "baseline", ladder.label))
    if tuned is not None:
        tuned.tune(dev, settings.primary)
        plan += [
            _Planned(tuned, tuned.base(n), "candidate", TUNED if n == "dense" else f"{TUNED} {n}")
            for n in ("dense", *HYBRIDS)
        ]
        if ladder is not None and extra and ladder.dense:
            same = tuned.tuned(
                replace(ladder, model=None, compression="float32", weight=None),
                dev,
                settings.primary,
            )
            if all(same != planned.pipeline for planned in plan if planned.role == "candidate"):
                plan.append(_Planned(tuned, same, "candidate", f"{TUNED} {same.label}"))
    return plan


def measure_candidates(
    plan: Sequence[_Planned], dev: Split, test: Split, settings: config.Evaluate
) -> list[Candidate]:
    """Every planned system, searched on dev (for choices) and on test (for judgment)."""
    measures = list(dict.fromkeys([settings.primary, *settings.measures]))
    candidates = []
    for planned in plan:
        systems, pipeline = planned.systems, planned.pipeline
        items = systems.item_to_item
        on_dev = score(systems.run(pipeline, dev), dev, [settings.primary], items)
        run = replace(systems.run(pipeline, test), name=planned.name)
        described: dict[str, Any] = {"pipeline": pipeline.as_dict()}
        if pipeline.dense:
            space = systems.space_of(pipeline.model)
            described |= {
                "model": space.name,
                "fingerprint": space.fingerprint.id,
                "identity": space.fingerprint.as_record(),
            }
        if pipeline.rerank and systems.reranker is not None:
            described["reranker"] = {
                "source": getattr(systems.reranker, "source", ""),
                "fingerprint": systems.reranker.fingerprint,
            }
        if pipeline.system == "convex":
            described["dense_weight"] = pipeline.weight
        candidates.append(
            Candidate(
                planned.name,
                planned.role,
                pipeline.system,
                run,
                score(run, test, measures, items),
                on_dev.mean(settings.primary),
                described,
            )
        )
    return candidates


def slice_guardrails(
    rows: Sequence[Mapping[str, Any]], before: Scores, after: Scores, slices: Any, how: _How
) -> list[dict[str, Any]]:
    """A guardrail for each declared slice, and for any other that is shown to collapse."""
    guardrails = []
    margin = how.settings.guardrails.slice_margin
    for row in rows:
        name = row["slice"]
        if name.startswith("tag:") or name in _GUARDED:
            at = before.positions(slices[name])
            difference = after.column(how.primary)[at] - before.column(how.primary)[at]
            guard = non_inferior(difference, margin, how.settings.alpha)
            guardrails.append({"name": f"slice {name}", **guard.as_dict()})
        elif (
            row["outcome"] == "worse"
            and row["p_holm"] < how.settings.alpha
            and row["delta"] < -margin
        ):
            figures = {
                "margin": margin,
                "delta": row["delta"],
                "lower_bound": row["ci"][0],
                "n": row["n"],
                "queries_needed": None,
            }
            guardrails.append({"name": f"slice {name}", "status": "fail", **figures})
    return guardrails


def general_guardrail(
    base: SentenceEncoder, tuned: SentenceEncoder, corpus: Corpus, split: Split, how: _How
) -> dict[str, Any]:
    """Has the fine-tuned model forgotten ordinary language?  Both models search the guard set exactly."""
    scores = [
        score(Dense(encoder, corpus).search(split.queries, 10), split, ["nDCG@10"]).column(
            "nDCG@10"
        )
        for encoder in (base, tuned)
    ]
    guard = non_inferior(
        scores[1] - scores[0],
        how.settings.guardrails.general_margin,
        how.settings.alpha,
    )
    return {
        "name": "general ability",
        **guard.as_dict(),
        "before": float(scores[0].mean()),
        "after": float(scores[1].mean()),
    }


def latency_guardrails(
    today: Latency | None, tuned: Latency | None, limit: float
) -> list[dict[str, Any]]:
    """Fails when median and tail are both slower than allowed: one alone is noise on a shared machine."""
    if today is None or tuned is None:
        return []
    ratio = min(tuned.p50_ms / max(today.p50_ms, 1e-9), tuned.p95_ms / max(today.p95_ms, 1e-9))
    figures = {
        "margin": limit,
        "delta": round(ratio, 3),
        "lower_bound": None,
        "n": None,
        "queries_needed": None,
    }
    return [{"name": "latency", "status": "fail" if ratio > limit else "pass", **figures}]


@dataclass(frozen=True, slots=True)
class _How:
    """What every statistical test here is run with."""

    settings: config.Decide
    primary: str
    resamples: int
    rng: np.random.Generator


# -- what the report shows ------------------------------------------------------------------------


def worst_and_best(
    before: Candidate, after: Candidate, test: Split, corpus: Corpus, primary: str
) -> dict[str, list[dict[str, Any]]]:
    """Queries that won and lost most, with both ranked lists, for people to read."""
    change = after.scores.column(primary) - before.scores.column(primary)
    queries = {query.id: query for query in test.queries}

    def shown(run: Run, query_id: str, relevant: Mapping[str, int]) -> list[dict[str, Any]]:
        hits = run.results.get(query_id, ())[:5]
        return [
            {"id": d, "title": _label(corpus, d), "relevant": d in relevant, "score": round(s, 4)}
            for d, s in hits
        ]

    def example(position: int) -> dict[str, Any]:
        query_id = after.scores.query_ids[position]
        relevant = test.relevant(query_id)
        return {
            "query_id": query_id,
            "text": queries[query_id].text,
            "before": float(before.scores.column(primary)[position]),
            "after": float(after.scores.column(primary)[position]),
            "relevant": [{"id": d, "title": _label(corpus, d)} for d in relevant],
            "before_top": shown(before.run, query_id, relevant),
            "after_top": shown(after.run, query_id, relevant),
        }

    order = np.argsort(change, kind="stable")
    return {
        "wins": [example(i) for i in order[::-1][:_SHOWN] if change[i] > 0],
        "losses": [example(i) for i in order[:_SHOWN] if change[i] < 0],
    }


def _label(corpus: Corpus, doc_id: str) -> str:
    document = corpus.get(doc_id)
    text = "" if document is None else document.title or document.text
    return text if len(text) <= 120 else text[:119] + "…"


def negative_flips(
    before: Scores, after: Scores, test: Split, primary: str
) -> list[dict[str, str]]:
    """Queries that had a relevant result where it counts and lost it altogether."""
    lost = (before.column(primary) > 0) & (after.column(primary) == 0)
    texts = {query.id: query.text for query in test.queries}
    return [
        {"query_id": q, "text": texts[q]}
        for q, flip in zip(after.query_ids, lost, strict=True)
        if flip
    ]


# -- deciding -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision record, and what the report shows beside it."""

    record: dict[str, Any]
    examples: dict[str, Any]
    margins: dict[str, Any]

    def __str__(self) -> str:
        return str(self.record["sentence"])


def decide(  # noqa: PLR0913 - the whole evidence is handed in, nothing is looked up
    base: Systems,
    tuned: Systems | None,
    dev: Split,
    test: Split,
    settings: config.Config,
    rng: np.random.Generator,
    *,
    trained: Judgments | None = None,
    mined: Mapping[str, Any] | None = None,
    guard_set: tuple[Corpus, Split] | None = None,
    diagnosis: Mapping[str, Any] | None = None,
    ladder: Pipeline | None = None,
    not_tried: Sequence[Mapping[str, str]] | None = None,
    looks: int = 1,
) -> Decision:
    """Judge today's system, the simpler fixes and the fine-tuned model on held-out queries.

    `tuned` are the systems over the fine-tuned model (None: nothing was trained); `trained` the
    training judgments, which tell seen from unseen documents; `mined` is `mine/summary.json`,
    `diagnosis` `diagnose/summary.json`, `ladder` the best simple system that `fix` found on dev;
    `not_tried` the simpler fixes that it did not try (None: `fix` did not run);
    `looks` how often test has been opened.  Raises DataError when test has no judged query.
    """
    how = _How(settings.decide, settings.evaluate.primary, settings.evaluate.resamples, rng)
    plan = plan_candidates(base, tuned, dev, settings.evaluate, ladder)
    candidates = measure_candidates(plan, dev, test, settings.evaluate)
    today = next(c for c in candidates if c.role == "today")
    if not len(today.scores):
        raise DataError(
            "the test split has no judged query",
            where="check/split/test",
            next_step="add test judgments, then nearer check",
        )
    winner, simple = best_on_dev(candidates, "candidate"), best_on_dev(candidates, "baseline")
    pairs = [
        (a, b)
        for a, b in ((today, winner), (today, simple), (simple, winner))
        if a is not None and b is not None
    ]
    results = {
        (a.name, b.name): compare(
            a.scores.column(how.primary),
            b.scores.column(how.primary),
            how.rng,
            how.resamples,
            how.settings.alpha,
        )
        for a, b in pairs
    }
    latencies = {one.name: one.systems.latency(one.pipeline, dev.queries) for one in plan}
    rows: list[dict[str, Any]] = []
    guardrails: list[dict[str, Any]] = []
    cost: dict[str, Any] = {}
    margins: dict[str, Any] = {}
    if winner is not None and tuned is not None:
        slices = slices_of(test, base.corpus, settings.data.min_grade, trained)
        least = settings.evaluate.min_slice
        options: dict[str, Any] = {"resamples": how.resamples, "alpha": how.settings.alpha}
        rows = compare_slices(
            today.scores, winner.scores, slices, how.primary, least, how.rng, **options
        )
        guardrails = slice_guardrails(rows, today.scores, winner.scores, slices, how)
        if guard_set is not None:
            guardrails.append(general_guardrail(base.encoder, tuned.encoder, *guard_set, how))
        guardrails += latency_guardrails(
            latencies[today.name], latencies[winner.name], how.settings.guardrails.latency_ratio
        )
        cost = embedding_cost(tuned.encoder, Contents(base.corpus), how.settings.cost_per_hour)
        margins = margin_histogram(
            _vectors(base, test), _vectors(tuned, test), base.corpus.ids, test
        )
    evidence = Evidence(
        today,
        winner,
        simple,
        results,
        guardrails,
        how.primary,
        how.settings.min_gain,
        how.settings.alpha,
    )
    verdict = judge(evidence)
    shown = winner or simple
    untried = [dict(one) for one in (_NO_FIXES if not_tried is None else not_tried)]
    record = {
        "verdict": verdict.verdict,
        "recommended": verdict.recommended,
        "sentence": _sentence(verdict, untried),
        "reasons": [*verdict.reasons, *_untried_reasons(untried)],
        "not_tried": untried,
        "primary": how.primary,
        "n_queries": len(today.scores),
        "missing": missing_of(test, base.corpus),
        "compared": {"baseline": today.name, "candidate": shown.name if shown else None},
        "min_gain": how.settings.min_gain,
        "alpha": how.settings.alpha,
        "seeds": 1 if winner else 0,
        "checklist": checklist(evidence, mined or {}, cost, diagnosis or {}, untried),
        "candidates": [
            _as_dict(c, latencies[c.name], one, how)
            for c, one in zip(candidates, plan, strict=True)
        ],
        "comparisons": [
            {"baseline": a, "candidate": b, "measure": how.primary, **result.as_dict()}
            for (a, b), result in results.items()
        ],
        "slices": rows,
        "guardrails": guardrails,
        "cost": cost,
        "negative_flips": negative_flips(today.scores, shown.scores, test, how.primary)
        if shown
        else [],
        "test_looks": looks,
        "sign_off": None,
    }
    examples = (
        worst_and_best(today, shown, test, base.corpus, how.primary)
        if shown
        else {"wins": [], "losses": []}
    )
    return Decision(record, examples, margins)


#: What is said of simpler fixes where `fix` did not run: the plain systems alone were compared.
_NO_FIXES = (
    {"fix": "the ladder of simpler fixes", "why": "nearer fix did not run", "next": "nearer fix"},
)


def _sentence(verdict: Verdict, untried: Sequence[Mapping[str, str]]) -> str:
    """The verdict in words; a fix that nobody tried is never one that does not help."""
    if not untried or verdict.verdict == "use_simpler_fix":
        return verdict.sentence
    names = ", ".join(dict.fromkeys(one["fix"].replace("_", " ") for one in untried))
    return f"{verdict.sentence} Simpler fixes not tried: {names}."


def _untried_reasons(untried: Sequence[Mapping[str, str]]) -> list[str]:
    return [f"not tried: {untold(untried)}"] if untried else []


def _as_dict(
    candidate: Candidate, latency: Latency | None, planned: _Planned, how: _How
) -> dict[str, Any]:
    columns = candidate.scores.values
    measures = {
        name: mean_interval(column, how.settings.alpha).as_dict()
        for name, column in columns.items()
    }
    return {
        "name": candidate.name,
        "role": candidate.role,
        "system": candidate.system,
        **candidate.described,
        "dev": round(candidate.dev, 6),
        "measures": measures,
        "latency": latency.as_dict() if latency else None,
        "cost": {"index_bytes": planned.systems.index_bytes(planned.pipeline)},
    }


def _vectors(systems: Systems, split: Split) -> tuple[np.ndarray, np.ndarray]:
    return systems.encoder.encode(
        [query.text for query in split.queries], "query"
    ), systems.document_vectors


def guard_set_of(settings: config.Config, root: Path) -> tuple[Corpus, Split] | None:
    """The general-ability set that the configuration names."""
    general = settings.decide.guardrails.general
    if general is None:
        return None
    if general == "builtin":
        return load_general()
    loaded = load(config.Data(folder=general), root)
    judgments = (
        loaded.judgments.get("test")
        or loaded.judgments.get("dev")
        or next(iter(loaded.judgments.values()))
    )
    return loaded.corpus, Split(
        "general", tuple(loaded.queries[q] for q in judgments if q in loaded.queries), judgments
    )


def _guard_set(context: StepContext) -> tuple[Corpus, Split] | None:
    context.uses("guard")
    return guard_set_of(context.config, context.root)


def step(context: StepContext) -> dict[str, Any]:
    """Files: `decision.json`, `examples.json`, `margins.json`, and a line in `test_looks.jsonl` of the run."""
    settings = context.config
    corpus = corpus_of(context)
    looks = context.run_dir / "test_looks.jsonl"
    test = open_test(context.earlier("check/split"), looks, f"decide, run {settings.run}")
    base = systems_of(context, corpus, splits=("dev", "test"))
    fixes = read_json(context.earlier("fix/summary.json"))
    ladder = fixes.get("best")
    pipeline = Pipeline.from_dict(ladder) if ladder else None
    if pipeline is not None and pipeline.rerank:
        base.reranker = reranker_of_run(context, base)
    folder = context.earlier("train") / "model"
    tuned, bridge = None, None
    if settings.decide.bridge:
        context.uses("bridge")
        generations = Generations(context.root, settings)
        bridge = generations.manifest(settings.decide.bridge)
        bridged = for_chunks(generations.encoder(bridge), None)
        tuned = systems_of(context, corpus, encoder=bridged, bm25=base.bm25)
        tuned.reranker = base.reranker
    elif folder.is_dir():
        encoder = load_encoder(
            settings.model.as_saved(),
            context.root,
            cache=context.cache,
            path=folder,
            name=TUNED,
        )
        tuned = systems_of(context, corpus, encoder=encoder, bm25=base.bm25)
        tuned.reranker = base.reranker
    decision = decide(
        base,
        tuned,
        split_of(context, "dev"),
        test,
        settings,
        random_of(context),
        trained=split_of(context, "train").judgments,
        mined=read_json(context.earlier("mine/summary.json")),
        guard_set=_guard_set(context),
        diagnosis=read_json(context.earlier("diagnose/summary.json")),
        ladder=pipeline,
        not_tried=fixes.get("not_tried"),
        looks=sum(1 for _ in read_jsonl(looks)),
    )
    if bridge is not None and bridge.bridge:
        kept = f"its queries find {bridge.bridge['kept']['recall@10']:.3f} of the new model's ten nearest"
        across = f"judged across the bridge {bridge.id} ({bridge.bridge['kind']}): {kept}"
        decision.record["bridge"] = {
            "generation": bridge.id,
            **bridge.bridge,
            "fingerprint": bridge.fingerprint.id,
        }
        decision.record["reasons"] = [*decision.record["reasons"], across]
    write_json(context.out / "decision.json", decision.record)
    write_json(context.out / "examples.json", decision.examples)
    write_json(context.out / "margins.json", decision.margins)
    told = (
        "verdict",
        "recommended",
        "sentence",
        "primary",
        "n_queries",
        "test_looks",
        "candidates",
        "comparisons",
    )
    return {key: decision.record[key] for key in told}
