"""Documents, queries and judgments: reading, splitting, and keeping held-out queries apart.

- sources.py: which files the configuration names; load.py: what they hold, as values
- records.py: rows of any format; fields.py: rows → documents, queries, judgments
- corpus.py: documents with random access; trec.py: runs and judgments; clicks.py: click logs; pairs.py: training files
- near.py: near-duplicate texts; tokens.py: what a model reads of a text; fitting.py: which judgments fit the rest
- splits.py: train, dev and test, frozen to files; heldout.py: the one door to test, and the guard that knows it by hashes
- inspect.py: a first look, for `nearer init`; general.py: the built-in guard set
"""
