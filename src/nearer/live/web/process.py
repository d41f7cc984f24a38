"""What belongs to the process of a service: its log as JSON lines, and how many files it may open."""

from __future__ import annotations

import json
import logging
import resource
from datetime import UTC, datetime

from nearer import progress

_log = logging.getLogger("nearer.serve")


class JsonLines(logging.Formatter):
    """Log records as JSON lines: time, level, logger, message, and status and ms of a request."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        line |= {"logger": record.name, "message": record.getMessage()}
        line |= {
            name: value
            for name in ("status", "ms")
            if (value := getattr(record, name, None)) is not None
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Logged(progress.Silent):
    """Puts warnings of library code into the log."""

    def message(self, text: str, level: str) -> None:
        if level == "warning":
            _log.warning("%s", text)


def raise_open_files() -> None:
    """As many open files as the system allows: each connection is one, also one that sends nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
