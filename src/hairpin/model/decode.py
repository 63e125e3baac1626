"""Generation of one token at a time on a CPU: `GPT.hidden` and `GPT.project` for a single row.

The next token's scores need every weight once, so the time goes into reading the weights and, in
small models, into calling PyTorch. `model/products` has the products; this module does the minimum
between them.

Shape suffixes: C width, H heads, D width of a head, S positions, V vocabulary, N twice the layers.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.gpt import GPT
from hairpin.model.layers import Block, LayerCache
from hairpin.model.modern import EPSILON, ModernBlock, Rotation, rotate
from hairpin.model.products import (
    MakeProduct,
    Precision,
    Product,
    product_maker,
    refuse,
    without_onednn,
)
from hairpin.model.qwen3 import Qwen3Block, WeightedNorm


class Cache(list[LayerCache]):
    """A `LayerCache` for each block, all of them views of one tensor.

    The views of what a token adds to every layer, and of all that every layer sees, are made in one
    call each.

    Args:
        model: the model whose keys and values it stores, for a whole context.
    """

    def __init__(self, model: GPT) -> None:
        shape = model.shape
        size = (2 * shape.layers, 1, shape.heads, shape.context, shape.width // shape.heads)
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
        refuse(precision, model.token_embedding.weight.device.type)
        product = product_maker(precision)
        self._model = model
        self._precision = precision
        self._token_VC = model.token_embedding.weight.detach()
        self._softcap = model.softcap
        self._head: Product = product(model.head_weight, None)
        self._architecture = model.shape.architecture
        self._norm: Callable[[Tensor], Tensor]
        self._blocks: Sequence[_Step]
        if self._architecture == "modern":
            self._rotary = model.rotary
            self._norm = _rms_norm
            self._blocks = [_ModernStep(cast(ModernBlock, b), product) for b in model.blocks]
        elif self._architecture == "qwen3":
            self._rotary = model.rotary
            self._norm = _WeightedNorm(cast(WeightedNorm, model.final_norm))
            self._blocks = [_Qwen3Step(cast(Qwen3Block, b), product) for b in model.blocks]
        else:
            self._position_TC = model.position_embedding.weight.detach()
            self._norm = _Norm(cast(nn.LayerNorm, model.final_norm))
            self._blocks = [_GPT2Step(cast(Block, b), product) for b in model.blocks]

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
        x_C, rotation = self._token_VC[token], None
        if self._architecture == "gpt2":
            x_C = x_C + self._position_TC[position]
        else:
            x_C = _rms_norm(x_C) if self._architecture == "modern" else x_C.clone()
            rotation = self._rotary.at(position, 1)
        new, seen = cache.make_room()
        with without_onednn() if self._precision == "bfloat16" else nullcontext():
            for index, step in enumerate(self._blocks):
                step(x_C, rotation, new[index], seen[2 * index], seen[2 * index + 1])
            logits_V = self._head(self._norm(x_C))
        if self._softcap is None:
            return logits_V
        return logits_V.div_(self._softcap).tanh_().mul_(self._softcap)


def fits(model: nn.Module) -> bool:
    """Return True if a decoder computes the same as the model itself, faster."""
    if type(model) is not GPT:  # a subclass may behave differently
        return False
    weight = model.token_embedding.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def lay_out(model: GPT) -> GPT:
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


class _Norm:
    """LayerNorm of one row."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.epsilon = norm.normalized_shape, norm.eps
        self.weight_C = norm.weight.detach()
        self.bias_C = None if norm.bias is None else norm.bias.detach()

    def __call__(self, x_C: Tensor) -> Tensor:
        return torch.layer_norm(x_C, self.shape, self.weight_C, self.bias_C, self.epsilon)


def _rms_norm(x_C: Tensor) -> Tensor:
    """Apply `modern.rms_norm` to one row: its single scale is a Python number."""
    mean_square = float(torch.dot(x_C, x_C)) / x_C.numel()
    return x_C * float((mean_square + EPSILON) ** -0.5)


class _WeightedNorm:
    """`qwen3.weighted_norm` for one row."""

    def __init__(self, norm: WeightedNorm) -> None:
        self.weight_C = norm.weight.detach()

    def __call__(self, x_C: Tensor) -> Tensor:
        return _rms_norm(x_C).mul_(self.weight_C)


