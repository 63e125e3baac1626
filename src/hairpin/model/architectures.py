"""The architectures of hairpin's networks: each is one record of traits (without torch).

Everything that differs between them is here: `model/gpt.py` builds the network that a record
describes, `planning/` counts its parameters and memory, `doctor/plain.py` computes it again in
plain operations, and weights are converted by the names below. To add an architecture, add a
record.

In all of them, keys and values have as many heads as queries, and the heads together are as wide as
the stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

# --- a network as transformers knows it ---


@dataclass(frozen=True)
class Size:
    """A size of the network in config.json; `name` is `Shape`'s."""

    name: str


@dataclass(frozen=True)
class Derived:
    """A value that follows from the sizes: an attribute of `Shape`. A config.json with another is
    refused. `implied`: null means that value, and is written.
    """

    name: str
    implied: bool = False


@dataclass(frozen=True)
class Fixed:
    """A setting that the network has in one way only; a config.json with another is refused.

    Args:
        value: it is written, and assumed where the key is missing.
        same: values that mean the same, or so nearly that it makes no difference.
        written: False: transformers' default is relied on.
    """

    value: Any
    same: tuple[Any, ...] = ()
    written: bool = True


@dataclass(frozen=True)
class Written:
    """A value that is written and never read: a constant, or a function of the `Shape`."""

    value: Any


Entry = Size | Derived | Fixed | Written


@dataclass(frozen=True)
class Transformers:
    """A network as transformers knows it, for both directions (`weights/transformers_weights.py`,
    `weights/model_config.py`).

    Args:
        name: of the kind of network, for display.
        class_name: of its language model.
        config: the entries of its config.json, beyond those that all networks have.
        prefix: of the names of tensors; a saved bare model lacks it.
        top: our name of a tensor outside the blocks → theirs, without ".weight" and ".bias".
        blocks: the start of names in a block.
        block: our name in a block → theirs; or three, if query, key and value are separate.
        transposed: linear layers are stored as [inputs, outputs].
        left_out: a pattern of the names of saved tensors that are no weights.
        other_heads: prefixes of the names of heads that are no part of a language model.
    """

    name: str
    class_name: str
    config: Mapping[str, Entry]
    prefix: str
    top: Mapping[str, str]
    blocks: str
    block: Mapping[str, str | tuple[str, str, str]]
    transposed: bool = False
    left_out: str = r".*rotary_emb\.inv_freq"
    other_heads: tuple[str, ...] = ()

    @property
    def model_type(self) -> str:
        """The kind of network in config.json."""
        entry = self.config["model_type"]
        assert isinstance(entry, Fixed)
        return str(entry.value)


# --- traits ---


@dataclass(frozen=True)
class RotaryTraits:
    """Rotary positions (Su et al. 2021): pair i of the halves of a head, D wide, is rotated by
    direction · position / base^(2i/D). Nearly all networks have the direction 1.
    """

    base: float = 10_000.0
    direction: Literal[1, -1] = 1


@dataclass(frozen=True)
class Traits:
    """Everything that distinguishes one architecture from another.

    Args:
        description: in a few words, for a model card.
        positions: a learned vector for each position; rotated queries and keys; or "unknown", a
            plugin's.
        norm: LayerNorm, or RMSNorm with or without weights (Zhang and Sennrich 2019): before each
            sublayer and before the head.
        epsilon: the norms' ε.
        norms_embedding: an RMSNorm without weights follows the embedding.
        norms_heads: where queries and keys are normalised, over the width of a head, by a norm like
            the others; None: nowhere.
        mlp: the nonlinearity; a swiglu has three matrices instead of two.
        initialisation: the distribution of initial weights; None: the settings choose. "identity"
            makes each block begin as the identity.
        softcap: c, if logits are c·tanh(logits / c).
        tied: the head is the embedding, unless the settings choose.
        options: settings of [model] that the architecture supports; it lacks the others.
        gguf: llama.cpp's name of the architecture; None: it has no such network.
    """

    description: str
    positions: Literal["learned", "unknown"] | RotaryTraits
    norm: Literal["layer norm", "rms", "weighted rms"]
    epsilon: float
    mlp: Literal["gelu", "squared relu", "swiglu"]
    norms_embedding: bool = False
    norms_heads: Literal["before rotation", "after rotation"] | None = None
    initialisation: Literal["identity"] | None = "identity"
    softcap: float | None = None
    tied: bool = False
    options: frozenset[str] = frozenset()
    gguf: str | None = None
    transformers: Transformers = field(kw_only=True)

    @property
    def rotary(self) -> RotaryTraits | None:
        """The rotation of queries and keys; None: there is none."""
        return self.positions if isinstance(self.positions, RotaryTraits) else None

    @property
    def gated(self) -> bool:
        """True if the MLP has a third matrix, whose products gate its inner numbers."""
        return self.mlp == "swiglu"


_EVERYTHING = frozenset(("bias", "qkv_bias", "tied", "dropout", "initialisation"))


def _dropout(shape: Any) -> float:
    return float(shape.dropout)


