"""Whether a run's blocks are compiled, and where the compiler keeps what it made."""

import os
from pathlib import Path

from hairpin.config.settings import Config
from hairpin.data.cache import cache_folder
from hairpin.files import private_folder
from hairpin.model.compiled import compile_blocks
from hairpin.model.gpt import GPT
from hairpin.plugins import BUILT_IN

_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's own name; Triton's cache is inside it
_LEAST_BUDGET_SECONDS = 600.0


class CompileError(Exception):
    """Blocks cannot be compiled on this machine; its words say why."""


def compile_model(model: GPT, config: Config) -> None:
    """Compile a model's blocks for the micro-batches of a run, at the first pass.

    What is kept for the next time is code that will be run, so it lies where nobody else can put
    any: in `TORCHINDUCTOR_CACHE_DIR` where that is set, else in hairpin's own cache.

    Args:
        model: where it is going to train.
        config: with micro-batch and tokens per update.

    Raises:
        CompileError: the folder is not the user's alone.
    """
    folder = Path(os.environ.get(_CACHE) or cache_folder() / "compiled")
    try:
        private_folder(folder)
    except OSError as error:
        raise CompileError(str(error)) from None
    os.environ[_CACHE] = str(folder)
    assert config.train.tokens_per_update and config.execution.micro_batch
    samples = config.train.tokens_per_update // model.shape.context
    compile_blocks(model, min(samples, config.execution.micro_batch))


def choices(config: Config, budget_seconds: float | None) -> tuple[bool, ...]:
    """Whether to compile: one answer, or both, of which the faster is to be taken.

    A minute of compiling pays in any run on a GPU, where a block is a hundred small kernels. On a
    CPU it may not, as most of the time is in matrix products that compiling leaves as they are; so
    it is tried where a time budget has room for that.

    Args:
        config: with a device.
        budget_seconds: wall time for the whole run; None: the config says how long it is.
    """
    how = config.execution
    if config.model.architecture not in BUILT_IN["model"]:
        return (False,)
    if how.compile != "auto":
        return (how.compile == "on",)
    if how.device == "cuda":
        return (True,)
    tries = how.device == "cpu" and budget_seconds and budget_seconds >= _LEAST_BUDGET_SECONDS
    return (False, True) if tries else (False,)


def reason(error: BaseException) -> str:
    """Why compiling failed, in a line: the innermost error is the one that says."""
    while inner := error.__cause__ or getattr(error, "inner_exception", None):
        error = inner
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
