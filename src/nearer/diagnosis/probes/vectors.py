"""Ranks by other vectors: of chunks, and of other embedding models."""

from __future__ import annotations

from dataclasses import replace

from nearer.diagnosis.probes.base import Misses, Named, Ranks, Results, Tried
from nearer.diagnosis.values import Probes
from nearer.errors import DiskError, NearerError
from nearer.search.pipeline import Pipeline, short_name


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
    """Ranks by the other models that the settings give, and by the configured one where it is another.

    A model that fails while it searches is not tried, like one that is not here.
    """
    others = misses.systems.others
    tried = Tried()
    if not misses.over_model:
        _add(tried, "the configured model", misses.ranks(misses.plain))
    for model in others.names:
        whole = misses.systems.reads_whole(model)
        chunker = "document" if whole else misses.plain.chunker
        try:
            ranks = misses.ranks(replace(misses.plain, model=model, chunker=chunker))
        except DiskError:
            raise
        except NearerError as error:
            others.fail(model, error)
            continue
        _add(tried, short_name(model), ranks)
    probes = tried.probes()
    if not others.usable:
        probes = _without_models(misses, probes)
    return {"base_model": probes}


def _add(tried: Tried, name: str, ranks: Ranks) -> None:
    for pair, rank in ranks.items():
        tried.add(pair, name, rank)


def _without_models(misses: Misses, tried: Probes) -> Probes:
    """What was tried, and that no other model was."""
    why = "no other embedding model is named (fix.models)"
    setting = "fix.models=[FOLDER]"
    untried = misses.systems.others.untried
    if untried:
        why = f"no other embedding model could be tried: {'; '.join(one.why for one in untried)}"
        setting = untried[0].setting
    step = f"nearer diagnose --set '{setting}'"
    probes = misses.untried(why, step)
    for pair, probe in tried.items():
        probes[pair] = replace(probe, skipped=why, next_step=step)
    return probes
