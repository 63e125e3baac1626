"""The fault rig at small counts; `make faults` runs it at full ones."""

from pathlib import Path

import pytest

from faults.oracle import oracle_of
from faults.rig import UPDATES, Rig
from faults.runner import run_case
from faults.table import ROWS

pytestmark = pytest.mark.slow

SEED = 7
CASES = {"kills": 20}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("faults") / "rig")


def test_five_clean_runs_are_one(rig: Rig) -> None:
    for number in range(4):
        case = rig.case(rig.folder / f"again-{number}")
        assert rig.go_on(case).finish().code == 0
        assert rig.oracle.differences(oracle_of(case.run, case.ids, UPDATES)) == []


@pytest.mark.parametrize("name", CASES)
def test_rows(rig: Rig, name: str, tmp_path: Path) -> None:
    row = ROWS[name](rig)
    for number in range(CASES[name]):
        assert run_case(row, number * row.count // CASES[name], SEED, tmp_path) == []
