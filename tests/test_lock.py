import errno
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from hairpin.errors import RunError
from hairpin.runs import lock as module
from hairpin.runs.lock import RunLock
from hairpin.runs.lock_holder import Holder
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
            assert (held["host"], held["pid"]) == (socket.gethostname(), os.getpid())
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
    held, other = tmp_path / ".lock.held", {"host": "elsewhere", "pid": 7}
    held.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 - 1}), encoding="utf-8")

    def gone(pid: int) -> bool:  # another process is quicker, between the look and the taking
        held.write_text(json.dumps(other), encoding="utf-8")
        return False

    monkeypatch.setattr("psutil.pid_exists", gone)
    with pytest.raises(RunError, match="in use by"), RunLock(tmp_path):
        pytest.fail("two have it")
    assert json.loads(held.read_bytes()) == other


# --- without flock: what is known of a holder ---


def own() -> dict[str, Any]:
    """What this process writes of itself."""
    written: dict[str, Any] = json.loads(Holder.own().as_bytes())
    return written


def taken_over(folder: Path, content: bytes) -> bool:
    """Whether a lock is taken that the file `.lock.held` stands for; else that stays as it is."""
    path = folder / ".lock.held"
    path.write_bytes(content)
    try:
        with RunLock(folder):
            assert json.loads(path.read_bytes()) == own()
    except RunError as refusal:
        assert f"delete {path}" in str(refusal)
        assert path.read_bytes() == content
        return False
    assert not path.exists()
    return True


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No flock, and a quarter of a second of silence means death."""
    no_flock(monkeypatch)
    monkeypatch.setattr(module, "_STALE_AFTER_SECONDS", 0.25)
    monkeypatch.setattr(module, "_HEARTBEAT_SECONDS", 0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and boots of Linux")
@pytest.mark.parametrize(
    ("changes", "is_stale"),
    [
        pytest.param({}, False, id="this process itself"),
        pytest.param({"began": 1.0}, True, id="its number after a restart"),
        pytest.param({"pid": os.getppid(), "began": 1.0}, True, id="a number given again"),
        pytest.param({"boot": "another"}, True, id="the machine was started again"),
        pytest.param({"host": "elsewhere", "boot": "another"}, False, id="another machine"),
        pytest.param({"host": "renamed", "began": 1.0}, True, id="a machine of another name"),
        pytest.param({"namespace": "pid:[1]", "pid": 2**22 - 1}, False, id="another container"),
        pytest.param({"namespace": "pid:[1]", "began": 1.0}, True, id="this container, restarted"),
        pytest.param({"boot": None, "namespace": None, "began": None}, True, id="its old format"),
        pytest.param(
            {"boot": None, "namespace": None, "began": None, "pid": os.getppid()},
            False,
            id="another's old format",
        ),
        pytest.param({"pid": 10**30}, True, id="no number of a process"),
    ],
)
@pytest.mark.usefixtures("patient")
def test_without_flock_a_lock_is_taken_over_only_from_a_holder_that_is_gone(
    tmp_path: Path, changes: dict[str, Any], is_stale: bool
) -> None:
    assert taken_over(tmp_path, json.dumps({**own(), **changes}).encode()) == is_stale


@pytest.mark.parametrize("content", [b"", b'{"host": "x", "p', b"\0" * 100, b"[1]", b"[" * 9000])
@pytest.mark.usefixtures("patient")
def test_without_flock_a_torn_lock_is_not_for_ever(tmp_path: Path, content: bytes) -> None:
    assert taken_over(tmp_path, content)


@pytest.mark.usefixtures("patient")
def test_without_flock_a_torn_lock_that_is_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock.held"
    path.write_bytes(b"")
    looks = iter(range(100))

    def look(seconds: float) -> None:
        if next(looks) == 0:
            path.write_text(json.dumps({"host": "elsewhere", "pid": 7}), encoding="utf-8")
            os.utime(path, (1.0, 1.0))

    monkeypatch.setattr("time.sleep", look)
    with pytest.raises(RunError, match="in use by process 7 on elsewhere"), RunLock(tmp_path):
        pytest.fail("taken from one that was just writing its name")


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces of Linux")
@pytest.mark.usefixtures("patient")
def test_without_flock_signs_of_life_tell_a_twin_from_a_restarted_container(tmp_path: Path) -> None:
    """Both have the host's name, and number 1; only one of them is alive."""
    path, alive = tmp_path / ".lock.held", threading.Event()
    content = json.dumps({**own(), "namespace": "pid:[1]", "began": 1.0}).encode()
    path.write_bytes(content)

    def beat() -> None:
        while not alive.wait(0.02):
            os.utime(path)

    twin = threading.Thread(target=beat)
    twin.start()
    try:
        with pytest.raises(RunError, match=r"in another container.*delete"), RunLock(tmp_path):
            pytest.fail("two have it")
    finally:
        alive.set()
        twin.join()
    assert path.read_bytes() == content
    assert taken_over(tmp_path, content), "nobody gives a sign of life any more"


