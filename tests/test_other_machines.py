"""What is different on Windows and on a Mac, as far as it can be shown on this machine."""

import errno
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hairpin.checkpoints import store as store_module
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.settings import Optimizer
from hairpin.errors import RunError
from hairpin.machine.out_of_memory import is_out_of_memory
from hairpin.model.classifier import Classifier
from hairpin.model.kernels import attention as by_hand
from hairpin.optim import optimizers
from hairpin.optim.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from hairpin.runs.experiment_folder import Arm
from hairpin.runs.folder import new_run_path
from hairpin.runs.lock import RunLock
from hairpin.runs.lock_holder import Holder
from hairpin.system import files
from hairpin.system.files import move, new_folder, not_a_device, write_atomically
from hairpin.tasks.prediction import probabilities
from test_lock import no_flock

# --- Windows ---


def as_on_windows(monkeypatch: pytest.MonkeyPatch, refusals: int) -> list[float]:
    """Renaming is refused so often, as where somebody has a file open; returns the pauses."""
    paused: list[float] = []
    replace = Path.replace

    def busy(self: Path, target: Path) -> Path:
        if len(paused) < refusals:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return replace(self, target)

    monkeypatch.setattr(files, "IS_WINDOWS", True)
    monkeypatch.setattr(store_module, "IS_WINDOWS", True)
    monkeypatch.setattr("time.sleep", paused.append)
    monkeypatch.setattr(Path, "replace", busy)
    return paused


def test_a_file_that_somebody_has_open_for_a_moment_is_replaced_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    paused = as_on_windows(monkeypatch, 3)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new" and len(paused) == 3
    assert paused == sorted(paused), "it waits longer each time"


def test_one_that_stays_open_is_an_error_and_the_old_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    as_on_windows(monkeypatch, 1000)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_elsewhere_a_refusal_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = as_on_windows(monkeypatch, 1)
    monkeypatch.setattr(files, "IS_WINDOWS", False)
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(PermissionError):
        move(tmp_path / "file", tmp_path / "other")
    assert not paused


def test_checkpoints_are_saved_though_folders_are_busy_and_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shutil.rmtree

    def in_use(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).name.startswith(".tmp-step-") and any(Path(path).glob("*")):
            if not ignore_errors:
                raise PermissionError(errno.EACCES, "a mapped file")
            return
        remove(path, ignore_errors=ignore_errors)

    as_on_windows(monkeypatch, 2)
    monkeypatch.setattr(shutil, "rmtree", in_use)
    with CheckpointStore(tmp_path / "checkpoints", keep=1, best=tmp_path / "best") as store:
        for step in (1, 2, 3):
            tensors = {"w": torch.full((3,), float(step))}
            store.save(Snapshot(step, {"model": tensors}, {}), is_best=True)
    monkeypatch.setattr(shutil, "rmtree", remove)
    newest = CheckpointStore(tmp_path / "checkpoints").newest()
    assert newest and newest.step == 3
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000003"], "what could not be deleted is, at the next start"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("com1.log", "_com1.log"),
        ("lpt9", "_lpt9"),
        ("aux.tar.gz", "_aux.tar.gz"),
        ("console", "console"),
        ("com", "com"),
        ("nul-1", "nul-1"),
        ("book.txt", "book.txt"),
    ],
)
def test_no_name_is_a_device_of_windows(name: str, found: str) -> None:
    assert not_a_device(name) == found


def test_runs_and_arms_get_names_that_windows_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run_path("nul.txt").name == "_nul.txt-1"
    assert new_run_path("con").name == "con-1"
    assert new_run_path("what: a *name*? ...").name == "what-a-name-1"
    assert Arm("aux", {}).folder.startswith("_aux-")
    assert Arm("lr=0.1", {}).folder == "lr=0.1"


def test_asking_whether_a_process_is_alive_sends_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On Windows os.kill(pid, 0) is Ctrl-C to everything that shares the console.
    def kill(pid: int, number: int) -> None:
        pytest.fail("a signal was sent")

    def pid_exists(pid: int) -> bool:
        return pid == os.getpid()

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr("psutil.pid_exists", pid_exists)
    no_flock(monkeypatch)
    held = {"host": socket.gethostname(), "pid": 123_456}
    (tmp_path / ".lock.held").write_text(json.dumps(held), encoding="utf-8")
    with RunLock(tmp_path), pytest.raises(RunError, match="in use by"), RunLock(tmp_path):
        pytest.fail("two have it")


