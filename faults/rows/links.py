"""Folders that came from elsewhere, in which an entry is a link to somebody's own files."""

import os
from pathlib import Path
from random import Random

from faults.plan import Plan
from faults.rig import UPDATES, Rig
from faults.row import Row

_STOPPED = UPDATES - 5
# Entry → whether it is a folder.
_ENTRIES = {
    ".lock": False,
    ".lock.held": False,
    ".old-best": True,
    ".tmp-best": True,
    "best": True,
    "checkpoints": True,
    "checkpoints/step-00000050": True,
    "checkpoints/.tmp-step-00000060": True,
    "config.toml": False,
    "environment.json": False,
    "metrics.discarded-1.jsonl": False,
    "metrics.jsonl": False,
    "plots": True,
    "report.html": False,
    "tensorboard": True,
    "tokenizer": True,
    "tracking.json": False,
}
_CASES = [
    *(("resume", entry) for entry in _ENTRIES),
    *(("report", entry) for entry in ("report.html", "plots", "checkpoints")),
]


def links(rig: Rig) -> Row:
    """Each entry as a link to what it was, or to somebody's own, for a verb that writes."""
    return Row(
        "symlinks",
        len(_CASES),
        lambda number, rng, folder: _link(rig, *_CASES[number], rng, folder),
        "nothing outside the run's folder changes; one line, or the link is replaced",
    )


def _link(rig: Rig, verb: str, entry: str, rng: Random, folder: Path) -> list[str]:
    case, outside = rig.stopped(folder, _STOPPED), folder / "outside"
    path, target = case.run / entry, outside / "mine"
    outside.mkdir()
    if path.exists():
        path.rename(target)
    elif rng.random() < 0.25:
        pass  # it leads nowhere, and what it would make is not made
    elif _ENTRIES[entry]:
        target.mkdir()
        (target / "letter").write_text("dear", encoding="utf-8")
    else:
        target.write_text("mine", encoding="utf-8")
    path.symlink_to(target)
    before = _tree(outside)
    done = rig.start(case, Plan(), verb, str(case.run)).finish()
    problems = done.surprises()
    if _tree(outside) != before:
        problems.append("something outside the run's folder has changed")
    if done.code == 0 and (verb, path.is_symlink()) in (("resume", True), ("report", False)):
        replaced = entry == "report.html" and path.is_file()
        problems += [] if replaced else ["the link was neither refused nor replaced"]
    elif done.code != 0 and (done.code != 2 or len(done.err.splitlines()) != 1):
        problems.append(f"left with {done.code}: {done.err!r}")
    elif done.code != 0 and f"{entry}: is a link" not in done.err:
        problems.append(f"the line does not name the link: {done.last_line}")
    return [f"hairpin {verb}, {entry}: {problem}" for problem in problems]


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Path → content of all that is below a folder; None: a folder."""
    return {
        os.fspath(path): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }
