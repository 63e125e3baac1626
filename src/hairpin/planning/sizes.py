"""The cost of a run on paper: parameters, floating-point operations, memory.

Never imports torch, so that a plan takes no time.
"""

from dataclasses import dataclass

from hairpin.model.shape import Shape

# Tokens in one forward pass beyond which nothing is gained: on a CPU larger passes exceed the
# caches, on a GPU this many fill the chip.
_BEST_MICRO_BATCH_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 65_536}


@dataclass(frozen=True)
class Parameters:
    """Parameter counts by part."""

    token_embedding: int
    position_embedding: int
    blocks: int
    final_norm: int
    head: int

    @property
    def total(self) -> int:
        """The sum, with tied weights counted once."""
        return (
            self.token_embedding
            + self.position_embedding
            + self.blocks
            + self.final_norm
            + self.head
        )


def count_parameters(shape: Shape) -> Parameters:
    """Count the parameters of a GPT of this shape."""
    c = shape.width
    traits, has_weights = shape.traits, shape.traits.norm != "rms"
    norm = (2 * c if shape.bias else c) if has_weights else 0
    head_norms = 2 * shape.head_width if traits.norms_heads and has_weights else 0
    linear = (3 * c if shape.qkv_bias else 0) + 2 * c + (shape.mlp_matrices - 1) * shape.inner
    biases = linear if shape.bias else 0
    return Parameters(
        token_embedding=shape.vocabulary * c,
        position_embedding=shape.context * c if traits.positions == "learned" else 0,
        blocks=matrix_parameters(shape) + shape.layers * (2 * norm + head_norms + biases),
        final_norm=norm,
        head=0 if shape.tied else shape.vocabulary * c,
    )


def matrix_parameters(shape: Shape) -> int:
    """Count the parameters in the matrices of all blocks: 12·C² each, 3·C² of them query, key and
    value; with SwiGLU nearly as many.
    """
    c = shape.width
    return shape.layers * (4 * c * c + shape.mlp_matrices * c * shape.inner)


def flops_per_token(shape: Shape) -> float:
    """Return the floating-point operations to train on one token: 6N + 12·L·C·T (PaLM, appendix B).

    N counts the parameters in matrix products: the blocks' matrices and the head once, not the
    embedding look-up. The second term is attention at context T; recomputation is never counted.
    """
    matrices = matrix_parameters(shape) + shape.vocabulary * shape.width
    return 6.0 * matrices + 12.0 * shape.layers * shape.width * shape.context


def state_bytes(shape: Shape) -> int:
    """Return the size of weights, gradients and two moments, all float32."""
    return 16 * count_parameters(shape).total


def activation_bytes_per_token(shape: Shape) -> int:
    """Return an upper bound on what a forward pass keeps for its backward pass, per token.

    A block keeps about 20 copies of its stream in float32 (norms, q, k, v, attention, the MLP's
    inner width twice); the head keeps logits, their log-softmax, the gradient and a 16-bit copy.
    """
    return shape.layers * 80 * shape.width + 14 * shape.vocabulary


def micro_batch_sequences(
    shape: Shape, samples_per_update: int, memory_bytes: float, device: str
) -> int:
    """Choose the sequences in one forward pass: as many as help, but no more than fit; at least 1.

    The number divides an update into equal passes, unless that would halve it: a smaller last pass
    underuses a GPU, and is not compiled.
    """
    room = memory_bytes - state_bytes(shape)
    fits = int(room / (activation_bytes_per_token(shape) * shape.context))
    helps = _BEST_MICRO_BATCH_TOKENS[device] // shape.context
    most = max(1, min(samples_per_update, fits, max(1, helps)))
    whole = next(count for count in range(most, 0, -1) if samples_per_update % count == 0)
    return whole if 2 * whole > most else most
