"""The optimizer of a config, its state for checkpoints, and an update that the device can skip."""

from typing import Any

import torch
from torch import Tensor

from hairpin.config.settings import Optimizer as OptimizerSettings
from hairpin.errors import HairpinError, PluginError
from hairpin.optim.adamw import Named, decay_groups
from hairpin.optim.muon import MatrixShards
from hairpin.plugins.files import plugin_error_line
from hairpin.plugins.registry import OPTIMIZERS, registered

# Their fused kernels silently ignore `found_inf` and `grad_scale`: PyTorch's for MPS before
# https://github.com/pytorch/pytorch/pull/186360.
DEVICES_IGNORING_FOUND_INF: tuple[str, ...] = ("mps",)


def build_optimizer(
    model: Named,
    settings: OptimizerSettings,
    shards: MatrixShards | None = None,
    *,
    precision: str = "float32",
) -> torch.optim.Optimizer:
    """Build the optimizer over all trainable parameters.

    The learning rate is set before every update, so none is given here; a group's `lr_scale` is the
    constant multiple of it that the group gets.

    Args:
        model: with `blocks`, embeddings and heads.
        settings: the rule and its constants.
        shards: used where parameters are sharded by rows; None: they are whole.
        precision: of the run's matrix products; Muon's own are bfloat16 where those are.

    Raises:
        PluginError: a plugin's optimizer cannot be made, or is not an optimizer.
    """
    kind = OPTIMIZERS.get(settings.kind)
    if kind is None:
        return _plugin_optimizer(model, settings)
    made: torch.optim.Optimizer = kind.build(model, settings, shards=shards, precision=precision)
    return made


def _plugin_optimizer(model: Named, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return the optimizer that a plugin makes from groups like AdamW's."""
    found = registered("optimizer", settings.kind)
    if found is None:
        raise PluginError(
            f"optimizer.kind: {settings.kind!r} comes from a plugin; name its file with --plugin"
        )
    groups = decay_groups(model, settings)
    wanted = {id(parameter) for group in groups for parameter in group["params"]}
    where = f"{found.place}: the optimizer {found.name!r}"
    try:
        made = found.make(groups, settings)
    except HairpinError:
        raise
    except Exception as error:
        line = plugin_error_line(error) or f"{where}: {type(error).__name__}: {error}"
        raise PluginError(f"{line.splitlines()[0]} (the optimizer {found.name!r})") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise PluginError(f"{where} is {type(made).__name__}, not a torch.optim.Optimizer")
    moved = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    if len(moved) != len(wanted) or set(moved) != wanted:
        raise PluginError(f"{where} does not have every parameter of its groups once")
    return made


def step_unless(
    halted: Tensor, optimizer: torch.optim.Optimizer, lr: float, divisor: Tensor | None = None
) -> None:
    """Do one update; where `halted` is true change nothing, to the byte.

    Args:
        halted: a boolean scalar on the device. A fused optimizer reads it with the gradients, as
            gradient scalers skip an overflow, without a wait. For any other optimizer, and on
            MPS, it is waited for, and `step` is not called.
        optimizer: any. A group with an `lr_scale` gets that multiple of the learning rate.
        lr: the schedule's learning rate.
        divisor: a float32 scalar on the device by which gradients are divided: by a fused optimizer
            as it reads them, which costs no pass of its own; None: by nothing.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    if supports_found_inf(optimizer) and halted.device.type not in DEVICES_IGNORING_FOUND_INF:
        optimizer.found_inf = halted.float()  # type: ignore[attr-defined]
        optimizer.grad_scale = divisor  # type: ignore[attr-defined]
        optimizer.step()
        return
    if bool(halted):
        return
    if divisor is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_div_(gradients, divisor)
    optimizer.step()


def supports_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Return True if an optimizer changes nothing when its `found_inf` is 1, as fused ones do."""
    is_ours = hasattr(type(optimizer), "found_inf")
    return is_ours or bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def optimizer_tensors(model: Named, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state by parameter name: `exp_avg.<name>`, `exp_avg_sq.<name>`, `step.…`,
    `momentum.…`. Plain numbers have their type after the kind, `step:int.…`, and those that an
    optimizer which is not fused keeps in a group are `group:d:float.<index>`.

    Raises:
        PluginError: its state has a value that is neither a tensor nor a number.
    """
    tensors = {
        _key(kind, value, name): torch.as_tensor(value, dtype=_DTYPES.get(type(value)))
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
    if supports_found_inf(optimizer):
        return tensors
    for index, group in enumerate(optimizer.param_groups):
        for kind, value in group.items():
            if type(value) in _DTYPES and kind != "lr":
                key = _key(f"{_GROUP}{kind}", value, str(index))
                tensors[key] = torch.as_tensor(value, dtype=_DTYPES[type(value)])
    return tensors


def load_optimizer_tensors(
    model: Named, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Load exactly what `optimizer_tensors` returned, each tensor on its parameter's device; the
    `step` of an optimizer that is not fused stays on the CPU, as in PyTorch.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        kind, _, number = kind.removeprefix(_GROUP).partition(":")
        value: Any = _NUMBERS[number](tensor.item()) if number else tensor
        if key.startswith(_GROUP):
            optimizer.param_groups[int(name)][kind] = value
            continue
        parameter = parameters[name]
        if not number:
            on_host = kind == "step" and not supports_found_inf(optimizer)
            value = tensor.to("cpu" if on_host else parameter.device, copy=True)
        optimizer.state[parameter][kind] = value


_GROUP = "group:"
_DTYPES: dict[type, torch.dtype] = {int: torch.int64, float: torch.float64, bool: torch.int64}
_NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}


def _key(kind: str, value: object, name: str) -> str:
    if isinstance(value, Tensor):
        return f"{kind}.{name}"
    if type(value) not in _DTYPES or "." in kind:
        raise PluginError(
            f"optimizer: its state has {kind!r} for {name}, a {type(value).__name__}; a "
            "checkpoint holds only tensors and numbers"
        )
    return f"{kind}:{type(value).__name__}.{name}"
