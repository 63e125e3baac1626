"""A task: a run's model, data and evaluation.

All else, from warmup and clipping to checkpoints and the record, is the same for every task:
`training/train_run.py` makes a job of it and `training/loop.py` trains.

    tasks/pretraining.py           the next token of a text
    tasks/finetuning.py             the label of a text
                                   or the response to an instruction
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hairpin.config.settings import Config
from hairpin.data.tokenizers import Tokenizer
from hairpin.model.gpt import GPT
from hairpin.runs import events
from hairpin.training.budget import Pace
from hairpin.training.evaluate import EvaluationSet, Tally
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState

WriteSample = Callable[[], tuple[str, str]]
MeasureMemorisation = Callable[[TrainState, Callable[[], bool]], events.Memorisation | None]


class Samples(Protocol):
    """Training samples as a pure function of their position."""

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, int64 [count, T] each; a target may be `IGNORED`."""
        ...

    def where(self, position: int, count: int) -> str:
        """Describe the place of these samples in the data."""
        ...


@dataclass(frozen=True)
class Task:
    """A run's model, data and evaluation.

    Args:
        config: filled in, with nothing left open.
        tokenizer: the run's.
        new_model: makes the model with random weights, on the CPU.
        load_start: loads the weights that training starts from; None: the random ones.
        batches: position → samples.
        train_set, val_set: sets to evaluate.
        tally: adds up one evaluation.
        sample_writers: takes the model and a function that tells if a stop was requested; returns
            the writers of samples.
        plan: the plan of the run.
        warnings: lines to read before the run starts.
        pace: the time budget that sets the length; None: the length is as requested.
        measure_memorisation: takes the state at the end and a function that tells if a stop was
            requested; returns the memorisation. None: not measured.
    """

    config: Config
    tokenizer: Tokenizer
    new_model: Callable[[], GPT]
    load_start: Callable[[Spread], None] | None
    batches: Samples
    train_set: EvaluationSet
    val_set: EvaluationSet
    tally: Callable[[], Tally]
    sample_writers: Callable[[GPT, Callable[[], bool]], tuple[WriteSample, ...]]
    plan: Callable[[], events.Plan]
    warnings: tuple[str, ...] = ()
    pace: Pace | None = None
    measure_memorisation: MeasureMemorisation | None = None
