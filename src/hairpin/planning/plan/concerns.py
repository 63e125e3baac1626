"""Warnings before a run begins, one line each."""

from collections.abc import Iterator

from hairpin.planning.amounts import CHINCHILLA_TOKENS_PER_PARAMETER, EPOCHS_AS_NEW
from hairpin.planning.plan.costs import Costs
from hairpin.reports.formats import format_bytes

_FEW_UPDATES = 100


def concerns(plan: Costs) -> tuple[str, ...]:
    """Return warnings about the run; `checked` has those about the text itself."""
    return (*plan.schedule.warnings, *_amounts(plan), *_room(plan))


def _amounts(plan: Costs) -> Iterator[str]:
    updates, batch = plan.schedule.updates, plan.tokens_per_update
    train_tokens, epochs = plan.amount.train_tokens, plan.amount.epochs
    if updates < _FEW_UPDATES:
        yield (
            f"{updates:,} updates are few: the learning rate has hardly risen before it falls; "
            "smaller batches (train.tokens_per_update) make more of them"
        )
    if train_tokens and batch > train_tokens:
        yield (
            f"an update takes {batch:,} tokens and the training text has {train_tokens:,}: each "
            "sees some of it twice; take fewer (train.tokens_per_update)"
        )
    ratio = plan.amount.tokens_per_parameter / CHINCHILLA_TOKENS_PER_PARAMETER
    if not 0.25 <= ratio <= 10:
        few = "few" if ratio < 1 else "many"
        yield (
            f"{plan.amount.tokens_per_parameter:.3g} tokens a parameter are {few}, where about "
            f"{CHINCHILLA_TOKENS_PER_PARAMETER:.0f} make the most of the computing"
        )
    if epochs and epochs > EPOCHS_AS_NEW:
        yield (
            f"{epochs:.3g} passes over the training text, where more than {EPOCHS_AS_NEW:.0f} are "
            "worth less and less: more text is better than more passes"
        )


def _room(plan: Costs) -> Iterator[str]:
    if plan.fits is False:
        assert plan.free_memory_bytes is not None
        yield (
            f"it does not fit: about {format_bytes(plan.memory.total)} of memory are needed and "
            f"{format_bytes(plan.free_memory_bytes)} are free; smaller: "
            "execution.micro_batch, model.context or --size"
        )
    if not plan.disk.fits:
        less = "; checkpoint.keep=1 needs less" if plan.config.checkpoint.keep > 1 else ""
        yield f"the disk is too small: {plan.disk.words()}{less}"
    if plan.not_measured:
        yield plan.not_measured