def _norm_heads(x: Tensor) -> Tensor:
    """Apply `modern.rms_norm` without what a gradient would need."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    out: Tensor = x * norm.square_().div_(x.size(-1)).add_(EPSILON).rsqrt_()
    return out


class _Step:
    """A block for one row.

    Args:
        block: a block of any architecture.
        product: makes the products of its weights.
    """

    def __init__(self, block: Block | ModernBlock | Qwen3Block, product: MakeProduct) -> None:
        self.heads = block.attention.heads
        self.query_key_value, self.attended, self.expand, self.output = (
            product(linear.weight, linear.bias)
            for linear in (
                block.attention.query_key_value,
                block.attention.output,
                block.mlp.expand,
                block.mlp.output,
            )
        )

    def __call__(
        self, x_C: Tensor, rotation: Any, new_21H1D: Tensor, keys_1HSD: Tensor, values_1HSD: Tensor
    ) -> None:
        """Add to the residual stream, and write the new keys and values, in place."""
        raise NotImplementedError


class _GPT2Step(_Step):
    """`layers.Block` for one row."""

    def __init__(self, block: Block, product: MakeProduct) -> None:
        super().__init__(block, product)
        self.attention_norm, self.mlp_norm = _Norm(block.attention_norm), _Norm(block.mlp_norm)

    def __call__(
        self, x_C: Tensor, rotation: None, new_21H1D: Tensor, keys_1HSD: Tensor, values_1HSD: Tensor
    ) -> None:
        qkv_31H1D = self.query_key_value(self.attention_norm(x_C)).view(3, 1, self.heads, 1, -1)
        new_21H1D.copy_(qkv_31H1D[1:])
        y_1H1D = F.scaled_dot_product_attention(qkv_31H1D[0], keys_1HSD, values_1HSD)
        x_C += self.attended(y_1H1D.view(-1))
        x_C += self.output(F.gelu(self.expand(self.mlp_norm(x_C)), approximate="tanh"))


class _ModernStep(_Step):
    """`modern.ModernBlock` for one row."""

    def __call__(
        self,
        x_C: Tensor,
        rotation: Rotation,
        new_21H1D: Tensor,
        keys_1HSD: Tensor,
        values_1HSD: Tensor,
    ) -> None:
        qkv_31H1D = self.query_key_value(_rms_norm(x_C)).view(3, 1, self.heads, 1, -1)
        q_1H1D, k_1H1D = _norm_heads(rotate(qkv_31H1D[:2], rotation))
        new_21H1D[0] = k_1H1D
        new_21H1D[1] = qkv_31H1D[2]
        y_1H1D = F.scaled_dot_product_attention(q_1H1D, keys_1HSD, values_1HSD)
        x_C += self.attended(y_1H1D.view(-1))
        x_C += self.output(F.relu(self.expand(_rms_norm(x_C))).square_())


class _Qwen3Step(_Step):
    """`qwen3.Qwen3Block` for one row."""

    def __init__(self, block: Qwen3Block, product: MakeProduct) -> None:
        super().__init__(block, product)
        self.attention_norm = _WeightedNorm(block.attention_norm)
        self.mlp_norm = _WeightedNorm(block.mlp_norm)
        self.gate = product(block.mlp.gate.weight, None)
        attention = block.attention
        self.norms = (attention.query_norm.weight.detach(), attention.key_norm.weight.detach())

    def __call__(
        self,
        x_C: Tensor,
        rotation: Rotation,
        new_21H1D: Tensor,
        keys_1HSD: Tensor,
        values_1HSD: Tensor,
    ) -> None:
        qkv_31H1D = self.query_key_value(self.attention_norm(x_C)).view(3, 1, self.heads, 1, -1)
        q_1H1D, k_1H1D = _norm_heads(qkv_31H1D[:2])
        new_21H1D[0] = rotate(k_1H1D * self.norms[1], rotation)
        new_21H1D[1] = qkv_31H1D[2]
        y_1H1D = F.scaled_dot_product_attention(
            rotate(q_1H1D * self.norms[0], rotation), keys_1HSD, values_1HSD
        )
        x_C += self.attended(y_1H1D.view(-1))
        normed_C = self.mlp_norm(x_C)
        x_C += self.output(F.silu(self.gate(normed_C)).mul_(self.expand(normed_C)))
