"""Filling in a config: open settings are chosen for the text, the machine and the time budget.

    device and initial weights → size → text → micro-batch → precision and speed → length

`hairpin train`, `plan`, `finetune` and the experiments all call `fill_config`; they differ in how
they answer `Measurements`. Settings that the config has stay as they are, and only what an open one
depends on is measured, so that a repeat and a resume use the values of the first run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hairpin.config.checks import FIXED_VOCABULARIES
from hairpin.config.load import with_values
from hairpin.config.settings import Config, Data
from hairpin.data.shards import Prepared
from hairpin.data.split import Survey
from hairpin.errors import ConfigError
from hairpin.model.shape import Shape
from hairpin.planning import choose

_UNLIMITED_TOKENS = 10**15  # of a run without a text, on paper


@dataclass(frozen=True)
class TextSize:
    """A text in tokens, and the settings that it decides.

    Args:
        settings: dotted key → value: vocabulary, split, hash, and the formats that were read.
        train_tokens, val_tokens: their numbers.
        sources: of a mixture, each one's share of training tokens, and its number of tokens.
        longest: tokens of the longest sequence in training; None: the model's context.
    """

    settings: Mapping[str, Any]
    train_tokens: int
    val_tokens: int
    sources: Mapping[str, tuple[float, int]] = field(default_factory=dict, kw_only=True)
    longest: int | None = field(default=None, kw_only=True)

    @staticmethod
    def of(prepared: Prepared) -> "TextSize":
        """Return the size of a text whose tokens are on disk."""
        vocabulary = prepared.tokenizer.vocabulary
        return TextSize(
            text_settings(prepared.survey, prepared.data, vocabulary),
            len(prepared.train),
            len(prepared.val),
            sources={s.name: (s.share, len(s.prepared.train)) for s in prepared.sources},
        )


def text_settings(found: Survey, data: Data, vocabulary: int) -> dict[str, Any]:
    """Return the settings that a text decides, by dotted key.

    Args:
        found: its survey.
        data: its settings as read: with formats and columns, and the weights of sources.
        vocabulary: tokens in the tokenizer's vocabulary.
    """
    values: dict[str, Any] = {"data.hash": found.hash, "tokenizer.vocabulary": vocabulary}
    if data.sources:
        tables = data.model_dump(mode="json", exclude_none=True)["sources"]
        return {**values, "data.sources": tables}
    values |= {"data.split": found.split, "data.column": data.column}
    return values if data.format == "text" else {**values, "data.format": data.format}


class Measurements(Protocol):
    """Measurements of the text and the machine, each made only if an open setting depends on it.

    `hairpin train` measures as it prepares the run (planning/measure/fill_run.py), `hairpin plan`
    measures without training, or estimates on paper (planning/plan/measurements.py).
    """

    @property
    def seconds_left(self) -> Callable[[], float] | None:
        """Seconds left of the time budget; None: there is no budget."""
        ...

    def fill_start(self, config: Config) -> Config:
        """Fill in the device, and the shape of the weights that training starts from."""
        ...

    def flops_per_second(self, config: Config) -> float:
        """Return the floating-point operations a second that training reaches here."""
        ...

    def train_bytes(self, config: Config) -> int:
        """Return the size of the training text."""
        ...

    def text(self, config: Config) -> TextSize | None:
        """Return the text in tokens of the config's tokenizer; None: no text is named.

        Raises:
            CorpusError: it cannot be read, or is too small for the model's context.
        """
        ...

    def usable_gigabytes(self, config: Config) -> float:
        """Return the memory that a run may take (10^9 bytes)."""
        ...

    def time_update(self, config: Config, shape: Shape) -> tuple[Config, float | None]:
        """Fill in precision, compilation, threads, and a micro-batch that fits; return the seconds
        of an update too, None if it was not timed.
        """
        ...


@dataclass(frozen=True)
class Filled:
    """A complete config.

    Args:
        config: all of it, but for what is only known by timing if nothing was timed.
        shape: of the network.
        text: the text in tokens; None: no text is named.
        seconds_per_update: as timed; 0: not timed.
        without_length: the config when only the run's length was open, if the time budget chose
            it; None if the length was set.
        notices: lines for the user about the choices.
    """

    config: Config
    shape: Shape
    text: TextSize | None
    seconds_per_update: float
    without_length: Config | None = None
    notices: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """The tokens that the whole run trains on."""
        assert self.config.train.updates and self.config.train.tokens_per_update
        return self.config.train.updates * self.config.train.tokens_per_update

    @property
    def epochs(self) -> float:
        """Passes over the training text in the whole run."""
        assert self.text
        return self.tokens / self.text.train_tokens

    @property
    def source_epochs(self) -> dict[str, float]:
        """Passes over each source of a mixture in the whole run."""
        assert self.text
        whole = self.epochs * self.text.train_tokens
        return {name: whole * share / size for name, (share, size) in self.text.sources.items()}

    def with_updates(self, updates: int) -> Config:
        """Return the config for another length. Warmup and the evaluation set, already in use, stay
        as they are.
        """
        assert self.without_length and self.text
        used = {
            "schedule.warmup_fraction": None,
            "schedule.warmup_tokens": None,
            "schedule.warmup_updates": self.config.schedule.warmup_updates,
            "evaluate.tokens": self.config.evaluate.tokens,
            "evaluate.train_tokens": self.config.evaluate.train_tokens,
        }
        open_config = with_values(self.without_length, used)
        tokens = self.text.train_tokens
        most = choose.most_updates(open_config, tokens)
        return choose.fill_length(open_config, tokens, min(updates, most))


def fill_config(config: Config, measured: Measurements) -> Filled:
    """Fill in what `config` leaves open, for this text, machine and time budget.

    Args:
        config: as requested; `None` means choose.
        measured: measures the text and the machine.

    Raises:
        ConfigError, CorpusError: the request is impossible.
    """
    config = measured.fill_start(config)
    config = choose.fill_size(
        config,
        seconds_left=measured.seconds_left,
        flops_per_second=lambda: measured.flops_per_second(config),
        train_bytes=lambda: measured.train_bytes(config),
    )
    text = measured.text(config)
    config = with_values(config, text.settings if text else _assumed_vocabulary(config))
    assert config.tokenizer.vocabulary
    shape = Shape.of(config.model, config.tokenizer.vocabulary)
    sequences = replace(shape, context=text.longest) if text and text.longest else shape
    usable = measured.usable_gigabytes
    config = choose.fill_micro_batch(config, sequences, lambda: usable(config))
    config, seconds = measured.time_update(config, shape)
    return _fill_length(Filled(config, shape, text, seconds or 0.0), measured.seconds_left)


def _assumed_vocabulary(config: Config) -> dict[str, Any]:
    """Return the vocabulary of a run without a text."""
    asked = config.tokenizer
    return {"tokenizer.vocabulary": asked.vocabulary or FIXED_VOCABULARIES.get(asked.kind)}


def _fill_length(filled: Filled, seconds_left: Callable[[], float] | None) -> Filled:
    """Fill in the length, and all that follows from it: as requested, by the time budget, or by the
    size of the network.

    Raises:
        ConfigError: the length does not suit the schedule, or depends on what was not measured.
    """
    config, text = filled.config, filled.text
    if text is None and config.train.epochs:
        raise ConfigError("train.epochs: no text given; name it, or give --tokens")
    tokens = text.train_tokens if text else _UNLIMITED_TOKENS
    if choose.is_open(config) and not seconds_left:
        default = choose.default_tokens(filled.shape, tokens)
        config = with_values(config, {"train.tokens": default})
    if not choose.is_open(config):
        return replace(filled, config=choose.fill_length(config, tokens, None))
    assert seconds_left
    if not filled.seconds_per_update:
        raise ConfigError("--budget: the speed could not be measured; give --updates or --tokens")
    config = choose.fill_budgeted_schedule(config)
    fitting = choose.updates_that_fit(seconds_left(), filled.seconds_per_update)
    most = choose.most_updates(config, tokens)
    complete = choose.fill_length(config, tokens, min(fitting, most))
    if fitting <= most:
        return replace(filled, config=complete, without_length=config)
    notice = (
        f"small text for this budget: the run ends early, after {most:,} updates, because longer "
        "training would mostly memorise it; --epochs makes it longer"
    )
    return replace(filled, config=complete, notices=(notice,))
