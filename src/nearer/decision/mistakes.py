"""The common mistakes of fine-tuning for search, each looked for in what this very project saved.

Pure: `mistakes` reads what the stages wrote and says of each mistake that it was not made, that it
was made, or that nobody can say, with the evidence and the command that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import files
from nearer.data.leakage import EXACT, NEAR, Leakage
from nearer.decision.record import CandidateRecord, DecisionRecord
from nearer.records import Record, finite, text

Json = Mapping[str, Any]

NO, MADE, UNKNOWN = "no mistake", "made", "cannot say"
#: Share of wrong positives from which they are noise that training sees.
NOISY = 0.05
#: Share of the examples that may lack a hard negative.
_WITHOUT = 0.5
_LEAKS = {
    EXACT: "repeat a held-out query exactly",
    NEAR: "nearly repeat a held-out query",
}
_NOT_LOOKED = "a decision does not look at production"
_METADATA = ("needs_metadata", "ineligible")
#: Systems without vectors; `item_hybrid` searches those of the base model, as `dense` does.
_WITHOUT_VECTORS = ("bm25", "popularity", "item_knn", "item_hybrid")


@dataclass(frozen=True, kw_only=True)
class Mistake(Record):
    """One line of `mistakes.json`: `answer` is no mistake, made or cannot say."""

    mistake: str = text()
    answer: str = text()
    evidence: str = text()
    next: str = text()  # the command that mends it, or that would tell; empty where there is none


@dataclass(frozen=True, slots=True)
class Production:
    """What production says: the generation that answers, its decision, its shadow, its monitoring."""

    active: str | None = None
    decision: Json | None = None  # by which it answers
    shadow: Json | None = None  # its shadow record
    monitored: str = ""  # the last day that was judged for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What the stages saved; None where a stage did not run or its file is not at hand."""

    decision: DecisionRecord
    evaluation: Json | None = None  # evaluate/summary.json
    diagnosis: Json | None = None  # diagnose/summary.json
    ladder: Json | None = None  # fix/summary.json
    mining: Json | None = None  # mine/summary.json
    leakage: Leakage | None = None  # held-out queries among the training examples
    trained: bool = True
    production: Production | None = None


def mistakes(saved: Saved) -> tuple[Mistake, ...]:
    """Every mistake of the list, in its order."""
    return tuple(check(saved) for check in _CHECKS)


def read_mistakes(path: Path) -> tuple[Mistake, ...]:
    """The lines of `mistakes.json`; none where there is no such file, or nothing of use in it."""
    value = files.read_json(path) if path.is_file() else {}
    values = value if isinstance(value, Mapping) else {}
    return tuple(Mistake.of(row) for row in _objects(values, "mistakes"))


def brief(found: Sequence[Mistake]) -> str:
    """How many were made, in one line, with the names of those that were."""
    made = [row.mistake for row in found if row.answer == MADE]
    unknown = sum(row.answer == UNKNOWN for row in found)
    line = f"common mistakes: {len(made)} of {len(found)} made"
    if made:
        line += f" ({', '.join(made)})"
    if unknown:
        line += f", {unknown} cannot be told yet"
    return line


def _no_baseline(saved: Saved) -> Mistake:
    """Is the candidate compared with what users have, and with plain systems?"""
    name = "no baseline"
    rows = saved.decision.candidates
    today = [row.name for row in rows if row.role == "today"]
    others = [row.name for row in rows if row.role == "baseline"]
    if not today:
        return _made(name, "nothing was compared with today's system", "nearer run --from evaluate")
    if not others and not _plain(today, saved.evaluation):
        why = f"only {today[0]} was measured: no plain system stands beside it"
        return _made(name, why, "nearer evaluate --set 'evaluate.baselines=[bm25, dense]'")
    beside = ", ".join(others) or "the plain systems of evaluate"
    return _fine(name, f"today's system ({today[0]}) was measured, and {beside} beside it")


def _plain(today: Sequence[str], evaluation: Json | None) -> bool:
    """Whether `evaluate` measured a system besides today's."""
    names = [row.get("name") for row in _objects(evaluation, "systems")]
    return any(name not in today for name in names)


