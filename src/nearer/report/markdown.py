"""report.md: the decision for a pull request, in tables that GitHub and GitLab draw.

It stays under 200 lines whatever a run holds: every table has a largest number of rows, and what
went wrong stands in the rows that are kept.
"""

from __future__ import annotations

import re

from nearer.decision.record import CandidateRecord, DecisionRecord
from nearer.decision.showing import query_lines
from nearer.report import content, repeat
from nearer.report.data import ReportData
from nearer.report.markdown_text import plain, table, titled
from nearer.report.sections import guardrails, mistakes, pays, task, terms
from nearer.report.sections.browser import browsed, counts
from nearer.report.sections.frontiers import best_of, merge_points, systems_of
from nearer.report.sections.neighbours import moved
from nearer.report.sections.reading import reading
from nearer.report.sections.reviewed import beside
from nearer.report.sections.searched import searched
from nearer.report.values import (
    DASH,
    Json,
    as_object,
    as_text,
    fixed,
    p_value,
    signed,
    size,
    span,
    whole,
)

MAX_REASONS = 10
MAX_CANDIDATES = 12
MAX_MEASURES = 5
MAX_COMPARISONS = 6
MAX_CAUSES = 8
MAX_FIX_STEPS = 8
MAX_GUARDRAILS = 12
MAX_SLICES = 6
MAX_TRIALS = 6
MAX_RAG_ROWS = 6
MAX_FRONTIER = 5
MAX_TERMS = 6
MAX_QUERY_LINES = 6
MAX_TASK_ROWS = 10
MAX_TASK_COLUMNS = 12

#: Statuses of a guardrail that say nothing without their reason.
_WITH_REASON = ("not measured", "does not apply")
_MARKS = {"good": "✅", "warn": "⚠️", "bad": "❌", "none": "▫️"}


def render(data: ReportData) -> str:
    """The decision as Markdown."""
    decided = data.decided
    word, tone = content.badge(decided)
    sentence = plain(decided.sentence, 600) or "This run has not been decided yet."
    lines = [
        f"## {_MARKS[tone]} {word}",
        "",
        sentence,
        "",
        *(f"- {plain(reason, 500)}" for reason in decided.reasons[:MAX_REASONS]),
        *(f"- {plain(text, 500)}" for text in beside(data) if text),
        "",
        *_candidates(decided),
        *_comparisons(decided),
        *_failures(data.diagnosis),
        *_fixes(data),
        *_training(data.training),
        *_guardrails(decided),
        *_slices(decided),
        *_task(data),
        *_language_model(data),
        *_costs(data),
        *_changes(data),
        *_terms(data.diagnosis),
        *_mistakes(data),
        *_pays(decided),
        *_queries(decided),
        *_repeat(data),
    ]
    return "\n".join(lines) + "\n"


def _candidates(decided: DecisionRecord) -> list[str]:
    measures = content.measure_names(decided)[:MAX_MEASURES]
    primary = content.primary(decided)
    rows = []
    for row in decided.candidates[:MAX_CANDIDATES]:
        figures = [fixed(row.mean(measure)) for measure in measures]
        median = fixed(None if row.latency is None else row.latency.p50_ms, 1)
        interval = span(row.measures[primary].ci if primary in row.measures else None)
        rows.append([_system(row, decided), *figures, interval, median])
    level = content.level(decided)
    header = ["System"]
    header += [plain(measure, 30) for measure in measures]
    header += [f"{level}% of {plain(primary, 30)}", "p50 ms"]
    return table(header, rows)


def _system(row: CandidateRecord, decided: DecisionRecord) -> str:
    """Name of a candidate, and whether it is the baseline or recommended."""
    name = plain(row.name, 60) or DASH
    recommended = row.name == decided.recommended
    if row.role == "today":
        return f"{name} (today, stays)" if recommended else f"{name} (today)"
    if recommended:
        return f"**{name}** (recommended)"
    return name


def _comparisons(decided: DecisionRecord) -> list[str]:
    """One line per comparison; the one that the verdict rests on stands first."""
    head = content.headline(decided)
    level = content.level(decided)
    rows = [row for row in decided.comparisons if row.delta is not None]
    rows.sort(key=lambda row: row is not head)
    lines = []
    for row in rows[:MAX_COMPARISONS]:
        names = f"{plain(row.candidate, 60)} against {plain(row.baseline, 60)}"
        gain = f"**{signed(row.delta)}** {plain(row.measure, 30)}"
        interval = span(row.ci, signed)
        evidence = f"{level}% interval {interval}, p {p_value(row.p)}"
        better, same, worse = whole(row.wins), whole(row.ties), whole(row.losses)
        counts = f"{whole(row.n)} queries, {better} better, {same} same, {worse} worse"
        lines.append(f"- {names}: {gain} ({evidence}) over {counts}")
    return [*lines, ""]


