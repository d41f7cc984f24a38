"""The model card: the README.md of a trained model, made of what the run found and nothing else.

It names no path of this machine and holds no text of the user's data.  `train` writes it with what
is known then; `push` and `export` write it again with what `decide` measured since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nearer import config
from nearer.embed.encoder import SentenceEncoder

CARD = "README.md"
#: Settings of training that a card repeats; the others are about this machine or about logging.
_SETTINGS = (
    "epochs",
    "batch_size",
    "warmup",
    "weight_decay",
    "scale",
    "freeze_word_embeddings",
    "patience",
    "seed",
)
_NOT_FOR = (
    "Other domains and languages than those of the training data, unless you measured it there.",
    "Absolute thresholds on the similarity: scores of two models are not comparable.",
    "Searching an index that another model filled, its base model included: embed all documents "
    "again.",
)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made of.

    `summary` is `train/summary.json`, `decision` is `decide/decision.json` where there is one.
    """

    settings: config.Config
    root: Path
    summary: Mapping[str, Any]
    decision: Mapping[str, Any] | None = None

    @property
    def base(self) -> str:
        return public_name(self.settings.model.name, self.root)

    @property
    def data(self) -> str:
        """What the data is called: the last part of its path."""
        data = self.settings.data
        named = data.folder or data.corpus or data.training
        if isinstance(named, tuple):
            named = named[0] if named else None
        return Path(named).name if named else "not named"


def public_name(name: str, root: Path) -> str:
    """A model's name for others: a folder's own name, and a hub's name as it is."""
    path = Path(name)
    is_local = path.is_absolute() or name.startswith((".", "~")) or (root / path).exists()
    if is_local or len(path.parts) > 2:
        return path.name
    return name


def write_card(folder: Path, facts: CardFacts, encoder: SentenceEncoder) -> None:
    """Write the card of the model in `folder`, which `encoder` holds."""
    (folder / CARD).write_text(card(facts, encoder), encoding="utf-8")


def card(facts: CardFacts, encoder: SentenceEncoder) -> str:
    """The text of README.md, with the front matter that hubs read."""
    sections = [
        _front_matter(facts),
        _introduction(facts, encoder),
        _usage(facts, encoder),
        _measures(facts),
        _keeping(facts),
        _not_for(facts),
        _training(facts),
        _identity(facts, encoder),
    ]
    return "\n".join("\n".join(lines) + "\n" for lines in sections)


def _front_matter(facts: CardFacts) -> list[str]:
    values: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "nearer"],
    }
    licence = base_licence(facts.settings.model.name, facts.root)
    if licence is not None:
        values["license"] = licence
    if "/" in facts.base:  # hubs look it up; a folder's name means nothing to them
        values["base_model"] = facts.base
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
    return ["---", text, "---"]


def base_licence(name: str, root: Path) -> str | None:
    """The licence that the base model's own card declares, None where it says nothing."""
    path = root / name / CARD
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    try:
        values = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError:
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return licence if isinstance(licence, str) else None


def _introduction(facts: CardFacts, encoder: SentenceEncoder) -> list[str]:
    licence = base_licence(facts.settings.model.name, facts.root) or "not known to nearer"
    documents = facts.summary.get("distinct_documents")
    queries = facts.summary.get("distinct_queries")
    purpose = f"retrieval in {facts.data}"
    if "pairs" in facts.summary.get("dev", {}):
        purpose = f"the similarity of texts as in {facts.data}"
    return [
        f"# {facts.base}, fine-tuned on {facts.data}",
        "",
        f"A sentence-transformers model that turns texts into vectors of {encoder.dimension} "
        "components, trained to find the relevant documents for a query. It was fine-tuned with "
        "nearer.",
        "",
        f"- **Base model:** {facts.base}",
        f"- **Data:** {facts.data}: {_number(facts.summary.get('examples'))} training examples, "
        f"{_number(queries)} queries, {_number(documents)} documents",
        f"- **Licence of the base model:** {licence}",
        "- **Licence of the data:** not recorded: add it before you share this model",
        f"- **Trained for:** {purpose}, ranked by {encoder.similarity} similarity",
    ]


def _usage(facts: CardFacts, encoder: SentenceEncoder) -> list[str]:
    lines = [
        "## How to use it",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer("PATH_OR_NAME_OF_THIS_MODEL")',
        'queries = model.encode_query(["a query"])',
        'documents = model.encode_document(["a document", "another document"])',
        "scores = model.similarity(queries, documents)",
        "```",
        "",
    ]
    for kind, prompt in (
        ("queries", encoder.prompt("query")),
        ("documents", encoder.prompt("document")),
    ):
        said = f"`{prompt}`" if prompt else "none"
        lines.append(f"- Prompt of {kind}: {said}")
    lines.append("- `encode_query` and `encode_document` add the prompts; `encode` adds none.")
    return lines


