"""The checkpoint store as any training loop may use it."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from hairpin.checkpoints import tensors as tensors_module
from hairpin.checkpoints.best import best_folder
from hairpin.checkpoints.manifest import Checkpoint, open_checkpoint
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.checkpoints.tensors import FileFacts, read_tensors, write_hashed, write_tensors
from hairpin.errors import CheckpointError, HairpinError, RunError


def snapshot(step: int, value: float = 1.0) -> Snapshot:
    return Snapshot(step, {"model": {"weight": torch.full((3, 5), value)}}, {"step": step})


def committed(store: CheckpointStore, *steps: int, best: Iterable[int] = ()) -> None:
    for step in steps:
        store.save(snapshot(step, float(step)), is_best=step in best)
    store.finish()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(store: CheckpointStore) -> Checkpoint:
    found = store.newest()
    assert found
    return found


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest changed and made valid again, as an attacker would."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    del manifest["sha256"]
    change(manifest)
    body = json.dumps(manifest, separators=(",", ":"))[:-1]
    digest = hashlib.sha256(body.encode()).hexdigest()
    (path / "manifest.json").write_text(f'{body},"sha256":"{digest}"}}', encoding="utf-8")


# --- files ---

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def test_the_library_reads_what_we_write_and_writes_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(3)
    tensors = {f"t{n}": torch.randint(0, 2, (n, 3)).to(d) for n, d in enumerate(DTYPES)}
    tensors |= {"scalar": torch.tensor(7.0), "transposed": torch.rand(4, 2).T}
    path = tmp_path / "x.safetensors"
    facts = write_tensors(path, tensors)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts == FileFacts(path.stat().st_size, digest)

    floats = {"b": torch.rand(3, 5), "a": torch.rand(7), "scalar": torch.tensor(7.0)}
    write_tensors(tmp_path / "y.safetensors", floats)
    assert (tmp_path / "y.safetensors").read_bytes() == save(floats)


def test_a_file_larger_than_a_block_is_written_and_hashed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors_module, "_BLOCK_BYTES", 1000)
    content = os.urandom(4321)
    facts = write_hashed(tmp_path / "x", [content[:1500], memoryview(content)[1500:]])
    assert (tmp_path / "x").read_bytes() == content
    assert facts.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95",
        (100 << 20).to_bytes(8, "little") + b"{}",
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"{]",
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"header claims|cannot be read as safetensors"):
        read_tensors(tmp_path / "x")


# --- a checkpoint that somebody made to harm ---


@pytest.mark.parametrize("name", ["../other", "/etc/hostname", "a/b", "..", ".", ""])
def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    committed(store, 1)
    (tmp_path / "checkpoints" / "other").write_bytes(b"x")
    path = newest(store).path
    facts = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    rewritten(path, lambda manifest: manifest["files"].update({name: facts}))
    with pytest.raises(CheckpointError, match="its bytes differ from those that were written"):
        open_checkpoint(path)


@pytest.mark.parametrize("which", ["model.safetensors", "manifest.json"])
def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path, which: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    committed(store, 1)
    path = newest(store).path
    (path / which).rename(tmp_path / "elsewhere")
    (path / which).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{which}: its bytes differ"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest.update(step="1"),
        lambda manifest: manifest["files"].update({"model.safetensors": 3}),
        lambda manifest: manifest.pop("files"),
    ],
)
def test_a_manifest_of_another_form_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    committed(store, 1)
    path = newest(store).path
    rewritten(path, change)
    with pytest.raises(CheckpointError):
        open_checkpoint(path)


def test_deep_json_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    body = '{"a":' * 100_000 + "1" + "}" * 99_999
    digest = hashlib.sha256(body.encode()).hexdigest()
    (folder / "manifest.json").write_text(f'{body},"sha256":"{digest}"}}', encoding="utf-8")
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)


def test_another_versions_checkpoint_is_neither_read_nor_set_aside(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    committed(store, 1)
    rewritten(newest(store).path, lambda manifest: manifest.update(format=99))
    with pytest.raises(RunError, match="written in format 99"):
        store.newest()
    assert names(tmp_path) == ["step-00000001"]


def test_only_what_the_manifest_vouches_for_is_opened(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    committed(store, 1)
    path = newest(store).path
    (path / "optimizer.safetensors").write_bytes(b"smuggled in")
    with pytest.raises(CheckpointError, match=r"it has no optimizer\.safetensors"):
        newest(store).tensors("optimizer")


# --- saving in the background ---


def test_what_changes_after_a_save_began_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, weight = threading.Event(), torch.zeros(4)

    def slow(path: Path, tensors: dict[str, Tensor]) -> FileFacts:
        assert may_write.wait(60)
        return write_tensors(path, tensors)

    monkeypatch.setattr("hairpin.checkpoints.writing.write_tensors", slow)
    store = CheckpointStore(tmp_path)
    store.save(Snapshot(1, {"model": {"weight": weight}}))
    weight += 1  # training goes on while nothing is written yet
    store.check()
    assert store.steps() == []
    may_write.set()
    store.finish()
    assert torch.equal(newest(store).tensors("model")["weight"], torch.zeros(4))


def test_at_most_one_save_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = [0], [0]

    def counted(path: Path, tensors: dict[str, Tensor]) -> FileFacts:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        facts = write_tensors(path, tensors)
        under_way[0] -= 1
        return facts

    monkeypatch.setattr("hairpin.checkpoints.writing.write_tensors", counted)
    store = CheckpointStore(tmp_path, keep=50)
    committed(store, *range(1, 21))
    assert most == [1] and len(store.steps()) == 20


def test_a_failure_is_raised_once_by_the_next_call_and_then_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, tensors: dict[str, Tensor]) -> FileFacts:
        raise OSError(28, "No space left on device")

    store = CheckpointStore(tmp_path, remedy="buy a larger disk")
    with monkeypatch.context() as patch:
        patch.setattr("hairpin.checkpoints.writing.write_tensors", full)
        store.save(snapshot(1))
        with pytest.raises(HairpinError, match=r"No space left on device.*buy a larger disk"):
            store.finish()
    store.check()
    assert names(tmp_path) == []
    committed(store, 1)
    assert newest(store).values() == {"step": 1}


def test_the_block_waits_for_the_save_and_raises_what_went_wrong(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.save(snapshot(1))
    assert names(tmp_path) == ["step-00000001"]
    with pytest.raises(HairpinError, match="weight is not finite"), store:
        store.save(snapshot(2, float("nan")))
    with pytest.raises(ZeroDivisionError), store:
        store.save(snapshot(3, float("inf")))
        raise ZeroDivisionError
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_one_bad_number_anywhere_is_found(dtype: torch.dtype, bad: float, place: int) -> None:
    sound = torch.linspace(-3, 3, 1000).to(dtype)
    assert Snapshot(1, {"model": {"a": sound, "none": torch.zeros(0)}}).not_finite() is None
    spoilt = sound.clone()
    spoilt[place] = bad
    assert Snapshot(1, {"model": {"a": sound, "b": spoilt}}).not_finite() == "b"


# --- rotation, the newest, the best ---


def test_every_so_many_steps_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, keep_every=4)
    committed(store, *range(1, 12))
    assert [int(path.name[5:]) for path in store.steps()] == [4, 8, 10, 11]


def test_steps_are_in_order_of_their_number_however_long_it_is(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    committed(store, 99_999_998, 100_000_001, 99_999_999, 100_000_000)
    assert [int(path.name[5:]) for path in store.steps()] == [
        99_999_999,
        100_000_000,
        100_000_001,
    ]
    assert newest(store).step == 100_000_001


def test_the_newest_is_by_step_whatever_the_clock_says(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    committed(store, 1, 2)
    os.utime(tmp_path / "step-00000001", (4e9, 4e9))
    os.utime(tmp_path / "step-00000002", (0, 0))
    assert newest(store).step == 2


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", best=tmp_path / "best")
    committed(store, 1, best=[1])
    shutil.copytree(tmp_path / "c" / "step-00000001", tmp_path / "c" / ".tmp-step-00000002")
    shutil.copytree(tmp_path / "best", tmp_path / ".tmp-best")
    assert newest(store).step == 1
    assert names(tmp_path) == ["best", "c"] and names(tmp_path / "c") == ["step-00000001"]


def test_a_kill_between_the_two_renames_of_the_best_loses_neither(tmp_path: Path) -> None:
    best = tmp_path / "best"
    store = CheckpointStore(tmp_path / "c", best=best)
    committed(store, 1, best=[1])
    best.rename(tmp_path / ".old-best")
    found = best_folder(best)
    assert found and open_checkpoint(found).step == 1, "readers find the one before"
    assert newest(store).step == 1
    assert open_checkpoint(best).step == 1 and best_folder(best) == best


def test_a_kill_between_the_commit_and_the_best_is_made_up_for(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", best=tmp_path / "best")
    committed(store, 1, 2, best=[1])
    store.keep_as_best(2)
    assert open_checkpoint(tmp_path / "best").step == 2
    store.keep_as_best(7)  # is there no more
    assert open_checkpoint(tmp_path / "best").step == 2


def test_a_best_that_is_later_or_damaged_is_set_aside(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", best=tmp_path / "best")
    committed(store, 1, 2, best=[2])
    (tmp_path / "c" / "step-00000002" / "manifest.json").write_bytes(b"")
    notices: list[str] = []
    assert (found := store.newest(notices.append)) and found.step == 1
    assert "step-00000002" in notices[0] and "later than 1" in notices[1]
    assert not (tmp_path / "best").exists()
    committed(store, 2, best=[2])
    (tmp_path / "best" / "model.safetensors").unlink()
    assert newest(store).step == 2
    assert not (tmp_path / "best").exists()
    store.keep_as_best(2)
    assert open_checkpoint(tmp_path / "best").step == 2


def test_a_best_whose_own_step_is_damaged_too_is_lost_and_not_vouched_for_again(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path / "c", best=tmp_path / "best")
    committed(store, 1, 2, 3, best=[2])
    shared = tmp_path / "best" / "model.safetensors"  # a link to that of step 2
    content = bytearray(shared.read_bytes())
    content[-1] ^= 1
    shared.write_bytes(content)
    notices: list[str] = []
    assert (found := store.newest(notices.append)) and found.step == 3
    store.keep_as_best(2, notices.append)
    assert not (tmp_path / "best").exists()
    assert "best weights, from update 2, are lost" in notices[-1]


def test_leaving_a_generator_waits_for_the_save(tmp_path: Path) -> None:
    def saving() -> Iterator[None]:
        with CheckpointStore(tmp_path) as store:
            store.save(snapshot(1))
            yield

    saves = saving()
    next(saves)
    saves.close()  # type: ignore[attr-defined]
    assert names(tmp_path) == ["step-00000001"]
