"""Whatever the order of builds, moves, kills and damage: one generation answers, with its own vectors, as it was judged."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generations_kit import static_model
from sequences_kit import ACTIONS, Player, Step, prepare

pytestmark = pytest.mark.long

STEP = st.tuples(
    st.sampled_from(ACTIONS), st.integers(0, 59), st.none() | st.integers(min_value=1, max_value=80)
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("sequences")
    models = static_model(folder / "a", seed=1), static_model(folder / "b", seed=2)
    return prepare(folder, models), models


#: What nearly every interesting sequence begins with: a second generation that may be moved to.
BEGUN: list[Step] = [("build", 1, None), ("verify", 1, None), ("cutover", 1, None)]


@given(steps=st.lists(STEP, min_size=3, max_size=7))
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_sequence_mixes_loses_or_serves_what_was_not_judged(
    steps: list[Step], prepared: tuple[Path, tuple[Path, Path]]
) -> None:
    projects, models = prepared
    with tempfile.TemporaryDirectory() as scratch:
        Player(projects, Path(scratch), models).play([*BEGUN, *steps])
