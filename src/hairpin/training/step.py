"""The single step: accumulate → clip → guard → lr → update.

Nothing here waits for the device. A step's results are tensors; whoever needs the numbers reads
them later. The guard's verdict is one of them: where it says `skip` the step touches neither
weights nor moments, and once it says `halted` nor does any later one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED
from hairpin.model.gpt import derived_seed
from hairpin.optim.gradients import Clipped, Clipper
from hairpin.optim.guard import Guard, Verdict
from hairpin.optim.optimizers import step_unless
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
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    clipper: Clipper
    numerics: Numerics
    seed: int
    micro_batch: int
    guard: Guard
    stopped: Callable[[], bool] = lambda: False

    def step(
        self, batch: tuple[Tensor, Tensor], *, update: int, position: int, lr: float
    ) -> StepResult:
        """One update on `batch`, whatever number of micro-steps that takes.

        Raises:
            GivenUpError: it was given up; weights and moments are as before it.
        """
        launched = time.perf_counter()
        inputs, targets = batch
        tokens = int((targets != IGNORED).sum())
        loss = self._accumulate(inputs, targets, tokens, update)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        clipped = self.clipper.measure(gradients)
        verdict = self.guard.judge(loss, clipped.norm)
        step_unless(verdict.skip, self.optimizer, lr, clipped.divisor)
        return StepResult(
            update, position, len(inputs), lr, loss, clipped, verdict, tokens, launched
        )

    def _accumulate(self, inputs: Tensor, targets: Tensor, tokens: int, update: int) -> Tensor:
        """Gradients of the mean loss over all `tokens`; returns that loss.

        Each micro-batch's sum is divided by the tokens of the whole update, so that micro-batches
        with fewer targets weigh less and the result does not depend on how the update is cut.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.numerics.device)
        pieces = zip(
            torch.split(inputs, self.micro_batch),
            torch.split(targets, self.micro_batch),
            strict=True,
        )
        with self.numerics.autocast():
            for micro_step, (x, y) in enumerate(pieces):
                if self.stopped():
                    raise GivenUpError
                torch.manual_seed(derived_seed(self.seed, "dropout", update, micro_step))
                x, y = x.to(self.numerics.device), y.to(self.numerics.device)  # noqa: PLW2901
                loss_sum, _ = self.model(x, y)
                with self.numerics.full_precision():
                    mean = loss_sum / tokens
                    mean.backward()
                loss += mean.detach()
        return loss
