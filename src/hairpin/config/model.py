"""Settings of the network."""

from typing import Literal

from pydantic import Field

from hairpin.config.table import Fraction, Table


class Model(Table):
    """The shape of the network (Radford et al. 2019 names the GPT-2 sizes)."""

    architecture: str = Field(
        "gpt2",
        description="GPT-2's network; a modern one: RMSNorm without weights, rotary positions, "
        "norms of query and key, squared ReLU, a head of its own with capped logits (what "
        "transformers calls NanoChat); or Qwen3's: RMSNorm with weights, norms of query and key, "
        "rotary positions, SwiGLU, which more programs can run (docs/huggingface.md). Both want "
        "`bias` and `qkv_bias` off and no dropout, and `modern` also `tied`. Or what a plugin "
        "registers.",
    )
    size: str | None = Field(
        None,
        max_length=40,
        description="A named shape, from `tiny` to `gpt2-xl`, that fills the keys below that are "
        "unset; unset: chosen for the time budget.",
    )
    layers: int | None = Field(None, ge=1, le=512, description="Transformer blocks.")
    heads: int | None = Field(None, ge=1, le=512, description="Attention heads in each block.")
    width: int | None = Field(
        None, ge=1, le=65_536, description="Width of the residual stream; a multiple of `heads`."
    )
    context: int | None = Field(
        None, ge=2, le=1_048_576, description="Tokens that the model sees at once."
    )
    dropout: Fraction = Field(
        0.0, description="Share of activations dropped in training (embeddings, attention, MLP)."
    )
    bias: bool = Field(True, description="Biases in linear layers and norms, as GPT-2 has them.")
    qkv_bias: bool = Field(
        True, description="Biases of query, key and value too, where `bias` is on."
    )
    tied: bool = Field(True, description="The output head shares the token embedding's weights.")
    initialisation: Literal["gpt2", "pytorch"] = Field(
        "gpt2",
        description="The first weights: GPT-2's normal ones of deviation 0.02, or what PyTorch's "
        "own layers begin with, for an untied head: embeddings of deviation 1, the rest uniform.",
    )
