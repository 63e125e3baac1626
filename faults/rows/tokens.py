"""Token shards that are not what was written, and text that was edited between runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from faults.rig import UPDATES, Case, Rig
from faults.row import Row
from hairpin.data.streams import open_shards
from hairpin.errors import CorpusError

_STOPPED = UPDATES - 5
_FULL_RESUMES = 5  # one in so many damaged shards is also resumed with


def shards(rig: Rig) -> Row:
    """Each is refused by name; a resume makes damaged ones again, and refuses other text."""
    return Row(
        "shards",
        60,
        lambda number, rng, folder: (
            _edited(rig, rng, folder) if number % 3 == 2 else _damaged(rig, number, rng, folder)
        ),
        "a typed error names the file; other text is refused; the same run from shards made again",
    )


def _damaged(rig: Rig, number: int, rng: Random, folder: Path) -> list[str]:
    case = _with_own_cache(rig, folder)
    shard_folder = rng.choice(sorted((folder / "cache" / "shards").iterdir()))
    damage = rng.choice([_cut, _cut, _longer, _narrower, _out_of_range, _other])
    path = damage(shard_folder, rng)
    problems = []
    try:
        open_shards(shard_folder)
        problems.append(f"accepted after {damage.__name__}")
    except CorpusError as error:
        if str(path) not in str(error):
            problems.append(f"{path.name} is not named: {error}")
    if number % _FULL_RESUMES == 0:
        problems += rig.finished(case)
    return problems


def _with_own_cache(rig: Rig, folder: Path) -> Case:
    rig.stopped(folder, _STOPPED)
    shutil.copytree(rig.cache, folder / "cache")
    return Case(folder, folder / "cache")


def _stream(folder: Path, rng: Random) -> Path:
    return rng.choice(sorted(folder.glob("*.bin")))


def _cut(folder: Path, rng: Random) -> Path:
    path = _stream(folder, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.choice([0, 1, len(content) // 2, len(content) - 1])])
    return path


def _longer(folder: Path, rng: Random) -> Path:
    path = _stream(folder, rng)
    path.write_bytes(path.read_bytes() + b"\0")
    return path


def _out_of_range(folder: Path, rng: Random) -> Path:
    path = _stream(folder, rng)
    content = bytearray(path.read_bytes())
    at = 2 * rng.randrange(len(content) // 2)
    content[at : at + 2] = b"\xff\xff"
    path.write_bytes(bytes(content))
    return path


def _other(folder: Path, rng: Random) -> Path:
    path = _stream(folder, rng)
    content = bytearray(path.read_bytes())
    content[2 * rng.randrange(len(content) // 2)] ^= 1
    path.write_bytes(bytes(content))
    return path


def _narrower(folder: Path, rng: Random) -> Path:
    """The manifest claims another width."""
    path = folder / "shards.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["dtype"] = rng.choice(["uint32", "uint8", "float64", "x"])
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return path


def _edited(rig: Rig, rng: Random, folder: Path) -> list[str]:
    """The run's text is another than it was."""
    case = _with_own_cache(rig, folder)
    text = folder / "text.txt"
    edit: Callable[[str], str] = rng.choice(
        [lambda t: t + ".", lambda t: t.replace("cat", "dog", 1), lambda t: t[:-1], str.upper]
    )
    text.write_text(edit(rig.text.read_text(encoding="utf-8")), encoding="utf-8")
    config = case.run / "config.toml"
    whole = config.read_text(encoding="utf-8")
    config.write_text(whole.replace(str(rig.text), str(text)), encoding="utf-8")
    done = rig.go_on(case).finish()
    problems = done.surprises()
    if done.code != 2 or "data" not in done.err:
        problems.append(f"left with {done.code}: {done.err!r}")
    config.write_text(whole, encoding="utf-8")
    return problems + rig.finished(case)
