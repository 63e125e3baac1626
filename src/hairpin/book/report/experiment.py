"""Appendix D from its first listing to its last, with the results recorded.

The order is the appendix's, because everything draws from one random stream: a model's initial
weights, a shuffled pass over a loader (also one that trains nothing, and one that only evaluates)
and dropout. So the printed figures are reproduced on a CPU, on which they were made.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tiktoken
import torch
from torch import nn

from hairpin.book import (
    GPT_CONFIG_124M,
    GPTDatasetV1,
    GPTModel,
    calc_loss_batch,
    create_dataloader_v1,
    find_highest_gradient,
)
from hairpin.book.report.listing import (
    DEVICE,
    EPOCHS,
    Batch,
    CountedLoader,
    Losses,
    train_counted,
)
from hairpin.book.training import Loader
from hairpin.errors import CorpusError, UserError

EXAMPLE_INITIAL_LR, EXAMPLE_PEAK_LR = 1e-4, 1e-2  # of figures D.1 and D.2
EXAMPLE_MIN_LR = 0.1 * EXAMPLE_INITIAL_LR
_SEED = 123
_BATCH_SEQUENCES = 2


@dataclass(frozen=True)
class ListingResults:
    """The results of the listings.

    Args:
        batches: per epoch of the training loader.
        warmup_steps: a fifth of all steps.
        warmup_lrs, cosine_lrs: the rate of each step, as in figures D.1 and D.2.
        example_norm, example_clipped: of the small matrix in section D.3.
        largest_gradient, largest_gradient_clipped: result of `find_highest_gradient` before and
            after clipping to norm 1.
        largest_magnitude: of all entries before clipping, including negative ones.
        losses: one for each evaluation; samples: one for each finished epoch.
        iterations: training steps taken.
        training_seconds: in `train_model`; seconds: total.
    """

    batches: int
    warmup_steps: int
    warmup_lrs: list[float]
    cosine_lrs: list[float]
    example_norm: float
    example_clipped: list[list[float]]
    largest_gradient: float
    largest_gradient_clipped: float
    largest_magnitude: float
    losses: list[Losses]
    samples: list[str]
    iterations: int
    training_seconds: float
    seconds: float


def run_listings(
    text: str,
    *,
    config: Mapping[str, Any] = GPT_CONFIG_124M,
    iterations: int | None = None,
    on_iteration: Callable[[int, int], None] = lambda done, total: None,
) -> ListingResults:
    """Run the appendix; the listings print to standard output.

    Args:
        text: the training text.
        config: the keys of `GPT_CONFIG_124M`.
        iterations: number of training steps of the last listing; None: all 15 epochs. The learning
            rates are those of the whole.
        on_iteration: called before each step with the number of steps done and the total.

    Raises:
        CorpusError: there is not one full batch of training text, or no window of validation text.
        UserError: GPT-2's vocabulary is not available.
    """
    begun = time.perf_counter()
    tokenizer = gpt2_vocabulary()
    model = _new_model(config)
    torch.manual_seed(_SEED)
    train_loader, val_loader = make_loaders(text, config["context_length"])
    steps = len(train_loader) * EPOCHS
    warmup_steps = int(0.2 * steps)
    print(warmup_steps)
    warmup_lrs, _ = _example_rates(model, train_loader, warmup_steps, decays=False)
    cosine_lrs, batch = _example_rates(model, train_loader, warmup_steps, decays=True)
    del model  # 0.65 GB at the book's size
    largest, magnitude, clipped = _gradients(_new_model(config), batch)
    norm, matrix = _clipped_example()
    most = steps if iterations is None else min(iterations, steps)
    model = _new_model(config)
    counted = CountedLoader(train_loader, model, most, on_iteration)
    training_begun = time.perf_counter()
    losses, samples = train_counted(model, counted, val_loader, tokenizer, warmup_steps)
    now = time.perf_counter()
    return ListingResults(
        batches=len(train_loader),
        warmup_steps=warmup_steps,
        warmup_lrs=warmup_lrs,
        cosine_lrs=cosine_lrs,
        example_norm=norm,
        example_clipped=matrix,
        largest_gradient=largest,
        largest_gradient_clipped=clipped,
        largest_magnitude=magnitude,
        losses=losses,
        samples=samples,
        iterations=counted.begun,
        training_seconds=now - training_begun,
        seconds=now - begun,
    )


def gpt2_vocabulary() -> tiktoken.Encoding:
    """Load GPT-2's vocabulary from tiktoken's cache, downloading it if missing.

    Raises:
        UserError: it is not in the cache and there is no network.
    """
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:
        # Whatever failed between here and the server, the remedy is the same.
        raise UserError(
            f"GPT-2's vocabulary cannot be downloaded ({type(error).__name__}); set "
            "TIKTOKEN_CACHE_DIR to a folder that has it"
        ) from error


def make_loaders(text: str, context: int) -> tuple[Loader, Loader]:
    """Build the appendix's loaders: nine tenths of the characters, shuffled, and the rest.

    Raises:
        CorpusError: one of them would be empty, so nothing would be trained or evaluated.
        UserError: GPT-2's vocabulary is not available.
    """
    split = int(0.90 * len(text))
    parts = text[:split], text[split:]
    tokenizer = gpt2_vocabulary()
    train, val = (len(GPTDatasetV1(part, tokenizer, context, context)) for part in parts)
    if train < _BATCH_SEQUENCES or not val:
        raise CorpusError(
            f"too little text: {len(text):,} characters make {train:,} training and {val:,} "
            f"validation windows of {context + 1} tokens, and {_BATCH_SEQUENCES} and 1 are needed; "
            "name a longer one"
        )
    common = {"batch_size": _BATCH_SEQUENCES, "max_length": context, "stride": context}
    return (
        create_dataloader_v1(parts[0], drop_last=True, shuffle=True, **common),
        create_dataloader_v1(parts[1], drop_last=False, shuffle=False, **common),
    )


def _new_model(config: Mapping[str, Any]) -> GPTModel:
    torch.manual_seed(_SEED)
    return GPTModel(config).to(DEVICE)


def _example_rates(
    model: nn.Module, loader: Loader, warmup_steps: int, *, decays: bool
) -> tuple[list[float], Batch]:
    """Return the rates of figure D.1 or D.2 over passes through the loader without training, and
    the last batch of these.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    rates: list[float] = []
    steps = len(loader) * EPOCHS
    passes = itertools.repeat(loader, EPOCHS)
    for batch in itertools.chain.from_iterable(passes):
        last_batch = batch
        rate = _example_rate(len(rates), warmup_steps, steps, decays=decays)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rates.append(optimizer.param_groups[0]["lr"])
    return rates, last_batch