def _noisy_positives(saved: Saved) -> Mistake:
    """Were positives that are probably wrong looked for, and does training discount them?"""
    name = "noisy positives"
    mined = saved.mining
    if mined is None or not saved.trained:
        return _unknown(name, "nothing was trained", "nearer mine")
    noise = _object(mined, "noise")
    share, suspects = _number(noise, "share"), _count(mined, "suspects")
    if share is None:
        why = f"wrong positives were not looked for: {noise.get('not_tried', 'nobody looked')}"
        return _unknown(name, why, "nearer mine, with at least 60 judged pairs")
    action = str(noise.get("action", "listed only"))
    seen = f"about {share:.1%} of the positives are wrong, {suspects:,} suspects are {action}"
    if share > NOISY and action == "listed only":
        return _made(
            name, seen, "nearer mine --set mine.noise=downweight, or judge mine/suspects.jsonl"
        )
    return _fine(name, seen)


def _no_hard_negatives(saved: Saved) -> Mistake:
    name = "no hard negatives"
    mined = saved.mining
    if mined is None or not saved.trained:
        return _unknown(name, "nothing was trained", "nearer mine")
    negatives, examples = _object(mined, "negatives"), _count(mined, "examples")
    if not examples or _number(negatives, "without") is None:
        return _unknown(name, "the examples are not counted", "nearer mine --force")
    without = _count(negatives, "without")
    seen = f"{examples - without:,} of {examples:,} examples have a hard negative"
    if without > _WITHOUT * examples:
        return _made(name, seen, "nearer mine --set mine.negatives=1")
    return _fine(name, seen)


def _trained_on_held_out(saved: Saved) -> Mistake:
    name = "training on evaluation examples"
    found = saved.leakage
    if found is None or not saved.trained:
        why = (
            "nothing was trained" if not saved.trained else "the training examples are not at hand"
        )
        return _unknown(name, why, "nearer mine, then nearer decide")
    if found.total:
        kinds = [f"{count:,} {_LEAKS[kind]}" for kind, count in found.held_out.items()]
        why = f"of {found.examples:,} training examples {', '.join(kinds)}"
        return _made(name, why, "nearer mine --force && nearer run --from train")
    seen = f"none of {found.examples:,} training examples repeats a dev or test query, or nearly so"
    leakage = _object(saved.mining, "leakage")
    dropped = sum(_count(leakage, kind) for kind in leakage)
    if dropped:
        seen += f"; mining left out {dropped:,} that were"
    return _fine(name, seen)


def _metadata(saved: Saved) -> Mistake:
    """Is a model trained for what metadata would repair?"""
    name = "fine-tuning for missing metadata"
    if saved.diagnosis is None or "causes" not in saved.diagnosis:
        return _unknown(name, "the failures were not diagnosed", "nearer diagnose")
    causes = _object(saved.diagnosis, "causes")
    total = sum(_count(causes, cause) for cause in causes)
    of_metadata = sum(_count(causes, cause) for cause in _METADATA)
    semantic = _count(causes, "semantic")
    seen = f"{of_metadata:,} of {total:,} failures are about metadata, {semantic:,} are semantic"
    if not of_metadata:
        return _fine(name, seen)
    tried = _tried(saved.ladder, "metadata")
    if tried:
        return _fine(name, f"{seen}; metadata was tried before training ({tried})")
    if saved.trained and of_metadata > semantic:
        return _made(name, f"{seen}, and metadata was not tried", "nearer fix")
    return _unknown(name, f"{seen}, and metadata was not tried", "nearer fix")


def _tried(ladder: Json | None, fix: str) -> str:
    """How a step of the ladder ended: kept, or not kept; empty where it was not tried."""
    for row in _objects(ladder, "rungs"):
        if row.get("fix") == fix and row.get("delta"):
            return "kept" if row.get("kept") else "not kept"
    return ""


