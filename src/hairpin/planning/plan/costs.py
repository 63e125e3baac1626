"""The cost of a run in numbers, with warnings; `words` and `plan` present it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config
from hairpin.data.checking.check import CorpusCheck
from hairpin.model.shape import Shape
from hairpin.planning.amounts import CHINCHILLA_TOKENS_PER_PARAMETER, EPOCHS_AS_NEW, Amount
from hairpin.planning.choose import GPU_MEMORY_SHARE
from hairpin.planning.disk import Disk, checkpoint_bytes, disk_of, milestones
from hairpin.planning.gpus import GPUS, Gpu, seconds_on_paper
from hairpin.planning.memory import Memory, Workload, peak_memory
from hairpin.planning.plan.measurements import FilledPlan, free_bytes
from hairpin.planning.plan.text import Text
from hairpin.planning.sizes import (
    Parameters,
    count_parameters,
    flops_per_token,
    micro_batch_sequences,
)
from hairpin.reports.formats import format_bytes
from hairpin.schedules.curves import Schedule

_FEW_UPDATES = 100
_CLOSING_SECONDS = 2.5  # the summary and three plots: measured, two Zen 4 cores


@dataclass(frozen=True)
class Times:
    """Seconds of a run's parts on this machine, and their counts.

    Args:
        per_update: of one.
        updates, evaluations, samples, checkpoints: of all.
        starting: imports, the model, and timing updates before training.
        preparing: text into tokens, unless cached.
        ending: the last checkpoint, the summary, the plots.
        evaluation_count, checkpoint_count: their numbers.
    """

    per_update: float
    updates: float
    evaluations: float
    samples: float
    checkpoints: float
    starting: float
    preparing: float
    ending: float
    evaluation_count: int
    checkpoint_count: int

    @property
    def total(self) -> float:
        """The sum of all parts."""
        training = self.updates + self.evaluations + self.samples + self.checkpoints
        return training + self.starting + self.preparing + self.ending


@dataclass(frozen=True)
class OnOneGpu:
    """The run on one card, on paper.

    Args:
        gpu: the card.
        micro_batch: sequences in a forward pass.
        memory_bytes: on the card.
        seconds: of the updates.
    """

    gpu: Gpu
    micro_batch: int
    memory_bytes: int
    seconds: float

    @property
    def fits(self) -> bool:
        """True if it fits in the card's memory."""
        return self.memory_bytes <= self.gpu.memory_bytes


