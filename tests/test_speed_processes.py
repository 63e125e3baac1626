"""No process of the benchmark outlives it: it would disturb what is timed next."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.speed.peers import ARMS
from benchmarks.speed.processes import FailedError, Processes

# Stands for a peer's Python: starts a process, as compilers do, says who they are, and stays.
STAYS = """#!/bin/sh
sleep 60 &
echo "$$ $!" > "$(dirname "$0")/pids.new"
mv "$(dirname "$0")/pids.new" "$(dirname "$0")/pids"
wait
"""
PROGRAM = """
import sys
from pathlib import Path
from benchmarks.speed.peers import ARMS
from benchmarks.speed.processes import Processes, leave_on_sigterm

leave_on_sigterm()
folder = Path(sys.argv[1])
Processes(folder, {ARMS[0].peer: folder / "python"}, "cpu", 60.0).run(ARMS[0], folder / "job")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").write_text(json.dumps({}))
    return tmp_path


def make_python(folder: Path, content: str) -> dict[str, Path]:
    python = folder / "python"
    python.write_text(content)
    python.chmod(0o755)
    return {ARMS[0].peer: python}


def pids(folder: Path) -> list[int]:
    for _ in range(500):
        if (folder / "pids").exists():
            return [int(pid) for pid in (folder / "pids").read_text().split()]
        time.sleep(0.02)
    raise AssertionError("the process did not start")


def are_gone(numbers: list[int]) -> bool:
    for _ in range(250):
        if not any(is_running(number) for number in numbers):
            return True
        time.sleep(0.02)
    return False


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{number}/stat")
    # One that has ended and that nobody has asked for is still listed.
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_one_that_takes_too_long_ends_with_what_it_started(folder: Path) -> None:
    processes = Processes(folder, make_python(folder, STAYS), "cpu", 0.3)
    with pytest.raises(FailedError, match="took more than 0 seconds"):
        processes.run(ARMS[0], folder / "job")
    assert are_gone(pids(folder))


def test_those_that_other_threads_run_can_be_ended(folder: Path) -> None:
    processes = Processes(folder, make_python(folder, STAYS), "cpu", 60.0)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(processes.run, ARMS[0], folder / "job")
        started = pids(folder)
        processes.end_all()
        with pytest.raises(FailedError):
            future.result(30)
    assert are_gone(started)


def test_sigterm_ends_the_one_that_runs_too(folder: Path) -> None:
    make_python(folder, STAYS)
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, folder])
    started = pids(folder)
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == 143
    assert are_gone(started)


def test_an_error_is_its_last_line(folder: Path) -> None:
    python = make_python(folder, "#!/bin/sh\necho one >&2\necho 'two: why' >&2\nexit 3\n")
    with pytest.raises(FailedError, match=r"^two: why$"):
        Processes(folder, python, "cpu", 30.0).run(ARMS[0], folder / "job")


def test_an_old_result_is_not_taken_for_a_new_one(folder: Path) -> None:
    (folder / "result").write_text("{}")
    python = make_python(folder, "#!/bin/sh\nexit 0\n")
    with pytest.raises(FailedError, match="exit code 0"):
        Processes(folder, python, "cpu", 30.0).run(ARMS[0], folder / "job")
