"""Ranks by other vectors: of chunks, and of other embedding models."""

from __future__ import annotations

from dataclasses import replace

from nearer.diagnosis.probes.base import Misses, Named, Results
from nearer.diagnosis.values import Probes
from nearer.search.pipeline import Pipeline


def chunked(misses: Misses, results: Results) -> Named:
    """Ranks with the other chunks that the settings name."""
    if misses.over_words:
        return {}
    base = misses.changeable
    others: dict[str, Pipeline] = {}
    for spec in misses.settings.chunkers:
        if spec != base.chunker:
            others[spec] = replace(base, chunker=spec)
    if not others:
        why = "no other chunks are named (diagnose.chunkers)"
        step = "nearer diagnose --set 'diagnose.chunkers=[tokens:128:32]'"
        return {"chunking": misses.untried(why, step)}
    return {"chunking": misses.variants(others)}


def by_another_model(misses: Misses, results: Results) -> Named:
    """Ranks by the other models that the settings name, and by the configured one where it is another."""
    others: dict[str, Pipeline] = {}
    if not misses.over_model:
        others["the configured model"] = misses.plain
    models = misses.systems.config.fix.models
    for model in models:
        others[_short(model)] = replace(misses.plain, model=model)
    probes = misses.variants(others)
    if not models:
        probes = _without_models(misses, probes)
    return {"base_model": probes}


def _without_models(misses: Misses, tried: Probes) -> Probes:
    """What was tried, and that no other model was."""
    why = "no other embedding model is named (fix.models)"
    step = "nearer diagnose --set 'fix.models=[FOLDER]'"
    probes = misses.untried(why, step)
    for pair, probe in tried.items():
        probes[pair] = replace(probe, skipped=why, next_step=step)
    return probes


def _short(model: str) -> str:
    """The last part of a model's folder or name."""
    return model.rstrip("/").rpartition("/")[2] or model
