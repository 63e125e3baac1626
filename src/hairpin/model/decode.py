"""One token at a time on a CPU: what `GPT.hidden` and `GPT.project` do, for one row.

The next token's scores need every weight once, so that the time goes into reading the weights and,
in small models, into calling PyTorch. Here a product is one matrix times one vector into memory
that is there already, and the weights can be read in eight bits.

Shape suffixes: C width, H heads, D width of a head, V vocabulary, I inputs, O outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.errors import ConfigError
from hairpin.model.gpt import GPT
from hairpin.model.layers import Block, LayerCache
from hairpin.model.modern import EPSILON, ModernBlock, Rotation, rotate

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Product = Callable[[Tensor], Tensor]  # [I] → [O], which the next call may overwrite
MakeProduct = Callable[[Tensor, Tensor | None], Product]  # of a weight [O, I] and a bias


class Decoder:
    """A model's scores of the next token, one token after the other.

    With "float32" it holds the model's own weights, not copies: making one costs nothing, and it
    always writes with the weights as they are. The other formats are copies, of then.

    Args:
        model: on a CPU, in float32.
        precision: of the weights in products; "int8" is a scale for each output and whole numbers
            up to 127, by which the inputs, rounded in the same way, are multiplied exactly.

    Raises:
        ConfigError: this processor's or device's products cannot be had in that format.
    """

    def __init__(self, model: GPT, precision: Precision = "float32") -> None:
        refuse(precision, model.token_embedding.weight.device.type)
        products: dict[str, MakeProduct] = {"float32": _Plain, "bfloat16": _Half, "int8": _Rounded}
        product = products[precision]
        self._token_VC = model.token_embedding.weight.detach()
        self._softcap = model.softcap
        self._head: Product = product(model.head_weight, None)
        self._is_modern = model.shape.architecture == "modern"
        self._blocks: Sequence[Callable[[Tensor, LayerCache, Any], None]]
        if self._is_modern:
            self._rotary = model.rotary
            self._blocks = [_ModernStep(cast(ModernBlock, b), product) for b in model.blocks]
        else:
            self._position_TC = model.position_embedding.weight.detach()
            self._blocks = [_GPT2Step(cast(Block, b), product) for b in model.blocks]
            self._norm = _Norm(cast(nn.LayerNorm, model.final_norm))

    @torch.no_grad()
    def logits(self, token: int, cache: Sequence[LayerCache]) -> Tensor:
        """Scores of what follows `token`, [V], which the next call may overwrite.

        Args:
            token: id of the newest token.
            cache: of all before it; it is extended.
        """
        position = cache[0].length
        if self._is_modern:
            x_C, rotation = _rms_norm(self._token_VC[token]), self._rotary.at(position, 1)
        else:
            x_C, rotation = self._token_VC[token] + self._position_TC[position], None
        for step, seen in zip(self._blocks, cache, strict=True):
            step(x_C, seen, rotation)
        logits_V = self._head(_rms_norm(x_C) if self._is_modern else self._norm(x_C))
        if self._softcap is None:
            return logits_V
        return logits_V.div_(self._softcap).tanh_().mul_(self._softcap)


def refuse(precision: str, device: str) -> None:
    """Raise if a device, or this processor, has no products of one row in that format.

    Raises:
        ConfigError: it has not.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision != "float32" and device != "cpu":
        raise ConfigError(f"precision: {precision} is for writing on a CPU, not on {device}")
    if precision == "int8" and not _eight_bits_are_exact():
        raise ConfigError("precision: this processor's int8 products overflow; take bfloat16")


def fits(model: nn.Module) -> bool:
    """Whether a decoder does just what the model itself does, faster."""
    if type(model) is not GPT:  # a class of its own may do anything
        return False
    weight = model.token_embedding.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def lay_out(model: GPT) -> GPT:
    """Arrange a model's weights in memory as products of one row read them fastest.

    What has more outputs than inputs is stored by inputs. Shapes and values stay; the tensors are
    no longer contiguous, so this is for a model that only writes.
    """
    matrices = {model.head_weight, *(p for b in model.blocks for p in b.parameters())}
    for parameter in matrices:
        if parameter.dim() == 2 and parameter.size(0) > parameter.size(1):
            assert isinstance(parameter, nn.Parameter)
            parameter.data = parameter.data.t().contiguous().t()
    return model


class _Plain:
    """A product in the model's own format, from its own weights."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self.weight_OI = weight_OI.detach()
        self.bias_O = None if bias_O is None else bias_O.detach()
        self.out_O = weight_OI.new_empty(weight_OI.size(0))

    def __call__(self, x_I: Tensor) -> Tensor:
        if self.bias_O is None:
            return torch.mv(self.weight_OI, x_I, out=self.out_O)
        return torch.addmv(self.bias_O, self.weight_OI, x_I, out=self.out_O)


class _Half:
    """A product of weights and inputs in bfloat16; its bias and its sum are float32."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self.weight_OI = weight_OI.detach().bfloat16()
        self.bias_O = None if bias_O is None else bias_O.detach().clone()

    def __call__(self, x_I: Tensor) -> Tensor:
        out_O = torch.mv(self.weight_OI, x_I.bfloat16()).float()
        return out_O if self.bias_O is None else out_O.add_(self.bias_O)


