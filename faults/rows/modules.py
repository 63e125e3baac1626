"""Files in the working folder that have the names of modules, and other things that run code."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from faults.rig import Rig
from faults.row import Row

_LIMIT_SECONDS = 300.0
MODULES = (
    "hairpin",
    "torch",
    "numpy",
    "random",
    "queue",
    "json",
    "tokenize",
    "typing",
    "threading",
    "statistics",
    "tomllib",
    "click",
    "pydantic",
    "psutil",
    "matplotlib",
    "safetensors",
    "tiktoken",
    "sitecustomize",
)
# What else a folder that came from elsewhere could have run by those who look into it.
_SETTINGS = ("matplotlibrc", "git")
_NAMES = (*MODULES, *_SETTINGS)
_SMALL = ("--size", "nano", "--updates", "4", "--precision", "float32", "--set",
          "evaluate.tokens=512", "--set", "evaluate.train_tokens=128", "--set",
          "model.context=32", "--set", "tokenizer.kind=bytes")  # fmt: skip
_EXPERIMENT = (*_SMALL, "--same-lr", "--seeds", "2", "--workers", "1", "--out", "out")
VERBS = {
    "compare": ("compare", "text.txt", *_EXPERIMENT, "--vary", "clip.kind=norm,off"),
    "ablate": ("ablate", "text.txt", *_EXPERIMENT, "--factors", "clip"),
    "find-lr": ("find-lr", "text.txt", *_SMALL, "--workers", "1", "--out", "out"),
    "verify --resume": ("verify", "--resume", "--updates", "6", "--kills", "1"),
}


def working_folders(rig: Rig) -> Row:
    """Verbs that start processes, in a folder with modules that nobody named."""
    done = cache(lambda verb: _run(rig, verb))  # each verb once, with all names at a time
    cases = [(verb, name) for verb in VERBS for name in _NAMES]
    return Row(
        "working folders",
        len(cases),
        lambda number, rng, folder: _problems(*cases[number], *done(cases[number][0])),
        "none of them is run, and the verb does its work",
    )


def _problems(verb: str, name: str, ran: set[str], problems: list[str]) -> list[str]:
    return [f"{verb}: {name} was run"] if name in ran else problems


def _run(rig: Rig, verb: str) -> tuple[set[str], list[str]]:
    """Which of the planted things were run by a verb, and what went wrong with it."""
    folder = rig.folder / f"working {verb}"
    ran = folder / "ran"
    ran.mkdir(parents=True)
    (folder / "text.txt").write_bytes(rig.text.read_bytes())
    for name in (*MODULES, "of_matplotlibrc"):
        mark = str(ran / ("matplotlibrc" if name == "of_matplotlibrc" else name))
        (folder / f"{name}.py").write_text(f"open({mark!r}, 'w').close()\n", encoding="utf-8")
    (folder / "matplotlibrc").write_text("backend: module://of_matplotlibrc\n", encoding="utf-8")
    _plant_git(folder, ran / "git")
    process = subprocess.run(
        [sys.executable, "-P", "-m", "hairpin", *VERBS[verb]],
        cwd=folder,
        env=os.environ | {"HAIRPIN_CACHE": str(rig.cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    problems = [f"{verb}: left with {process.returncode}: {process.stderr[-500:]}"]
    return {path.name for path in ran.iterdir()}, problems if process.returncode else []


def _plant_git(folder: Path, mark: Path) -> None:
    """A checkout whose settings name a program, which git runs when it looks for changes."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n", encoding="utf-8")
    program.chmod(0o755)
    for name in ("objects", "refs"):
        (folder / ".git" / name).mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    settings = f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {program}\n"
    (folder / ".git" / "config").write_text(settings, encoding="utf-8")
