"""Compilation of a run's blocks, with the folder of the compiler's cache."""

import os
from pathlib import Path

from hairpin.config.settings import Config
from hairpin.model.compiled import compile_blocks
from hairpin.model.gpt import GPT
from hairpin.system.files import cache_folder, private_folder

_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's own name; Triton's cache is inside it


class CompileError(Exception):
    """Blocks cannot be compiled on this machine; the message gives the reason."""


def compile_model(model: GPT, config: Config) -> None:
    """Compile a model's blocks for the micro-batches of a run, at the first pass.

    The cache holds code that will be run, so it lies where nobody else can write: in
    `TORCHINDUCTOR_CACHE_DIR` if that is set, else in hairpin's own cache.

    Args:
        model: on the device it will train on.
        config: with micro-batch and tokens per update.

    Raises:
        CompileError: others can write to the folder.
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


def reason(error: BaseException) -> str:
    """Return the reason why compiling failed, in a line, from the innermost error."""
    while inner := error.__cause__ or getattr(error, "inner_exception", None):
        error = inner
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
