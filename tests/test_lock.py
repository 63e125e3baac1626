import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hairpin.errors import RunError
from hairpin.runs import lock as module
from hairpin.runs.lock import RunLock
from helpers import TINY_FLAGS, Hairpin, text_file

HOLDER = """
import sys, time
from pathlib import Path
from hairpin.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)


def test_a_second_process_is_refused_by_name_and_touches_nothing(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert hairpin("train", text_file(tmp_path), *TINY_FLAGS, "--out", run).code == 0
    record = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = max(n for n, line in enumerate(record) if '"checkpoint"' in line)
    (run / "metrics.jsonl").write_text("\n".join(record[:last]) + "\n", encoding="utf-8")
    process = holder(run)
    before = contents(run)
    try:
        done = hairpin("resume", run)
        assert done.code == 2
        assert f"in use by process {process.pid} on {socket.gethostname()}" in done.refusal
        assert contents(run) == before
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
    assert hairpin("resume", run).code == 0, "a killed process's lock means nothing"


def test_the_lock_can_be_taken_again_and_names_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path):
            held = json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))
            assert held == {"host": socket.gethostname(), "pid": os.getpid()}
            with pytest.raises(RunError, match="in use by process"), RunLock(tmp_path):
                pytest.fail("two have it")


@pytest.mark.parametrize("content", [b"", b"not JSON", b'{"host": "elsewhere", "pid": 1}', b"[1]"])
def test_a_file_that_nobody_holds_is_no_lock_whatever_is_in_it(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_bytes())["pid"] == os.getpid()


def test_without_flock_the_making_of_a_file_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    with RunLock(tmp_path):
        with pytest.raises(RunError, match=r"delete .*\.lock\.held"), RunLock(tmp_path):
            pytest.fail("two have it")
        assert (tmp_path / ".lock.held").exists()
    assert not (tmp_path / ".lock.held").exists()


def test_without_flock_a_dead_process_of_this_host_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    gone = multiprocessing.get_context("spawn").Process()
    gone.start()
    gone.join()
    held = {"host": socket.gethostname(), "pid": gone.pid}
    (tmp_path / ".lock.held").write_text(json.dumps(held), encoding="utf-8")
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock.held").read_bytes())["pid"] == os.getpid()


def test_without_flock_another_hosts_lock_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    held = {"host": "elsewhere", "pid": 1}
    (tmp_path / ".lock.held").write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(RunError, match="process 1 on elsewhere"), RunLock(tmp_path):
        pytest.fail("taken from another host")
    assert json.loads((tmp_path / ".lock.held").read_bytes()) == held


def test_another_failure_of_flock_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "_flock", broken)
    with pytest.raises(OSError, match="Input/output"), RunLock(tmp_path):
        pytest.fail("no lock and no error")


def test_without_flock_a_lock_that_was_taken_over_meanwhile_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    held, other = tmp_path / ".lock.held", {"host": socket.gethostname(), "pid": os.getpid()}
    held.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 - 1}), encoding="utf-8")

    def gone(pid: int) -> bool:
        if pid == 2**22 - 1:  # another process is quicker, between the look and the taking
            held.write_text(json.dumps(other), encoding="utf-8")
            return False
        return True

    monkeypatch.setattr(module, "_is_alive", gone)
    with pytest.raises(RunError, match="in use by"), RunLock(tmp_path):
        pytest.fail("two have it")
    assert json.loads(held.read_bytes()) == other
