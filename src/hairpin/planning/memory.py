"""Peak memory of a training run by part, derived from what the code keeps: for a CPU, and on paper
for a GPU.

On a CPU two numbers are measured: the process's own base and the share of memory that lies unused.
Every other term is a tensor that `model/`, `optim/` or `checkpoints/` holds at one moment, and the
peak is that of the moment that holds most. `python -m benchmarks.plan_check` measures the accuracy.

Symbols: L layers, C width, V vocabulary, T context, B sequences of a micro-batch, N = B·T its
tokens.
"""

from dataclasses import dataclass, replace

from hairpin.config.settings import Config
from hairpin.model.shape import Shape
from hairpin.planning.sizes import count_parameters, matrix_parameters
from hairpin.plugins.registry import OPTIMIZERS

# Python, torch and hairpin before a model is built, and what the first products and the final plots
# load: measured with `python -m benchmarks.plan_check --base` (Linux, torch 2.13).
PROCESS_BYTES = 290_000_000
PLOTS_BYTES = 25_000_000
CUDA_CONTEXT_BYTES = 600_000_000  # on a GPU, before any tensor: approximate, for recent ones

# Copies of constants in model/kernels/, which imports torch; a test compares.
ATTENTION_BLOCK = 128
KEPT_PROBABILITY_BYTES = 2 * 64 * 2**20
LOGIT_CHUNK_BYTES = 128 * 2**20
ROW_NUMBERS = 64
PRODUCT_ROWS = 8192

# Freed memory is kept (allocator.py), and not all of it fits later blocks: the holes, as a share of
# what an update allocates and frees. Measured: about the median of what runs of `python -m
# benchmarks.plan_check` took beyond the sum of their parts, which was 5% to 70%.
UNUSED_SHARE = {"layer norm": 0.25, "rms": 0.5, "weighted rms": 0.5}  # by the kind of norm

