"""Does one piece of index work in a process that can be killed.

Imports once, then forks for each order read from stdin, one JSON object a line:

    {"root": …, "action": "build" | "sync" | …, "kill_at": file operation | null, "kill_after": seconds | null,
     "kill_at_part": which part to die at while parts are loaded into a store | null,
     "stop_at": file operation | null, "file_limit": bytes | null, "powerless": bool}

and answers {"pid", "signal", "operations", "seconds", "error"}.  With `stop_at` the child stops there and the
answer comes at once; a later order {"wait": pid} lets it go on.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from generations_kit import World
from nearer.cli import app
from nearer.live.index import loading
from nearer.live.index.build import build
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify

#: What changes files, or is about to: a kill just before each of these meets every state on disk.
OPERATIONS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "os.listdir",
}


def work(root: Path, action: str) -> None:
    world = World.at(root)
    generations = world.generations
    name, *words = action.split()
    match name:
        case "build":
            model = Path(words[0])
            build(
                generations,
                world.corpus,
                world.encoder(model),
                str(model),
                today=False,
                force=words[1:] == ["force"],
            )
        case "sync":
            sync(generations, world.corpus)
        case "verify":
            verify(generations, words[0], world.corpus)
        case "cutover":
            generations.cutover(words[0], override="crash test")
        case "rollback":
            generations.rollback()
        case "gc":
            generations.gc()
        case "cli":
            app(["index", *words, "-c", str(root / "nearer.yaml"), "--json"])


def die_at_part(number: int) -> None:
    """The process dies before that part is read, in the middle of what the store writes by then."""
    whole, count = loading.read_rows, 0

    def read_rows(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*given)

    loading.read_rows = read_rows


def without_powers() -> None:
    """Root obeys the permissions of its files, as everybody else does."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)())


def child(order: dict[str, Any], report: int) -> None:
    count = 0

    def watch(event: str, given: Any) -> None:
        nonlocal count
        if event in OPERATIONS:
            count += 1
            if count == order.get("kill_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            if count == order.get("stop_at"):
                os.kill(os.getpid(), signal.SIGSTOP)

    if order.get("kill_at_part"):
        die_at_part(order["kill_at_part"])
    if order.get("powerless"):
        without_powers()
    if order.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    sys.addaudithook(watch)
    error, started = None, time.perf_counter()
    try:
        work(Path(order["root"]), order["action"])
    except BaseException as raised:  # noqa: BLE001 - told to the test
        error = f"{type(raised).__name__}: {raised}"
    told = {"operations": count, "seconds": time.perf_counter() - started, "error": error}
    os.write(report, json.dumps(told).encode())


def main() -> None:
    running: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            pid = order["wait"]
            os.kill(pid, signal.SIGCONT)
            receive = running.pop(pid)
        else:
            receive, send = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(receive)
                sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                child(order, send)
                os._exit(0)
            os.close(send)
            if order.get("kill_after") is not None:
                time.sleep(order["kill_after"])
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, os.WUNTRACED)
        answer: dict[str, Any] = {
            "pid": pid,
            "signal": None,
            "operations": None,
            "seconds": None,
            "error": None,
        }
        if os.WIFSTOPPED(status):
            running[pid] = receive
            answer["signal"] = "stopped"
        else:
            told = b""
            while more := os.read(receive, 65536):
                told += more
            os.close(receive)
            answer |= json.loads(told or b"{}")
            answer["signal"] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
