"""Checkpoints, names and texts that mean harm."""

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from faults.fuzz import STRINGS, acting
from faults.plan import Plan
from faults.rig import UPDATES, Case, Rig
from faults.row import Row

_STOPPED = UPDATES - 5
_NEWEST = "step-00000050"
_HUGE_HEADER_BYTES = 100_000_000


def checkpoints(rig: Rig) -> Row:
    """Checkpoints with a manifest that is right and content that is not."""
    return Row(
        "hostile checkpoints",
        40,
        lambda number, rng, folder: _checkpoint(rig, _ATTACKS[number % len(_ATTACKS)], rng, folder),
        "nothing is executed; refused in a line, or set aside",
    )


def names(rig: Rig) -> Row:
    """Names of runs and prompts with characters that act on a terminal."""
    return Row(
        "hostile names",
        300,
        lambda number, rng, folder: _name(rig, number, rng, folder),
        "refused, or shown as text; no traceback",
    )


class _Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._canary),)


def _checkpoint(
    rig: Rig, attack: Callable[[Path, Path, Random], None], rng: Random, folder: Path
) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    canary = folder / "canary"
    attack(case.run / "checkpoints" / _NEWEST, canary, rng)
    done = rig.go_on(case).finish()
    problems = done.surprises()
    if canary.exists():
        problems.append("the checkpoint was executed")
    if done.code not in (0, 1, 2):
        problems.append(f"left with {done.code}: {done.last_line}")
    if done.code and len([x for x in done.err.splitlines() if x.startswith("hairpin: ")]) != 1:
        problems.append(f"more than a line: {done.err!r}")
    if done.seconds > 20:
        problems.append(f"took {done.seconds:.0f} s")
    return [f"{attack.__name__}: {problem}" for problem in problems + _acts(done.out + done.err)]


def _sign(checkpoint: Path, **changed: Any) -> None:
    """A manifest that is right about the files that are there."""
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    manifest.pop("sha256")
    for name in manifest["files"]:
        content = (checkpoint / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"size": len(content), "sha256": digest}
    files = manifest.pop("files") | changed.pop("files", {})
    manifest = {**manifest, **changed, "files": files}
    body = json.dumps(manifest, separators=(",", ":"))[:-1]
    digest = hashlib.sha256(body.encode()).hexdigest()
    (checkpoint / "manifest.json").write_text(f'{body},"sha256":"{digest}"}}', encoding="utf-8")


def _put(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).unlink()
    (checkpoint / name).write_bytes(content)
    _sign(checkpoint)


def _tensors(rng: Random) -> str:
    return rng.choice(["model", "optimizer", "rng", "guard"]) + ".safetensors"


def _pickle(checkpoint: Path, canary: Path, rng: Random) -> None:
    _put(checkpoint, _tensors(rng), pickle.dumps(_Payload(canary)))


def _zipped_pickle(checkpoint: Path, canary: Path, rng: Random) -> None:
    name = _tensors(rng)
    with zipfile.ZipFile(checkpoint / "archive", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Payload(canary)))
    content = (checkpoint / "archive").read_bytes()
    (checkpoint / "archive").unlink()
    _put(checkpoint, name, content)


def _pickle_as_state(checkpoint: Path, canary: Path, rng: Random) -> None:
    _put(checkpoint, rng.choice(["state.json", "config.toml"]), pickle.dumps(_Payload(canary)))


def _path_outside(checkpoint: Path, canary: Path, rng: Random) -> None:
    target = checkpoint.parent.parent / "metrics.jsonl"
    name = rng.choice(["../../metrics.jsonl", str(target.resolve()), "./../../metrics.jsonl"])
    content = target.read_bytes()
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _sign(checkpoint, files={name: facts})


def _odd_name(checkpoint: Path, canary: Path, rng: Random) -> None:
    facts = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    _sign(checkpoint, files={rng.choice([*STRINGS, ".", ".."]): facts})


def _link(checkpoint: Path, canary: Path, rng: Random) -> None:
    path = checkpoint / rng.choice([_tensors(rng), "state.json", "manifest.json"])
    elsewhere = path.rename(checkpoint.parent.parent / f"elsewhere-{path.name}")
    path.symlink_to(elsewhere)


