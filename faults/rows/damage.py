"""Checkpoints that are not the bytes that were written."""

from pathlib import Path
from random import Random

from faults.oracle import tensors_of
from faults.rig import UPDATES, Case, Rig
from faults.row import Row
from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.errors import CheckpointError

_STOPPED = UPDATES - 5
_NEWEST, _BEFORE = 50, 40
_TENSORS = ("model.safetensors", "optimizer.safetensors", "rng.safetensors", "guard.safetensors")
_FILES = (*_TENSORS, "state.json", "config.toml", "manifest.json")
_FULL_RESUMES = 25  # one in so many flips is also resumed from


def lengths(rig: Rig) -> Row:
    """A file of the newest checkpoint is too short, or has a byte too many."""
    return Row(
        "truncations",
        200,
        lambda number, rng, folder: _length(rig, _FILES[number % len(_FILES)], rng, folder),
        "refused by name; one checkpoint back; the same run in the end",
    )


def flips(rig: Rig) -> Row:
    """A bit is another, or a file is missing, or another's."""
    return Row(
        "bit flips",
        500,
        lambda number, rng, folder: _flip(rig, number, rng, folder),
        "none is accepted",
    )


def _length(rig: Rig, name: str, rng: Random, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    path = _step(case, _NEWEST) / name
    content = path.read_bytes()
    wanted = rng.choice(_lengths(path, len(content), rng))
    _replace(path, content[:wanted] + b"x" * (wanted - len(content)))
    return [f"{name} of {wanted} bytes: {each}" for each in _refused(rig, case, name)]


def _lengths(path: Path, size: int, rng: Random) -> list[int]:
    found = [0, 1, size // 2, size - 1, size + 1]
    if path.suffix == ".safetensors":
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        ends, end = [], header
        for _, _, _, content in tensors_of(path):
            end += len(content)
            ends.append(end)
        # Names are not in the order of their bytes, but every sum is some place near an edge.
        found += [header - 1, header, header + 1]
        found += [edge + by for edge in rng.sample(ends, min(3, len(ends))) for by in (-1, 0, 1)]
    return sorted({length for length in found if 0 <= length != size})


def _refused(rig: Rig, case: Case, name: str) -> list[str]:
    """A resume says which file it is, sets the checkpoint aside, takes the one before."""
    done, problems = rig.finished_saying(case, begins=_BEFORE)
    printed = (done.err + done.out).replace("\n", "")
    if f"step-{_NEWEST:08d}/{name}" not in printed:
        problems.append("the file is not named")
    if not list((case.run / "checkpoints").glob(f".bad-step-{_NEWEST:08d}-*")):
        problems.append("the damaged checkpoint was not set aside")
    return problems


def _flip(rig: Rig, number: int, rng: Random, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    checkpoint = _step(case, _NEWEST)
    if number % 10 == 7:
        name = _remove(checkpoint, rng)
    elif number % 10 in (8, 9):
        name = _swap(case, rng)
    else:
        name = _flip_bit(checkpoint, rng)
    if number % _FULL_RESUMES == 0:
        return _refused(rig, case, name)
    try:
        open_checkpoint(checkpoint)
    except CheckpointError as refusal:
        return [] if name in str(refusal) else [f"{name} is damaged, and not named: {refusal}"]
    return [f"accepted, with a damaged {name}"]


def _flip_bit(checkpoint: Path, rng: Random) -> str:
    path = checkpoint / rng.choice(_FILES)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    _replace(path, bytes(content))
    return path.name


def _remove(checkpoint: Path, rng: Random) -> str:
    path = checkpoint / rng.choice(_FILES)
    path.unlink()
    return path.name


def _swap(case: Case, rng: Random) -> str:
    """The same file of the checkpoint before, or another file of the same one."""
    path = _step(case, _NEWEST) / rng.choice((*_TENSORS, "state.json"))
    others = [_step(case, _BEFORE) / path.name]
    others += [path.with_name(name) for name in (*_TENSORS, "state.json") if name != path.name]
    _replace(path, rng.choice(others).read_bytes())
    return path.name


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew: the best one's is a link to the same bytes."""
    path.unlink()
    path.write_bytes(content)


def _step(case: Case, step: int) -> Path:
    return case.run / "checkpoints" / f"step-{step:08d}"
