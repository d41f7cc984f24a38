"""Documents, queries and judgments: reading, splitting, and keeping held-out queries apart.

- sources.py: which files the configuration names
- records.py: rows of any format, each with its place in the file
- fields.py: rows → documents, queries, judgments (column names, types, errors)
- corpus.py: documents with random access, in bounded memory
- load.py: the configuration's data as values
- trec.py: TREC runs and judgments; clicks.py: click logs → judgments; pairs.py: plain training files
- near.py: near-duplicate texts; tokens.py: what a model reads of a text
- fitting.py: which judgments fit the documents and queries they speak of
- splits.py: train, dev and test by group or time, frozen to files
- heldout.py: the one door to test, and the guard that knows it only by hashes
- inspect.py: a first look, for `nearer init`; general.py: the built-in guard set
"""
