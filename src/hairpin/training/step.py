"""The single step: accumulate → clip → guard → lr → update.

Nothing here waits for the device. A step's results are tensors; its numbers are on their way to the
host when it returns, and whoever needs them reads them later. The guard's verdict is one of them:
where it says `skip` the step touches neither weights nor moments, and once it says `halted` nor
does any later one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED
from hairpin.model.gpt import derived_seed
from hairpin.model.plugged import SumAndCount
from hairpin.optim.gradients import Clipped, Clipper
from hairpin.optim.guard import Guard, Verdict
from hairpin.optim.optimizers import step_unless
from hairpin.optim.scaling import LossScale
from hairpin.training.numbers import Numbers, send
from hairpin.training.numerics import Numerics


class GivenUpError(Exception):
    """An update was given up between two micro-steps, as if it had not begun."""


@dataclass(frozen=True)
class StepResult:
    """What one update was.

    Args:
        update: its index from 0.
        position, samples: which samples it trained on.
        lr: its learning rate.
        loss: mean nats per target token, a scalar on the device.
        clipped: the gradient's norms.
        verdict: what the guard said of it.
        tokens: target tokens in it.
        launched: when it began, on `time.perf_counter`.
        read: waits for its numbers, and gives them.
        read_ratios: waits for how far it moved the weights, by part; None: nobody looked.
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
    """Takes steps with one model.

    Args:
        model: `forward(inputs, targets)` gives (sum of losses, number of targets).
        optimizer: its learning rates are set here.
        clipper: applied to the accumulated gradient.
        numerics: device and precision.
        seed: of dropout; every micro-step draws from (seed, update, micro-step).
        micro_batch: sequences in one forward pass.
        guard: says which updates may touch the weights.
        stopped: asked before each micro-step; once it is true the update is given up.
        scaling: of the loss, for float16; None: the loss is used as it is.
        loss: (model, inputs, targets) → the same two, in place of the model's own.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    clipper: Clipper
    numerics: Numerics
    seed: int
    micro_batch: int
    guard: Guard
    stopped: Callable[[], bool] = lambda: False
    scaling: LossScale | None = None
    loss: SumAndCount | None = None

    def step(
        self, batch: tuple[Tensor, Tensor], *, update: int, position: int, lr: float
    ) -> StepResult:
        """One update on `batch`, whatever number of micro-steps that takes.

        Raises:
            GivenUpError: it was given up; weights and moments are as before it.
        """
        launched = time.perf_counter()
        inputs, targets = batch
        tokens = int((targets != IGNORED).sum())  # they are on the host
        scaling = self.scaling
        scale = scaling.scale if scaling else None
        loss = self._accumulate(inputs, targets, tokens, update, scale)
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        clipped = self.clipper.measure(list(gradients.values()), scale)
        overflow = scaling.judge(loss, clipped.norm) if scaling else None
        verdict = self.guard.judge(loss, clipped.norm, overflow)
        step_unless(verdict.skip, self.optimizer, lr, clipped.divisor)
        read = send(loss, clipped, verdict, scale, tuple(gradients))
        return StepResult(
            update, position, len(inputs), lr, loss, clipped, verdict, tokens, launched, read
        )

    def _accumulate(
        self, inputs: Tensor, targets: Tensor, tokens: int, update: int, scale: Tensor | None
    ) -> Tensor:
        """Gradients of the mean loss over all `tokens`, times `scale`; returns the loss itself.

        Each micro-batch's sum is divided by the tokens of the whole update, so that micro-batches
        with fewer targets weigh less and the result does not depend on how the update is cut.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.numerics.device)
        pieces = zip(
            torch.split(self.numerics.to_device(inputs), self.micro_batch),
            torch.split(self.numerics.to_device(targets), self.micro_batch),
            strict=True,
        )
        with self.numerics.autocast():
            for micro_step, (x, y) in enumerate(pieces):
                if self.stopped():
                    raise GivenUpError
                torch.manual_seed(derived_seed(self.seed, "dropout", update, micro_step))
                loss_sum, _ = self.loss(self.model, x, y) if self.loss else self.model(x, y)
                with self.numerics.full_precision():
                    mean = loss_sum / tokens
                    (mean if scale is None else mean * scale).backward()
                loss += mean.detach()
        return loss
