"""The single step: accumulate → clip → guard → lr → update.

Nothing here waits for the device. A step's results are tensors; its numbers are on their way to the
host when it returns, and are read an update later. On CUDA they are one small tensor, copied to
pinned memory behind the update's own work: reading them waits for that copy and for nothing after
it. The guard's verdict is one of them: if it is `skip` the step touches neither weights nor
moments, and once it is `halted` nor does any later one.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.data.batches import IGNORED
from hairpin.distributed.world import World
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import derived_seed
from hairpin.model.plugged import SumAndCount
from hairpin.optim.gradients import Clipped, Clipper
from hairpin.optim.guard import Guard, Verdict
from hairpin.optim.optimizers import step_unless
from hairpin.optim.scaling import LossScale
from hairpin.training.spread import Spread


class StoppedError(Exception):
    """An update was abandoned between two micro-steps, as if it had not begun."""


@dataclass(frozen=True)
class Numbers:
    """The host's numbers of an update.

    Args:
        loss: mean nats per target.
        grad_norm: before clipping.
        loss_scale: the factor of the loss; None: not scaled.
        clipped: True if the norm was above the threshold.
        skip, halted, non_finite, spike, overflow: as in `Verdict`.
        leader: the parameter whose gradient has the largest norm, and `leader_share`: its share
            of the squared global norm, in four digits; None where that norm is 0 or not finite.
    """

    loss: float
    grad_norm: float
    loss_scale: float | None
    clipped: bool
    skip: bool
    halted: bool
    non_finite: bool
    spike: bool
    overflow: bool
    leader: str | None = None
    leader_share: float | None = None


@dataclass(frozen=True)
class StepResult:
    """Result of one update.

    Args:
        update: its index from 0.
        position, samples: the samples it trained on.
        lr: its learning rate.
        loss: mean nats per target token, a scalar on the device.
        clipped: the gradient's norms.
        verdict: the guard's.
        tokens: target tokens in it.
        launched: its start time, on `time.perf_counter`.
        read: waits for its numbers, and returns them.
        read_ratios: waits for its update ratios, by part; None: not measured.
    """

    update: int
    position: int
    samples: int
    lr: float
    loss: Tensor
    clipped: Clipped
    verdict: Verdict
    tokens: int
    launched: float
    read: Callable[[], Numbers]
    read_ratios: Callable[[], dict[str, float]] | None = None


@dataclass(frozen=True)
class Stepper:
    """The single step of one model.

    Args:
        spread: the model; called with (inputs, targets) it gives (sum of losses, their number).
        optimizer: its learning rates are set here.
        clipper: applied to the accumulated gradient.
        numerics: device and precision.
        seed: of dropout; every micro-step draws from (seed, update, micro-step), and of several
            processes each from its own rank too.
        micro_batch: sequences in one forward pass.
        guard: decides if an update may touch the weights.
        stopped: polled before each micro-step; once it is true the update is abandoned.
        scaling: of the loss, for float16; None: the loss is used as it is.
        world: the processes that take the step together.
        loss: (model, inputs, targets) → the same two, instead of the model's own.
    """

    spread: Spread
    optimizer: torch.optim.Optimizer
    clipper: Clipper
    numerics: Numerics
    seed: int
    micro_batch: int
    guard: Guard
    stopped: Callable[[], bool] = lambda: False
    scaling: LossScale | None = None
    world: World = World()  # noqa: RUF009 - alone, it does not change
    loss: SumAndCount | None = None

    def step(
        self,
        batch: tuple[Tensor, Tensor],
        *,
        update: int,
        position: int,
        lr: float,
        samples: int | None = None,
        tokens: int | None = None,
    ) -> StepResult:
        """Do one update, in as many micro-steps as needed.

        Args:
            batch: inputs and targets of this process's part of the samples, of equal size in all.
            update: its index.
            position: the first sample it trains on, in all processes.
            lr: its learning rate.
            samples: number it trains on, in all processes; None: those of the batch.
            tokens: target tokens, in all processes; None: those of the batch.

        Raises:
            GivenUpError: it was abandoned; weights and moments are as before it.
        """
        launched = time.perf_counter()
        inputs, targets = batch
        samples = len(inputs) if samples is None else samples
        if tokens is None:
            tokens = int((targets != IGNORED).sum())  # they are on the host
        scaling = self.scaling
        scale = scaling.scale if scaling else None
        loss = self._accumulate(inputs, targets, tokens, update, scale)
        gradients = self.spread.gradients()
        clipped = self.clipper.measure(list(gradients.values()), scale, self.spread.total)
        overflow = scaling.judge(loss, clipped.norm) if scaling else None
        verdict = self.guard.judge(loss, clipped.norm, overflow)
        step_unless(verdict.skip, self.optimizer, lr, clipped.divisor)
        read = send_numbers(loss, clipped, verdict, scale, tuple(gradients))
        return StepResult(
            update, position, samples, lr, loss, clipped, verdict, tokens, launched, read
        )

    def warm_up(self, batch: tuple[Tensor, Tensor]) -> None:
        """Run one pass without targets, which changes nothing. DDP fixes its order of summation at
        its first update: a resumed run's first sums would else be rounded differently.
        """
        inputs, targets = batch
        self._accumulate(inputs, torch.full_like(targets, IGNORED), 1, 0, None)
        self.spread.clear_gradients()

    def _accumulate(
        self, inputs: Tensor, targets: Tensor, tokens: int, update: int, scale: Tensor | None
    ) -> Tensor:
        """Accumulate gradients of the mean loss over all `tokens`, times `scale`; return the loss.

        Each micro-batch's sum is divided by the tokens of the whole update, so that micro-batches
        with fewer targets weigh less and the result does not depend on how the update is cut.
        Processes add up their gradients, and the loss.
        """
        self.spread.clear_gradients()
        loss = torch.zeros((), device=self.numerics.device)
        pieces = list(
            zip(
                torch.split(self.numerics.to_device(inputs), self.micro_batch),
                torch.split(self.numerics.to_device(targets), self.micro_batch),
                strict=True,
            )
        )
        rank = (self.world.rank,) if self.world.size > 1 else ()
        with self.numerics.autocast():
            for micro_step, (x, y) in enumerate(pieces):
                if self.stopped():
                    raise StoppedError
                torch.manual_seed(derived_seed(self.seed, "dropout", update, micro_step, *rank))
                with self.spread.micro_step(is_last=micro_step == len(pieces) - 1):
                    if self.loss:  # of a plugin, in one process
                        loss_sum, _ = self.loss(self.spread.model, x, y)
                    else:
                        loss_sum, _ = self.spread(x, y)
                    with self.numerics.full_precision():
                        mean = loss_sum / tokens
                        scaled = mean if scale is None else mean * scale
                        scaled.backward()  # type: ignore[no-untyped-call]
                loss += mean.detach()
        return self.world.sum_(loss)


def send_numbers(
    loss: Tensor,
    clipped: Clipped,
    verdict: Verdict,
    loss_scale: Tensor | None,
    names: Sequence[str],
) -> Callable[[], Numbers]:
    """Send an update's numbers to the host; return a function that waits for them.

    Args:
        loss, clipped, verdict, loss_scale: of the update.
        names: of the parameters whose norms are in `clipped`.
    """
    verdicts = (verdict.skip, verdict.halted, verdict.non_finite, verdict.spike, verdict.overflow)
    scale = () if loss_scale is None else (loss_scale,)
    norms = clipped.parameter_norms
    largest = (norms.argmax(), (norms.max() / clipped.norm).square())
    scalars = (*largest, loss, clipped.norm, *scale, clipped.clipped, *verdicts)
    arrived = send_scalars(scalars, loss.device.type)

    def read() -> Numbers:
        index, share, mean, norm, *rest = arrived()
        scaled_by = rest.pop(0) if scale else None
        above, skip, halted, non_finite, spike, overflow = map(bool, rest)
        known = math.isfinite(share)
        leader = (names[int(index)], float(f"{share:.4g}")) if known else (None, None)
        return Numbers(
            mean, norm, scaled_by, above, skip, halted, non_finite, spike, overflow, *leader
        )

    return read


def send_scalars(scalars: Sequence[Tensor], device: str) -> Callable[[], list[float]]:
    """Send scalars, of any type, to the host; return a function that waits for them.

    Args:
        scalars: on the device, integers below 2^24; nobody changes them in place.
        device: its type.
    """
    if device != "cuda":
        return lambda: [float(scalar) for scalar in scalars]
    on_host = torch.empty(len(scalars), pin_memory=True)
    on_host.copy_(torch.stack([scalar.float() for scalar in scalars]), non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> list[float]:
        copied.synchronize()
        values: list[float] = on_host.tolist()
        return values

    return read
