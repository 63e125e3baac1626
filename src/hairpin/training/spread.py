"""How a model is spread over the processes: whole, replicated (DDP), or sharded (FSDP2).

`Spread` is one model as its process sees it: the parameters that this process keeps and moves, the
gradients for them, and the whole model where somebody writes with it. A sharded parameter is cut
along its first dimension (Zhao et al. 2023), and what is kept of it here is a plain tensor, so that
clipping, optimizers and checkpoints know nothing of shards.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket

from hairpin.checkpoints.pieces import Piece
from hairpin.distributed.world import World, noticing_losses
from hairpin.model.gpt import GPT
from hairpin.optim.muon import Shards

# Newer versions of PyTorch have another name for it.
_NAMES = ("forward_sync_buffers", "broadcast_buffers")
_KNOWN = signature(nn.parallel.DistributedDataParallel).parameters
_CONSTANT_BUFFERS: dict[str, Any] = {next(name for name in _NAMES if name in _KNOWN): False}


class Spread:
    """A model that this process has to itself.

    Args:
        model: it is called as `model(inputs, targets)`.
    """

    pieces: dict[str, Piece]  # by parameter name; none where parameters are whole

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.pieces = {}

    @property
    def shards(self) -> Shards | None:
        """Knows of which matrices the parameters are parts; None: they are whole."""
        return None

    @property
    def total(self) -> Callable[[Tensor], Tensor] | None:
        """Sums what is added up over parts of parameters; None: they are whole."""
        return None

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A forward pass for training: the sum of losses, the number of targets."""
        loss_sum, count = self.model(inputs, targets)
        return loss_sum, count

    @contextmanager
    def micro_step(self, *, is_last: bool) -> Iterator[None]:
        """Around the passes of one micro-step, the last of an update or not."""
        yield

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names, and what this process keeps of each parameter."""
        yield from self.model.named_parameters()

    def forget_gradients(self) -> None:
        """Begin a new update."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of what this process keeps, by parameter name."""
        return {name: p.grad for name, p in self.named_parameters() if p.grad is not None}

    def rows_of(self, name: str) -> tuple[int, int] | None:
        """Which rows of a parameter this process keeps; None: all."""
        piece = self.pieces.get(name)
        return (piece.start, piece.stop) if piece else None

    @contextmanager
    def gathered(self) -> Iterator[GPT | None]:
        """The whole model, for the process that writes with it; None in the others."""
        yield self.model


class Replicated(Spread):
    """A whole model in every process; gradients are summed at the last micro-step of an update.

    Args:
        model: on its device.
        world: the processes.
    """

    def __init__(self, model: GPT, world: World) -> None:
        super().__init__(model)
        self._world = world
        # Of a classifier, a language head of its own is left without a gradient.
        self._parallel = nn.parallel.DistributedDataParallel(
            model,
            find_unused_parameters=hasattr(model, "class_head") and model.head is not None,
            **_CONSTANT_BUFFERS,
        )
        self._parallel.register_comm_hook(None, _summed)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss_sum, count = self._parallel(inputs, targets)
        return loss_sum, count

    @contextmanager
    def micro_step(self, *, is_last: bool) -> Iterator[None]:
        if is_last:
            yield
        else:
            with self._parallel.no_sync():
                yield

    @contextmanager
    def gathered(self) -> Iterator[GPT | None]:
        yield self.model if self._world.is_first else None


class Sharded(Spread):
    """A part of each parameter, of its gradient and its moments in every process.

    Blocks are gathered one at a time, in forward and backward passes. Gradients are summed and cut
    at every micro-step: to put that off, each process would have to hold those of the whole model.

    Args:
        model: its `blocks` and itself are sharded in place, and moved to the device.
        world: the processes.
        device: "cpu" or "cuda".
    """

    def __init__(self, model: GPT, world: World, device: str) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        super().__init__(model)
        self._world = world
        self._device = device
        self._outline = _outline(model)
        mesh = init_device_mesh(device, (world.size,))
        for block in (*model.blocks, model):
            fully_shard(block, mesh=mesh)
        self._modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)  # a sum over processes, not a mean
            module.set_force_sum_reduction_for_comms(True)
        self._local: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            piece = Piece.of(tuple(parameter.shape), world.rank, world.size)
            part = _local(parameter)
            if part.size(0) != piece.stop - piece.start:
                raise AssertionError(f"{name}: cut otherwise than it was thought to be")
            self.pieces[name] = piece
            # The same memory: what the optimizer moves is what is gathered next.
            self._local[name] = nn.Parameter(part, requires_grad=parameter.requires_grad)
        self._whole_rows = {
            id(part): self.pieces[name].starts[-1] for name, part in self._local.items()
        }

    @property
    def shards(self) -> Shards:
        return self

    @property
    def total(self) -> Callable[[Tensor], Tensor]:
        return self._world.sum_

    def rows(self, parameter: Tensor) -> int:
        """How many rows the whole matrix has of which this process has the `parameter`."""
        return self._whole_rows[id(parameter)]

    def gather(self, parts: Sequence[Tensor], rows: int) -> list[Tensor]:
        """The whole matrices, of so many rows each, of which this process has these parts."""
        size, each = self._world.size, -(-rows // self._world.size)
        padded = parts[0].new_zeros(len(parts), each, parts[0].size(1))
        for place, part in zip(padded, parts, strict=True):
            place[: len(part)] = part
        found = [torch.empty_like(padded) for _ in range(size)]
        with noticing_losses():
            dist.all_gather(found, padded)
        return list(torch.cat(found, dim=1)[:, :rows])

    def own(self, whole: Tensor) -> Tensor:
        """This process's rows of a whole matrix."""
        rows = self._world.rows(len(whole))
        return whole[rows.start : rows.stop]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        self._let_go()
        yield from self._local.items()

    def gradients(self) -> dict[str, Tensor]:
        for name, parameter in self.model.named_parameters():
            self._local[name].grad = None if parameter.grad is None else _local(parameter.grad)
        return super().gradients()

    @contextmanager
    def gathered(self) -> Iterator[GPT | None]:
        whole = {}
        self._let_go()
        with noticing_losses():
            for name, parameter in self.model.named_parameters():
                full = parameter.detach().full_tensor()  # type: ignore[attr-defined]
                if self._world.is_first:
                    whole[name] = full
        if self._world.is_first:
            model = copy.deepcopy(self._outline)
            model.load_state_dict(whole, strict=True, assign=True)
            yield model.to(self._device).train(self.model.training)
        else:
            yield None

    def _let_go(self) -> None:
        """Free what a pass without a backward pass has gathered and kept: it would be old as soon
        as the parts are changed.
        """
        for module in self._modules:
            module.reshard()


def spread_model(model: GPT, world: World, how: str, device: str) -> Spread:
    """The model spread over the world.

    Args:
        model: whole, on the device; with "fsdp" it may be elsewhere.
        world: the processes.
        how: "ddp" or "fsdp".
        device: "cpu", "cuda" or "mps".
    """
    if world.size == 1:
        return Spread(model)
    with noticing_losses():
        return Sharded(model, world, device) if how == "fsdp" else Replicated(model, world)


def _summed(state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """The gradients of a bucket summed over the processes: DDP's own hook takes their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


def _local(tensor: Tensor) -> Tensor:
    """What this process has of a sharded tensor, in the same memory."""
    part: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return part


def _outline(model: GPT) -> GPT:
    """A copy of the model whose parameters have shapes and no memory."""
    known: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for p in model.parameters()
    }
    return copy.deepcopy(model, known)
