"""A guardrail: queries that hold codes (CVE-2024-3094, 0x80070005, 12-345) may not lose."""

from __future__ import annotations

import re

import numpy as np

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
from nearer.measure.significance import non_inferior

_CODE = re.compile(r"(?=\S*\d)[A-Za-z0-9][\w./:-]{3,}")


class IdentifierGuardrail:
    """Are exact codes found as well as before?  The margin is that of slices."""

    name = "identifiers"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        scored = evidence.baseline.scores.query_ids
        texts = {query.id: query.text for query in evidence.test.queries}
        with_code = [bool(_CODE.search(texts[query_id])) for query_id in scored]
        if not any(with_code):
            return DoesNotApply("no test query holds a code")
        settings = evidence.settings
        change = evidence.change[np.array(with_code)]
        guard = non_inferior(change, settings.guardrails.slice_margin, settings.alpha)
        return [Row.of(self.name, guard)]
