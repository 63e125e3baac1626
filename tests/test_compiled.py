"""Compiled blocks: the same numbers, the same names, and eager where compiling fails."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import hairpin
from hairpin.config.load import build_config, with_values
from hairpin.errors import Interrupted
from hairpin.machine import compiler
from hairpin.model import compiled
from hairpin.model.compiled import compile_blocks, eager_blocks
from hairpin.model.gpt import GPT
from hairpin.model.kernels.cross_entropy import full_cross_entropy
from hairpin.model.shape import Shape
from hairpin.planning.measure.fill_run import compile_choices
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.system.files import private_folder
from helpers import (
    Watching,
    assert_same_history,
    last_checkpoint,
    lively_model,
    random_ids,
    tensor_bytes,
    text_file,
    tiny,
    weights_of,
)

GPT2 = Shape(64, 8, layers=3, heads=2, width=16)
MODERN = replace(GPT2, architecture="modern", bias=False, tied=False)
QWEN3 = replace(MODERN, architecture="qwen3")
ON = tiny(model__layers=3, model__dropout=0.1, execution__compile="on")

Function = Callable[..., Any]
# PyTorch's compiler warns of itself, which Python does not show; here it would be an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]
_compiled = compiled._compiled


@pytest.fixture(autouse=True)
def fresh_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Nothing is compiled yet, and what is goes where the user's cache is not."""
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(_shared_cache(tmp_path_factory)))
    _forget()
    yield
    _forget()


def _shared_cache(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "compiled"
    private_folder(folder)
    return folder


def _forget() -> None:
    _compiled.cache_clear()
    torch.compiler.reset()
    counters.clear()


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: str | Function) -> None:
    """Compile with something quicker than code generation."""

    def compile_with(function: Function) -> Function:
        return torch.compile(function, dynamic=False, fullgraph=True, backend=backend)

    monkeypatch.setattr(compiled, "_compiled", compile_with)


def loss_and_gradients(model: GPT, rows: int, precision: str = "float32") -> list[Tensor]:
    ids = random_ids(rows, model.shape.context + 1)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss, _ = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


# --- the same numbers ---


