"""One of two processes ends before any update, in every way that it can."""

from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from faults.deeds import CODES, DEEDS
from faults.plan import Plan
from faults.rig import Done, Rig
from faults.row import Row

# Functions of the first process, from its first line to the loop, and of the other.
_FIRST = (
    "hairpin.cli.main:with_dotted_flags",
    "hairpin.launch.train:create_run",
    "hairpin.launch.train:begin",
    "hairpin.training.train_run:describe_environment",
    "hairpin.training.train_run:new_state",
    "hairpin.training.train_run:build_job",
)
_OTHER = (
    "hairpin.launch.other_processes:load_plugins",
    "hairpin.training.train_run:load_tokenizer",
)
_LIMIT_SECONDS = 60.0


def early_ends(rig: Rig) -> Row:
    """One of two processes returns, refuses, fails, or is killed before the loop."""
    ways = [(0, place, deed) for place in _FIRST for deed in DEEDS]
    ways += [(1, place, deed) for place in _OTHER for deed in DEEDS]
    return Row(
        "early ends",
        len(ways),
        lambda number, rng, folder: _end(rig, *ways[number], folder),
        "the other ends with it, with its exit code where it could tell it; one of them says why",
    )


def _end(rig: Rig, rank: int, place: str, deed: str, folder: Path) -> list[str]:
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    cases = [rig.case(folder / name) for name in ("first", "other")]
    words = ["train", "--config", str(rig.config), "--out", str(cases[0].run)]
    children = [
        rig.start(
            case,
            Plan(rank=at, size=2, port=store.port, place=place, deed=deed if at == rank else ""),
            *words,
        )
        for at, case in enumerate(cases)
    ]
    done = [child.finish() for child in children]
    one, other = done[rank], done[1 - rank]
    problems = [f"{place}, {deed}: {problem}" for problem in other.surprises() + _late(done)]
    wanted = CODES.get(deed, one.code)
    if one.code != wanted:
        problems.append(f"{place}, {deed}: left with {one.code}, not {wanted}")
    told = rank == 0 and one.code >= 0 and deed != "a sudden end"
    if other.code != (one.code if told else 1):
        problems.append(f"{place}, {deed}: the other left with {other.code}: {other.last_line}")
    if told and other.out + other.err:
        problems.append(f"{place}, {deed}: the other said {other.last_line}")
    if not told and "another process has ended" not in other.err:
        problems.append(f"{place}, {deed}: the other does not say why: {other.last_line}")
    return problems


def _late(done: list[Done]) -> list[str]:
    return [f"took {each.seconds:.0f} s" for each in done if each.seconds > _LIMIT_SECONDS]