def _measures(facts: CardFacts) -> list[str]:
    """Dev as training saw it, then test, where `decide` opened it."""
    dev = facts.summary.get("dev", {})
    measure = dev.get("measure", "")
    lines = ["## Measures", ""]
    if dev.get("after") is None:
        lines.append("Nothing was measured while it trained: there were no dev queries.")
    else:
        lines += [
            "| split | measure | base model | this model | interval |",
            "|---|---|---|---|---|",
        ]
        before, after = _figure(dev.get("before")), _figure(dev["after"])
        size = f"{_number(dev.get('queries'))} queries, {_number(dev.get('documents'))} documents"
        if "pairs" in dev:
            size = f"{_number(dev['pairs'])} scored pairs"
        lines.append(
            f"| dev ({size}) | {measure} | {before} | {after} | {_interval(dev.get('interval'))} |"
        )
        lines += _test_rows(facts.decision)
        lines += [
            "",
            "Dev also chose the checkpoint and the merge weight, so its figure is optimistic.",
        ]
    if facts.decision is None:
        lines.append("Test was not opened when this card was written.")
    lines += _gap(facts.summary.get("gap"))
    return lines


def _test_rows(decision: Mapping[str, Any] | None) -> list[str]:
    """One row per measure of the fine-tuned dense system on test, beside the baseline."""
    if decision is None:
        return []
    today: Mapping[str, Any] = {}
    tuned: Mapping[str, Any] = {}
    for row in decision.get("candidates", ()):
        if row.get("role") == "today":
            today = row
        elif row.get("role") == "candidate" and (not tuned or row.get("system") == "dense"):
            tuned = row
    rows = []
    for name, values in tuned.get("measures", {}).items():
        base = today.get("measures", {}).get(name, {})
        rows.append(
            f"| test ({_number(decision.get('n_queries'))} queries, {tuned.get('system')}) | "
            f"{name} | {_figure(base.get('mean'))} | {_figure(values.get('mean'))} | "
            f"{_interval(values.get('ci'))} |"
        )
    return rows


def _gap(gap: Mapping[str, Any] | None) -> list[str]:
    if not gap:
        return []
    return [
        "",
        f"On {gap['queries']} training queries the same measure is {gap['train']:.3f}, on as many "
        f"dev queries {gap['dev']:.3f}: a gap of {gap['gap']:+.3f}.",
    ]


def _keeping(facts: CardFacts) -> list[str]:
    """General ability and forgetting: what the guardrails and the merge say."""
    lines = ["## General ability and forgetting", ""]
    merge = facts.summary.get("merge", {})
    weight = merge.get("weight")
    if weight is not None:
        lines.append(
            f"- The weights stand {weight:.0%} of the way from the base model to the trained one."
        )
    moved = facts.summary.get("moved", {})
    if "mean_cosine" in moved:
        lines.append(
            "- Mean cosine between its vectors of training texts and the base model's: "
            f"{moved['mean_cosine']:.3f}."
        )
    guardrails = () if facts.decision is None else facts.decision.get("guardrails", ())
    for row in guardrails:
        status = f"- Guardrail {row.get('name')}: {row.get('status')}"
        # The reasons of other statuses may hold queries, which a public card must not show.
        if row.get("status") in ("not measured", "does not apply"):
            lines.append(f"{status} ({row.get('reason')})")
            continue
        bound = _figure(row.get("lower_bound"))
        margin = _figure(row.get("margin"))
        lines.append(f"{status} (lower bound of the change {bound}, margin {margin})")
    if not guardrails:
        lines.append("- What it forgot of everyday language was not measured (`nearer decide`).")
    return lines


def _not_for(facts: CardFacts) -> list[str]:
    lines = ["## What it is not for", ""]
    lines += [f"- {sentence}" for sentence in _NOT_FOR]
    verdict = None if facts.decision is None else facts.decision.get("verdict")
    if verdict is not None and verdict != "ship":
        words = str(verdict).replace("_", " ")
        lines.append(f"- Production as it is: the verdict of its run was “{words}”.")
    return lines


def _training(facts: CardFacts) -> list[str]:
    summary = facts.summary
    settings = summary.get("settings", {})
    rows: list[tuple[str, Any]] = [
        ("loss", summary.get("loss")),
        ("learning rate", summary.get("learning_rate")),
        ("steps", f"{summary.get('steps')}, best at {summary.get('best_step')}"),
        ("maximum length while training", summary.get("max_seq_length")),
        ("precision", summary.get("precision")),
        ("seeds", summary.get("seeds")),
    ]
    rows += [(name.replace("_", " "), settings[name]) for name in _SETTINGS if name in settings]
    return ["## Training", "", *_table(rows)]


def _identity(facts: CardFacts, encoder: SentenceEncoder) -> list[str]:
    fingerprint = facts.summary.get("fingerprint")
    rows: list[tuple[str, Any]] = [
        ("fingerprint", fingerprint),
        ("fingerprint of the base model", facts.summary.get("base_fingerprint")),
        ("dimension", encoder.dimension),
        ("maximum length", encoder.model.max_seq_length),
        ("similarity", encoder.similarity),
    ]
    return [
        "## Identity",
        "",
        *_table(rows),
        "",
        "Vectors of another fingerprint do not belong into one index with these.",
    ]


def _table(rows: Sequence[tuple[str, Any]]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in rows:
        yield f"| {name} | {'–' if value is None else value} |"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _interval(bounds: Any) -> str:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return "–"
    return f"{_figure(bounds[0])} to {_figure(bounds[1])}"
