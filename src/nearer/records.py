"""JSON objects of the file contracts as frozen values: read with care, written back byte for byte.

A file of a run may come from an earlier version, from a later one, or from somebody's hands.  So a
value of the wrong kind becomes the field's default, a key that a class does not know is kept in
`more`, and what was read is written back with the same keys in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Self

Json = Mapping[str, Any]
Read = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of a JSON object; its fields are declared with the functions below, in the file's order."""

    more: Json = field(default_factory=dict)  # keys that the class does not know
    keys: tuple[str, ...] | None = field(default=None, repr=False, compare=False)  # as read

    @classmethod
    def of(cls, values: Any) -> Self:
        """Read what `as_dict` gave, or anything else: what does not fit is a gap."""
        if not isinstance(values, Mapping):
            return cls()
        known = {}
        for declared in _declared(cls):
            if declared.name in values:
                known[declared.name] = declared.metadata["read"](values[declared.name])
        others = {str(key): value for key, value in values.items() if key not in known}
        return cls(**known, more=others, keys=tuple(map(str, values)))

    def as_dict(self) -> dict[str, Any]:
        """The object as it stands in the file."""
        written: dict[str, Any] = {}
        if self.keys is not None:
            for key in self.keys:
                known = key in self.more
                written[key] = self.more[key] if known else _plain(getattr(self, key))
            return written | self._added()
        for declared in _declared(type(self)):
            value = getattr(self, declared.name)
            if value is not None or not declared.metadata["optional"]:
                written[declared.name] = _plain(value)
        return written | dict(self.more)

    def _added(self) -> dict[str, Any]:
        """Fields that the file lacked and that hold something by now: a sign-off, a note."""
        added = {}
        for declared in _declared(type(self)):
            value = getattr(self, declared.name)
            empty = value in (None, "", (), {}) or value == type(value)()
            if declared.name not in (self.keys or ()) and not empty:
                added[declared.name] = _plain(value)
        return added


def _declared(kind: type[Record]) -> Iterator[Field[Any]]:
    """The fields that stand in the file."""
    return (declared for declared in fields(kind) if "read" in declared.metadata)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


# -- fields ----------------------------------------------------------------------------------------


def text(default: str = "") -> Any:
    """A string."""
    return field(default=default, metadata=_metadata(lambda value: as_string(value, default)))


def perhaps_text(*, optional: bool = False) -> Any:
    """A string or null; `optional`: left out of the file where it is None."""
    return field(default=None, metadata=_metadata(_string_or_none, optional))


def texts() -> Any:
    """A list of strings."""
    return field(default=(), metadata=_metadata(_strings))


def number(*, optional: bool = False) -> Any:
    """A finite number or null; whole ones stay whole."""
    return field(default=None, metadata=_metadata(finite, optional))


def flag(*, optional: bool = False) -> Any:
    """True, false or null."""

    def read(value: Any) -> bool | None:
        return value if isinstance(value, bool) else None

    return field(default=None, metadata=_metadata(read, optional))


def interval() -> Any:
    """The two ends of an interval, or null."""
    return field(default=None, metadata=_metadata(_pair))


def record(kind: type[Record]) -> Any:
    """An object of its own."""
    return field(default_factory=kind, metadata=_metadata(kind.of))


def perhaps_record(kind: type[Record]) -> Any:
    """An object of its own, or null."""

    def read(value: Any) -> Record | None:
        return kind.of(value) if isinstance(value, Mapping) else None

    return field(default=None, metadata=_metadata(read))


def records(kind: type[Record], *, optional: bool = False) -> Any:
    """A list of objects; `optional`: None, and left out of the file, where there are none."""

    def read(value: Any) -> tuple[Record, ...]:
        items = value if isinstance(value, list | tuple) else ()
        return tuple(kind.of(item) for item in items if isinstance(item, Mapping))

    if optional:
        return field(default=None, metadata=_metadata(lambda value: read(value) or None, True))
    return field(default=(), metadata=_metadata(read))


def records_by_name(kind: type[Record]) -> Any:
    """An object of objects."""

    def read(value: Any) -> dict[str, Record]:
        items = value.items() if isinstance(value, Mapping) else ()
        return {str(name): kind.of(item) for name, item in items}

    return field(default_factory=dict, metadata=_metadata(read))


def mapping(*, optional: bool = False) -> Any:
    """An object that other code reads: a pipeline, a fingerprint.  `optional`: else it is empty."""

    def read(value: Any) -> Any:
        empty: Json | None = None if optional else {}
        return value if isinstance(value, Mapping) else empty

    if optional:
        return field(default=None, metadata=_metadata(read, True))
    return field(default_factory=dict, metadata=_metadata(read))


def anything() -> Any:
    """Whatever people write there, or null."""
    return field(default=None, metadata=_metadata(lambda value: value))


def _metadata(read: Read, optional: bool = False) -> dict[str, Any]:
    return {"read": read, "optional": optional}


# -- values ----------------------------------------------------------------------------------------


def finite(value: Any) -> int | float | None:
    """A finite number as it is, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        usable = math.isfinite(float(value))
    except OverflowError:  # an int beyond the range of floats
        usable = False
    return value if usable else None


def as_string(value: Any, default: str = "") -> str:
    """A string; a number as one, and anything else as the default."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return default


def _string_or_none(value: Any) -> str | None:
    return None if value is None else as_string(value)


def _strings(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else ()
    return tuple(as_string(item) for item in items)


def _pair(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = finite(value[0]), finite(value[1])
    if low is None or high is None:
        return None
    return low, high
