"""Judges pairs one after the other and prints each id once it is saved, until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

from nearer.review.judgments import JudgmentLog
from review_kit import graded

log = JudgmentLog(Path(sys.argv[1]))
for number in range(100_000):
    entry = graded(f"q{number}", "d", "anna", number % 4, comment="x" * 500)
    log.append([entry])
    sys.stdout.write(f"{entry.id}\n")
    sys.stdout.flush()
