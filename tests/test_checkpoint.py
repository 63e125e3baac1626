import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from hairpin.checkpoints.manifest import open_checkpoint, write_manifest
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.checkpoints.tensors import FileFacts, write_hashed
from hairpin.config.settings import Optimizer
from hairpin.errors import CheckpointError, HairpinError, RunError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer, step_unless
from hairpin.runs.folder import RunDirectory
from hairpin.training.checkpoint import load_state, load_weights
from hairpin.training.spread import Spread
from hairpin.training.state import Best, TrainState
from helpers import a_guard, random_ids

FILES = [
    "guard.safetensors",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "rng.safetensors",
    "state.json",
]
SHAPE = Shape(64, 8, layers=1, heads=2, width=16)


def store_of(folder: Path, keep: int = 3) -> CheckpointStore:
    folder.mkdir(exist_ok=True)
    facts = {"data_sha256": "d" * 64}
    return CheckpointStore(folder / "checkpoints", keep=keep, best=folder / "best", facts=facts)


def save(store: CheckpointStore, state: TrainState, record_bytes: int = 1) -> bool:
    """Save and wait; returns whether it was the best."""
    values = {**state.counters(), "record_bytes": record_bytes}
    store.save(Snapshot(state.update, state.tensors(), values), is_best=state.is_best)
    store.finish()
    return state.is_best


def newest_of(store: CheckpointStore) -> Path:
    found = store.newest(pytest.fail)
    assert found
    return found.path


def problem_of(folder: Path) -> str | None:
    try:
        open_checkpoint(folder)
    except CheckpointError as error:
        return str(error)
    return None


def new_state() -> TrainState:
    model = GPT(SHAPE, seed=2)
    return TrainState(Spread(model), build_optimizer(model, Optimizer()), a_guard())


def advance(state: TrainState, val_loss: float | None = None) -> TrainState:
    """An update on ids of its own; `val_loss`: what the evaluation after it finds."""
    ids = random_ids(2, 9, seed=state.update)
    state.optimizer.zero_grad()
    (state.model(ids[:, :-1], ids[:, 1:])[0] / 16).backward()
    step_unless(torch.tensor(False), state.optimizer, 0.01)
    state.update += 1
    state.position += 2
    state.tokens += 16
    if val_loss is not None and (state.best is None or val_loss < state.best.val_loss):
        state.best = Best(state.update, val_loss)
    state.evaluated = state.evaluated if val_loss is None else state.update
    return state


def saved(folder: Path, updates: int, keep: int = 50) -> CheckpointStore:
    store, state = store_of(folder, keep), new_state()
    for _ in range(updates):
        save(store, advance(state), record_bytes=100 + state.update)
    return store


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def bytes_of(state: TrainState) -> dict[str, bytes]:
    tensors = {**state.model_tensors(), **state.optimizer_tensors()}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_a_checkpoint_is_six_files_none_a_pickle(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix == ".json":
            assert isinstance(json.loads(content), dict)
        else:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            assert "__metadata__" not in header
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    counters = {
        "update": 1,
        "position": 2,
        "tokens": 16,
        "rewinds": 0,
        "best": None,
        "evaluated": -1,
    }
    assert state == {**counters, "record_bytes": 101}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["step"] == 1 and manifest["data_sha256"] == "d" * 64
    assert sorted(manifest["files"]) == [name for name in FILES if name != "manifest.json"]


def test_the_state_comes_back_to_the_byte_and_goes_on_the_same(tmp_path: Path) -> None:
    store, state = store_of(tmp_path), new_state()
    advance(advance(state, val_loss=2.5))
    torch.manual_seed(77)
    save(store, state, record_bytes=4321)
    expected_draw = torch.rand(3)

    other = new_state()
    assert load_state(open_checkpoint(tmp_path / "checkpoints" / "step-00000002"), other) == 4321
    assert torch.equal(torch.rand(3), expected_draw)
    assert bytes_of(other) == bytes_of(state)
    assert other.counters() == state.counters()
    assert other.best == Best(1, 2.5) and other.evaluated == 1
    assert bytes_of(advance(other)) == bytes_of(advance(state))


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved(tmp_path / "one", 2)
    torch.manual_seed(1)
    saved(tmp_path / "two", 2)
    for name in FILES:
        paths = [tmp_path / run / "checkpoints" / "step-00000002" / name for run in ("one", "two")]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name


def test_tied_weights_are_saved_once(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    weights, _ = load_weights(RunDirectory(tmp_path))
    assert "head.weight" not in weights
    assert set(weights) == {name for name, _ in GPT(SHAPE).named_parameters()}


# --- damage ---


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "first byte": lambda path: flip(path, 0.0),
    "middle byte": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1.0),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lengthen,
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    assert problem_of(folder) is None
    DAMAGES[damage](folder / name)
    problem = problem_of(folder)
    assert problem is not None and str(folder / name) in problem


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x80 if place % 2 else 1
        manifest.write_bytes(spoilt)
        assert problem_of(folder), f"byte {place}"
    manifest.write_bytes(whole)
    assert problem_of(folder) is None


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path: Path) -> None:
    store, notices = saved(tmp_path, 3), list[str]()
    spoilt = tmp_path / "checkpoints" / "step-00000003" / "optimizer.safetensors"
    flip(spoilt, 0.7)
    content = spoilt.read_bytes()
    found = store.newest(notices.append)
    assert found and found.path == tmp_path / "checkpoints" / "step-00000002"
    (aside,) = [name for name in steps(tmp_path) if "bad" in name]
    assert (tmp_path / "checkpoints" / aside / spoilt.name).read_bytes() == content
    assert len(notices) == 1 and str(spoilt) in notices[0] and aside in notices[0]
    assert store.newest(notices.append) == found and len(notices) == 1


