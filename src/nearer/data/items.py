"""Whether queries are documents (item to item: "more like this one"), decided here for every stage.

In item-to-item data an item is left out of its own results and judgments.  The setting
`data.item_to_item` decides; without it `check` looks at the data and writes down what it noticed,
and everything after it obeys that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nearer.data import near
from nearer.data.corpus import Corpus
from nearer.files import read_json
from nearer.types import Judgments, Query

FINDINGS = "check/findings.json"  # where `check` writes down, below a run, what it noticed
SETTING = "data.item_to_item"
_MOST = 0.9  # share of the judged queries of which something must be true
_LOOKED_AT = 200  # queries whose text is compared with that of their document


class Noticed(NamedTuple):
    """The decision, and the counts it rests on.

    `same_ids` of `judged` queries have the id of a document; `by_setting` says that nobody guessed.
    """

    item_to_item: bool
    judged: int
    same_ids: int
    by_setting: bool

    @property
    def coincide(self) -> bool:
        """Whether the ids of queries and documents are mostly the same."""
        return self.judged > 0 and self.same_ids >= _MOST * self.judged


def notice(
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Judgments],
    setting: bool | None,
) -> Noticed:
    """Decide on the data: `setting` where it is given; else ids, texts and judgments must all agree.

    The ids of judged queries are those of documents, and so are their texts.  Where queries are
    answered by the document with their own id (a FAQ in which entry n answers question n), they
    are only items when the text is the whole document and other documents are relevant as well.
    """
    ids = {query_id for graded in judgments.values() for query_id in graded if query_id in queries}
    both = sorted(query_id for query_id in ids if query_id in corpus)
    noticed = Noticed(bool(setting), len(ids), len(both), setting is not None)
    if setting is not None or not noticed.coincide:
        return noticed
    relevant: dict[str, set[str]] = {}
    for graded in judgments.values():
        for query_id, docs in graded.items():
            relevant.setdefault(query_id, set()).update(d for d, grade in docs.items() if grade > 0)
    answered_by_itself = [query_id for query_id in both if query_id in relevant[query_id]]
    looked_at = both[:: max(1, len(both) // _LOOKED_AT)]
    if len(answered_by_itself) <= (1 - _MOST) * len(both):
        return noticed._replace(item_to_item=_mostly(_share_text, looked_at, queries, corpus))
    with_others = [query_id for query_id in both if relevant[query_id] - {query_id}]
    same = _mostly(_are_one_text, looked_at, queries, corpus)
    return noticed._replace(item_to_item=same and len(with_others) >= _MOST * len(both))


def _mostly(
    test: Callable[[str, str, str], bool],
    ids: Sequence[str],
    queries: Mapping[str, Query],
    corpus: Corpus,
) -> bool:
    """Whether a test of the normalised texts of query and document holds for most ids."""
    passed = 0
    for query_id in ids:
        asked = near.normalise(queries[query_id].text)
        document = corpus[corpus.position(query_id)]
        passed += bool(asked) and test(asked, near.normalise(document.content), document.text)
    return passed >= _MOST * len(ids)


def _share_text(asked: str, content: str, _: str) -> bool:
    """Whether one text begins at a word of the other: titles and cut texts are parts of their document."""
    return f" {asked}" in f" {content}" or (bool(content) and f" {content}" in f" {asked}")


def _are_one_text(asked: str, content: str, text: str) -> bool:
    return asked in (content, near.normalise(text))


def decided(setting: bool | None, run: Path) -> bool:
    """Whether queries are documents: by the setting, else as `check` noticed it in the folder of a run.

    Where `check` has not looked yet, queries are not documents.
    """
    if setting is not None:
        return setting
    path = run / FINDINGS
    return bool(read_json(path).get("item_to_item", False)) if path.is_file() else False