GPT2 = Traits(
    description="GPT-2's network",
    positions="learned",
    norm="layer norm",
    epsilon=1e-5,
    mlp="gelu",
    initialisation=None,
    tied=True,
    options=_EVERYTHING,
    gguf="gpt2",
    transformers=Transformers(
        name="GPT-2",
        class_name="GPT2LMHeadModel",
        config={
            "model_type": Fixed("gpt2"),
            "n_positions": Size("context"),
            "n_ctx": Written(lambda shape: shape.context),
            "n_embd": Size("width"),
            "n_layer": Size("layers"),
            "n_head": Size("heads"),
            "n_inner": Derived("inner", implied=True),
            "activation_function": Fixed("gelu_new", same=("gelu_pytorch_tanh",)),
            "layer_norm_epsilon": Fixed(1e-5),
            "embd_pdrop": Written(_dropout),
            "attn_pdrop": Written(_dropout),
            "resid_pdrop": Written(_dropout),
            "scale_attn_weights": Fixed(True, written=False),
            "scale_attn_by_inverse_layer_idx": Fixed(False, written=False),
            "reorder_and_upcast_attn": Fixed(False, written=False),
            "add_cross_attention": Fixed(False, written=False),
            "pruned_heads": Fixed({}, same=(None,), written=False),
        },
        prefix="transformer.",
        top={"token_embedding": "wte", "position_embedding": "wpe", "final_norm": "ln_f"},
        blocks="h",
        block={
            "attention_norm": "ln_1",
            "attention.query_key_value": "attn.c_attn",
            "attention.output": "attn.c_proj",
            "mlp_norm": "ln_2",
            "mlp.expand": "mlp.c_fc",
            "mlp.output": "mlp.c_proj",
        },
        transposed=True,
        left_out=r"h\.\d+\.attn\.(masked_)?bias",  # causal masks, in older versions
        other_heads=("score.", "classifier.", "multiple_choice_head."),
    ),
)


def _rope_theta(shape: Any) -> float:
    return float(shape.traits.rotary.base)


_RMS_EPSILON = 1e-6
# What networks like Llama's have in common in transformers.
_LLAMA_CONFIG: dict[str, Entry] = {
    "hidden_size": Size("width"),
    "intermediate_size": Derived("inner"),
    "num_hidden_layers": Size("layers"),
    "num_attention_heads": Size("heads"),
    "num_key_value_heads": Derived("heads"),
    "head_dim": Derived("head_width"),
    "max_position_embeddings": Size("context"),
    "rms_norm_eps": Fixed(_RMS_EPSILON),
    "attention_bias": Fixed(False),
    "attention_dropout": Written(0.0),
    "rope_parameters": Written(lambda s: {"rope_type": "default", "rope_theta": _rope_theta(s)}),
    "rope_theta": Written(_rope_theta),  # read by versions before 5
}
_LLAMA_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

MODERN = Traits(
    description="a modern network, NanoChat in transformers",
    positions=RotaryTraits(direction=-1),
    norm="rms",
    epsilon=_RMS_EPSILON,
    norms_embedding=True,
    norms_heads="after rotation",
    mlp="squared relu",
    softcap=15.0,  # Gemma 2, section 2
    transformers=Transformers(
        name="NanoChat",
        class_name="NanoChatForCausalLM",
        config={
            **_LLAMA_CONFIG,
            "head_dim": Written(lambda shape: shape.head_width),
            "model_type": Fixed("nanochat"),
            "hidden_act": Fixed("relu2"),
            "final_logit_softcapping": Fixed(15.0),
        },
        prefix="model.",
        top={"token_embedding": "embed_tokens"},
        blocks="layers",
        block={
            "attention.query_key_value": _LLAMA_QUERY_KEY_VALUE,
            "attention.output": "self_attn.o_proj",
            "mlp.expand": "mlp.fc1",
            "mlp.output": "mlp.fc2",
        },
    ),
)

# As transformers and llama.cpp compute it (Yang et al. 2025).
QWEN3 = Traits(
    description="Qwen3's network",
    positions=RotaryTraits(),
    norm="weighted rms",
    epsilon=_RMS_EPSILON,
    norms_heads="before rotation",
    mlp="swiglu",
    options=frozenset(("tied",)),
    gguf="qwen3",
    transformers=Transformers(
        name="Qwen3",
        class_name="Qwen3ForCausalLM",
        config={
            **_LLAMA_CONFIG,
            "model_type": Fixed("qwen3"),
            "hidden_act": Fixed("silu"),
            "use_sliding_window": Fixed(False),
            "sliding_window": Written(None),
            "max_window_layers": Written(lambda shape: shape.layers),
            "layer_types": Written(lambda shape: ["full_attention"] * shape.layers),
        },
        prefix="model.",
        top={"token_embedding": "embed_tokens", "final_norm": "norm"},
        blocks="layers",
        block={
            "attention_norm": "input_layernorm",
            "attention.query_key_value": _LLAMA_QUERY_KEY_VALUE,
            "attention.query_norm": "self_attn.q_norm",
            "attention.key_norm": "self_attn.k_norm",
            "attention.output": "self_attn.o_proj",
            "mlp_norm": "post_attention_layernorm",
            "mlp.gate": "mlp.gate_proj",
            "mlp.expand": "mlp.up_proj",
            "mlp.output": "mlp.down_proj",
        },
    ),
)

ARCHITECTURES: Mapping[str, Traits] = {"gpt2": GPT2, "modern": MODERN, "qwen3": QWEN3}

# A plugin's network is counted like GPT-2's without positions, and never converted.
PLUGIN = replace(GPT2, description="a plugin's network", positions="unknown", gguf=None)
