"""The appendix's training with its steps counted and limited, and its output captured."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tiktoken
import torch
from torch import Tensor, nn

from hairpin.book import train_model
from hairpin.book.training import Loader
from hairpin.reports.formats import safe_text

EPOCHS = 15
DEVICE = "cpu"  # on which the printed figures were made
_EVALUATED_EVERY = 5
_LOSSES = re.compile(r"Ep \d+ \(Iter (\d+)\): Train loss (\S+), Val loss (\S+)")

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Losses:
    """The losses that `train_model` printed after the step of index `iteration`: nats per token."""

    iteration: int
    train: float
    val: float


class CountedLoader:
    """A loader that counts the steps trained with it, and ends the training after a given number.

    Its length stays that of the whole, so that the learning rates do not change.
    """

    def __init__(
        self, loader: Loader, model: nn.Module, most: int, on_iteration: Callable[[int, int], None]
    ) -> None:
        self._loader = loader
        self._model = model
        self._most = most
        self._on_iteration = on_iteration
        self.begun = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if self._model.training:  # an evaluation reads the same loader
                if self.begun == self._most:
                    raise _StepLimitError
                self._on_iteration(self.begun, self._most)
                self.begun += 1
            yield batch

    def finish(self) -> None:
        """Report that the last step is done."""
        self._on_iteration(self.begun, self._most)


def train_counted(
    model: nn.Module,
    counted: CountedLoader,
    val_loader: Loader,
    tokenizer: tiktoken.Encoding,
    warmup_steps: int,
) -> tuple[list[Losses], list[str]]:
    """Run the last listing, showing its output; return the losses and samples that it printed."""
    # No learning rate is passed: the peak is AdamW's own default, 1e-3.
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    printed = _Kept(sys.stdout)
    with contextlib.suppress(_StepLimitError), contextlib.redirect_stdout(printed):
        train_model(
            model,
            counted,
            val_loader,
            optimizer,
            DEVICE,
            n_epochs=EPOCHS,
            eval_freq=_EVALUATED_EVERY,
            eval_iter=1,
            start_context="Every effort moves you",
            tokenizer=tokenizer,
            warmup_steps=warmup_steps,
            initial_lr=1e-5,
            min_lr=1e-5,
        )
    counted.finish()
    return _parsed(printed.getvalue())


def _parsed(listing: str) -> tuple[list[Losses], list[str]]:
    """Parse the losses and samples from the output; comparing needs only three digits."""
    losses, samples = [], []
    for line in listing.split("\n"):
        if found := _LOSSES.fullmatch(line):
            losses.append(Losses(int(found[1]), float(found[2]), float(found[3])))
        elif line:
            samples.append(line)
    return losses, samples


class _StepLimitError(Exception):
    """The requested number of steps is done."""


class _Kept(io.StringIO):
    """Print text at once, made harmless for a terminal, and keep the original."""

    def __init__(self, shown: Any) -> None:
        super().__init__()
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.write(safe_text(text))
        self._shown.flush()
        return super().write(text)
