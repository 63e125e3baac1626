"""Several processes train one run: what they do is what one process does."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import hairpin
from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.checkpoints.store import CheckpointStore
from helpers import some_text, tiny
from processes import Ended, Fault, rows_trained_on, together

UPDATES = 24
# Six samples in an update: of four processes the last has none. Nor is 257 a multiple of 4.
MODERN = tiny(
    recipe="modern",
    model__layers=2,
    model__width=36,
    train__updates=UPDATES,
    train__tokens_per_update=96,
    evaluate__every_updates=8,
    schedule__peak_lr=0.002,
    execution__micro_batch=1,
)
GPT2 = MODERN | {"recipe": "gpt2", "clip.threshold": 0.5}
WAYS = [
    ("modern", 2, "ddp"),
    ("modern", 4, "ddp"),
    ("modern", 2, "fsdp"),
    ("modern", 4, "fsdp"),
    ("gpt2", 4, "fsdp"),
]


@dataclass(frozen=True)
class Trained:
    """A run of several processes, and what it logged."""

    folder: Path
    size: int
    ended: list[Ended]
    settings: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def rows(self) -> list[list[list[int]]]:
        return rows_trained_on(self.folder / "side", self.size)

    def weights(self) -> dict[str, Tensor]:
        return last_tensors(self.run, "model")


def last_tensors(run: Path, group: str) -> dict[str, Tensor]:
    return open_checkpoint(CheckpointStore(run / "checkpoints").steps()[-1]).tensors(group)


def arguments(folder: Path, settings: dict[str, Any], *more: str) -> list[str]:
    text = folder.parent / "text.txt"
    if not text.exists():
        text.write_text(some_text(), encoding="utf-8")
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return ["train", str(text), "--out", str(folder / "run"), *flags, *more]


def train(
    folder: Path,
    size: int,
    settings: dict[str, Any],
    *more: str,
    fault: Fault | None = None,
) -> Trained:
    command = arguments(folder, settings, *more)
    return Trained(folder, size, together(size, command, folder / "side", fault), settings)


def resume(folder: Path, size: int, fault: Fault | None = None) -> Trained:
    command = ["resume", str(folder / "run")]
    return Trained(folder, size, together(size, command, folder / "side", fault), {})


@pytest.fixture(scope="module")
def all_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """The runs of one process."""
    found = {}
    for recipe, settings in (("modern", MODERN), ("gpt2", GPT2)):
        folder = tmp_path_factory.mktemp(recipe) / "one"
        found[recipe] = train(folder, 1, settings)
        assert found[recipe].ended[0].code == 0, found[recipe].ended
    return found


def check_learning_rates_and_data_are_equal(alone: Trained, shared: Trained) -> None:
    rates = [[event["lr"] for event in t.events("update")] for t in (alone, shared)]
    assert rates[0] == rates[1] and len(rates[0]) == UPDATES
    assert alone.rows() == shared.rows()


def check_first_gradients_are_equal_within_rounding(alone: Trained, shared: Trained) -> None:
    mine, theirs = (load_file(t.folder / "side" / "gradients") for t in (alone, shared))
    norm = torch.stack([gradient.norm() for gradient in mine.values()]).norm()
    apart = torch.stack([(mine[name] - theirs[name]).norm() for name in mine]).norm()
    assert mine.keys() == theirs.keys() and apart <= 1e-6 * norm


def check_losses_norms_and_evaluations_are_equal_within_rounding(
    alone: Trained, shared: Trained
) -> None:
    for mine, theirs in zip(alone.events("update")[:20], shared.events("update"), strict=False):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-5)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4)
        assert theirs["tokens"] == mine["tokens"] == 96
    ends = [t.events("evaluation")[-1]["val_loss"] for t in (alone, shared)]
    assert ends[1] == pytest.approx(ends[0], rel=0.01)


def check_one_process_speaks_and_writes(alone: Trained, shared: Trained) -> None:
    first, *others = shared.ended
    assert "best" in first.out and all(not o.out and not o.err for o in others)
    for kind in ("start", "plan", "evaluation", "sample", "checkpoint", "ratios", "end"):
        assert len(shared.events(kind)) == len(alone.events(kind)), kind
    assert shared.events("sample")[-1]["text"] == alone.events("sample")[-1]["text"]
    environment = json.loads((shared.run / "environment.json").read_text(encoding="utf-8"))
    assert environment["processes"] == shared.size


def check_step_sizes_are_those_of_the_whole_model(alone: Trained, shared: Trained) -> None:
    for mine, theirs in zip(alone.events("ratios"), shared.events("ratios"), strict=True):
        assert theirs["ratios"] == pytest.approx(mine["ratios"], rel=5e-3)


def check_one_process_reads_what_they_saved(shared: Trained) -> None:
    found = open_checkpoint(CheckpointStore(shared.run / "checkpoints").steps()[-1])
    sharded = (shared.run / "best" / f"model-00001-of-{shared.size:05d}.safetensors").exists()
    assert sharded == ("shards" in found.manifest) == ("fsdp" in shared.folder.name)
    assert found.processes == shared.size
    assert found.groups() == ["guard", "model", "optimizer", "rng"]
    run, text = str(shared.run), str(shared.folder.parent / "text.txt")
    for verb in (
        ["evaluate", run, text, "--weights", "last"],
        ["sample", run, "--prompt", "the cat", "--tokens", "4"],
        ["verify", run],
    ):
        (done,) = together(1, verb, shared.folder / verb[0])
        assert done.code == 0 and done.out, done


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "size", "how"), WAYS)
def test_the_run_of_several_processes_is_that_of_one(
    all_alone: dict[str, Trained], recipe: str, size: int, how: str
) -> None:
    alone = all_alone[recipe]
    folder = alone.folder.parent / f"{size}-{how}"
    shared = train(folder, size, alone.settings, "--parallel", how)
    assert [ended.code for ended in shared.ended] == [0] * size, shared.ended
    check_learning_rates_and_data_are_equal(alone, shared)
    check_first_gradients_are_equal_within_rounding(alone, shared)
    check_losses_norms_and_evaluations_are_equal_within_rounding(alone, shared)
    check_one_process_speaks_and_writes(alone, shared)
    check_step_sizes_are_those_of_the_whole_model(alone, shared)
    check_one_process_reads_what_they_saved(shared)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "how"), [(3, "ddp"), (3, "fsdp")])
def test_one_that_is_killed_ends_all_and_a_restart_ends_in_the_same_bits(
    tmp_path: Path, size: int, how: str
) -> None:
    settings = MODERN | {"model.dropout": 0.0}
    unbroken = train(tmp_path / "unbroken", size, settings, "--parallel", how)
    killed = train(
        tmp_path / "killed",
        size,
        settings,
        "--parallel",
        how,
        fault=Fault(rank=1, update=13, signal_number=signal.SIGKILL),
    )
    assert killed.ended[1].code == -signal.SIGKILL
    for rank, ended in enumerate(killed.ended):
        if rank != 1:
            assert ended.code == 1 and "Traceback" not in ended.err
            # One that reads how the first one ended, before it sees the loss itself, is silent.
            is_silent = rank > 0 and (ended.out, ended.err) == ("", "")
            lost = rf"process {rank} of {size}: another process has ended"
            assert is_silent or re.search(lost, ended.err)
    assert killed.events("end")[-1]["status"] == "failed"

    again = train(tmp_path / "killed", size, settings, "--parallel", how, "--or-resume")

    assert [ended.code for ended in again.ended] == [0] * size, again.ended
    assert again.events("resume")[0]["update"] == 8
    for group in ("model", "optimizer"):
        mine, theirs = (last_tensors(t.run, group) for t in (unbroken, again))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    losses = [[e["loss"] for e in t.events("update")] for t in (unbroken, again)]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_one_two_and_one_process_go_on_with_each_others_checkpoints(
    tmp_path: Path, how: str
) -> None:
    unbroken = train(tmp_path / "unbroken", 1, MODERN)
    stopped = train(
        tmp_path / "run",
        1,
        MODERN,
        "--parallel",
        how,
        fault=Fault(rank=0, update=7, signal_number=signal.SIGTERM),
    )
    assert stopped.ended[0].code == 143
    two = resume(tmp_path / "run", 2, Fault(rank=1, update=15, signal_number=signal.SIGINT))
    assert [ended.code for ended in two.ended] == [130, 130], two.ended
    assert "the number of processes was 1 until update 7 and is 2 from here" in two.ended[0].out
    one = resume(tmp_path / "run", 1)
    assert one.ended[0].code == 0, one.ended

    mine, theirs = unbroken.events("update"), one.events("update")
    assert [e["lr"] for e in mine] == [e["lr"] for e in theirs]
    assert [e["update"] for e in theirs] == list(range(UPDATES))
    assert [e["loss"] for e in theirs] == pytest.approx([e["loss"] for e in mine], abs=2e-5)
    ends = [t.events("evaluation")[-1]["val_loss"] for t in (unbroken, one)]
    assert ends[1] == pytest.approx(ends[0], abs=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_update(tmp_path: Path) -> None:
    fault = Fault(rank=2, update=5, signal_number=signal.SIGTERM)
    stopped = train(tmp_path / "run", 3, GPT2, fault=fault)
    assert [ended.code for ended in stopped.ended] == [143] * 3
    assert stopped.ended[0].err.count("stopped after update") == 1
    assert not stopped.ended[1].err and not stopped.ended[2].err
    steps = CheckpointStore(stopped.run / "checkpoints").steps()
    assert len(stopped.events("update")) == int(steps[-1].name[5:]) in (6, 7)


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_ends_all_and_leaves_the_checkpoint_before(
    tmp_path: Path,
) -> None:
    fault = Fault(rank=1, full_disk=True)
    failed = train(tmp_path / "run", 2, GPT2, "--parallel", "fsdp", fault=fault)
    assert [ended.code for ended in failed.ended] == [1, 1]
    for ended in failed.ended:
        assert "process 1 cannot save update" in ended.err and "Traceback" not in ended.err
    assert not list((failed.run / "checkpoints").glob("*"))
    again = resume(tmp_path / "run", 2)
    assert [ended.code for ended in again.ended] == [0, 0]


@pytest.mark.slow
def test_a_damaged_piece_is_set_aside_with_its_checkpoint(tmp_path: Path) -> None:
    done = train(tmp_path / "run", 2, GPT2, "--parallel", "fsdp")
    steps = CheckpointStore(done.run / "checkpoints").steps()
    piece = steps[-1] / "optimizer-00002-of-00002.safetensors"
    piece.write_bytes(piece.read_bytes()[:-1] + b"\x01")
    (verified,) = together(1, ["verify", str(done.run)], tmp_path / "verify")
    assert verified.code != 0 and piece.name in verified.out + verified.err
    found = CheckpointStore(done.run / "checkpoints").newest()
    assert found and found.path == steps[-2]


@pytest.mark.slow
def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    wrong = train(tmp_path / "run", 2, GPT2, "--set", "schedule.warmup_updates=90")
    assert [ended.code for ended in wrong.ended] == [2, 2]
    assert "warmup" in wrong.ended[0].err and not wrong.ended[1].err
    assert not wrong.run.exists()
    other = together(2, ["plan", str(tmp_path / "text.txt")], tmp_path / "side")
    assert [ended.code for ended in other] == [2, 2]
    assert "for one process, and 2 were started" in other[0].err and not other[1].err


_SAID = "cat dog moon hill mat cat dog moon hill mat moon cat"
RECORDS = [
    {"instruction": f"Say {word}", "input": "", "response": word * (count // 3 + 1)}
    for count, word in enumerate(_SAID.split(), 1)
]
LABELLED = [
    {"text": f"{word} sat on the hill", "label": "animal" if word in ("cat", "dog") else "thing"}
    for word in ("cat", "moon", "dog", "mat") * 8
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "records", "ways"),
    [("instruct", RECORDS, ["ddp", "fsdp"]), ("classify", LABELLED, ["ddp"])],
)
def test_fine_tuning_weighs_examples_of_unequal_length_as_one_process_does(
    tmp_path: Path, kind: str, records: list[dict[str, str]], ways: list[str]
) -> None:
    settings = MODERN | {"model.context": 64, "train.tokens_per_update": 192}
    base = train(tmp_path / "base", 1, settings | {"train.updates": 6})
    assert base.ended[0].code == 0, base.ended
    data = tmp_path / "records.jsonl"
    data.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    command = ["finetune", kind, "--from", str(base.run), "--data", str(data), "--updates", "6"]
    command += ["--set", "finetune.examples_per_update=5", "--set", "execution.micro_batch=2"]
    command += ["--precision", "float32", "--set", "schedule.warmup_updates=1"]
    found = {}
    for size, how in [(1, "ddp"), *((2, how) for how in ways)]:
        folder = tmp_path / f"{size}-{how}"
        out = ["--out", str(folder / "run"), "--set", f"execution.parallel={how}"]
        ended = together(size, command + out, folder / "side")
        assert [one.code for one in ended] == [0] * size, ended
        found[size, how] = Trained(folder, size, ended, {})
    one = found.pop((1, "ddp"))
    for other in found.values():
        for mine, theirs in zip(one.events("update"), other.events("update"), strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-5)
            assert theirs["tokens"] == mine["tokens"]
        for mine, theirs in zip(one.events("evaluation"), other.events("evaluation"), strict=True):
            assert theirs["val_loss"] == pytest.approx(mine["val_loss"], abs=1e-5)
            assert theirs.get("val_confusion") == mine.get("val_confusion")


@pytest.mark.slow
def test_a_budget_is_met_with_one_length_for_all(tmp_path: Path) -> None:
    settings = {k: v for k, v in GPT2.items() if not k.startswith(("train.updates", "schedule"))}
    done = train(tmp_path / "run", 2, settings, "--budget", "9s")
    assert [ended.code for ended in done.ended] == [0, 0], done.ended
    planned = hairpin.load(done.run).config.train.updates
    assert len(done.events("update")) == planned
    assert done.events("end")[-1]["status"] == "finished"


SCRIPT = """
import os, signal
from functools import wraps
from hairpin.cli.main import main
from hairpin.training.step import Stepper

step = Stepper.step

@wraps(step)
def mortal(self, batch, *, update, **named):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and update == 13 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, update=update, **named)

Stepper.step = mortal
main()
"""


@pytest.mark.slow
def test_torchrun_starts_a_run_again_which_the_first_process_has_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command = arguments(tmp_path / "x", GPT2)
    at = command.index("--out")
    del command[at : at + 2]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, "--max-restarts", "1", str(script), *command],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["update"] for e in events if e["event"] == "update"] == list(range(UPDATES))
    assert [e["event"] for e in events].count("resume") == 1
    assert "another process has ended" in done.stderr
