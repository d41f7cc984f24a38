"""Prints every table of test_show in every terminal: a process that loads the libraries once.

    python terminal_driver.py FOLDER

Forks once per case of CASES, each time before a pseudo-terminal of its own (a pipe where the width
is None), and writes what was printed to FOLDER/printed.json, in the order of CASES.
"""

from __future__ import annotations

import fcntl
import importlib
import itertools
import json
import os
import pty
import struct
import sys
import termios
import traceback
from collections.abc import Mapping
from pathlib import Path

#: Columns (None: piped), and what stands in the environment beside TERM.
WIDTHS: tuple[int | None, ...] = (60, 80, 200, None)
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "colour": {},
    "NO_COLOR": {"NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
}
CASES = tuple(itertools.product(WIDTHS, ENVIRONMENTS))
_DECIDING = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")


def fork(width: int | None) -> tuple[int, int]:
    """(0, -1) in the child, whose output goes to a terminal or a pipe; (pid, where to read it) in the parent."""
    if width is not None:
        pid, ours = pty.fork()
        if pid == 0:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 25, width, 0, 0))
        return pid, ours
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs, 1)
        return pid, -1
    os.close(theirs)
    return pid, ours


def read(end: int) -> str:
    """All that comes out of a terminal or a pipe until it is closed."""
    parts = []
    while True:
        try:
            part = os.read(end, 65_536)
        except OSError:  # Linux says so when the other side of a terminal has closed
            break
        if not part:
            break
        parts.append(part)
    os.close(end)
    return b"".join(parts).decode()


def print_tables(environment: str, folder: Path) -> None:
    """What the child does: the consoles are made anew, as at the start of a command."""
    import test_show

    for name in _DECIDING:
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm-256color"
    os.environ.update(ENVIRONMENTS[environment])
    importlib.reload(test_show.show)
    folder.mkdir()
    for prints, _ in test_show.TABLES.values():
        prints(folder)
    sys.stdout.flush()
    sys.stderr.flush()


def printed(width: int | None, environment: str, folder: Path) -> str:
    pid, ours = fork(width)
    if pid == 0:
        status = 1
        try:
            print_tables(environment, folder)
            status = 0
        except BaseException:  # noqa: BLE001 - a child may never go on as its parent
            traceback.print_exc()
        os._exit(status)
    output = read(ours)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"printing failed at {width} columns, {environment}:\n{output}")
    return output


def main(folder: Path) -> None:
    import test_show  # noqa: F401 - loaded once, before the forks

    outputs = []
    for number, (width, environment) in enumerate(CASES):
        outputs.append(printed(width, environment, folder / str(number)))
    (folder / "printed.json").write_text(json.dumps(outputs), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