def _failures(diagnosis: Json) -> list[str]:
    rows = []
    for row in content.causes(diagnosis)[:MAX_CAUSES]:
        name = plain(row["name"])
        remedy = plain(row.get("remedy"))
        failures = whole(row["failures"])
        share = f"{row['share']:.0%}"
        rows.append([name, remedy, failures, share])
    if not rows:
        return []
    cells = table(["Cause", "Remedy", "Failures", "Share"], rows, left=2)
    sentence = plain(content.failures_sentence(diagnosis), 800)
    return titled("Why queries fail", [sentence, "", *cells])


def _fixes(data: ReportData) -> list[str]:
    level = content.level(data.decided)
    sentence = plain(content.fixes_sentence(data.fixes, level), 800)
    if not sentence:
        return []
    rows = []
    for row in content.fix_steps(data.fixes)[:MAX_FIX_STEPS]:
        name = plain(row["name"], 40)
        label = plain(row.get("label"))
        gain = signed(row["gain"])
        interval = span(row["ci"], signed)
        repaired = whole(row.get("repaired"))
        broken = whole(row.get("broken"))
        rows.append(
            [
                name,
                label,
                gain,
                interval,
                f"{repaired} / {broken}",
                row["share"],
                row["kept"] or DASH,
            ]
        )
    header = ["Fix", "At its best", "Gain", "Interval"]
    header += ["Repaired / broken", "Failures repaired", "Kept"]
    cells = table(header, rows, left=2)
    return titled("Simpler fixes", [sentence, "", *cells])


def _training(summary: Json) -> list[str]:
    """Which settings a search tried."""
    search = searched(summary)
    if search is None:
        return []
    rows = []
    for number, label, seconds, steps, dev, chosen in search["rows"][:MAX_TRIALS]:
        name = plain(label)
        rows.append([f"**{name}**" if chosen else name, number, seconds, steps, plain(dev)])
    header = ["Settings tried", "Round", "Time", "Steps", plain(search["measure"], 30)]
    taken = f"Taken: {plain(search['chosen'])} ({plain(search['reason'])})."
    return titled("Training", [*table(header, rows), taken, ""])


def _guardrails(decided: DecisionRecord) -> list[str]:
    rows = []
    # What did not pass stands first, and is never in the part that is cut.
    for row in guardrails(decided)[:MAX_GUARDRAILS]:
        tone = content.STATUS.get(str(row["status"]), "none")
        name = plain(row["name"], 80)
        status = plain(row["status"], 20) or DASH
        figures = [
            row["delta"],
            row["lower_bound"],
            row["margin"],
            row["needed"],
        ]
        if row["status"] in _WITH_REASON and row["why"]:
            status = f"{status}: {plain(row['why'], 200)}"
        rows.append([f"{_MARKS[tone]} {name}", status, *figures])
    header = ["Guardrail", "Status", "Change", "Lower bound", "Allowed", "Queries needed"]
    return titled("Guardrails", table(header, rows))


def _slices(decided: DecisionRecord) -> list[str]:
    """The slices that changed most, in either direction."""
    changed = content.changed_slices(decided)
    changed.sort(key=lambda row: -abs(content.measured_change(row)))
    rows = []
    for row in changed[:MAX_SLICES]:
        name = plain(row.slice, 60)
        interval = span(row.ci, signed)
        rows.append([name, whole(row.n), signed(row.delta), interval, p_value(row.p_holm)])
    level = content.level(decided)
    header = ["Slice", "Queries", "Change", f"{level}% interval", "Holm p"]
    return titled("Slices that moved most", table(header, rows))


def _task(data: ReportData) -> list[str]:
    """The first table of the task: its measures by system."""
    section = task(data)
    if section is None or not section["sheets"]:
        return []
    first = section["sheets"][0]
    rows = []
    for row in first["rows"][:MAX_TASK_ROWS]:
        rows.append([plain(cell["text"], 60) for cell in row[:MAX_TASK_COLUMNS]])
    header = [plain(name, 30) for name in first["columns"][:MAX_TASK_COLUMNS]]
    lead = f"On the {section['on']} queries: {plain(first['lead'], 600)}"
    lines = [lead, "", *table(header, rows)]
    if section["people"]:
        lines += [f"Odd one out, by people. {plain('. '.join(section['people']), 600)}.", ""]
    return titled(plain(section["title"], 60), lines)


def _language_model(data: ReportData) -> list[str]:
    """Contexts and answers of the compared systems, and what was not tried."""
    section = reading(data)
    if section is None:
        return []
    rows = []
    for row in section["rows"]:
        names = [plain(row["measure"], 40), plain(row["outcome"], 20)]
        rows.append([*names, row["delta"], row["interval"], row["n"]])
    header = ["Measure", "Outcome", "Change", "Interval", "Questions"]
    lines = table(header, rows[:MAX_RAG_ROWS], left=2)
    for sentence in (section["finding"], section["judge"]):
        if sentence:
            lines += [plain(sentence, 800), ""]
    for line in section["not_tried"][:3]:
        lines += [f"Not tried: {plain(line, 500)}", ""]
    return titled("What a language model makes of it", lines)


