"""GPUs on paper: peak speed and memory, and the cost of training on a number of them.

Peaks are dense, without structured sparsity, for 16-bit products with 32-bit sums, from the
vendors' data sheets.
"""

import math
from dataclasses import dataclass

from hairpin.errors import ConfigError
from hairpin.model.shape import Shape
from hairpin.planning.memory import (
    CUDA_CONTEXT_BYTES,
    Workload,
    activation_bytes,
    logit_bytes,
)
from hairpin.planning.sizes import count_parameters, flops_per_token, matrix_parameters

# The share of the peak that training reaches: 38% to 43% for Llama 3 on H100s (Grattafiori et al.
# 2024, table 4), 46% for PaLM (Chowdhery et al. 2022, table 3). Small networks reach less.
MFU = 0.4
STATE_BYTES = 16  # a parameter: weights, gradients and two moments in float32
CAST_BYTES = 2  # a parameter: its 16-bit copy for products
CHECKPOINT_SLOWDOWN = 4 / 3  # one more forward pass; a backward pass counts as two


@dataclass(frozen=True)
class Gpu:
    """A GPU model.

    Args:
        name: its common name.
        flops: at its peak, per second.
        memory_bytes: nominal.
        number: the number format of the peak.
        source: the origin of the figures.
    """

    name: str
    flops: float
    memory_bytes: float
    number: str
    source: str


GPUS = {
    "T4": Gpu("T4", 65e12, 16e9, "float16", "NVIDIA T4 data sheet"),
    "RTX4090": Gpu(
        "RTX 4090", 165.2e12, 24e9, "bfloat16", "NVIDIA Ada GPU architecture whitepaper, appendix A"
    ),
    "A100": Gpu("A100 80 GB", 312e12, 80e9, "bfloat16", "NVIDIA A100 data sheet"),
    "H100": Gpu("H100 SXM", 989e12, 80e9, "bfloat16", "NVIDIA H100 data sheet"),
    "H200": Gpu("H200 SXM", 989e12, 141e9, "bfloat16", "NVIDIA H200 data sheet"),
}


def gpu_named(name: str) -> Gpu:
    """Look up a GPU by name, ignoring spaces and case.

    Raises:
        ConfigError: it is unknown.
    """
    key = "".join(c for c in name.upper() if c.isalnum())
    if key not in GPUS:
        raise ConfigError(f"--gpu: there is no {name!r} here; choose one of {', '.join(GPUS)}")
    return GPUS[key]


def seconds_on_paper(gpu: Gpu, flops: float, mfu: float = MFU) -> float:
    """Return how long the operations take at this share of the peak."""
    return flops / (gpu.flops * mfu)


def shape_of_count(
    parameters: float, context: int, vocabulary: int, architecture: str = "modern"
) -> Shape:
    """Return the network nearest to a number of parameters whose heads are 128 wide and whose width
    is 128 times its layers, as in the largest sizes of GPT-3 (Brown et al. 2020, table 2.1).
    """

    def of(layers: int) -> Shape:
        sizes = (vocabulary, context, layers, layers, 128 * layers)
        shape = Shape.default(architecture, *sizes)
        return shape if shape.is_built_in else Shape(*sizes)  # a plugin's counts as GPT-2's

    near = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    candidates = [of(layers) for layers in range(max(1, near - 8), near + 9)]
    return min(candidates, key=lambda shape: abs(count_parameters(shape).total - parameters))


@dataclass(frozen=True)
class OnGpus:
    """The cost of training on a number of GPUs, on paper.

    Args:
        gpus: their number.
        ddp_bytes: on each with a full copy of everything (data parallel), without and with
            activation checkpointing.
        fsdp_bytes: the same with weights, gradients and moments sharded over all.
        days: of the run, without checkpointing; a third more with it.
        tokens_per_second: of all GPUs together.
    """

    gpus: int
    ddp_bytes: tuple[float, float]
    fsdp_bytes: tuple[float, float]
    days: float
    tokens_per_second: float

    @property
    def checkpointed_days(self) -> float:
        """The days with activation checkpointing."""
        return self.days * CHECKPOINT_SLOWDOWN


def on_gpus(
    gpu: Gpu, shape: Shape, tokens: float, gpus: int, micro_batch: int, mfu: float = MFU
) -> OnGpus:
    """Compute the cost of training on a number of GPUs.

    Args:
        gpu: the model of each.
        shape: of the network; its context is the length of a sequence.
        tokens: of the run.
        gpus: their number.
        micro_batch: sequences in a forward pass on each.
        mfu: share of the peak.
    """
    count = count_parameters(shape).total
    passes = [working_bytes(shape, micro_batch, checkpointed) for checkpointed in (False, True)]
    # A block's weights are gathered in 16 bits while the next one's are prefetched; so are its
    # gradients.
    block = 3 * CAST_BYTES * matrix_parameters(shape) / shape.layers
    head = 2 * CAST_BYTES * shape.vocabulary * shape.width
    ddp = [(STATE_BYTES + CAST_BYTES) * count + working for working in passes]
    fsdp = [STATE_BYTES * count / gpus + block + head + working for working in passes]
    speed = gpu.flops * mfu * gpus / flops_per_token(shape)
    return OnGpus(gpus, (ddp[0], ddp[1]), (fsdp[0], fsdp[1]), tokens / speed / 86_400, speed)


def working_bytes(shape: Shape, micro_batch: int, checkpointed: bool) -> float:
    """Return what a micro-batch takes on a GPU besides weights, gradients and moments: activations,
    logits, and the driver's own memory.
    """
    job = Workload(shape, "adamw", "bfloat16", micro_batch, 2, "cuda")
    activations = activation_bytes(job)
    if checkpointed:  # each block's input in 16 bits, and one block's activations
        alone = activations / shape.layers
        activations = int(CAST_BYTES * job.tokens * shape.width * shape.layers + alone)
    return activations + logit_bytes(job) + CUDA_CONTEXT_BYTES


def fewest_gpus(gpu: Gpu, shape: Shape, micro_batch: int, checkpointed: bool) -> int | None:
    """Return how many GPUs must share the state for the rest to fit; None: it never fits."""
    count = count_parameters(shape).total
    block = 3 * CAST_BYTES * matrix_parameters(shape) / shape.layers
    head = 2 * CAST_BYTES * shape.vocabulary * shape.width
    room = gpu.memory_bytes - block - head - working_bytes(shape, micro_batch, checkpointed)
    return math.ceil(STATE_BYTES * count / room) if room > 0 else None
