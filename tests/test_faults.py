"""The fault rig at small counts; `make faults` runs it at full ones."""

from pathlib import Path

import pytest

from faults import mutants
from faults.mutation import CAUGHT_BY, catch
from faults.rig import Rig
from faults.runner import run_case
from faults.table import ROWS

pytestmark = pytest.mark.slow

SEED = 7
# Row → cases, spread evenly over those of a full run.
CASES = {
    "clean": 2,
    "kills": 20,
    "crashes in a save": 12,
    "crashes at the start": 4,
    "crashes at a resume": 4,
    "signals": 8,
    "watching": 11,
    "truncations": 5,
    "bit flips": 26,
    "unreadable checkpoints": 13,
    "best replaced while read": 2,
    "no space": 5,
    "locks": 2,
    "locks in namespaces": 5,
    "clocks": 2,
    "non-finite": 3,
    "spikes": 2,
    "shards": 10,
    "configs": 500,
    "texts": 60,
    "records": 500,
    "hostile checkpoints": 13,
    "hostile names": 15,
    "symlinks": 7,
    "early ends": 9,
    "working folders": 2,
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("faults") / "rig")


@pytest.mark.parametrize("name", ROWS)
def test_rows(rig: Rig, name: str, tmp_path: Path) -> None:
    row = ROWS[name](rig)
    for number in range(CASES[name]):
        assert run_case(row, number * row.count // CASES[name], SEED, tmp_path) == []


# One for each way of seeing a bug; `python -m faults mutants` plants them all.
@pytest.mark.parametrize(
    "mutant",
    [
        "the position in the data is one more after a resume",
        "the optimizer's moments are not restored",
        "what is loaded is not verified",
    ],
)
def test_planted_bugs_are_caught(mutant: str, tmp_path: Path) -> None:
    assert catch(mutant, tmp_path / "mutant", SEED)


def test_every_planted_bug_has_a_row_that_must_catch_it() -> None:
    assert set(CAUGHT_BY) == set(mutants.names()) and len(CAUGHT_BY) >= 12
    assert set(CAUGHT_BY.values()) <= set(ROWS)
