"""Documents, queries and judgments: reading, splitting, and keeping held-out queries apart.

- sources.py: which files the configuration names; load.py: what they hold, as values
- records.py: rows of any format; fields.py: rows → documents, queries, judgments
- corpus.py: documents with random access; trec.py: runs and judgments; clicks.py: click logs; pairs.py: training files
- texts.py, tables.py, columnar.py: lines, delimited rows and Arrow tables; cells.py, times.py: single values
- near.py: near-duplicate texts; items.py: whether queries are documents; fitting.py: which judgments fit the rest
- splits.py: train, dev and test, frozen to files; heldout.py: opens test, and guards it by hashes
- inspect.py: a summary of data, for `nearer init`; general.py: the built-in general-ability set
"""
