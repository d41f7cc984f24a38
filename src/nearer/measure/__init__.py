"""Measures, comparisons and decisions as pure functions: no files, no clock, random numbers handed in.

- metrics.py: per-query measures; slices.py: groups of queries; margins.py: similarity margins
- significance.py: paired comparisons and guardrails; bounded.py: the confidence bounds behind them
- verdict.py: the rule that decides; checklist.py: the questions of a decision
- rollout.py: tests on live traffic; drift/: today against a reference
"""
