"""Queries that documents could answer, where nobody has asked yet: `nearer generate`.

`base.py` is the seam of generators; `local.py` needs no endpoint, `chat.py` asks a language model.
What they propose is filtered (`filters.py`) and written with every refusal (`result.py`).  How the
splits take generated queries in stands in `nearer.data.generated`.
"""
