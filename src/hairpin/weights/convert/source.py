"""The source of an export: a run's weights, the settings to interpret them, and its results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hairpin.config.settings import Config
from hairpin.data.tokenizers import Tokenizer
from hairpin.errors import RunError
from hairpin.model.shape import Shape
from hairpin.reports.summary import EvaluationPoint, Summary
from hairpin.run import Run
from hairpin.weights.origin import open_origin


@dataclass(frozen=True, eq=False)
class ExportSource:
    """A run to export.

    Args:
        run: the run itself.
        config: its settings.
        shape: of its network; no dropout.
        tokenizer: its own.
        tensors: its weights by hairpin's names, float32 on the CPU.
        weights: which weights they are, in words: "best weights, update 400".
        summary: its results.
        evaluation: of exactly these weights; None: the record has none.
        plan: text and origin according to the record; empty: unknown.
    """

    run: Run
    config: Config
    shape: Shape
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]
    weights: str
    summary: Summary
    evaluation: EvaluationPoint | None
    plan: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.run.path.absolute().name


def open_source(run: Run, weights: str = "best") -> ExportSource:
    """Open a run with its weights.

    Raises:
        RunError: nothing was saved yet, it is damaged, or it is a classifier.
    """
    config = run.config
    if config.finetune.kind == "classify":
        raise RunError(
            f"{run.path}: a classifier, whose head has a bias that transformers and llama.cpp do "
            "not support; `hairpin predict` predicts its labels, and the run that it started "
            "from can be exported"
        )
    origin = open_origin(Path(run.path), weights)
    words = origin.words.removesuffix(f", of {run.path}")
    record = run.record()
    update = int(words.rpartition(" ")[2])
    points = [_point(event) for event in record if event["event"] == "evaluation"]
    return ExportSource(
        run=run,
        config=config,
        shape=origin.shape,
        tokenizer=origin.tokenizer,
        tensors=origin.tensors,
        weights=words,
        summary=run.summary(),
        evaluation=next((p for p in reversed(points) if p.update == update), None),
        plan=next((event for event in record if event["event"] == "plan"), {}),
    )


def _point(event: dict[str, Any]) -> EvaluationPoint:
    return EvaluationPoint(
        event["update"],
        event.get("train_loss"),
        event.get("val_loss"),
        event.get("val_bits_per_byte"),
        event.get("val_accuracy"),
    )
