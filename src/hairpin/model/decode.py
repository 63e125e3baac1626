"""Generation of one token at a time on a CPU: `GPT.hidden` and `GPT.project` for a single row.

The next token's scores need every weight once, so the time goes into reading the weights and, in
small models, into calling PyTorch. `model/products` has the products; this module does the minimum
between them.

Shape suffixes: C width, H heads, D width of a head, S positions, V vocabulary, N twice the layers.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.architectures import Traits
from hairpin.model.gpt import GPT, Block
from hairpin.model.kernels.attention import LayerCache
from hairpin.model.kernels.norms import RMSNorm, inverse_root_mean_square
from hairpin.model.kernels.rotary import Rotation, rotate
from hairpin.model.products import (
    MakeProduct,
    Precision,
    Product,
    product_maker,
    require_supported,
    without_onednn,
)

Norm = Callable[[Tensor], Tensor]  # of one row, [C] → [C]


class Cache(list[LayerCache]):
    """A `LayerCache` for each block, all of them views of one tensor.

    The views of what a token adds to every layer, and of all that every layer sees, are made in one
    call each.

    Args:
        model: the model whose keys and values it stores, for a whole context.
    """

    def __init__(self, model: GPT) -> None:
        shape = model.shape
        size = (2 * shape.layers, 1, shape.heads, shape.context, shape.head_width)
        self.all_N1HSD = model.token_embedding.weight.new_zeros(size)
        super().__init__(map(LayerCache, self.all_N1HSD[::2], self.all_N1HSD[1::2]))

    def make_room(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Extend every layer by one position.

        Returns:
            For each layer the place of its new key and value, [2, 1, H, 1, D]; and for each layer
            all keys, [1, H, S, D], and then all values, including the new ones.
        """
        start = self[0].length
        for layer in self:
            layer.length = start + 1
        new_N1H1D = self.all_N1HSD.narrow(3, start, 1)
        return new_N1H1D.chunk(len(self)), self.all_N1HSD.narrow(3, 0, start + 1).unbind()


class Decoder:
    """Compute a model's scores of the next token, one token after the other.

    With "float32" it uses the model's own weights, not copies: making one costs nothing, and it
    always generates with the current weights. The other formats are copies made at construction.

    Args:
        model: on a CPU, in float32.
        precision: of the weights in products.

    Raises:
        ConfigError: this processor or device does not support products in that format.
    """

    def __init__(self, model: GPT, precision: Precision = "float32") -> None:
        require_supported(precision, model.token_embedding.weight.device.type)
        product = product_maker(precision)
        self._model = model
        self._precision = precision
        self._token_VC = model.token_embedding.weight.detach()
        self._traits = traits = model.traits
        self._head: Product = product(model.head_weight, None)
        self._norm = _norm_of(model.final_norm)
        self._blocks = [_Step(cast(Block, block), traits, product) for block in model.blocks]
        self._rotary = model.rotary if traits.rotary else None
        self._position_TC = None if traits.rotary else model.position_embedding.weight.detach()

    def empty_cache(self) -> Cache:
        """Return an empty cache for the keys and values of a whole context."""
        return Cache(self._model)

    @torch.inference_mode()
    def logits(self, token: int, cache: Cache) -> Tensor:
        """Return the scores after `token`, [V], an inference tensor that the next call may reuse.

        Args:
            token: ID of the newest token.
            cache: of all tokens before it; it is extended.
        """
        position = cache[0].length
        traits, rotation = self._traits, None
        x_C = self._token_VC[token]
        if self._position_TC is not None:
            x_C = x_C + self._position_TC[position]
        if self._rotary is not None:
            rotation = self._rotary.at(position, 1)
        if traits.norms_embedding:
            x_C = _rms_norm(x_C, traits.epsilon)
        elif self._position_TC is None:
            x_C = x_C.clone()  # blocks add to it in place
        new, seen = cache.make_room()
        with without_onednn() if self._precision == "bfloat16" else nullcontext():
            for index, step in enumerate(self._blocks):
                step(x_C, rotation, new[index], seen[2 * index], seen[2 * index + 1])
            logits_V = self._head(self._norm(x_C))
        if traits.softcap is None:
            return logits_V
        return logits_V.div_(traits.softcap).tanh_().mul_(traits.softcap)


