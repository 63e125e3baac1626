"""Construction of a network by its shape: hairpin's own, or a plugin's, which is tested first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED
from hairpin.errors import HairpinError, PluginError
from hairpin.model.gpt import GPT, derived_seed
from hairpin.model.shape import Shape
from hairpin.plugins.files import plugin_error_line
from hairpin.plugins.registry import BUILT_IN, Registered, registered

_TEST_SEQUENCES = 2
_FORWARD = "forward(inputs, targets) must return (sum of losses, number of targets)"

SumAndCount = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]


def new_network(shape: Shape, seed: int = 0) -> GPT:
    """Make a network with random weights, on the CPU.

    Args:
        shape: its sizes and its architecture.
        seed: of the weights.

    Returns:
        A `GPT`, or a plugin's module that trains as one does.

    Raises:
        PluginError: a plugin's network violates its contract; the message names file and line.
    """
    if shape.is_built_in:
        return GPT(shape, seed)
    found = registered("model", shape.architecture)
    if found is None:
        raise PluginError(
            f"model.architecture: {shape.architecture!r} comes from a plugin; name its file with "
            "--plugin"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "plugin", found.name))
        made = _try(found, lambda: found.make(shape))
    _require_module(found, made)
    made.shape = shape
    _try(found, lambda: _require_contract(found, made, shape))
    model: GPT = made
    return model


def can_write(model: nn.Module) -> bool:
    """Return True if a network can generate text."""
    return hasattr(model, "logits")


def training_loss(name: str) -> SumAndCount | None:
    """Return the loss that updates minimise: (model, inputs, targets) → (sum of losses, number of
    targets); None: the result of the model's own `forward`.

    Args:
        name: `train.loss`.

    Raises:
        PluginError: it belongs to a plugin that was not named, or, when called, violates its
            contract.
    """
    if name in BUILT_IN["loss"]:
        return None
    found = registered("loss", name)
    if found is None:
        raise PluginError(f"train.loss: {name!r} comes from a plugin; name its file with --plugin")

    def loss(model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not can_write(model):
            raise PluginError(
                f"train.loss: {name!r} needs logits(inputs), which the network "
                f"{model.shape.architecture!r} lacks"
            )
        is_target_BT = targets_BT != IGNORED
        losses_BT = found.make(model.logits(inputs_BT), targets_BT.clamp(min=0))
        if not isinstance(losses_BT, Tensor) or losses_BT.shape != targets_BT.shape:
            raise PluginError(
                f"{found.place}: the loss {name!r} gives {_described(losses_BT)}, not a loss for "
                f"each position, {list(targets_BT.shape)}"
            )
        sums = torch.where(is_target_BT, losses_BT.float(), 0.0)
        return sums.sum(), is_target_BT.sum()

    return loss


def _require_module(found: Registered, made: object) -> None:
    where = f"{found.place}: the model {found.name!r}"
    if not isinstance(made, nn.Module):
        raise PluginError(f"{where} is {_described(made)}, not a torch.nn.Module")
    parameters = dict(made.named_parameters())
    if not parameters:
        raise PluginError(f"{where} has no parameters")
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise PluginError(
                f"{where}: {name} is {parameter.dtype} on {parameter.device}; create parameters "
                "in float32 on the CPU"
            )
    if others := sorted(set(made.state_dict()) - set(parameters)):
        raise PluginError(
            f"{where}: {others[0]} is state but not a parameter of its own, so a checkpoint would "
            "lack it; register buffers with persistent=False, and share no parameters"
        )


@torch.no_grad()
def _require_contract(found: Registered, model: Any, shape: Shape) -> None:
    """Test a pass over a few sequences, with one ignored target."""
    generator = torch.Generator().manual_seed(0)
    size = (_TEST_SEQUENCES, shape.context)
    inputs_BT = torch.randint(0, shape.vocabulary, size, generator=generator)
    targets_BT = torch.randint(0, shape.vocabulary, size, generator=generator)
    targets_BT[0, 0] = IGNORED
    where = f"{found.place}: the model {found.name!r}"
    with torch.random.fork_rng(devices=[]):
        given = model(inputs_BT, targets_BT)
        if not isinstance(given, tuple) or len(given) != 2:
            raise PluginError(f"{where}: {_FORWARD}; it gave {_described(given)}")
        loss, count = given
        for name, scalar in (("sum of losses", loss), ("number of targets", count)):
            if not isinstance(scalar, Tensor) or scalar.dim() != 0:
                raise PluginError(f"{where}: the {name} is a scalar, not {_described(scalar)}")
        targets = targets_BT.numel() - 1
        if int(count) != targets:
            raise PluginError(
                f"{where}: it counts {int(count)} targets where {targets} are not {IGNORED}"
            )
        if not torch.isfinite(loss):
            raise PluginError(f"{where}: its first loss is {float(loss)}")
        if can_write(model):
            logits = model.logits(inputs_BT)
            if not isinstance(logits, Tensor) or logits.shape != (*size, shape.vocabulary):
                raise PluginError(
                    f"{where}: logits(inputs) gives {_described(logits)}, not "
                    f"{[*size, shape.vocabulary]}"
                )


def _try(found: Registered, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except HairpinError:
        raise
    except Exception as error:
        line = plugin_error_line(error) or f"{found.place}: {type(error).__name__}: {error}"
        raise PluginError(f"{line.splitlines()[0]} (the model {found.name!r})") from error


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__
