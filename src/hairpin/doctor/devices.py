"""PyTorch and the devices: versions, speed per precision, compilation, support for several
processes.
"""

import os
import re
from collections.abc import Iterator

import torch
from torch import distributed

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.doctor.findings import Finding
from hairpin.doctor.numbers import compare_gradients, make_sample
from hairpin.errors import one_line
from hairpin.machine.compiler import CompileError, compile_model, reason
from hairpin.machine.numerics import Numerics, formats
from hairpin.model.gpt import GPT
from hairpin.planning.measure.probe import measure_flops
from hairpin.system.spinning import spins_forever

MIN_TORCH = (2, 10)
_SHORT_SECONDS = 0.3


def check_torch() -> Iterator[Finding]:
    """Yield the version of PyTorch and the number of threads it computes with."""
    found = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if found < MIN_TORCH:
        least = ".".join(map(str, MIN_TORCH))
        text = f"{torch.__version__} is too old: pip install 'torch>={least}'"
        yield Finding("torch", "problem", text)
    else:
        yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield from _check_threads()


def _check_threads() -> Iterator[Finding]:
    """Yield the thread count if the environment sets it, and how waiting threads behave."""
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked:
        text = (
            f"OMP_NUM_THREADS={asked} is set: good next to other programs; unset it if nothing "
            "else runs"
        )
        yield Finding("threads", "note", one_line(text))
    if how := spins_forever():
        text = (
            f"{how} lets threads wait without sleeping: one other busy program slows training to "
            "a fraction; unset it"
        )
        yield Finding("waiting", "note", one_line(text))


def check_devices() -> Iterator[Finding]:
    """Yield the devices of this machine."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            text = f"{facts.name}, {facts.total_memory / 1e9:.1f} GB"
            yield Finding(f"cuda:{index}", "ok", one_line(text))
    elif torch.version.cuda:
        text = "this PyTorch is built for CUDA but finds no GPU: check whether `nvidia-smi` does"
        yield Finding("cuda", "note", text)
    if torch.backends.mps.is_available():
        yield Finding("mps", "ok", "Apple's GPU; the host scales gradients and skips updates")
    yield Finding("cpu", "ok", _instructions())


def check_formats(device: str) -> Iterator[Finding]:
    """Yield how fast a small model trains in each precision that `precision = "auto"` chooses from.

    Args:
        device: the device to measure.
    """
    safe, *others = formats(device)
    speed = measure_flops(device, safe, seconds=_SHORT_SECONDS)
    yield Finding(f"{safe} on {device}", "ok", f"{speed / 1e9:,.0f} GFLOP/s in a small model")
    for other in others:
        ratio = measure_flops(device, other, seconds=_SHORT_SECONDS) / speed
        text = f"{ratio:.1f} times as fast as {safe}"
        if ratio < 1:
            text += ': apparently emulated; `precision = "auto"` does not use it'
        yield Finding(f"{other} on {device}", "ok" if ratio >= 1 else "note", text)


def check_compiling(device: str) -> Finding:
    """Check that blocks can be compiled and compute the same results; takes up to a minute.

    Args:
        device: the device to compile for.
    """
    sample, what = make_sample("modern"), f"compiling on {device}"
    sequences, context = sample.inputs.shape
    config = with_values(
        Config(),
        {
            "train.tokens_per_update": sequences * context,
            "model.context": context,
            "execution.micro_batch": sequences,
        },
    )

    def prepare(model: GPT) -> None:
        compile_model(model, config)

    try:
        agrees, text = compare_gradients(sample, Numerics(device), prepare)
    except CompileError as error:
        return Finding(what, "note", one_line(f"{error}; runs are eager"))
    except Exception as error:  # a compiler's many parts may raise anything
        return Finding(what, "note", one_line(f"fails ({reason(error)}); runs are eager"))
    return Finding(what, "ok" if agrees else "problem", text, is_wrong=not agrees)


def check_processes() -> Finding:
    """Check that several processes can train together."""
    if not distributed.is_available():
        text = "this PyTorch has no torch.distributed: only one process can train"
        return Finding("several processes", "note", text)
    there = [
        name
        for name, has in (
            ("gloo", distributed.is_gloo_available()),
            ("nccl", distributed.is_nccl_available()),
        )
        if has
    ]
    if torch.cuda.device_count() > 1 and "nccl" not in there:
        text = "several GPUs, but this PyTorch has no NCCL: install its CUDA build"
        return Finding("several processes", "note", text)
    return Finding("several processes", "ok", f"torchrun with {' and '.join(there) or 'nothing'}")


def _instructions() -> str:
    found = torch.backends.cpu.get_cpu_capability()
    library = "with MKL" if torch.backends.mkl.is_available() else "without MKL"  # type: ignore[no-untyped-call]
    return f"vector instructions {found}, {library}"
