"""The sizes of a network, known before any tensor is made (without torch)."""

from dataclasses import dataclass, replace

from hairpin.config.settings import Model as ModelSettings


@dataclass(frozen=True)
class Shape:
    """All properties of a network; sizes are counts, `dropout` is a share.

    `bias` gives linear layers and norms biases, except query, key and value without `qkv_bias`.
    `initialisation` is the distribution of GPT-2's initial weights: "gpt2" or "pytorch". The other
    networks have their own, no biases and no dropout, and `modern` is always untied.
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
        """The inner width of an MLP: four times the stream's. With three matrices instead of two it
        is 8/3 of it, rounded to a multiple of 8, for about as many parameters.
        """
        return 8 * max(1, round(self.width / 3)) if self.architecture == "qwen3" else 4 * self.width

    @property
    def mlp_matrices(self) -> int:
        """The number of C by `inner` matrices in each block."""
        return 3 if self.architecture == "qwen3" else 2

    @classmethod
    def modern(cls, vocabulary: int, context: int, layers: int, heads: int, width: int) -> "Shape":
        """Return a modern network's shape."""
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
        """Return a Qwen3 network's shape."""
        modern = cls.modern(vocabulary, context, layers, heads, width)
        return replace(modern, architecture="qwen3", tied=tied)

    @classmethod
    def of(cls, settings: ModelSettings, vocabulary: int) -> "Shape":
        """Return the shape for completely filled-in settings and a vocabulary."""
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