def test_no_checkpoint_is_no_error_and_all_damaged_is_none(tmp_path: Path) -> None:
    assert store_of(tmp_path).newest(pytest.fail) is None
    store, notices = saved(tmp_path, 2), list[str]()
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / "manifest.json").unlink()
    assert store.newest(notices.append) is None
    assert len(notices) == 2


def test_weights_of_a_damaged_checkpoint_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    flip(tmp_path / "checkpoints" / "step-00000001" / "model.safetensors", 0.5)
    with pytest.raises(
        RunError,
        match=r"model\.safetensors: its bytes differ from those that "
        r"were written",
    ):
        load_weights(RunDirectory(tmp_path), "last")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    model = GPT(Shape(64, 8, layers=2, heads=2, width=16))
    other = TrainState(Spread(model), build_optimizer(model, Optimizer()), a_guard())
    with pytest.raises(RunError, match="does not fit the model"):
        load_state(open_checkpoint(tmp_path / "checkpoints" / "step-00000001"), other)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[" * 100_000, "state.json: not a JSON object"),
        (b"\x80\x04K\x01.", "state.json: not a JSON object"),
        (b"[]", "state.json: not a JSON object"),
        (b"{}", "state.json: update is not a count"),
        (b'{"update": true}', "state.json: update is not a count"),
        (b'{"update": 1, "position": -1}', "state.json: position is not a count"),
    ],
)
def test_a_state_that_is_none_is_refused_though_its_hash_is_right(
    tmp_path: Path, content: bytes, line: str
) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    checkpoint = open_checkpoint(folder)
    (folder / "state.json").write_bytes(content)
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    checkpoint.manifest["files"]["state.json"] = facts
    with pytest.raises(CheckpointError, match=line):
        load_state(checkpoint, new_state())


# --- rotation and the best weights ---


def test_the_newest_stay_and_the_rest_go(tmp_path: Path) -> None:
    saved(tmp_path, 6, keep=2)
    assert steps(tmp_path) == ["step-00000005", "step-00000006"]
    assert problem_of(tmp_path / "checkpoints" / "step-00000005") is None


def test_nothing_is_deleted_while_the_newest_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = store_of(tmp_path, keep=1), new_state()
    save(store, advance(state), 1)

    def spoil(folder: Path, *rest: Any, **named: Any) -> None:
        write_manifest(folder, *rest, **named)
        flip(folder / "model.safetensors", 0.5)

    monkeypatch.setattr("hairpin.checkpoints.writing.write_manifest", spoil)
    with pytest.raises(HairpinError, match=r"model\.safetensors: its bytes differ"):
        save(store, advance(state), 2)
    assert steps(tmp_path) == ["step-00000001", "step-00000002"]