@pytest.mark.usefixtures("patient")
def test_without_flock_a_holder_gives_signs_of_life(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        path = tmp_path / ".lock.held"
        os.utime(path, (1.0, 1.0))
        ends = time.monotonic() + 30
        while path.stat().st_mtime == 1.0 and time.monotonic() < ends:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1.0


@pytest.mark.usefixtures("patient")
def test_without_flock_a_lock_is_seen_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any call, a process leaves no torn lock, but where there are no hard links."""
    link, seen = os.link, list[bytes]()

    def watched(source: Path, target: Path) -> None:
        assert not Path(target).exists()
        link(source, target)
        seen.append(Path(target).read_bytes())

    monkeypatch.setattr("os.link", watched)
    with RunLock(tmp_path):
        assert json.loads(seen[0]) == own()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]

    def without(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", without)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock.held").read_bytes()) == own()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


@pytest.mark.usefixtures("patient")
def test_without_flock_and_without_proc_the_process_and_its_begin_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hairpin.runs.lock_holder.PROC", tmp_path / "no-proc")
    monkeypatch.setattr("hairpin.runs.lock_holder._BOOT", tmp_path / "no-proc" / "boot_id")
    assert own()["boot"] is None and own()["namespace"] is None
    assert own()["began"] == pytest.approx(psutil.Process().create_time())
    assert not taken_over(tmp_path, json.dumps(own()).encode())
    (tmp_path / ".lock.held").unlink()
    assert taken_over(tmp_path, json.dumps({**own(), "began": 1.0}).encode())
    assert taken_over(tmp_path, json.dumps({**own(), "pid": 2**22 - 1}).encode())


@pytest.mark.skipif(sys.platform != "linux", reason="processes of Linux")
@pytest.mark.usefixtures("patient")
def test_without_flock_a_process_that_nobody_has_buried_holds_nothing(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    held = {"host": socket.gethostname(), "pid": child.pid}
    assert taken_over(tmp_path, json.dumps(held).encode())
    child.wait()


IN_CONTAINER = """
import errno, fcntl, sys, time
from pathlib import Path
def refuse(descriptor, operation):
    raise OSError(errno.ENOTSUP, "Operation not supported")
fcntl.flock = refuse
from hairpin.runs import lock
lock._STALE_AFTER_SECONDS, lock._HEARTBEAT_SECONDS = 1.5, 0.1
with lock.RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def in_container(folder: Path) -> "subprocess.Popen[str]":
    """A process that is number 1 of a namespace of its own, and holds the lock if it can."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.Popen(
        [*unshare, sys.executable, "-c", IN_CONTAINER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def can_unshare() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="namespaces cannot be made here")
def test_containers_with_one_host_name_keep_out_of_each_other_until_one_is_started_again(
    tmp_path: Path,
) -> None:
    first = in_container(tmp_path)
    assert first.stdout and first.stdout.readline() == "held\n"
    assert json.loads((tmp_path / ".lock.held").read_bytes())["pid"] == 1
    second = in_container(tmp_path)
    out, err = second.communicate(timeout=60)
    assert out == "" and "RunError" in err and "in another container" in err
    first.kill()
    first.communicate()
    again = in_container(tmp_path)
    try:
        assert again.stdout and again.stdout.readline() == "held\n"
    finally:
        again.kill()
        again.communicate()


# --- no link is followed ---


@pytest.mark.parametrize("name", [".lock", ".lock.held"])
@pytest.mark.parametrize("has_flock", [True, False])
def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, has_flock: bool
) -> None:
    if not has_flock:
        no_flock(monkeypatch)
    run, mine = tmp_path / "run", tmp_path / "mine"
    run.mkdir()
    mine.write_text("mine", encoding="utf-8")
    (run / name).symlink_to(mine)
    with pytest.raises(RunError, match=f"{name}: is a link to {mine}"), RunLock(run):
        pytest.fail("locked by a link")
    # The link comes after the look: the file is not opened through it either.
    monkeypatch.setattr(module, "refuse_links", lambda folder: None)
    if name == ".lock":
        with pytest.raises(RunError, match="symbolic links"), RunLock(run):
            pytest.fail("locked by a link")
    assert mine.read_text(encoding="utf-8") == "mine"


def test_a_lock_that_was_taken_away_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that gives up its run removes the lock's file, which another may have opened."""
    fcntl = pytest.importorskip("fcntl")
    flock, times = fcntl.flock, list[int]()

    def late(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not times:
            (tmp_path / ".lock").unlink()
        times.append(descriptor)

    monkeypatch.setattr("fcntl.flock", late)
    with RunLock(tmp_path):
        assert len(times) == 2
        monkeypatch.undo()
        with pytest.raises(RunError, match="in use by process"), RunLock(tmp_path):
            pytest.fail("two have it")