def _example_rate(step: int, warmup_steps: int, steps: int, *, decays: bool) -> float:
    if step < warmup_steps:
        return EXAMPLE_INITIAL_LR + step * ((EXAMPLE_PEAK_LR - EXAMPLE_INITIAL_LR) / warmup_steps)
    if not decays:
        return EXAMPLE_PEAK_LR
    progress = (step - warmup_steps) / (steps - warmup_steps)
    height = 0.5 * (1 + math.cos(math.pi * progress))
    return EXAMPLE_MIN_LR + (EXAMPLE_PEAK_LR - EXAMPLE_MIN_LR) * height


def _gradients(model: GPTModel, batch: Batch) -> tuple[float, float, float]:
    """Return the largest entry of a batch's gradient, the largest by magnitude, and the largest
    after clipping to norm 1.
    """
    calc_loss_batch(*batch, model, DEVICE).backward()  # type: ignore[no-untyped-call]
    largest = find_highest_gradient(model)
    print(largest)
    magnitude = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    clipped = find_highest_gradient(model)
    print(clipped)
    assert largest is not None and clipped is not None
    return float(largest), magnitude, float(clipped)


def _clipped_example() -> tuple[float, list[list[float]]]:
    """Return the norm of section D.3's gradient, and the gradient after clipping to norm 1."""
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    norm = nn.utils.clip_grad_norm_([weight], max_norm=1.0)
    clipped: list[list[float]] = weight.grad.tolist()
    return float(norm), clipped
