"""All rows of the rig, in the order of the results page."""

from faults.rig import Rig
from faults.row import Row
from faults.rows.kills import kills


def all_rows(rig: Rig) -> list[Row]:
    """Every row."""
    return [kills(rig)]
