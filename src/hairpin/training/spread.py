"""Distribution of a model over processes: whole, replicated (DDP), or sharded (FSDP2).

`Spread` is one model as its process sees it: the parameters that this process keeps and updates,
their gradients, and the whole model for generation. A sharded parameter is cut
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
from hairpin.distributed.world import World, reporting_lost_process
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.optim.muon import MatrixShards

# Newer versions of PyTorch have another name for it.
_NAMES = ("forward_sync_buffers", "broadcast_buffers")
_KNOWN = signature(nn.parallel.DistributedDataParallel).parameters
_CONSTANT_BUFFERS: dict[str, Any] = {next(name for name in _NAMES if name in _KNOWN): False}


class Spread:
    """Model trained by this process alone.

    Args:
        model: called as `model(inputs, targets)`.
    """

    pieces: dict[str, Piece]  # by parameter name; none where parameters are whole

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.pieces = {}

    @property
    def shards(self) -> MatrixShards | None:
        """Maps sharded parameters to whole matrices; None: they are whole."""
        return None

    @property
    def total(self) -> Callable[[Tensor], Tensor] | None:
        """Sums values over shards of parameters; None: they are whole."""
        return None

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Run a forward pass for training; return the sum of losses and the number of targets."""
        loss_sum, count = self.model(inputs, targets)
        return loss_sum, count

    @contextmanager
    def micro_step(self, *, is_last: bool) -> Iterator[None]:
        """Wrap the passes of one micro-step, the last of an update or not."""
        yield

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return names, and this process's part of each parameter."""
        yield from self.model.named_parameters()

    def clear_gradients(self) -> None:
        """Clear gradients for a new update."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of this process's parameters, by name."""
        return {name: p.grad for name, p in self.named_parameters() if p.grad is not None}

    def rows_of(self, name: str) -> tuple[int, int] | None:
        """Return the rows of a parameter that this process keeps; None: all."""
        piece = self.pieces.get(name)
        return (piece.start, piece.stop) if piece else None

    @contextmanager
    def gathered(self) -> Iterator[GPT | None]:
        """Gather the whole model for the process that generates with it; None in the others."""
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
        # A classifier's separate language head gets no gradient.
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
    at every micro-step: to defer that, each process would have to hold those of the whole model.

    Args:
        model: without values, on "meta"; its `blocks` and the model itself are sharded in place,
            on the device, and get their initial values.
        world: the processes.
        numerics: device and precision; where products are in 16 bits, blocks that are matrices
            alone are gathered in them.
    """

    def __init__(self, model: GPT, world: World, numerics: Numerics) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        super().__init__(model)
        self._world = world
        self._device = numerics.device
        self._outline = copy.deepcopy(model)
        mesh = init_device_mesh(numerics.device, (world.size,))
        # Matrices are cast for each product anyway. Norms and biases are not, nor are embeddings
        # and head, which the float32 stream begins and ends with.
        halved = MixedPrecisionPolicy(
            numerics.product_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for block in model.blocks:
            only_matrices = all(p.dim() == 2 for p in block.parameters())
            policy = halved if only_matrices else MixedPrecisionPolicy()
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh)
        model.to_empty(device=numerics.device)
        model.fill_buffers(numerics.device)
        self._modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)  # a sum over processes, not a mean
            module.set_force_sum_reduction_for_comms(True)
        self._local: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            piece = Piece.of(tuple(parameter.shape), world.rank, world.size)
            part = _local(parameter)
            if part.size(0) != piece.stop - piece.start:
                raise AssertionError(f"{name}: unexpected sharding")
            self.pieces[name] = piece
            # The same memory: the optimizer's updates are gathered next.
            self._local[name] = nn.Parameter(part, requires_grad=parameter.requires_grad)
        with torch.no_grad():
            for name, value in model.initial_value():
                piece = self.pieces[name]
                self._local[name].copy_(value[piece.start : piece.stop])
        self._whole_rows = {
            id(part): self.pieces[name].starts[-1] for name, part in self._local.items()
        }

    @property
    def shards(self) -> MatrixShards:
        return self

    @property
    def total(self) -> Callable[[Tensor], Tensor]:
        return self._world.sum_

    def rows(self, parameter: Tensor) -> int:
        """Return the number of rows of the whole matrix whose shard is `parameter`."""
        return self._whole_rows[id(parameter)]

    def gather(self, parts: Sequence[Tensor], rows: int) -> list[Tensor]:
        """Gather the whole matrices, with these numbers of rows, from the processes' parts."""
        size, each = self._world.size, -(-rows // self._world.size)
        padded = parts[0].new_zeros(len(parts), each, parts[0].size(1))
        for place, part in zip(padded, parts, strict=True):
            place[: len(part)] = part
        found = [torch.empty_like(padded) for _ in range(size)]
        with reporting_lost_process():
            dist.all_gather(found, padded)
        return list(torch.cat(found, dim=1)[:, :rows])

    def own(self, whole: Tensor) -> Tensor:
        """Return this process's rows of a whole matrix."""
        rows = self._world.rows(len(whole))
        return whole[rows.start : rows.stop]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        self._release()
        yield from self._local.items()

    def gradients(self) -> dict[str, Tensor]:
        for name, parameter in self.model.named_parameters():
            self._local[name].grad = None if parameter.grad is None else _local(parameter.grad)
        return super().gradients()

    @contextmanager
    def gathered(self) -> Iterator[GPT | None]:
        whole = {}
        self._release()
        with reporting_lost_process():
            for name, parameter in self.model.named_parameters():
                full = parameter.detach().full_tensor()  # type: ignore[attr-defined]
                if self._world.is_first:
                    whole[name] = full
        if self._world.is_first:
            model = copy.deepcopy(self._outline)
            model.load_state_dict(whole, strict=True, assign=True)
            model.fill_buffers(self._device)
            yield model.train(self.model.training)
        else:
            yield None

    def _release(self) -> None:
        """Free parameters gathered in a pass without a backward pass: they become stale as soon as
        the shards change.
        """
        for module in self._modules:
            module.reshard()


def spread_model(model: GPT, world: World, how: str, numerics: Numerics) -> Spread:
    """Spread the model over the processes.

    Args:
        model: on the device; with "fsdp" on "meta", without values.
        world: the processes.
        how: "ddp" or "fsdp".
        numerics: device and precision.
    """
    if world.size == 1:
        return Spread(model)
    with reporting_lost_process():
        return Sharded(model, world, numerics) if how == "fsdp" else Replicated(model, world)


def _summed(state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sum a bucket's gradients over the processes: DDP's own hook takes their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


def _local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, in the same memory."""
    part: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return part
