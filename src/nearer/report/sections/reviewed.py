"""What people judged after the data was made, how far they agree, and how the verdict changed by it."""

from __future__ import annotations

from collections.abc import Sequence

from nearer.decision.showing import origin_sentence
from nearer.report import values
from nearer.report.data import ReportData
from nearer.report.values import Json, as_list, as_number, as_object, as_objects, as_text

_MOST = 10  # verdicts


def reviewed(data: ReportData) -> Json | None:
    """None where nobody reviewed anything."""
    counts = as_object(data.check.get("reviewed"))
    summary = as_object(data.reviews.get("summary"))
    if not counts and not summary:
        return None
    by_split = as_object(counts.get("splits"))
    return {
        "counts": values.facts(
            {key: value for key, value in counts.items() if key not in ("splits", "held_out")}
        ),
        "splits": values.facts(by_split),
        "agreement": _agreement(as_object(summary.get("agreement"))),
        "below_chance": _below_chance(summary),
        "pools": _pools(as_object(summary.get("origins"))),
        "judge": _judge(as_object(summary.get("judge"))),
        "disagreements": as_number(summary.get("disagreements")),
        "verdicts": _verdicts(data, as_number(counts.get("held_out"))),
    }


def beside(data: ReportData) -> tuple[str, ...]:
    """What stands beside the verdict: whose queries it rests on, and what reviews made of it."""
    section = reviewed(data)
    behind: list[str] = []
    if section is not None:
        behind = [*section["pools"], section["judge"]]
    return origin_sentence(data.decided), change_of_verdict(data), *behind


def change_of_verdict(data: ReportData) -> str:
    """One sentence on what reviewed judgments made of the verdict; empty where nobody reviewed."""
    section = reviewed(data)
    if section is None or len(section["verdicts"]) < 2:
        return ""
    first, last = section["verdicts"][0], section["verdicts"][-1]
    count = values.whole(last["judgments"])
    if first["verdict"] == last["verdict"]:
        return f"{count} reviewed test judgments leave the verdict as it was: {last['verdict']}."
    return f"{count} reviewed test judgments changed the verdict from {first['verdict']} to {last['verdict']}."


def _verdicts(data: ReportData, n_test: float | None) -> list[Json]:
    """Earlier verdicts of this run with the test judgments that each had, and the present one."""
    rows: list[Json] = []
    history: Sequence[Json] = as_objects(data.reviews.get("history"))
    for row in history[-_MOST:]:
        if row.get("decision") == data.reviews.get("decision"):
            continue
        rows.append(
            {
                "verdict": values.words(str(row.get("verdict"))),
                "judgments": as_number(as_object(row.get("reviewed")).get("held_out")) or 0,
                "sentence": as_text(row.get("sentence"), 300),
            }
        )
    if data.decided.verdict:
        present = {"verdict": values.words(data.decided.verdict), "judgments": n_test or 0}
        rows.append({**present, "sentence": as_text(data.decided.sentence, 300)})
    return rows


def _agreement(agreement: Json) -> str:
    alpha = as_object(agreement.get("alpha"))
    value = as_number(alpha.get("value"))
    if value is None:
        return ""
    interval = values.span([alpha.get("low"), alpha.get("high")])
    pairs = values.whole(alpha.get("n"))
    return f"Krippendorff's alpha {values.fixed(value)} ({interval}) on {pairs} pairs that two or more people graded"


def _pools(origins: Json) -> list[str]:
    """Which pools the judgments are of, as sentences."""
    sentences = []
    for pool in as_objects(origins.get("pools")):
        name, source = as_text(pool.get("name"), 64), as_text(pool.get("source"), 200)
        sentences.append(
            f"{values.whole(pool.get('judged'))} judged pairs are of the pool {name} (of {source}), "
            f"which gives {values.whole(pool.get('test_queries'))} test queries."
        )
    if sentences:
        sentences.append(f"{values.whole(origins.get('of_no_pool'))} judged pairs are of no pool.")
    return sentences


def _judge(judge: Json) -> str:
    """Which judge was compared with people, and what it is worth; empty where none was."""
    name = as_text(judge.get("judge"), 200)
    if not name:
        return ""
    agreed = as_object(judge.get("agreement"))
    worth = f"not defined on {values.whole(agreed.get('n'))} shared pairs"
    if as_number(agreed.get("value")) is not None:
        interval = values.span([agreed.get("low"), agreed.get("high")])
        worth = (
            f"{values.fixed(agreed.get('value'))} ({interval}) on {values.whole(agreed.get('n'))} "
            "shared pairs"
        )
    return f"The judge {name} agrees with people by kappa {worth}; its grades decide nothing."


def _below_chance(summary: Json) -> list[str]:
    names = as_object(summary.get("agreement")).get("below_chance")
    return [as_text(name, 64) for name in as_list(names)]
