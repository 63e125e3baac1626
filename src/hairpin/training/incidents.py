"""Handling of updates that went wrong: recording them, stopping, or rewinding.

The guard has decided on the device as the update was made; here, an update later, the host follows.
Examining an update costs a forward pass of each sample, draws no random number and touches no
weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.settings import Guard as GuardSettings
from hairpin.data.batches import IGNORED
from hairpin.errors import HairpinError, NonFiniteError, SpikeError
from hairpin.machine.numerics import Numerics
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import Record
from hairpin.training.checkpoint import load_state
from hairpin.training.evaluate import evaluating
from hairpin.training.state import TrainState
from hairpin.training.step import Numbers, StepResult
from hairpin.training.task import Samples

# Lines that stay true after a rewind, about the process and the plan.
_KEPT_LINES = ("resume", "correction", "extend", "rewind")
_PIECE_TOKENS = 32  # precision, in tokens, of a position in a sample
_EXCERPT_CHARACTERS = 200


@dataclass(frozen=True)
class Evidence:
    """Details of an update for an `events.Incident`."""

    update: int
    loss: float
    grad_norm: float
    parameter: str
    position: int
    samples: int
    excerpt: str


@dataclass(frozen=True)
class Examiner:
    """Examiner of updates that went wrong.

    Args:
        model: `forward(inputs, targets)` must return (sum of losses, number of targets).
        numerics: device and precision.
        batches: position → samples.
        decode: token ids → text.
    """

    model: nn.Module
    numerics: Numerics
    batches: Samples
    decode: Callable[[Sequence[int]], str]

    def examine(self, result: StepResult) -> Evidence:
        """Return the evidence; waits for the device."""
        norms = result.clipped.parameter_norms.tolist()
        names = [name for name, p in self.model.named_parameters() if p.grad is not None]
        return Evidence(
            update=result.update,
            loss=float(result.loss),
            grad_norm=float(result.clipped.norm),
            parameter=names[_worst(norms)],
            position=result.position,
            samples=result.samples,
            excerpt=self._excerpt(*self.batches.at(result.position, result.samples)),
        )

    @torch.no_grad()
    def _excerpt(self, inputs_BT: Tensor, targets_BT: Tensor) -> str:
        """Return text from the first non-finite or largest loss, with the current weights."""
        rows = [row for row in range(len(inputs_BT)) if (targets_BT[row] != IGNORED).any()]
        if not rows:
            return ""
        with evaluating(self.model), self.numerics.autocast():
            losses = [self._mean_loss(inputs_BT[row], targets_BT[row]) for row in rows]
            row = rows[_worst(losses)]
            start = self._worst_place(inputs_BT[row], targets_BT[row])
        end = int((targets_BT[row] != IGNORED).nonzero().max()) + 1
        text = self.decode(inputs_BT[row, start:end].tolist())
        return text.strip("\ufffd")[:_EXCERPT_CHARACTERS]  # a truncated character decodes to that

    def _worst_place(self, inputs_T: Tensor, targets_T: Tensor) -> int:
        """Return the start of the piece of a sample whose loss stands out; 0 if all targets are in
        one piece, such as a label, since they are about the text before them.
        """
        starts, losses = [], []
        for start in range(0, len(targets_T), _PIECE_TOKENS):
            end = start + _PIECE_TOKENS
            only = torch.full_like(targets_T, IGNORED)
            only[start:end] = targets_T[start:end]
            if (only != IGNORED).any():
                starts.append(start)
                losses.append(self._mean_loss(inputs_T, only))
        return starts[_worst(losses)] if len(starts) > 1 else 0

    def _mean_loss(self, inputs_T: Tensor, targets_T: Tensor) -> float:
        device = self.numerics.device
        loss_sum, count = self.model(inputs_T[None].to(device), targets_T[None].to(device))
        return float(loss_sum) / int(count)


@dataclass
class Incidents:
    """Handler of updates that went wrong.

    Args:
        settings: of the guard.
        examiner: examines an update.
        notice: called for damaged checkpoints.
        bad: the update to rewind past, with the reason.
    """

    settings: GuardSettings
    examiner: Examiner
    notice: Callable[[str], None]
    bad: tuple[Evidence, str] | None = None

    def look_at(self, result: StepResult, numbers: Numbers, rewinds: int) -> events.Incident | None:
        """Return the incident to record in addition to an update's numbers, if there is one, and
        set `bad` if the run must rewind. An overflow shows in the numbers themselves.

        Args:
            result: the update's.
            numbers: its numbers, as read.
            rewinds: number of earlier rewinds.

        Raises:
            NonFiniteError, SpikeError: the run has to stop.
        """
        if numbers.overflow and numbers.halted:
            raise NonFiniteError(_overflow_words(result))
        non_finite = numbers.non_finite
        if not non_finite and not numbers.spike:
            return None
        evidence = self.examiner.examine(result)
        reason = "non-finite" if non_finite else "spike"
        if not numbers.skip:
            return events.Spike(**asdict(evidence))
        if not numbers.halted:
            return events.Skip(**asdict(evidence), reason=reason)
        action = self.settings.on_non_finite if non_finite else self.settings.on_spike
        if action != "rewind" or rewinds >= self.settings.most_rewinds:
            raise self._error(result, evidence, reason, action)
        self.bad = evidence, reason
        return None

    def rewind(
        self, state: TrainState, run: RunDirectory, store: CheckpointStore, record: Record
    ) -> events.Rewind:
        """Restore the state of the last checkpoint, with the samples after the bad update next; the
        record is cut back to it and continues with the incident.

        Raises:
            HairpinError: there is no checkpoint.
        """
        assert self.bad
        (bad, reason), rewinds = self.bad, state.rewinds + 1
        checkpoint = store.newest(self.notice)
        if checkpoint is None:
            raise HairpinError(
                f"update {bad.update}: cannot rewind ({reason}), since there is no checkpoint; "
                "nothing was saved"
            )
        record_bytes = load_state(checkpoint, state)
        event = events.Rewind(
            **asdict(bad),
            reason=reason,
            to_update=state.update,
            skipped_samples=bad.position + bad.samples - state.position,
        )
        state.position = bad.position + bad.samples
        state.rewinds = rewinds  # the checkpoint may count fewer
        record.cut_back(record_bytes, run.discarded_metrics(), _KEPT_LINES)
        self.bad = None
        return event

    def _error(
        self, result: StepResult, evidence: Evidence, reason: str, action: str
    ) -> HairpinError:
        kind, key, what = (
            (NonFiniteError, "on_non_finite", _non_finite_words(result, evidence))
            if reason == "non-finite"
            else (SpikeError, "on_spike", _spike_words(evidence))
        )
        numbers = (
            f"loss {evidence.loss:.4g}, gradient norm {evidence.grad_norm:.4g}, "
            f"learning rate {result.lr:.3g}"
        )
        last = evidence.position + evidence.samples - 1
        where = self.examiner.batches.where(evidence.position, evidence.samples)
        text = f', at the text "{evidence.excerpt}"' if evidence.excerpt else ""
        after = {
            "stop": f"Try a lower --lr, --precision float32, or guard.{key}=skip or rewind",
            "skip": f"As many as guard.most_skips={self.settings.most_skips} in a row were skipped "
            "before it; try a lower --lr",
            "rewind": "The run reached its limit of rewinds, "
            f"guard.most_rewinds={self.settings.most_rewinds}; try a lower --lr",
        }
        return kind(
            f"update {evidence.update}: {what} ({numbers}), in the batch of samples "
            f"{evidence.position} to {last}, {where}{text}; weights and checkpoints are "
            f"unchanged. {after[action]}"
        )


def _non_finite_words(result: StepResult, evidence: Evidence) -> str:
    bad = int((~result.clipped.parameter_norms.isfinite()).sum())
    if not bad:
        return "the loss is not finite"
    more = f" (and {bad - 1} more)" if bad > 1 else ""
    return f"the gradient of {evidence.parameter}{more} is not finite"


def _overflow_words(result: StepResult) -> str:
    return (
        f"update {result.update}: gradients overflow float16 even with a loss scale of 1; weights "
        "and checkpoints are unchanged. Use --precision bfloat16 or float32, or a lower --lr"
    )


def _spike_words(evidence: Evidence) -> str:
    return (
        "loss or gradient norm is far above that of previous updates, mostly in "
        f"{evidence.parameter}"
    )


def _worst(values: Sequence[float]) -> int:
    """Return the index of the first non-finite value, else of the largest."""
    for index, value in enumerate(values):
        if not math.isfinite(value):
            return index
    return max(range(len(values)), key=values.__getitem__)
