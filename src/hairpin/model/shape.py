"""The sizes of a network, known before any tensor is made (no torch here)."""

from dataclasses import dataclass

from hairpin.config.model import Model as ModelSettings


@dataclass(frozen=True)
class Shape:
    """All that a network depends on; sizes are counts, `dropout` is a share.

    `bias` is of linear layers and norms, and without `qkv_bias` not of query, key and value.
    `initialisation` says where its first weights are drawn from: "gpt2" or "pytorch"; `modern`
    networks have one of their own, no biases, no dropout and a head of their own.
    """

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    dropout: float = 0.0
    bias: bool = True
    tied: bool = True
    qkv_bias: bool = True
    initialisation: str = "gpt2"
    architecture: str = "gpt2"

    @classmethod
    def modern(cls, vocabulary: int, context: int, layers: int, heads: int, width: int) -> "Shape":
        """A modern network's shape."""
        return cls(
            vocabulary,
            context,
            layers,
            heads,
            width,
            bias=False,
            tied=False,
            qkv_bias=False,
            architecture="modern",
        )

    @classmethod
    def of(cls, settings: ModelSettings, vocabulary: int) -> "Shape":
        """The shape that settled settings and a vocabulary make."""
        assert settings.layers and settings.heads and settings.width and settings.context
        return cls(
            vocabulary=vocabulary,
            context=settings.context,
            layers=settings.layers,
            heads=settings.heads,
            width=settings.width,
            dropout=settings.dropout,
            bias=settings.bias,
            tied=settings.tied,
            qkv_bias=settings.qkv_bias,
            initialisation=settings.initialisation,
            architecture=settings.architecture,
        )
