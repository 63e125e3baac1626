"""The sizes of a network, known before any tensor is made (no torch here)."""

from dataclasses import dataclass, replace

from hairpin.config.model import Model as ModelSettings


@dataclass(frozen=True)
class Shape:
    """All that a network depends on; sizes are counts, `dropout` is a share.

    `bias` is of linear layers and norms, and without `qkv_bias` not of query, key and value.
    `initialisation` says where GPT-2's first weights are drawn from: "gpt2" or "pytorch". The other
    networks have one of their own, no biases and no dropout, and `modern` a head of its own.
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

    @property
    def inner(self) -> int:
        """Width inside an MLP: four times the stream's. Of three matrices in place of two it is 8/3
        of it, to the nearest multiple of 8, which makes about as many parameters.
        """
        return 8 * max(1, round(self.width / 3)) if self.architecture == "qwen3" else 4 * self.width

    @property
    def mlp_matrices(self) -> int:
        """Of C by `inner` numbers, in each block."""
        return 3 if self.architecture == "qwen3" else 2

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
    def qwen3(
        cls,
        vocabulary: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        *,
        tied: bool = False,
    ) -> "Shape":
        """A Qwen3 network's shape."""
        modern = cls.modern(vocabulary, context, layers, heads, width)
        return replace(modern, architecture="qwen3", tied=tied)

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