def fits(model: nn.Module) -> bool:
    """Return True if a decoder computes the same as the model itself, faster."""
    if type(model) is not GPT:  # a subclass may behave differently
        return False
    weight = model.token_embedding.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def prepare_weights(model: GPT) -> GPT:
    """Arrange a model's weights in memory for the fastest float32 products of one row.

    Matrices with at least as many outputs as inputs are stored by inputs. Shapes and values stay;
    the tensors are no longer contiguous, so this is for a model that only generates.
    """
    matrices = {model.head_weight, *(p for b in model.blocks for p in b.parameters())}
    for parameter in matrices:
        if parameter.dim() == 2 and parameter.size(0) >= parameter.size(1):
            assert isinstance(parameter, nn.Parameter)
            parameter.data = parameter.data.t().contiguous().t()
    return model


def _norm_of(norm: nn.Module) -> Norm:
    """Return a norm for one row: its single scale is a Python number."""
    if isinstance(norm, RMSNorm):
        epsilon, weight = norm.epsilon, norm.weight
        if weight is None:
            return lambda x_C: _rms_norm(x_C, epsilon)
        weight_C = weight.detach()
        return lambda x_C: _rms_norm(x_C, epsilon).mul_(weight_C)
    assert isinstance(norm, nn.LayerNorm)
    shape, eps, layer_weight_C = norm.normalized_shape, norm.eps, norm.weight.detach()
    bias_C = None if norm.bias is None else norm.bias.detach()
    return lambda x_C: torch.layer_norm(x_C, shape, layer_weight_C, bias_C, eps)


def _rms_norm(x_C: Tensor, epsilon: float) -> Tensor:
    mean_square = float(torch.dot(x_C, x_C)) / x_C.numel()
    return x_C * float((mean_square + epsilon) ** -0.5)


class _Step:
    """A block for one row.

    Args:
        block: of the model.
        traits: of its architecture.
        product: makes the products of its weights.
    """

    def __init__(self, block: Block, traits: Traits, product: MakeProduct) -> None:
        attention, mlp = block.attention, block.mlp
        self.heads, self.traits = attention.heads, traits
        self.query_key_value, self.attended, self.expand, self.output = (
            product(linear.weight, linear.bias)
            for linear in (attention.query_key_value, attention.output, mlp.expand, mlp.output)
        )
        self.gate = product(mlp.gate.weight, mlp.gate.bias) if traits.gated else None
        self.attention_norm = _norm_of(block.attention_norm)
        self.mlp_norm = _norm_of(block.mlp_norm)
        self.head_weights: tuple[Tensor, ...] = ()  # of the norms of query and key
        if traits.norms_heads and traits.norm != "rms":
            norms = (attention.query_norm, attention.key_norm)
            self.head_weights = tuple(cast(Tensor, norm.weight).detach() for norm in norms)

    def __call__(
        self,
        x_C: Tensor,
        rotation: Rotation | None,
        new_21H1D: Tensor,
        keys_1HSD: Tensor,
        values_1HSD: Tensor,
    ) -> None:
        """Add to the residual stream, and write the new keys and values, in place."""
        qkv_31H1D = self.query_key_value(self.attention_norm(x_C)).view(3, 1, self.heads, 1, -1)
        if rotation is None:
            q_1H1D = qkv_31H1D[0]
            new_21H1D.copy_(qkv_31H1D[1:])
        else:
            q_1H1D, new_21H1D[0] = self._rotated(qkv_31H1D[:2], rotation)
            new_21H1D[1] = qkv_31H1D[2]
        y_1H1D = F.scaled_dot_product_attention(q_1H1D, keys_1HSD, values_1HSD)
        x_C += self.attended(y_1H1D.view(-1))
        x_C += self.output(self._inner(self.mlp_norm(x_C)))

    def _rotated(self, qk_21H1D: Tensor, rotation: Rotation) -> Tensor:
        """Return the query and the key, rotated and normalised."""
        norms = self.traits.norms_heads
        if norms == "before rotation":
            qk_21H1D = self._norm_heads(qk_21H1D)
        qk_21H1D = rotate(qk_21H1D, rotation)
        return self._norm_heads(qk_21H1D) if norms == "after rotation" else qk_21H1D

    def _norm_heads(self, qk_21H1D: Tensor) -> Tensor:
        qk_21H1D = qk_21H1D * inverse_root_mean_square(qk_21H1D, self.traits.epsilon)
        if self.head_weights:
            for part_1H1D, weight_D in zip(qk_21H1D, self.head_weights, strict=True):
                part_1H1D.mul_(weight_D)
        return qk_21H1D

    def _inner(self, x_C: Tensor) -> Tensor:
        """Return the inner numbers of the MLP."""
        if self.gate is not None:
            return F.silu(self.gate(x_C)).mul_(self.expand(x_C))
        if self.traits.mlp == "squared relu":
            return F.relu(self.expand(x_C)).square_()
        return F.gelu(self.expand(x_C), approximate="tanh")
