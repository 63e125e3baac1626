"""Everything that a checkpoint holds: the state of training after some updates."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.pieces import Piece
from hairpin.model.gpt import GPT
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import load_optimizer_tensors, optimizer_tensors
from hairpin.optim.scaling import LossScale
from hairpin.training.spread import Spread


@dataclass(frozen=True)
class Best:
    """The best evaluation so far: its number of updates and its validation loss in nats."""

    update: int
    val_loss: float


@dataclass
class TrainState:
    """The whole state of a training run; config and data are separate.

    Args:
        spread: the model over the processes; its parameters are the float32 masters.
        optimizer: its moments.
        guard: the statistics that it judges the next updates by.
        update: updates completed; the next update's index. Drives the learning rate.
        position: samples consumed; the next sample's position. Drives the data.
        tokens: target tokens of all updates, skipped ones too.
        best: the best evaluation so far.
        rewinds: number of times the run went back to a checkpoint.
        evaluated: the last evaluation was after this many updates; -1: there was none. One that
            a stop prevents is made when the run resumes.
        scaling: of the loss, in float16.
    """

    spread: Spread
    optimizer: torch.optim.Optimizer
    guard: Guard
    update: int = 0
    position: int = 0
    tokens: int = 0
    rewinds: int = 0
    best: Best | None = None
    evaluated: int = -1
    scaling: LossScale | None = None

    @property
    def model(self) -> GPT:
        """The model itself, of which this process may hold a part."""
        return self.spread.model

    @property
    def is_best(self) -> bool:
        """True if no evaluation was better than that of the current weights."""
        return self.best is not None and self.best.update == self.update

    def model_tensors(self) -> dict[str, Tensor]:
        """Return the weights by parameter name, or this process's part; tied weights once."""
        return {name: parameter.detach() for name, parameter in self.spread.named_parameters()}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the moments by parameter name."""
        return optimizer_tensors(self.spread, self.optimizer)

    def rng_tensors(self) -> dict[str, Tensor]:
        """Return the default random streams. Training seeds them before each use, so this is only
        for a user's own code that draws from them.
        """
        streams = {"cpu": torch.get_rng_state()}
        if next(self.model.parameters()).device.type == "cuda":
            streams["cuda"] = torch.cuda.get_rng_state()
        return streams

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors, in a checkpoint's separate groups."""
        return {
            "model": self.model_tensors(),
            "optimizer": self.optimizer_tensors(),
            "rng": self.rng_tensors(),
            "guard": self.guard.state_tensors()
            | (self.scaling.state_tensors() if self.scaling else {}),
        }

    def pieces(self) -> dict[str, dict[str, Piece]]:
        """Return the rows of each group's tensors, if they are sharded over processes."""
        of_weights = self.spread.pieces
        if not of_weights:
            return {}
        of_moments = {
            name: of_weights[name.partition(".")[2]]
            for name, tensor in self.optimizer_tensors().items()
            if tensor.dim()
        }
        return {"model": of_weights, "optimizer": of_moments}

    def rows_of(self, group: str, name: str) -> tuple[int, int] | None:
        """Return the rows of a saved tensor that this process needs; None: all."""
        if group == "optimizer":
            kind, _, name = name.partition(".")
            if kind == "step":
                return None
        return self.spread.rows_of(name) if group in ("model", "optimizer") else None

    def counters(self) -> dict[str, Any]:
        """Return everything else, as plain JSON values."""
        return {
            "update": self.update,
            "position": self.position,
            "tokens": self.tokens,
            "rewinds": self.rewinds,
            "best": asdict(self.best) if self.best else None,
            "evaluated": self.evaluated,
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, dict[str, Tensor]], counters: Mapping[str, Any]) -> None:
        """Load the saved state.

        Args:
            tensors, counters: as returned by `tensors` and `counters`.

        Raises:
            KeyError, RuntimeError: they belong to another model.
        """
        _assign_tensor(tensors["model"], dict(self.spread.named_parameters()))
        load_optimizer_tensors(self.spread, self.optimizer, tensors["optimizer"])
        self.guard.load(tensors["guard"])
        if self.scaling:
            self.scaling.load(tensors["guard"])
        rng = tensors["rng"]
        torch.set_rng_state(rng["cpu"])
        if "cuda" in rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(rng["cuda"])
        self.update = counters["update"]
        self.position = counters["position"]
        self.tokens = counters["tokens"]
        self.rewinds = counters["rewinds"]
        self.best = Best(**counters["best"]) if counters["best"] else None
        self.evaluated = counters["evaluated"]


def _assign_tensor(saved: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Copy the saved weights into the parameters.

    Raises:
        RuntimeError: their names or sizes differ.
    """
    if missing := sorted(parameters.keys() - saved.keys()):
        raise RuntimeError(f"it has no {missing[0]}")
    if spare := sorted(saved.keys() - parameters.keys()):
        raise RuntimeError(f"it has {spare[0]}, which the model lacks")
    for name, parameter in parameters.items():
        if saved[name].shape != parameter.shape:
            raise RuntimeError(
                f"{name} is {list(saved[name].shape)} in it and {list(parameter.shape)} in "
                "the model"
            )
        parameter.copy_(saved[name])
