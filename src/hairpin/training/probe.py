"""Measuring this machine: how fast a model's update really is, in which precision, compiled or not,
and how many sequences fit.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.distributed.launch import world_size
from hairpin.errors import ConfigError
from hairpin.model.compiled import eager_blocks
from hairpin.model.gpt import GPT
from hairpin.model.plugged import training_loss
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.optim.scaling import LossScale
from hairpin.planning.sizes import flops_per_token
from hairpin.training import compiler
from hairpin.training.compiler import CompileError
from hairpin.training.numerics import Numerics, formats
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper
from hairpin.training.task import Samples

_REFERENCE = Shape(vocabulary=2048, context=128, layers=4, heads=4, width=192)
_REFERENCE_SEQUENCES = 16
_REFERENCE_PASSES = 5
_LONG_UPDATE_SECONDS = 20.0


@dataclass(frozen=True)
class Speed:
    """What an update takes here, and the way of doing it that is the fastest.

    Args:
        precision: of the matrix products.
        seconds_per_update: of one that is not the first.
        micro_batch: sequences in one forward pass, if they had to become fewer.
        compiled: whether blocks are.
    """

    precision: str
    seconds_per_update: float
    micro_batch: int
    compiled: bool = False


def measure_flops(
    device: str,
    precision: str,
    *,
    sequences: int = _REFERENCE_SEQUENCES,
    passes: int = _REFERENCE_PASSES,
) -> float:
    """Floating-point operations a second that training a small model reaches on this machine.

    Args:
        device: where.
        precision: one format, or "auto" for the faster.
        sequences: of 128 tokens, in each pass.
        passes: of which the fastest counts.
    """
    ids = torch.randint(0, _REFERENCE.vocabulary, (sequences, _REFERENCE.context + 1))
    model = GPT(_REFERENCE).to(device)
    best = 0.0
    for candidate in _candidates(device, precision):
        numerics = Numerics(device, candidate)
        times = [_time_pass(model, ids, numerics) for _ in range(passes)]
        # The fastest pass: whatever else the machine does only makes the others slower.
        tokens = sequences * _REFERENCE.context
        best = max(best, tokens * flops_per_token(_REFERENCE) / min(times))
    return best


def _time_pass(model: GPT, ids: Tensor, numerics: Numerics) -> float:
    start = time.perf_counter()
    with numerics.autocast():
        loss, count = model(ids[:, :-1].to(numerics.device), ids[:, 1:].to(numerics.device))
    (loss / count).backward()
    numerics.synchronize()
    return time.perf_counter() - start


def measure_update(
    config: Config,
    model: GPT,
    batches: Samples,
    seconds: float,
    *,
    compiling: tuple[bool, ...] = (False,),
    notice: Callable[[str], None] = lambda line: None,
) -> Speed:
    """The time of one update of this very run, on a model that is thrown away.

    Args:
        config: with micro-batch and tokens per update.
        model: like the run's.
        batches: of the run.
        seconds: about how long to measure in all; 0: no longer than it must take.
        compiling: whether to compile; both: as is faster.
        notice: told where compiling fails, or a micro-batch does not fit.

    Raises:
        ConfigError: not even one sequence fits.
    """
    how, trial = config.execution, config
    model = model.to(how.device)
    model.recomputes = how.activation_checkpointing
    ways = list(itertools.product(_candidates(how.device, how.precision), compiling))
    speeds = []
    try:
        for precision, compiled in ways:
            trial = with_values(trial, {"execution.precision": precision})
            trial, took = _time_what_fits(trial, model, batches, seconds / len(ways), compiled)
            speeds.append((took, precision, compiled))
    except CompileError as error:
        notice(f"execution.compile: off, as compiling fails here: {error}")
        return measure_update(config, model, batches, seconds, notice=notice)
    asked, fits = how.micro_batch, trial.execution.micro_batch
    assert asked and fits
    if fits < asked:
        notice(f"execution.micro_batch: {asked} sequences do not fit in memory; it is {fits} now")
    took, precision, compiled = min(speeds)
    return Speed(precision, took, fits, compiled)


def _time_what_fits(
    config: Config, model: GPT, batches: Samples, seconds: float, compiled: bool
) -> tuple[Config, float]:
    """The config with as many sequences in a micro-batch as fit, and the seconds of an update."""
    while True:
        micro_batch = config.execution.micro_batch
        assert micro_batch
        try:
            return config, _time_way(config, model, batches, seconds, compiled)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if micro_batch == 1:
                raise ConfigError(
                    "execution.micro_batch: not even one sequence fits in memory; take a smaller "
                    "--size or model.context"
                ) from None
        # Out of the handler, so that nothing holds on to what did not fit.
        model.zero_grad(set_to_none=True)
        if config.execution.device == "cuda":
            torch.cuda.empty_cache()
        elif config.execution.device == "mps":
            torch.mps.empty_cache()
        config = with_values(config, {"execution.micro_batch": micro_batch // 2})


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device had too little memory; MPS says so in words, with no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def _time_way(
    config: Config, model: GPT, batches: Samples, seconds: float, compiled: bool
) -> float:
    """Seconds of an update as the config has it.

    Raises:
        torch.OutOfMemoryError: it does not fit.
        CompileError: compiling failed.
    """
    stepper, samples = _stepper(config, model), config.train.tokens_per_update
    assert samples
    samples = -(-samples // model.shape.context // world_size())  # of one process
    if not compiled:
        return _time_updates(stepper, batches, samples, seconds)
    try:
        compiler.compile_model(model, config)
        stepper.step(batches.at(0, samples), update=0, position=0, lr=0.0)  # it compiles here
        return _time_updates(stepper, batches, samples, seconds)
    except (torch.OutOfMemoryError, CompileError):
        raise
    except Exception as error:  # whatever a compiler's many parts raise
        raise CompileError(compiler.reason(error)) from error
    finally:
        eager_blocks(model)


def _stepper(config: Config, model: GPT) -> Stepper:
    how = config.execution
    assert how.micro_batch
    return Stepper(
        Spread(model),
        build_optimizer(model, config.optimizer, precision=how.precision),
        Clipper(config.clip.kind, config.clip.threshold),
        Numerics(how.device, how.precision),
        seed=0,
        micro_batch=how.micro_batch,
        guard=Guard(config.guard, how.device),
        scaling=LossScale(how.device) if how.precision == "float16" else None,
        loss=training_loss(config.train.loss),
    )


def _time_updates(stepper: Stepper, batches: Samples, samples: int, seconds: float) -> float:
    """Seconds of an update, after one that warms up."""
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < seconds:
        start = time.perf_counter()
        stepper.step(batches.at(0, samples), update=0, position=0, lr=0.0)
        stepper.numerics.synchronize()
        times.append(time.perf_counter() - start)
        if times[0] > _LONG_UPDATE_SECONDS:  # what warming up adds to it no longer matters
            break
    return min(times)


def _candidates(device: str, precision: str) -> list[str]:
    return formats(device) if precision == "auto" else [precision]
