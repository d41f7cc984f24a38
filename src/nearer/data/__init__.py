"""Documents, queries and judgments: reading, splitting, and keeping held-out queries apart.

- sources.py: which files the configuration names; load.py: what they hold, as values
- inputs.py: what each stage reads from outside its run; sizes.py: how much data there is, and what it can show
- records.py: rows of any format; fields.py: rows → documents, queries, judgments
- corpus.py: documents with random access; trec.py: runs and judgments; clicks.py: click logs; pairs.py: training files
- texts.py, tables.py, columnar.py: lines, delimited rows and Arrow tables; cells.py, times.py: single values
- near.py: near-duplicate texts; items.py: whether queries are documents; fitting.py: which judgments fit the rest
- clusters.py: which queries hang together; named.py, importance.py: queries that matter more
- scored.py: held-out scored pairs; interactions.py: who engaged with what; reviewed.py: later judgments
- leakage.py: test queries among the training examples; missing.py: relevant documents that are not there
- splits.py: train, dev and test, frozen to files; heldout.py: opens test, and guards it by hashes
- inspect.py: a summary of data, for `nearer init`; general.py: the built-in general-ability set
"""
