"""Which decision permits a generation to answer: the verdict ships, and this is the model it speaks of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nearer.decision.record import CandidateRecord, DecisionRecord, Permission
from nearer.decision.sign_off import SignOff, is_void, standing
from nearer.embed.compress import Compression
from nearer.embed.fingerprint import Fingerprint
from nearer.errors import StoreError
from nearer.files import content_hash, read_json
from nearer.live.index.manifest import Manifest
from nearer.live.index.state import read_state
from nearer.search.pipeline import Pipeline


def permission(
    root: Path, run: str, manifest: Manifest, *, first: bool, needs_sign_off: bool = False
) -> Permission:
    """What `decide` of a run wrote about the model of a generation.

    `first` says that no generation is active yet; then the configured model needs no decision.
    `needs_sign_off`: a person must have approved the decision as it stands.
    Raises StoreError where no decision permits that this generation answers.
    """
    if first and manifest.model["today"]:
        return Permission(first=True)  # the configured model is what everything is compared with
    path = root / "runs" / run / "decide" / "decision.json"
    decided = _shipping_record(path, run, manifest)
    chosen = decided.chosen or CandidateRecord()
    differences = _other_model(chosen, manifest.fingerprint, str(path))
    if differences:
        what = f"the decision ships model {chosen.fingerprint}, {manifest.id} was made by another: {manifest.model['name']}"
        raise StoreError(
            f"{what} ({differences})",
            where=str(path),
            next_step=f"nearer index build --model {_model_of(chosen, run)}",
        )
    pipeline = Pipeline.from_dict(chosen.pipeline or {})
    _require_form(manifest, pipeline, str(path))
    approval = _approval(path, run, needed=needs_sign_off)
    return Permission(
        path=str(path.relative_to(root)),
        hash=content_hash(path),
        verdict=decided.verdict,
        pipeline=pipeline.as_dict(),
        reranker=chosen.reranker,
        sign_off=None if approval is None else approval.as_dict(),
    )


def _approval(path: Path, run: str, needed: bool) -> SignOff | None:
    """The person's approval of the decision at `path`.  Raises StoreError where one is needed."""
    record = read_json(path)
    approval = standing(record)
    if approval is None and needed:
        what = "nobody has signed the decision off"
        if is_void(record):
            what = "the sign-off is not of this decision: it was made for an older or another one"
        raise StoreError(
            f"{what} (decide.require_sign_off)",
            where=str(path),
            next_step=f"nearer sign-off --by NAME --run {run}, or cut over with --override WHY",
        )
    return approval


def _shipping_record(path: Path, run: str, manifest: Manifest) -> DecisionRecord:
    mend = f"nearer decide --run {run}, or cut over with --override WHY"
    if not path.is_file():
        raise StoreError(f"no decision speaks for {manifest.id}", where=str(path), next_step=mend)
    keys = {"verdict": str, "candidates": list, "recommended": object}
    decided = DecisionRecord.of(read_state(path, keys, mend))
    if not decided.ships:
        raise StoreError(
            f"the verdict is {decided.verdict}: it ships nothing", where=str(path), next_step=mend
        )
    return decided


def _require_form(manifest: Manifest, pipeline: Pipeline, where: str) -> None:
    """Raise StoreError unless chunks and vectors are kept as they were judged.

    Where whole vectors were judged, smaller ones are the team's own choice: `fix` says what they cost.
    """
    whole = manifest.dimension == manifest.fingerprint.dimension
    dimension = None if whole else manifest.dimension
    kept = str(Compression(manifest.dtype, dimension))  # type: ignore[arg-type]  # validated by config
    forms = (
        ("chunks", pipeline.chunker, manifest.chunker),
        ("vectors", pipeline.compression, kept),
    )
    for what, judged, built in forms:
        if judged not in (built, "float32"):
            raise StoreError(
                f"the decision judged {what} {judged}, {manifest.id} was built with {built}",
                where=where,
                next_step="set index.chunker, index.dtype and index.dimension in nearer.yaml as decided, then nearer index build",
            )


def _other_model(chosen: CandidateRecord, own: Fingerprint, where: str) -> str:
    """What tells the model of a decision from that of a generation, in words; empty when it is the same.

    The precision may differ: a model is judged on one machine and embeds on another.  A decision
    that an earlier version wrote holds the id alone, perhaps one of version 1.
    """
    if chosen.identity is not None:
        judged = Fingerprint.from_dict(chosen.identity, where)
        return "; ".join(judged.differences(own, ignoring=("chunker", "precision")))
    for known in filter(None, (own, own.by_version_1())):
        for precision in ("fp32", "bf16"):
            if replace(known, chunker=None, precision=precision).id == chosen.fingerprint:
                return ""
    return f"fingerprint {replace(own, chunker=None).id}"


def _model_of(candidate: CandidateRecord, run: str) -> str:
    """What `index build --model` takes for a candidate of a decision."""
    named = (candidate.pipeline or {}).get("model")
    if named:
        return str(named)
    if candidate.role == "candidate":
        return f"runs/{run}/train/model"
    return str(candidate.model)
