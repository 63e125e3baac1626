"""What can happen in a run: the loop yields these, and each becomes one line of metrics.jsonl.

In `Update`, `Ratios` and incidents the number is the update's index from 0; everywhere else it is
the number of updates completed. Losses are nats per token, times are seconds.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events; `name` is the value of "event" in the record."""

    def as_json(self) -> dict[str, Any]:
        """The event as an object of strict JSON: a non-finite number is null, and named."""
        fields: dict[str, Any] = {"event": type(self).__name__.lower()}
        for key, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[key] = None
                fields["non_finite"] = str(value)
            elif value is not None:
                fields[key] = _finite(value)
        return fields


def _finite(value: Any) -> Any:
    """The value, with null in the place of every number in it that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Start(Event):
    """A run begins: written before torch is imported. `time` is seconds since 1970, `asked` the
    config as it was asked for, without what is as the defaults have it. `launcher` tells the
    torchrun that started it from others.
    """

    time: float
    version: str
    command: tuple[str, ...]
    budget_seconds: float | None = None
    asked: dict[str, Any] | None = None
    launcher: str | None = None


@dataclass(frozen=True)
class Plan(Event):
    """What is going to happen, once text and machine are known.

    `seconds` is how long training is expected to take from here, `ends` when (seconds since 1970).
    `start` says whose weights training starts from, where they are not random. Fine-tuning counts
    `examples`, a classifier names its `labels`, and `records` says how much of the file is used:
    its `count`, the `columns` that are read, those `unused` (in how many records), and how many
    records were `cut`, `dropped` or `unanswered`. Of a mixture `sources` has each one's `share`
    of training tokens, how many it has (`train_tokens`, `val_tokens`), and its `epochs`.
    """

    text: str
    parameters: int
    updates: int
    warmup: int
    tokens_per_update: int
    train_tokens: int
    val_tokens: int
    epochs: float
    seconds: float
    ends: float
    start: str | None = None
    examples: int | None = None
    labels: tuple[str, ...] | None = None
    sources: dict[str, dict[str, float]] | None = None
    records: dict[str, Any] | None = None


@dataclass(frozen=True)
class Resume(Event):
    """A process goes on from the checkpoint with `update` updates completed, in a run of `updates`.
    A classifier names its `labels`. `changes` says, a line each, what is
    not as it was before, such as another version of torch.
    """

    update: int
    time: float
    labels: tuple[str, ...] | None = None
    updates: int | None = None
    changes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Extend(Event):
    """The run was made longer, on request. `policy` is of what follows the `planned_updates`; None:
    the curve goes on.
    """

    update: int
    planned_updates: int
    updates: int
    policy: str | None = None


@dataclass(frozen=True)
class Correction(Event):
    """The number of updates was corrected to meet the time budget; `lr` was not yet affected."""

    update: int
    planned_updates: int
    updates: int


@dataclass(frozen=True)
class Update(Event):
    """One optimizer update. `grad_norm` is the global L2 norm before clipping, `tokens` the target
    tokens in this update. `skipped` is there where the guard kept it from the weights, `overflow`
    where float16 did; `loss_scale` is what float16's loss was multiplied by. `leader` is the
    parameter whose gradient has the largest norm, `leader_share` its share of the squared global
    norm, from 0 to 1.
    """

    update: int
    lr: float
    loss: float
    grad_norm: float
    clipped: bool
    tokens: int
    tokens_per_second: float
    skipped: bool | None = None
    overflow: bool | None = None
    loss_scale: float | None = None
    leader: str | None = None
    leader_share: float | None = None


@dataclass(frozen=True)
class Ratios(Event):
    """How far the update of index `update` moved the weights, in the first one after an evaluation:
    RMS of the change over RMS of the weights before it, by part of the network. The record leaves
    out a part whose ratio is not finite.
    """

    update: int
    lr: float
    ratios: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """As of every event; who reads ratios computes with them."""
        finite = {part: ratio for part, ratio in self.ratios.items() if math.isfinite(ratio)}
        return super().as_json() | {"ratios": finite}


@dataclass(frozen=True)
class Incident(Event):
    """An update that went wrong. Base of the events that say what was done about it.

    `parameter` is the one whose gradient is not finite, or has the largest norm. The update's
    samples are `samples` from `position` on; `excerpt` is text of the one that stands out.
    """

    update: int
    loss: float
    grad_norm: float
    parameter: str
    position: int
    samples: int
    excerpt: str


@dataclass(frozen=True)
class Spike(Incident):
    """A loss or gradient norm far above the usual, trained on like any other."""


@dataclass(frozen=True)
class Skip(Incident):
    """The update left the weights alone: "non-finite" or "spike" is the `reason`."""

    reason: str


@dataclass(frozen=True)
class Rewind(Incident):
    """The run went back to `to_update` updates completed, and past `skipped_samples` samples: all
    since then and those of the bad update.
    """

    reason: str
    to_update: int
    skipped_samples: int


@dataclass(frozen=True)
class Evaluation(Event):
    """Losses on the fixed evaluation sets after `update` updates, each target weighing the same.

    Of a text also its bits per byte; of labels the share that was right, and `val_confusion[i][j]`,
    how many examples of label i were taken for label j. Of a mixture the losses are the mean by
    the sources' shares, and `sources` has each one's `train_loss`, `val_loss` and
    `val_bits_per_byte`.
    """

    update: int
    tokens: int
    train_loss: float
    val_loss: float
    val_bits_per_byte: float | None = None
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    val_confusion: tuple[tuple[int, ...], ...] | None = None
    sources: dict[str, dict[str, float | None]] | None = None


@dataclass(frozen=True)
class Sample(Event):
    """Text that the model wrote after `update` updates."""

    update: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Memorisation(Event):
    """How much of what the model writes after the last update stands in the training text, word
    for word in stretches of at least `shortest_bytes`.

    Of `sample_bytes` that it wrote `verbatim_bytes` do, the longest stretch being `longest_bytes`
    (`longest_text` may be cut); of `val_bytes` of validation text, which nobody learned,
    `val_verbatim_bytes`. `searched_bytes` of the `train_bytes` of training text were searched.
    """

    update: int
    shortest_bytes: int
    sample_bytes: int
    verbatim_bytes: int
    longest_bytes: int
    longest_text: str
    val_bytes: int
    val_verbatim_bytes: int
    searched_bytes: int
    train_bytes: int


@dataclass(frozen=True)
class Checkpoint(Event):
    """The state after `update` updates is safely on disk. `best`: the lowest validation so far."""

    update: int
    best: bool


@dataclass(frozen=True)
class Unwatched(Event):
    """Output of a process was given up after `update` updates, for the `reason`, and the run went
    on. It is written when the process ends: before `end`, or behind it where the summary failed.
    """

    update: int
    reason: str


@dataclass(frozen=True)
class End(Event):
    """The process ends: "finished", "interrupted" or "failed" (then `reason` says why)."""

    update: int
    status: str
    seconds: float
    reason: str | None = None
