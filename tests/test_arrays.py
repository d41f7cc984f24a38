"""Arrays are read by many threads at once, as a service does."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.files import load_array, load_arrays


class Garbage:
    """A cycle that lets another thread run while it is collected."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0.0002)


@pytest.fixture
def eager_collection() -> Iterator[None]:
    """Garbage is collected so often that it happens while a header is parsed."""
    before = gc.get_threshold()
    gc.set_threshold(10, 1, 1)
    yield
    gc.set_threshold(*before)


def errors(read: Callable[[], Any]) -> list[Exception]:
    """What eight threads raise that read at the same time."""
    raised: list[Exception] = []

    def go() -> None:
        for _ in range(60):
            Garbage()
            try:
                read()
            except Exception as error:  # noqa: BLE001 - whatever it is, the reader failed
                raised.append(error)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.usefixtures("eager_collection")
def test_threads_do_not_disturb_each_other_where_python_parses_the_header(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(12.0).reshape(3, 4))
    np.savez(tmp_path / "more.npz", a=np.arange(3), b=np.arange(4))
    assert errors(lambda: load_array(tmp_path / "one.npy", mapped=True)) == []
    assert errors(lambda: load_arrays(tmp_path / "more.npz", "a", "b")) == []


def test_values_and_names(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(12.0).reshape(3, 4))
    np.savez(tmp_path / "more.npz", a=np.arange(3), b=np.arange(4))
    assert load_array(tmp_path / "one.npy").sum() == 66.0
    b, a = load_arrays(tmp_path / "more.npz", "b", "a")
    assert (len(a), len(b)) == (3, 4)
    with pytest.raises(KeyError):
        load_arrays(tmp_path / "more.npz", "c")
