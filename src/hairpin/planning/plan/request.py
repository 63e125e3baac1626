"""Check and answer the request of `hairpin plan`; all errors are reported at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hairpin.config.checks import FIXED_VOCABULARIES
from hairpin.config.durations import parse_duration
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.checking.check import check_corpus
from hairpin.errors import ConfigError, UserError
from hairpin.launch.request import (
    DEFAULT_CORPUS,
    Request,
    default_budget_seconds,
    length_of,
    requested_config,
    with_argument,
)
from hairpin.model.shape import Shape
from hairpin.planning.choose import fill_shape, rung_of
from hairpin.planning.gpus import Gpu, gpu_named, shape_of_count
from hairpin.planning.plan.cluster import ClusterPlan, cluster_plan
from hairpin.planning.plan.counts import parse_count, parse_counts
from hairpin.planning.plan.measurements import fill_plan
from hairpin.planning.plan.plan import Plan, plan_of
from hairpin.planning.sizes import count_parameters
from hairpin.runs.watcher import Watcher
from hairpin.system.arguments import as_settings

T = TypeVar("T")

DEFAULT_GPUS = "8,16,32,64"
DEFAULT_GPU = "H100"
DEFAULT_CONTEXT = 4096
ASSUMED_VOCABULARY = FIXED_VOCABULARIES["gpt2"]
_MIN_CONTEXT = 2
_MAX_OFF = 0.5  # of the parameters asked for


@dataclass(frozen=True)
class PlanOptions:
    """Options of `hairpin plan`, beyond the request of a run.

    Args:
        tokens: a count such as "140B".
        parameters: a count such as "7B": a network of that size is picked, on paper.
        gpus: counts such as "8,16,32": training on that many cards, on paper.
        gpu: the card.
        context, micro_batch: of the network that is picked.
    """

    tokens: str | int | None = None
    parameters: str | int | None = None
    gpus: str | None = None
    gpu: str | None = None
    context: int | None = None
    micro_batch: int | None = None


def make_plan(
    request: Request,
    options: PlanOptions,
    watcher: Watcher,
    *,
    probe: bool = True,
    check_text: bool = True,
) -> Plan | ClusterPlan:
    """Return a plan of a run, or of training on many cards.

    Args:
        request: the run.
        options: further options.
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

    tokens = _or_none(options.tokens, lambda text: tried(lambda: parse_count(text, "--tokens")))
    count = _or_none(
        options.parameters, lambda text: tried(lambda: parse_count(text, "--parameters"))
    )
    gpu = tried(lambda: gpu_named(options.gpu or DEFAULT_GPU))
    cards = tried(lambda: parse_counts(options.gpus or DEFAULT_GPUS, "--gpus"))
    budget = request.budget
    seconds = tried(lambda: parse_duration(budget)) if budget else None
    on_paper = options.parameters is not None or options.gpus is not None
    named = {"train.tokens": tokens, **(_on_paper(options) if on_paper else {})}
    config = tried(lambda: _config_with(request, named))
    problems += _conflicts(request, options, config, on_paper=on_paper)
    if problems:
        raise ConfigError(problems)
    assert config and gpu and cards
    if on_paper:
        return _on_cards(options, config, gpu, cards, count)
    return _of_a_run(request, config, seconds, watcher, probe=probe, check_text=check_text)


def _config_with(request: Request, named: Mapping[str, int | None]) -> Config:
    """Return the config of the request, with the settings that have their own options."""
    settings = as_settings(request.settings)
    for key, value in named.items():
        settings = with_argument(settings, key, value) if value else settings
    return requested_config(replace(request, settings=settings))


def _on_paper(options: PlanOptions) -> dict[str, int | None]:
    """Return the settings that have their own flags on paper, after checking them."""
    micro_batch = options.micro_batch if (options.micro_batch or 0) >= 1 else None
    context = options.context if (options.context or 0) >= _MIN_CONTEXT else None
    return {"model.context": context, "execution.micro_batch": micro_batch}


def _conflicts(
    request: Request, options: PlanOptions, config: Config | None, *, on_paper: bool
) -> list[str]:
    problems = []
    for name in ("context", "micro_batch"):
        value = getattr(options, name)
        least = _MIN_CONTEXT if name == "context" else 1
        if value is not None and value < least:
            problems.append(f"--{name.replace('_', '-')} {value}: give a count of at least {least}")
        if value is not None and not on_paper:
            key = "model.context" if name == "context" else "execution.micro_batch"
            problems.append(
                f"--{name.replace('_', '-')}: only with --parameters or --gpus; otherwise use "
                f"--set {key}=…"
            )
    if options.gpu is not None and not on_paper:
        problems.append("--gpu: only with --gpus or --parameters; the plan of a run shows all GPUs")
    if options.parameters is not None and (
        request.texts or request.corpus or request.budget or (config and config.data.sources)
    ):
        problems.append("--parameters: a plan on paper takes no text and no budget; leave them out")
    if config is None:
        return problems
    if config.start.path or config.finetune.kind:
        problems.append("a plan assumes training from random weights; leave out start and finetune")
    model, train = config.model, config.train
    if options.parameters is not None and (
        model.size or model.width or model.layers or model.heads
    ):
        problems.append(
            "--parameters: chooses the shape; leave out --size, model.width, model.layers "
            "and model.heads"
        )
    if on_paper and train.epochs:
        problems.append("--epochs: a plan on paper has no text; give --tokens")
    if options.parameters is not None and train.updates and not train.tokens_per_update:
        problems.append(
            "--updates: the tokens per update are unknown; give --tokens, "
            "or train.tokens_per_update"
        )
    if (
        options.gpus
        and options.parameters is None
        and not (config.model.size or config.model.width)
    ):
        problems.append("--gpus: the network is unknown; give --parameters 7B or --size gpt2-xl")
    return problems


def _on_cards(
    options: PlanOptions,
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
        if abs(there - count) > _MAX_OFF * count:
            raise ConfigError(
                f"--parameters {options.parameters}: the nearest network that is 128 wide for each "
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
    request: Request,
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
        watcher.notice("no text given: using the standard library's source, like `hairpin train`")
    folder = Path(request.out).parent if request.out else Path("runs")
    folder = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    filled = fill_plan(config, seconds, watcher, probe=probe, folder=folder)
    check = None
    if check_text and filled.text:
        check = check_corpus(config.data, on_progress=watcher.stage)
    watcher.close()
    return plan_of(filled, check, folder)


def _or_none(value: str | int | None, read: Callable[[str], int | None]) -> int | None:
    return None if value is None else read(str(value))
