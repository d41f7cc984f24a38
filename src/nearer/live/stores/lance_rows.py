"""Rows of LanceDB as Arrow, and its filters as SQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nearer.live.stores.common import COLUMNS, Columns
from nearer.live.stores.space import Space
from nearer.live.stores.terms import Clauses


def schema_of(space: Space) -> Any:
    """The Arrow schema of a generation's table, with its identity."""
    import pyarrow as pa

    text = [(name, pa.string()) for name in COLUMNS]
    width = {"int8": space.dimension + 4, "binary": space.dimension // 8}.get(
        space.dtype, space.dimension
    )
    kind = {"binary": pa.uint8()}.get(space.dtype) or pa.from_numpy_dtype(space.dtype)
    columns = [*text, ("terms", pa.list_(pa.string())), ("vector", pa.list_(kind, width))]
    if space.dtype == "int8":
        columns.append(("signs", pa.list_(pa.uint8(), -(-space.dimension // 8))))
    return pa.schema(columns).with_metadata({"nearer": space.identity()})


def table_of(space: Space, columns: Columns, vectors: np.ndarray) -> Any:
    """An Arrow table of rows, vectors in stored form."""
    import pyarrow as pa

    arrays = {"vector": vectors}
    if space.dtype == "int8":
        arrays["signs"] = np.packbits(vectors[:, 4:] > 0, axis=1)
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])
        for name, array in arrays.items()
    }
    return pa.table({**columns, **lists}, schema=schema_of(space))


def array_of(column: Any) -> np.ndarray:
    """The rows of a fixed-size list column, (n, width)."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    result: np.ndarray = (
        array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    )
    return result


def searched_column(space: Space) -> str:
    """The column that the approximate index is made of."""
    return "signs" if space.dtype == "int8" else "vector"


def among(doc_ids: Iterable[str]) -> str:
    """The condition that a row belongs to one of these documents."""
    listed = ", ".join(map(_literal, doc_ids))
    return f"doc_id IN ({listed})" if listed else "false"


def condition_of(wanted: Clauses) -> str:
    """The condition that a row has a term of every clause."""
    return " AND ".join(
        f"array_has_any(terms, [{', '.join(map(_literal, clause))}])" for clause in wanted
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
