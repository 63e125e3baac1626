"""The sizes of a network, known before any tensor is made (without torch)."""

from dataclasses import dataclass

from hairpin.config.settings import Model as ModelSettings
from hairpin.model.architectures import ARCHITECTURES, PLUGIN, Traits


@dataclass(frozen=True)
class Shape:
    """All properties of a network; sizes are counts, `dropout` is a share.

    `bias` gives linear layers and norms biases, except query, key and value without `qkv_bias`.
    `initialisation` is the distribution of GPT-2's initial weights: "gpt2" or "pytorch". What an
    architecture has no option for (`Traits.options`) is off.
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
    def traits(self) -> Traits:
        """Everything that distinguishes its architecture from others."""
        return ARCHITECTURES.get(self.architecture, PLUGIN)

    @property
    def is_built_in(self) -> bool:
        """True if the network is hairpin's own, not a plugin's."""
        return self.architecture in ARCHITECTURES

    @property
    def head_width(self) -> int:
        """The width of an attention head."""
        return self.width // self.heads

    @property
    def inner(self) -> int:
        """The inner width of an MLP: four times the stream's. With three matrices instead of two it
        is 8/3 of it, rounded to a multiple of 8, for about as many parameters.
        """
        return 8 * max(1, round(self.width / 3)) if self.traits.gated else 4 * self.width

    @property
    def mlp_matrices(self) -> int:
        """The number of C by `inner` matrices in each block."""
        return 3 if self.traits.gated else 2

    @classmethod
    def default(
        cls,
        architecture: str,
        vocabulary: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        *,
        tied: bool | None = None,
    ) -> "Shape":
        """Return the shape of an architecture with its own options, unless `tied` is set."""
        traits = ARCHITECTURES.get(architecture, PLUGIN)
        return cls(
            vocabulary,
            context,
            layers,
            heads,
            width,
            bias="bias" in traits.options,
            tied=traits.tied if tied is None else tied,
            qkv_bias="qkv_bias" in traits.options,
            architecture=architecture,
        )

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