@pytest.mark.slow
@pytest.mark.parametrize("shape", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_compiled_blocks_have_the_loss_and_the_gradients_of_eager_ones(shape: Shape) -> None:
    model = lively_model(shape)
    eager = loss_and_gradients(model, 4)
    compile_blocks(model, 4)
    ours = loss_and_gradients(model, 4)
    assert counters["stats"]["unique_graphs"] == 1, "one compilation serves all three blocks"
    assert counters["inductor"], "nothing was compiled"
    torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [GPT2, MODERN, QWEN3], ids=["gpt2", "modern", "qwen3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_block_is_one_graph_and_serves_all(
    monkeypatch: pytest.MonkeyPatch, shape: Shape, precision: str
) -> None:
    model = lively_model(shape)
    eager = loss_and_gradients(model, 4, precision)
    with_backend(monkeypatch, "aot_eager")
    compile_blocks(model, 4)
    ours = loss_and_gradients(model, 4, precision)
    assert counters["stats"]["unique_graphs"] == 1
    # In bfloat16 each sum is rounded to 8 bits, and the two may round in another order.
    loose = precision == "bfloat16"
    torch.testing.assert_close(ours, eager, rtol=0.1 if loose else 1e-4, atol=3 if loose else 1e-4)


def test_what_is_not_a_training_pass_of_that_shape_is_never_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[torch.Size] = []

    def counting(function: Function) -> Function:
        def counted(block: GPT, x_BTC: Tensor, *rest: Any) -> Any:
            calls.append(x_BTC.shape)
            return function(block, x_BTC, *rest)

        return counted

    monkeypatch.setattr(compiled, "_compiled", counting)
    model = lively_model(GPT2)
    compile_blocks(model, 4)
    ids = random_ids(5, 9)
    with torch.no_grad():
        model(ids[:4, :-1], ids[:4, 1:])
        model.hidden(ids[:1, :3], model.empty_cache())
    model(ids[:3, :-1], ids[:3, 1:])
    model(ids[:4, :5], ids[:4, 1:6])
    assert calls == []
    model(ids[:4, :-1], ids[:4, 1:])
    assert calls == 3 * [torch.Size([4, 8, 16])]
    eager_blocks(model)
    model(ids[:4, :-1], ids[:4, 1:])
    assert len(calls) == 3


def test_names_stay_and_load_strictly() -> None:
    model, other = GPT(GPT2), lively_model(GPT2)
    names = list(model.state_dict())
    compile_blocks(model, 4)
    assert list(model.state_dict()) == names == [name for name, _ in model.named_parameters()]
    model.load_state_dict(other.state_dict(), strict=True)


# --- whole runs ---


@pytest.mark.slow
def test_a_compiled_run_repeats_and_resumes_to_the_bit(tmp_path: Path) -> None:
    text, watcher = text_file(tmp_path), Watching()
    eager = hairpin.train(
        text, out=tmp_path / "eager", settings=ON | {"execution.compile": "off"}, watcher=Quiet()
    )
    whole = hairpin.train(text, out=tmp_path / "whole", settings=ON, watcher=watcher)
    assert watcher.notices == [] and whole.config.execution.compile == "on"
    assert counters["inductor"], "nothing was compiled"
    ours, theirs = (weights_of(last_checkpoint(run.path)) for run in (whole, eager))
    assert list(ours) == list(theirs)
    assert tensor_bytes(last_checkpoint(whole.path)) != tensor_bytes(last_checkpoint(eager.path))

    with pytest.raises(Interrupted):
        hairpin.train(text, out=tmp_path / "stopped", settings=ON, watcher=Watching(5))
    _forget()  # as a new process would have
    resumed = hairpin.resume(tmp_path / "stopped", watcher=Quiet())
    assert_same_history(whole, resumed)
    again = hairpin.train(
        config=whole.path / "config.toml", out=tmp_path / "again", watcher=Quiet()
    )
    assert_same_history(whole, again)


def fails(graph: Any, inputs: Any) -> Function:
    raise RuntimeError("no such instruction\nand more of it")


def test_where_compiling_fails_the_run_is_eager_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_backend(monkeypatch, fails)
    text, watcher = text_file(tmp_path), Watching()
    settings = ON | {"execution.precision": "auto"}
    run = hairpin.train(text, out=tmp_path / "run", settings=settings, watcher=watcher)
    line, timed = watcher.notices
    assert line.startswith("execution.compile: off") and "no such instruction" in line
    assert timed.startswith("timed on this machine: ") and "not compiled" in timed
    assert "\n" not in line and "and more" not in line
    assert run.config.execution.compile == "off"
    off = ON | {"execution.compile": "off", "execution.precision": run.config.execution.precision}
    eager = hairpin.train(text, out=tmp_path / "eager", settings=off, watcher=Quiet())
    assert_same_history(run, eager)


def test_a_run_that_was_compiled_goes_on_where_nothing_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, watcher = text_file(tmp_path), Watching()
    with monkeypatch.context() as patched:
        with_backend(patched, "eager")
        with pytest.raises(Interrupted):
            hairpin.train(text, out=tmp_path / "run", settings=ON, watcher=Watching(5))
    _forget()
    with_backend(monkeypatch, fails)
    run = hairpin.resume(tmp_path / "run", watcher=watcher)
    failed, changed = watcher.notices
    assert failed.startswith("execution.compile: off")
    assert changed.startswith("execution.compile was on until update 7 and is off from here")
    assert run.summary().status == "finished"


# --- the choice ---


@pytest.mark.parametrize(
    ("asked", "device", "budget_seconds", "expected"),
    [
        ("on", "cpu", None, (True,)),
        ("off", "cuda", 9999.0, (False,)),
        ("auto", "cuda", None, (True,)),
        ("auto", "cpu", None, (False,)),
        ("auto", "cpu", 599.0, (False,)),
        ("auto", "cpu", 600.0, (False, True)),
        ("auto", "mps", 9999.0, (False,)),
    ],
)
def test_auto_compiles_where_it_pays(
    asked: str, device: str, budget_seconds: float | None, expected: tuple[bool, ...]
) -> None:
    how = {"execution.compile": asked, "execution.device": device}
    assert compile_choices(with_values(build_config(), how), budget_seconds) == expected


# --- where compiled code is kept ---


def test_compiled_code_lies_in_the_users_own_folder(
    monkeypatch: pytest.MonkeyPatch, hairpin_cache: Path
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    settings = {"train.tokens_per_update": 32, "execution.micro_batch": 2}
    compiler.compile_model(GPT(GPT2), with_values(build_config(), settings))
    folder = hairpin_cache / "compiled"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    assert cache_dir() == str(folder)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_folder_that_others_may_write_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    watcher = Watching()
    run = hairpin.train(text_file(tmp_path), out=tmp_path / "run", settings=ON, watcher=watcher)
    (line,) = watcher.notices
    assert str(folder) in line and "other users can write" in line and "chmod 700" in line
    assert run.config.execution.compile == "off" and list(folder.iterdir()) == []


# --- all logits at once, with rows of zeros at the end ---


@pytest.mark.parametrize("softcap", [None, 15.0])
@pytest.mark.parametrize("vocabulary", [63, 64, 65, 257])
def test_rows_that_fill_up_the_head_change_neither_loss_nor_gradient(
    vocabulary: int, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    x_NC = torch.randn(12, 8, generator=generator).requires_grad_()
    weight_VC = torch.randn(vocabulary, 8, generator=generator).requires_grad_()
    targets_N = random_ids(12, below=vocabulary)
    targets_N[3] = -100
    ours = full_cross_entropy(x_NC, weight_VC, targets_N, softcap)
    logits = (x_NC @ weight_VC.T).double()
    capped = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    kept = targets_N != -100
    log_probabilities = capped - capped.logsumexp(1, keepdim=True)
    theirs = -log_probabilities[kept].gather(1, targets_N[kept][:, None]).sum()
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(ours, (x_NC, weight_VC)),
        torch.autograd.grad(theirs, (x_NC, weight_VC)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_the_head_of_a_gpu_is_one_graph_too(monkeypatch: pytest.MonkeyPatch, shape: Shape) -> None:
    model, ids = lively_model(replace(shape, vocabulary=61)), random_ids(4, 9, below=61)
    x_BTC = model.hidden(ids[:, :-1]).detach().requires_grad_()
    eager = model.head_loss(x_BTC, ids[:, 1:])
    with_backend(monkeypatch, "aot_eager")
    head_loss = compiled._either_head(model, (4, 8))
    whole = head_loss(x_BTC, ids[:, 1:])
    torch.testing.assert_close(whole, eager)
    weight, inputs = model.head_weight, x_BTC
    ours, theirs = (torch.autograd.grad(loss, (inputs, weight)) for loss in (whole, eager))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert ours[1].shape == weight.shape and counters["stats"]["unique_graphs"] == 1
    with torch.no_grad():
        head_loss(x_BTC, ids[:, 1:])
    head_loss(x_BTC[:3], ids[:3, 1:])
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("shape", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_the_head_of_a_gpu_has_the_loss_of_the_one_on_a_cpu(shape: Shape) -> None:
    model, ids = lively_model(replace(shape, vocabulary=61)), random_ids(4, 9, below=61)
    loss, _ = model(ids[:, :-1], ids[:, 1:])
    whole = model.head_loss(model.hidden(ids[:, :-1]), ids[:, 1:])
    torch.testing.assert_close(whole, loss, rtol=1e-5, atol=1e-4)
