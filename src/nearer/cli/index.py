"""`nearer index`: build, verify, cut over, roll back, keep up with the corpus.

A command here is a function of the generations that gives back what `--json` prints, and what
people read; `command_of` adds the options that all of them share.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nearer.cli.command import Id, Told, Who, command_of

if TYPE_CHECKING:
    from nearer.tables import Grid

app = typer.Typer(
    help="Re-embed, verify, cut over, roll back: generations of vectors that never mix.",
    no_args_is_help=True,
)

_command = command_of(app)


def _corpus(generations: Any) -> Any:
    from nearer.data.load import load_corpus

    return load_corpus(generations.config.data, generations.root)


def _encoder(generations: Any, model: str | None, documents: int) -> Any:
    """The configured model, or `model`, which brings its own prompts; cached vectors are used where the whole corpus has them."""
    from nearer.embed.opening import open_encoder

    settings = generations.config.model
    if model is not None:
        settings = settings.of_another(model)
    cache = generations.root / "runs" / ".cache"
    encoder = open_encoder(settings, generations.root, cache=cache)
    keys = cache / "embeddings" / encoder.fingerprint.id / "keys.bin"
    return (
        encoder
        if encoder.outside or (keys.is_file() and keys.stat().st_size >= 16 * documents)
        else encoder.without_cache()
    )


@_command
def build(
    generations: Any,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="A model folder or name (default: the configured model)."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only estimate time, size and price, from a measured sample."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="A new generation, even where this model has one.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: many machines, see docs/scale.md.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of ray (default: one a GPU, or one for four CPUs).")
    ] = None,
) -> Told:
    """Embed the corpus into a generation, or go on with it.

    Nothing that users see changes: it must be verified, then cut over to.

    Example: nearer index build --model runs/default/train/model
    """
    from nearer.live.index import build as building
    from nearer.live.index.ray_engine import ray_engine

    using = ray_engine(generations, workers) if engine == "ray" else building.local
    corpus = _corpus(generations)
    encoder = _encoder(generations, model, len(corpus))
    if dry_run:
        figures = building.estimate(corpus, encoder, generations.config, generations.root)
        return figures, "\n".join(
            f"  {name.replace('_', ' ')}: {value:,}" for name, value in figures.items()
        )
    name, today = model or generations.config.model.name, model is None
    filled = building.build(
        generations, corpus, encoder, name, today=today, force=force, engine=using
    )
    return filled.as_dict(), f"{_filled(filled)}\n  → nearer index verify {filled.manifest.id}"


@_command
def bridge(
    generations: Any,
    model: Annotated[str, typer.Option(metavar="PATH", help="The new model.")],
    sample: Annotated[
        int,
        typer.Option(min=100, help="Documents and training queries it learns from, at most each."),
    ] = 5000,
) -> Told:
    """Carry a new model's queries into the active generation's table, where re-embedding must wait.

    The bridge is a generation: verify it, judge it with --set decide.bridge=ID, cut over to it.

    Example: nearer index bridge --model runs/default/train/model
    """
    from nearer.data.splits import frozen_split
    from nearer.live.index.bridging import build_bridge

    corpus = _corpus(generations)
    queries = [
        query.text
        for query in frozen_split(generations.root, generations.config.run, "train").queries
    ]
    made = build_bridge(
        generations, _encoder(generations, model, len(corpus)), model, corpus, queries, sample
    )
    bridge = dict(made.bridge or {})
    kept = bridge["kept"]
    told = f"  {made.id}: its queries find {kept['recall@10']:.3f} of the new model's ten nearest (the old model's {kept['without']:.3f})"
    mend = f"  → nearer index verify {made.id}, then nearer run --from decide --set decide.bridge={made.id}"
    return {
        "id": made.id,
        "state": made.state,
        **bridge,
        "fingerprint": made.fingerprint.id,
    }, f"{told}\n{mend}"


def _filled(filled: Any) -> str:
    done = (
        f"{filled.embedded:,} embedded, {filled.loaded:,} loaded again, {filled.deleted:,} deleted"
    )
    return f"  {filled.manifest.id}: {filled.manifest.counts['documents']:,} documents ({done}) in {filled.seconds:,.1f} s"


@_command
def verify(
    generations: Any,
    generation: Id,
    full: Annotated[
        bool, typer.Option("--full", help="Also compare every stored vector with its part.")
    ] = False,
) -> Told:
    """Is a generation what it says, and does it answer as an exact search would?

    Example: nearer index verify 1a2b3c4d-1 --full
    """
    from nearer.live.index.verify import canary_queries, verify

    canaries = canary_queries(generations.config, generations.root)
    manifest = verify(generations, generation, _corpus(generations), canaries, full=full)
    report = dict(manifest.verified or {})
    lines = [
        f"  {'✓' if one['passed'] else '✗'} {one['check']}: {one['found']}"
        for one in report["checks"]
    ]
    mend = (
        f"nearer index cutover {generation}"
        if report["passed"]
        else "nearer index sync, or drop it and build again"
    )
    return {"id": generation, "state": manifest.state, **report}, "\n".join([*lines, f"  → {mend}"])


@_command
def list_(generations: Any) -> Told:
    """All generations, oldest first.

    Example: nearer index list --json
    """
    rows = [
        {
            "id": one.id,
            "state": one.state,
            "model": one.model["name"],
            "fingerprint": one.fingerprint.id,
            **one.counts,
        }
        for one in generations.manifests()
    ]
    rows = [{"documents": 0, **row} for row in rows]
    if not rows:
        return {"generations": rows}, "  there is none yet\n  → nearer index build"
    return {"generations": rows}, _listed(rows)


def _listed(rows: list[dict[str, Any]]) -> Grid:
    from nearer.tables import Grid

    grid = Grid("generation", "state", "documents", "model")
    for row in rows:
        grid.add(row["id"], row["state"], f"{row['documents']:,}", row["model"])
    return grid


@_command
def show(generations: Any, generation: Id) -> Told:
    """What a generation is made of, what verify found, and its history.

    Example: nearer index show 1a2b3c4d-1
    """
    values = generations.manifest(generation).as_dict()
    # What is left is what the id is the hash of, so that anyone can compute it again.
    for proof in ("probes", "behaviour", "probed_tokens", "former"):
        values["fingerprint"].pop(proof, None)
    values["parts"] = len(values["parts"])
    values["history"] = [
        line for line in generations.history() if generation in (line["from"], line["to"])
    ]
    import json

    from nearer.tables import Verbatim

    return values, Verbatim(json.dumps(values, ensure_ascii=False, indent=2))


def _moved(pointer: Any) -> Told:
    back = f"  → nearer index rollback goes back to {pointer.previous}" if pointer.previous else ""
    return {
        "active": pointer.id,
        "previous": pointer.previous,
        **pointer.entry,
    }, f"  {pointer.id} is active\n{back}".rstrip()


@_command
def cutover(
    generations: Any,
    generation: Id,
    override: Annotated[
        str | None,
        typer.Option(metavar="WHY", help="Without a decision to ship; the reason is logged."),
    ] = None,
    who: Who = None,
) -> Told:
    """Make a verified generation answer, at once, where a decision ships its model.

    Example: nearer index cutover 1a2b3c4d-1
    """
    return _moved(generations.cutover(generation, override=override, who=who))


@_command
def rollback(
    generations: Any,
    why: Annotated[str | None, typer.Option(metavar="WHY", help="For the history.")] = None,
    who: Who = None,
) -> Told:
    """Make the generation before the last cut-over answer again, at once.

    Example: nearer index rollback --why "latency"
    """
    return _moved(generations.rollback(why=why, who=who))


@_command
def rehearse(
    generations: Any,
    generation: Id,
    query: Annotated[str | None, typer.Option(help="Asked before, between and after.")] = None,
) -> Told:
    """Cut over and roll back on a copy of the pointer, and time both.

    Example: nearer index rehearse 1a2b3c4d-1
    """
    from nearer.embed.fingerprint import PROBES
    from nearer.live.index.reader import rehearse

    told = rehearse(generations, generation, query or PROBES[3])
    asked = "".join(
        f"\n  {one['generation']} answered in {one['ms']:.1f} ms with {one['results']} results"
        for one in told["searches"]
    )
    return (
        told,
        f"  cut-over {told['cutover_ms']:.1f} ms, rollback {told['rollback_ms']:.1f} ms{asked}",
    )


@_command
def sync(
    generations: Any,
    watch: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="Look for changes for ever, so often."),
    ] = None,
) -> Iterable[Told]:
    """Bring generations up to date with the corpus: added, changed and deleted documents.

    Example: nearer index sync --watch 60
    """
    from nearer.data import sources
    from nearer.live.index import sync as syncing

    path: Path = sources.corpus_file(generations.config.data, generations.root)
    rounds = [syncing.sync(generations, _corpus(generations))] if watch is None else None
    for done in rounds or syncing.watch(
        generations, lambda: _corpus(generations), path, float(watch or 0)
    ):
        told = (
            "\n".join(_filled(one) for one in done)
            or "  there is no generation yet\n  → nearer index build"
        )
        yield {"synced": [one.as_dict() for one in done]}, told


@_command
def drop(generations: Any, generation: Id, who: Who = None) -> Told:
    """Remove a generation, unless it is active or needed for a rollback.

    Example: nearer index drop 1a2b3c4d-1
    """
    generations.drop(generation, who=who)
    return {"dropped": [generation]}, f"  {generation} is gone"


@_command
def gc(generations: Any, who: Who = None) -> Told:
    """Remove retired generations that no rollback needs, replaced and deleted documents in parts, and leftovers of kills.

    Example: nearer index gc
    """
    gone, chunks = generations.gc(who=who)
    return {
        "dropped": gone,
        "chunks": chunks,
    }, f"  {len(gone)} generations and {chunks:,} old chunks are gone"


@_command
def repair(
    generations: Any,
    active: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The generation that answers, where history is not clear."),
    ] = None,
) -> Told:
    """Restore damaged state files (ACTIVE, ROLLOUT, .project, history.jsonl) from what history proves.

    Nothing is deleted: what a file held stays beside it as NAME.damaged-N.

    Example: nearer index repair
    """
    from nearer.live.index.repair import repair

    repairs = repair(generations, active)
    lines = [f"  {one.file}: {one.done}" for one in repairs]
    text = "\n".join(lines) or "  nothing is damaged"
    return {"repaired": [one.as_dict() for one in repairs]}, text


@_command
def claim(
    generations: Any,
    copied: Annotated[
        bool, typer.Option("--copied", help="The original goes on: tables of its own for this one.")
    ] = False,
    moved: Annotated[
        bool, typer.Option("--moved", help="The original is gone: its tables belong to this one.")
    ] = False,
    who: Who = None,
) -> Told:
    """Say what a project is whose folder was copied or moved, and whose tables stand elsewhere.

    Example: nearer index claim --copied
    """
    from nearer.errors import ConfigError

    if copied == moved:
        raise ConfigError(
            "say which of the two it is",
            where="nearer index claim",
            next_step="nearer index claim --copied, or nearer index claim --moved",
        )
    identity = generations.claim(copied=copied, who=who)
    text = f"  this is project {identity.id}"
    if copied:
        text += "\n  → nearer index sync loads its generations from their parts"
    return {"project": identity.id, "home": identity.home}, text