def _device(checkpoint: Path, canary: Path, rng: Random) -> None:
    path = checkpoint / rng.choice([_tensors(rng), "manifest.json"])
    path.unlink()
    if rng.random() < 0.5:
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


def _huge_header(checkpoint: Path, canary: Path, rng: Random) -> None:
    content = _HUGE_HEADER_BYTES.to_bytes(8, "little") + b" " * _HUGE_HEADER_BYTES
    _put(checkpoint, _tensors(rng), content)


def _lying_header(checkpoint: Path, canary: Path, rng: Random) -> None:
    facts = {
        "dtype": rng.choice(["F32", "F64", "X", "BOOL"]),
        "shape": rng.choice([[2**62, 4], [-1], [0], [10**12], [], ["a"]]),
        "data_offsets": rng.choice([[0, 2**63], [8, 0], [0, 8], [-8, 0], []]),
    }
    header = json.dumps({"x": facts}).encode()
    _put(checkpoint, _tensors(rng), len(header).to_bytes(8, "little") + header + bytes(8))


def _deep_json(checkpoint: Path, canary: Path, rng: Random) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    if rng.random() < 0.5:
        deep = b'{"update": ' + deep + b"}"
    _put(checkpoint, "state.json", deep)


def _odd_state(checkpoint: Path, canary: Path, rng: Random) -> None:
    path = checkpoint / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    odd: list[Any] = [None, -1, 10**30, "5", [], {}, 1e308, True, "\x1b[2J"]
    state[rng.choice(sorted(state))] = rng.choice(odd)
    _put(checkpoint, path.name, json.dumps(state).encode())


def _missing_state(checkpoint: Path, canary: Path, rng: Random) -> None:
    path = checkpoint / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state[rng.choice(sorted(state))]
    _put(checkpoint, path.name, json.dumps(rng.choice([state, [], 1, "x", None])).encode())


def _odd_manifest(checkpoint: Path, canary: Path, rng: Random) -> None:
    odd: list[Any] = [None, -1, 10**30, "5", [], {}, 1e308, "\x1b[2J\u202e"]
    key = rng.choice(["format", "step", "world_size", "torch", "data_sha256", "tokenizer_sha256"])
    _sign(checkpoint, **{key: rng.choice(odd)})


_ATTACKS = (
    _pickle,
    _zipped_pickle,
    _pickle_as_state,
    _path_outside,
    _odd_name,
    _link,
    _device,
    _huge_header,
    _lying_header,
    _deep_json,
    _odd_state,
    _missing_state,
    _odd_manifest,
)


def _name(rig: Rig, number: int, rng: Random, folder: Path) -> list[str]:
    rig.case(folder)
    case = Case(folder, cache=folder / "cache")
    hostile = rng.choice(STRINGS) + rng.choice(["", "", rng.choice(STRINGS)])
    hostile = hostile.replace("\0", "")  # no argument of a command can hold it
    runs = folder / "runs"
    runs.mkdir()
    named = runs / (hostile.replace("/", "_")[:80].strip(".") or "x")
    verb = number % 5
    if verb == 0:
        arguments = [
            "train",
            str(rig.text),
            "--out",
            f"{runs}/{hostile}",
            "--set",
            "train.updates=0",
        ]
    elif verb == 1:
        arguments = ["resume", f"{runs}/{hostile}"]
    else:
        shutil.copytree(rig.clean_run, named)
        arguments = [
            ["runs", str(runs)],
            ["resume", str(named)],
            ["sample", str(named), "--tokens", "4", "--prompt", hostile],
        ][verb - 2]
    done = rig.start(case, Plan(), *arguments).finish()
    # A sample goes into a pipe as its exact bytes, the prompt included.
    shown = done.err if arguments[0] == "sample" else done.out + done.err
    problems = done.surprises() + _acts(shown)
    if done.code not in (0, 1, 2):
        problems.append(f"left with {done.code}: {done.last_line}")
    return [f"hairpin {arguments[0]} with {hostile!r}: {problem}" for problem in problems]


def _acts(shown: str) -> list[str]:
    """What it printed that a terminal would act upon."""
    found = acting(shown)
    return [f"printed {', '.join(found)}"] if found else []