class _Rounded:
    """A product of whole numbers up to 127: weights with a scale per output, inputs with one."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        weight_OI = weight_OI.detach()
        self.scale_O = _scale(torch.linalg.vector_norm(weight_OI, torch.inf, dim=1))
        rounded_OI = (weight_OI / self.scale_O[:, None]).round_().to(torch.int8)
        self.weight_IO = rounded_OI.t()
        self.bias_O = None if bias_O is None else bias_O.detach().clone()

    def __call__(self, x_I: Tensor) -> Tensor:
        scale = _scale(torch.linalg.vector_norm(x_I, torch.inf))
        rounded_1I = (x_I / scale).round_().to(torch.int8).unsqueeze(0)
        sum_O = torch._int_mm(rounded_1I, self.weight_IO).squeeze(0)
        if self.bias_O is None:
            return (self.scale_O * scale).mul_(sum_O)
        return torch.addcmul(self.bias_O, self.scale_O * scale, sum_O)


def _scale(largest: Tensor) -> Tensor:
    """What the largest magnitudes are divided by to be 127; zeros stay zeros."""
    return largest.clamp_min_(torch.finfo(torch.float32).tiny * 127).div_(127)


def _eight_bits_are_exact() -> bool:
    """Whether the largest sums come out: some processors cap sums of pairs at sixteen bits."""
    rows = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(rows[:1], rows.t()) == 127 * 127 * 64).all())


class _Norm:
    """LayerNorm of one row."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.epsilon = norm.normalized_shape, norm.eps
        self.weight_C = norm.weight.detach()
        self.bias_C = None if norm.bias is None else norm.bias.detach()

    def __call__(self, x_C: Tensor) -> Tensor:
        return F.layer_norm(x_C, self.shape, self.weight_C, self.bias_C, self.epsilon)


def _rms_norm(x: Tensor) -> Tensor:
    """As `modern.rms_norm`, without what a gradient would need."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    out: Tensor = x * norm.square_().div_(x.size(-1)).add_(EPSILON).rsqrt_()
    return out


def _attend(q_HD: Tensor, k_HD: Tensor, v_HD: Tensor, cache: LayerCache) -> Tensor:
    """What one position takes from itself and all before it, [C]; the cache is extended."""
    keys_1HSD, values_1HSD = cache.append(k_HD[None, :, None], v_HD[None, :, None])
    y_1H1D = F.scaled_dot_product_attention(q_HD[None, :, None], keys_1HSD, values_1HSD)
    return y_1H1D.view(-1)


class _GPT2Step:
    """`layers.Block` for one row."""

    def __init__(self, block: Block, product: Callable[[Tensor, Tensor | None], Product]) -> None:
        self.heads = block.attention.heads
        self.attention_norm, self.mlp_norm = _Norm(block.attention_norm), _Norm(block.mlp_norm)
        self.query_key_value, self.attended, self.expand, self.output = (
            product(linear.weight, linear.bias)
            for linear in (
                block.attention.query_key_value,
                block.attention.output,
                block.mlp.expand,
                block.mlp.output,
            )
        )

    def __call__(self, x_C: Tensor, cache: LayerCache, rotation: None = None) -> None:
        """Add to the residual stream, in place."""
        q_HD, k_HD, v_HD = self.query_key_value(self.attention_norm(x_C)).view(3, self.heads, -1)
        x_C += self.attended(_attend(q_HD, k_HD, v_HD, cache))
        x_C += self.output(F.gelu(self.expand(self.mlp_norm(x_C)), approximate="tanh"))


class _ModernStep:
    """`modern.ModernBlock` for one row."""

    def __init__(
        self, block: ModernBlock, product: Callable[[Tensor, Tensor | None], Product]
    ) -> None:
        self.heads = block.attention.heads
        self.query_key_value = product(block.attention.query_key_value.weight, None)
        self.attended = product(block.attention.output.weight, None)
        self.expand = product(block.mlp.expand.weight, None)
        self.output = product(block.mlp.output.weight, None)

    def __call__(self, x_C: Tensor, cache: LayerCache, rotation: Rotation) -> None:
        """Add to the residual stream, in place."""
        qkv_3HD = self.query_key_value(_rms_norm(x_C)).view(3, self.heads, -1)
        q_HD, k_HD = _rms_norm(rotate(qkv_3HD[:2], rotation))
        x_C += self.attended(_attend(q_HD, k_HD, qkv_3HD[2], cache))
        x_C += self.output(F.relu(self.expand(_rms_norm(x_C))).square_())