def test_the_best_weights_are_kept_apart_from_rotation(tmp_path: Path) -> None:
    store, state = store_of(tmp_path, keep=1), new_state()
    became_best, weights = [], {}
    for val_loss in (4.0, 3.0, 3.5, 3.2, 3.1):
        advance(state, val_loss)
        weights[state.update] = bytes_of(state)
        became_best.append(save(store, state, 1))
    assert became_best == [True, True, False, False, False]
    assert problem_of(tmp_path / "best") is None
    best, phrase = load_weights(RunDirectory(tmp_path))
    assert phrase == "best weights, update 2"
    assert {n: t.numpy().tobytes() for n, t in best.items()} == {
        name: weights[2][name] for name in best
    }
    last, phrase = load_weights(RunDirectory(tmp_path), "last")
    assert phrase == "last weights, update 5"
    assert all(tensor.numpy().tobytes() == weights[5][name] for name, tensor in last.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "checkpoints"]


def test_without_hard_links_the_best_weights_are_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    save(store_of(tmp_path), advance(new_state(), 4.0))
    assert problem_of(tmp_path / "best") is None
    assert (tmp_path / "best" / "model.safetensors").stat().st_nlink == 1


def test_no_weights_at_all_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no weights saved yet; resume with `hairpin resume"):
        load_weights(RunDirectory(tmp_path))


# --- what must not be saved, and disks that fail ---


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("failing", ["model", "optimizer", "rng", "state", "manifest", "rename"])
def test_a_full_disk_leaves_what_was_there_and_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store, state = store_of(tmp_path), new_state()
    save(store, advance(state, 4.0), 1)
    before = snapshot(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_: Any) -> None:
        raise full

    def half_of(path: Path, chunks: Iterable[bytes | memoryview]) -> FileFacts:
        facts = write_hashed(path, chunks)
        if path.stem == failing:
            os.truncate(path, path.stat().st_size // 2)
            raise full
        return facts

    for name in ("tensors", "writing", "manifest"):
        monkeypatch.setattr(f"hairpin.checkpoints.{name}.write_hashed", half_of)
    if failing == "rename":
        monkeypatch.setattr("hairpin.system.files.move", fails)
    with pytest.raises(HairpinError, match="No space left"):
        save(store, advance(state, 3.0), 2)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before
    assert steps(tmp_path) == ["step-00000001"]
    assert save(store, state, 2), "and with space again it is saved"
    assert newest_of(store) == tmp_path / "checkpoints" / "step-00000002"


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = store_of(tmp_path), new_state()
    save(store, advance(state), 1)
    before = snapshot(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        HairpinError, match="the disk has 1 kB free; the previous checkpoint is intact"
    ):
        save(store, advance(state), 2)
    assert snapshot(tmp_path) == before


def test_a_first_checkpoint_without_space_claims_none_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = store_of(tmp_path), new_state()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(HairpinError, match="1 kB free; none was saved before it: make space"):
        save(store, advance(state), 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hairpin.checkpoints.tensors.write_hashed", fails)
    with pytest.raises(HairpinError, match=r"No space left on device\); none was saved before it"):
        save(store, state, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["weights", "moments"])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, bad: float, what: str) -> None:
    store, state = store_of(tmp_path), new_state()
    save(store, advance(state), 1)
    before = snapshot(tmp_path)
    advance(state)
    bias = state.model.get_parameter("final_norm.bias")
    with torch.no_grad():
        (bias if what == "weights" else state.optimizer.state[bias]["exp_avg"])[3] = bad
    with pytest.raises(HairpinError, match=r"update 2: .*final_norm\.bias is not finite"):
        save(store, state, 2)
    assert snapshot(tmp_path) == before


def test_a_step_is_never_written_over(tmp_path: Path) -> None:
    store, state = store_of(tmp_path), new_state()
    save(store, advance(state, 4.0), 1)
    before = snapshot(tmp_path)
    with torch.no_grad():
        state.model.get_parameter("final_norm.bias")[0] = 5.0
    save(store, state, 2)
    assert snapshot(tmp_path) == before


def test_weights_found_to_be_the_best_after_their_checkpoint_are_kept_too(tmp_path: Path) -> None:
    store, state = store_of(tmp_path), new_state()
    assert save(store, advance(state), 1) is False
    before = snapshot(tmp_path)
    state.best = Best(1, 4.0)
    assert save(store, state, 1) is True
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    assert problem_of(tmp_path / "best") is None


def test_what_a_killed_process_left_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    store = saved(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step-00000001", folder / ".tmp-step-00000009-123")
    shutil.copytree(folder / "step-00000001", folder / "step-00000009.old")
    assert newest_of(store) == folder / "step-00000001"
