"""Climbs the ladder: every fix alone on dev, then combined while each step really helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nearer import plugins, progress
from nearer.fixes.base import OF_ONE_TASK, Absence, Fix
from nearer.fixes.bench import Bench, Trial, delta_of
from nearer.search.pipeline import Pipeline


def try_alone(bench: Bench, fixes: Sequence[Fix], baseline: Pipeline) -> list[Trial]:
    """Every variant of every fix, measured beside the baseline."""
    tried: list[tuple[Fix, Pipeline]] = []
    with progress.task("fixes", len(fixes), "fixes") as bar:
        for fix in fixes:
            bar.note(fix.name)
            if fix.name not in bench.settings.decide.skip:
                tried += [(fix, pipeline) for pipeline in bench.variants(fix, baseline)]
            bar.advance()
    return [bench.trial(fix, baseline, pipeline) for fix, pipeline in tried]


def climb(bench: Bench, fixes: Sequence[Fix], baseline: Pipeline) -> dict[str, Any]:
    """Combine greedily in the order of cost; gives the values of `fix/summary.json`.

    A step stays only when its gain over the steps below is real (`_is_real`).
    """
    current = baseline
    steps: list[dict[str, Any]] = []
    absences: list[Absence] = []
    for fix in fixes:
        reason = bench.settings.decide.skip.get(fix.name)
        variants = [] if reason else bench.variants(fix, current)
        if not variants:
            absence = fix.absent(current, bench.systems, bench.dev)
            if reason:
                absence = _skipped(fix.name, reason)
            absences.append(absence)
            steps.append(_absent_step(fix, absence))
            continue
        absences.extend(fix.left_out(current, bench.systems, bench.dev))
        best = _chosen(bench, fix, current, variants)
        step = _step(bench, fix, current, best, len(variants))
        steps.append(step)
        if step["kept"]:
            current = best
    return {
        "measure": bench.settings.evaluate.primary,
        "today": bench.mean(baseline),
        "today_label": baseline.label,
        "rungs": steps,
        "not_tried": [absence.as_dict() for absence in untried(bench, fixes, absences)],
        "best": current.as_dict(),
        "label": current.label,
        "best_measure": bench.mean(current),
        "delta": delta_of(bench.gain(baseline, current)),
        "failures_repaired": bench.failures_repaired(current),
        "n_queries": len(bench.scores(baseline)),
    }


def _skipped(name: str, reason: str) -> Absence:
    """A fix that the settings declare an exception."""
    why = f"left out by decision (decide.skip): {reason}"
    return Absence(name, why, "nearer fix --set 'decide.skip={}'")


def _chosen(bench: Bench, fix: Fix, current: Pipeline, variants: Sequence[Pipeline]) -> Pipeline:
    """The variant that does best; a cheaper one where it loses nothing that matters.

    A cheaper one must itself be worth keeping where the best is, must not be shown to be worse than
    the best, and must lose less than the minimum useful gain.
    """
    best = max(variants, key=bench.mean)
    tried = len(variants)
    for variant in fix.cheaper(best, variants):
        loss = bench.gain(best, variant, tried)
        slight = loss.outcome != "worse" and -loss.delta < bench.settings.decide.min_gain
        worth = _is_real(bench, current, variant, tried) or not _is_real(
            bench, current, best, tried
        )
        if slight and worth:
            return variant
    return best


def _is_real(bench: Bench, current: Pipeline, changed: Pipeline, tried: int) -> bool:
    """Whether the gain over the steps below is real and worth having.

    The interval of the paired gain, its error rate shared among the variants of the step, lies above
    0, and the mean reaches half the minimum useful gain.
    """
    gain = bench.gain(current, changed, tried)
    return gain.outcome == "better" and gain.delta >= bench.settings.decide.min_gain / 2


def _step(
    bench: Bench, fix: Fix, current: Pipeline, best: Pipeline, n_variants: int
) -> dict[str, Any]:
    """One step: the chosen variant of a fix beside the steps that were kept below it."""
    gain = bench.gain(current, best, n_variants)
    repaired, broken = bench.moved(current, best)
    step = {
        "fix": fix.name,
        "kept": _is_real(bench, current, best, n_variants),
        "tried": True,
        "label": best.label,
        "settings": best.as_dict(),
        "measure": bench.mean(best),
        "delta": delta_of(gain),
        "variants": n_variants,
        "repaired": len(repaired),
        "broken": len(broken),
        "failures_repaired": bench.failures_repaired(best),
        "needs": fix.needs,
    }
    reranker = bench.systems.reranker
    if best.rerank and reranker is not None:
        step["reranker"] = reranker.name
    return step


def _absent_step(fix: Fix, absence: Absence) -> dict[str, Any]:
    """The step of a fix that gave nothing to measure; `tried` is None where it does not apply."""
    return {
        "fix": fix.name,
        "kept": False,
        "tried": None if absence.tried else False,
        "label": absence.label,
        "delta": None,
        "needs": fix.needs,
    }


def untried(bench: Bench, fixes: Sequence[Fix], absences: Sequence[Absence]) -> list[Absence]:
    """What simpler fixes, or parts of them, were not tried.

    First what the steps left out (`absences`), then fixes that the settings leave out, then variants
    that the diagnosis speaks for.
    """
    parts = list(dict.fromkeys(absence for absence in absences if not absence.tried))
    left_out = [
        _skipped(name, bench.settings.decide.skip[name])
        if name in bench.settings.decide.skip
        else Absence(name, "fix.fixes leaves it out", f"nearer fix --set 'fix.fixes=[{name}]'")
        for name in plugins.names("fix")
        if name not in bench.settings.fix.fixes and name not in OF_ONE_TASK
    ]
    skip = bench.settings.decide.skip
    tried = [fix for fix in fixes if fix.name not in skip]
    suggested = [absence for fix in tried for absence in fix.suggested(bench.failures)]
    return [*parts, *left_out, *suggested]
