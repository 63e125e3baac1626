"""Judging the amount of training by published results."""

from dataclasses import dataclass

# Hoffmann et al. 2022 (Chinchilla), table 3: for a given amount of compute the loss is lowest at
# about 20 tokens per parameter.
CHINCHILLA_TOKENS_PER_PARAMETER = 20.0
# Muennighoff et al. 2023, section 6: for up to four epochs repeated text is nearly as good as new;
# its value decays from there, and after 16 little is left.
EPOCHS_AS_NEW = 4.0
EPOCHS_OF_WORTH = 16.0
_ABOUT_ONE = 1.05


@dataclass(frozen=True)
class Amount:
    """The number of tokens of a run.

    Args:
        tokens: that it trains on, including repetitions.
        parameters: of the network.
        train_tokens: in the training text; None: unknown.
    """

    tokens: int
    parameters: int
    train_tokens: int | None

    @property
    def tokens_per_parameter(self) -> float:
        """The tokens trained on per parameter."""
        return self.tokens / self.parameters

    @property
    def epochs(self) -> float | None:
        """The number of passes over the training text; None: unknown."""
        return self.tokens / self.train_tokens if self.train_tokens else None

    def judgement(self) -> str:
        """Explain what the tokens per parameter mean for this run (Hoffmann et al. 2022)."""
        ratio = self.tokens_per_parameter
        if ratio < CHINCHILLA_TOKENS_PER_PARAMETER / 4:
            return (
                "far too few for this size: the same compute in a smaller network, trained "
                "longer, gives a lower loss"
            )
        if ratio < CHINCHILLA_TOKENS_PER_PARAMETER / 2:
            return (
                "fewer than is best for this compute: a somewhat smaller network would do as well"
            )
        if ratio <= 2 * CHINCHILLA_TOKENS_PER_PARAMETER:
            return "near the best use of this compute"
        return (
            "more than is best for this training compute: a larger network would reach a lower "
            "loss; a small one that is trained long is cheaper to use"
        )

    def epochs_judgement(self) -> str | None:
        """Explain what the number of passes over the text means (Muennighoff et al. 2023)."""
        epochs = self.epochs
        if epochs is None:
            return None
        if epochs <= 1:
            return "no text is repeated"
        if epochs <= _ABOUT_ONE:
            return "hardly any text is repeated"
        if epochs <= EPOCHS_AS_NEW:
            return "up to four passes are nearly as good as new text"
        if epochs <= EPOCHS_OF_WORTH:
            return "past four passes each one teaches less, and more is memorised"
        return "past sixteen passes hardly anything is learned: the text is memorised"
