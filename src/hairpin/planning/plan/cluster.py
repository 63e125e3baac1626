"""Training on GPUs that this machine does not have, on paper."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hairpin.model.shape import Shape
from hairpin.planning.amounts import CHINCHILLA_TOKENS_PER_PARAMETER, Amount
from hairpin.planning.gpus import (
    CAST_BYTES,
    CHECKPOINT_SLOWDOWN,
    MFU,
    STATE_BYTES,
    Gpu,
    OnGpus,
    fewest_gpus,
    on_gpus,
)
from hairpin.planning.sizes import count_parameters, flops_per_token
from hairpin.reports.formats import format_bytes, format_count


@dataclass(frozen=True)
class ClusterPlan:
    """The cost of training on various numbers of a GPU, on paper.

    Args:
        shape: of the network.
        tokens: of the run.
        gpu: each card.
        micro_batch: sequences in a forward pass of each card.
        rows: by number of cards.
        fewest: cards needed when everything is sharded, without and with activation
            checkpointing; None: no number of them is enough.
        shape_is_picked: whether the shape was picked for a number of parameters.
    """

    shape: Shape
    tokens: int
    gpu: Gpu
    micro_batch: int
    rows: tuple[OnGpus, ...]
    fewest: tuple[int | None, int | None]
    shape_is_picked: bool

    @property
    def parameters(self) -> int:
        """Parameters of the network."""
        return count_parameters(self.shape).total

    @property
    def flops(self) -> float:
        """Floating-point operations of the run."""
        return flops_per_token(self.shape) * self.tokens

    def assumptions(self) -> tuple[str, ...]:
        """Return the assumptions behind the figures."""
        shape, gpu = self.shape, self.gpu
        picked = (
            "the shape: the nearest network with a width of 128 times its layers and heads of "
            "128, as in the largest GPT-3 models (Brown et al. 2020, table 2.1)"
        )
        return (
            *((picked,) if self.shape_is_picked else ()),
            f"vocabulary {shape.vocabulary:,}, {shape.architecture} network",
            f"speed: {MFU:.0%} of {gpu.flops / 1e12:,.0f} TFLOP/s ({gpu.source}, {gpu.number}, "
            "dense) on any number of cards: 38% to 43% was reported for Llama 3 on H100s "
            "(Grattafiori et al. 2024), 46% for PaLM; with slow links it is less",
            "FLOPs: 6N + 12·L·C·T a token (PaLM, appendix B)",
            f"state: {STATE_BYTES} bytes a parameter: float32 weights, gradients and two moments; "
            f"DDP has {CAST_BYTES} more for 16-bit copies",
            "FSDP: state divided among all cards; a block's weights gathered in 16 bits, and also "
            "the next block's, a block's gradients, and the head's",
            f"activations of {self.micro_batch} x {shape.context:,} tokens per GPU in 16 bits, "
            "flash attention, all logits at once; checkpointing keeps each block's input, and "
            f"takes {CHECKPOINT_SLOWDOWN:.2f} times as long",
            f"memory: {format_bytes(gpu.memory_bytes)} per GPU, nominal; without fragmentation, "
            "communication buffers or other programs",
            "days: only updates, without failures, evaluations or checkpoints",
        )

    def lines(self, *, color: bool = False) -> list[str]:
        """Return the plan in words; there is nothing to colour."""
        shape, amount = self.shape, Amount(self.tokens, self.parameters, None)
        lines = [
            f"On paper: {format_count(self.parameters)} parameters ({shape.layers} layers, "
            f"{shape.heads} heads, {shape.width:,} wide, context {shape.context:,}), "
            f"{format_count(self.tokens)} tokens",
            f"  {amount.tokens_per_parameter:.3g} tokens a parameter: {amount.judgement()}",
            f"  {flops_per_token(shape):.3g} FLOPs a token, {self.flops:.3g} in all; without "
            "recomputation",
            "",
            f"{self.gpu.name}, on paper   memory per GPU, without / with activation checkpointing",
            f"{'cards':>7}  {'DDP':>22}  {'FSDP':>22}  {'days':>8}  {'ckpt. days':>10}"
            f"  {'tokens/s':>10}",
        ]
        lines += [
            f"{row.gpus:>7,}  {self._pair(row.ddp_bytes):>22}  {self._pair(row.fsdp_bytes):>22}"
            f"  {row.days:>8.3g}  {row.checkpointed_days:>10.3g}"
            f"  {format_count(row.tokens_per_second):>10}"
            for row in self.rows
        ]
        plain, checkpointed = (_cards(count) for count in self.fewest)
        lines += [
            f"  x: more than the {format_bytes(self.gpu.memory_bytes)} of a card. FSDP fits "
            f"{plain}; with activation checkpointing {checkpointed}.",
            "",
            "What this assumes:",
            *(f"  - {line}" for line in self.assumptions()),
        ]
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the plan in plain values."""
        return {
            "on_paper": True,
            "model": asdict(self.shape),
            "parameters": self.parameters,
            "tokens": self.tokens,
            "tokens_per_parameter": self.tokens / self.parameters,
            "flops": {"token": flops_per_token(self.shape), "run": self.flops},
            "gpu": asdict(self.gpu),
            "mfu": MFU,
            "micro_batch": self.micro_batch,
            "rows": [
                {
                    "gpus": row.gpus,
                    "ddp_bytes": row.ddp_bytes[0],
                    "ddp_checkpointed_bytes": row.ddp_bytes[1],
                    "fsdp_bytes": row.fsdp_bytes[0],
                    "fsdp_checkpointed_bytes": row.fsdp_bytes[1],
                    "days": row.days,
                    "checkpointed_days": row.checkpointed_days,
                    "tokens_per_second": row.tokens_per_second,
                }
                for row in self.rows
            ],
            "fewest_gpus": {"fsdp": self.fewest[0], "fsdp_checkpointed": self.fewest[1]},
            "assumptions": list(self.assumptions()),
        }

    def _pair(self, sizes: tuple[float, float]) -> str:
        """Return both sizes, marking those that exceed a card's memory."""
        marks = ["x" if size > self.gpu.memory_bytes else " " for size in sizes]
        return " / ".join(
            f"{format_bytes(size)}{mark}" for size, mark in zip(sizes, marks, strict=True)
        )


def cluster_plan(
    shape: Shape,
    tokens: int | None,
    gpu: Gpu,
    gpus: Sequence[int],
    micro_batch: int,
    *,
    picked: bool,
) -> ClusterPlan:
    """Return the plan of a shape for various numbers of cards; tokens None: 20 per parameter."""
    default = round(CHINCHILLA_TOKENS_PER_PARAMETER * count_parameters(shape).total)
    length = tokens or default
    return ClusterPlan(
        shape,
        length,
        gpu,
        micro_batch,
        tuple(on_gpus(gpu, shape, length, count, micro_batch) for count in gpus),
        (
            fewest_gpus(gpu, shape, micro_batch, checkpointed=False),
            fewest_gpus(gpu, shape, micro_batch, checkpointed=True),
        ),
        picked,
    )


def _cards(count: int | None) -> str:
    if count is None:
        return "on no number of them"
    return "on one" if count == 1 else f"from {count:,} on"
