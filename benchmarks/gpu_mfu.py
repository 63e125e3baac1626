"""How much of a GPU hairpin's update uses, next to a plain compiled PyTorch loop.

    python -m benchmarks.gpu_mfu

GPT-2 124M in bfloat16, updates of 8 × 64 × 1,024 tokens; 64 sequences at a time, or as many as fit.
hairpin's is what a run does: compiled blocks, clipping, the guard, numbers that are read an update
later. The plain loop is below: a model compiled as a whole, clipping, fused AdamW, a loss that is
read an update later. They take turns, a few updates each; so does a product of two large matrices.

MFU is floating-point operations on paper a second (6 N + 12 L·C·T a token, nothing recomputed)
over 989 TFLOP/s (an H100's or H200's dense bfloat16), and over what that product reached.

Without a GPU `--device cpu` shows, in a tiny shape, that it runs; the figures mean nothing then.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.config.load import build_config
from hairpin.machine.numerics import Numerics
from hairpin.model.compiled import compile_blocks
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.planning.sizes import flops_per_token
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper, StepResult

Batch = tuple[Tensor, Tensor]
Update = Callable[[Batch], None]
_LR = 1e-4


@dataclass(frozen=True)
class Size:
    """What is trained, in updates of so many sequences, and how large the product is."""

    shape: Shape
    sequences: int
    micro_batch: int
    product_width: int


_SIZES = {
    "cuda": Size(Shape(50_257, 1024, layers=12, heads=12, width=768), 512, 64, 8192),
    "cpu": Size(Shape(257, 64, layers=2, heads=2, width=64), 8, 4, 512),
}


def main() -> None:
    """Time both in turn and print tokens a second and MFU."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--device", choices=list(_SIZES), default="cuda")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--updates", type=int, default=4, help="of each in a round")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU, on paper")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu_mfu: no CUDA here; --device cpu shows that it runs")
        return
    size, numerics = _SIZES[arguments.device], Numerics(arguments.device, "bfloat16")
    ids = torch.randint(0, size.shape.vocabulary, (size.sequences, size.shape.context + 1))
    batch = (ids[:, :-1], ids[:, 1:])
    updates, fits = {}, {}
    for name, make in (("hairpin", _hairpin_update), ("plain PyTorch", _plain_update)):
        updates[name], fits[name] = _what_fits(make, size, numerics, batch)
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    flops = []
    for number in range(arguments.rounds):
        flops.append(_product_flops(size.product_width, numerics))
        for name in list(updates)[:: 1 if number % 2 else -1]:  # neither is always first
            action = partial(updates[name], batch)
            seconds[name].append(_timed(action, numerics, arguments.updates))
    _report(seconds, fits, flops, size, arguments.peak_tflops * 1e12)


def _report(
    seconds: dict[str, list[float]],
    fits: dict[str, int],
    flops: list[float],
    size: Size,
    peak_flops: float,
) -> None:
    product = statistics.median(flops)
    tokens = size.sequences * size.shape.context
    print(f"{'bfloat16 product':<18}{product / 1e12:,.1f} TFLOP/s")
    for name, taken in seconds.items():
        speed = tokens / statistics.median(taken)
        reached = speed * flops_per_token(size.shape)
        print(
            f"{name:<18}{speed:,.0f} tokens/s ({tokens / max(taken):,.0f} to "
            f"{tokens / min(taken):,.0f}), {fits[name]} sequences at a time, MFU "
            f"{reached / peak_flops:.1%} of the paper's, {reached / product:.1%} of the product's"
        )
    ratios = [plain / ours for ours, plain in zip(*seconds.values(), strict=True)]
    print(
        f"hairpin / plain   {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}) of its speed, round by round"
    )


def _what_fits(
    make: Callable[[Size, Numerics, int], Update], size: Size, numerics: Numerics, batch: Batch
) -> tuple[Update, int]:
    """An update that was warmed up, and its micro-batch: the size's, halved until it fits."""
    micro_batch = size.micro_batch
    while micro_batch:
        try:
            update = make(size, numerics, micro_batch)
            for _ in range(3):
                update(batch)
            numerics.synchronize()
            return update, micro_batch
        except torch.OutOfMemoryError:
            micro_batch //= 2
        torch.cuda.empty_cache()
    raise SystemExit("benchmarks.gpu_mfu: not even one sequence fits in memory")


def _timed(action: Callable[[], object], numerics: Numerics, times: int) -> float:
    """Seconds of one of so many, from an idle device to an idle one."""
    numerics.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        action()
    numerics.synchronize()
    return (time.perf_counter() - start) / times


def _product_flops(width: int, numerics: Numerics) -> float:
    """Floating-point operations a second of a product of two square matrices."""
    one, other = torch.randn(2, width, width, device=numerics.device, dtype=torch.bfloat16)
    _timed(lambda: one @ other, numerics, 3)
    return 2 * width**3 / _timed(lambda: one @ other, numerics, 20)


def _hairpin_update(size: Size, numerics: Numerics, micro_batch: int) -> Update:
    config = build_config(flags={"recipe": "gpt2"})
    model = GPT(size.shape).to(numerics.device).train()
    compile_blocks(model, micro_batch)
    guard, clipper = Guard(config.guard, numerics.device), Clipper("norm", 1.0)
    optimizer = build_optimizer(model, config.optimizer)
    stepper = Stepper(Spread(model), optimizer, clipper, numerics, 0, micro_batch, guard)
    unread: list[StepResult] = []

    def update(batch: Batch) -> None:
        unread.append(stepper.step(batch, update=0, position=0, lr=_LR))
        if len(unread) > 1:
            unread.pop(0).read()

    return update


# --- the plain loop ---


class PlainBlock(nn.Module):
    """As in nanoGPT, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.shrink = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """One step along the residual stream, [B, T, C]."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        out: Tensor = self.shrink(F.gelu(self.expand(self.norms[1](x)), approximate="tanh"))
        return x + out


class PlainGPT(nn.Module):
    """As in nanoGPT: tied, the vocabulary filled up to a multiple of 64."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(-(-shape.vocabulary // 64) * 64, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.Sequential(
            *(PlainBlock(shape.width, shape.heads) for _ in range(shape.layers))
        )
        self.norm = nn.LayerNorm(shape.width, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross entropy in nats."""
        x = self.tokens(inputs) + self.positions.weight[: inputs.size(1)]
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _plain_update(size: Size, numerics: Numerics, micro_batch: int) -> Update:
    model = PlainGPT(size.shape).to(numerics.device)
    compiled = torch.compile(model, dynamic=False, fullgraph=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LR, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    pieces = -(-size.sequences // micro_batch)
    unread: list[Tensor] = []

    def update(batch: Batch) -> None:
        loss = torch.zeros((), device=numerics.device)
        for piece in zip(*(torch.split(part, micro_batch) for part in batch), strict=True):
            inputs, targets = (numerics.to_device(part) for part in piece)
            with numerics.autocast():
                mean = compiled(inputs, targets) / pieces
            mean.backward()
            loss += mean.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        unread.append(loss)
        if len(unread) > 1:
            float(unread.pop(0))

    return update


if __name__ == "__main__":
    main()
