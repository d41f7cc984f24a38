"""Base model: other embedding models, and smaller vectors of the configured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearer import shortlist
from nearer.embed.compress import Compression
from nearer.fixes.base import Absence, Fix
from nearer.search.languages import across_languages
from nearer.search.others import Untried
from nearer.search.pipeline import Pipeline
from nearer.search.slices import relevant_texts
from nearer.search.systems import Systems
from nearer.types import Split

#: Queries across languages from which a multilingual model is a fix that applies.
_SEVERAL, _SHARE = 5, 0.05


class BaseModel(Fix):
    name = "base_model"
    needs = "the corpus embedded again"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if not base.dense or base.model is not None:
            return []
        pipelines = []
        for model in systems.others.names:
            chunker = "document" if systems.reads_whole(model) else base.chunker
            pipelines.append(replace(base.over(model), chunker=chunker))
        dimension = systems.encoder.dimension
        for text in self.settings.fix.compressions:
            # A model of 300 dimensions keeps 296 bits: they are counted in bytes.
            compression = Compression.parse(text).in_whole_bytes(dimension)
            if compression is not None and str(compression) != base.compression:
                pipelines.append(replace(base, compression=str(compression), weight=None))
        return pipelines

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if not base.dense:
            return Absence(self.name, f"{base.system} searches no vectors of ours")
        return self._no_model(systems.others.untried)

    def left_out(self, base: Pipeline, systems: Systems, dev: Split) -> list[Absence]:
        """Models that were not tried.

        Smaller vectors are measured under the same name, but they are no other model: where no other
        model was tried the fix was not.
        """
        if not base.dense:
            return []
        others = systems.others
        if not others.usable:
            return [self._no_model(others.untried)]
        left_out = [
            Absence(self.name, one.why, f"nearer fix --set '{one.setting}'", part=True)
            for one in others.untried
        ]
        across = self._across_languages(systems, dev)
        return left_out if across is None else [across, *left_out]

    def _across_languages(self, systems: Systems, dev: Split) -> Absence | None:
        """Queries in one language and documents in another, where no model for both was tried.

        A model that the user named, and that no line of the shortlist describes, counts as one.
        """
        own = shortlist.listed(systems.config.model.name)
        if own is not None and own.multilingual:
            return None
        for model in systems.others.usable:
            if model.multilingual or not (model.automatic or shortlist.listed(model.name)):
                return None
        grade = systems.config.data.min_grade
        texts = relevant_texts(dev, systems.corpus, grade)
        across = across_languages(dev.queries, dev.judgments, texts, grade)
        count = sum(map(len, across.values()))
        if count < _SEVERAL or count < _SHARE * len(dev.queries):
            return None
        pairs = ", ".join(f"{name}: {len(ids)}" for name, ids in across.items())
        first = next(model for model in shortlist.encoders() if model.multilingual)
        why = (
            f"{count} of {len(dev.queries)} dev queries are in another language than their "
            f"documents ({pairs}), and no multilingual model is here"
        )
        return Absence(self.name, why, f"nearer fix --set 'fix.models=[auto,{first.name}]'")

    def _no_model(self, untried: Sequence[Untried]) -> Absence:
        if not untried:
            step = "nearer fix --set 'fix.models=[FOLDER]'"
            return Absence(self.name, "no other embedding model is named (fix.models)", step)
        reasons = "; ".join(one.why for one in untried)
        why = f"no other embedding model could be tried (fix.models): {reasons}"
        return Absence(self.name, why, f"nearer fix --set '{untried[0].setting}'")
