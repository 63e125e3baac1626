"""Timing of the parts of a run on this machine, for a few seconds and without training.

Token ids are random: their values do not affect the time.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from hairpin.checkpoints.tensors import write_hashed
from hairpin.config.settings import Config
from hairpin.machine.numerics import Numerics
from hairpin.machine.threads import computing_with
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.plugged import can_write, new_network
from hairpin.model.shape import Shape
from hairpin.planning.measure.fill_run import fill_speed
from hairpin.system.allocator import keep_memory
from hairpin.training.budget import Budget
from hairpin.training.evaluate import evaluating

_WRITTEN_BYTES = 32 * 2**20
_SAMPLE_TOKENS = 16
_REPEATS = 3


@dataclass(frozen=True)
class PartTimings:
    """Timings of the parts of a run.

    Args:
        config: with precision, compilation, and a micro-batch that fits.
        seconds_per_update: of one that is not the first.
        seconds_per_sequence: of evaluation.
        seconds_per_sampled_token: of the samples on the way.
        model_seconds: to make a model.
        copied_bytes_per_second: in memory, as for a snapshot.
        saved_bytes_per_second: hashed, written and made durable.
    """

    config: Config
    seconds_per_update: float
    seconds_per_sequence: float
    seconds_per_sampled_token: float
    model_seconds: float
    copied_bytes_per_second: float
    saved_bytes_per_second: float


@dataclass(frozen=True)
class RandomSamples:
    """Random token ids instead of a text's."""

    vocabulary: int
    context: int

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, int64 [count, T] each."""
        generator = torch.Generator().manual_seed(position)
        ids = torch.randint(0, self.vocabulary, (count, self.context + 1), generator=generator)
        return ids[:, :-1], ids[:, 1:]

    def where(self, position: int, count: int) -> str:
        """Describe their place in the data."""
        return f"random ids {position} to {position + count - 1}"


def time_parts(
    config: Config,
    shape: Shape,
    budget: Budget | None,
    notice: Callable[[str], None],
    folder: Path,
) -> PartTimings:
    """Time the parts of a run.

    Args:
        config: with micro-batch and tokens per update.
        shape: of the model.
        budget: as in `fill_speed`.
        notice: called for each deviation from the request.
        folder: on the disk of the checkpoints; it is left empty.

    Raises:
        ConfigError: not even one sequence fits in memory.
    """
    keep_memory()
    start = time.perf_counter()
    model = new_network(shape)
    model_seconds = time.perf_counter() - start
    samples = RandomSamples(shape.vocabulary, shape.context)
    config, seconds = fill_speed(config, model, samples, budget, notice)
    model.zero_grad(set_to_none=True)
    copied, saved = _bytes_per_second(folder)
    with computing_with(config.execution.threads):
        per_sequence = _seconds_per_sequence(config, model, samples)
        per_sampled_token = _seconds_per_sampled_token(config, model)
    return PartTimings(
        config,
        seconds,
        per_sequence,
        per_sampled_token,
        model_seconds,
        copied,
        saved,
    )


def _seconds_per_sequence(config: Config, model: GPT, samples: RandomSamples) -> float:
    how = config.execution
    assert how.micro_batch and config.train.tokens_per_update
    count = min(how.micro_batch, config.train.tokens_per_update // model.shape.context)
    numerics, times = Numerics(how.device, how.precision), []
    with torch.no_grad(), evaluating(model):
        for _ in range(_REPEATS):
            start = time.perf_counter()
            with numerics.autocast():
                inputs, targets = samples.at(0, count)
                loss, _ = model(inputs.to(how.device), targets.to(how.device))
            float(loss)
            times.append(time.perf_counter() - start)
    return min(times) / count


def _seconds_per_sampled_token(config: Config, model: GPT) -> float:
    settings = config.evaluate
    if not settings.sample_tokens or not can_write(model):
        return 0.0
    tokens = generate(model, [0], Sampling(settings.temperature, settings.top_k), seed=0)
    list(islice(tokens, 2))  # one-time setup of the first ones
    times = []
    for _ in range(_SAMPLE_TOKENS):
        start = time.perf_counter()
        next(tokens)
        times.append(time.perf_counter() - start)
    return min(times)  # other work only makes them more


def _bytes_per_second(folder: Path) -> tuple[float, float]:
    """Return the speeds of copying in memory and of saving."""
    content = torch.randint(0, 256, (_WRITTEN_BYTES,), dtype=torch.uint8)
    content.clone()
    start = time.perf_counter()
    content.clone()
    copied = _WRITTEN_BYTES / (time.perf_counter() - start)
    try:
        return copied, _saved_per_second(content, folder)
    except OSError:  # the folder is not writable, or its disk is full, which is reported elsewhere
        return copied, _saved_per_second(content, None)


def _saved_per_second(content: torch.Tensor, folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".hairpin-plan-") as name:
        start = time.perf_counter()
        write_hashed(Path(name, "content"), [content.numpy().data])
        return len(content) / (time.perf_counter() - start)
