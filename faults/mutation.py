"""Which row catches which planted bug."""

from pathlib import Path

from faults.rig import Rig
from faults.runner import run_case
from faults.table import ROWS

_MOST_CASES = 40

# Planted bug → the row that must catch it.
CAUGHT_BY = {
    "dropout goes on from wherever the random stream is, which is not restored": "kills",
    "the position in the data is one more after a resume": "kills",
    "the position in the data is one less after a resume": "kills",
    "the learning rate goes on one update early after a resume": "kills",
    "the optimizer's moments are not restored": "kills",
    "the best evaluation is forgotten at a resume": "kills",
    "a resume leaves the record as long as it is": "kills",
    "a checkpoint is written under its own name": "kills",
    "the manifest is there before the files": "kills",
    "a save in the background reads weights that training changes meanwhile": "kills",
    "old checkpoints are deleted before the new one is there": "crashes in a save",
    "files are not made durable": "crashes in a save",
    "what is loaded is not verified": "bit flips",
    "two processes may have one run": "locks",
    "the window that spikes are told by is not restored": "spikes",
}


def catch(mutant: str, folder: Path, seed: int) -> str | None:
    """How the bug was caught: row, case and problem; None: it was not.

    Args:
        mutant: the bug's name.
        folder: for the cases; it does not exist yet.
        seed: of all that is random.
    """
    rig = Rig(folder / "rig", mutant)
    row = ROWS[CAUGHT_BY[mutant]](rig)
    cases = min(row.count, _MOST_CASES)
    for number in (each * row.count // cases for each in range(cases)):
        problems = run_case(row, number, seed, folder)
        if problems:
            return f"{row.name}, case {number}: {problems[0]}"
    return None
