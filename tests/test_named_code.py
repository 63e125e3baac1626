"""Only code that was named is run: not what lies in the working folder."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from faults.rows.modules import MODULES
from hairpin.experiments.channel import ChildProcess
from hairpin.experiments.worker import _train_requested
from hairpin.machine import environment
from helpers import some_text

CHILD = """
import atexit, ctypes, json, os, sys, warnings
print("before")
from hairpin.experiments.channel import child_pipes
requests, answers = child_pipes(sys.argv[1:])
libc = ctypes.CDLL(None)
for line in requests:
    print("printed"); sys.stdout.flush()
    libc.puts(b"from C"); libc.fflush(None)
    os.write(1, b"raw")
    warnings.warn("warned")
    answers.write(json.dumps({"echo": json.loads(line), "in": sys.stdin.read()}) + "\\n")
    answers.flush()
atexit.register(print, "at the end")
"""


def plant(folder: Path, names: tuple[str, ...]) -> Path:
    """Modules that leave a mark when they are run."""
    marks = folder / "marks"
    marks.mkdir()
    for name in names:
        mark = str(marks / name)
        (folder / f"{name}.py").write_text(f"open({mark!r}, 'w').close()\n", encoding="utf-8")
    return marks


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_what_a_child_prints_does_not_come_between_its_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "echoing.py").write_text(CHILD, encoding="utf-8")
    child = ChildProcess("echoing", environ(PYTHONPATH=str(tmp_path)))
    for number in range(3):
        child.requests.write(json.dumps(number) + "\n")
        child.requests.flush()
        assert json.loads(child.answers.readline()) == {"echo": number, "in": ""}
    child.requests.close()
    assert child.answers.read() == "" and child.process.wait(30) == 0
    child.answers.close()
    out, err = capfd.readouterr()
    assert out == ""
    for word in ("before", "printed", "from C", "raw", "warned", "at the end"):
        assert word in err


def test_a_child_does_not_keep_the_pipes_of_another(tmp_path: Path) -> None:
    """Else closing the requests of one would not end it."""
    (tmp_path / "echoing.py").write_text(CHILD, encoding="utf-8")
    children = [ChildProcess("echoing", environ(PYTHONPATH=str(tmp_path))) for _ in range(2)]
    for child in children:
        child.requests.close()
        assert child.process.wait(30) == 0
        child.answers.close()


def test_a_worker_imports_nothing_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = plant(tmp_path, MODULES)
    monkeypatch.chdir(tmp_path)
    child = ChildProcess("hairpin.experiments.worker", environ())
    child.requests.write(json.dumps({"folder": "run", "config": {"no": "config"}}) + "\n")
    child.requests.flush()
    assert "failed" in json.loads(child.answers.readline())
    child.requests.close()
    assert child.process.wait(60) == 0
    child.answers.close()
    assert not list(marks.iterdir())


def test_a_worker_is_done_before_its_last_answer_is_read(tmp_path: Path) -> None:
    """The parent may close the pipe at that: it was taken for the parent's end, now and then."""
    busy, seen = threading.Event(), list[tuple[str, bool]]()

    class Answers(io.StringIO):
        def write(self, text: str) -> int:
            seen.append((text, busy.is_set()))
            return len(text)

    request = {"folder": str(tmp_path / "run"), "config": {"no": "config"}}
    assert _train_requested(request, Answers(), busy)
    ((text, was_busy),) = seen
    assert "failed" in json.loads(text) and not was_busy


@pytest.mark.parametrize("command", [["--version"], ["schedule", "--updates", "9"]])
def test_python_m_hairpin_imports_nothing_of_the_working_folder(
    tmp_path: Path, command: list[str]
) -> None:
    marks = plant(tmp_path, tuple(name for name in MODULES if name != "hairpin"))
    done = subprocess.run(
        [sys.executable, "-m", "hairpin", *command],
        cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(marks.iterdir())


def test_a_path_of_the_users_own_is_kept(tmp_path: Path) -> None:
    code = "import sys, hairpin; sys.exit(sys.path[0] != '')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import hairpin.__main__"
    (tmp_path / "click.py").write_text("raise SystemExit(5)\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hairpin"],
        cwd="/", env=environ(PYTHONPATH=str(tmp_path)), check=False,
    )  # fmt: skip
    assert done.returncode == 5


def test_matplotlibrc_of_the_working_folder_is_not_heeded(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\nfigure.facecolor: red\n", encoding="utf-8"
    )
    program = (
        "import hairpin.reports.plots, matplotlib; from matplotlib import rcParams; "
        "assert matplotlib.matplotlib_fname() == 'matplotlibrc'; "
        "assert not rcParams['text.usetex'] and rcParams['figure.facecolor'] == 'white'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- the commit of a checkout, without git ---


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    (folder / "below").mkdir(parents=True)
    git(folder, "init")
    git(folder, "commit", "--allow-empty", "-m", "one")
    monkeypatch.chdir(folder)
    return folder


def commit() -> object:
    return environment.describe_environment("cpu")["git_commit"]


def test_the_commit_is_what_git_says(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head
    monkeypatch.chdir(checkout / "below")
    assert commit() == head
    git(checkout, "pack-refs", "--all")
    assert commit() == head
    git(checkout, "checkout", "--detach")
    assert commit() == head
    git(checkout, "worktree", "add", "-b", "side", str(checkout.parent / "tree"))
    git(checkout.parent / "tree", "commit", "--allow-empty", "-m", "two")
    monkeypatch.chdir(checkout.parent / "tree")
    assert commit() == git(checkout.parent / "tree", "rev-parse", "HEAD") != head


def test_no_program_of_a_checkout_is_run(checkout: Path) -> None:
    program, mark = checkout / "program", checkout / "mark"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n", encoding="utf-8")
    program.chmod(0o755)
    with (checkout / ".git" / "config").open("a", encoding="utf-8") as config:
        config.write(f"[core]\n\tfsmonitor = {program}\n\tpager = {program}\n")
        config.write(f"[alias]\n\trev-parse = !{program}\n")
    assert commit() is not None and not mark.exists()


@pytest.mark.parametrize(
    "head", ["", "ref: refs/heads/none", "ref: ../../etc/passwd", "ref: /etc/passwd", "x" * 99999]
)
def test_what_is_no_commit_is_none(checkout: Path, head: str) -> None:
    (checkout / ".git" / "HEAD").write_text(head, encoding="utf-8")
    assert commit() is None


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(checkout: Path) -> None:
    (checkout / ".git" / "HEAD").unlink()
    os.mkfifo(checkout / ".git" / "HEAD")
    assert commit() is None


def test_where_there_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(some_text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert commit() is None
