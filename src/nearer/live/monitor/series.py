"""What monitoring saw, day by day: one SQLite file that the monitor writes and dashboards read at the same time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nearer.errors import DataError

_TABLES = """
CREATE TABLE IF NOT EXISTS series (time TEXT, name TEXT, value REAL, low REAL, high REAL, slice TEXT, generation TEXT,
                                   PRIMARY KEY (time, name, slice, generation));
CREATE INDEX IF NOT EXISTS series_by_name ON series (name, time);
CREATE TABLE IF NOT EXISTS judged (time TEXT, condition TEXT, PRIMARY KEY (time, condition));
CREATE TABLE IF NOT EXISTS alerts (time TEXT, condition TEXT, slice TEXT, alert TEXT, PRIMARY KEY (time, condition, slice));
CREATE TABLE IF NOT EXISTS baseline (generation TEXT, measure TEXT, query_id TEXT, value REAL, PRIMARY KEY (generation, measure, query_id));
"""


class Row(NamedTuple):
    """A value of a day.  `time` is its date (UTC); `slice` is `all` or the name of a slice; low and high are a 95% interval."""

    time: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    slice: str = "all"
    generation: str = ""


class Series:
    """The file at `path` (`monitor/series.db`).  Reading one that is not there gives nothing; writing makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(
        self,
        day: str,
        rows: Iterable[Row],
        alerts: Iterable[Mapping[str, Any]] = (),
        judged: Collection[str] = (),
    ) -> None:
        """Keep what was found about a day, all of it or nothing; conditions that are judged again replace their alerts."""
        with self._open() as database, database:
            database.executemany(
                "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?, ?, ?)", list(rows)
            )
            database.executemany(
                "INSERT OR IGNORE INTO judged VALUES (?, ?)", [(day, one) for one in judged]
            )
            database.executemany(
                "DELETE FROM alerts WHERE time = ? AND condition = ?",
                [(day, one) for one in judged],
            )
            told = [
                (day, one["condition"], one["slice"], json.dumps(one, ensure_ascii=False))
                for one in alerts
            ]
            database.executemany("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?)", told)

    def read(self, name: str | None = None, since: str | None = None) -> list[Row]:
        """Values in order of time, of one series or of all."""
        return [
            Row(*one)
            for one in self._select(
                "series", {"name = ?": name, "time >= ?": since}, "time, name, slice", "*"
            )
        ]

    def alerts(self, since: str | None = None) -> list[dict[str, Any]]:
        """Alerts as they were given, in order of time, with `time`, the day that they speak of."""
        found = self._select(
            "alerts", {"time >= ?": since}, "time, condition, slice", "time, alert"
        )
        return [{"time": time, **json.loads(alert)} for time, alert in found]

    def judged(self, day: str) -> set[str]:
        """The conditions that were judged for a day."""
        return {
            condition
            for (condition,) in self._select("judged", {"time = ?": day}, "condition", "condition")
        }

    def firing(self, day: str) -> dict[str, str]:
        """Condition → `since` of the alert that it gave when it was last judged before `day`."""
        last = self._select(
            "judged", {"time < ?": day}, "condition", "condition, max(time)", "GROUP BY condition"
        )
        given = {(one["time"], one["condition"]): str(one["since"]) for one in self.alerts()}
        return {
            condition: given[time, condition]
            for condition, time in last
            if (time, condition) in given
        }

    def baseline(
        self, generation: str, measure: str, values: Mapping[str, float]
    ) -> dict[str, float]:
        """Query id → its value when this generation was first measured: what is there, and now also what was new."""
        with self._open() as database, database:
            rows = [(generation, measure, query_id, value) for query_id, value in values.items()]
            database.executemany("INSERT OR IGNORE INTO baseline VALUES (?, ?, ?, ?)", rows)
            found = database.execute(
                "SELECT query_id, value FROM baseline WHERE generation = ? AND measure = ?",
                (generation, measure),
            )
            return {query_id: value for query_id, value in found if query_id in values}

    def _select(
        self, table: str, where: Mapping[str, str | None], order: str, columns: str, group: str = ""
    ) -> list[tuple[Any, ...]]:
        if not self.path.is_file():
            return []
        chosen = {clause: value for clause, value in where.items() if value is not None}
        condition = f"WHERE {' AND '.join(chosen)}" if chosen else ""
        statement = f"SELECT {columns} FROM {table} {condition} {group} ORDER BY {order}"  # noqa: S608 - all parts are written above
        with self._open() as database:
            return database.execute(statement, list(chosen.values())).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=30.0)) as database:
                database.executescript(_TABLES)
                yield database
        except sqlite3.DatabaseError as error:
            step = "free space or mend access; if the file is damaged, move it away: the series then begins anew"
            raise DataError(
                f"the series cannot be used: {error}", where=str(self.path), next_step=step
            ) from None
