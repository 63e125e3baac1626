"""Check and answer the request of `hairpin plan`; all errors are reported at once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hairpin.config.checks import FIXED_VOCABULARIES
from hairpin.config.durations import parse_duration
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.checking.check import check_corpus
from hairpin.errors import ConfigError, UserError
from hairpin.launch.request import (
    DEFAULT_CORPUS,
    Text,
    and_also,
    asked_config,
    default_budget_seconds,
    length_of,
)
from hairpin.model.shape import Shape
from hairpin.planning.choose import fill_shape, rung_of
from hairpin.planning.gpus import Gpu, gpu_named, shape_of_count
from hairpin.planning.plan.cluster import ClusterPlan, cluster_plan
from hairpin.planning.plan.counts import parse_count, parse_counts
from hairpin.planning.plan.filled import fill_plan
from hairpin.planning.plan.plan import Plan, plan_of
from hairpin.planning.sizes import count_parameters
from hairpin.runs.watcher import Watcher
from hairpin.system.arguments import AnyPath, Time

T = TypeVar("T")

DEFAULT_GPUS = "8,16,32,64"
DEFAULT_GPU = "H100"
DEFAULT_CONTEXT = 4096
ASSUMED_VOCABULARY = FIXED_VOCABULARIES["gpt2"]
_LEAST_CONTEXT = 2
_MOST_OFF = 0.5  # of the parameters asked for


@dataclass(frozen=True)
class Question:
    """The request of `hairpin plan`, as given.

    Args:
        texts, corpus, config, overrides, settings: as in `hairpin.train`.
        budget: wall time such as "10m".
        tokens: a count such as "140B".
        parameters: a count such as "7B": a network of that size is picked, on paper.
        gpus: counts such as "8,16,32": training on that many cards, on paper.
        gpu: the card.
        context, micro_batch: of the network that is picked.
        out: the run's folder, for the disk that it is on.
    """

    texts: tuple[Text, ...] = ()
    corpus: str | None = None
    config: AnyPath | None = None
    overrides: Iterable[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: Time | None = None
    tokens: str | int | None = None
    parameters: str | int | None = None
    gpus: str | None = None
    gpu: str | None = None
    context: int | None = None
    micro_batch: int | None = None
    out: AnyPath | None = None


def answer(
    asked: Question, watcher: Watcher, *, probe: bool = True, check_text: bool = True
) -> Plan | ClusterPlan:
    """Return a plan of a run, or of training on many cards.

    Args:
        asked: the request.
        watcher: display of slow steps.
        probe: whether this machine is measured.
        check_text: whether the text is checked.

    Raises:
        UserError: the request is invalid; a line for each reason.
    """
    problems: list[str] = []

    def tried(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except UserError as error:
            problems.extend(error.problems)
            return None

    tokens = _or_none(asked.tokens, lambda text: tried(lambda: parse_count(text, "--tokens")))
    count = _or_none(
        asked.parameters, lambda text: tried(lambda: parse_count(text, "--parameters"))
    )
    gpu = tried(lambda: gpu_named(asked.gpu or DEFAULT_GPU))
    cards = tried(lambda: parse_counts(asked.gpus or DEFAULT_GPUS, "--gpus"))
    budget = asked.budget
    seconds = tried(lambda: parse_duration(budget)) if budget else None
    on_paper = asked.parameters is not None or asked.gpus is not None
    named = {"train.tokens": tokens, **(_on_paper(asked) if on_paper else {})}

    def build() -> Config:
        settings = asked.settings
        for key, value in named.items():
            settings = and_also(settings, key, value) if value else settings
        return asked_config(asked.texts, asked.corpus, asked.config, asked.overrides, settings)

    config = tried(build)
    problems += _contradictions(asked, config, on_paper=on_paper)
    if problems:
        raise ConfigError(problems)
    assert config and gpu and cards
    if on_paper:
        return _on_cards(asked, config, gpu, cards, count)
    return _of_a_run(asked, config, seconds, watcher, probe=probe, check_text=check_text)


def _on_paper(asked: Question) -> dict[str, int | None]:
    """Return the settings that have their own flags on paper, after checking them."""
    micro_batch = asked.micro_batch if (asked.micro_batch or 0) >= 1 else None
    context = asked.context if (asked.context or 0) >= _LEAST_CONTEXT else None
    return {"model.context": context, "execution.micro_batch": micro_batch}


def _contradictions(asked: Question, config: Config | None, *, on_paper: bool) -> list[str]:
    problems = []
    for name in ("context", "micro_batch"):
        value = getattr(asked, name)
        least = _LEAST_CONTEXT if name == "context" else 1
        if value is not None and value < least:
            problems.append(f"--{name.replace('_', '-')} {value}: give a count of at least {least}")
        if value is not None and not on_paper:
            key = "model.context" if name == "context" else "execution.micro_batch"
            problems.append(
                f"--{name.replace('_', '-')}: only with --parameters or --gpus; here --set {key}=…"
            )
    if asked.gpu is not None and not on_paper:
        problems.append("--gpu: only with --gpus or --parameters; a plan of a run has all cards")
    if asked.parameters is not None and (
        asked.texts or asked.corpus or asked.budget or (config and config.data.sources)
    ):
        problems.append("--parameters: on paper there is no text and no budget; leave them out")
    if config is None:
        return problems
    if config.start.path or config.finetune.kind:
        problems.append("a plan is of training from nothing; leave out start and finetune")
    model, train = config.model, config.train
    if asked.parameters is not None and (model.size or model.width or model.layers or model.heads):
        problems.append(
            "--parameters: a shape is picked for it; leave out --size, model.width, model.layers "
            "and model.heads"
        )
    if on_paper and train.epochs:
        problems.append("--epochs: on paper there is no text to pass over; give --tokens")
    if asked.parameters is not None and train.updates and not train.tokens_per_update:
        problems.append("--updates: of how many tokens? give --tokens, or train.tokens_per_update")
    if asked.gpus and asked.parameters is None and not (config.model.size or config.model.width):
        problems.append("--gpus: of which network? give --parameters 7B or --size gpt2-xl")
    return problems


def _on_cards(
    asked: Question,
    config: Config,
    gpu: Gpu,
    cards: tuple[int, ...],
    count: int | None,
) -> ClusterPlan:
    vocabulary = config.tokenizer.vocabulary or ASSUMED_VOCABULARY
    micro_batch = config.execution.micro_batch or 1
    if count is not None:
        context = config.model.context or DEFAULT_CONTEXT
        shape = shape_of_count(count, context, vocabulary, config.model.architecture)
        there = count_parameters(shape).total
        if abs(there - count) > _MOST_OFF * count:
            raise ConfigError(
                f"--parameters {asked.parameters}: the nearest network that is 128 wide for each "
                f"layer has {there:,}; name a network with --size"
            )
        return cluster_plan(shape, _tokens_of(config), gpu, cards, micro_batch, picked=True)
    filled = fill_shape(config, rung_of(config.model.size or "gpt2"))
    shape = Shape.of(filled.model, vocabulary)
    return cluster_plan(shape, _tokens_of(filled), gpu, cards, micro_batch, picked=False)


def _tokens_of(config: Config) -> int | None:
    """Return the requested length in tokens; None if it is open."""
    train = config.train
    if train.updates and train.tokens_per_update:
        return train.updates * train.tokens_per_update
    return train.tokens


def _of_a_run(
    asked: Question,
    config: Config,
    seconds: float | None,
    watcher: Watcher,
    *,
    probe: bool,
    check_text: bool,
) -> Plan:
    seconds = seconds or default_budget_seconds(config)
    nothing_said = not (config.model.size or config.model.width or length_of(config))
    if not config.data.is_named and nothing_said:
        config = with_values(config, {"data.corpus": DEFAULT_CORPUS})
        watcher.notice("no text named: the standard library's source, as `hairpin train` takes it")
    folder = Path(asked.out).parent if asked.out else Path("runs")
    folder = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    filled = fill_plan(config, seconds, watcher, probe=probe, folder=folder)
    check = None
    if check_text and filled.text:
        check = check_corpus(config.data, on_progress=watcher.stage)
    watcher.close()
    return plan_of(filled, check, folder)


def _or_none(value: str | int | None, read: Callable[[str], int | None]) -> int | None:
    return None if value is None else read(str(value))