@dataclass(frozen=True)
class Costs:
    """The cost of a run.

    Args:
        config: filled in, as `hairpin train` would.
        shape: of the network.
        text: the training text; None: none was named.
        parameters: by part.
        flops_per_token: of training.
        amount: tokens.
        schedule: of the learning rate.
        memory: peak by part, for the format with the highest peak of those that training tries.
        free_memory_bytes: now, on the device; None: not known without torch.
        times: on this machine; None: not measured.
        disk: space that it takes.
        gpus: on paper.
        check: of the text; None: not checked.
        not_measured: the reason why nothing was measured, if it should have been.
    """

    config: Config
    shape: Shape
    text: Text | None
    parameters: Parameters
    flops_per_token: float
    amount: Amount
    schedule: Schedule
    memory: Memory
    free_memory_bytes: int | None
    times: Times | None
    disk: Disk
    gpus: tuple[OnOneGpu, ...]
    check: CorpusCheck | None
    not_measured: str | None

    @property
    def tokens_per_update(self) -> int:
        """Tokens in one update."""
        assert self.config.train.tokens_per_update
        return self.config.train.tokens_per_update

    @property
    def flops(self) -> float:
        """Floating-point operations of the run's updates."""
        return self.flops_per_token * self.amount.tokens

    @property
    def fits(self) -> bool | None:
        """True if it fits in the memory that is free now; None: not known."""
        free = self.free_memory_bytes
        return None if free is None else self.memory.total <= free

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the run, a line each; `checked` has those about the text itself."""
        return (*self.schedule.warnings, *_amount_warnings(self), *_room_warnings(self))


def costs_of(filled: FilledPlan, check: CorpusCheck | None, folder: Path) -> Costs:
    """Return the costs of a filled-in config.

    Args:
        filled: the config and the measurements.
        check: of the text, if it was checked.
        folder: on the disk of the run.
    """
    config, shape = filled.config, filled.shape
    parameters, text = count_parameters(shape), filled.measured.size
    amount = Amount(filled.tokens, parameters.total, text.train_tokens if text else None)
    device = config.execution.device
    known = device != "cuda" or filled.measured.timings is not None
    flops = flops_per_token(shape)
    return Costs(
        config=config,
        shape=shape,
        text=text,
        parameters=parameters,
        flops_per_token=flops,
        amount=amount,
        schedule=schedule_of(config),
        memory=_memory(filled),
        free_memory_bytes=free_bytes(device) if known else None,
        times=_times(filled),
        disk=_disk(config, shape, text, folder),
        gpus=tuple(_on_one_gpu(gpu, config, shape, flops * amount.tokens) for gpu in GPUS.values()),
        check=check,
        not_measured=filled.measured.not_measured,
    )


def _memory(filled: FilledPlan) -> Memory:
    """Return the peak of training in the chosen format or of timing the other, if higher."""
    chosen = filled.config.execution.precision
    tries = [Workload.of(filled.config, filled.shape, each) for each in filled.measured.precisions]
    peaks = [peak_memory(job, saves=chosen in ("auto", job.precision)) for job in tries]
    return max(peaks, key=lambda memory: memory.total)


def _times(filled: FilledPlan) -> Times | None:
    config, shape, text = filled.config, filled.shape, filled.measured.size
    measured = filled.measured.timings
    if measured is None:
        return None
    updates, tokens = config.train.updates, config.evaluate.tokens
    train_tokens = config.evaluate.train_tokens
    assert updates and tokens and train_tokens
    evaluations, checkpoints = milestones(config)
    sequences = 0
    for asked, there in (
        (tokens, text.val_tokens if text else tokens),
        (train_tokens, text.train_tokens if text else train_tokens),
    ):
        sequences += max(1, min(-(-(there - 1) // shape.context), asked // shape.context))
    state = checkpoint_bytes(config, shape)
    copying = state / measured.copied_bytes_per_second
    saving = state / measured.saved_bytes_per_second
    # While a checkpoint is hashed and written, training has one core less.
    behind = saving / (psutil.cpu_count(logical=False) or 1)
    ways = len(filled.measured.precisions)
    probing = ways * max(3 * measured.seconds_per_update, 1.0 / ways)
    return Times(
        per_update=measured.seconds_per_update,
        updates=updates * measured.seconds_per_update,
        evaluations=evaluations * sequences * measured.seconds_per_sequence,
        samples=evaluations * config.evaluate.sample_tokens * measured.seconds_per_sampled_token,
        checkpoints=checkpoints * copying + max(0, checkpoints - 1) * behind,
        starting=(filled.measured.import_seconds or 0.0) + 2 * measured.model_seconds + probing,
        preparing=text.preparing_seconds if text else 0.0,
        ending=saving + _CLOSING_SECONDS,
        evaluation_count=evaluations,
        checkpoint_count=checkpoints,
    )


def _disk(config: Config, shape: Shape, text: Text | None, folder: Path) -> Disk:
    width = 2 if shape.vocabulary <= 2**16 else 4
    tokens = text.train_tokens + text.val_tokens if text else 0
    is_prepared = text is None or text.source == "counted"
    free = shutil.disk_usage(folder).free
    return disk_of(config, shape, free, shards=width * tokens, is_prepared=is_prepared)


def _on_one_gpu(gpu: Gpu, config: Config, shape: Shape, flops: float) -> OnOneGpu:
    tokens = config.train.tokens_per_update
    assert tokens
    samples = tokens // shape.context
    room = GPU_MEMORY_SHARE * gpu.memory_bytes
    sequences = micro_batch_sequences(shape, samples, room, "cuda")
    job = Workload(
        shape, config.optimizer.kind, gpu.number, sequences, -(-samples // sequences), "cuda"
    )
    return OnOneGpu(gpu, sequences, peak_memory(job).total, seconds_on_paper(gpu, flops))


def _amount_warnings(plan: Costs) -> Iterator[str]:
    updates, batch = plan.schedule.updates, plan.tokens_per_update
    train_tokens, epochs = plan.amount.train_tokens, plan.amount.epochs
    if updates < _FEW_UPDATES:
        yield (
            f"{updates:,} updates are few: the learning rate falls soon after it has risen; "
            "smaller batches (train.tokens_per_update) give more updates"
        )
    if train_tokens and batch > train_tokens:
        yield (
            f"an update takes {batch:,} tokens and the training text has {train_tokens:,}: each "
            "update sees some text twice; use a smaller train.tokens_per_update"
        )
    ratio = plan.amount.tokens_per_parameter / CHINCHILLA_TOKENS_PER_PARAMETER
    if not 0.25 <= ratio <= 10:
        few = "few" if ratio < 1 else "many"
        yield (
            f"{plan.amount.tokens_per_parameter:.3g} tokens a parameter are {few}, where about "
            f"{CHINCHILLA_TOKENS_PER_PARAMETER:.0f} make the best use of the compute"
        )
    if epochs and epochs > EPOCHS_AS_NEW:
        yield (
            f"{epochs:.3g} passes over the training text; more than {EPOCHS_AS_NEW:.0f} bring "
            "less and less: more text is better than more passes"
        )


def _room_warnings(plan: Costs) -> Iterator[str]:
    if plan.fits is False:
        assert plan.free_memory_bytes is not None
        yield (
            f"it does not fit: about {format_bytes(plan.memory.total)} of memory are needed and "
            f"{format_bytes(plan.free_memory_bytes)} are free; reduce execution.micro_batch, "
            "model.context or --size"
        )
    if not plan.disk.fits:
        less = "; checkpoint.keep=1 needs less" if plan.config.checkpoint.keep > 1 else ""
        yield f"the disk is too small: {plan.disk.words()}{less}"
    if plan.not_measured:
        yield plan.not_measured
