"""Whether queries are documents (item to item: "more like this one"), decided here for every stage.

In item-to-item data an item is left out of its own results and judgments.  The setting
`data.item_to_item` decides; without it `check` decides from the data and writes the decision down,
and every later stage follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nearer.data import near
from nearer.data.corpus import Corpus
from nearer.files import read_json
from nearer.types import Document, Judgments, Query

FINDINGS = "check/findings.json"  # where `check` writes down, below a run, what it noticed
SETTING = "data.item_to_item"
#: Key of a query's metadata: the items that somebody engaged with, where a history is the query.
HISTORY = "history"
#: Key of a training query's metadata: items that it met in the log, too seldom to be related.
MET = "met_in_log"
_MOST = 0.9  # share of the judged queries of which something must be true
_LOOKED_AT = 200  # queries whose text is compared with that of their document

_Test = Callable[[str, Document], bool]  # of a normalised query and the document with its id


class Noticed(NamedTuple):
    """The decision, and the counts it rests on.

    `same_ids` of `judged` queries have the id of a document; `by_setting`: the setting decided.
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
    relevant = _relevant_documents(judgments)
    judged = [query_id for query_id in relevant if query_id in queries]
    both = sorted(query_id for query_id in judged if query_id in corpus)
    noticed = Noticed(
        item_to_item=bool(setting),
        judged=len(judged),
        same_ids=len(both),
        by_setting=setting is not None,
    )
    if setting is not None or not noticed.coincide:
        return noticed
    step = max(1, len(both) // _LOOKED_AT)
    looked_at = both[::step]
    answered_by_itself = [query_id for query_id in both if query_id in relevant[query_id]]
    if len(answered_by_itself) <= (1 - _MOST) * len(both):
        same = _mostly(_share_text, looked_at, queries, corpus)
        return noticed._replace(item_to_item=same)
    with_others = [query_id for query_id in both if relevant[query_id] - {query_id}]
    same = _mostly(_are_one_text, looked_at, queries, corpus)
    enough = len(with_others) >= _MOST * len(both)
    return noticed._replace(item_to_item=same and enough)


def _relevant_documents(judgments: Mapping[str, Judgments]) -> dict[str, set[str]]:
    """Relevant documents of every judged query, in all splits together."""
    relevant: dict[str, set[str]] = {}
    for graded in judgments.values():
        for query_id, grades in graded.items():
            doc_ids = relevant.setdefault(query_id, set())
            doc_ids.update(doc_id for doc_id, grade in grades.items() if grade > 0)
    return relevant


def _mostly(
    test: _Test,
    ids: Sequence[str],
    queries: Mapping[str, Query],
    corpus: Corpus,
) -> bool:
    """Whether a test of query and document holds for most ids."""
    passed = 0
    for query_id in ids:
        query = near.normalise(queries[query_id].text)
        document = corpus[corpus.position(query_id)]
        if query and test(query, document):
            passed += 1
    return passed >= _MOST * len(ids)


def _share_text(query: str, document: Document) -> bool:
    """Whether one text begins at a word of the other: titles and cut texts are parts of their document."""
    content = near.normalise(document.content)
    if f" {query}" in f" {content}":
        return True
    return bool(content) and f" {content}" in f" {query}"


def _are_one_text(query: str, document: Document) -> bool:
    return query in (near.normalise(document.content), near.normalise(document.text))


def history_of(query: Query) -> tuple[str, ...]:
    """Ids of the items that a query of a history stands for, the last one last; none for other queries."""
    value = query.metadata.get(HISTORY)
    if not isinstance(value, list | tuple):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def decided(setting: bool | None, run: Path) -> bool:
    """Whether queries are documents: by the setting, else as `check` noticed it in the folder of a run.

    Where `check` has not looked yet, queries are not documents.
    """
    if setting is not None:
        return setting
    path = run / FINDINGS
    if not path.is_file():
        return False
    findings = read_json(path)
    return bool(findings.get("item_to_item", False))