def _costs(data: ReportData) -> list[str]:
    """The systems that nothing beats in gain and latency, or in gain and size, and forgetting."""
    systems = systems_of(data)
    fast, small = best_of(systems, "milliseconds"), best_of(systems, "size")
    rows = []
    for system in systems:
        if system.number in fast | small:
            kinds = [
                name for name, best in (("latency", fast), ("size", small)) if system.number in best
            ]
            figures = [signed(system.gain), fixed(system.milliseconds, 1), size(system.size)]
            rows.append([plain(system.name, 80), system.queries, ", ".join(kinds), *figures])
    header = ["Nothing beats", "Queries", "In", "Gain", "p50 ms", "Index"]
    lines = table(header, rows[:MAX_FRONTIER], left=3)
    kept = [point for point in merge_points(data.training) if point["kept"]]
    for point in kept[:1]:
        sentence = (
            f"The model that was kept went {point['weight']:.0%} of the way from its base: "
            f"{signed(point['gain'])} on dev, {signed(point['general'])} on general questions."
        )
        lines += [plain(sentence, 300), ""]
    return titled("What a gain costs", lines)


def _changes(data: ReportData) -> list[str]:
    """How many queries changed, and how similarities did, in two sentences."""
    lines = []
    queries = browsed(data)["queries"]
    if queries:
        counted = counts(queries)
        better, same, worse = (whole(counted[key]) for key in ("better", "same", "worse"))
        flips = f"{whole(counted['lost'])} lost all they had, {whole(counted['found'])} found something where there was nothing"
        lines += [f"{better} better, {same} the same, {worse} worse; {flips}.", ""]
    sentence = moved(data.neighbours)
    if sentence:
        lines += [plain(sentence, 300), ""]
    return titled("Queries before and after", lines)


def _terms(diagnosis: Json) -> list[str]:
    section = terms(diagnosis)
    if section is None:
        return []
    rows = []
    for row in section["rows"][:MAX_TERMS]:
        queries = f"{whole(row['failing'])} / {whole(row['queries'])}"
        evidence = plain(row["evidence"], 200)
        rows.append([plain(row["term"], 60), plain(row["kind"], 40), evidence, queries])
    header = ["Term", "Kind", "Evidence", "Failing / queries"]
    return titled("Domain terms", [plain(section["lead"], 400), "", *table(header, rows, left=3)])


def _mistakes(data: ReportData) -> list[str]:
    section = mistakes(data)
    if section is None:
        return []
    lines = []
    for row in section["rows"]:
        if row["tone"] == "good":
            continue  # the sentence counts them
        mend = f" → {plain(row['next'], 160)}" if row["next"] else ""
        answer = (
            f"{_MARKS[row['tone']]} {plain(row['mistake'], 60)}: **{plain(row['answer'], 20)}**"
        )
        lines.append(f"- {answer}. {plain(row['evidence'], 300)}{mend}")
    return titled("Common mistakes", [plain(section["lead"], 300), "", *lines, ""])


def _pays(decided: DecisionRecord) -> list[str]:
    section = pays(decided)
    if section is None:
        return []
    answer = f"**{plain(section['answer'], 20)}**: {plain(section['why'], 600)}"
    changes = "; ".join(plain(change, 160) for change in section["changes"])
    lines = [answer, ""]
    if changes:
        lines += [f"In production: {changes}. Back: {plain(section['rollback'], 200)}.", ""]
    return titled("Does it pay?", lines)


def _queries(decided: DecisionRecord) -> list[str]:
    """What a mean hides: clusters, flips, unjudged results, named queries."""
    lines = [f"- {plain(line, 400)}" for line in query_lines(decided)[:MAX_QUERY_LINES]]
    for row in (decided.requests or ())[:1]:
        interval = span(row.ci, signed)
        change = f"{signed(row.delta)} ({interval})"
        name = plain(row.candidate, 60)
        lines.append(f"- {name}, counted as often as users ask: {change}")
    return titled("Queries that matter", [*lines, ""] if lines else [])


def _repeat(data: ReportData) -> list[str]:
    # Code spans show backslashes, so the name is cleaned instead of escaped.
    command = re.sub(r"[`\s]+", " ", repeat.command(data))
    looks = data.decided.test_looks
    notes = []
    seeds = []
    for name, seed in repeat.seeds(data).items():
        seeds.append(f"{plain(name)} {plain(seed)}")
    if seeds:
        notes.append(f"seeds: {', '.join(seeds)}")
    if looks:
        notes.append(f"test set opened: {whole(looks)}×")
    steps = _step_fingerprints(data)
    if steps:
        notes.append(f"steps: {', '.join(steps)}")
    versions = []
    for name, version in data.versions.items():
        versions.append(f"{plain(name, 40)} {plain(version, 40)}")
    if versions:
        notes.append(f"versions: {', '.join(versions)}")
    return ["### Repeat", "", f"`{command}`", "", " · ".join(notes)]


def _step_fingerprints(data: ReportData) -> list[str]:
    """Name and shortened fingerprint of each step that has one."""
    steps = []
    for name, record in data.steps.items():
        fingerprint = as_text(as_object(record).get("fingerprint"), 64)
        fingerprint = re.sub(r"\W", "", fingerprint)[:12]
        if fingerprint:
            steps.append(f"{plain(name, 20)} `{fingerprint}`")
    return steps
