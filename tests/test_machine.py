"""What a run makes of its machine: formats, memory, and a device that nobody waits for.

There need be no GPU here: what is asked of one is answered by the test.
"""

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

import hairpin
from hairpin.config.settings import Optimizer
from hairpin.errors import ConfigError, HairpinError, Interrupted, RunError
from hairpin.machine import numerics
from hairpin.machine.numerics import Numerics, formats
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.optim.scaling import LossScale
from hairpin.planning.measure import room as room_module
from hairpin.planning.measure.room import installed_bytes, usable_gigabytes
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.training import step as training_step
from hairpin.training.job import Job
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper
from helpers import (
    TEMPLATE,
    Watching,
    a_guard,
    assert_same_history,
    finetune,
    random_ids,
    tasks_file,
    text_file,
    tiny,
)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_timed_in_the_formats_that_it_really_has(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    # As on a T4: bfloat16 is there, but emulated.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert formats("cuda") == ["float32", "bfloat16" if native else "float16"]
    assert formats("cpu") == ["float32", "bfloat16"] and formats("mps") == ["float32"]


def test_a_gpus_memory_is_what_it_has_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70_000_000_000, 80_000_000_000))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert usable_gigabytes("cuda") == 63.0
    assert usable_gigabytes("cpu") == usable_gigabytes("mps") == 3.0


# --- a micro-batch that does not fit ---


CPU_ALLOCATOR = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")