_FLOAT32 = 4
_WIDTHS = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Workload:
    """The settings that determine the memory of a run.

    Args:
        shape: of the network.
        optimizer: its name.
        precision: of matrix products.
        micro_batch: sequences in a forward pass.
        micro_steps: forward passes in an update.
        device: "cpu", "mps" or "cuda".
        recomputes: a block's activations are recomputed in the backward pass.
    """

    shape: Shape
    optimizer: str
    precision: str
    micro_batch: int
    micro_steps: int
    device: str = "cpu"
    recomputes: bool = False

    @classmethod
    def of(cls, config: Config, shape: Shape, precision: str) -> "Workload":
        """Return the job of a completely filled-in config in one precision."""
        tokens, sequences = config.train.tokens_per_update, config.execution.micro_batch
        assert tokens and sequences
        samples = tokens // shape.context
        return cls(
            shape,
            config.optimizer.kind,
            precision,
            min(sequences, samples),
            -(-samples // sequences),
            config.execution.device,
            config.execution.activation_checkpointing,
        )

    @property
    def tokens(self) -> int:
        """N, the tokens of a micro-batch."""
        return self.micro_batch * self.shape.context

    @property
    def number_bytes(self) -> int:
        """The size of a number in a matrix product."""
        return _WIDTHS[self.precision]


@dataclass(frozen=True)
class Memory:
    """Peak memory by part, in bytes, at the moment that holds most.

    Args:
        process: Python, torch and hairpin themselves.
        weights, gradients, moments: all float32.
        casts: 16-bit copies of weights for matrix products.
        activations: what forward passes keep for backward passes, and what a backward pass needs.
        logits: the head's products, their gradients, and the head's own gradient meanwhile.
        update: what the optimizer needs besides its moments.
        snapshot: the copy of weights and moments from which a checkpoint is written; on the host.
        unused: holes between blocks that the allocator keeps.
    """

    process: int
    weights: int
    gradients: int
    moments: int
    casts: int
    activations: int
    logits: int
    update: int
    snapshot: int
    unused: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Return name → bytes."""
        return {name: int(getattr(self, name)) for name in self.__dataclass_fields__}


def peak_memory(job: Workload, *, saves: bool = True) -> Memory:
    """Return the memory at the moment of a run that holds most; on a GPU, the GPU's memory.

    Args:
        job: the run's settings.
        saves: checkpoints are saved during the run; False: it is only timed.
    """
    most = max(_moments(job), key=lambda memory: memory.total)
    if not saves:
        plots = 0 if job.device == "cuda" else PLOTS_BYTES
        most = replace(most, snapshot=0, process=most.process - plots)
    is_measured = job.device != "cuda" and job.shape.is_built_in
    unused = UNUSED_SHARE[job.shape.traits.norm] if is_measured else 0.0
    return replace(most, unused=int(unused * (most.activations + most.logits + most.update)))


def _moments(job: Workload) -> list[Memory]:
    """Return the memory at the end of a forward pass, at the start of its backward pass, and in an
    optimizer step.
    """
    shape, device = job.shape, job.device
    weights = weight_bytes(shape)
    lasting = {
        "process": CUDA_CONTEXT_BYTES if device == "cuda" else PROCESS_BYTES + PLOTS_BYTES,
        "weights": weights,
        "moments": moment_bytes(shape, job.optimizer),
        "snapshot": 0 if device == "cuda" else weights + moment_bytes(shape, job.optimizer),
    }
    kept = activation_bytes(job)
    chunk, head = logit_bytes(job), head_gradient_bytes(job)
    casts = cast_bytes(job)
    accumulated = weights if job.micro_steps > 1 else 0
    forward = Memory(
        **lasting, gradients=accumulated, casts=casts, activations=kept,
        logits=chunk + head + _head_cast_bytes(job), update=0,
    )  # fmt: skip
    backward = Memory(
        **lasting, gradients=accumulated, casts=casts,
        activations=kept + _backward_bytes(job),
        logits=_FLOAT32 * (shape.vocabulary + job.tokens) * shape.width, update=0,
    )  # fmt: skip
    step = Memory(
        **lasting, gradients=weights, casts=0, activations=0, logits=0, update=step_bytes(job)
    )
    return [forward, backward, step]


def moment_bytes(shape: Shape, optimizer: str) -> int:
    """Return the moments' size; a plugin's optimizer counts as AdamW."""
    kind = OPTIMIZERS.get(optimizer, OPTIMIZERS["adamw"])
    in_blocks = kind.moments if kind.block_moments is None else kind.block_moments
    total, matrices = count_parameters(shape).total, matrix_parameters(shape)
    return _FLOAT32 * (kind.moments * (total - matrices) + in_blocks * matrices)


def least_bytes(shape: Shape, optimizer: str) -> int:
    """Return what training holds for any batch: float32 weights, gradients and moments."""
    return 2 * weight_bytes(shape) + moment_bytes(shape, optimizer)


def weight_bytes(shape: Shape) -> int:
    """Return the size of the float32 weights."""
    return _FLOAT32 * count_parameters(shape).total


def cast_bytes(job: Workload) -> int:
    """Return the size of the blocks' matrices as autocast keeps them for an update."""
    return matrix_parameters(job.shape) * job.number_bytes if job.number_bytes < _FLOAT32 else 0


def activation_bytes(job: Workload) -> int:
    """Return what a micro-batch's forward pass keeps, without the head.

    Products' inputs are in their format. Every block keeps the norm's output, q, k and v, the
    heads' output and the second norm's output, 6·C numbers a token; and the MLP's inner numbers
    before and after its nonlinearity, two or, gated, three times. LayerNorms keep the stream before
    each as well, 2·C in float32. RMSNorms keep their output alone; with weights, before and after
    those: 2·C more, and as many for queries and keys. Attention keeps its probabilities while they
    are small (never on a GPU, whose kernels recompute them).
    """
    shape, number, traits = job.shape, job.number_bytes, job.shape.traits
    keeps_stream = traits.norm == "layer norm" and shape.is_built_in
    stream = 2 * _FLOAT32 * shape.width if keeps_stream else 0
    weighted = (4 if traits.norms_heads else 2) if traits.norm == "weighted rms" else 0
    norms = weighted * number * shape.width
    inner = shape.mlp_matrices * shape.inner * number
    block = 6 * number * shape.width + inner + stream + norms
    if shape.dropout:  # its factors; on a CPU attention, with q, k and v, is then in float32
        block += (2 * number + 3 * (_FLOAT32 - number)) * shape.width
    # The embedding's norm or sum and the last norm; the embedding's dropout.
    outside = (number + _FLOAT32 * (2 if shape.dropout else 1)) * shape.width
    if job.recomputes:  # the stream before each block, and one recomputed block
        kept = shape.layers * _FLOAT32 * shape.width
        return job.tokens * (kept + block + outside) + probability_bytes(job)
    return job.tokens * (shape.layers * block + outside) + shape.layers * probability_bytes(job)


def probability_bytes(job: Workload) -> int:
    """Return what a layer's attention keeps of its probabilities."""
    shape, rows = job.shape, job.micro_batch * job.shape.heads
    square = rows * shape.context**2 * job.number_bytes
    if job.device == "cuda":
        return 0
    if shape.dropout:  # PyTorch's, in float32: before and after dropout, and its factors
        return 3 * rows * shape.context**2 * _FLOAT32
    if square > KEPT_PROBABILITY_BYTES:
        return 0
    starts = range(0, shape.context, ATTENTION_BLOCK)
    ends = [min(start + ATTENTION_BLOCK, shape.context) for start in starts]
    pairs = sum((end - start) * end for start, end in zip(starts, ends, strict=True))
    return rows * pairs * job.number_bytes


def logit_bytes(job: Workload) -> int:
    """Return the size of the logits and what is derived from them: on a CPU for as many rows as fit
    in 128 MiB of float32, on a GPU for all.
    """
    shape, number = job.shape, job.number_bytes
    width = -(-shape.vocabulary // ROW_NUMBERS) * ROW_NUMBERS
    is_capped = shape.traits.softcap is not None
    if job.device == "cuda":  # logits, float32 logits, their log-softmax, its gradient; the cap's
        return job.tokens * width * (2 * number + 3 * _FLOAT32 + (2 * number if is_capped else 0))
    rows = min(job.tokens, max(64, LOGIT_CHUNK_BYTES // (_FLOAT32 * shape.vocabulary)))
    if is_capped:  # logits; sigmoids, probabilities and gradients in float32
        chunk = rows * width * (number + 3 * _FLOAT32)
    elif number == _FLOAT32:  # in place
        chunk = rows * width * number
    else:  # logits, a float32 copy, and their probabilities
        chunk = rows * width * (number + 2 * _FLOAT32)
    # oneDNN keeps a copy of its 16-bit operands: the head's gradient takes most.
    scratch = rows * min(width, PRODUCT_ROWS) * number if number < _FLOAT32 else 0
    return chunk + scratch


def head_gradient_bytes(job: Workload) -> int:
    """Return the size of the head's gradients by weight and input, computed with the logits."""
    shape = job.shape
    return (shape.vocabulary + job.tokens) * shape.width * job.number_bytes


def step_bytes(job: Workload) -> int:
    """Return what an optimizer step needs. For Muon, at query, key and value, 3·L matrices of C²:
    the momentum three times (as pieces, as one stack, normalised), and five stacks of Gram
    matrices; with a gated MLP at its two input matrices, which are updated together. Fused AdamW
    needs nothing.
    """
    shape = job.shape
    if job.optimizer not in OPTIMIZERS or not OPTIMIZERS[job.optimizer].stacks_matrices:
        return 0
    if shape.traits.gated:
        matrices, rows = 2 * shape.layers, shape.inner
    else:
        matrices, rows = 3 * shape.layers, shape.width
    return _FLOAT32 * matrices * (3 * rows + 5 * shape.width) * shape.width


def _head_cast_bytes(job: Workload) -> int:
    number = job.number_bytes
    return job.shape.vocabulary * job.shape.width * number if number < _FLOAT32 else 0


def _backward_bytes(job: Workload) -> int:
    """Return the size of the gradients inside the last block: of its MLP's inner numbers before and
    after the nonlinearity, and of the stream.
    """
    shape = job.shape
    return job.tokens * (
        shape.mlp_matrices * shape.inner * job.number_bytes + _FLOAT32 * shape.width
    )