def test_a_process_number_that_none_can_have_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    held = {"host": socket.gethostname(), "pid": 10**30}
    (tmp_path / ".lock.held").write_text(json.dumps(held), encoding="utf-8")
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock.held").read_bytes())["pid"] == os.getpid()


def test_a_lock_is_put_back_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    held, other = tmp_path / ".lock.held", {"host": socket.gethostname(), "pid": os.getppid()}
    held.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 - 1}), encoding="utf-8")

    def gone(holder: Holder) -> bool:
        if holder.pid == 2**22 - 1:
            held.write_text(json.dumps(other), encoding="utf-8")
            return False
        return True

    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Holder, "_is_there", gone)
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(RunError, match="in use by"), RunLock(tmp_path):
        pytest.fail("two have it")
    assert json.loads(held.read_bytes()) == other
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".lock.held"]


def test_no_folder_is_flushed_and_no_owner_asked_for_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "IS_WINDOWS", True)
    monkeypatch.delattr(os, "getuid")

    def no_handle(path: object, flags: int) -> int:
        raise PermissionError(errno.EACCES, "a folder")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_handle)
        files.sync_folder(tmp_path)
        files.private_folder(tmp_path / "cache")
    with new_folder(tmp_path / "new") as folder:
        (folder / "file").write_bytes(b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"


# --- MPS ---


def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that came from the device know no float64, until they are on the CPU."""
    double, cpu = Tensor.double, Tensor.cpu

    def refused(self: Tensor) -> Tensor:
        if not getattr(self, "is_on_host", False):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return double(self)

    def to_host(self: Tensor) -> Tensor:
        copy = cpu(self).clone()
        copy.is_on_host = True  # type: ignore[attr-defined]
        return copy

    monkeypatch.setattr(Tensor, "double", refused)
    monkeypatch.setattr(Tensor, "cpu", to_host)


def test_labels_are_told_on_a_device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Classifier):
        def __init__(self) -> None:
            nn.Module.__init__(self)

        def label_logits(self, inputs: Tensor, mask: Tensor) -> Tensor:
            return torch.tensor([[0.0, np.log(3.0)]]).expand(len(inputs), 2)

    without_float64(monkeypatch)
    (found,) = probabilities(Two(), [np.array([1, 2, 3])], "cpu")
    assert found == pytest.approx([0.25, 0.75], rel=1e-7)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_device_whose_fused_kernels_are_deaf_is_told_by_the_host(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fused = torch._fused_adamw_

    def deaf(*arguments: Any, grad_scale: Any, found_inf: Any, **named: Any) -> None:
        assert grad_scale is None and found_inf is None, "what MPS does not read is relied on"
        fused(*arguments, **named)

    def trained(devices: tuple[str, ...]) -> dict[str, Tensor]:
        monkeypatch.setattr(optimizers, "DEVICES_IGNORING_FOUND_INF", devices)
        torch.manual_seed(0)
        model = nn.ModuleDict({"blocks": nn.Linear(6, 6), "head": nn.Linear(6, 4, bias=False)})
        optimizer = build_optimizer(model, Optimizer(kind=kind))
        for update in range(4):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape)
            halted = torch.tensor(update == 2)
            optimizers.step_unless(halted, optimizer, 0.01, torch.tensor(3.0))
        state = optimizer_tensors(model, optimizer)
        load_optimizer_tensors(model, optimizer, state)  # a checkpoint is the same thing
        return dict(model.state_dict()) | state

    usual = trained(())
    with monkeypatch.context() as patched:
        patched.setattr(torch, "_fused_adamw_", deaf)
        told = trained(("cpu",))
    assert usual.keys() == told.keys()
    for name, value in usual.items():
        torch.testing.assert_close(told[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other: 1.00 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 68719476736 bytes. Error code 12"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_too_little_memory_is_known_on_every_device(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not_taken_for_too_little_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(OSError(12, "Cannot allocate memory"))


def test_attention_is_given_whole_tensors_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    # There it misreads others, as permuted ones are: pytorch/pytorch#181133.
    seen: list[bool] = []

    class OnMPS(Tensor):
        @property
        def device(self) -> Any:  # type: ignore[override]
            return torch.device("mps")

    def attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        seen.append(all(each.is_contiguous() for each in (q, k, v)))
        return q

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
    qkv = torch.randn(2, 5, 3, 4, 8).permute(2, 0, 3, 1, 4)
    by_hand.attend(qkv.as_subclass(OnMPS))
    cache = by_hand.LayerCache(torch.zeros(2, 4, 9, 8), torch.zeros(2, 4, 9, 8))
    by_hand.attend(qkv.as_subclass(OnMPS), cache)
    assert seen == [True, True]