def _mixed_spaces(saved: Saved) -> Mistake:
    """Does each system search vectors of its own model, and is it the one that was evaluated?"""
    name = "mixed vector spaces"
    dense = [row for row in saved.decision.candidates if _searches_vectors(row)]
    unmarked = [row.name for row in dense if not row.fingerprint]
    if not dense:
        return _fine(name, "no candidate searches vectors")
    measured = _object(saved.evaluation, "system").get("fingerprint")
    today = [row for row in dense if row.role == "today"]
    if today and _differs(today[0], measured):
        why = f"evaluate measured model {measured}, decide {today[0].fingerprint}"
        return _made(name, f"{why}: the stages speak of two spaces", "nearer run --from evaluate")
    if unmarked:
        why = f"{', '.join(unmarked)} searches outside of nearer, which does not see its vectors"
        return _unknown(name, why, "nearer index build, then nearer index verify ID")
    spaces = len({row.fingerprint for row in dense})
    seen = f"each of {len(dense)} systems searches vectors of its own model ({spaces} fingerprints)"
    return _fine(name, f"{seen}; other vectors are refused")


def _searches_vectors(row: CandidateRecord) -> bool:
    return (row.pipeline or {}).get("system") not in _WITHOUT_VECTORS


def _differs(today: CandidateRecord, measured: Any) -> bool:
    return bool(measured) and bool(today.fingerprint) and measured != today.fingerprint


def _no_shadow(saved: Saved) -> Mistake:
    name = "no shadow test"
    production = saved.production
    if production is None:
        return _unknown(name, _NOT_LOOKED, "nearer mistakes")
    if production.active is None:
        why = "nothing answers in production yet"
        return _unknown(name, why, "nearer shadow start ID, before the cut-over")
    active, decision = production.active, production.decision or {}
    if decision.get("first"):
        why = f"{active} is the first generation, of the model that users had: it replaced nothing"
        return _unknown(name, why, "nearer shadow start ID, before the next cut-over")
    record = production.shadow
    if record is None:
        why = f"{active} answers, and no shadow record speaks for it"
        return _made(
            name, why, "set index.require_shadow, and nearer shadow start before a cut-over"
        )
    if record.get("verdict") != "pass":
        why = f"{active} answers although its shadow record says {record.get('verdict')}"
        return _made(name, why, "nearer index rollback, or nearer shadow report for why")
    return _fine(name, f"the shadow record of {active} passes against {record.get('live')}")


def _no_monitoring(saved: Saved) -> Mistake:
    name = "no monitoring"
    production = saved.production
    if production is None:
        return _unknown(name, _NOT_LOOKED, "nearer mistakes")
    if production.active is None:
        return _unknown(name, "nothing answers in production yet", "nearer monitor, once it does")
    if not production.monitored:
        why = f"{production.active} answers, and no day of it was looked at"
        return _made(name, why, "nearer monitor --gate, once a day")
    return _fine(name, f"{production.active} was looked at last for {production.monitored}")


_CHECKS: tuple[Callable[[Saved], Mistake], ...] = (
    _no_baseline,
    _noisy_positives,
    _no_hard_negatives,
    _trained_on_held_out,
    _metadata,
    _mixed_spaces,
    _no_shadow,
    _no_monitoring,
)


def in_production(found: Sequence[Mistake], production: Production) -> tuple[Mistake, ...]:
    """The same list with what production says now in place of what it said when it was made."""
    now = Saved(decision=DecisionRecord(), production=production)
    fresh = {row.mistake: row for row in (_no_shadow(now), _no_monitoring(now))}
    return tuple(fresh.get(row.mistake, row) for row in found)


def _fine(mistake: str, evidence: str) -> Mistake:
    return Mistake(mistake=mistake, answer=NO, evidence=evidence)


def _made(mistake: str, evidence: str, command: str) -> Mistake:
    return Mistake(mistake=mistake, answer=MADE, evidence=evidence, next=command)


def _unknown(mistake: str, evidence: str, command: str) -> Mistake:
    return Mistake(mistake=mistake, answer=UNKNOWN, evidence=evidence, next=command)


# -- files that somebody else may have written -----------------------------------------------------


def _object(values: Json | None, key: str) -> Json:
    value = (values or {}).get(key)
    return value if isinstance(value, Mapping) else {}


def _objects(values: Json | None, key: str) -> list[Json]:
    value = (values or {}).get(key)
    rows = value if isinstance(value, list | tuple) else ()
    return [row for row in rows if isinstance(row, Mapping)]


def _number(values: Json, key: str) -> float | None:
    return finite(values.get(key))


def _count(values: Json, key: str) -> int:
    return int(_number(values, key) or 0)
