"""The events of a run: the loop yields them, and each becomes one line of metrics.jsonl.

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
        """Return the event as a strict JSON object: a non-finite number is null, and named."""
        fields: dict[str, Any] = {"event": type(self).__name__.lower()}
        for key, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[key] = None
                fields["non_finite"] = str(value)
            elif value is not None:
                fields[key] = _finite(value)
        return fields


def _finite(value: Any) -> Any:
    """Replace every non-finite number in the value, which JSON cannot express, with null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Start(Event):
    """The beginning of a run, written before torch is imported. `time` is seconds since 1970,
    `asked` the requested config without defaults. `launcher` identifies the torchrun that started
    it.
    """

    time: float
    version: str
    command: tuple[str, ...]
    budget_seconds: float | None = None
    asked: dict[str, Any] | None = None
    launcher: str | None = None


@dataclass(frozen=True)
class Plan(Event):
    """The plan of the run, made once text and machine are known.

    `seconds` is how long training is expected to take from here, `ends` when (seconds since 1970).
    `start` names the weights that training starts from, unless they are random. Fine-tuning counts
    `examples`, a classifier names its `labels`, and `records` says how much of the file is used:
    its `count`, the `columns` that are read, those `unused` (in how many records), and how many
    records were `cut`, `dropped` or `unanswered`. For a mixture `sources` has each source's
    `share` of training tokens, its numbers of tokens (`train_tokens`, `val_tokens`), and its
    `epochs`.
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
    """A resume from the checkpoint with `update` updates completed, in a run of `updates`. A
    classifier names its `labels`. `changes` lists, a line each, differences from before, such as
    another version of torch.
    """

    update: int
    time: float
    labels: tuple[str, ...] | None = None
    updates: int | None = None
    changes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Extend(Event):
    """An extension of the run, on request. `policy` is that of the updates after `planned_updates`;
    None: the curve continues.
    """

    update: int
    planned_updates: int
    updates: int
    policy: str | None = None


@dataclass(frozen=True)
class Correction(Event):
    """A correction of the number of updates to meet the time budget; `lr` was not yet affected."""

    update: int
    planned_updates: int
    updates: int


@dataclass(frozen=True)
class Update(Event):
    """One optimizer update. `grad_norm` is the global L2 norm before clipping, `tokens` the target
    tokens in this update. `skipped` is set if the guard skipped it, `overflow` if float16
    overflowed; `loss_scale` is what float16's loss was multiplied by. `leader` is the parameter
    whose gradient has the largest norm, `leader_share` its share of the squared global norm, from 0
    to 1.
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
    """The relative change of the weights by the update of index `update`, the first one after an
    evaluation: RMS of the change over RMS of the weights before it, by part of the network. The
    record omits parts whose ratio is not finite.
    """

    update: int
    lr: float
    ratios: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the event as JSON, without non-finite ratios, since readers compute with them."""
        finite = {part: ratio for part, ratio in self.ratios.items() if math.isfinite(ratio)}
        return super().as_json() | {"ratios": finite}


@dataclass(frozen=True)
class Incident(Event):
    """An update that went wrong. Base of the events that say what was done about it.

    `parameter` is the one whose gradient is not finite, or has the largest norm. The update's
    samples are `samples` from `position` on; `excerpt` is text of the most conspicuous one.
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
    """An update whose loss or gradient norm was far above the usual; applied like any other."""


@dataclass(frozen=True)
class Skip(Incident):
    """An update that was not applied; its `reason` is "non-finite" or "spike"."""

    reason: str


@dataclass(frozen=True)
class Rewind(Incident):
    """A rewind to `to_update` completed updates, skipping `skipped_samples` samples: all since then
    and those of the bad update.
    """

    reason: str
    to_update: int
    skipped_samples: int


@dataclass(frozen=True)
class Evaluation(Event):
    """Losses on the fixed evaluation sets after `update` updates, every target weighted equally.

    For text also its bits per byte; for labels the share of correct ones, and
    `val_confusion[i][j]`, the number of examples of label i that were classified as j. For a
    mixture the losses are the mean weighted by the sources' shares, and `sources` has each one's
    `train_loss`, `val_loss` and `val_bits_per_byte`.
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
    """Text that the model generated after `update` updates."""

    update: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Memorisation(Event):
    """Verbatim matches, of at least `shortest_bytes`, between the training text and text generated
    after the last update.

    Of `sample_bytes` generated bytes, `verbatim_bytes` match; the longest match has `longest_bytes`
    (`longest_text` may be cut). Of `val_bytes` of validation text, which was not trained on,
    `val_verbatim_bytes` match. `searched_bytes` of the `train_bytes` of training text were
    searched.
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
    """A committed checkpoint after `update` updates. `best`: the lowest validation loss so far."""

    update: int
    best: bool


@dataclass(frozen=True)
class Unwatched(Event):
    """Output of a process that was given up after `update` updates, for the `reason`, while the run
    continued. Written when the process ends: before `end`, or after it if the summary failed.
    """

    update: int
    reason: str


@dataclass(frozen=True)
class End(Event):
    """The end of the process: "finished", "interrupted" or "failed" (then `reason` says why)."""

    update: int
    status: str
    seconds: float
    reason: str | None = None
