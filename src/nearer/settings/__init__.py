"""The sections of nearer.yaml, one pydantic model per section, by topic.

- base.py: what every section is, and the ranges of numbers
- data.py: where the data lies; system.py: the baseline (model, search, reranking)
- analysis.py: check, evaluate, diagnose and fix; training.py: mine and train; decision.py: decide
- live.py: index, serve, shadow and monitor; review.py: judgments by people
- rag.py: a language model that answers from the results; generate.py: queries made of documents

The default values and descriptions *are* the documentation of the settings.  A new setting is a
field of its section; a new section is a class here and a field of `nearer.config.Config`.
"""
