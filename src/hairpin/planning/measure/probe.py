"""Measurements of this machine: the speed of a model's update, by precision, compiled or not, and
the number of sequences that fit.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.distributed.launch import world_size
from hairpin.errors import ConfigError
from hairpin.machine import compiler
from hairpin.machine.compiler import CompileError
from hairpin.machine.numerics import Numerics, formats
from hairpin.machine.out_of_memory import is_out_of_memory
from hairpin.machine.threads import computing_with, may_use_one_thread
from hairpin.machine.torch_settings import alone
from hairpin.model.compiled import eager_blocks
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.planning.measure.room import smaller
from hairpin.planning.sizes import flops_per_token
from hairpin.training.assembly import state_of, stepper_of
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper
from hairpin.training.task import Samples

_REFERENCE = Shape(vocabulary=2048, context=128, layers=4, heads=4, width=192)
_REFERENCE_SEQUENCES = 16
_FLOPS_SECONDS = 0.8
_LONG_SECONDS = 1.0
_SLOW_FLOPS = 2e9  # a second, on an old, busy machine
_TOO_SLOW = 2.0  # times as slow as another way: it is not timed again
# One thread is chosen if it takes at most this share of the time of all threads. A smaller gain is
# that of a moment in which other programs are busy: a run adapts to them by itself
# (machine/other_programs.py), and they may end before it does.
_ONE_THREAD_GAIN = 0.6


@dataclass(frozen=True)
class Speed:
    """Time of an update here, and the fastest way of computing it.

    Args:
        precision: of the matrix products.
        seconds_per_update: of one that is not the first.
        micro_batch: sequences in one forward pass, if reduced.
        compiled: True if blocks are compiled.
        threads: "all", or "one" where that is faster.
    """

    precision: str
    seconds_per_update: float
    micro_batch: int
    compiled: bool = False
    threads: str = "all"


@alone
def measure_flops(device: str, precision: str, *, seconds: float = _FLOPS_SECONDS) -> float:
    """Return the floating-point operations a second that training a small model reaches here.

    Args:
        device: the device.
        precision: one format, or "auto" for the faster.
        seconds: approximate time to measure. On a slow or busy machine, passes are smaller and
            fewer, not longer.
    """
    model = GPT(_REFERENCE).to(device)
    candidates = _candidates(device, precision)
    return max(_flops_in(model, Numerics(device, c), seconds / len(candidates)) for c in candidates)


def _flops_in(model: GPT, numerics: Numerics, seconds: float) -> float:
    """Return the rate of the fastest pass: other work on the machine only slows passes."""
    ids = torch.randint(0, _REFERENCE.vocabulary, (_REFERENCE_SEQUENCES, _REFERENCE.context + 1))
    deadline, sequences, best = time.perf_counter() + seconds, 1, 0.0
    while True:
        took = _time_pass(model, ids[:sequences], numerics)
        best = max(best, sequences * _REFERENCE.context * flops_per_token(_REFERENCE) / took)
        wider = min(2 * sequences, _REFERENCE_SEQUENCES)
        if time.perf_counter() + took * wider / sequences > deadline:
            return best
        sequences = wider


def _time_pass(model: GPT, ids: Tensor, numerics: Numerics) -> float:
    start = time.perf_counter()
    with numerics.autocast():
        loss, count = model(ids[:, :-1].to(numerics.device), ids[:, 1:].to(numerics.device))
    (loss / count).backward()
    numerics.synchronize()
    return time.perf_counter() - start


@alone
def measure_update(
    config: Config,
    model: GPT,
    batches: Samples,
    seconds: float,
    *,
    compiling: tuple[bool, ...] = (False,),
    notice: Callable[[str], None] = lambda line: None,
) -> Speed:
    """Time one update of this very run, on a model that is thrown away.

    Args:
        config: with micro-batch and tokens per update.
        model: like the run's.
        batches: of the run.
        seconds: approximate time for all formats together; 0: as short as possible.
        compiling: True to compile; both: the faster.
        notice: called if compiling fails, or a micro-batch does not fit.

    Raises:
        ConfigError: not even one sequence fits.
    """
    how, trial = config.execution, config
    model = model.to(how.device)
    model.recomputes = how.activation_checkpointing
    precisions = _candidates(how.device, how.precision)
    asked_threads = "one" if how.threads == "one" else "all"
    ways = [_Variant(p, c, asked_threads) for p, c in itertools.product(precisions, compiling)]
    speeds: list[tuple[float, _Variant]] = []
    try:
        for way in ways:
            fastest = min((took for took, _ in speeds), default=math.inf)
            trial, took = _time_fitting(trial, model, batches, seconds / len(ways), way, fastest)
            speeds.append((took, way))
    except CompileError as error:
        notice(f"execution.compile: off, as compiling fails here: {error}")
        return measure_update(config, model, batches, seconds, notice=notice)
    took, way = min(speeds, key=lambda found: found[0])
    if how.threads == "auto" and not way.compiled and may_use_one_thread(how.device):
        alone = replace(way, threads="one")
        trial, alone_took = _time_fitting(
            trial, model, batches, seconds / len(ways), alone, _ONE_THREAD_GAIN * took
        )
        if alone_took < _ONE_THREAD_GAIN * took:
            took, way = alone_took, alone
    asked, fits = how.micro_batch, trial.execution.micro_batch
    assert asked and fits
    if fits < asked:
        notice(f"execution.micro_batch: {asked} sequences do not fit in memory; using {fits}")
    return Speed(way.precision, took, fits, way.compiled, way.threads)


@dataclass(frozen=True)
class _Variant:
    """One way of computing an update."""

    precision: str
    compiled: bool
    threads: str


def _time_fitting(
    config: Config, model: GPT, batches: Samples, seconds: float, way: _Variant, fastest: float
) -> tuple[Config, float]:
    """Return the config with as many sequences in a micro-batch as fit, and seconds of an update.

    Args:
        config, model, batches: as in `measure_update`.
        seconds: approximate time to measure.
        way: the way of computing it.
        fastest: seconds of another way; one that is far slower is not timed carefully.
    """
    config = with_values(config, {"execution.precision": way.precision})
    while True:
        micro_batch = config.execution.micro_batch
        assert micro_batch
        try:
            with computing_with(way.threads):
                return config, _time_variant(config, model, batches, seconds, way, fastest)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if micro_batch == 1:
                raise ConfigError(
                    "execution.micro_batch: not even one sequence fits in memory; "
                    + smaller(config, " or model.context")
                ) from None
        # Outside the handler, so that nothing keeps a reference to what did not fit.
        model.zero_grad(set_to_none=True)
        if config.execution.device == "cuda":
            torch.cuda.empty_cache()
        elif config.execution.device == "mps":
            torch.mps.empty_cache()
        config = with_values(config, {"execution.micro_batch": micro_batch // 2})


def _time_variant(
    config: Config, model: GPT, batches: Samples, seconds: float, way: _Variant, fastest: float
) -> float:
    """Return the seconds of an update by the config.

    Raises:
        RuntimeError, MemoryError: it does not fit.
        CompileError: compiling failed.
    """
    stepper = stepper_of(config, state_of(config, Spread(model)))
    samples = config.train.tokens_per_update
    assert samples
    samples = -(-samples // model.shape.context // world_size())  # of one process
    micro_tokens = stepper.micro_batch * model.shape.context
    is_large = micro_tokens * flops_per_token(model.shape) > _SLOW_FLOPS * _LONG_SECONDS
    if not way.compiled:
        return _time_updates(stepper, batches, samples, seconds, fastest, is_large=is_large)
    try:
        compiler.compile_model(model, config)
        stepper.step(batches.at(0, samples), update=0, position=0, lr=0.0)  # it compiles here
        return _time_updates(stepper, batches, samples, seconds, fastest, is_large=is_large)
    except CompileError:
        raise
    except Exception as error:  # whatever a compiler's many parts raise
        if is_out_of_memory(error):
            raise
        raise CompileError(compiler.reason(error)) from error
    finally:
        eager_blocks(model)


def _time_updates(
    stepper: Stepper,
    batches: Samples,
    samples: int,
    seconds: float,
    fastest: float,
    *,
    is_large: bool = True,
) -> float:
    """Return the seconds of an update.

    A long one is not timed whole but extrapolated from one and two micro-batches; if a
    micro-batch `is_large` and takes long, from one and two sequences.
    """
    micro_batch = min(samples, stepper.micro_batch)
    if is_large:
        _time_step(stepper, batches, 1)  # which warms up
        sequence = _time_step(stepper, batches, 1)
        if sequence * micro_batch > _LONG_SECONDS:
            return _extrapolated(stepper, batches, 1, samples, sequence)
    else:
        _time_step(stepper, batches, micro_batch)
    micro_step = _time_step(stepper, batches, micro_batch)
    steps = -(-samples // micro_batch)
    if steps > 1 and micro_step * steps > _LONG_SECONDS:
        return _extrapolated(stepper, batches, micro_batch, steps, micro_step)
    times: list[float] = []
    while not times or sum(times) < seconds:
        times.append(_time_step(stepper, batches, samples))
        if times[-1] > _TOO_SLOW * fastest:
            break
    return min(times)


def _extrapolated(stepper: Stepper, batches: Samples, unit: int, count: int, alone: float) -> float:
    """Return the seconds of an update of `count` units, of which one took `alone` seconds."""
    if count == 1:
        return alone
    each = _time_step(stepper, batches, 2 * unit) - alone
    # The rest of it is the optimizer's; the noise of two timings does not make it more.
    return alone + (count - 1) * min(max(each, alone / 2), alone)


def _time_step(stepper: Stepper, batches: Samples, samples: int) -> float:
    start = time.perf_counter()
    stepper.step(batches.at(0, samples), update=0, position=0, lr=0.0)
    stepper.numerics.synchronize()
    return time.perf_counter() - start


def _candidates(device: str, precision: str) -> list[str]:
    return formats(device) if precision == "auto" else [precision]
