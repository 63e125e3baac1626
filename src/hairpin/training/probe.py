"""Measuring this machine: how fast a model's update really is, and in which precision."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.config.settings import Config
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.planning import flops_per_token
from hairpin.training.numerics import Numerics
from hairpin.training.step import Stepper
from hairpin.training.task import Samples

_REFERENCE = Shape(vocabulary=2048, context=128, layers=4, heads=4, width=192)
_REFERENCE_SEQUENCES = 16
_REFERENCE_PASSES = 5
_LONG_UPDATE_SECONDS = 20.0


@dataclass(frozen=True)
class Speed:
    """What an update takes here."""

    precision: str
    seconds_per_update: float


def measure_flops(device: str, precision: str) -> float:
    """Floating-point operations a second that training a small model reaches on this machine.

    Args:
        device: where.
        precision: one format, or "auto" for the faster.
    """
    ids = torch.randint(0, _REFERENCE.vocabulary, (_REFERENCE_SEQUENCES, _REFERENCE.context + 1))
    model = GPT(_REFERENCE).to(device)
    best = 0.0
    for candidate in _candidates(device, precision):
        numerics = Numerics(device, candidate)
        times = [_time_pass(model, ids, numerics) for _ in range(_REFERENCE_PASSES)]
        # The fastest pass: whatever else the machine does only makes the others slower.
        tokens = _REFERENCE_SEQUENCES * _REFERENCE.context
        best = max(best, tokens * flops_per_token(_REFERENCE) / min(times))
    return best


def _time_pass(model: GPT, ids: Tensor, numerics: Numerics) -> float:
    start = time.perf_counter()
    with numerics.autocast():
        loss, count = model(ids[:, :-1].to(numerics.device), ids[:, 1:].to(numerics.device))
    (loss / count).backward()
    numerics.synchronize()
    return time.perf_counter() - start


def measure_update(config: Config, model: GPT, batches: Samples, seconds: float) -> Speed:
    """The time of one update of this very run, on a model that is thrown away.

    Args:
        config: with micro-batch and tokens per update.
        model: like the run's.
        batches: of the run.
        seconds: about how long to measure in all; 0: no longer than it must take.
    """
    device = config.execution.device
    assert config.train.tokens_per_update and config.execution.micro_batch
    samples = config.train.tokens_per_update // model.shape.context
    model = model.to(device)
    candidates = _candidates(device, config.execution.precision)
    speeds = []
    for precision in candidates:
        stepper = Stepper(
            model,
            build_optimizer(model, config.optimizer, precision),
            Clipper(config.clip.kind, config.clip.threshold),
            Numerics(device, precision),
            seed=0,
            micro_batch=config.execution.micro_batch,
            guard=Guard(config.guard, device),
        )
        took = _time_updates(stepper, batches, samples, seconds / len(candidates))
        speeds.append(Speed(precision, took))
    return min(speeds, key=lambda speed: speed.seconds_per_update)


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
    """The formats to try. On a CPU bfloat16 may be emulated, and very slowly: so it goes last."""
    if precision != "auto":
        return [precision]
    return ["float32"] if device == "mps" else ["float32", "bfloat16"]
