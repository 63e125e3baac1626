"""Rules about the network that span several keys."""

from collections.abc import Iterator

from hairpin.config.recipes import SIZES
from hairpin.config.settings import Config
from hairpin.model.architectures import ARCHITECTURES


def shapes(config: Config) -> Iterator[str]:
    """Yield a line for each two dimensions that do not fit each other."""
    model = config.model
    if model.size is not None and model.size not in SIZES:
        yield f"model.size: there is no {model.size!r}; choose one of {', '.join(SIZES)}"
    width, heads, context = (_sized(config, name) for name in ("width", "heads", "context"))
    if width and heads and width % heads:
        yield (
            f"model.width: {width}{_whose(config, 'width')} is not a multiple of model.heads, "
            f"{heads}{_whose(config, 'heads')}"
        )
    tokens = config.train.tokens_per_update
    if tokens and context and tokens % context:
        nearest = max(1, round(tokens / context)) * context
        yield (
            f"train.tokens_per_update: {tokens} is not a multiple of model.context, "
            f"{context}{_whose(config, 'context')}; {nearest} is"
        )


def _sized(config: Config, name: str) -> int | None:
    """Return a dimension of the network: as it is set, or as a named size has it."""
    size = {} if config.start.path else SIZES.get(config.model.size or "", {})
    dimension: int | None = getattr(config.model, name) or size.get(name)
    return dimension


def _whose(config: Config, name: str) -> str:
    """Name the size that a dimension comes from; nothing if it has a value of its own."""
    return "" if getattr(config.model, name) else f" of model.size={config.model.size}"


def architecture(config: Config) -> Iterator[str]:
    """Yield a line for each setting that the architecture does not support."""
    model = config.model
    traits = ARCHITECTURES.get(model.architecture)
    if traits is None:  # a plugin's decides itself what it takes
        return
    network = f"a {model.architecture} network (model.architecture)"
    # A trained model keeps its network, whatever the recipe.
    another = "" if config.start.path else ", or take --recipe gpt2"
    for name in ("bias", "qkv_bias", "tied"):
        if getattr(model, name) and name not in traits.options:
            yield f"model.{name}: {network} does not support it; set it to false{another}"
    if model.dropout and "dropout" not in traits.options:
        yield f"model.dropout: {network} does not support it; set it to 0{another}"
    if model.initialisation != "gpt2" and "initialisation" not in traits.options:
        yield f"model.initialisation: {network} has its own vocabulary; remove the key"
    width, heads = _sized(config, "width"), _sized(config, "heads")
    if traits.rotary and width and heads and width % (2 * heads) == heads:
        yield (
            f"model.heads: heads of {width // heads} cannot be rotated in halves; model.width, "
            f"{width}{_whose(config, 'width')}, by model.heads, {heads}{_whose(config, 'heads')}, "
            "must be even"
        )