def fits_at_most(
    monkeypatch: pytest.MonkeyPatch,
    sequences: int,
    error: Exception | None = None,
) -> list[int]:
    """Let a model run out of memory; returns the sequences of each training pass."""
    error = error or torch.OutOfMemoryError("CUDA out of memory.")
    forward, seen = GPT.forward, list[int]()

    def limited(self: GPT, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            seen.append(len(inputs))
            if len(inputs) > sequences:
                raise error
        return forward(self, inputs, targets)

    monkeypatch.setattr(GPT, "forward", limited)
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    return seen


@pytest.mark.parametrize("error", [None, CPU_ALLOCATOR, MemoryError()])
def test_what_does_not_fit_is_halved_said_once_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    text, watcher = text_file(tmp_path), Watching()
    settings = tiny(train__tokens_per_update=128, execution__precision="auto")
    with monkeypatch.context() as patched:
        seen = fits_at_most(patched, 3, error)
        run = hairpin.train(
            text, out=tmp_path / "run", settings=settings | {"execution.micro_batch": 8},
            watcher=watcher,
        )  # fmt: skip
    line, timed = watcher.notices
    assert line == "execution.micro_batch: 8 sequences do not fit in memory; using 2"
    assert timed.startswith("timed on this machine: ")
    assert run.config.execution.micro_batch == 2
    assert seen[:2] == [8, 4] and set(seen[2:]) == {2}, "tried again after it was known"
    asked = settings | {
        "execution.micro_batch": 2,
        "execution.precision": run.config.execution.precision,
    }
    fitting = hairpin.train(text, out=tmp_path / "fitting", settings=asked, watcher=Quiet())
    assert_same_history(run, fitting)


def test_where_not_even_one_sequence_fits_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits_at_most(monkeypatch, 0)
    with pytest.raises(ConfigError, match=r"not even one sequence fits.*--size or model\.context"):
        hairpin.train(text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=Quiet())


@pytest.mark.parametrize("room", ["for no sequence", "for no weights"])
def test_a_fine_tuning_without_room_is_told_what_finetune_has(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    if room == "for no sequence":
        fits_at_most(monkeypatch, 0)
    else:
        monkeypatch.setattr(room_module, "installed_bytes", lambda device: 1000)
    with pytest.raises(ConfigError) as raised:
        hairpin.finetune(
            "instruct", tasks_file(tmp_path, 30), start=base.path, out=tmp_path / "run",
            settings=finetune(finetune__template=TEMPLATE), watcher=Quiet(),
        )  # fmt: skip
    (line,) = raised.value.problems
    assert line.endswith("; start from a smaller model, or train fewer blocks with finetune.layers")
    assert "--size" not in line


def test_a_model_that_cannot_fit_is_refused_before_any_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[str]()
    monkeypatch.setattr(GPT, "__init__", lambda self, *rest: taken.append("a model"))
    huge = {"model.layers": 96, "model.width": 16384, "model.heads": 128}
    with pytest.raises(ConfigError, match=r"96 layers of width 16384 need at least .* GB .*--size"):
        hairpin.train(
            text_file(tmp_path), out=tmp_path / "run", settings=tiny() | huge, watcher=Quiet()
        )
    assert not taken


def test_a_run_that_was_edited_beyond_the_machine_is_refused_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    watcher = Watching(6)
    with pytest.raises(Interrupted):
        hairpin.train(text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=watcher)
    config = tmp_path / "run" / "config.toml"
    whole = config.read_text(encoding="utf-8")
    edited = re.sub(r"width = \d+", "width = 16384", re.sub(r"layers = \d+", "layers = 96", whole))
    assert edited != whole
    config.write_text(edited, encoding="utf-8")
    with pytest.raises(ConfigError, match="96 layers of width 16384"):
        hairpin.resume(tmp_path / "run", watcher=Quiet())
    config.write_text(whole, encoding="utf-8")
    assert hairpin.resume(tmp_path / "run", watcher=Quiet()).summary().status == "finished"


def test_nothing_is_made_of_a_run_that_was_edited_beyond_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    run = hairpin.train(text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=Quiet())
    config = run.path / "config.toml"
    whole = config.read_text(encoding="utf-8")
    config.write_text(re.sub(r"width = \d+", "width = 16384", whole), encoding="utf-8")
    made = list[str]()
    initial_value = GPT.initial_value

    def counted(self: GPT) -> Any:
        made.append(str(self.token_embedding.weight.device))
        return initial_value(self) if made[-1] != "meta" else iter(())

    monkeypatch.setattr(GPT, "initial_value", counted)
    with pytest.raises(RunError, match="differs from the model that was trained"):
        hairpin.load(run.path).trained()
    assert set(made) <= {"meta"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_container_or_ulimit_counts_as_the_machine() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    installed = installed_bytes("cpu")
    assert installed <= psutil.virtual_memory().total + psutil.swap_memory().total
    resource.setrlimit(resource.RLIMIT_AS, (installed - 1, before[1]))
    try:
        assert installed_bytes("cpu") == installed - 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_memory_that_runs_out_on_the_way_is_a_line_and_what_was_saved_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    text, step = text_file(tmp_path), Job.step
    whole = hairpin.train(text, out=tmp_path / "whole", settings=tiny(), watcher=Quiet())

    def short(job: Job) -> object:
        if job.state.update == 9:
            raise CPU_ALLOCATOR
        return step(job)

    with monkeypatch.context() as patched:
        patched.setattr(Job, "step", short)
        with pytest.raises(HairpinError, match=r"out of memory.*halve execution\.micro_batch"):
            hairpin.train(text, out=tmp_path / "run", settings=tiny(), watcher=Quiet())
    assert_same_history(whole, hairpin.resume(tmp_path / "run", watcher=Quiet()))


# --- nobody waits ---


def on_meta(scaling: LossScale | None) -> Stepper:
    """A stepper whose device has no values: whoever wants to read one is told so."""
    model = GPT(Shape(64, 16, layers=2, heads=2, width=16, dropout=0.1)).to("meta")
    return Stepper(
        Spread(model),
        build_optimizer(model, Optimizer()),
        Clipper("norm", 1.0),
        Numerics("meta"),
        seed=0,
        micro_batch=2,
        guard=Guard(a_guard().settings, "meta"),
        scaling=scaling,
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_an_update_reads_nothing_from_its_device(
    monkeypatch: pytest.MonkeyPatch, scaled: bool
) -> None:
    steps: list[Tensor] = []  # the fused kernel itself is PyTorch's, and has no such device
    monkeypatch.setattr(training_step, "step_unless", lambda skip, *_: steps.append(skip))
    stepper = on_meta(LossScale("meta") if scaled else None)
    ids = random_ids(4, 17)
    for update in range(3):
        result = stepper.step((ids[:, :-1], ids[:, 1:]), update=update, position=0, lr=0.1)
    assert len(steps) == 3 and steps[0].device.type == "meta" and result.tokens == 64
    with pytest.raises(RuntimeError, match="meta"):
        result.read()


def test_on_cuda_numbers_are_one_copy_that_is_waited_for_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    class Event:
        def record(self) -> None:
            done.append("recorded")

        def synchronize(self) -> None:
            done.append("waited")

    empty, copy = torch.empty, Tensor.copy_

    def pinned(*size: int, pin_memory: bool) -> Tensor:
        assert pin_memory
        return empty(*size)

    def copied(self: Tensor, other: Tensor, non_blocking: bool = False) -> Tensor:
        done.append(f"copied {len(other)}" + (", not waiting" if non_blocking else ""))
        return copy(self, other)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(Tensor, "copy_", copied)
    scalars = [torch.tensor(0.1), torch.tensor(True), torch.tensor(False)]
    read = training_step.send_scalars(scalars, "cuda")
    assert done == ["copied 3, not waiting", "recorded"]
    assert read() == [float(torch.tensor(0.1)), 1.0, 0.0] and done[2:] == ["waited"]


def test_batches_go_to_cuda_from_pinned_memory_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def pin_memory(self: Tensor) -> Tensor:
        seen.append(("pinned", self.is_contiguous()))
        return self

    def to(self: Tensor, *arguments: Any, **named: Any) -> Tensor:
        seen.append((*arguments, named))
        return self

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    ids = random_ids(2, 9)[:, :-1]
    assert torch.equal(Numerics("cuda").to_device(ids), ids)
    # A copy of rows with gaps would be made whole first, and waited for.
    assert seen == [("pinned", True), ("cuda", {"non_blocking": True})]


def garbage_frozen(device: str) -> int:
    with Numerics(device).undisturbed():
        return gc.get_freeze_count()


def test_beside_a_gpu_the_garbage_collector_leaves_what_was_there_alone() -> None:
    before = gc.get_freeze_count()
    assert garbage_frozen("cuda") > before + 10_000
    assert gc.get_freeze_count() == 0 == garbage_frozen("cpu")


def test_the_frozen_are_let_go_when_training_fails() -> None:
    error: Callable[[], Any] = lambda: 1 / 0  # noqa: E731
    with pytest.raises(ZeroDivisionError), numerics.Numerics("cuda").undisturbed():
        error()
    assert gc.get_freeze_count() == 0
